package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// entry is a file of an archive.
type entry struct {
	Name    string
	Program bool
	Content []byte
}

// archive packs entries into a directory dir, as a tar file compressed by gzip.
// Order, owner, modes and times follow from the arguments only.
func archive(dir string, at time.Time, entries []entry) ([]byte, error) {
	var b bytes.Buffer
	zipped, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	packed := tar.NewWriter(zipped)
	headers := []*tar.Header{{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}}
	contents := [][]byte{nil}
	sorted := slices.SortedFunc(slices.Values(entries), func(a, b entry) int { return strings.Compare(a.Name, b.Name) })
	for _, e := range sorted {
		mode := int64(0o644)
		if e.Program {
			mode = 0o755
		}
		headers = append(headers, &tar.Header{Typeflag: tar.TypeReg, Name: path.Join(dir, e.Name), Mode: mode, Size: int64(len(e.Content))})
		contents = append(contents, e.Content)
	}
	for i, h := range headers {
		h.ModTime, h.Format = at, tar.FormatUSTAR
		if err := packed.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("pack %s: %w", h.Name, err)
		}
		if _, err := packed.Write(contents[i]); err != nil {
			return nil, fmt.Errorf("pack %s: %w", h.Name, err)
		}
	}
	if err := packed.Close(); err != nil {
		return nil, err
	}
	if err := zipped.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// sums is what 'sha256sum --check' reads.
func sums(files map[string][]byte) []byte {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(files[name]), name)
	}
	return b.Bytes()
}
