package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/require"
)

// What changes and isn't revoked: one program writes a role that counts up, others
// ask for it all the time, and the lines are so slow that a read overtakes the
// announcement of what it has read, or an announcement the read that it concerns.

// subject is somebody whose role counts up.
type subject struct {
	c     *credential
	write func(ctx context.Context, role string) error

	mu    sync.Mutex
	acked []time.Duration // when each value was acknowledged, all but the last one that is being written
}

func (s *subject) set(ctx context.Context) error {
	s.mu.Lock()
	n := len(s.acked)
	s.mu.Unlock()
	if err := s.write(ctx, role(n)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acked = append(s.acked, now())
	return nil
}

func role(n int) string { return fmt.Sprintf("v%d", n) }

// age returns for how long a value was no longer the last one acknowledged when a
// check was sent, 0 for the last one. next is the number of the next value.
func (s *subject) age(n int, sent time.Duration) (age time.Duration, next int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n+1 < len(s.acked) {
		age = max(sent-s.acked[n+1], 0)
	}
	return age, len(s.acked)
}

// values is what was seen of the subjects.
type values struct {
	mu                            sync.Mutex
	answers, wrong, refused, back int
	oldest                        time.Duration
	mistakes                      []string // the first wrong ones
}

func (v *values) judged() (requests, wrong int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.answers, v.wrong
}

// mistake notes a wrong answer; v.mu is held.
func (v *values) mistake(format string, args ...any) {
	v.wrong++
	if len(v.mistakes) < 10 {
		v.mistakes = append(v.mistakes, fmt.Sprintf(format, args...))
	}
}

// watch asks about a subject, one check after another, until ctx ends.
func (v *values) watch(ctx context.Context, g *gate, s *subject, bound time.Duration) {
	last := -1
	for ctx.Err() == nil {
		sent := now()
		n, status, err := g.value(context.WithoutCancel(ctx), s.c)
		age, next := s.age(n, sent)
		v.mu.Lock()
		v.answers++
		switch {
		case status == http.StatusServiceUnavailable:
			v.refused++
		case err != nil || status != http.StatusOK || n > next:
			v.mistake("%s: status %d, value %d of %d: %v", s.c.name, status, n, next, err)
		case age > bound:
			v.mistake("%s: value %d, which was old for %v", s.c.name, n, age)
		default:
			v.oldest = max(v.oldest, age)
			if n < last {
				v.back++
			}
			last = n
		}
		v.mu.Unlock()
		time.Sleep(2 * time.Millisecond)
	}
}

// value makes a check and returns which value the service is told.
func (g *gate) value(ctx context.Context, c *credential) (n, status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	reply, err := authv3.NewAuthorizationClient(g.conn).Check(ctx, c.request())
	if err != nil {
		return 0, 0, err
	}
	if denied := reply.GetDeniedResponse(); denied != nil {
		return 0, int(denied.GetStatus().GetCode()), nil
	}
	for _, o := range reply.GetOkResponse().GetHeaders() {
		if h := o.GetHeader(); h.GetKey() == "x-user-roles" {
			if _, err = fmt.Sscanf(h.GetValue(), `["v%d"]`, &n); err != nil {
				return 0, http.StatusOK, fmt.Errorf("roles %s: %w", h.GetValue(), err)
			}
			return n, http.StatusOK, nil
		}
	}
	return 0, http.StatusOK, errors.New("no roles")
}

// profiled is a user with a token, whose roles are in the profile.
func (s *staleness) profiled(t *testing.T, user string) *subject {
	t.Helper()
	return &subject{c: s.gate.token(t, user), write: func(ctx context.Context, role string) error {
		return s.redis.Set(ctx, "user:"+user, fmt.Sprintf(`{"roles":[%q]}`, role), 0).Err()
	}}
}

// recorded is a session, whose roles are in its record, which is saved as Express
// does it.
func (s *staleness) recorded(t *testing.T, user string) *subject {
	t.Helper()
	c := s.gate.session(t, user)
	key := "sess:" + c.id(t)
	text, err := s.redis.Get(t.Context(), key).Bytes()
	require.NoError(t, err)
	var record map[string]any
	require.NoError(t, json.Unmarshal(text, &record))
	return &subject{c: c, write: func(ctx context.Context, role string) error {
		record["roles"] = []string{role}
		text, err := json.Marshal(record)
		if err != nil {
			return err
		}
		return s.redis.Set(ctx, key, text, 24*time.Hour).Err()
	}}
}

// slowness is which lines are slow.
type slowness struct {
	name     string
	toxics   map[string][]toxic
	late     bool          // the announcements are
	interval time.Duration // of renewals, each of which reads a session again
}

func TestValuesOverSlowLines(t *testing.T) {
	begin(t, "redis-server", "toxiproxy-server")
	const heartbeat = 100 * time.Millisecond
	late := func(direction string, least, most time.Duration) toxic {
		return toxic{Type: "latency", Stream: direction, Attributes: map[string]int64{
			"latency": (least + most).Milliseconds() / 2, "jitter": (most - least).Milliseconds() / 2,
		}}
	}
	lateNews := late(downstream, heartbeat/2, heartbeat*2)
	slowReads := []toxic{late(upstream, 0, 20*time.Millisecond), late(downstream, 0, 40*time.Millisecond)}
	all := []slowness{
		{"announcements are late, reads are quick", map[string][]toxic{subscriber: {lateNews}}, true, time.Minute},
		{"reads are late, announcements are quick", map[string][]toxic{data: slowReads}, false, time.Minute},
		{"renewals are late, announcements are quick", map[string][]toxic{tracker: slowReads}, false, 20 * time.Millisecond},
		{"all is late, by chance", map[string][]toxic{subscriber: {lateNews}, data: slowReads, tracker: slowReads}, true, 20 * time.Millisecond},
	}
	rows := make([]result, len(all))
	var group sync.WaitGroup
	for i, slow := range all {
		group.Go(func() {
			t.Run(slow.name, func(t *testing.T) {
				s := startStaleness(t, heartbeat, fmt.Sprintf("sessions: {touch_interval: %v}", slow.interval))
				rows[i] = s.watchValues(t, slow)
				s.finish(t)
			})
		})
	}
	group.Wait()
	for _, r := range rows {
		if !t.Failed() {
			results.add(t, r)
		}
	}
}

// watchValues has values change and be asked for, for a while.
func (s *staleness) watchValues(t *testing.T, slow slowness) result {
	t.Helper()
	subjects := []*subject{s.profiled(t, "profile"), s.recorded(t, "record")}
	for _, one := range subjects {
		require.NoError(t, one.set(t.Context()))
	}
	s.gate.coherent(t)
	before := s.gate.figures(t)
	for role, toxics := range slow.toxics {
		for _, x := range toxics {
			require.NoError(t, s.relay.poison(t.Context(), role, x))
		}
	}
	var seen values
	results.judges(t, seen.judged)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var watchers, writers sync.WaitGroup
	for _, one := range subjects {
		for range 2 {
			watchers.Go(func() { seen.watch(ctx, s.gate, one, s.bound) })
		}
	}
	failures := make(chan error, len(subjects))
	until := time.Now().Add(of(time.Second, 20*time.Second))
	for i, one := range subjects {
		random := newRandom(uint64(i))
		writers.Go(func() {
			for time.Now().Before(until) {
				// Some at once, so that one is read while the next is written. Then
				// none, so that what wrongly stays is not saved by the next one.
				for range 1 + random.IntN(3) {
					if err := one.set(ctx); err != nil {
						failures <- err
						return
					}
					time.Sleep(time.Duration(random.Int64N(int64(s.bound / 4))))
				}
				time.Sleep(s.bound + s.heartbeat)
			}
		})
	}
	writers.Wait()
	cancel()
	watchers.Wait()
	require.Empty(t, failures)
	require.Empty(t, seen.mistakes)
	require.NoError(t, s.relay.heal(t.Context()))
	s.gate.coherent(t)
	writes := 0
	for _, one := range subjects {
		writes += len(one.acked)
		for range 20 {
			var n, status int
			await(t, one.c.name+" is not answered for", func() bool {
				n, status, _ = s.gate.value(t.Context(), one.c)
				return status == http.StatusOK
			})
			require.Equal(t, len(one.acked)-1, n, "the last value")
		}
	}
	require.Greater(t, s.gate.figures(t).hits, before.hits, "the cache didn't answer")
	if slow.late {
		require.Positive(t, seen.oldest, "it is not felt that announcements are late")
	}
	return result{
		fault: "Values: " + slow.name, requests: seen.answers, refused: seen.refused,
		note: fmt.Sprintf("%d writes; a value was old for %v at the most, %.0f %% of the bound; %d times a client saw an older one again within it",
			writes, seen.oldest.Round(time.Millisecond), 100*float64(seen.oldest)/float64(s.bound), seen.back),
	}
}
