package logging

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"time"
)

const (
	// QueueSize is how many bytes wait in a [Queue] at most: some 3,000 lines.
	QueueSize = 1 << 20
	// queueChunk is how much is written at once, in whole lines: as much as a pipe takes
	// in one piece, whoever else writes to it (PIPE_BUF of Linux; no POSIX system has less
	// than 512, and a single line may be longer).
	queueChunk = 4096
)

// ErrNotRead is why a line was not written in time.
var ErrNotRead = errors.New("nobody reads the log, or what holds it is stuck")

// Queue stands between those who log and a writer that may stop taking lines: the pipe of
// a container's log whose reader is stuck, a disk that doesn't answer. A write to such a
// thing takes as long as it likes, and nobody who asks the gate can wait for that.
//
// Write never waits: a line that has no room is dropped, and counted. Who must know that
// a line was written takes [Queue.Sure]. Lines keep their order, and are whole.
//
// It is safe for concurrent use.
type Queue struct {
	w io.Writer

	mu      sync.Mutex
	waiting []byte      // whole lines
	spare   []byte      // the memory of those before
	begun   time.Time   // since when what was taken is being written; zero: nothing is
	in, out int64       // bytes that were put in, and of these written or given up
	sure    []*sureLine // in their order
	dropped int64
	told    int64 // of these
	tell    func(lines int64)
	telling bool
	closed  bool

	wake  chan struct{}
	ended chan struct{}
}

// sureLine is one that somebody waits for.
type sureLine struct {
	end     int64 // where it ends, of all bytes that were put in
	written chan error
}

// NewQueue returns a queue before w. It ends by [Queue.Close].
func NewQueue(w io.Writer) *Queue {
	q := &Queue{w: w, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	go q.run()
	return q
}

// OnDropped has f called when lines are written again after some were dropped: with how
// many. It may write to the queue.
func (q *Queue) OnDropped(f func(lines int64)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.tell = f
}

// Dropped is how many lines were not written.
func (q *Queue) Dropped() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}

// Write implements [io.Writer] for one line, or several whole ones.
func (q *Queue) Write(line []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.put(line); err != nil {
		q.dropped += int64(bytes.Count(line, []byte{'\n'}))
		return 0, err
	}
	return len(line), nil
}

// put adds a line; q.mu is held.
func (q *Queue) put(line []byte) error {
	switch {
	case q.closed && !q.telling:
		return io.ErrClosedPipe
	case int64(len(line))+q.in-q.out > QueueSize:
		return ErrNotRead
	}
	q.waiting = append(q.waiting, line...)
	q.in += int64(len(line))
	if !q.closed { // else it is awake
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	return nil
}

// Sure returns a writer to the same queue that returns when its line was written. Where
// that takes longer than patience, or something else does already, the error is
// [ErrNotRead]; such a line may still be written later.
func (q *Queue) Sure(patience time.Duration) io.Writer { return sure{q, patience} }

type sure struct {
	q        *Queue
	patience time.Duration
}

func (s sure) Write(line []byte) (int, error) {
	mine, err := s.put(line)
	if err != nil {
		return 0, err
	}
	timer := time.NewTimer(s.patience)
	defer timer.Stop()
	select {
	case err = <-mine.written:
	case <-timer.C:
		err = ErrNotRead
	}
	if err != nil {
		return 0, err
	}
	return len(line), nil
}

func (s sure) put(line []byte) (*sureLine, error) {
	q := s.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.begun.IsZero() && time.Since(q.begun) > s.patience {
		return nil, ErrNotRead
	}
	if err := q.put(line); err != nil {
		return nil, err
	}
	mine := &sureLine{q.in, make(chan error, 1)}
	q.sure = append(q.sure, mine)
	return mine, nil
}

// Close has no further line taken, and waits until the others are written, or patience
// is over: then the error is [ErrNotRead].
func (q *Queue) Close(patience time.Duration) error {
	q.mu.Lock()
	if !q.closed {
		q.closed = true
		close(q.wake)
	}
	q.mu.Unlock()
	select {
	case <-q.ended:
		return nil
	case <-time.After(patience):
		return ErrNotRead
	}
}

// run writes until the queue is closed, and empty.
func (q *Queue) run() {
	defer close(q.ended)
	torn := false // the last line was written in part
	for range q.wake {
		for lines := q.take(); len(lines) > 0; lines = q.take() {
			var err error
			for len(lines) > 0 {
				n := wholeLines(lines)
				torn, err = q.write(lines[:n], torn)
				lines = lines[n:]
			}
			if err == nil {
				q.tellDropped()
			}
		}
	}
}

// take returns what waits.
func (q *Queue) take() []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	lines := q.waiting
	q.waiting, q.spare = q.spare[:0], lines
	return lines
}

// wholeLines is how much of lines is written at once.
func wholeLines(lines []byte) int {
	if len(lines) <= queueChunk {
		return len(lines)
	}
	if n := bytes.LastIndexByte(lines[:queueChunk], '\n'); n >= 0 {
		return n + 1
	}
	if n := bytes.IndexByte(lines, '\n'); n >= 0 {
		return n + 1
	}
	return len(lines)
}

// write writes lines, and tells those who wait for them. A line of which only a part could
// be written takes none of the next ones with it.
func (q *Queue) write(lines []byte, torn bool) (stillTorn bool, err error) {
	q.mu.Lock()
	q.begun = time.Now()
	q.mu.Unlock()
	if torn {
		_, err = q.w.Write([]byte{'\n'})
	}
	n := 0
	if err == nil {
		torn = false
		n, err = q.w.Write(lines)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.begun = time.Time{}
	written := q.out + int64(n)
	q.out += int64(len(lines))
	if err != nil {
		q.dropped += int64(bytes.Count(lines[n:], []byte{'\n'}))
		torn = torn || n > 0 && lines[n-1] != '\n'
	}
	for len(q.sure) > 0 && q.sure[0].end <= q.out {
		if q.sure[0].end <= written {
			q.sure[0].written <- nil
		} else {
			q.sure[0].written <- err
		}
		q.sure = q.sure[1:]
	}
	return torn, err
}

// tellDropped says how many lines are missing, where it was not said yet.
func (q *Queue) tellDropped() {
	q.mu.Lock()
	n, tell := q.dropped-q.told, q.tell
	q.told = q.dropped
	q.telling = n > 0 && tell != nil
	telling := q.telling
	q.mu.Unlock()
	if telling { // also at the end, when no other line is taken
		tell(n)
		q.mu.Lock()
		q.telling = false
		q.mu.Unlock()
	}
}
