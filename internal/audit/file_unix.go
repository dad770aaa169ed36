//go:build unix

package audit

import (
	"io/fs"
	"os"
	"syscall"
)

// links is how many names a file has.
func links(info fs.FileInfo) uint64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(s.Nlink) //nolint:unconvert,nolintlint // of another type elsewhere
	}
	return 1
}

// hand gives a file that root made to whom the directory belongs.
func hand(file *os.File, directory fs.FileInfo) error {
	s, ok := directory.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 || s.Uid == 0 {
		return nil
	}
	return file.Chown(int(s.Uid), int(s.Gid))
}
