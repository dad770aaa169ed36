package session_test

import (
	"github.com/gatehouse-auth/gatehouse/authz/authapi"
	"github.com/gatehouse-auth/gatehouse/authz/session"
)

// All that the auth API asks of a store.
var _ authapi.Store = (*session.Store)(nil)
