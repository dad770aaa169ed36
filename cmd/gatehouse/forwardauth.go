package main

import (
	"net/http"
	"sync/atomic"

	"github.com/gatehouse-auth/gatehouse/authz/config"
	"github.com/gatehouse-auth/gatehouse/authz/forwardauth"
)

// withForwardAuth returns what the http listener serves: the door for proxies
// that ask by HTTP, and the auth API for all else.
func (g *gate) withForwardAuth(auth authDoor, cfg *config.Config, recorder forwardauth.Recorder) *httpDoor {
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
	auth    authDoor
	most    int64 // requests under way, of each of the two; 0: any number
}

// authDoor is the auth API.
type authDoor interface {
	// Serve answers a call, which enter gives a place or not.
	Serve(w http.ResponseWriter, r *http.Request, enter func() bool)
}

// underWay counts the requests of the http listener that are.
type underWay struct{ forward, auth atomic.Int64 }

// serve answers a request, and reports whether it was shed because there are too many.
func (d *httpDoor) serve(w http.ResponseWriter, r *http.Request, all *underWay) (shed bool) {
	count := &all.auth
	if r.URL.Path == forwardauth.Path {
		count = &all.forward
	}
	entered := false
	enter := func() bool {
		n := count.Add(1)
		if entered = d.most <= 0 || n <= d.most; !entered {
			count.Add(-1)
		}
		shed = !entered
		return entered
	}
	defer func() {
		if entered {
			count.Add(-1)
		}
	}()
	switch {
	case count == &all.auth:
		d.auth.Serve(w, r, enter)
	case enter():
		d.forward.ServeHTTP(w, r)
	default:
		d.forward.Shed(w, r)
	}
	return shed
}
