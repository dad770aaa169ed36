package logging_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/logging"
)

// valve is a writer that can be stuck, or fail.
type valve struct {
	mu      sync.Mutex
	open    *sync.Cond
	stuck   bool
	room    int // bytes until it is full; negative: never
	text    bytes.Buffer
	writes  int
	longest int
}

func newValve() *valve {
	v := &valve{room: -1}
	v.open = sync.NewCond(&v.mu)
	return v
}

func (v *valve) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for v.stuck {
		v.open.Wait()
	}
	v.writes++
	v.longest = max(v.longest, len(p))
	if v.room >= 0 && len(p) > v.room {
		n := v.room
		v.text.Write(p[:n])
		v.room = 0
		return n, errFull
	}
	if v.room >= 0 {
		v.room -= len(p)
	}
	return v.text.Write(p)
}

func (v *valve) set(stuck bool, room int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stuck, v.room = stuck, room
	v.open.Broadcast()
}

func (v *valve) String() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.text.String()
}

func line(i int) string { return fmt.Sprintf("line %06d %s\n", i, strings.Repeat("x", 60)) }

const long = time.Minute

func TestQueueKeepsOrderAndWholeLines(t *testing.T) {
	t.Parallel()
	v := newValve()
	q := logging.NewQueue(v)
	var want strings.Builder
	for i := range 5000 {
		text := line(i)
		if i%1000 == 999 { // longer than is written at once
			text = strings.Repeat("y", 10_000) + "\n"
		}
		want.WriteString(text)
		w := io.Writer(q)
		if i%100 == 0 {
			w = q.Sure(long) // so that the queue isn't full
		}
		n, err := io.WriteString(w, text)
		require.NoError(t, err)
		require.Equal(t, len(text), n)
		if i%100 == 0 {
			require.True(t, strings.HasSuffix(v.String(), text), "it was written when Sure returns")
		}
	}
	require.NoError(t, q.Close(long))
	require.Equal(t, want.String(), v.String())
	require.Zero(t, q.Dropped())
	require.LessOrEqual(t, v.longest, 10_001)
	_, err := io.WriteString(q, line(0))
	require.ErrorIs(t, err, io.ErrClosedPipe)
}

func TestQueueNeverWaits(t *testing.T) {
	t.Parallel()
	v := newValve()
	v.set(true, -1)
	q := logging.NewQueue(v)
	var told []int64
	q.OnDropped(func(n int64) {
		told = append(told, n)
		_, _ = fmt.Fprintf(q, "%d lines are missing\n", n)
	})
	kept, dropped := 0, 0
	for i := range 3 * logging.QueueSize / len(line(0)) {
		if _, err := io.WriteString(q, line(i)); err != nil {
			require.ErrorIs(t, err, logging.ErrNotRead)
			dropped++
		} else {
			require.Zero(t, dropped, "line %d", i)
			kept++
		}
	}
	require.Equal(t, logging.QueueSize/len(line(0)), kept, "all that has room")
	require.EqualValues(t, dropped, q.Dropped())
	_, err := io.WriteString(q.Sure(long), line(0))
	require.ErrorIs(t, err, logging.ErrNotRead, "without waiting")
	require.ErrorIs(t, q.Close(time.Millisecond), logging.ErrNotRead)

	v.set(false, -1)
	require.NoError(t, q.Close(long))
	lines := strings.SplitAfter(strings.TrimSuffix(v.String(), "\n"), "\n")
	for i := range kept {
		require.Equal(t, line(i), strings.TrimSuffix(lines[i], "\n")+"\n")
	}
	require.Equal(t, []int64{int64(dropped)}, told)
	require.Equal(t, fmt.Sprintf("%d lines are missing", dropped), lines[len(lines)-1], "although it was closed")
}

func TestQueueTellsWhatIsMissing(t *testing.T) {
	t.Parallel()
	v := newValve()
	v.set(true, -1)
	q := logging.NewQueue(v)
	q.OnDropped(func(n int64) { _, _ = fmt.Fprintf(q, "%d lines are missing\n", n) })
	for i := range 2 * logging.QueueSize / len(line(0)) {
		_, _ = io.WriteString(q, line(i))
	}
	missing := q.Dropped()
	require.Positive(t, missing)
	v.set(false, -1)
	_, err := io.WriteString(q.Sure(long), "later\n")
	for errors.Is(err, logging.ErrNotRead) { // it is still full
		_, err = io.WriteString(q.Sure(long), "later\n")
	}
	require.NoError(t, err)
	require.NoError(t, q.Close(long))
	require.Equal(t, 1, strings.Count(v.String(), fmt.Sprintf("\n%d lines are missing\n", missing)), missing)
	require.Equal(t, missing, q.Dropped(), "what waits for room is told, and no dropped line")
}

func TestSureLinesAreWaitedForButNotForLong(t *testing.T) {
	t.Parallel()
	v := newValve()
	v.set(true, -1)
	q := logging.NewQueue(v)
	sure := q.Sure(20 * time.Millisecond)
	_, err := io.WriteString(sure, "one\n")
	require.ErrorIs(t, err, logging.ErrNotRead)
	began := time.Now()
	for i := range 100 { // 100 times the patience is not waited for
		_, err = io.WriteString(q.Sure(20*time.Millisecond), fmt.Sprintf("not taken %d\n", i))
		require.ErrorIs(t, err, logging.ErrNotRead)
		if time.Since(began) > time.Second { // a slow machine
			break
		}
	}
	v.set(false, -1)
	_, err = io.WriteString(q.Sure(long), "two\n")
	require.NoError(t, err)
	require.NoError(t, q.Close(long))
	require.Contains(t, v.String(), "one\n", "it was taken, and is written later")
	require.Contains(t, v.String(), "two\n")
}

func TestQueueOnADiskThatIsFull(t *testing.T) {
	t.Parallel()
	v := newValve()
	q := logging.NewQueue(v)
	_, err := io.WriteString(q.Sure(long), "one\n")
	require.NoError(t, err)
	v.set(false, 3) // the next line is written in part
	_, err = io.WriteString(q.Sure(long), "the second\n")
	require.ErrorIs(t, err, errFull)
	_, err = io.WriteString(q.Sure(long), "the third\n")
	require.ErrorIs(t, err, errFull)
	require.EqualValues(t, 2, q.Dropped())
	v.set(false, -1)
	_, err = io.WriteString(q.Sure(long), "four\n")
	require.NoError(t, err)
	require.NoError(t, q.Close(long))
	require.Equal(t, "one\nthe\nfour\n", v.String())
}

func TestQueueForManyAtOnce(t *testing.T) {
	t.Parallel()
	v := newValve()
	q := logging.NewQueue(v)
	const writers, each = 20, 200
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			to := io.Writer(q)
			if w%2 == 0 {
				to = q.Sure(long)
			}
			for i := range each {
				if _, err := fmt.Fprintf(to, "writer %d line %d %s\n", w, i, strings.Repeat("z", w*10)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	require.NoError(t, q.Close(long))
	next := map[int]int{}
	for text := range strings.Lines(v.String()) {
		var w, i int
		_, err := fmt.Sscanf(text, "writer %d line %d ", &w, &i)
		require.NoError(t, err, text)
		require.Equal(t, next[w], i, "of writer %d", w)
		next[w]++
	}
	for w := range writers {
		require.Equal(t, each, next[w])
	}
}
