package main

import (
	"net/http"

	"github.com/gatehouse-auth/gatehouse/authz/config"
	"github.com/gatehouse-auth/gatehouse/authz/forwardauth"
)

// withForwardAuth returns what the http listener serves: the door for proxies
// that ask by HTTP, and the auth API for all else.
func (g *gate) withForwardAuth(auth http.Handler, cfg *config.Config, recorder forwardauth.Recorder) http.Handler {
	door := forwardauth.NewHandler(g.authorizer, forwardauth.Options{
		Headers:          cfg.Identity.Headers.Authz(),
		MaxHeaderBytes:   cfg.Identity.MaxHeaderBytes,
		TrustedHops:      cfg.Server.HTTP.TrustedHops,
		StripCredentials: cfg.Identity.StripCredentials,
		SessionCookie:    cfg.Sessions.Cookie.Name,
		Recorder:         recorder,
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == forwardauth.Path {
			door.ServeHTTP(w, r)
			return
		}
		auth.ServeHTTP(w, r)
	})
}
