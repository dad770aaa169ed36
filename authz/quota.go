package authz

import (
	"context"
	"strconv"
	"time"
)

// Limiter counts requests. It must keep nothing of r and p, their texts included.
//
// Allow counts a request under a limit and returns what is left of it. The error
// is ReasonRateLimited where the limit is used up, with the quota as it is, or
// ReasonStoreUnavailable, or ReasonOverloaded, where the request could not be counted.
//
// Peek says what Allow would say, and counts nothing: the quota is that before the
// request.
type Limiter interface {
	Allow(ctx context.Context, limit string, r *Request, p *Principal) (Quota, error)
	Peek(ctx context.Context, limit string, r *Request, p *Principal) (Quota, error)
}

// Quota is what a limiter knows of a caller's limit. The zero value is no limit's.
type Quota struct {
	Limit     string        // its name
	Requests  int           // how many are let through in Per
	Per       time.Duration //
	Burst     int           // how many of them may come at once
	Remaining int           // how many would be let through now
	Next      time.Duration // until there is one more; zero when Remaining is Burst
	// Uncounted is why the request was not counted, where the limit lets it pass
	// then. Nothing is known of what remains.
	Uncounted error
}

// known reports whether there is something to tell the client.
func (q *Quota) known() bool { return q.Limit != "" && q.Uncounted == nil }

// RetryAfter is how many seconds a client should wait that was refused, one at
// least.
func (q *Quota) RetryAfter() int { return max(1, q.seconds()) }

// seconds are those until there is one more, rounded up.
func (q *Quota) seconds() int { return int((q.Next + time.Second - 1) / time.Second) }

// The headers by which a client learns of its quota
// (draft-ietf-httpapi-ratelimit-headers).
const (
	HeaderRateLimitPolicy = "ratelimit-policy"
	HeaderRateLimit       = "ratelimit"
)

// ClientHeaders are those that tell the client of an allowed request what is left;
// nil where nothing is known. A policy that only observes tells clients nothing: it
// would slow down those who keep to it.
func (d *Decision) ClientHeaders() []Header {
	if d.Policy != nil && d.Policy.Observe {
		return nil
	}
	return d.Quota.Headers()
}

// Headers are those for the client; nil where nothing is known.
func (q *Quota) Headers() []Header {
	if !q.known() {
		return nil
	}
	return []Header{
		{HeaderRateLimitPolicy, string(q.AppendPolicy(nil))},
		{HeaderRateLimit, string(q.AppendState(nil))},
	}
}

// AppendPolicy appends the value of RateLimit-Policy: what the limit is. A time
// span that is not in whole seconds can't be said there.
func (q *Quota) AppendPolicy(b []byte) []byte {
	b = appendQuoted(b, q.Limit)
	b = strconv.AppendInt(append(b, ";q="...), int64(q.Requests), 10)
	if q.Per%time.Second == 0 {
		b = strconv.AppendInt(append(b, ";w="...), int64(q.Per/time.Second), 10)
	}
	if q.Burst != q.Requests {
		b = strconv.AppendInt(append(b, ";gatehouse-burst="...), int64(q.Burst), 10)
	}
	return b
}

// AppendState appends the value of RateLimit: what is left of the limit, and in
// how many seconds it will be more. For a client that was refused, these are those
// of RetryAfter.
func (q *Quota) AppendState(b []byte) []byte {
	b = appendQuoted(b, q.Limit)
	b = strconv.AppendInt(append(b, ";r="...), int64(q.Remaining), 10)
	switch {
	case q.Remaining == 0:
		b = strconv.AppendInt(append(b, ";t="...), int64(q.RetryAfter()), 10)
	case q.Next > 0:
		b = strconv.AppendInt(append(b, ";t="...), int64(q.seconds()), 10)
	}
	return b
}

// appendQuoted appends a String of RFC 9651, which is visible ASCII and spaces.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c >= 0x7f:
			b = append(b, '?')
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
