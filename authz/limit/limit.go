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
// once; one that is refused costs nothing of the limit.
//
// Keys are rate:gatehouse:limit:<name>:<by>:<hash of the value> (redis_rate puts
// the first part there), and live until the limit is whole again. Time is the
// Redis server's.
package limit

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/authz"
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
	// OnOutage, where not nil, is told of each request that was let through
	// uncounted.
	OnOutage func(error)
}

const defaultTimeout = 100 * time.Millisecond

// Limiter implements [authz.Limiter]. Safe for concurrent use.
type Limiter struct {
	rate   *redis_rate.Limiter
	limits map[string]Limit
	o      Options
}

var _ authz.Limiter = (*Limiter)(nil)

// New returns a limiter. It doesn't connect. Its error names every limit that
// makes no sense.
func New(client redis.UniversalClient, limits map[string]Limit, o Options) (*Limiter, error) {
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	l := &Limiter{rate: redis_rate.NewLimiter(client), limits: make(map[string]Limit, len(limits)), o: o}
	var errs []error
	for name, limit := range limits {
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
		l.limits[name] = limit
	}
	return l, errors.Join(errs...)
}

// Allow implements [authz.Limiter]. A limit that does not exist refuses with
// [authz.ReasonInternal]: a name in a policy must never mean "no limit".
func (l *Limiter) Allow(ctx context.Context, name string, r *authz.Request, p *authz.Principal) (retryAfter int, err error) {
	limit, ok := l.limits[name]
	if !ok {
		return 0, authz.Refuse(authz.ReasonInternal, "there is no rate limit %q", name)
	}
	ctx, cancel := context.WithTimeout(ctx, l.o.Timeout)
	defer cancel()
	result, err := l.rate.Allow(ctx, key(name, limit.By, r, p), redis_rate.Limit{Rate: limit.Requests, Burst: limit.Burst, Period: limit.Per})
	switch {
	case err != nil && limit.AllowOnOutage:
		if l.o.OnOutage != nil {
			l.o.OnOutage(fmt.Errorf("count requests of limit %q: %w", name, err))
		}
		return 0, nil
	case err != nil:
		return 0, authz.Refuse(authz.ReasonStoreUnavailable, "count requests of limit %q: %w", name, err)
	case result.Allowed > 0:
		return 0, nil
	}
	return int(math.Ceil(result.RetryAfter.Seconds())), authz.Refuse(authz.ReasonRateLimited, "limit %q is used up", name)
}

// key returns what counts a caller's requests. The value is hashed: a session
// id must not stand in clear under a name of ours, and no value can reach into
// another one's key.
func key(name string, by By, r *authz.Request, p *authz.Principal) string {
	value := ""
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
		by, value = Address, r.Address.String()
	}
	sum := sha256.Sum256([]byte(value))
	return "gatehouse:limit:" + name + ":" + string(by) + ":" + base64.RawURLEncoding.EncodeToString(sum[:16])
}
