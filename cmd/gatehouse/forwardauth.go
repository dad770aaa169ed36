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
	// Serve answers a call, which gets its places or not.
	Serve(w http.ResponseWriter, r *http.Request, places authapi.Places)
}

// underWay counts the requests of the http listener that are; and calls whose bodies
// are still to come.
type underWay struct{ forward, auth, receiving atomic.Int64 }

// receivingMore is how many times as many bodies may be waited for as there may be calls
// under way: they take memory only, up to 64 KiB each.
const receivingMore = 4

// places are those of one request, of most.
type places struct {
	most           int64
	all, receiving *atomic.Int64
	entered, shed  bool
}

// take adds one to count, unless there are as many already.
func (p *places) take(count *atomic.Int64, most int64) bool {
	if n := count.Add(1); most > 0 && n > most {
		count.Add(-1)
		p.shed = true
		return false
	}
	return true
}

// Enter implements [authapi.Places].
func (p *places) Enter() bool {
	p.entered = p.take(p.all, p.most)
	return p.entered
}

// Receive implements [authapi.Places].
func (p *places) Receive() (received func(), ok bool) {
	return func() { p.receiving.Add(-1) }, p.take(p.receiving, receivingMore*p.most)
}

// Leave implements [authapi.Places].
func (p *places) Leave() {
	if p.entered {
		p.entered = false
		p.all.Add(-1)
	}
}

// serve answers a request, and reports whether it was shed because there are too many.
func (d *httpDoor) serve(w http.ResponseWriter, r *http.Request, all *underWay) (shed bool) {
	p := &places{most: d.most, all: &all.auth, receiving: &all.receiving}
	forward := r.URL.Path == forwardauth.Path
	if forward {
		p.all = &all.forward
	}
	defer p.Leave()
	switch {
	case !forward:
		d.auth.Serve(w, r, p)
	case p.Enter():
		d.forward.ServeHTTP(w, r)
	default:
		d.forward.Shed(w, r)
	}
	return p.shed
}
