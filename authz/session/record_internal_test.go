package session

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func parsed(t *testing.T, text string) *Record {
	t.Helper()
	r, err := parseRecord([]byte(text))
	require.NoError(t, err)
	return r
}

func TestRecordChangesOnlyWhatIsChanged(t *testing.T) {
	const text = `{"\u0063ookie":{"a" : 1.0}, "n":12345678901234567890.10,"é\n":"\u00e9<\/>" ,"x":null,"d":1,"d":2}`
	const compact = `{"\u0063ookie":{"a" : 1.0},"n":12345678901234567890.10,"é\n":"\u00e9<\/>","x":null,"d":1,"d":2}`
	for _, tc := range []struct {
		name   string
		change func(r *Record) error
		want   string // "": nothing changed
	}{
		{"nothing", func(*Record) error { return nil }, ""},
		{"what is so already", func(r *Record) error { return r.Set("x", nil) }, ""},
		{"a new member", func(r *Record) error { return r.Set("y", "<é>") }, compact[:len(compact)-1] + `,"y":"<é>"}`},
		{
			"one that is there", func(r *Record) error { return r.Set("x", []int{1}) },
			`{"\u0063ookie":{"a" : 1.0},"n":12345678901234567890.10,"é\n":"\u00e9<\/>","x":[1],"d":1,"d":2}`,
		},
		{
			"an escaped name", func(r *Record) error { return r.Set("cookie", 0) },
			`{"\u0063ookie":0,"n":12345678901234567890.10,"é\n":"\u00e9<\/>","x":null,"d":1,"d":2}`,
		},
		{
			"the last of two of one name", func(r *Record) error { return r.Set("d", 3) },
			`{"\u0063ookie":{"a" : 1.0},"n":12345678901234567890.10,"é\n":"\u00e9<\/>","x":null,"d":1,"d":3}`,
		},
		{
			"a path", func(r *Record) error { return r.Set("cookie.b", true) },
			`{"\u0063ookie":{"a":1.0,"b":true},"n":12345678901234567890.10,"é\n":"\u00e9<\/>","x":null,"d":1,"d":2}`,
		},
		{
			"a path through null", func(r *Record) error { return r.Set("x.y.z", 1) },
			`{"\u0063ookie":{"a" : 1.0},"n":12345678901234567890.10,"é\n":"\u00e9<\/>","x":{"y":{"z":1}},"d":1,"d":2}`,
		},
		{"a path through nothing", func(r *Record) error { return r.Set("p.q", 1) }, compact[:len(compact)-1] + `,"p":{"q":1}}`},
		{
			"raw JSON", func(r *Record) error { return r.Set("x", json.RawMessage(`{ "k": 1e400 }`)) },
			`{"\u0063ookie":{"a" : 1.0},"n":12345678901234567890.10,"é\n":"\u00e9<\/>","x":{"k":1e400},"d":1,"d":2}`,
		},
		{
			"one removed, both of it", func(r *Record) error { r.Delete("d"); return nil },
			`{"\u0063ookie":{"a" : 1.0},"n":12345678901234567890.10,"é\n":"\u00e9<\/>","x":null}`,
		},
		{
			"one removed at a path", func(r *Record) error { r.Delete("cookie.a"); return nil },
			`{"\u0063ookie":{},"n":12345678901234567890.10,"é\n":"\u00e9<\/>","x":null,"d":1,"d":2}`,
		},
		{"what is not there removed", func(r *Record) error {
			r.Delete("y")
			r.Delete("y.z")
			r.Delete("d.z")
			r.Delete("cookie.z")
			return nil
		}, ""},
	} {
		r := parsed(t, text)
		require.NoError(t, tc.change(r), tc.name)
		require.Equal(t, tc.want != "", r.changed, tc.name)
		if tc.want == "" {
			tc.want = compact
		}
		require.Equal(t, tc.want, string(r.encode()), tc.name)
	}
}

