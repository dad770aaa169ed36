package pagetest

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A page doesn't work by what its reader can't see.
func TestNothingThatThePageNeedsIsHidden(t *testing.T) {
	for _, text := range []string{
		"<!-- hand: echo secret >file -->",
		"<!-- hand: echo secret >>file -->",
		"<!-- hand: A=1; sed -i s/a/b/ gate/gatehouse.yaml -->",
		"<!-- hand: sed -E -i s/a/b/ gate/gatehouse.yaml -->",
		"<!-- hand: gatehouse init --for sessions -->",
		"<!-- hand: (redis-server --port 6379 & ) -->",
		"<!-- hand: sleep 60 & -->",
		"<!-- hand: mv new gatehouse.yaml -->",
		"<!-- hand: say | tee file -->",
		"<!-- wait: gatehouse serve gatehouse.yaml -->",
		"<!-- wait: curl -s 127.0.0.1 >out -->",
		"<!-- wait: false; rm -f file -->",
		"<!-- here: cp /etc/gatehouse.yaml . -->",
		"<!-- here: cd gate; gatehouse serve -->",
		"<!-- here: mkdir $(gatehouse init) >file -->",
		"<!-- here: ln a b -->",
		"<!-- demo: 8080 -->",
		"<!-- demo: 8080 -->\n<!-- make demo -->",
	} {
		_, err := Parse(page(text))
		require.ErrorContains(t, err, "line 1: ", text)
	}
	for _, text := range []string{
		`<!-- hand: kill "$TERMINAL_3000"; while listening 3000; do sleep 0.1; done -->`,
		`<!-- hand: A=$(sed -n 's/.*"id":"\([^"]*\).*/\1/p' answer) && B=2 2>&1 -->`,
		`<!-- hand: node -e 'const f = async (a) => a; f(1)' "$DORA" -->`,
		`<!-- wait: [[ $(curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1/ 2>/dev/null) == 401 ]] && true -->`,
		`<!-- here: mkdir node_modules; ln -s "$NODE_MODULES"/* node_modules/; cd a; exchange b; patient c -->`,
		"`make demo` starts it.\n<!-- demo: 8080 -->",
	} {
		_, err := Parse(page(text))
		require.NoError(t, err, text)
	}
}

func TestWait(t *testing.T) {
	_, err := do(t, `<!-- run: -->
~~~sh background
sleep 0.3; touch there; sleep 60
~~~
<!-- wait: [ -f there ] && [ "it's" = "it's" ] -->
~~~console
$ ls
there
~~~
`)
	require.NoError(t, err)
}

// What proves something leaves nothing behind.
func TestCheck(t *testing.T) {
	_, err := do(t, `<!-- run: -->
~~~text
a
~~~
~~~conf file=deep/a.conf
one
~~~
<!-- check: grep -q one deep/a.conf; echo two >>deep/a.conf; sleep 60 & echo $! >"$TERMINALS/pid" -->
~~~console
$ cat deep/a.conf
one
$ ls
deep
$ if kill -0 "$(cat "$TERMINALS/pid")" 2>/dev/null; then echo alive; fi
~~~
`)
	require.NoError(t, err)

	_, err = do(t, "<!-- run: -->\n~~~conf file=a.conf\none\n~~~\n<!-- check: grep two a.conf -->\n~~~sh\ntrue\n~~~\n")
	require.ErrorContains(t, err, "line 5 fails", "what can't be proved")
}
