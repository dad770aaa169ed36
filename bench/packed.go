package main

import (
	"sync/atomic"
)

// packed is a list of short texts in one piece of memory that holds no
// pointers: a million signed cookies take 100 MB and nothing of the collector's
// time. It can hold 4 GiB.
type packed struct {
	text []byte
	ends []uint32
}

// newPacked makes place for n texts of about so many bytes each.
func newPacked(n, each int) packed {
	return packed{text: make([]byte, 0, n*each), ends: make([]uint32, 0, n)}
}

func pack(texts ...string) packed {
	var p packed
	for _, text := range texts {
		p.add(text)
	}
	return p
}

func (p *packed) add(text string) {
	p.text = append(p.text, text...)
	p.ends = append(p.ends, uint32(len(p.text))) //nolint:gosec // G115: see the type
}

func (p packed) len() int { return len(p.ends) }

// at returns the text number i, to be read only.
func (p packed) at(i int) []byte {
	start := uint32(0)
	if i > 0 {
		start = p.ends[i-1]
	}
	return p.text[start:p.ends[i]]
}

// first returns the first n of the texts, all when there are fewer.
func (p packed) first(n int) packed {
	p.ends = p.ends[:min(n, len(p.ends))]
	return p
}

// target is what windows of load ask for: one request in which one text after
// the other is put, and what it must be answered with. Windows go on where the
// last one ended.
type target struct {
	before, after string // of the request, around the text
	shown         packed
	status        int

	step int // see spread
	turn atomic.Int64
}

// newTarget returns a target whose texts come in an order that jumps about
// through them: whoever keeps them in the order in which they came first would
// otherwise read its memory from one end to the other.
func newTarget(before string, shown packed, after string, status int) *target {
	return &target{before: before, shown: shown, after: after, status: status, step: spread(shown.len())}
}

// spread returns a step that visits each of n places once in n steps, and
// jumps far: the first number from the golden section of n on that has no
// common divisor with it.
func spread(n int) int {
	const golden = 0.618
	step := max(int(golden*float64(n)), 1)
	for gcd(step, n) > 1 {
		step++
	}
	return step
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// next appends the next request to buf.
func (t *target) next(buf []byte) []byte {
	i := int(t.turn.Add(1)-1) * max(t.step, 1) % t.shown.len()
	buf = append(buf, t.before...)
	buf = append(buf, t.shown.at(i)...)
	return append(buf, t.after...)
}
