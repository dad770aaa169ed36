package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// noticesFile is committed, so that an upgrade shows what changes in it, and so
// that images have it, too.
const noticesFile = "THIRD_PARTY_NOTICES"

// allowed are the licences under which code may be linked into our programs, by
// their SPDX identifiers. All ask for no more than that their text, and who holds
// the copyright, comes along, which is what the notices are for. Licences with a
// copyleft, MPL-2.0's narrow one included, are a decision that somebody has to
// make, and this is where they note it.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "ISC", "MIT", "Unlicense"}

// additions are texts beside a licence that take nothing of what it grants.
var additions = []string{"GooglePatentsFile"}

// recognised is how much of a licence's file must be words of licences that we
// know, in percent. The rest is names, years and what a heading says.
const recognised = 80

// paper is a file that has to come along with the code.
type paper struct {
	Path string   // for people: module, and file in it
	IDs  []string // SPDX identifiers of the licences in it; none for a notice
	Text string
}

// papers returns the licences and notices that hold for a module's packages: those
// in their directories and above, up to the module's own. It is an error if there
// is no licence, or one that isn't allowed.
func papers(m module) ([]paper, error) {
	dirs := map[string]bool{m.Dir: true}
	for _, dir := range m.Packages {
		for ; within(m.Dir, dir) && !dirs[dir]; dir = filepath.Dir(dir) {
			dirs[dir] = true
		}
	}
	var all []paper
	licensed := false
	for _, dir := range slices.Sorted(maps.Keys(dirs)) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("look for licences of %s: %w", m.Path, err)
		}
		for _, e := range entries {
			what := paperKind(e.Name())
			if e.IsDir() || what == none {
				continue
			}
			text, err := readFile(dir, e.Name())
			if err != nil {
				return nil, err
			}
			rel, err := filepath.Rel(m.Dir, filepath.Join(dir, e.Name()))
			if err != nil {
				return nil, err
			}
			p := paper{Path: path.Join(m.Path, filepath.ToSlash(rel)), Text: tidy(text)}
			if what == license {
				if p.IDs, err = identify(text); err != nil {
					return nil, fmt.Errorf("%s: %w", p.Path, err)
				}
				licensed = licensed || dir == m.Dir
			}
			all = append(all, p)
		}
	}
	if !licensed {
		return nil, fmt.Errorf("%s has no licence file in its directory: without one it may not be given out", m.Path)
	}
	return all, nil
}

const (
	none = iota
	license
	notice
)

// paperKind tells by a file's name what it is.
func paperKind(name string) int {
	stem, ext, _ := strings.Cut(strings.ToUpper(name), ".")
	switch {
	case ext == "GO" || strings.HasSuffix(ext, ".GO"):
		return none
	case strings.HasPrefix(stem, "LICENSE"), strings.HasPrefix(stem, "LICENCE"), strings.HasPrefix(stem, "COPYING"), stem == "UNLICENSE", stem == "PATENTS":
		return license
	case strings.HasPrefix(stem, "NOTICE"), stem == "COPYRIGHT":
		return notice
	}
	return none
}

// identify returns the SPDX identifiers of the licences in a file, sorted.
func identify(text []byte) ([]string, error) {
	cover := licensecheck.Scan(text)
	if cover.Percent < recognised {
		return nil, fmt.Errorf("%.0f %% of it are words of a licence that is known, and %d %% are needed: read it, and see tools/release/licenses.go", cover.Percent, recognised)
	}
	var ids []string
	for _, m := range cover.Match {
		switch {
		case slices.Contains(additions, m.ID):
		case !slices.Contains(allowed, m.ID):
			return nil, fmt.Errorf("%s is no licence that tools/release/licenses.go allows", m.ID)
		default:
			ids = append(ids, m.ID)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// tidy makes texts equal that differ in how lines end only.
func tidy(text []byte) string {
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		b.WriteString(strings.TrimRight(line, " \t\r\n") + "\n")
	}
	return strings.Trim(b.String(), "\n") + "\n"
}

// licenses checks the licences of all that is linked into any of the product's
// programs on any of its targets, and that the notices say so; or writes them.
func licenses(ctx context.Context, p product, root string, write bool, out io.Writer) error {
	modules, err := everything(ctx, p, root)
	if err != nil {
		return err
	}
	text, kinds, err := notices(p, modules)
	if err != nil {
		return err
	}
	file := filepath.Join(root, noticesFile)
	if write {
		return os.WriteFile(file, text, 0o644) //nolint:gosec // for everybody to read
	}
	committed, err := readFile(file)
	if err != nil || !bytes.Equal(committed, text) {
		return fmt.Errorf("%s is not what the linked modules' licences say: run 'make generate' and look at what changes", noticesFile)
	}
	fmt.Fprintf(out, "licences of %d linked modules are allowed: %s\n", len(modules)-1, strings.Join(kinds, ", "))
	return nil
}

// everything is what is linked into any of the programs on any target.
func everything(ctx context.Context, p product, root string) ([]module, error) {
	byPath := map[string]module{}
	for _, t := range p.Targets {
		modules, err := linked(ctx, root, t, p.Tags, append([]string{p.Main}, p.Others...)...)
		if err != nil {
			return nil, err
		}
		for _, m := range modules {
			m.Packages = append(m.Packages, byPath[m.Path].Packages...)
			byPath[m.Path] = m
		}
	}
	var all []module
	for _, path := range slices.Sorted(maps.Keys(byPath)) {
		all = append(all, byPath[path])
	}
	return all, nil
}

// notices writes the licences and notices of modules, each text once. Versions are
// not in it, so that it changes only where a licence does.
func notices(p product, modules []module) (text []byte, kinds []string, err error) {
	var order []string // texts, by the first path under which they are found
	names := map[string][]string{}
	for _, m := range modules {
		if m.Main {
			continue
		}
		all, err := papers(m)
		if err != nil {
			return nil, nil, err
		}
		for _, paper := range all {
			if names[paper.Text] == nil {
				order = append(order, paper.Text)
			}
			names[paper.Text] = append(names[paper.Text], paper.Path)
			kinds = append(kinds, paper.IDs...)
		}
	}
	slices.Sort(kinds)
	kinds = slices.Compact(kinds)

	var b bytes.Buffer
	fmt.Fprintf(&b, `The programs of %s contain other people's software, the Go standard library
(%s) among it. These are its licences and notices. Each text is here once, below
the files in which it was found. The versions are in the bill of materials of a
release, and in the program: 'go version -m' prints them.
`, p.Name, standard)
	rule := strings.Repeat("=", 80)
	for _, text := range order {
		fmt.Fprintf(&b, "\n%s\n%s\n%s\n\n%s", rule, strings.Join(names[text], "\n"), rule, text)
	}
	return b.Bytes(), kinds, nil
}
