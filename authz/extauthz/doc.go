// Package extauthz is the door through which Envoy asks: the gRPC service
// envoy.service.auth.v3.Authorization over an [authz.Authorizer].
//
//	server := extauthz.NewServer(authorizer, extauthz.Options{})
//	authv3.RegisterAuthorizationServer(grpcServer, server)
//
// One Check goes newRequest → Authorize → okResponse or deniedResponse, and
// these two functions are the only places that build a reply. That matters:
// Envoy reads an empty CheckResponse, or a denied arm whose status is OK, as
// allow; and it turns a gRPC error into an allow under failure_mode_allow. So
// a Check never returns an error, and every refusal, an outage and a panic
// included, is a denied arm with a status that is not OK.
//
// The package leaves transport, health and reflection to its caller.
package extauthz
