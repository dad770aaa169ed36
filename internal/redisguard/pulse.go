package redisguard

import (
	"sync/atomic"
	"time"
)

// Deadlines go by the clock, also while this process stands still: stopped, out of its
// share of the processor (a container's quota, which a flood uses up), or with more to
// run than it has processors for. What Redis has answered meanwhile lies there then,
// and the timers are looked at first. So it must be known how much of the time that
// something waited was ours.

const (
	// beatInterval is between two beats of the pulse, and stumble from when on a longer
	// time counts as a standstill.
	beatInterval = 5 * time.Millisecond
	stumble      = 10 * time.Millisecond
	// unwanted is after how long without a lookup the pulse rests.
	unwanted = 200 * time.Millisecond
)

// ours is the pulse of this process.
var ours = newPulse()

// pulse knows for how long the process has stood still. It beats while there are
// lookups, and costs two thousandths of a processor then.
type pulse struct {
	began  time.Time
	wanted atomic.Int64 // when somebody wanted to know it last, since began
	latest atomic.Pointer[beat]
}

// beat is the latest one.
type beat struct {
	at    time.Duration // since began
	stood time.Duration // all standstills until then
	rests bool          // none is to come
}

func newPulse() *pulse {
	p := &pulse{began: time.Now()}
	p.latest.Store(&beat{rests: true})
	return p
}

// stood is for how long the process has stood still all in all. The difference between
// two of them is right where somebody wanted to know before the first.
func (p *pulse) stood() time.Duration { return p.latest.Load().until(time.Since(p.began)) }

// until is what stood is at a time, which may be before the next beat: after a
// standstill others may go on first.
func (b *beat) until(now time.Duration) time.Duration {
	if d := now - b.at; d > stumble && !b.rests {
		return b.stood + d - beatInterval
	}
	return b.stood
}

// want has it beat.
func (p *pulse) want() {
	now := time.Since(p.began)
	if now-time.Duration(p.wanted.Load()) > beatInterval { // else many would write there
		p.wanted.Store(int64(now))
	}
	if last := p.latest.Load(); last.rests && p.latest.CompareAndSwap(last, &beat{at: now, stood: last.stood}) {
		go p.beat()
	}
}

func (p *pulse) beat() {
	ticker := time.NewTicker(beatInterval)
	defer ticker.Stop()
	for range ticker.C {
		wanted := p.wanted.Load()
		now := time.Since(p.began)
		next := &beat{at: now, stood: p.latest.Load().until(now)}
		next.rests = now-time.Duration(wanted) > unwanted
		p.latest.Store(next)
		if next.rests {
			if p.wanted.Load() != wanted { // by who saw it beat
				p.want()
			}
			return
		}
	}
}
