package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/envoy"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// attackReport is what 'gatehouse attack --format json' prints.
type attackReport struct {
	Held, Broken, Skipped, Inconclusive int
	Notes                               []string
	Cases                               []struct{ ID, Category, Verdict, Reached, Reason string }
}

func (r attackReport) ids(verdict string) []string {
	ids := []string{}
	for _, c := range r.Cases {
		if c.Verdict == verdict {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// requireAllHeld is what the kit has to say of a gateway that is as shipped.
func (r attackReport) requireAllHeld(t *testing.T) {
	t.Helper()
	for _, c := range r.Cases {
		require.Equal(t, "held", c.Verdict, "%v", c)
	}
	require.Greater(t, r.Held, 150)
	require.Empty(t, r.Notes)
}

// attack runs the built binary's attack on a gateway, with all that can be given.
func (g *gateway) attack(t *testing.T) attackReport {
	t.Helper()
	bin, err := binaries()
	require.NoError(t, err)
	dir := t.TempDir()
	session, token := "sessionId="+g.login(t, bob), g.pem.issue(with(claimsOf(pemIssuer, bob), object{"exp": time.Now().Unix() + 3600}))
	for name, text := range map[string]string{
		"cookie": session + "\n", "token": token, "key.pem": string(g.pem.private()),
		"jwks.json": mustJSON(t, object{"keys": []object{with(g.pem.jwk(), object{"kid": nil})}}),
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "gatehouse"),
		"attack", "--target", "http://"+g.addr, "--host", host, "--format", "json",
		"--cookie-file", filepath.Join(dir, "cookie"), "--token-file", filepath.Join(dir, "token"),
		"--jwks", filepath.Join(dir, "jwks.json"), "--signing-key-file", filepath.Join(dir, "key.pem"))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	var r attackReport
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &r), "%s", stderr.String())
	if r.Broken == 0 {
		require.NoError(t, err, stderr.String())
	} else {
		require.Equal(t, 1, cmd.ProcessState.ExitCode(), stderr.String())
	}
	said := stdout.String() + stderr.String()
	for _, secret := range append(strings.Split(token, "."), session, strings.TrimPrefix(session, "sessionId=")) {
		require.NotContains(t, said, secret)
	}
	return r
}

// startAttackEcho runs the kit's own echo, and returns what puts it behind a
// gateway in the place of user-service.
func startAttackEcho(t *testing.T) (address string) {
	t.Helper()
	bin, err := binaries()
	require.NoError(t, err)
	address = proc.Local(proctest.FreePort(t))
	p := proctest.Start(t, filepath.Join(bin, "gatehouse"), []string{"attack", "echo", "--listen", address}, proc.Options{Output: journal})
	require.NoError(t, p.Ready(t.Context(), proc.TCP(address)))
	return address
}

// The shipped gateway passes the whole list: with the demo's service behind it, and
// with an echo that refuses nothing in the gateway's place; with either form of
// headers in the check. They run at once, since most of the time is Envoy's: it waits
// a second before it closes a connection on which HTTP/2 was broken.
func TestAttacksOnTheShippedGateway(t *testing.T) {
	shared := sharedGateway(t, asShipped)
	echo := endpoints("user_service", startAttackEcho(t))
	for name, g := range map[string]*gateway{
		"user-service":   shared.gateway(t, shared.startServices(t)...),
		"the kit's echo": shared.gateway(t, echo),
		headerMap:        shared.gateway(t, append(slices.Clone(variants[headerMap]), echo)...),
	} {
		if testing.Short() && name == "the kit's echo" {
			continue // to Gatehouse it is the same as the others
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := g.attack(t)
			r.requireAllHeld(t)
			t.Attr("requests", strconv.Itoa(r.Held))
		})
	}
}

// setInType sets keys, there or not, of the one message of a type.
func setInType(name string, values map[string]any) edit {
	return func(config map[string]any) error {
		each(config, func(m map[string]any) {
			if kind, _ := m["@type"].(string); strings.HasSuffix(kind, "."+name) {
				maps.Copy(m, values)
			}
		})
		return nil
	}
}

