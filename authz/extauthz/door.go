package extauthz

import "context"

// Current knows which of several servers answers now. Acquire returns it, and what
// is released when the check is answered: until then the server can be used,
// though another one may have taken its place. It is called for every check, so it
// should neither wait nor allocate.
type Current interface {
	Acquire() (*Server, Releaser)
}

// Releaser is what [Current] has back when a check is answered.
type Releaser interface{ Release() }

// Door answers each check by the server that [Current] names at its arrival: the
// way to change everything about a [Server] while checks come in.
type Door struct{ current Current }

// NewDoor returns a door.
func NewDoor(c Current) *Door { return &Door{c} }

// Answer is [Server.Answer] of the current server.
func (d *Door) Answer(ctx context.Context, request, reply []byte) ([]byte, error) {
	s, held := d.current.Acquire()
	defer held.Release()
	return s.Answer(ctx, request, reply)
}

func (d *Door) answer(ctx context.Context, w *wireRequest, to []byte) []byte {
	s, held := d.current.Acquire()
	defer held.Release()
	return s.answer(ctx, w, to)
}
