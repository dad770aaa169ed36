package main

import (
	"bytes"
	"context"
	"net"
	"sync"
)

// freezer is a proxy on loopback before Redis that can stop forwarding the
// connections that subscribe: what a network does that loses packets without a
// word. All other connections go on.
type freezer struct {
	listener net.Listener
	to       string
	wg       sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
	thaw  chan struct{} // closed unless frozen
}

func newFreezer(ctx context.Context, to string) (*freezer, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &freezer{listener: l, to: to, conns: map[net.Conn]bool{}, thaw: make(chan struct{})}
	close(f.thaw)
	f.wg.Go(func() { f.accept(ctx) })
	return f, nil
}

func (f *freezer) addr() string { return f.listener.Addr().String() }

// freeze stops all bytes, both ways, on connections that have subscribed or
// will, until the returned function is called, once.
func (f *freezer) freeze() (thaw func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ch := make(chan struct{})
	f.thaw = ch
	return func() { close(ch) }
}

// thawed returns what is closed when bytes may pass.
func (f *freezer) thawed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.thaw
}

// close ends all connections. Nothing may be frozen.
func (f *freezer) close() error {
	err := f.listener.Close()
	f.mu.Lock()
	for c := range f.conns {
		_ = c.Close()
	}
	f.mu.Unlock()
	f.wg.Wait()
	return err
}

// keep notes a connection for close.
func (f *freezer) keep(c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns[c] = true
}

// drop closes and forgets.
func (f *freezer) drop(c net.Conn) {
	_ = c.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
}

func (f *freezer) accept(ctx context.Context) {
	for {
		client, err := f.listener.Accept()
		if err != nil {
			return
		}
		var d net.Dialer
		server, err := d.DialContext(ctx, "tcp", f.to)
		if err != nil {
			_ = client.Close()
			continue
		}
		f.keep(client)
		f.keep(server)
		subscribed := make(chan struct{})
		f.wg.Go(func() {
			defer f.drop(server)
			f.forward(server, client, subscribed, true)
		})
		f.wg.Go(func() {
			defer f.drop(client)
			f.forward(client, server, subscribed, false)
		})
	}
}

// forward copies until one side ends. asks says that src is the client, whose
// bytes tell whether it subscribes.
func (f *freezer) forward(dst, src net.Conn, subscribed chan struct{}, asks bool) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := src.Read(buffer)
		if asks && !isClosed(subscribed) && subscribes(buffer[:n]) {
			close(subscribed)
		}
		if isClosed(subscribed) {
			<-f.thawed()
		}
		if n > 0 {
			if _, err := dst.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// subscribes finds the command in what a client sends. It comes whole: clients
// write a command at a time.
func subscribes(sent []byte) bool {
	return bytes.Contains(bytes.ToLower(sent), []byte("\r\nsubscribe\r\n"))
}
