package proc

import "syscall"

// ownGroup has the kernel kill the process when we die, however we die: a
// panicking test or a SIGKILL must not leave an Envoy behind on the port.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
