package main

import (
	"bufio"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Whoever has subscribed hears nothing while it is frozen, and all of it
// afterwards; others are not disturbed.
func TestFreezerStopsSubscribersOnly(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	go func() { // an echo
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	f, err := newFreezer(t.Context(), l.Addr().String())
	require.NoError(t, err)
	dial := func() (net.Conn, *bufio.Reader) {
		c, err := net.Dial("tcp", f.addr())
		require.NoError(t, err)
		require.NoError(t, c.SetDeadline(time.Now().Add(20*time.Second)))
		return c, bufio.NewReader(c)
	}
	plain, plainIn := dial()
	subscriber, subscriberIn := dial()
	exchange := func(c net.Conn, in *bufio.Reader, text string) {
		_, err := io.WriteString(c, text)
		require.NoError(t, err)
		echo := make([]byte, len(text))
		_, err = io.ReadFull(in, echo)
		require.NoError(t, err)
		require.Equal(t, text, string(echo))
	}
	exchange(plain, plainIn, "*1\r\n$4\r\nPING\r\n")
	exchange(subscriber, subscriberIn, "*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nx\r\n")
	exchange(subscriber, subscriberIn, "*1\r\n$4\r\nPING\r\n")

	thaw := f.freeze()
	_, err = io.WriteString(subscriber, "lost?")
	require.NoError(t, err)
	exchange(plain, plainIn, "*1\r\n$4\r\nPING\r\n")
	require.NoError(t, subscriber.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	_, err = subscriberIn.ReadByte()
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout())

	thaw()
	require.NoError(t, subscriber.SetReadDeadline(time.Now().Add(20*time.Second)))
	got := make([]byte, 5)
	_, err = io.ReadFull(subscriberIn, got)
	require.NoError(t, err)
	require.Equal(t, "lost?", string(got))
	require.NoError(t, f.close())
	_, err = plainIn.ReadByte()
	require.Error(t, err, "closed with the proxy")
}
