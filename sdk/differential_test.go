package sdk_test

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
	"github.com/gatehouse-auth/gatehouse/internal/sdktest"
	"github.com/gatehouse-auth/gatehouse/services/usercontext"
)

// What values are put together from: what the gate writes, and what a reader might take
// for it.
var (
	headerNames = []string{
		"x-user-id", "x-user-id", "x-user-id", "X-User-Id", "x_user_id", "x-user-email", "X-USER-EMAIL", "x-user-roles",
		"x-user-roles", "x-user-roles", "x-user_roles", "x-org-id", "x-org-id", "X_ORG_ID", "x-user", "accept", "x-internal-api-key",
	}
	textParts = []string{
		"alice", "a", "service:", "%41", "%2541", "%25", "%C3%BC", "%c3%bc", "%F0%9F%98%80", "%E2%80%A8", "%EF%BB%BF", "%EF%BF%BF", ",", ";", "\"",
		"<", "+", "%20", "%", "%4", "%zz", "%+1", "%u0041", "%00", "%0A", "%7F", "%C2%85", "%C2%A0", "%C3", "%BC", "%C0%AF", "%ED%A0%80", "%F4%90%80%80",
		"%FF", " ", "\t", "\x7f", "\u00fc", "\u00c3\u00bc", "\u0085", "\u00a0",
	}
	roleParts = []string{
		`admin`, `a b`, `,`, `%41`, `\"`, `\\`, `\/`, `\n`, `\u0000`, `\u001f`, `\u007f`, `\u0085`, `\u00a0`, `\u2028`, `\ud83d\ude00`, `\ud83d`,
		`\ude00`, `\uD83D\uDE00`, `\\ud83d`, `\u00FC`, `\u00f`, `\u+041`, `\u 041`, `\u0_41`, `\x41`, `\'`, `\`, "\t", "\u00fc", "\x7f", "'", "//",
	}
	jsonParts = []string{`null`, `1`, `-0`, `1e999`, `NaN`, `Infinity`, `true`, `{}`, `{"a":"b"}`, `[]`, `["a"]`, `'a'`, `""`, ``, ` `, `a`, "\u00a0"}
	brackets  = []string{"[%s]", "[%s]", "[%s]", "[%s]", "[%s]", "[%s]", " [ %s ] ", "[%s", "%s]", "%s", "[%s,]", "[,%s]", "[[%s]]", "[%s][]", "\ufeff[%s]", "[%s]//"}
)

// headersOf makes up the headers of a request. A character of a value is a byte.
func headersOf(random *rand.Rand) [][2]string {
	one := func(list []string) string { return list[random.IntN(len(list))] }
	some := func(list []string, most int) string {
		var b strings.Builder
		for range random.IntN(most + 1) {
			b.WriteString(one(list))
		}
		return b.String()
	}
	headers := [][2]string{}
	if random.IntN(2) == 0 {
		headers = append(headers, [2]string{"x-user-id", "alice" + some(textParts[:18], 2)})
	}
	for range random.IntN(4) {
		name := one(headerNames)
		value := some(textParts, 3)
		if random.IntN(3) > 0 {
			value = "alice" + some(textParts[:18], 2) // well formed
		}
		if strings.Contains(strings.ToLower(name), "roles") {
			var items []string
			for range random.IntN(4) {
				switch random.IntN(8) {
				case 0:
					items = append(items, one(jsonParts))
				case 1:
					items = append(items, `"`+some(roleParts, 3)+`"`)
				default:
					items = append(items, `"`+some(roleParts[:7], 2)+`"`)
				}
			}
			value = strings.ReplaceAll(one(brackets), "%s", strings.Join(items, ","))
			value = strings.ReplaceAll(value, "\ufeff", "\u00ef\u00bb\u00bf")
		}
		headers = append(headers, [2]string{name, value})
	}
	return headers
}

func outcome(headers [][2]string) any {
	h := http.Header{}
	for _, pair := range headers {
		var value []byte
		for _, c := range pair[1] {
			value = append(value, byte(c))
		}
		h[pair[0]] = append(h[pair[0]], string(value))
	}
	user, err := usercontext.FromHeaders(h)
	switch {
	case errors.Is(err, usercontext.ErrAnonymous):
		return "anonymous"
	case err != nil:
		return "malformed"
	}
	return user
}

// TestAllReadTheSame: headers that nobody thought of mean the same in all three languages.
// GATEHOUSE_DIFFERENTIAL_SEED repeats a run, GATEHOUSE_DIFFERENTIAL_CASES has more.
func TestAllReadTheSame(t *testing.T) {
	t.Parallel()
	node, python := proctest.Need(t, "node"), sdktest.Python3(t)
	setting := func(name string, otherwise uint64) uint64 {
		if text := os.Getenv(name); text != "" {
			n, err := strconv.ParseUint(text, 10, 64)
			require.NoError(t, err, name)
			return n
		}
		return otherwise
	}
	seed := setting("GATEHOUSE_DIFFERENTIAL_SEED", rand.Uint64())
	random := rand.New(rand.NewPCG(seed, 0))
	var cases [][][2]string
	for range setting("GATEHOUSE_DIFFERENTIAL_CASES", 3000) {
		cases = append(cases, headersOf(random))
	}
	text, err := json.Marshal(cases)
	require.NoError(t, err)
	dir := sdktest.Installed(t)
	file, program := filepath.Join(dir, "cases.json"), filepath.Join(dir, "read.mjs")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	require.NoError(t, os.WriteFile(program, []byte(read(t, "testdata/read.mjs")), 0o600))
	read := func(out string) (outcomes []any) {
		require.NoError(t, json.Unmarshal([]byte(out), &outcomes))
		require.Len(t, outcomes, len(cases))
		return outcomes
	}
	inNode := read(sdktest.Run(t, dir, nil, node, program, file))
	inPython := read(sdktest.Run(t, ".", []string{"PYTHONPATH=" + source(t), "PYTHONDONTWRITEBYTECODE=1"}, python, "testdata/read.py", file))

	kinds := map[string]int{}
	for i, headers := range cases {
		want, err := json.Marshal(outcome(headers))
		require.NoError(t, err)
		for language, got := range map[string]any{"TypeScript": inNode[i], "Python": inPython[i]} {
			text, err := json.Marshal(got)
			require.NoError(t, err)
			require.JSONEq(t, string(want), string(text), "seed %d, case %d, %s: %q", seed, i, language, headers)
		}
		kind := string(want)
		if strings.HasPrefix(kind, "{") {
			kind = "user"
		}
		kinds[kind]++
	}
	for _, kind := range []string{`"anonymous"`, `"malformed"`, "user"} {
		require.Greater(t, kinds[kind], len(cases)/20, "seed %d: %v", seed, kinds)
	}
}
