package pagetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// page writes ~~~ for a fence.
func page(text string) string { return strings.ReplaceAll(text, "~~~", "```") }

func TestParse(t *testing.T) {
	p, err := Parse(page(`<!-- run: needs=envoy,redis-server ports=8080,9001 -->
# Title

~~~sh
one
two
~~~

1. In a list:

   ~~~yaml file=a/b.yaml
   key:
     deep: 1
   ~~~

~~~sh background port=8080
serve
~~~
<!-- wait: grep -q b a -->

<!-- not run: it is a sketch -->

~~~go
never
~~~

<!-- checked: e2e TestNever -->
~~~yaml file=never
a: 1
~~~

~~~text
a picture
~~~

~~~console
$ say
said
~~~
`))
	require.NoError(t, err)
	require.Equal(t, Page{
		Needs: []string{"envoy", "redis-server"}, Ports: []string{"8080", "9001"}, Runs: true,
		Blocks: []Block{
			{Line: 4, Kind: Shell, Text: "one\ntwo\n"},
			{Line: 11, Kind: File, Text: "key:\n  deep: 1\n", Name: "a/b.yaml"},
			{Line: 16, Kind: Background, Text: "serve\n", Port: "8080"},
			{Line: 19, Kind: Shell, Text: "waited 'grep -q b a'\n"},
			{Line: 36, Kind: Console, Text: "$ say\nsaid\n"},
		},
		Others: []Other{
			{Line: 23, Language: "go", Text: "never\n", NotRun: "it is a sketch"},
			{Line: 28, Language: "yaml", Text: "a: 1\n", Checked: Test{"e2e", "TestNever"}},
		},
	}, p)

	p, err = Parse(page("<!-- all checked: a/b TestAll -->\n~~~sh\nsay\n~~~\n~~~text\n~~~\n<!-- not run: so -->\n~~~go\n~~~\n"))
	require.NoError(t, err)
	require.Equal(t, Page{Others: []Other{
		{Line: 2, Language: "sh", Text: "say\n", Checked: Test{"a/b", "TestAll"}}, {Line: 8, Language: "go", NotRun: "so"},
	}}, p)

	for text, want := range map[string]string{
		"~~~yaml\na: 1\n~~~":                             "line 1: what becomes of the block (yaml)",
		"~~~\na: 1\n~~~":                                 "what becomes of the block",
		"\n~~~sh\na":                                     "line 2: the block has no end",
		"<!-- not run: -->\n~~~go\n~~~":                  "why is it not run?",
		"<!-- not run: a -->\ntext\n~~~go\n~~~":          "line 2: a block was to come here",
		"<!-- not run: a -->\n":                          "line 2: a block was to come here",
		"<!-- checked: TestA -->\n~~~go\n~~~":            `"TestA" is not a directory and a test in it`,
		"<!-- not run: a -->\n~~~go\n~~~\n~~~go\n~~~\n":  "line 4: what becomes",
		"<!-- run: -->\n<!-- all checked: e2e TestA -->": "nothing would be run",
		"~~~sh bakground\na\n~~~":                        `"bakground"`,
		"<!-- run: port=1 -->":                           `"port=1"`,
	} {
		_, err := Parse(page(text))
		require.ErrorContains(t, err, want, text)
	}
}

func TestFits(t *testing.T) {
	for _, tc := range []struct {
		wants, got string
		fits       bool
	}{
		{"a\nb", "a \r\nb\n\n", true},
		{"HTTP/1.1 200 OK\n…\n{\"a\":…}", "HTTP/1.1 200 OK\r\nx: y\r\n\r\n{\"a\":1}", true},
		{"a…", "a", true},
		{"a", "ab", false},
		{"…b", "abc", false},
		{"a.c", "abc", false},
	} {
		require.Equal(t, tc.fits, fits(tc.wants, tc.got), "%q %q", tc.wants, tc.got)
	}
}

func do(t *testing.T, text string) (dir string, err error) {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed: pages are not run")
	}
	p, err := Parse(page(text))
	require.NoError(t, err)
	dir = t.TempDir()
	var free []string
	for _, port := range proctest.FreePorts(t, len(p.Ports)) {
		free = append(free, strconv.Itoa(port))
	}
	return dir, p.do(t.Context(), bash, dir, t.TempDir(), free, Options{})
}

func TestPagesAreRun(t *testing.T) {
	proctest.Need(t, "redis-server")
	dir, err := do(t, `<!-- run: ports=6399 -->
~~~sh
mkdir sub; cd sub
NAME="it's"
~~~
~~~text file=deep/a.txt
$NAME port 6399, not 63991
~~~
~~~console
$ cat deep/a.txt; echo "$NAME" \
>   "$(pwd | sed 's,.*/,,')"
$NAME port 6399, not 63991
it's sub
$ echo not said
…
$ true
$ printf 'a\r\n6399\n'
…
6399
~~~
~~~sh
printf '6399 63991\n' >ports; exchange ports
~~~
~~~console
$ cat ports
6399 63991
~~~
~~~sh background port=6399
redis-server --port 6399 --save '' --bind 127.0.0.1
~~~
~~~console
$ (printf 'PING\r\n' >&3; head -1 <&3) 3<>/dev/tcp/127.0.0.1/6399
+PONG
~~~
`)
	require.NoError(t, err)
	written, err := os.ReadFile(filepath.Join(dir, "sub", "deep", "a.txt"))
	require.NoError(t, err)
	require.Regexp(t, `^\$NAME port \d+, not 63991\n$`, string(written), "it really was another one")
}

func TestPagesThatAreWrong(t *testing.T) {
	for text, want := range map[string]string{
		"~~~sh\ntrue\n~~~\n~~~sh\necho hear; false\n~~~\n~~~sh\necho never\n~~~":                   "line 4 fails:\necho hear; false\n\nhear\n",
		"~~~console\n$ echo a\nb\n~~~":                                                             "line 2:\necho a\n\nis to print\nb\n\nand prints\na\n",
		"~~~sh\necho $UNSET\n~~~":                                                                  "UNSET: unbound variable",
		"~~~sh\nfalse | true\n~~~":                                                                 "line 1 fails",
		"~~~sh background port=6399\necho why; exit 3\n~~~":                                        "it has ended, and nobody listens on port",
		"~~~console\n$ exit 0\n~~~\n~~~sh\ntrue\n~~~":                                              "line 2 fails",
		"~~~console\n$ echo ERROR\n$ true\n~~~":                                                    "line 2:\necho ERROR\n\nis to print\n\nand prints\nERROR\n",
		"~~~sh background\nno-such-program\n~~~\n~~~sh\nwhile kill -0 $!; do sleep 0.1; done\n~~~": "no-such-program: command not found\nit has ended, with status 127",
	} {
		_, err := do(t, text)
		require.ErrorContains(t, err, page(want), text)
	}
	_, err := do(t, "~~~sh background port=6399\necho why; exit 3\n~~~")
	require.ErrorContains(t, err, "why", "what it said is shown")
	_, err = do(t, "~~~sh background\necho alone\n~~~\n~~~sh\nuntil grep -qs alone \"$TERMINALS/0\"; do sleep 0.1; done; false\n~~~")
	require.ErrorContains(t, err, "terminal 0:\nalone", "and what others said")
}
