package proc

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
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
	ports map[int]bool
}

// FreePort returns a TCP port that nobody on 127.0.0.1 listens on, and that it
// has not returned before in this process. Nothing reserves it: two processes
// that ask at the same moment can get the same, by bad luck. Where a listener
// can be passed on, or port 0, do that instead.
func FreePort() (int, error) {
	handedOut.Lock()
	defer handedOut.Unlock()
	if handedOut.ports == nil {
		handedOut.ports = map[int]bool{}
	}
	const attempts = 1000
	for range attempts {
		port := firstPort + rand.IntN(lastPort-firstPort) //nolint:gosec // G404: spreads processes, hides nothing
		if handedOut.ports[port] || !free(port) {
			continue
		}
		handedOut.ports[port] = true
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

func free(port int) bool {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	return err == nil && l.Close() == nil
}
