package proc

import (
	"bytes"
	"sync"
)

// tailSize is how much of a process's output is kept. A gateway under load
// prints without end.
const tailSize = 1 << 20

// tail keeps the end of what is written to it, and lets readers wait for more.
type tail struct {
	mu   sync.Mutex
	data []byte
	more chan struct{} // closed on the next write; nil when nothing more comes
}

func newTail() *tail { return &tail{more: make(chan struct{})} }

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, b...)
	if len(t.data) > 2*tailSize {
		t.data = append(t.data[:0], fromLine(t.data[len(t.data)-tailSize:])...)
	}
	close(t.more)
	t.more = make(chan struct{})
	return len(b), nil
}

// close says that nothing more comes. Write must not be called after it.
func (t *tail) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.more)
	t.more = nil
}

// snapshot returns the text so far and a channel that is closed when there is
// more; nil when there never will be.
func (t *tail) snapshot() (string, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	data := t.data
	if len(data) > tailSize {
		data = fromLine(data[len(data)-tailSize:])
	}
	return string(data), t.more
}

func (t *tail) String() string {
	text, _ := t.snapshot()
	return text
}

// fromLine cuts off the partial line that b may begin with.
func fromLine(b []byte) []byte {
	_, rest, found := bytes.Cut(b, []byte("\n"))
	if !found {
		return b
	}
	return rest
}
