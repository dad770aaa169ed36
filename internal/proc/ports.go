package proc

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strconv"
	"sync"
	"syscall"
)

// Ports are taken from below the range that Linux (32768 to 60999), macOS and
// Windows use for outgoing connections: a port from that range can be gone
// again before the process that should listen on it has started.
const (
	firstPort = 20000
	lastPort  = 32000
)

var handedOut struct {
	sync.Mutex
	ports map[int]io.Closer // what reserves them; nil for nothing
}

// FreePort returns a TCP port that nobody on 127.0.0.1 listens on, and that it
// has not returned before in this process, nor, on Linux, in another one that
// runs. Elsewhere nothing reserves it: two processes that ask at the same moment
// can get the same, by bad luck. Where a listener can be passed on, or port 0, do
// that instead.
func FreePort() (int, error) {
	handedOut.Lock()
	defer handedOut.Unlock()
	if handedOut.ports == nil {
		handedOut.ports = map[int]io.Closer{}
	}
	const attempts = 1000
	for range attempts {
		port := firstPort + rand.IntN(lastPort-firstPort) //nolint:gosec // G404: spreads processes, hides nothing
		if _, ok := handedOut.ports[port]; ok {
			continue
		}
		reserved, ok := reserve(port)
		if !ok {
			continue
		}
		if !free(port) {
			if reserved != nil {
				_ = reserved.Close()
			}
			continue
		}
		handedOut.ports[port] = reserved
		return port, nil
	}
	return 0, errors.New("no free port between 20000 and 32000 on 127.0.0.1: end some of the programs that listen there")
}

// FreePorts returns n different ones.
func FreePorts(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		var err error
		if ports[i], err = FreePort(); err != nil {
			return nil, err
		}
	}
	return ports, nil
}

// Local is the address of a port on this machine.
func Local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// reserve keeps a port from other processes that ask for one, as long as this one runs.
// It is false where another one has it. A socket with an abstract name is gone with its
// process, and is of this network's namespace, as ports are.
func reserve(port int) (reserved io.Closer, ok bool) {
	if runtime.GOOS != "linux" {
		return nil, true
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: "@gatehouse-port-" + strconv.Itoa(port)})
	if err != nil {
		return nil, !errors.Is(err, syscall.EADDRINUSE) // no such sockets here
	}
	return l, true
}

func free(port int) bool {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	return err == nil && l.Close() == nil
}
