// Package limit counts requests in Redis, so that all replicas share a limit.
//
//	limiter, err := limit.New(client, map[string]limit.Limit{
//		"partner": {By: limit.User, Requests: 100, Per: time.Minute, Burst: 20},
//	}, limit.Options{})
//	authorizer := authz.NewAuthorizer(policies, authz.Options{Limiter: limiter}, …)
//
// The algorithm is GCRA (a leaky bucket that keeps one number), by redis_rate:
// one script and one key per limit and caller, in one round trip. Requests of
// one caller are spread evenly at Requests per Per, and up to Burst may come at
// once; one that is refused costs nothing of the limit. An address of IPv6 counts
// as its /64.
//
// Keys are rate:gatehouse:limit:<name>:<by>:<hash of the limit's figures and the
// value> (redis_rate puts the first part there), and live until the limit is whole
// again. Time is the Redis server's.
package limit

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/redisguard"
)

// By says whose requests are counted together.
type By string

// The values of [Limit.By]. A request that has no such value (a token has no
// session) counts by address.
const (
	User         By = "user"
	Session      By = "session"
	Organization By = "org"
	APIKey       By = "api_key"
	Address      By = "address"
)

// Limit is one limit.
type Limit struct {
	By       By            // "" is Address
	Requests int           // per Per; at least 1
	Per      time.Duration // at least a millisecond
	Burst    int           // at most so many at once; 0 is Requests
	// AllowOnOutage lets everything through while the counters are out of
	// reach. Else such a request is refused with 503.
	AllowOnOutage bool
}

// Options of a [Limiter]. The zero value is usable.
type Options struct {
	Timeout time.Duration // of a round trip; default 100ms
}

const defaultTimeout = 100 * time.Millisecond

// Limiter implements [authz.Limiter]. Safe for concurrent use.
//
// A store that doesn't answer costs some requests the timeout. From then on all take it
// to be out of reach at once, until it answers again: those of all that ask by the same
// client, package session's included, find that out together.
type Limiter struct {
	rate   *redis_rate.Limiter
	limits map[string]named
	o      Options
}

// named is a limit, and what the hashes of its keys begin with: its figures. Other
// figures count anew. What was counted by the old ones could keep a caller waiting
// for much longer than the new ones allow.
type named struct {
	Limit
	figures string
}

var _ authz.Limiter = (*Limiter)(nil)

// New returns a limiter. It doesn't connect. Its error names every limit that
// makes no sense.
func New(client redis.UniversalClient, limits map[string]Limit, o Options) (*Limiter, error) {
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	redisguard.Of(client) // watches it
	l := &Limiter{rate: redis_rate.NewLimiter(client), limits: make(map[string]named, len(limits)), o: o}
	var errs []error
	for name, limit := range limits {
		if strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' }) {
			errs = append(errs, fmt.Errorf("limit %q: clients see its name, which must be visible ASCII without quotes and backslashes", name))
		}
		if limit.Requests < 1 || limit.Per < time.Millisecond || limit.Burst < 0 {
			errs = append(errs, fmt.Errorf("limit %q: wants at least 1 request per at least 1ms, and a burst that is not negative", name))
		}
		switch limit.By {
		case "":
			limit.By = Address
		case User, Session, Organization, APIKey, Address:
		default:
			errs = append(errs, fmt.Errorf("limit %q counts by %q, which is none of user, session, org, api_key and address", name, limit.By))
		}
		if limit.Burst == 0 {
			limit.Burst = limit.Requests
		}
		l.limits[name] = named{limit, fmt.Sprintf("%d/%d/%d:", limit.Requests, limit.Per, limit.Burst)}
	}
	return l, errors.Join(errs...)
}

// Allow implements [authz.Limiter]. A limit that does not exist refuses with
// [authz.ReasonInternal]: a name in a policy must never mean "no limit".
func (l *Limiter) Allow(ctx context.Context, name string, r *authz.Request, p *authz.Principal) (authz.Quota, error) {
	return l.take(ctx, 1, name, r, p)
}

// Peek implements [authz.Limiter].
func (l *Limiter) Peek(ctx context.Context, name string, r *authz.Request, p *authz.Principal) (authz.Quota, error) {
	return l.take(ctx, 0, name, r, p)
}

// take counts n requests. None are refused when one more would be.
func (l *Limiter) take(ctx context.Context, n int, name string, r *authz.Request, p *authz.Principal) (authz.Quota, error) {
	limit, ok := l.limits[name]
	if !ok {
		return authz.Quota{}, authz.Refuse(authz.ReasonInternal, "there is no rate limit %q", name)
	}
	q := authz.Quota{Limit: name, Requests: limit.Requests, Per: limit.Per, Burst: limit.Burst}
	result, err := l.ask(ctx, n, key(name, limit, r, p), redis_rate.Limit{Rate: limit.Requests, Burst: limit.Burst, Period: limit.Per})
	switch {
	case errors.Is(err, redisguard.ErrOverloaded): // nobody gets around a limit by asking too often
		return authz.Quota{}, authz.Refuse(authz.ReasonOverloaded, "count requests of limit %q: %w", name, err)
	case err != nil && limit.AllowOnOutage:
		q.Uncounted = fmt.Errorf("count requests of limit %q: %w", name, err)
		return q, nil
	case err != nil:
		return authz.Quota{}, authz.Refuse(authz.ReasonStoreUnavailable, "count requests of limit %q: %w", name, err)
	}
	q.Remaining, q.Next = left(limit.Limit, result.ResetAfter)
	refused := n == 0 && q.Remaining == 0
	if n > 0 && result.Allowed == 0 {
		q.Remaining, q.Next, refused = 0, result.RetryAfter, true
	}
	if refused {
		return q, authz.Refuse(authz.ReasonRateLimited, "limit %q is used up", name)
	}
	return q, nil
}

// ask is the one round trip.
func (l *Limiter) ask(ctx context.Context, n int, key string, rate redis_rate.Limit) (*redis_rate.Result, error) {
	ctx, cancel := redisguard.Lookup(ctx, l.o.Timeout)
	defer cancel()
	return l.rate.AllowN(ctx, key, rate, n)
}

// left is what remains of a limit that will be whole again after reset, and when
// there will be one more.
func left(l Limit, reset time.Duration) (remaining int, next time.Duration) {
	// What one request takes, in seconds. The store counts in fractions of them,
	// which it can't represent: a microsecond is no request.
	every := l.Per.Seconds() / float64(l.Requests)
	used := math.Ceil((reset.Seconds() - 1e-6) / every)
	used = min(max(used, 0), float64(l.Burst))
	if used == 0 {
		return l.Burst, 0
	}
	wait := reset.Seconds() - (used-1)*every
	return l.Burst - int(used), time.Duration(max(wait, 0) * float64(time.Second))
}

// key returns what counts a caller's requests. The value is hashed: a session
// id must not stand in clear under a name of ours, and no value can reach into
// another one's key.
func key(name string, limit named, r *authz.Request, p *authz.Principal) string {
	by, value := limit.By, ""
	if p != nil {
		switch by {
		case User:
			value = p.ID
		case Session:
			value = p.SessionID
		case Organization:
			value = p.Organization
		case APIKey:
			value = p.APIKey
		case Address: // below
		}
	}
	if value == "" {
		by, value = Address, networkOf(r.Address)
	}
	sum := sha256.Sum256([]byte(limit.figures + value))
	return "gatehouse:limit:" + name + ":" + string(by) + ":" + base64.RawURLEncoding.EncodeToString(sum[:16])
}
