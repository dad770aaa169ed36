package extauthz_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/gatehouse-auth/gatehouse/authz/extauthz"
)

// update has TestEnvoy write testdata/recorded anew: what Envoy sent, and what
// we replied, to be read before it is committed.
var update = flag.Bool("update", false, "write testdata/recorded anew, with a real Envoy")

// recordedFile is testdata/recorded/NAME.FORM.json: what Envoy sent, FORM
// being map or list, or the reply to both.
func recordedFile(name, form string) string {
	return filepath.Join("testdata", "recorded", name+"."+form+".json")
}

func readMessage[M proto.Message](tb testing.TB, file string, m M) M {
	tb.Helper()
	text, err := os.ReadFile(file)
	require.NoError(tb, err, "record it with: go test ./authz/extauthz -run TestEnvoy -update")
	require.NoError(tb, protojson.Unmarshal(text, m), file)
	return m
}

// Each CheckRequest that a real Envoy sent, in both header forms, gets the
// reply that lies beside it.
func TestRecorded(t *testing.T) {
	t.Parallel()
	replies, err := filepath.Glob(recordedFile("*", "reply"))
	require.NoError(t, err)
	require.Len(t, replies, len(conversations), "recordings and conversations differ: record anew")
	s := newServer(t)
	for _, c := range conversations {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			want := stable(t, readMessage(t, recordedFile(c.name, "reply"), &authv3.CheckResponse{}))
			for _, form := range forms {
				req := readMessage(t, recordedFile(c.name, form), &authv3.CheckRequest{})
				http := req.GetAttributes().GetRequest().GetHttp()
				require.Equal(t, form == "map", len(http.GetHeaders()) > 0)
				require.Equal(t, form == "list", len(http.GetHeaderMap().GetHeaders()) > 0)
				require.Equal(t, want, stable(t, askOnce(t, s, req)), form)
				if c.name == "limit" {
					continue // explaining doesn't count
				}
				explained := s.Explain(t.Context(), extauthz.Parts(req))
				require.Equal(t, want, stable(t, explained.Response), "%s, explained", form)
				require.Equal(t, explained.Err == nil, explained.Response.GetOkResponse() != nil)
			}
			require.Equal(t, c.want, strings.TrimSpace(answer(readMessage(t, recordedFile(c.name, "reply"), &authv3.CheckResponse{}))))
		})
	}
}
