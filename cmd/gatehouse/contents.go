package main

import (
	"bytes"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/gatehouse-auth/gatehouse/authz/config"
)

// contents are the digests of a configuration's files by their paths. A file that
// can't be read has one for that, so that it is noticed when it can.
type contents map[string]digest

type digest [sha256.Size]byte

// of returns the digests of the files, "" is none.
func (c contents) of(files ...config.File) []digest {
	all := make([]digest, len(files))
	for i, f := range files {
		all[i] = c[string(f)]
	}
	return all
}

// changed returns the files that both have, and whose contents differ; not the
// configuration itself.
func (c contents) changed(before contents, configuration string) []string {
	files := []string{}
	for f, d := range c {
		if was, ok := before[f]; ok && was != d && f != configuration {
			files = append(files, f)
		}
	}
	slices.Sort(files)
	return files
}

// errNotAgain says why a file can't be loaded a second time.
var errNotAgain = errors.New("no regular file, so it can be read only once: restart to have the configuration read")

// readContents returns the digests of files, and that of all of them in their order.
// The error names one that can't be read again, such as a pipe, which is not touched.
func readContents(files []string) (all contents, sum digest, failed error) {
	all = make(contents, len(files))
	h := sha256.New()
	for _, f := range files {
		d, err := digestOf(f)
		if errors.Is(err, errNotAgain) && failed == nil {
			failed = fmt.Errorf("%s: %w", f, errNotAgain)
		}
		if err != nil {
			d = sha256.Sum256([]byte("can't be read: " + err.Error()))
		}
		all[f] = d
		h.Write(d[:])
	}
	return all, digest(h.Sum(nil)), failed
}

// readableAgain returns errNotAgain for a file that could be read once at most.
func readableAgain(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() && !info.IsDir() { // reading that says what is wrong
		return errNotAgain
	}
	return nil
}

func digestOf(file string) (d digest, err error) {
	if err := readableAgain(file); err != nil {
		return d, err
	}
	f, err := os.Open(file) //nolint:gosec // G304: the operator names the file
	if err != nil {
		return d, err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return d, err
	}
	return digest(h.Sum(nil)), nil
}

// textShape is what tells a file of YAML from its beginning.
type textShape struct {
	size int64
	// line: it ends in a whole line, or is of the kind of which no beginning can be read.
	line bool
}

// shapeOf is that of a file; of none that can be read, or read once only, nothing is known.
func shapeOf(file string) (s textShape) {
	if readableAgain(file) != nil {
		return s
	}
	text, err := os.ReadFile(file) //nolint:gosec // G304: the operator names the file
	if err != nil {
		return s
	}
	flow := bytes.HasPrefix(bytes.TrimSpace(text), []byte("{"))
	return textShape{int64(len(text)), flow || bytes.HasSuffix(text, []byte("\n"))}
}

// cutOff reports whether a file looks as if not all of it were there: it is shorter than
// before, and its last line has no end now.
func (s textShape) cutOff(before textShape) bool {
	return before.line && !s.line && s.size < before.size
}

// fingerprint is what people compare to see whether two replicas run the same
// files. It is slow to make: what is in the files may be a password that somebody
// could guess, given all else.
func fingerprint(sum digest) string {
	key, err := pbkdf2.Key(sha256.New, string(sum[:]), []byte("gatehouse: fingerprint of a configuration"), 20_000, 6)
	if err != nil { // it is approved everywhere
		return ""
	}
	return hex.EncodeToString(key)
}
