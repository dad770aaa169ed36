package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/semver"
)

// sumsFile has the checksums of all files of a release.
const sumsFile = "SHA256SUMS"

// commit is what a release is built from.
type commit struct {
	id   string
	time time.Time
}

// release builds the product in the state that was committed last, and writes the
// archives, bills of materials and checksums to dist, where nothing else is kept.
func release(ctx context.Context, p product, root, version, dist string, out io.Writer) error {
	if err := pinned(root); err != nil {
		return err
	}
	head, err := releasable(ctx, root, version)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "gatehouse-release-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	files, err := build(ctx, p, root, version, head, work, nil)
	if err != nil {
		return err
	}
	if err := write(dist, files); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s %s of commit %s, by %s, is in %s\n%s", p.Name, version, head.id[:12], runtime.Version(), dist, files[sumsFile])
	return nil
}

// surroundings are what two machines, and two people, differ in.
type surroundings struct {
	place []string // below a temporary directory
	env   map[string]string
	umask int
}

var farApart = []surroundings{
	{[]string{"here"}, map[string]string{"TZ": "UTC", "LANG": "C", "LC_ALL": "C"}, 0o022},
	{[]string{"somewhere", "far", "away"}, map[string]string{"TZ": "Pacific/Chatham", "LANG": "tr_TR.UTF-8", "LC_ALL": "tr_TR.UTF-8"}, 0o077},
}

// enter moves this process, and those that it starts from now on, there. back undoes it.
func (s surroundings) enter() (back func(), err error) {
	zone, err := time.LoadLocation(s.env["TZ"])
	if err != nil {
		return nil, err
	}
	var undo []func()
	for name, value := range s.env {
		before, set := os.LookupEnv(name)
		if err := os.Setenv(name, value); err != nil {
			return nil, err
		}
		undo = append(undo, func() {
			if set {
				_ = os.Setenv(name, before)
			} else {
				_ = os.Unsetenv(name)
			}
		})
	}
	local, umask := time.Local, setUmask(s.umask)
	time.Local = zone
	return func() {
		time.Local = local
		setUmask(umask)
		for _, f := range undo {
			f()
		}
	}, nil
}

// rehearse builds a release twice, in two places and with two empty build caches, for
// people with other time zones, languages and umasks, and compares. It leaves nothing
// behind.
func rehearse(ctx context.Context, p product, root, version string, out io.Writer) error {
	if err := pinned(root); err != nil {
		return err
	}
	head, err := releasable(ctx, root, version)
	if err != nil {
		return err
	}
	var first map[string][]byte
	for _, s := range farApart {
		files, err := rehearseIn(ctx, s, p, root, version, head, out)
		if err != nil {
			return err
		}
		if first == nil {
			first = files
			continue
		}
		if err := same(first, files); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "both builds are the same to the byte\n%s", first[sumsFile])
	return nil
}

