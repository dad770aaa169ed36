package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authapi"
	"github.com/gatehouse-auth/gatehouse/internal/explain"
	"github.com/gatehouse-auth/gatehouse/internal/openapitest"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

// watch asks what administrators see, and holds it against the description.
func (r *running) watch(t *testing.T, path string, answer any) string {
	t.Helper()
	status, body, _ := r.call(t, "GET", path, "", map[string]string{"x-internal-api-key": deskKey})
	require.Equal(t, 200, status, body)
	spec, err := openapitest.Load(authapi.OpenAPI())
	require.NoError(t, err)
	require.NoError(t, spec.Check(openapitest.Exchange{
		Method: "GET", Target: path, Status: status, AnswerHeader: http.Header{"Content-Type": {"application/json"}}, Body: []byte(body),
	}))
	require.NoError(t, json.Unmarshal([]byte(body), answer))
	return body
}

type decisionList struct {
	Replica   string
	Decisions []struct {
		ID, Decision, Reason, WouldDeny, Means, Do, Detail, Policy, Credential, Method, Host, Path, User, Session, RequestID string
		Status                                                                                                               int
		Steps                                                                                                                []explain.Step
	}
}

// What was denied is told with why, by both doors, and what was limited and observed, too.
func TestDecisionsOfAServer(t *testing.T) {
	t.Parallel()
	g, conn := busyServer(t)
	session := g.logIn(t, "bob")
	session["x-request-id"] = "r-17"
	code, _ := ask(t, conn, session)
	require.Zero(t, code)
	status, _, _ := g.call(t, "DELETE", "/auth/sessions/"+handleOfCookie(t, session), "", session)
	require.Equal(t, 200, status)
	code, _ = ask(t, conn, session)
	require.Equal(t, 401, code)

	var list decisionList
	body := g.watch(t, "/auth/decisions", &list)
	require.NotContains(t, body, strings.TrimPrefix(session["cookie"], "sessionId=")[:20])
	seen := map[string]bool{}
	for _, d := range list.Decisions {
		require.True(t, strings.HasPrefix(d.ID, list.Replica+"-"))
		require.True(t, d.Decision == "deny" || d.WouldDeny != "", "nobody listened to what passes")
		seen[d.Policy+" "+d.Reason+" "+d.WouldDeny] = true
	}
	for _, want := range []string{"user no_credential ", "limited rate_limited ", "watched anonymous no_credential"} {
		require.True(t, seen[want], "%s is not in %v", want, seen)
	}
	last := list.Decisions[len(list.Decisions)-1]
	require.Contains(t, []string{string(authz.ReasonSessionRevoked), string(authz.ReasonSessionUnknown)}, last.Reason)
	require.Equal(t, explain.MeaningOf(authz.Reason(last.Reason)).Means, last.Means)
	require.Equal(t, []any{"session", "r-17", 401}, []any{last.Credential, last.RequestID, last.Status})
	require.NotEmpty(t, last.Session)
	require.Equal(t, "refused", last.Steps[len(last.Steps)-1].Outcome)
}

// Whoever listens is told of what passes, too, and doesn't hold up a server that stops.
func TestDecisionsAreStreamedUntilTheServerStops(t *testing.T) {
	t.Parallel()
	g, conn := busyServer(t)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.http+"/auth/decisions", http.NoBody)
	require.NoError(t, err)
	request.Header.Set("x-internal-api-key", deskKey)
	request.Header.Set("Accept", "text/event-stream")
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	require.Equal(t, 200, response.StatusCode)
	lines := bufio.NewScanner(response.Body)
	require.True(t, lines.Scan())
	require.Equal(t, "event: state", lines.Text())

	session := g.logIn(t, "alice")
	until(t, "an allowed request", func() bool { code, _ := ask(t, conn, session); return code == 0 })
	for lines.Scan() && !strings.Contains(lines.Text(), `"user":"alice"`) {
	}
	require.Contains(t, lines.Text(), `"decision":"allow"`)
	require.Contains(t, lines.Text(), `"steps":[]`)

	g.signal()
	for lines.Scan() {
	}
	require.NoError(t, lines.Err(), "it ends in order")
	require.Zero(t, g.wait(t))
	require.NotContains(t, g.log.String(), `"level":"ERROR"`)
}

