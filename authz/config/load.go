package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
)

// Bounds of what is read.
const (
	maxConfigBytes = 1 << 20
	maxSecretBytes = 64 << 10
)

// Load reads, checks and completes the configuration in a file. env looks
// environment variables up, as [os.LookupEnv] does; nil knows none.
//
// Its error is a [Problems]; there is no Config then. Warnings come with and
// without one. Load reads the files that the configuration names, and asks
// nothing of the network.
func Load(path string, env func(string) (string, bool)) (*Config, []Warning, error) {
	text, err := osFiles{}.read(path, maxConfigBytes)
	if err != nil {
		return nil, nil, Problems{{File: path, Message: fmt.Sprintf("cannot read the configuration: %v; %s", err, remedy(err, "correct the path or create the file"))}}
	}
	return Parse(path, text, env)
}

// remedy says what to do about a file that can't be read.
func remedy(err error, otherwise string) string {
	if errors.Is(err, fs.ErrPermission) {
		return "let the user that Gatehouse runs as read the file, and enter its directory"
	}
	return otherwise
}

// Parse is [Load] of a text that is not in a file, or no longer. name stands
// for the file: in messages, and in that relative paths are relative to its
// directory.
func Parse(name string, text []byte, env func(string) (string, bool)) (*Config, []Warning, error) {
	return parse(name, text, env, osFiles{})
}

func newSource(name string) *source {
	return &source{
		file:   name,
		dir:    filepath.Dir(name),
		places: map[string]place{},
		order:  map[string][]string{},
	}
}

func parse(name string, text []byte, env func(string) (string, bool), f files) (*Config, []Warning, error) {
	s := newSource(name)
	c := &Config{source: s}
	d := newDecoder(s, env, f)
	if len(text) > maxConfigBytes {
		return nil, nil, Problems{{File: name, Message: fmt.Sprintf("longer than %d bytes, which is the most that a configuration may have", maxConfigBytes)}}
	}
	d.document(text, c)
	v := &validator{decoder: d, c: c}
	v.config()
	var warnings []Warning
	for _, w := range sorted(v.warnings) {
		warnings = append(warnings, Warning(w))
	}
	if len(d.problems) > 0 {
		return nil, warnings, Problems(sorted(d.problems))
	}
	return c, warnings, nil
}

// Records returns what a configuration says of the audit log and of the log, though the
// rest of it may have problems, or need what env doesn't have: for commands that make the
// keys which it names. Its error is about these sections, or about the file as a whole.
func Records(path string, env func(string) (string, bool)) (Audit, Log, error) {
	text, err := osFiles{}.read(path, maxConfigBytes)
	if err != nil {
		return Audit{}, Log{}, Problems{{File: path, Message: fmt.Sprintf("cannot read the configuration: %v; %s", err, remedy(err, "correct the path or create the file"))}}
	}
	s := newSource(path)
	c := &Config{source: s}
	d := newDecoder(s, env, osFiles{})
	d.document(text, c)
	(&validator{decoder: d, c: c}).audit()
	sections := fieldsOf(reflect.TypeFor[Config]())
	d.problems = slices.DeleteFunc(d.problems, func(p Problem) bool {
		name, _, _ := strings.Cut(p.Key, ".")
		name, _, _ = strings.Cut(name, "[")
		// What is no section may be meant to be one of these.
		return name != "audit" && name != "log" && slices.ContainsFunc(sections, func(f field) bool { return f.key == name })
	})
	if len(d.problems) > 0 {
		return Audit{}, Log{}, Problems(sorted(d.problems))
	}
	return c.Audit, c.Log, nil
}

// Files returns the path of a configuration and every file that it names,
// whether or not [Load] would take it: what to watch until it does. Files that
// are not there are among them. None but the configuration itself is opened.
func Files(path string, env func(string) (string, bool)) []string {
	s := newSource(path)
	if text, err := (osFiles{}).read(path, maxConfigBytes); err == nil {
		newDecoder(s, env, unseenFiles{}).document(text, &Config{source: s})
	}
	return append([]string{path}, s.files...)
}

// unseenFiles takes every file to be there.
type unseenFiles struct{}

func (unseenFiles) readable(string) error { return nil }

func (unseenFiles) read(string, int64) ([]byte, error) { return nil, errors.ErrUnsupported }

// files is the file system, as far as a configuration looks at it.
type files interface {
	// readable returns nil when the file is there and can be read. It takes
	// nothing out of a pipe.
	readable(path string) error
	// read returns the content of a file of at most so many bytes.
	read(path string, most int64) ([]byte, error)
}

type osFiles struct{}

func (osFiles) readable(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return cause(err)
	case info.IsDir():
		return syscall.EISDIR
	case !info.Mode().IsRegular():
		return nil
	}
	f, err := os.Open(path) //nolint:gosec // G304: the operator names the file in the configuration
	if err != nil {
		return cause(err)
	}
	return cause(f.Close())
}

func (osFiles) read(path string, most int64) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // G304: the operator names the file
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	switch {
	case err != nil:
		return nil, cause(err)
	case int64(len(text)) > most:
		return nil, fmt.Errorf("longer than %d bytes", most)
	}
	return text, nil
}

// cause takes operation and path from a file system's error: the path is in
// the message already, or came from a variable and must not be.
func cause(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}

// secret reads a secret from the file that key names. One line end at the end
// is not part of it.
func (d *decoder) secret(key string, file File) string {
	text, err := d.files.read(string(file), maxSecretBytes)
	secret := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	switch {
	case err != nil:
		d.refuse(key, "cannot read the secret: %v; put a secret alone into the file", err)
	case secret == "":
		d.refuse(key, "the file is empty; put the secret in it")
	default:
		return secret
	}
	d.markBroken(key)
	return ""
}
