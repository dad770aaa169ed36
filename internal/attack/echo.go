package attack

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Echoed is the answer of an echo service: what reached it. The kit needs path and
// headers; the rest is for people.
type Echoed struct {
	Service string `json:"service"`
	Method  string `json:"method"`
	Host    string `json:"host"`
	Path    string `json:"path"`  // as it was sent, without the query
	Query   string `json:"query"` // as it was sent
	// Headers has every header that arrived, by its name in lower case; nothing is
	// joined, and no other spelling of a name is changed.
	Headers  map[string][]string `json:"headers"`
	Trailers map[string][]string `json:"trailers,omitempty"`
}

const (
	echoName     = "gatehouse-attack-echo"
	echoMostHead = 256 << 10
	echoMostBody = 1 << 20
	echoIdle     = 2 * time.Hour // longer than gateways keep connections
)

// ServeEcho answers every request on a listener with what arrived, until ctx ends.
// It reads HTTP/1.1 as the most generous of servers do, so that it shows what a
// gateway let through instead of refusing it in the gateway's place: any path, any
// method, names in any spelling, lines that end with a bare LF. Of credentials it
// shows only that they arrived. It is for tests: put nothing but a gateway in front
// of it.
func ServeEcho(ctx context.Context, listener net.Listener) error {
	var (
		mu    sync.Mutex
		conns = map[net.Conn]struct{}{}
		wg    sync.WaitGroup
	)
	ended := context.AfterFunc(ctx, func() {
		_ = listener.Close()
		mu.Lock()
		defer mu.Unlock()
		for conn := range conns {
			_ = conn.Close()
		}
	})
	defer ended()
	defer wg.Wait()
	for {
		conn, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept: %w", err)
		}
		mu.Lock()
		conns[conn] = struct{}{}
		if ctx.Err() != nil { // after the others were closed
			_ = conn.Close()
		}
		mu.Unlock()
		wg.Go(func() {
			echoConnection(conn)
			_ = conn.Close()
			mu.Lock()
			delete(conns, conn)
			mu.Unlock()
		})
	}
}

// echoConnection answers requests one after the other.
func echoConnection(conn net.Conn) {
	in := bufio.NewReaderSize(conn, 64<<10)
	for {
		_ = conn.SetDeadline(time.Now().Add(echoIdle))
		e, err := readRequest(in)
		if err != nil {
			return
		}
		body, err := json.Marshal(e)
		if err != nil {
			return // maps of strings have a JSON form
		}
		head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nContent-Length: %d\r\n\r\n", len(body))
		if e.Method == "HEAD" {
			body = nil
		}
		if _, err := io.WriteString(conn, head+string(body)); err != nil {
			return
		}
	}
}

var errTooLong = errors.New("too long")

// readRequest reads a request generously.
func readRequest(in *bufio.Reader) (*Echoed, error) {
	lines, err := readHead(in)
	if err != nil {
		return nil, err
	}
	method, rest, _ := strings.Cut(lines[0], " ")
	target := rest
	if before, version, found := lastCut(rest, " "); found && strings.HasPrefix(version, "HTTP/") {
		target = before
	}
	e := &Echoed{Service: echoName, Method: method, Headers: fieldsOfLines(lines[1:])}
	_, e.Query, _ = strings.Cut(target, "?")
	e.Path = pathOf(target)
	if hosts := e.Headers["host"]; len(hosts) > 0 {
		e.Host = hosts[0]
	}
	coding := strings.ToLower(strings.Join(e.Headers["transfer-encoding"], ","))
	length := e.Headers["content-length"]
	switch {
	case strings.Contains(coding, "chunked"):
		e.Trailers, err = readChunks(in)
	case len(length) > 0:
		n, badLength := strconv.ParseInt(strings.TrimPrefix(strings.TrimSpace(length[0]), "+"), 10, 64)
		if badLength != nil || n < 0 || n > echoMostBody {
			return nil, errTooLong
		}
		_, err = io.CopyN(io.Discard, in, n)
	}
	hideCredentials(e.Headers)
	hideCredentials(e.Trailers)
	return e, err
}

// readHead reads lines up to an empty one; empty lines before the first are left
// out.
func readHead(in *bufio.Reader) ([]string, error) {
	var lines []string
	size := 0
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return nil, err
		}
		if size += len(line); size > echoMostHead {
			return nil, errTooLong
		}
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		switch {
		case line != "":
			lines = append(lines, line)
		case len(lines) > 0:
			return lines, nil
		}
	}
}

// fieldsOfLines reads header lines: white space around a name is dropped, and a bare
// CR ends a line. A folded line belongs to the one before; where it looks like a
// header, there are servers that take it for one, so it is that, too.
func fieldsOfLines(lines []string) map[string][]string {
	fields := map[string][]string{}
	last := ""
	for _, line := range slices.Concat(splitEach(lines, "\r")...) {
		name, value, found := strings.Cut(line, ":")
		if strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") {
			if values := fields[last]; len(values) > 0 {
				values[len(values)-1] = strings.TrimSpace(values[len(values)-1] + " " + strings.TrimSpace(line))
			}
			if !found {
				continue
			}
		}
		last = strings.ToLower(strings.TrimSpace(name))
		fields[last] = append(fields[last], strings.TrimSpace(value))
	}
	return fields
}

func splitEach(lines []string, sep string) [][]string {
	all := make([][]string, len(lines))
	for i, line := range lines {
		all[i] = strings.Split(line, sep)
	}
	return all
}

// readChunks reads a chunked body and returns its trailers.
func readChunks(in *bufio.Reader) (map[string][]string, error) {
	total := int64(0)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return nil, err
		}
		digits, _, _ := strings.Cut(strings.TrimSpace(line), ";")
		n, err := strconv.ParseInt(strings.TrimPrefix(strings.TrimSpace(digits), "0x"), 16, 64)
		if total += n; err != nil || n < 0 || total > echoMostBody {
			return nil, errTooLong
		}
		if n == 0 {
			break
		}
		if _, err := io.CopyN(io.Discard, in, n); err != nil {
			return nil, err
		}
		if _, err := in.ReadString('\n'); err != nil {
			return nil, err
		}
	}
	var lines []string
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return nil, err
		}
		if line = strings.TrimRight(line, "\r\n"); line == "" {
			return fieldsOfLines(lines), nil
		}
		if lines = append(lines, line); len(lines) > 100 {
			return nil, errTooLong
		}
	}
}

// hideCredentials leaves of credentials only that they are there.
func hideCredentials(fields map[string][]string) {
	for name, values := range fields {
		switch strings.ReplaceAll(name, "_", "-") {
		case "authorization", "proxy-authorization", "cookie", "x-internal-api-key":
			for i, value := range values {
				values[i] = fmt.Sprintf("(present, %d bytes)", len(value))
			}
		}
	}
}
