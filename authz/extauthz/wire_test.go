package extauthz_test

import (
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/extauthz"
)

// sameRequests requires that the bytes mean the same, read as bytes and read as
// a message.
func sameRequests(t *testing.T, data []byte) {
	t.Helper()
	message := &authv3.CheckRequest{}
	notMessage := proto.Unmarshal(data, message)
	wire, typed, errWire, errTyped, notWire := extauthz.Requests(data, message)
	require.Equal(t, notMessage == nil, notWire == nil, "the generated types say %v, we say %v", notMessage, notWire)
	if notMessage != nil {
		return
	}
	require.Equal(t, errTyped == nil, errWire == nil)
	if errTyped != nil {
		require.Equal(t, errTyped.Error(), errWire.Error())
	}
	headersOf := func(r *authz.Request) map[string]string { return maps.Collect(r.Headers.All()) }
	require.Equal(t, headersOf(typed), headersOf(wire))
	for name := range headersOf(typed) {
		a, _ := typed.Headers.Header(name)
		b, ok := wire.Headers.Header(name)
		require.True(t, ok)
		require.Equal(t, a, b)
	}
	_, ok := wire.Headers.Header("not there")
	require.False(t, ok)
	typed.Headers, wire.Headers = nil, nil
	require.Equal(t, typed, wire)
}

// recordings are real checks, as bytes.
func recordings(tb testing.TB) [][]byte {
	tb.Helper()
	files, err := filepath.Glob("testdata/recorded/*")
	require.NoError(tb, err)
	var all [][]byte
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(tb, err)
		m := &authv3.CheckRequest{}
		if !strings.HasSuffix(file, ".json") || protojson.Unmarshal(text, m) != nil {
			continue
		}
		data, err := proto.Marshal(m)
		require.NoError(tb, err)
		all = append(all, data)
	}
	return all
}

func FuzzWire(f *testing.F) {
	for _, data := range recordings(f) {
		f.Add(data)
	}
	for _, c := range []check{{}, {method: "GET", host: "h", path: "/p?q", headers: []header{{"cookie", "a=b"}, {"x", "\xff"}}}} {
		for _, m := range []*authv3.CheckRequest{c.asMap(), c.asList()} {
			data, err := proto.Marshal(m)
			require.NoError(f, err)
			f.Add(data)
			f.Add(append(data, data...))
			f.Add(data[:len(data)/2])
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) { sameRequests(t, data) })
}

// Random damage to real checks finds what a fuzzer needs long for.
func TestDamagedChecksMeanTheSame(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	all := recordings(t)
	for _, c := range []check{
		{method: "GET", host: "Example.com:80", path: "/p?q", headers: []header{{"cookie", "a=b"}, {"cookie", "c=d"}, {"X-Upper", "1"}, {"x-upper", "2"}}},
		{method: "GET", host: "h", path: "/", policy: new(string), headers: []header{{"x", "\xff"}, {"x", "y"}}},
	} {
		for _, m := range []*authv3.CheckRequest{c.asMap(), c.asList()} {
			data, err := proto.Marshal(m)
			require.NoError(t, err)
			all = append(all, data)
		}
	}
	for range 30_000 {
		data := append([]byte(nil), all[rnd.IntN(len(all))]...)
		if rnd.IntN(3) == 0 {
			data = append(data, all[rnd.IntN(len(all))]...)
		}
		for range rnd.IntN(4) {
			i := rnd.IntN(len(data))
			switch rnd.IntN(4) {
			case 0:
				data[i] = byte(rnd.IntN(256))
			case 1:
				data = append(data[:i:i], data[i+1:]...)
			case 2:
				data = append(data[:i:i], append([]byte{byte(rnd.IntN(256))}, data[i:]...)...)
			case 3:
				data = data[:i+1]
			}
			if len(data) == 0 {
				break
			}
		}
		sameRequests(t, data)
	}
}