func TestRecordNameWithDotsComesBeforeThePath(t *testing.T) {
	r := parsed(t, `{"a":{"b":1,"c.d":2},"a.b":3}`)
	for path, want := range map[string]string{"a": `{"b":1,"c.d":2}`, "a.b": "3", "a.c.d": "2"} {
		got, ok := r.Get(path)
		require.True(t, ok, path)
		require.Equal(t, want, string(got), path)
	}
	for _, path := range []string{"", "b", "a.x", "a.b.c", "x.y"} {
		_, ok := r.Get(path)
		require.False(t, ok, path)
	}
	require.NoError(t, r.Set("a.b", 4))
	r.Delete("a.c.d")
	require.JSONEq(t, `{"a":{"b":1},"a.b":4}`, string(r.encode()))
}

func TestRecordRefusesWhatHasNoPlace(t *testing.T) {
	r := parsed(t, `{"a":1}`)
	require.ErrorContains(t, r.Set("a.b", 1), "a is not a JSON object")
	require.Error(t, r.Set("x", func() {}))
	require.Error(t, r.Set("x", json.RawMessage(`{`)))
	require.False(t, r.changed)
}

// Both parsers take the same texts for objects, and taking one apart and
// putting it together again keeps its meaning.
func FuzzParseRecord(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":1,"a":2}`, ` {"a" : [ {} ]} `, `{"a":1}x`, `null`, `{"a"}`, `{"a":1,}`, `{"\ud800":1}`, `[`, `{"a":1e999}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		values, errDecode := decodeObject(text)
		r, err := parseRecord([]byte(text))
		require.Equal(t, errDecode == nil, err == nil, "%v, %v", errDecode, err)
		if err != nil {
			return
		}
		again, err := decodeObject(string(r.encode()))
		require.NoError(t, err)
		require.Equal(t, values, again)
		require.NoError(t, r.Set("\x00", 1))
		values["\x00"] = json.Number("1")
		again, err = decodeObject(string(r.encode()))
		require.NoError(t, err)
		require.Equal(t, values, again)
	})
}

var fuzzNow = time.Unix(1_800_000_000, 0)

// Whatever stands in a record, reading it gives a session or an error, and a
// user id only from a member that is one.
func FuzzDecodeRecord(f *testing.F) {
	for _, seed := range []string{`{"userId":"u","roles":["a"],"authTime":1.5}`, `{"userId":1}`, `{"userId":{}}`, `{"cookie":{"originalMaxAge":1e999}}`} {
		f.Add(seed)
	}
	fields := Fields{}.withDefaults()
	f.Fuzz(func(t *testing.T, text string) {
		s, err := fields.decodeRecord(text, fuzzNow)
		require.NotEqual(t, s == nil, err == nil)
		if err != nil {
			return
		}
		age := maxAge(s.Values)
		require.True(t, age >= 0 && age <= markLife, age)
		require.False(t, s.AuthTime.After(fuzzNow.Add(maxClockSkew)))
		switch id := s.Values["userId"].(type) {
		case string:
			require.Equal(t, id, s.ID)
		case json.Number:
			require.Equal(t, id.String(), s.ID)
		default:
			require.Nil(t, id)
			require.Empty(t, s.ID)
		}
	})
}

func TestCutKeepsTextsWhole(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "",
		"a\xff":                        "a\uFFFD",
		strings.Repeat("a", 257):       strings.Repeat("a", 256),
		strings.Repeat("a", 255) + "é": strings.Repeat("a", 255),
		strings.Repeat("\xff", 999):    "\uFFFD",
		strings.Repeat("a\xff", 200):   strings.Repeat("a\uFFFD", 64),
	} {
		require.Equal(t, want, cut(text), "%q", text)
		require.LessOrEqual(t, len(cut(text)), maxDeviceText)
		require.True(t, utf8.ValidString(cut(text)))
	}
}

func TestMarksShareTheSlotOfTheirRecord(t *testing.T) {
	for record, want := range map[string]string{
		"sess:id":       "gatehouse:dead:{sess:id}",
		"{app}:sess:id": "gatehouse:dead:{app}:sess:id",
		"a{b}{c}id":     "gatehouse:dead:a{b}{c}id",
	} {
		require.Equal(t, want, mark(markDead, record))
	}
	for key, want := range map[string]bool{"": false, "a": false, "{": false, "}": false, "{}": false, "{}{a}": false, "{a": false, "}{a": false, "{a}": true, "x{a}y{": true} {
		require.Equal(t, want, tagged(key), key)
	}
}
