package envoy_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Over HTTP/2 a client says which scheme its URL has, and may say anything.
func TestSchemeOverHTTP2(t *testing.T) {
	g := startGateway(t)
	for scheme, taken := range map[string]bool{
		"http": true, "https": true,
		"http://other.example/users/admin?": false, "https ": false, "javascript": false, "httpx": false, "xhttp": false, "": false,
	} {
		for _, path := range []string{"/users", "/", "/auth/login", "/nowhere"} {
			g.answers(allow)
			status := g.rawHTTP2(t, ":method", "GET", ":scheme", scheme, ":authority", "gateway.example.com", ":path", path)
			if taken {
				require.NotContains(t, []int{0, http.StatusBadRequest}, status, "%q %s", scheme, path)
			} else {
				require.Contains(t, []int{0, http.StatusBadRequest}, status, "%q %s", scheme, path)
				require.Empty(t, g.requests(), "%q %s", scheme, path)
			}
		}
	}
}

// rawHTTP2 sends a request of these fields and returns the status, 0 where the stream or
// the connection ends without one.
func (g *gateway) rawHTTP2(t *testing.T, fields ...string) int {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", g.addr)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	_, err = io.WriteString(conn, http2.ClientPreface)
	require.NoError(t, err)
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	require.NoError(t, framer.WriteSettings())
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		require.NoError(t, encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	require.NoError(t, framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}))
	for {
		frame, err := framer.ReadFrame()
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			require.NoError(t, err, "no answer")
		}
		if err != nil {
			return 0
		}
		switch frame := frame.(type) {
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return 0
		case *http2.MetaHeadersFrame:
			status, err := strconv.Atoi(frame.PseudoValue("status"))
			require.NoError(t, err)
			return status
		}
	}
}