func TestOddMessagesMeanTheSame(t *testing.T) {
	field := func(num protowire.Number, parts ...[]byte) []byte {
		var value []byte
		for _, p := range parts {
			value = append(value, p...)
		}
		return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), value)
	}
	text := func(num protowire.Number, s string) []byte { return field(num, []byte(s)) }
	number := func(num protowire.Number, n uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), n)
	}
	http := func(parts ...[]byte) []byte { return field(1, field(4, field(2, parts...))) }
	deep := func(n int, inner []byte) []byte { // a Struct in a Struct
		for range n {
			inner = field(1, text(1, "k"), field(2, field(5, inner)))
		}
		return inner
	}
	for name, data := range map[string][]byte{
		"nothing":                        {},
		"no request":                     field(1),
		"an empty request":               http(),
		"a field of another type":        http(number(2, 7), text(2, "GET"), number(3, 1)),
		"twice":                          append(http(text(2, "GET"), text(4, "/a")), http(text(4, "/b"))...),
		"a method that is not UTF-8":     http(text(2, "\xff")),
		"a body that is not UTF-8":       http(text(11, "\xff")),
		"bytes that need not be":         http(text(12, "\xff")),
		"a principal that is not UTF-8":  field(1, field(2, text(4, "\xff"))),
		"an SNI that is not UTF-8":       field(1, field(12, text(1, "\xff"))),
		"an entry without a key":         http(field(3, text(2, "v"))),
		"an entry without a value":       http(field(3, text(1, "k"))),
		"an entry twice":                 http(field(3, text(1, "k"), text(2, "a")), field(3, text(1, "k"), text(2, "b"))),
		"a key twice":                    http(field(3, text(1, "j"), text(1, "k"), text(2, "a"))),
		"a key that is not UTF-8":        http(field(3, text(1, "\xff"))),
		"capitals":                       http(field(3, text(1, "K"), text(2, "a")), field(3, text(1, "k"), text(2, "b")), field(3, text(1, "K"), text(2, "c"))),
		"map and list":                   http(field(3, text(1, "k"), text(2, "a")), field(13, field(1, text(1, "K"), text(2, "b")), field(1, text(1, "k"), text(2, "x"), text(3, "\xffc")))),
		"an empty list":                  http(field(3, text(1, "k"), text(2, "a")), field(13)),
		"two lists":                      http(field(13, field(1, text(1, "k"), text(2, "a"))), field(13, field(1, text(1, "k"), text(2, "b")))),
		"a policy":                       field(1, field(10, text(1, "policy"), text(2, "p")), field(10, text(1, "other"), text(2, "q"))),
		"a policy without a name":        field(1, field(10, text(1, "policy"))),
		"a socket, then a pipe":          field(1, field(1, field(1, field(1, text(2, "192.0.2.1")), field(2)))),
		"a pipe, then a socket":          field(1, field(1, field(1, field(2), field(1, text(2, "192.0.2.1"))))),
		"two sockets":                    field(1, field(1, field(1, field(1, text(2, "192.0.2.1")), field(1, number(3, 80))))),
		"an unknown field":               append(text(99, "x"), field(1, number(99, 1), text(98, "\xff"))...),
		"a group":                        {0x9b, 0x06, 0x9c, 0x06},
		"a group that does not end":      {0x9b, 0x06},
		"the end of a group":             {0x9c, 0x06},
		"field 0":                        {0x02, 0x00},
		"metadata":                       field(1, field(11, field(1, text(1, "n"), field(2, deep(3, nil))))),
		"metadata that is not UTF-8":     field(1, field(11, field(1, text(1, "n"), field(2, deep(3, field(1, text(1, "\xff"))))))),
		"metadata that is too deep":      field(1, field(11, field(1, text(1, "n"), field(2, deep(5100, nil))))),
		"metadata that is nearly so":     field(1, field(11, field(1, text(1, "n"), field(2, deep(3331, nil))))),
		"typed metadata that is not one": field(1, field(11, field(2, text(1, "n"), field(2, text(1, "\xff"))))),
		"a field beyond all numbers":     {0xf8, 0xff, 0xff, 0xff, 0x7f, 0x00},
		"one of them within":             field(1, []byte{0xf8, 0xff, 0xff, 0xff, 0x7f, 0x00}),
		"a varint without an end":        {0x08, 0xff},
		"a long varint":                  {0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
	} {
		t.Run(name, func(t *testing.T) { sameRequests(t, data) })
	}
	for n := 3325; n < 3336; n++ {
		sameRequests(t, field(1, field(11, field(1, text(1, "n"), field(2, deep(n, nil))))))
	}
}
