package chaos

import (
	"bufio"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
)

// promises is the page that says which test holds which promise.
const promises = "../docs/reliability.md"

// The tests of other packages that hold a promise run here, too, so that one report
// has all of them. They are those that the page names. Here they are asked for more
// than in 'make test', where they can be.
var more = []string{"GATEHOUSE_DIFFERENTIAL_CASES=30000"}

// event is what 'go test -json' says.
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64 // seconds
	Key, Value                    string  // of t.Attr
}

// A test of another package can tell its number of requests by
// t.Attr(requestsAttr, "30000").
const requestsAttr = "requests"

func TestPromisesOfOtherPackages(t *testing.T) {
	beginLong(t, "'make test' runs them by themselves")
	page, err := os.ReadFile(promises)
	require.NoError(t, err)
	tests, packages := declared(t, regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(string(page), -1))
	output, input := io.Pipe()
	args := append([]string{"test", "-json", "-count=1", "-p=1", "-timeout=20m", "-run", "^(" + strings.Join(tests, "|") + ")$"}, packages...)
	p, err := proc.Start(t.Context(), "go", args, proc.Options{Env: more, Output: input, Grace: patience})
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = output.Close() // so that nobody waits for a reader
		_ = p.Stop()
	})
	go func() {
		<-p.Done()
		_ = input.Close()
	}()
	said, rows := map[string]string{}, map[string]*result{}
	lines := bufio.NewScanner(output)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Test == "" {
			continue
		}
		name, sub, _ := strings.Cut(e.Test, "/")
		r := rows[name]
		if r == nil {
			r = &result{fault: filepath.Base(e.Package) + ": " + name}
			rows[name] = r
		}
		said[name] += e.Output
		took := " in " + span(time.Duration(e.Elapsed*float64(time.Second)))
		if e.Elapsed == 0 { // what runs in parallel tells no time
			took = ""
		}
		switch {
		case e.Action == "attr" && e.Key == requestsAttr:
			n, err := strconv.Atoi(e.Value)
			require.NoError(t, err, "%s: %s", name, e.Value)
			r.requests += n
		case sub != "":
		case e.Action == "pass":
			r.note = passed + took
			results.add(t, *r)
		case e.Action == "skip":
			text := strings.Split(strings.TrimSpace(said[name]), "\n")
			r.note = skipped + ": " + text[max(len(text)-2, 0)]
			results.add(t, *r)
		case e.Action == "fail":
			r.note = "**" + failing + "**" + took
			results.add(t, *r)
			t.Errorf("%s\n%s", r.fault, ends(said[name], 3000))
		}
	}
	require.NoError(t, lines.Err())
	<-p.Done()
	for _, name := range tests {
		if r := rows[name]; r == nil || r.note == "" {
			t.Errorf("%s has not ended:\n%s", name, ends(said[name], 3000))
		}
	}
	if len(rows) == 0 {
		t.Errorf("%s", ends(p.Output(), 3000))
	}
}

// ends are the beginning and the end of a text, n bytes each.
func ends(text string, n int) string {
	if len(text) <= 2*n {
		return text
	}
	return text[:n] + "\n[…]\n" + text[len(text)-n:]
}

// declared returns those of the tests that are declared in other packages of this
// module, and these packages.
func declared(t *testing.T, named [][]string) (tests, packages []string) {
	t.Helper()
	places := map[string][]string{}
	require.NoError(t, filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != ".." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules" || d.Name() == "testdata" || exists(filepath.Join(path, "go.mod"))):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, declaration := range file.Decls {
			if f, ok := declaration.(*ast.FuncDecl); ok && f.Recv == nil {
				places[f.Name.Name] = append(places[f.Name.Name], filepath.Dir(path))
			}
		}
		return nil
	}))
	for _, name := range named {
		others := slices.DeleteFunc(slices.Clone(places[name[1]]), func(place string) bool { return place == "../chaos" })
		if len(others) > 0 {
			tests, packages = append(tests, name[1]), append(packages, others...)
		}
	}
	require.NotEmpty(t, tests, "the page names none")
	slices.Sort(tests)
	slices.Sort(packages)
	tests, packages = slices.Compact(tests), slices.Compact(packages)
	return tests, packages
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestPromisesAreFound(t *testing.T) {
	tests, packages := declared(t, [][]string{{"", "TestEveryTopology"}, {"", "TestFailover"}, {"", "TestEveryTopology"}, {"", "TestFailover"}, {"", "TestNowhere"}})
	require.Equal(t, []string{"TestEveryTopology"}, tests)
	require.Equal(t, []string{"../authz/session"}, packages)
	require.Equal(t, "ab\n[…]\ngh", ends("abcdefgh", 2))
}
