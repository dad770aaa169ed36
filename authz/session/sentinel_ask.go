package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// All Sentinels are asked at once, by one question for all who need the answer at the
// same moment. Who doesn't answer is not waited for, where the others are enough.

// inquiry is a question to all Sentinels that others wait for.
type inquiry struct {
	done    chan struct{}
	address string
	err     error
}

// lastMoment is how long others are waited for when more than half agree: they may know
// of a newer configuration. And those that didn't answer last time, when more than half
// have answered and don't agree: the next question may find that they do.
const lastMoment = 50 * time.Millisecond

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
		err = fmt.Errorf("ask the Sentinels: %w", ctx.Err())
		if last := m.last.Load(); last != nil && !last.agreed { // why it takes so long
			err = fmt.Errorf("%w; the last time: %s", err, m.doubt(last, last.newest.master))
		}
		return "", err
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
	var asking sync.WaitGroup
	defer func() {
		go func() { // who is slow may go on: it is awaited the next time when it has answered
			asking.Wait()
			cancel()
		}()
	}()
	defer close(q.done)
	q.err = errors.New("the question to the Sentinels was stopped") // should it panic
	p, err := m.askThem(ctx, &asking)
	if err == nil && !p.agreed && m.knowsMoreThan(p.asked) { // the URL names a few of them
		p, err = m.askThem(ctx, &asking)
	}
	m.mu.Lock()
	m.asking = nil
	m.mu.Unlock()
	if q.err = err; err == nil {
		q.address = p.newest.master
	}
}

// askThem asks the Sentinels, and believes them.
func (m *masters) askThem(ctx context.Context, asking *sync.WaitGroup) (*poll, error) {
	p, err := m.askAll(ctx, asking)
	if err != nil {
		return nil, err
	}
	m.last.Store(p)
	if len(p.answers) == 0 {
		return nil, unansweredError{p}
	}
	return p, m.believe(p)
}

// knowsMoreThan reports whether there are more Sentinels to ask.
func (m *masters) knowsMoreThan(n int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.sentinels) > n
}

// asked is what became of asking one.
type asked struct {
	address string
	awaited bool
	naming
	err error
}

// askAll asks all Sentinels at once. It waits for those that answered last time, but
// when more than half agree not for long, and for the others until more than half have
// answered. The group has those who still ask.
func (m *masters) askAll(ctx context.Context, asking *sync.WaitGroup) (*poll, error) {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil, errSentinelsClosed
	}
	p := newPoll(len(m.sentinels))
	replies, awaited := make(chan asked, p.asked), 0
	for address, s := range m.sentinels {
		r := asked{address: address, awaited: !s.silent}
		if r.awaited {
			awaited++
		}
		asking.Go(func() {
			r.naming, r.err = s.ask(ctx, m.name)
			m.mu.Lock()
			s.silent = r.err != nil
			if r.err == nil {
				s.id = r.id
			}
			m.mu.Unlock()
			replies <- r
		})
	}
	m.mu.Unlock()
	var enough <-chan time.Time
	for range p.asked {
		select {
		case r := <-replies: // each has its own timeouts
			if r.awaited {
				awaited--
			}
			if r.err != nil {
				p.errs[r.address] = r.err
			} else {
				m.hear(p, r.address, r.naming)
			}
		case <-enough:
			return p, nil
		}
		if p.agreed && awaited == 0 {
			return p, nil
		}
		if enough == nil && (p.agreed || awaited == 0 && 2*len(p.answers) > p.asked) {
			enough = time.After(lastMoment)
		}
	}
	return p, nil
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
	about, err := pairs(facts.Val()), facts.Err()
	if err != nil {
		return n, err
	}
	if n.id, err = id.Text(); err != nil { // an address is not who it is: one may have two, and would count twice
		return n, fmt.Errorf("doesn't say who it is, so it can't be counted: %w; it takes SENTINEL MYID, which Redis has since 6.2 and its user must be allowed", err)
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