// rehearseIn is one of the builds.
func rehearseIn(ctx context.Context, s surroundings, p product, root, version string, head commit, out io.Writer) (map[string][]byte, error) {
	back, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer back()
	work, err := os.MkdirTemp("", "gatehouse-release-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(work) }()
	place := filepath.Join(append([]string{work}, s.place...)...)
	if err := os.MkdirAll(place, 0o755); err != nil { //nolint:gosec // temporary, and no secret
		return nil, err
	}
	fmt.Fprintf(out, "building in %s, nothing cached, TZ %s, LANG %s, umask %03o\n", place, s.env["TZ"], s.env["LANG"], s.umask)
	return build(ctx, p, root, version, head, place, []string{"GOCACHE=" + filepath.Join(work, "cache")})
}

// same is an error that names the files in which two builds differ.
func same(a, b map[string][]byte) error {
	var differ []string
	for name := range a {
		if !bytes.Equal(a[name], b[name]) {
			differ = append(differ, name)
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			differ = append(differ, name)
		}
	}
	if len(differ) > 0 {
		slices.Sort(differ)
		return fmt.Errorf("two builds of one commit differ in %s", strings.Join(differ, ", "))
	}
	return nil
}

// pinned tells whether this is the Go release that deploy/Dockerfile builds the
// images with. The archives are made by the same one.
func pinned(root string) error {
	const file = "deploy/Dockerfile"
	text, err := readFile(root, file)
	if err != nil {
		return err
	}
	m := regexp.MustCompile(`(?m)^ARG GO_VERSION=(\S+)$`).FindSubmatch(text)
	if m == nil {
		return fmt.Errorf("%s has no line ARG GO_VERSION=…", file)
	}
	if want := "go" + string(m[1]); runtime.Version() != want {
		return fmt.Errorf("this is %s, and releases are built by %s (see %s): use 'make release', or set GOTOOLCHAIN=%s", runtime.Version(), want, file, want)
	}
	return nil
}

// releasable returns the commit to release, if all is committed and the version is
// a good one for it.
func releasable(ctx context.Context, root, version string) (commit, error) {
	if version == "" {
		return commit{}, errors.New("say which version: make release VERSION=v1.2.3")
	}
	if !semver.IsValid(version) || semver.Canonical(version) != version || semver.Compare(version, "v2") >= 0 {
		return commit{}, fmt.Errorf("%q is no version such as v1.2.3 or v1.2.3-rc.1; v2 would need another module path", version)
	}
	dirty, err := git(ctx, root, "status", "--porcelain")
	if err != nil {
		return commit{}, err
	}
	if dirty != "" {
		return commit{}, fmt.Errorf("a release is made of what is committed: commit or remove these first\n%s", dirty)
	}
	id, err := git(ctx, root, "rev-parse", "HEAD")
	if err != nil {
		return commit{}, err
	}
	// A tag that exists was given to somebody, perhaps with another commit.
	if tagged, err := git(ctx, root, "rev-parse", "--verify", "--quiet", "refs/tags/"+version+"^{commit}"); err == nil && tagged != id {
		return commit{}, fmt.Errorf("%s is the tag of another commit, %.12s: check that one out, or take a new version", version, tagged)
	}
	stamp, err := git(ctx, root, "show", "--no-patch", "--format=%cI", id)
	if err != nil {
		return commit{}, err
	}
	at, err := time.Parse(time.RFC3339, stamp)
	if err != nil {
		return commit{}, fmt.Errorf("the commit's time: %w", err)
	}
	return commit{id: id, time: at.UTC()}, nil
}

func git(ctx context.Context, dir string, args ...string) (string, error) {
	out, err := command(ctx, dir, withoutGit(), "git", args...)
	return strings.TrimSpace(string(out)), err
}

// build makes all files of a release, by name, in a clone below work that has the
// commit and, as its only tag, the version: that is where the program gets both
// from.
func build(ctx context.Context, p product, root, version string, head commit, work string, env []string) (map[string][]byte, error) {
	source := filepath.Join(work, "source")
	for _, args := range [][]string{
		{"clone", "--quiet", "--no-tags", "--no-checkout", "--config", "core.autocrlf=false", root, source},
		{"-C", source, "checkout", "--quiet", "--detach", head.id},
		{"-C", source, "update-ref", "refs/tags/" + version, head.id},
	} {
		if _, err := git(ctx, work, args...); err != nil {
			return nil, err
		}
	}
	var papers []entry
	for _, name := range p.Papers {
		text, err := readFile(source, name)
		if err != nil {
			return nil, err
		}
		papers = append(papers, entry{Name: name, Content: text})
	}
	if p.Help {
		help, err := helpOf(ctx, p, source, work, env)
		if err != nil {
			return nil, err
		}
		papers = append(papers, help...)
	}
	files := map[string][]byte{}
	for _, t := range p.Targets {
		binary := filepath.Join(work, t.OS+"-"+t.Arch, p.Name)
		if _, err := goCommand(ctx, source, append(buildEnv(t), env...), "build", "-trimpath", "-buildvcs=true", "-tags", p.Tags, "-ldflags", "-s -w", "-o", binary, p.Main); err != nil {
			return nil, err
		}
		program, err := readFile(binary)
		if err != nil {
			return nil, err
		}
		if err := inspect(program, p, t, version, head); err != nil {
			return nil, fmt.Errorf("%s for %s: %w", p.Name, t, err)
		}
		modules, err := linked(ctx, source, t, p.Tags, p.Main)
		if err != nil {
			return nil, err
		}
		bill, err := materials(p, program, modules, head)
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("%s_%s_%s_%s", p.Name, version, t.OS, t.Arch)
		packed, err := archive(name, head.time, append(slices.Clone(papers), entry{Name: p.Name, Program: true, Content: program}))
		if err != nil {
			return nil, err
		}
		files[name+".tar.gz"] = packed
		files[name+".cdx.json"] = bill
	}
	files[sumsFile] = sums(files)
	return files, nil
}

// helpOf are the manual pages and the completion that the program writes of itself, here
// and for all targets.
func helpOf(ctx context.Context, p product, source, work string, env []string) ([]entry, error) {
	here := target{OS: runtime.GOOS, Arch: runtime.GOARCH}
	binary, manual := filepath.Join(work, "here", p.Name), filepath.Join(work, "here", "man1")
	if _, err := goCommand(ctx, source, append(buildEnv(here), env...), "build", "-trimpath", "-buildvcs=false", "-tags", p.Tags, "-o", binary, p.Main); err != nil {
		return nil, err
	}
	if _, err := command(ctx, work, buildEnv(here), binary, "man", manual); err != nil {
		return nil, err
	}
	pages, err := os.ReadDir(manual)
	if err != nil {
		return nil, err
	}
	var entries []entry
	for _, page := range pages {
		text, err := readFile(manual, page.Name())
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry{Name: "man/man1/" + page.Name(), Content: text})
	}
	for shell, file := range map[string]string{"bash": p.Name, "zsh": "_" + p.Name, "fish": p.Name + ".fish"} { // as each shell looks for it
		text, err := command(ctx, work, buildEnv(here), binary, "completion", shell)
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry{Name: "completion/" + shell + "/" + file, Content: text})
	}
	return entries, nil
}

