package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
)

// How long until a write by another program counts? A second Redis client
// writes what Express, connect-redis or an operator would write, and requests
// go through Envoy from the moment that Redis has acknowledged the write. Every
// write is made where the old answer is in Gatehouse's cache: the same
// credential was shown just before.

// freshnessOptions say how much of it.
type freshnessOptions struct {
	writes int           // to be honoured after wait; a tenth of it for the distribution
	tries  int           // of the frozen channel, and of sessions that expire
	wait   time.Duration // between the acknowledgement and the request
	load   load          // beside it, in the second run
}

// freshnessReport is the result.
type freshnessReport struct {
	Wait   float64        `json:"wait_ms"`
	Runs   []freshnessRun `json:"runs"`
	Frozen frozenReport   `json:"frozen"`
	Expiry expiryReport   `json:"expiry"`
}

// freshnessRun is one condition of the machine.
type freshnessRun struct {
	Condition string `json:"condition"` // idle, or the load
	// Writes that were followed by a request after the wait, and how many of
	// these requests got the new answer.
	Writes   int `json:"writes"`
	Honoured int `json:"honoured"`
	// Waited is the longest time between an acknowledgement and its request, in
	// ms: timers are late on a busy machine.
	Waited float64 `json:"longest_wait_ms"`
	// WentBack counts old answers after a new one.
	WentBack int            `json:"went_back"`
	Kinds    []distribution `json:"kinds"`
}

// distribution is the time from an acknowledgement to the sending of the first
// request that gets the new answer, in ms, where requests follow each other as
// fast as they are answered.
type distribution struct {
	Write string  `json:"write"`
	Tries int     `json:"tries"`
	Old   int     `json:"old_first"` // tries whose first request got the old answer
	P50   float64 `json:"p50_ms"`
	P99   float64 `json:"p99_ms"`
	Max   float64 `json:"max_ms"`
}

// frozenReport is what happens when announcements stop without a word.
type frozenReport struct {
	Within   float64 `json:"within_ms"`
	Honoured int     `json:"honoured"` // of distribution.Tries
	distribution
}

// expiryReport is about sessions whose time to live ends while they are used.
type expiryReport struct {
	Tries   int     `json:"tries"`
	Grace   float64 `json:"grace_ms"`
	Refused int     `json:"refused"` // not later than grace after their end
	// Outlived is how long after its end a session was still let in, in ms.
	Outlived float64 `json:"outlived_max_ms"`
}

// Listeners of the freshness runs. They tell the organization that the service
// would see.
var freshnessScenarios = []scenario{
	echoing(checked("fresh_session", "", checkServer{program: programGatehouse}, "session", showsSession)),
	echoing(checked("fresh_bearer", "", checkServer{program: programGatehouse}, "bearer", showsBearer)),
	echoing(checked("frozen_session", "", checkServer{program: programGatehouse, proxied: true}, "session", showsSession)),
	echoing(checked("frozen_bearer", "", checkServer{program: programGatehouse, proxied: true}, "bearer", showsBearer)),
	checked("beside", "", checkServer{program: programGatehouse}, "session", showsSession),
}

func echoing(s scenario) scenario {
	s.echo = true
	return s
}

// answer is what a request got: its status, and for an allowed one the
// organization.
type answer struct {
	status       int
	organization string
}

// subject is a session and a token, of different users, and their connections.
type subject struct {
	rdb             *redis.Client
	id, jti         string
	sessionUser     identity
	tokenUser       identity
	session, bearer asker
	number          int // of the next change
	wentBack        int
}

// asker asks one thing again and again.
type asker struct {
	conn    *conn
	request []byte
	known   answer // that is right now
}

func (a *asker) ask() (answer, error) {
	if err := a.conn.SetDeadline(time.Now().Add(answerGrace)); err != nil {
		return answer{}, err
	}
	status, err := a.conn.exchange(a.request)
	if err != nil {
		return answer{}, err
	}
	got := answer{status: status}
	if status == http.StatusOK {
		got.organization = string(a.conn.echo)
	}
	return got, nil
}

