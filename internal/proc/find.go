package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// NotFoundError says which program is missing.
type NotFoundError struct{ Program string }

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("%s is not installed: run scripts/tools.sh, or set %s to its path", e.Program, envName(e.Program))
}

// envName is GATEHOUSE_REDIS_SERVER for redis-server.
func envName(program string) string {
	return "GATEHOUSE_" + strings.ToUpper(strings.ReplaceAll(program, "-", "_"))
}

// Find returns the path of a program, *[NotFoundError] when there is none.
// It looks at the environment variable that is named after it (GATEHOUSE_ENVOY,
// GATEHOUSE_REDIS_SERVER, …), then in PATH, then in the .tools directory of the
// module that we are in, where scripts/tools.sh installs, and last in [InstallDir].
// A variable that is
// set but names no program is an error of its own: falling back would run a
// program that the user did not ask for.
//
// For an Envoy that came as a Python package it returns the executable itself,
// not the script that stands in for it.
func Find(program string) (string, error) {
	path, err := find(program)
	if err != nil {
		return "", err
	}
	if program == "envoy" {
		return behindScript(path), nil
	}
	return path, nil
}

func find(program string) (string, error) {
	if path := os.Getenv(envName(program)); path != "" {
		found, err := exec.LookPath(path)
		if err != nil {
			return "", fmt.Errorf("%s: %w", envName(program), err)
		}
		return filepath.Abs(found)
	}
	if path, err := exec.LookPath(program); err == nil {
		return filepath.Abs(path)
	}
	tools, err := toolsDir()
	if err != nil {
		return "", err
	}
	for _, pattern := range []string{"bin", program + "/bin", program + "-py/bin"} {
		if path, err := exec.LookPath(filepath.Join(tools, pattern, program)); err == nil {
			return path, nil
		}
	}
	if dir, err := InstallDir(program); err == nil {
		if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return path, nil
		}
	}
	return "", &NotFoundError{Program: program}
}

// InstallDir returns where 'gatehouse demo --install' puts a program: in the user's
// cache, so that it is there whatever the working directory is. It need not exist.
func InstallDir(program string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, "gatehouse", program), nil
}

// toolsDir returns the .tools directory beside the go.mod that is nearest
// above the working directory, in the working directory when there is none. It
// need not exist.
func toolsDir() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, ".tools"), nil
		}
		if dir == filepath.Dir(dir) {
			return filepath.Join(wd, ".tools"), nil
		}
	}
}

// behindScript returns the Envoy executable that a Python package's script
// starts, path itself when it is no such script. The script replaces itself by
// the executable, but only after Python has started, and it needs the package
// on Python's path.
func behindScript(path string) string {
	if !isScript(path) {
		return path
	}
	prefix := filepath.Dir(filepath.Dir(path)) // of bin/envoy
	inVirtualEnv, inTarget := "lib/python3*/site-packages/envoy/_bin/envoy", "envoy/_bin/envoy"
	for _, pattern := range []string{inVirtualEnv, inTarget} {
		matches, err := filepath.Glob(filepath.Join(prefix, pattern))
		if err == nil && len(matches) > 0 {
			return matches[0]
		}
	}
	return path
}

func isScript(path string) bool {
	f, err := os.Open(path) //nolint:gosec // G304: a program that we are about to run
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	start := make([]byte, 2)
	if _, err := io.ReadFull(f, start); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false
	}
	return bytes.Equal(start, []byte("#!"))
}