// The status is what metrics and /readyz tell.
func TestStatusOfAServer(t *testing.T) {
	t.Parallel()
	g, _ := busyServer(t)
	var s authapi.Status
	var raw struct {
		Replica struct{ Started string }
		Store   struct{ Checked string }
		Issuers []struct{ LastFetch *string }
	}
	body := g.watch(t, "/auth/status", &raw)
	for _, moments := range []string{raw.Replica.Started, raw.Store.Checked} {
		require.Regexp(t, `^20\d\d-.*\.\d{3}Z$`, moments)
	}
	require.Nil(t, raw.Issuers[0].LastFetch, "never")
	_ = json.Unmarshal([]byte(body), &s) // all but the times

	var list decisionList
	g.watch(t, "/auth/decisions", &list)
	require.Equal(t, list.Replica, s.Replica.Name)
	require.Equal(t, "ready", s.Replica.State)
	require.NotEmpty(t, s.Replica.Version)
	require.Positive(t, s.Replica.Uptime)
	require.Equal(t, "current", s.Config.State)
	require.Equal(t, 1, s.Config.Generation)

	var names []string
	policies := map[string]authapi.PolicyStatus{}
	for _, p := range s.Policies {
		names, policies[p.Name] = append(names, p.Name), p
	}
	require.Equal(t, []string{"limited", "user", "watched"}, names)
	require.EqualValues(t, 6, policies["user"].Allowed)
	require.Equal(t, map[string]uint64{"no_credential": 1}, policies["user"].Denied)
	require.Equal(t, map[string]uint64{"rate_limited": 1}, policies["limited"].Denied)
	require.Equal(t, map[string]uint64{"no_credential": 1}, policies["watched"].Observed)
	require.Equal(t, []string{"observe", "enforce"}, []string{policies["watched"].Mode, policies["user"].Mode})

	require.Equal(t, "coherent", s.Cache.State)
	require.Positive(t, s.Cache.Hits)
	require.InDelta(t, float64(s.Cache.Hits)/float64(s.Cache.Hits+s.Cache.Misses+s.Cache.Stale), s.Cache.HitRatio, 1e-9)
	require.Equal(t, "up", s.Store.State)
	require.Positive(t, s.Store.Outcomes["ok"])
	require.Positive(t, s.Store.Answered)
	require.Positive(t, s.Store.Seconds)
	require.Len(t, s.Issuers, 1)
	require.Equal(t, "https://idp.example.com", s.Issuers[0].Issuer)
	require.NotEmpty(t, s.Issuers[0].Error)
}

// An embedded store has no commands, and a gate without a cache none of its figures.
func TestStatusWithoutMuch(t *testing.T) {
	t.Parallel()
	sum := sha256.Sum256([]byte(deskKey))
	g := start(t, onePolicy("embedded://")+"\napi_keys: [{name: backend, sha256: \""+hex.EncodeToString(sum[:])+"\", auth_api: true}]\n")
	until(t, "ready", func() bool { status, _ := get(t, "http://"+g.ops+"/readyz"); return status == 200 })
	var s struct {
		Store struct {
			State    string
			Answered int
		}
		Issuers []any
	}
	g.watch(t, "/auth/status", &s)
	require.Equal(t, "up", s.Store.State)
	require.Zero(t, s.Store.Answered)
	require.Equal(t, []any{}, s.Issuers)
}

// What a driver says about an address with a password in it is told without it.
func TestStatusTellsNoSecretOfAnError(t *testing.T) {
	t.Parallel()
	const said, told = "dialing redis://gatehouse:hunter2@redis:6379: refused", "dialing redis://[secret]redis:6379: refused"
	require.Equal(t, told, storeNow(telemetry.Figures{}, storeDetail{State: "down", Error: said}).Error)
	require.Equal(t, told, cacheNow(telemetry.Figures{}, cacheDetail{State: "incoherent", Error: said}).Error)
}