// newSubject makes subject i, whose requests go to the listeners with this
// prefix, and shows both credentials once.
func newSubject(ctx context.Context, s *stack, rdb *redis.Client, prefix string, i int) (_ *subject, err error) {
	signer, err := session.NewSigner([]string{s.creds.secret})
	if err != nil {
		return nil, err
	}
	u := &subject{rdb: rdb, id: (rand.Text() + rand.Text())[:idLen], jti: rand.Text()}
	// Numbers that no session of the load has.
	u.sessionUser, u.tokenUser = user(maxUsers+2*i), user(maxUsers+2*i+1)
	token, err := s.creds.token(maxUsers+2*i+1, u.jti, time.Now())
	if err != nil {
		return nil, err
	}
	record, err := newRecord(u.sessionUser, time.Now(), sessionTTL)
	if err != nil {
		return nil, err
	}
	if err := rdb.Set(ctx, sessionPrefix+u.id, record, sessionTTL).Err(); err != nil {
		return nil, err
	}
	for _, a := range []struct {
		asker    *asker
		listener string
		header   string
		known    answer
	}{
		{&u.session, prefix + "_session", cookieBefore + signer.Sign(u.id), answer{http.StatusOK, u.sessionUser.Organization}},
		{&u.bearer, prefix + "_bearer", bearerBefore + token, answer{http.StatusOK, u.tokenUser.Organization}},
	} {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", proc.Local(s.ports[a.listener]))
		if err != nil {
			return nil, errors.Join(err, u.close())
		}
		*a.asker = asker{
			conn:    &conn{Conn: c, in: bufio.NewReader(c)},
			request: []byte(crlf(pageRequest) + a.header + "\r\n\r\n"),
			known:   a.known,
		}
		got, err := a.asker.ask()
		if err == nil && got != a.known {
			err = fmt.Errorf("%s answers %v, not %v", a.listener, got, a.known)
		}
		if err != nil {
			return nil, errors.Join(err, u.close())
		}
	}
	return u, nil
}

func (u *subject) close() error {
	var errs []error
	for _, a := range []asker{u.session, u.bearer} {
		if a.conn != nil {
			errs = append(errs, a.conn.Close())
		}
	}
	return errors.Join(errs...)
}

// change is a write and what it changes.
type change struct {
	write string
	asker *asker
	do    func(context.Context) error
	want  answer
}

// kinds is how many different changes there are.
const kinds = 7

// next returns the next change, each kind in turn. New values are values that
// nothing has had before.
func (u *subject) next() change {
	key := sessionPrefix + u.id
	organization := fmt.Sprintf("org-new-%d", u.number)
	set := func(key string, value any, life time.Duration) func(context.Context) error {
		return func(ctx context.Context) error { return u.rdb.Set(ctx, key, value, life).Err() }
	}
	del := func(key string) func(context.Context) error {
		return func(ctx context.Context) error { return u.rdb.Del(ctx, key).Err() }
	}
	setSession := func(ctx context.Context) error {
		changed := u.sessionUser
		changed.Organization = organization
		record, err := newRecord(changed, time.Now(), sessionTTL)
		if err != nil {
			return err
		}
		return u.rdb.Set(ctx, key, record, sessionTTL).Err()
	}
	profile, _ := json.Marshal(map[string]any{ // strings: it can't fail
		"email": u.tokenUser.Email, "roles": u.tokenUser.Roles, "organizationId": organization,
	})
	refused := answer{status: http.StatusUnauthorized}
	renamed := answer{http.StatusOK, organization}
	asBefore := answer{http.StatusOK, u.tokenUser.Organization}
	changes := [kinds]change{
		{"SET of a session, changed", &u.session, setSession, renamed},
		{"DEL of a session", &u.session, del(key), refused},
		{"SET of a session, again", &u.session, setSession, renamed},
		{"SET user:<id>", &u.bearer, set(profileBefore+u.tokenUser.ID, profile, time.Hour), renamed},
		{"DEL user:<id>", &u.bearer, del(profileBefore + u.tokenUser.ID), asBefore},
		{"SET revoked:<jti>", &u.bearer, set(revokedBefore+u.jti, 1, time.Hour), refused},
		{"DEL revoked:<jti>", &u.bearer, del(revokedBefore + u.jti), asBefore},
	}
	c := changes[u.number%kinds]
	u.number++
	return c
}

