package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// KindSignedURL is the kind's name in a policy.
const KindSignedURL authz.Kind = "signed_url"

// Names of the parameters that a signed URL ends with, in this order.
const (
	paramUser      = "u"
	paramExpires   = "e" // Unix seconds
	paramSignature = "s"
)

// SignedURLs authenticates by a link that somebody was given: to download one
// file, until a certain time. Safe for concurrent use.
type SignedURLs struct {
	Key []byte
	Now func() time.Time
}

var _ authz.Authenticator = (*SignedURLs)(nil)

// Sign returns the target, a path with or without a query, as a link of the user's
// for GET.
func (s *SignedURLs) Sign(target, user string, expires time.Time) string {
	separator := "?"
	if strings.Contains(target, "?") {
		separator = "&"
	}
	unsigned := target + separator + paramUser + "=" + url.QueryEscape(user) + "&" + paramExpires + "=" + strconv.FormatInt(expires.Unix(), 10)
	return unsigned + "&" + paramSignature + "=" + s.mac("GET "+unsigned)
}

func (s *SignedURLs) mac(text string) string {
	h := hmac.New(sha256.New, s.Key)
	h.Write([]byte(text))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// Kind implements [authz.Authenticator].
func (*SignedURLs) Kind() authz.Kind { return KindSignedURL }

// Credential implements [authz.Authenticator]. A request with the parameter s shows
// a signed URL, be it a malformed one: then no other kind is asked. The value is all
// that is signed, since Authenticate doesn't see the request. HEAD is as good as GET.
func (*SignedURLs) Credential(r *authz.Request) (value string, present bool) {
	if !strings.Contains("&"+r.Query, "&"+paramSignature+"=") {
		return "", false
	}
	method := r.Method
	if method == "HEAD" {
		method = "GET"
	}
	return method + " " + r.RawPath + "?" + r.Query, true
}

// Authenticate implements [authz.Authenticator].
func (s *SignedURLs) Authenticate(ctx context.Context, value string, _ *authz.Policy) (*authz.Principal, error) {
	began := time.Now()
	user, err := s.verify(value)
	// What 'gatehouse explain' would print; nothing, where nobody asks.
	authz.TraceFrom(ctx).Add(authz.StageProof, "signature", began, err, "")
	if err != nil {
		return nil, err
	}
	return &authz.Principal{Identity: authz.Identity{ID: user, Roles: []string{"guest"}}, Kind: KindSignedURL}, nil
}

func (s *SignedURLs) verify(value string) (user string, err error) {
	unsigned, signature, ok := strings.Cut(value, "&"+paramSignature+"=")
	if !ok || !hmac.Equal([]byte(signature), []byte(s.mac(unsigned))) {
		return "", authz.Refuse(authz.ReasonCredentialInvalid, "the signature is not ours")
	}
	_, query, _ := strings.Cut(unsigned, "?")
	values, err := url.ParseQuery(query) // signed, so it is what Sign wrote
	if err != nil {
		return "", authz.Refuse(authz.ReasonCredentialInvalid, "the query: %w", err)
	}
	// The last of them is ours; a target that has one of that name comes before.
	last := func(name string) string {
		all := values[name]
		if len(all) == 0 {
			return ""
		}
		return all[len(all)-1]
	}
	expires, err := strconv.ParseInt(last(paramExpires), 10, 64)
	if err != nil {
		return "", authz.Refuse(authz.ReasonCredentialInvalid, "%w", errors.New("no time of expiry"))
	}
	if !s.Now().Before(time.Unix(expires, 0)) {
		return "", authz.Refuse(authz.ReasonCredentialInvalid, "expired at %s", time.Unix(expires, 0).UTC())
	}
	return last(paramUser), nil
}
