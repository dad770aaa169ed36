package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/term"
)

// progress says on standard error how far long work is: at a terminal in one line that
// changes and is gone at the end, elsewhere in a line now and then. Short work is silent.
// It is safe for concurrent use.
type progress struct {
	out      io.Writer
	terminal bool
	format   string // with the count and the rate, both as text
	every    time.Duration
	now      func() time.Time

	mu          sync.Mutex
	begun, next time.Time
	done        int
	shown       bool
}

// How often it is said.
const (
	longWork       = time.Second
	everyAtScreen  = 200 * time.Millisecond
	everyElsewhere = 10 * time.Second
)

func newProgress(env environment, format string) *progress {
	p := &progress{out: env.stderr, format: format, every: everyElsewhere, now: time.Now}
	if f, ok := env.stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.terminal, p.every = true, everyAtScreen
	}
	after := env.longWork
	if after == 0 {
		after = longWork
		if !p.terminal {
			after = everyElsewhere
		}
	}
	p.begun = p.now()
	p.next = p.begun.Add(after)
	return p
}

// add counts what was done.
func (p *progress) add(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += n
	now := p.now()
	if now.Before(p.next) {
		return
	}
	p.next = now.Add(p.every)
	rate := int(float64(p.done) / max(now.Sub(p.begun).Seconds(), 0.001))
	line := fmt.Sprintf(p.format, thousands(p.done), thousands(rate))
	if p.terminal {
		fmt.Fprint(p.out, "\r"+line+clearLine)
		p.shown = true
		return
	}
	fmt.Fprintln(p.out, line)
}

// clearLine takes away what stands behind the cursor.
const clearLine = "\x1b[K"

// clear takes the line away, so that what is printed next stands alone.
func (p *progress) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprint(p.out, "\r"+clearLine)
		p.shown = false
	}
}

// before returns a writer that takes the line away first, for what is printed on the same
// terminal.
func (p *progress) before(w io.Writer) io.Writer {
	if !p.terminal {
		return w
	}
	return clearingWriter{p, w}
}

type clearingWriter struct {
	p *progress
	w io.Writer
}

func (c clearingWriter) Write(text []byte) (int, error) {
	c.p.clear()
	return c.w.Write(text)
}

// thousands writes a number for people: 12,345.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