const (
	profileBefore = "user:"
	revokedBefore = "revoked:"
)

// warm shows the credential of a change, so that the answer that the change
// will make old is in the cache.
func (u *subject) warm(c change) error {
	got, err := c.asker.ask()
	if err != nil {
		return err
	}
	if got != c.asker.known {
		u.wentBack++
	}
	return nil
}

// write makes a change and returns when it was acknowledged.
func (c change) apply(ctx context.Context) (acked time.Time, err error) {
	if err := c.do(ctx); err != nil {
		return time.Time{}, fmt.Errorf("%s: %w", c.write, err)
	}
	c.asker.known = c.want
	return time.Now(), nil
}

// patienceForNews is after how long a write that is not honoured is a failure
// of the run.
const patienceForNews = 10 * time.Second

// honoured asks until the answer is the new one, with a pause between two
// tries, and returns when that request was sent, counted from acked, and
// whether it was the first.
func (c change) honoured(ctx context.Context, acked time.Time, every time.Duration) (after time.Duration, first bool, err error) {
	for first = true; ; first = false {
		sent := time.Since(acked)
		got, err := c.asker.ask()
		switch {
		case err != nil:
			return 0, false, err
		case got == c.want:
			return sent, first, nil
		case sent > patienceForNews:
			return 0, false, fmt.Errorf("%s was not honoured after %s: %v, not %v", c.write, sent, got, c.want)
		}
		if every > 0 && !pause(ctx, every) {
			return 0, false, ctx.Err()
		}
		if ctx.Err() != nil {
			return 0, false, ctx.Err()
		}
	}
}

