package redisguard

import (
	"encoding/binary"
	"syscall"
)

const canSeeEnds = true

// established is a state of struct tcp_info: neither end has ended the connection.
const established = 1

// ended reports whether a TCP socket's connection has ended at the other end, be there
// something left to read or not. Of what is no such socket it knows nothing.
func ended(fd uintptr) bool {
	info, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_INFO) // the beginning of it
	if err != nil {
		return false
	}
	var first [4]byte
	binary.NativeEndian.PutUint32(first[:], uint32(info)) //nolint:gosec // G115: four bytes, as they come
	return first[0] != established
}
