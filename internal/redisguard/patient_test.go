package redisguard_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/redisguard"
)

// What has come by the time that somebody looks is read, though the deadline has passed.
func TestPatience(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	require.NoError(t, err)
	for name, under := range map[string]struct {
		client, server func(net.Conn) net.Conn
		direct         bool
	}{
		"tcp": {client: plainly, server: plainly, direct: true},
		"tls": {
			client: func(c net.Conn) net.Conn { return tls.Client(c, &tls.Config{InsecureSkipVerify: true}) },
			server: func(c net.Conn) net.Conn {
				return tls.Server(c, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			client, server := connected(t)
			there := under.server(server)
			here := redisguard.Patiently(under.client(client))
			_, looks := here.(syscall.Conn)
			require.Equal(t, under.direct || runtime.GOOS == "linux", looks, "go-redis looks at the socket before it uses it again")
			go func() { // the handshake
				_, _ = there.Write([]byte("+OK\r\n"))
			}()
			got := make([]byte, 100)
			n, err := here.Read(got)
			require.NoError(t, err)
			require.Equal(t, "+OK\r\n", string(got[:n]))

			past := time.Now().Add(-time.Second)
			require.NoError(t, here.SetReadDeadline(past))
			_, err = here.Read(got)
			require.ErrorIs(t, err, os.ErrDeadlineExceeded, "nothing has come")
			_, err = there.Write([]byte("$3\r\nyes\r\n"))
			require.NoError(t, err)
			lies(t, client)
			require.NoError(t, here.SetReadDeadline(past))
			n, err = here.Read(got)
			require.NoError(t, err)
			require.Equal(t, "$3\r\nyes\r\n", string(got[:n]))

			// A reply in pieces isn't waited for for ever: the next piece always comes within
			// a glance.
			var drip sync.WaitGroup
			enough := make(chan struct{})
			drip.Go(func() {
				for {
					select {
					case <-enough:
						return
					default:
						_, _ = there.Write([]byte("drip"))
					}
				}
			})
			require.NoError(t, here.SetReadDeadline(past))
			require.Eventually(t, func() bool {
				_, err := here.Read(got)
				return os.IsTimeout(err)
			}, 30*time.Second, time.Microsecond)
			require.NoError(t, here.SetReadDeadline(time.Now().Add(10*time.Second)))
			_, err = here.Read(got)
			require.NoError(t, err, "another deadline, another patience")
			close(enough)
			require.NoError(t, here.SetReadDeadline(time.Now().Add(10*time.Second)))
			go func() {
				drip.Wait()
				_ = there.Close()
			}()
			for err == nil {
				_, err = here.Read(got)
			}
			require.ErrorIs(t, err, io.EOF)
			require.NoError(t, here.SetReadDeadline(past))
			require.Eventually(t, func() bool {
				_, err = here.Read(got)
				return !os.IsTimeout(err)
			}, 10*time.Second, time.Millisecond, "that it is closed is seen, too")
			require.Error(t, err)
		})
	}
}

func plainly(c net.Conn) net.Conn { return c }

func connected(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	client, err = (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	server, err = l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Close() })
	return client, server
}

// lies waits until something lies in the socket.
func lies(t *testing.T, c net.Conn) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	tcp, ok := c.(*net.TCPConn)
	require.True(t, ok)
	raw, err := tcp.SyscallConn()
	require.NoError(t, err)
	var peeked bytes.Buffer
	require.NoError(t, raw.Read(func(fd uintptr) bool {
		b := make([]byte, 1)
		n, _, err := syscall.Recvfrom(int(fd), b, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		if err == nil {
			peeked.Write(b[:n])
		}
		return err == nil
	}))
	require.NotZero(t, peeked.Len())
}
