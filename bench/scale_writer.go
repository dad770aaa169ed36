package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// writer is another program that writes sessions, by one connection and as a
// pipeline. Its commands are made beforehand and its answers known, so that it
// takes little of the machine that it measures.
type writer struct {
	conn     net.Conn
	in       *bufio.Reader
	commands [][]byte
	answer   []byte // to each of them
	next     int
	// What the answers to a batch are, and should be.
	replies, expected []byte
}

// The writes that are measured. Those of a pipeline are executed some at a time,
// and announced together; of those that come one by one each is announced by
// itself.
const (
	writeSet    = "SET of a session"
	writeExpire = "EXPIRE (a touch)"
	writeSingle = "SET, one by one"
)

var scaleWrites = []string{writeSet, writeExpire, writeSingle}

// newWriter connects. Its writes are about so many sessions in turn.
func newWriter(ctx context.Context, addr, write string, sessions int, now time.Time) (*writer, error) {
	w := &writer{}
	seconds := strconv.Itoa(int(sessionTTL.Seconds()))
	for i := range sessions {
		key := sessionPrefix + scaleID(i)
		if write == writeExpire {
			w.answer = []byte(":1\r\n")
			w.commands = append(w.commands, command("EXPIRE", key, seconds))
			continue
		}
		record, err := newRecord(user(i), now, sessionTTL)
		if err != nil {
			return nil, err
		}
		w.answer = []byte("+OK\r\n")
		w.commands = append(w.commands, command("SET", key, string(record), "EX", seconds))
	}
	var d net.Dialer
	var err error
	if w.conn, err = d.DialContext(ctx, "tcp", addr); err != nil {
		return nil, err
	}
	w.in = bufio.NewReaderSize(w.conn, 64<<10)
	return w, nil
}

func (w *writer) close() error { return w.conn.Close() }

// command is a command as it is written to Redis.
func command(words ...string) []byte {
	b := []byte("*" + strconv.Itoa(len(words)) + "\r\n")
	for _, word := range words {
		b = append(b, "$"+strconv.Itoa(len(word))+"\r\n"+word+"\r\n"...)
	}
	return b
}

// How much is under way at most: enough that Redis always has something to do.
const (
	batchAtOnce  = 64
	mostBatches  = 16
	steadyTick   = 100 * time.Microsecond // timers are later than that
	mostUnderway = 20_000
)

// written is what a writer did.
type written struct {
	elapsed time.Duration
	acked   []mark // in the order of time
}

func (w written) count() int64 {
	if len(w.acked) == 0 {
		return 0
	}
	return w.acked[len(w.acked)-1].Count
}

func (w written) perSecond() float64 {
	if w.elapsed <= 0 {
		return 0
	}
	return float64(w.count()) / w.elapsed.Seconds()
}

// flood writes as fast as it can.
func (w *writer) flood(ctx context.Context, d time.Duration) (written, error) {
	began := time.Now()
	return w.run(ctx, mostBatches, func() (int, bool) {
		return batchAtOnce, time.Since(began) < d
	})
}

// single writes as fast as it can and waits for each answer.
func (w *writer) single(ctx context.Context, d time.Duration) (written, error) {
	stop := context.AfterFunc(ctx, func() { _ = w.conn.SetDeadline(time.Now()) })
	defer stop()
	var got written
	began := time.Now()
	for got.elapsed < d {
		if _, err := w.conn.Write(w.commands[w.next]); err != nil {
			return got, errors.Join(err, ctx.Err())
		}
		w.next = (w.next + 1) % len(w.commands)
		if err := w.answers(1, &got.acked); err != nil {
			return got, errors.Join(err, ctx.Err())
		}
		got.elapsed = time.Since(began)
	}
	return got, nil
}

// steady writes so many per second, those of each tick at once. A writer
// that Redis keeps waiting makes up for it only as far as mostUnderway lets it:
// then the rate is not kept.
func (w *writer) steady(ctx context.Context, rate float64, d time.Duration) (written, error) {
	began := time.Now()
	sent := 0
	perTick := max(int(rate*steadyTick.Seconds()), 1)
	return w.run(ctx, max(mostUnderway/perTick, 1), func() (int, bool) {
		for {
			passed := time.Since(began)
			if passed >= d {
				return 0, false
			}
			if due := min(int(rate*passed.Seconds())-sent, mostUnderway); due > 0 {
				sent += due
				return due, true
			}
			time.Sleep(steadyTick - passed%steadyTick)
		}
	})
}

// run writes batches until there is no next one, with at most so many under way,
// and returns when all are acknowledged.
func (w *writer) run(ctx context.Context, batches int, next func() (n int, ok bool)) (written, error) {
	stop := context.AfterFunc(ctx, func() { _ = w.conn.SetDeadline(time.Now()) })
	defer stop()
	underway := make(chan int, batches)
	var got written
	done := make(chan error, 1)
	began := time.Now()
	go func() { done <- w.read(underway, &got.acked) }()
	var err error
	var buffer []byte
	for {
		n, ok := next()
		if !ok || err != nil {
			break
		}
		buffer = buffer[:0]
		for range n {
			buffer = append(buffer, w.commands[w.next]...)
			w.next = (w.next + 1) % len(w.commands)
		}
		select {
		case underway <- n:
			_, err = w.conn.Write(buffer)
		case err = <-done:
			return got, errors.Join(err, ctx.Err()) // it ends early for an error only
		}
	}
	close(underway)
	err = errors.Join(err, <-done)
	got.elapsed = time.Since(began)
	if err != nil {
		err = errors.Join(err, ctx.Err())
	}
	return got, err
}

// read reads the answers to each batch.
func (w *writer) read(underway <-chan int, acked *[]mark) error {
	for n := range underway {
		if err := w.answers(n, acked); err != nil {
			return err
		}
	}
	return nil
}

// answers reads so many, and notes when they were there.
func (w *writer) answers(n int, acked *[]mark) error {
	size := n * len(w.answer)
	if len(w.replies) < size {
		w.replies, w.expected = make([]byte, size), bytes.Repeat(w.answer, n)
	}
	replies := w.replies[:size]
	if _, err := io.ReadFull(w.in, replies); err != nil {
		return fmt.Errorf("read Redis's answers: %w", err)
	}
	if !bytes.Equal(replies, w.expected[:size]) {
		return fmt.Errorf("an answer of Redis is %.100q, not %q each time", replies, w.answer)
	}
	count := int64(n)
	if last := len(*acked) - 1; last >= 0 {
		count += (*acked)[last].Count
	}
	*acked = append(*acked, mark{count, time.Now().UnixNano()})
	return nil
}
