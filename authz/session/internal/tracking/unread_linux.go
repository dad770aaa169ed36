package tracking

import (
	"syscall"
	"unsafe"
)

// unread returns how many bytes of a socket wait to be read.
func unread(fd uintptr) (n int32, ok bool) {
	_, _, err := syscall.RawSyscall(syscall.SYS_IOCTL, fd, syscall.TIOCINQ, uintptr(unsafe.Pointer(&n))) //nolint:gosec // G103: FIONREAD, which writes an int
	return n, err == 0
}

const canPeek = true

// nothingYet reports whether a socket has nothing to read, not even its end.
func nothingYet(fd uintptr) bool {
	var b [1]byte
	_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	return err == syscall.EAGAIN || err == syscall.EINTR
}
