//go:build unix

package proc

import (
	"os"
	"syscall"
)

func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }

// killGroup ends what is left of the group that the process led.
func killGroup(pid int) {
	_ = syscall.Kill(-pid, syscall.SIGKILL) // fails when nothing is left, as it should be
}

// terminated reports whether the process ended because of SIGTERM: by the
// signal itself, or with the status that runtimes with a handler use for it.
func terminated(s *os.ProcessState) bool {
	status, ok := s.Sys().(syscall.WaitStatus)
	return ok && (status.Signaled() && status.Signal() == syscall.SIGTERM ||
		status.Exited() && status.ExitStatus() == 128+int(syscall.SIGTERM))
}
