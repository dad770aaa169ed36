//go:build !unix

package proc

import (
	"os"
	"syscall"
)

func ownGroup() *syscall.SysProcAttr { return nil }

// terminate: there is no polite signal on these systems.
func terminate(p *os.Process) error { return p.Kill() }

func killGroup(int) {}

func terminated(s *os.ProcessState) bool { return s.ExitCode() == 1 }
