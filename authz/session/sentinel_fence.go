package session

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// Nothing is sent to a master but on the word of more than half of the Sentinels that
// it is the one, which is not older than wordBound. Two such majorities have a Sentinel
// in common, and one that has named the successor does not name the old one again. So
// when one Gatehouse acknowledges something that it wrote to the successor, no other
// one gets another word for the old master from then on, and its last one runs out.

const (
	// wordBound is how long a word of the Sentinels counts, from when they were
	// asked.
	wordBound = 2 * time.Second
	// wordFresh is when they are asked anew, beside the call that needs it.
	wordFresh = 500 * time.Millisecond
)

// word is what more than half of the Sentinels say.
type word struct {
	master string // address
	at     time.Time
}

// place keeps a connection, to be closed when another server is the master. That
// may be so already: opening it took its time.
func (m *masters) place(conn net.Conn, address string) (net.Conn, error) {
	p := &placed{Conn: conn, masters: m, address: address}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || address != m.master {
		return nil, errors.Join(errMoved, conn.Close())
	}
	m.placed[p] = struct{}{}
	if raw, ok := conn.(syscall.Conn); ok {
		return rawPlaced{p, raw}, nil
	}
	return p, nil
}

var errMoved = errors.New("another server has become the master meanwhile")

// placed is a connection to a server that was the master when it was opened.
type placed struct {
	net.Conn
	masters  *masters
	address  string
	deadline atomic.Pointer[time.Time] // of writes
}

// Close closes the connection.
func (p *placed) Close() error {
	p.masters.mu.Lock()
	delete(p.masters.placed, p)
	p.masters.mu.Unlock()
	if err := p.Conn.Close(); !errors.Is(err, net.ErrClosed) { // by believe, perhaps, before the pool noticed
		return err
	}
	return nil
}

// vouched reports whether there is a word for an address that counts.
func (m *masters) vouched(address string) bool {
	w := m.word.Load()
	if w == nil || w.master != address {
		return false
	}
	age := time.Since(w.at)
	if age >= wordFresh && age < wordBound {
		m.ask(context.Background())
	}
	return age < wordBound
}

// Write sends nothing without a word of the Sentinels.
func (p *placed) Write(b []byte) (int, error) {
	if !p.masters.vouched(p.address) {
		if err := p.askLeave(); err != nil {
			return 0, errors.Join(err, p.Close())
		}
	}
	return p.Conn.Write(b)
}

func (p *placed) askLeave() error {
	ctx := context.Background()
	if deadline := p.deadline.Load(); deadline != nil && !deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, *deadline)
		defer cancel()
	}
	for range 2 { // the first question may be an old one
		address, err := p.masters.locate(ctx)
		switch {
		case p.masters.vouched(p.address):
			return nil
		case err != nil:
			return fmt.Errorf("is %s the master? %w", p.address, err)
		case address != p.address:
			// For the client that is a connection which has ended: it tries again.
			return fmt.Errorf("%w: %w", errMoved, io.EOF)
		}
	}
	// Nothing is wrapped: for whoever reads it, this is no matter of the master's.
	return errors.New(p.masters.doubt(p.masters.last.Load(), p.address))
}

// SetWriteDeadline implements [net.Conn].
func (p *placed) SetWriteDeadline(t time.Time) error {
	p.deadline.Store(&t)
	return p.Conn.SetWriteDeadline(t)
}

// SetDeadline implements [net.Conn].
func (p *placed) SetDeadline(t time.Time) error {
	p.deadline.Store(&t)
	return p.Conn.SetDeadline(t)
}

// NetConn is what is below, for who looks at the socket.
func (p *placed) NetConn() net.Conn { return p.Conn }

// cut closes it at once: TLS would say goodbye first, to whom may be frozen.
func (p *placed) cut() {
	if c, ok := p.Conn.(*tls.Conn); ok {
		_ = c.NetConn().Close()
	}
	_ = p.Close()
}

// rawPlaced is one whose socket can be looked into.
type rawPlaced struct {
	*placed
	syscall.Conn
}