// measureFreshness does all of it.
func measureFreshness(ctx context.Context, s *stack, o freshnessOptions, target *target, progress io.Writer) (*freshnessReport, error) {
	r := &freshnessReport{Wait: ms(o.wait)}
	rdb := redis.NewClient(&redis.Options{Addr: s.redisAddr})
	defer func() { _ = rdb.Close() }()
	for _, l := range []*load{nil, &o.load} {
		run, err := freshnessUnder(ctx, s, rdb, o, l, target)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(progress, "freshness, %s: %d of %d honoured after %s\n", run.Condition, run.Honoured, run.Writes, o.wait)
		r.Runs = append(r.Runs, run)
	}
	var err error
	if r.Frozen, err = measureFrozen(ctx, s, rdb, o.tries); err != nil {
		return nil, fmt.Errorf("frozen channel: %w", err)
	}
	fmt.Fprintf(progress, "freshness, frozen channel: %d of %d honoured after %v ms\n", r.Frozen.Honoured, r.Frozen.Tries, r.Frozen.Within)
	if r.Expiry, err = measureExpiry(ctx, s, rdb, o.tries); err != nil {
		return nil, fmt.Errorf("expiry: %w", err)
	}
	fmt.Fprintf(progress, "freshness, expiry: %d of %d refused in time\n", r.Expiry.Refused, r.Expiry.Tries)
	return r, nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// freshnessUnder measures beside a load; nil is none.
func freshnessUnder(ctx context.Context, s *stack, rdb *redis.Client, o freshnessOptions, l *load, t *target) (run freshnessRun, err error) {
	run.Condition = "idle"
	if err := s.awaitCoherent(ctx, programGatehouse); err != nil {
		return run, err
	}
	if l != nil {
		run.Condition = fmt.Sprintf("%s over %d connections", loadReport{Rate: l.Rate}.shape(), l.Connections)
		stop, err := besideLoad(ctx, s, *l, t)
		if err != nil {
			return run, err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	if run.Kinds, err = distributions(ctx, s, rdb, max(o.writes/10, kinds)); err != nil {
		return run, err
	}

	const lanes = 10
	var mu sync.Mutex
	err = inLanes(ctx, s, rdb, "fresh", lanes, func(ctx context.Context, lane int, u *subject) error {
		for range share(o.writes, lanes, lane) {
			c := u.next()
			if err := u.warm(c); err != nil {
				return err
			}
			acked, err := c.apply(ctx)
			if err != nil {
				return err
			}
			if !pause(ctx, time.Until(acked.Add(o.wait))) {
				return ctx.Err()
			}
			waited, first, err := c.honoured(ctx, acked, 0)
			if err != nil {
				return err
			}
			mu.Lock()
			run.Writes++
			if first {
				run.Honoured++
				run.Waited = max(run.Waited, ms(waited))
			}
			mu.Unlock()
		}
		mu.Lock()
		defer mu.Unlock()
		run.WentBack += u.wentBack
		return nil
	})
	return run, err
}

// besideLoad sends a load until the returned function is called, which says
// what went wrong with it.
func besideLoad(ctx context.Context, s *stack, l load, t *target) (stop func() error, err error) {
	c, err := dialClient(ctx, proc.Local(s.ports["beside"]), l.Connections)
	if err != nil {
		return nil, err
	}
	const most = time.Hour
	l.Duration, l.Requests = most, 0
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		_, err := c.run(ctx, t, l)
		done <- err
	}()
	return func() error {
		cancel()
		err := <-done
		if errors.Is(err, context.Canceled) {
			err = nil
		}
		return errors.Join(err, c.close())
	}, nil
}

// share is lane's part of n.
func share(n, lanes, lane int) int {
	part := n / lanes
	if lane < n%lanes {
		part++
	}
	return part
}

// inLanes runs do with subjects of their own beside each other. The first
// error ends all.
func inLanes(ctx context.Context, s *stack, rdb *redis.Client, prefix string, lanes int, do func(ctx context.Context, lane int, u *subject) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for lane := range lanes {
		u, err := newSubject(ctx, s, rdb, prefix, lane)
		if err != nil {
			cancel(err)
			break
		}
		wg.Go(func() {
			defer func() { _ = u.close() }()
			if err := do(ctx, lane, u); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// distributions makes one write after the other and asks as fast as possible.
func distributions(ctx context.Context, s *stack, rdb *redis.Client, tries int) ([]distribution, error) {
	byKind := make([]distribution, kinds)
	times := make([][]time.Duration, kinds)
	err := inLanes(ctx, s, rdb, "fresh", 1, func(ctx context.Context, _ int, u *subject) error {
		for n := range tries {
			c := u.next()
			if err := u.warm(c); err != nil {
				return err
			}
			acked, err := c.apply(ctx)
			if err != nil {
				return err
			}
			after, first, err := c.honoured(ctx, acked, 0)
			if err != nil {
				return err
			}
			kind := n % kinds
			byKind[kind].Write = c.write
			if !first {
				byKind[kind].Old++
			}
			times[kind] = append(times[kind], after)
		}
		return nil
	})
	for kind := range byKind {
		byKind[kind].summarize(times[kind])
	}
	return byKind, err
}

func (d *distribution) summarize(times []time.Duration) {
	slices.Sort(times)
	o := outcome{Latencies: times}
	d.Tries, d.P50, d.P99, d.Max = len(times), ms(o.percentile(0.5)), ms(o.percentile(0.99)), ms(o.percentile(1))
}

// measureFrozen stops the announcements on their way, and writes at any moment
// of the time in which Gatehouse can't have noticed yet.
func measureFrozen(ctx context.Context, s *stack, rdb *redis.Client, tries int) (frozenReport, error) {
	const (
		within = 1500 * time.Millisecond // what is promised
		lanes  = 20
		early  = 500 * time.Millisecond // after the freeze
		every  = 5 * time.Millisecond
	)
	r := frozenReport{Within: ms(within)}
	r.Write = "any of these, announcements frozen"
	subjects := make([]*subject, min(lanes, tries))
	defer func() {
		for _, u := range subjects {
			if u != nil {
				_ = u.close()
			}
		}
	}()
	var err error
	for i := range subjects {
		if subjects[i], err = newSubject(ctx, s, rdb, "frozen", i); err != nil {
			return r, err
		}
	}
	var mu sync.Mutex
	var times []time.Duration
	for len(times) < tries {
		if err := s.awaitCoherent(ctx, checkServer{program: programGatehouse, proxied: true}.name()); err != nil {
			return r, err
		}
		batch := subjects[:min(len(subjects), tries-len(times))]
		changes := make([]change, len(batch))
		for i, u := range batch {
			changes[i] = u.next()
			if err := u.warm(changes[i]); err != nil {
				return r, err
			}
		}
		thaw := s.proxy.freeze()
		errs := make([]error, len(batch))
		var wg sync.WaitGroup
		for i, c := range changes {
			wg.Go(func() {
				if !pause(ctx, time.Duration(mathrand.Int64N(int64(early)))) { //nolint:gosec // G404: any moment will do
					return
				}
				acked, err := c.apply(ctx)
				if err != nil {
					errs[i] = err
					return
				}
				after, first, err := c.honoured(ctx, acked, every)
				if err != nil {
					errs[i] = err
					return
				}
				if !pause(ctx, time.Until(acked.Add(within))) {
					return
				}
				got, err := c.asker.ask()
				errs[i] = err
				mu.Lock()
				defer mu.Unlock()
				times = append(times, after)
				if !first {
					r.Old++
				}
				if after <= within && got == c.want {
					r.Honoured++
				}
			})
		}
		wg.Wait()
		thaw()
		if err := errors.Join(append(errs, ctx.Err())...); err != nil {
			return r, err
		}
	}
	r.summarize(times)
	return r, nil
}

// measureExpiry lets sessions end while they are asked for all the time, by a
// Gatehouse that doesn't renew what is used.
func measureExpiry(ctx context.Context, s *stack, rdb *redis.Client, tries int) (expiryReport, error) {
	const (
		life  = time.Second
		grace = 50 * time.Millisecond
		lanes = 20
		early = 30 * time.Millisecond // before the end, from when on it is asked
		every = 2 * time.Millisecond

		mostMissed = 10
	)
	r := expiryReport{Grace: ms(grace)}
	var mu sync.Mutex
	err := inLanes(ctx, s, rdb, "frozen", min(lanes, tries), func(ctx context.Context, lane int, u *subject) error {
		key := sessionPrefix + u.id
		missed := 0
		for done := 0; done < share(tries, min(lanes, tries), lane); {
			record, err := newRecord(u.sessionUser, time.Now(), life)
			if err != nil {
				return err
			}
			written := time.Now()
			if err := rdb.Set(ctx, key, record, life).Err(); err != nil {
				return err
			}
			end, err := endOf(ctx, rdb, key)
			if err == nil {
				// Into the cache; the refusal of the session before it is there yet.
				begun := change{write: "SET of a short session", asker: &u.session, want: u.session.known}
				_, _, err = begun.honoured(ctx, time.Now(), 0)
			}
			if err != nil && time.Since(written) > life && missed < mostMissed {
				missed++ // this machine stood still, and it has ended before it was asked for
				continue
			}
			if err != nil {
				return err
			}
			done++
			if !pause(ctx, time.Until(end)-early) {
				return ctx.Err()
			}
			outlived := time.Duration(0)
			for {
				sent := time.Now()
				got, err := u.session.ask()
				if err != nil {
					return err
				}
				if got.status != http.StatusOK {
					break
				}
				outlived = max(outlived, sent.Sub(end))
				if outlived > patienceForNews {
					return errors.New("a session does not end")
				}
				if !pause(ctx, every) {
					return ctx.Err()
				}
			}
			mu.Lock()
			r.Tries++
			if outlived <= grace {
				r.Refused++
			}
			r.Outlived = max(r.Outlived, ms(outlived))
			mu.Unlock()
		}
		return nil
	})
	return r, err
}

// endOf returns when a key ends, at the latest.
func endOf(ctx context.Context, rdb *redis.Client, key string) (time.Time, error) {
	left, err := rdb.PTTL(ctx, key).Result()
	if err != nil {
		return time.Time{}, err
	}
	if left <= 0 {
		return time.Time{}, fmt.Errorf("the key of a session lives for %s", left)
	}
	return time.Now().Add(left), nil
}