// What the kit finds at gateways that are not as shipped.
func TestAttacksOnWeakGateways(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 20 s, one request after the other: run the tests without -short")
	}
	shared := sharedGateway(t, asShipped)
	echo := endpoints("user_service", startAttackEcho(t))
	unchecked := setInType("ExtAuthz", map[string]any{"filter_enabled": map[string]any{"default_value": map[string]any{"numerator": 0}}})
	for _, tc := range []struct {
		name  string
		edits []edit
		// exactly what is broken, or at least these
		exactly, least []string
		notes          int
	}{
		{
			// Gatehouse takes the identity out as it is spelt with - and _; other spellings, and
			// what is no identity, it leaves to the gateway.
			name: "Gatehouse alone, without Envoy's own defences", edits: variants[defenceOff],
			exactly: []string{
				"spoof-dots", "override-original-url", "override-rewrite-url", "override-envoy-internal", "override-method", "override-forwarded-for",
				"override-real-ip", "override-forwarded", "override-forwarded-host", "override-forwarded-prefix",
			},
		},
		{
			name: "nobody is asked", edits: []edit{unchecked}, notes: 2,
			least: []string{"no-credential", "basic-admin", "cookie-changed", "cookie-unsigned", "token-none", "token-hmac-public-key", "method-options", "path-encoded-letter"},
		},
		{
			name: "nobody is asked, and nothing is taken out", edits: append(slices.Clone(variants[defenceOff]), unchecked), notes: 2,
			least: []string{"no-credential", "spoof-plain", "spoof-underscores", "spoof-plain-anonymous", "path-dot-dot", "path-dot-dot-encoded-slash", "path-double-slash-inside", "h2-spoof-plain", "override-original-url"},
		},
		{
			name: "it fails open, and Gatehouse is gone", edits: append(slices.Clone(variants[failOpen]), endpoints("gatehouse", proc.Local(1))), notes: 2,
			least: []string{"no-credential", "cookie-changed", "token-none", "token-expired"},
		},
	} {
		g, err := shared.newWeakGateway(t, append(slices.Clone(tc.edits), echo)...)
		require.NoError(t, err)
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := g.attack(t)
			broken := r.ids("broken")
			if tc.least == nil {
				require.Equal(t, tc.exactly, broken)
			}
			require.Subset(t, broken, tc.least)
			require.Empty(t, r.ids("skipped"))
			require.Len(t, r.Notes, tc.notes)
		})
	}
}

// newWeakGateway starts an Envoy that may find Gatehouse gone.
func (s *stack) newWeakGateway(t *testing.T, edits ...edit) (*gateway, error) {
	t.Helper()
	ports := proctest.FreePorts(t, 2)
	text, err := edited(envoy.Config, append([]edit{
		s.waits,
		endpoints("gatehouse", s.checks()...), endpoints("gatehouse_http", s.replicas[0].http),
	}, edits...)...)
	if err != nil {
		return nil, err
	}
	if text, err = proc.RewritePorts(text, map[int]int{portGateway: ports[0], portAdmin: ports[1]}); err != nil {
		return nil, err
	}
	e := proctest.StartEnvoy(t, text, proc.EnvoyOptions{Dir: t.TempDir(), Output: journal})
	return &gateway{Envoy: e, stack: s, addr: proc.Local(ports[0])}, nil
}

// The kit attacks any gateway: here nginx, which asks by HTTP, with the shipped file.
func TestAttacksOnNginx(t *testing.T) {
	shared := sharedProxy(t, nginx, asShipped)
	const service = "server 127.0.0.1:8101;"
	g, err := shared.newProxy(context.WithoutCancel(t.Context()), nginx, map[string]string{
		service: "server " + startAttackEcho(t) + "; # instead of " + service,
	})
	require.NoError(t, err)
	r := g.attack(t)
	// It leaves alone what only an Envoy behind it would read.
	require.Equal(t, []string{"override-envoy-original-path", "override-envoy-internal"}, r.ids("broken"))
	require.Empty(t, r.ids("inconclusive"))
	for _, c := range r.Cases {
		require.Equal(t, c.Category == "http2", c.Verdict == "skipped", "%v", c)
	}
}
