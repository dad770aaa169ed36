//go:build unix

package main

import "syscall"

// setUmask sets which rights files that are made don't get, and returns the ones
// before.
func setUmask(mask int) (before int) { return syscall.Umask(mask) }
