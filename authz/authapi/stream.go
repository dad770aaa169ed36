package authapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// eventStream is the type of server-sent events (WHATWG HTML, section 9.2).
const eventStream = "text/event-stream"

// writePatience is how long a client of a stream may take to read what is sent at once.
const writePatience = 10 * time.Second

// streaming answers with events, which write sends.
func streaming(write func(ctx context.Context, to *events)) reply {
	return reply{
		status: http.StatusOK, kind: eventStream, stream: write,
		header: []authz.Header{{Name: "X-Accel-Buffering", Value: "no"}}, // nginx would wait for more
	}
}

// events writes a stream of events.
type events struct {
	w       http.ResponseWriter
	control *http.ResponseController
	broken  bool
}

// streamTo begins a stream. The server's deadlines are for calls.
func streamTo(w http.ResponseWriter) *events {
	e := &events{w: w, control: http.NewResponseController(w)}
	e.broken = !supported(e.control.SetReadDeadline(time.Time{}))
	return e
}

// send sends some lines at once, and reports whether the client takes them.
func (e *events) send(lines string) bool {
	if e.broken || lines == "" {
		return !e.broken
	}
	_ = e.control.SetWriteDeadline(time.Now().Add(writePatience)) // what has none, waits for nobody either
	_, err := e.w.Write([]byte(lines))
	e.broken = err != nil || !supported(e.control.Flush())
	return !e.broken
}

// end has the end of the answer, and the next one on the connection, not be late.
func (e *events) end() {
	if !e.broken {
		_ = e.control.SetWriteDeadline(time.Time{})
	}
}

// supported takes it as done what a writer without a connection can't do.
func supported(err error) bool { return err == nil || errors.Is(err, http.ErrNotSupported) }

// eventLines are an event on the wire; id "" leaves the client's as it is.
func eventLines(id, name string, data any) string {
	text, err := json.Marshal(data) // in one line
	if err != nil {
		panic("authapi: an event has no JSON form: " + err.Error()) // as answers
	}
	var b strings.Builder
	b.WriteString(idLine(id))
	b.WriteString("event: " + name + "\ndata: ")
	b.Write(text)
	b.WriteString("\n\n")
	return b.String()
}

// idLine is the place to go on from, without an event.
func idLine(place string) string {
	if place == "" {
		return ""
	}
	return "id: " + place + "\n"
}
