//go:build unix && !linux

package proc

import "syscall"

// ownGroup: no system but Linux can tie a child's life to ours.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
