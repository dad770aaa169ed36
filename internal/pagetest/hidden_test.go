package pagetest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// A page doesn't work by what its reader can't see.
func TestNothingThatThePageNeedsIsHidden(t *testing.T) {
	for _, text := range []string{
		"<!-- hand: echo secret >file -->",
		"<!-- hand: sed -i s/a/b/ gate/gatehouse.yaml -->",
		"<!-- hand: gatehouse init --for sessions -->",
		`<!-- hand: "$BIN"/redis-server & -->`,
		"<!-- hand: A=1; true -->",
		"<!-- hand: A=$(mv new gatehouse.yaml) -->",
		`<!-- hand: A=$(after "$(mv new gatehouse.yaml)" b) -->`,
		"<!-- hand: A=$(after `mv new gatehouse.yaml` b) -->",
		"<!-- hand: A=$(after a b); mv new gatehouse.yaml -->",
		"<!-- hand: end 3000; rm file -->",
		"<!-- hand: end 3000 4000 -->",
		"<!-- hand: patient gatehouse.yaml -->",
		"<!-- hand: bash -c true -->",
		"<!-- hand: node page.mjs -->",
		"<!-- hand: node -e 'f(1)' >file -->",
		`<!-- hand: node -e 'import("node:fs").then((fs) => fs.writeFileSync("file", "a"))' -->`,
		`<!-- hand: node -e 'process.getBuiltinModule("child_process").execSync("touch file")' -->`,
		"<!-- wait: true -->",
		"<!-- wait: gatehouse serve gatehouse.yaml -->",
		"<!-- wait: curl -s -o /dev/null 127.0.0.1:80 -->",
		"<!-- wait: curl -sf -o file 127.0.0.1:80 -->",
		"<!-- wait: curl -sf -o /dev/null 127.0.0.1:80 >file -->",
		"<!-- wait: curl -s 127.0.0.1:80 -ofile | grep -q a -->",
		"<!-- wait: curl -s 127.0.0.1:80 | grep -q a | tee file -->",
		"<!-- wait: grep -q $(touch file) file -->",
		`<!-- wait: grep -q "$(touch file)" file -->`,
		"<!-- wait: grep -q a file; rm -f file -->",
		"<!-- wait: grep -q a file && touch other -->",
		"<!-- here: cp /etc/gatehouse.yaml . -->",
		`<!-- here: cd "$REPOSITORY"; gatehouse serve -->`,
		"<!-- here: mkdir $(gatehouse init) -->",
		"<!-- here: exchange a >b -->",
		"<!-- here: mkdir gate -->",
		"<!-- here: ln -s /etc/gatehouse.yaml . -->",
		"<!-- here: ln -s other.yaml gatehouse.yaml -->",
		"gatehouse demo\n<!-- demo: 8080; touch file -->",
		"<!-- demo: 8080 -->",
		"<!-- demo: 8080 -->\n<!-- make demo -->",
	} {
		_, err := Parse(page(text))
		require.ErrorContains(t, err, "line ", text)
	}
	for _, text := range []string{
		"<!-- hand: end 3000 -->",
		`<!-- hand: A=$(after "Bob's session" sessionId=) B=$(after a 'Bearer ') -->`,
		`<!-- hand: node -e 'const f = async (a) => a; import("a.mjs").then(f)' "$DORA" -->`,
		"<!-- wait: curl -sf -o /dev/null http://127.0.0.1:80/ -->",
		`<!-- wait: curl -s 127.0.0.1:80/readyz | grep -q '"generation":2,' -->`,
		`<!-- wait: grep -q "$ID" demo/envoy.log -->`,
		`<!-- wait: [[ $(curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:80/) == 401 ]] -->`,
		`<!-- here: mkdir node_modules; ln -s "$NODE_MODULES"/* node_modules/; exchange b c; patient c -->`,
		`<!-- here: ln -s "$REPOSITORY/deploy" "$REPOSITORY/envoy" . -->`,
		"`make demo` starts it.\n<!-- demo: 8080 -->",
	} {
		_, err := Parse(page(text))
		require.NoError(t, err, text)
	}
}

func TestWait(t *testing.T) {
	_, err := do(t, `<!-- run: -->
~~~sh background
sleep 0.3; echo "it's there" >there; sleep 60
~~~
<!-- wait: grep -q "it's" there -->
~~~console
$ cat there
it's there
~~~
`)
	require.NoError(t, err)
}

// The next program can listen where the one that was ended did.
func TestEnd(t *testing.T) {
	proctest.Need(t, "redis-server")
	const server = "~~~sh background port=6399\nredis-server --port 6399 --save '' --bind 127.0.0.1\n~~~\n"
	_, err := do(t, "<!-- run: ports=6399 -->\n"+server+"<!-- hand: end 6399 -->\n"+server)
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
