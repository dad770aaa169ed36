package main

import (
	"net/http"

	"github.com/gatehouse-auth/gatehouse/authz/authapi"
	"github.com/gatehouse-auth/gatehouse/authz/config"
	"github.com/gatehouse-auth/gatehouse/authz/forwardauth"
)

// withForwardAuth returns what the http listener serves: the door for proxies
// that ask by HTTP, and the auth API for all else.
func (g *gate) withForwardAuth(auth http.Handler, cfg *config.Config, recorder forwardauth.Recorder) *httpDoor {
	door := forwardauth.NewHandler(g.authorizer, forwardauth.Options{
		Headers:          cfg.Identity.Headers.Authz(),
		MaxHeaderBytes:   cfg.Identity.MaxHeaderBytes,
		TrustedHops:      cfg.Server.HTTP.TrustedHops,
		StripCredentials: cfg.Identity.StripCredentials,
		SessionCookie:    cfg.Sessions.Cookie.Name,
		Recorder:         recorder,
	})
	return &httpDoor{forward: door, auth: auth, most: int64(cfg.Server.HTTP.MaxConcurrent)}
}

// httpDoor is what the http listener serves.
type httpDoor struct {
	forward *forwardauth.Handler
	auth    http.Handler
	most    int64 // requests under way; 0: any number
}

// serve answers a request, of so many that are under way, and reports whether it
// was shed because there are too many.
func (d *httpDoor) serve(w http.ResponseWriter, r *http.Request, underWay int64) (shed bool) {
	asked := r.URL.Path == forwardauth.Path
	switch shed = d.most > 0 && underWay > d.most; {
	case shed && asked:
		d.forward.Shed(w, r)
	case shed:
		authapi.Shed(w, r)
	case asked:
		d.forward.ServeHTTP(w, r)
	default:
		d.auth.ServeHTTP(w, r)
	}
	return shed
}

// ServeHTTP answers a request that is alone.
func (d *httpDoor) ServeHTTP(w http.ResponseWriter, r *http.Request) { d.serve(w, r, 0) }
