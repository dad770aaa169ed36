package chaos

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"
)

// began is what all times of a run are counted from, by the monotonic clock.
var began = time.Now()

// now is the time of the run. It is never 0.
func now() time.Duration { return time.Since(began) + 1 }

// credential is one that the load shows, and what is known of its life. Whoever
// ends it says so before, and after it was acknowledged:
//
//	c.ends()
//	if revoke(c) == nil {
//		c.ended()
//	}
//
// In between both answers are right, and for ever where nothing was acknowledged.
type credential struct {
	name    string            // for messages
	user    string            // whom it stands for
	policy  string            // that is asked about
	headers map[string]string // that show it

	of           *credential  // the same under another policy, which alone knows when it ends
	begins, done atomic.Int64 // times of its end; use the methods
}

func (c *credential) ends()  { c.life().begins.CompareAndSwap(0, int64(now())) }
func (c *credential) ended() { c.life().done.CompareAndSwap(0, int64(now())) }

// ending is when its end began, over when that was acknowledged. 0: not yet.
func (c *credential) ending() time.Duration { return time.Duration(c.life().begins.Load()) }
func (c *credential) over() time.Duration   { return time.Duration(c.life().done.Load()) }

func (c *credential) life() *credential {
	if c.of != nil {
		return c.of
	}
	return c
}

// under is the same credential under another policy: it ends with it.
func (c *credential) under(policy string) *credential {
	return &credential{name: c.name + ", " + policy, user: c.user, policy: policy, headers: c.headers, of: c.life()}
}

// answer is what came of a check.
type answer struct {
	status int    // as the client gets it; 200: the request passes
	user   string // whom the service is told
	err    error  // there was no answer
}

// door is where checks are made: the check listener, or a gateway in front of it.
type door interface {
	ask(ctx context.Context, c *credential) answer
}

// verdict is what an answer was worth.
type verdict int

const (
	right   verdict = iota
	unknown         // it can't be known now, said by 503
	wrong
)

// judge judges an answer. over is what the credential's was when the check was
// sent; stale is how long after its acknowledged end a credential may still be
// good.
func judge(c *credential, a answer, over, sent, got, stale time.Duration) (verdict, string) {
	switch {
	case a.err != nil:
		return wrong, "no answer: " + a.err.Error()
	case a.status == http.StatusServiceUnavailable:
		return unknown, ""
	case a.status == http.StatusOK && a.user != c.user:
		return wrong, fmt.Sprintf("passes as %q", a.user)
	case a.status == http.StatusOK && over != 0 && sent > over+stale:
		return wrong, fmt.Sprintf("passes %v after its acknowledged end", sent-over)
	case a.status == http.StatusOK:
		return right, ""
	case a.status == http.StatusUnauthorized:
		if ending := c.ending(); ending == 0 || got < ending {
			return wrong, "a good credential is called bad"
		}
		return right, ""
	}
	return wrong, fmt.Sprintf("status %d", a.status)
}
