package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// All Sentinels are asked at once, by one question for all who need the answer at the
// same moment.

// inquiry is a question to all Sentinels that others wait for.
type inquiry struct {
	done    chan struct{}
	address string
	err     error
}

// afterAgreement is how long others are waited for when more than half agree: they may
// know of a newer configuration.
const afterAgreement = 50 * time.Millisecond

// inquiryTime bounds a question to all Sentinels, whoever waits for it.
const inquiryTime = 3 * time.Second

// locate asks the Sentinels who the master is, once for all who ask at the same
// moment.
func (m *masters) locate(ctx context.Context) (address string, err error) {
	q := m.ask(ctx)
	select {
	case <-q.done:
		return q.address, q.err
	case <-ctx.Done():
		return "", fmt.Errorf("ask the Sentinels: %w", ctx.Err())
	}
}

// ask has all Sentinels asked, unless that is under way. The question outlives the
// call that needed it first.
func (m *masters) ask(ctx context.Context) *inquiry {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.asking == nil {
		m.asking = &inquiry{done: make(chan struct{})}
		go m.inquire(context.WithoutCancel(ctx), m.asking)
	}
	return m.asking
}

func (m *masters) inquire(ctx context.Context, q *inquiry) {
	ctx, cancel := context.WithTimeout(ctx, inquiryTime)
	defer cancel()
	defer close(q.done)
	q.err = errors.New("the question to the Sentinels was stopped") // should it panic
	answer, err := m.askAll(ctx)
	if err == nil {
		err = m.believe(answer)
	}
	if err == nil && !answer.agreed && m.knowsMoreThan(answer.of) { // the URL names a few of them
		if answer, err = m.askAll(ctx); err == nil {
			err = m.believe(answer)
		}
	}
	m.mu.Lock()
	m.asking = nil
	m.mu.Unlock()
	q.address, q.err = answer.master, err
}

// knowsMoreThan reports whether there are more Sentinels to ask.
func (m *masters) knowsMoreThan(n int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.sentinels) > n
}

// askAll asks all Sentinels at once, waits for those that answered last time, and for
// the others until more than half agree, and returns the newest of the answers.
func (m *masters) askAll(ctx context.Context) (newest naming, err error) {
	m.mu.Lock()
	all := make(map[string]*sentinel, len(m.sentinels))
	awaited := 0
	silent := map[string]bool{}
	for address, s := range m.sentinels {
		all[address] = s
		silent[address] = s.silent
		if !s.silent {
			awaited++
		}
	}
	m.mu.Unlock()
	type reply struct {
		address string
		naming
		err error
	}
	replies := make(chan reply, len(all))
	at := time.Now()
	for address, s := range all {
		go func() {
			n, err := s.ask(ctx, m.name)
			m.mu.Lock()
			s.silent = err != nil
			m.mu.Unlock()
			replies <- reply{address, n, err}
		}()
	}
	ids := map[string]bool{}
	var others []string // all of which anybody knows; nobody names itself
	p := &poll{at: at, votes: map[string]map[string]bool{}, ids: map[string]string{}}
	agreed := false
	var errs []error
	var enough <-chan time.Time
	for got := 0; got < len(all); got++ {
		var r reply
		select {
		case r = <-replies: // each has its own timeouts
		case <-enough:
			got = len(all)
			continue
		}
		if !silent[r.address] {
			awaited--
		}
		if r.err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.address, r.err))
		} else {
			ids[cmp.Or(r.id, r.address)] = true
			others = append(append(others, r.address), r.others...)
			agreed = m.agrees(p, r.address, r.naming) || agreed
			if len(ids) == 1 || r.epoch > newest.epoch {
				newest = r.naming
			}
		}
		if agreed && awaited == 0 {
			break
		}
		if agreed && enough == nil {
			enough = time.After(afterAgreement)
		}
	}
	if len(ids) == 0 {
		return newest, fmt.Errorf("no Sentinel names the master: %w", errors.Join(errs...))
	}
	newest.others, newest.because, newest.of, newest.agreed = others, ids, len(all), agreed
	return newest, nil
}

// ask asks one Sentinel.
func (s *sentinel) ask(ctx context.Context, name string) (n naming, err error) {
	pipe := s.Pipeline()
	address := pipe.Do(ctx, "sentinel", "get-master-addr-by-name", name) // the new one a moment earlier than "master"
	facts := pipe.Do(ctx, "sentinel", "master", name)
	others := pipe.Do(ctx, "sentinel", "sentinels", name)
	id := pipe.Do(ctx, "sentinel", "myid") // since Redis 6.2
	_, _ = pipe.Exec(ctx)
	where, err := address.StringSlice()
	if errors.Is(err, redis.Nil) {
		return n, fmt.Errorf("knows no master %q: correct its name in the URL, which is that of 'sentinel monitor'", name)
	}
	if err != nil {
		return n, err
	}
	if len(where) != 2 {
		return n, errors.New("gives no address of the master")
	}
	n.master = net.JoinHostPort(where[0], where[1])
	n.id, _ = id.Text()
	about, err := pairs(facts.Val()), facts.Err()
	if err != nil {
		return n, err
	}
	n.epoch, _ = strconv.ParseInt(about["config-epoch"], 10, 64)
	more, _ := strconv.Atoi(about["num-other-sentinels"])
	n.all = 1 + more
	list, _ := others.Slice()
	for _, other := range list {
		if o := pairs(other); o["ip"] != "" && o["port"] != "" {
			n.others = append(n.others, net.JoinHostPort(o["ip"], o["port"]))
		}
	}
	return n, nil
}

// pairs makes a map of a reply of names and values.
func pairs(reply any) map[string]string {
	list, _ := reply.([]any)
	m := make(map[string]string, len(list)/2)
	for i := 0; i+1 < len(list); i += 2 {
		m[fmt.Sprint(list[i])] = fmt.Sprint(list[i+1])
	}
	return m
}
