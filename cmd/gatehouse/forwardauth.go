package main

import (
	"net/http"
	"sync/atomic"

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
	most    int64 // requests under way, of each of the two; 0: any number
}

// underWay counts the requests of the http listener that are. A client that sends its
// call slowly holds its place among the calls, and none of those who ask for others.
type underWay struct{ forward, auth atomic.Int64 }

// serve answers a request, and reports whether it was shed because there are too many.
func (d *httpDoor) serve(w http.ResponseWriter, r *http.Request, all *underWay) (shed bool) {
	count, answer, refuse := &all.auth, d.auth.ServeHTTP, authapi.Shed
	if r.URL.Path == forwardauth.Path {
		count, answer, refuse = &all.forward, d.forward.ServeHTTP, d.forward.Shed
	}
	n := count.Add(1)
	defer count.Add(-1)
	if d.most > 0 && n > d.most {
		refuse(w, r)
		return true
	}
	answer(w, r)
	return false
}
