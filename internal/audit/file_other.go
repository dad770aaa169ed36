//go:build !unix

package audit

import (
	"io/fs"
	"os"
)

// links is 1 where a file can't be removed while it is open.
func links(fs.FileInfo) uint64 { return 1 }

// hand does nothing where files belong to nobody by number.
func hand(*os.File, fs.FileInfo) error { return nil }