// inspect looks at what was built, rather than at what was asked for: a static
// program for the target, of this commit and version, by this Go, with nothing in
// how it was built that another machine wouldn't have.
func inspect(program []byte, p product, t target, version string, head commit) error {
	if err := static(program, t); err != nil {
		return err
	}
	info, err := buildinfo.Read(bytes.NewReader(program))
	if err != nil {
		return err
	}
	if info.Main.Version != version {
		return fmt.Errorf("it says that it is version %s, not %s", info.Main.Version, version)
	}
	if info.GoVersion != runtime.Version() {
		return fmt.Errorf("it was built by %s, not %s", info.GoVersion, runtime.Version())
	}
	want := map[string]string{
		"-buildmode": "exe", "-compiler": "gc", "-trimpath": "true", "-tags": p.Tags,
		"CGO_ENABLED": "0", "GOOS": t.OS, "GOARCH": t.Arch,
		"vcs": "git", "vcs.revision": head.id, "vcs.time": head.time.Format(time.RFC3339), "vcs.modified": "false",
	}
	switch t.Arch {
	case "amd64":
		want["GOAMD64"] = "v1"
	case "arm64":
		want["GOARM64"] = "v8.0"
	}
	for _, s := range info.Settings {
		if s.Key == "DefaultGODEBUG" { // follows from go.mod
			continue
		}
		if value, ok := want[s.Key]; !ok || value != s.Value {
			return fmt.Errorf("it was built with %s=%s: unset that, in the environment and in 'go env -w'", s.Key, s.Value)
		}
		delete(want, s.Key)
	}
	for key, value := range want {
		if value != "" {
			return fmt.Errorf("it was built without %s=%s", key, value)
		}
	}
	return nil
}

// static is an error if the program isn't one for the target that needs nothing
// but its kernel.
func static(program []byte, t target) error {
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return fmt.Errorf("it is no ELF program: %w", err)
	}
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	if want := machines[t.Arch]; f.Machine != want {
		return fmt.Errorf("it is for %s, not %s", f.Machine, want)
	}
	for _, part := range f.Progs {
		if part.Type == elf.PT_INTERP || part.Type == elf.PT_DYNAMIC {
			return fmt.Errorf("it is linked dynamically: it has %s", part.Type)
		}
	}
	return nil
}

// write puts files into dir, in place of an earlier release there. It touches
// nothing else: where there is more, dir is another one than was meant.
func write(dir string, files map[string][]byte) error {
	there, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range there {
		if _, ok := files[e.Name()]; !ok {
			return fmt.Errorf("%s has %s, which is no file of this release: remove it or choose another -dist", dir, e.Name())
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // for everybody to read
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil { //nolint:gosec // for everybody to read
			return err
		}
	}
	return nil
}
