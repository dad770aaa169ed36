package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// proxy is a gateway that asks by HTTP, and its shipped configuration.
type proxy struct {
	program string
	// optional programs are not installed by make test.
	optional bool
	files    []string // below deploy/forward-auth; the program is started with the first
	args     func(file string) []string
	listen   string // how the first names the gateway's address, with 8080 for its port
	// extra routes, as extraRoutes are for Envoy, and what a test's directory needs.
	extra map[string]string
	// variants are edits of the files, beside asShipped.
	variants map[string]map[string]string
}

// secondWall: what Gatehouse refuses by itself must be enough where it is asked.
const secondWall = "without the proxy's own refusal of paths"

var proxies = []proxy{nginx, caddy, traefik}

var nginx = proxy{
	program: "nginx",
	files:   []string{"nginx.conf"},
	args: func(file string) []string {
		directives := "daemon off; pid nginx.pid;"
		if os.Getuid() == 0 {
			directives += " user root;" // others may not enter the test's directory
		}
		return []string{"-c", file, "-p", filepath.Dir(file), "-e", "stderr", "-g", directives}
	},
	listen: "127.0.0.1:8080",
	extra: map[string]string{
		// Packages keep these where only root may write.
		"http {\n":               "http {\n client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;\n",
		"worker_processes auto;": "worker_processes 1;",
		// A machine that stands still is no outage.
		"proxy_read_timeout 3s;": "proxy_read_timeout 20s;", "proxy_next_upstream_timeout 4s;": "proxy_next_upstream_timeout 20s;",
		"        # A path that nothing above names": `
        location ~ ^/p(/|$) { proxy_pass http://user_service; }
        location ~ ^/misnamed(/|$) { auth_request /_gatehouse/no-such-policy; proxy_pass http://user_service; }
        location ~ ^/skipped(/|$) { auth_request off; proxy_pass http://user_service; }
        # A path that nothing above names`,
	},
	variants: map[string]map[string]string{
		secondWall: {"if ($ambiguous_path) {": "if ($request_uri = never) {"},
	},
}

var caddy = proxy{
	program:  "caddy",
	optional: true,
	files:    []string{"Caddyfile"},
	args:     func(file string) []string { return []string{"run", "--config", file, "--adapter", "caddyfile"} },
	listen:   ":8080 {",
	extra: map[string]string{
		"		# A path that nothing above names": `
		@p path_regexp ^/p(/|$)
		handle @p {
			forward_auth 127.0.0.1:8081 {
				uri /check
				copy_headers X-User-Id X-User-Email X-User-Roles X-Org-Id
			}
			import serve 127.0.0.1:8101
		}
		@misnamed path_regexp ^/misnamed(/|$)
		handle @misnamed {
			import check no-such-policy
			import serve 127.0.0.1:8101
		}
		@skipped path_regexp ^/skipped(/|$)
		handle @skipped {
			import serve 127.0.0.1:8101
		}
		# A path that nothing above names`,
	},
	variants: map[string]map[string]string{
		secondWall: {"error @ambiguous 400": ""},
	},
}

var traefik = proxy{
	program:  "traefik",
	optional: true,
	files:    []string{"traefik.yaml", "traefik-dynamic.yaml"},
	args:     func(file string) []string { return []string{"--configFile=" + file} },
	listen:   "127.0.0.1:8080",
	extra: map[string]string{
		"    # A path that no router names": strings.ReplaceAll(`
    p: {rule: "PathRegexp('^/p(/|$)')", priority: 100, middlewares: [check-p, without-key, answers], service: user-service}
    misnamed: {rule: "PathRegexp('^/misnamed(/|$)')", priority: 100, middlewares: [check-misnamed, without-key, answers], service: user-service}
    skipped: {rule: "PathRegexp('^/skipped(/|$)')", priority: 100, middlewares: [without-key, answers], service: user-service}
    # A path that no router names`, "'", "`"),
		"    # Behind the check, which is about": `
    check-p: {forwardAuth: {<<: *check, address: "http://127.0.0.1:8081/check"}}
    check-misnamed: {forwardAuth: {<<: *check, address: "http://127.0.0.1:8081/check?policy=no-such-policy"}}
    # Behind the check, which is about`,
	},
	variants: map[string]map[string]string{
		secondWall: {
			"middlewares: [check-public, refuse]": "middlewares: [check-public]", "sanitizePath: true": "sanitizePath: false",
			"allowEncodedSlash: false": "allowEncodedSlash: true", "allowEncodedBackSlash: false": "allowEncodedBackSlash: true",
			"allowEncodedNullCharacter: false": "allowEncodedNullCharacter: true",
		},
	},
}

// need skips the test where the program is missing.
func (p proxy) need(t *testing.T) {
	t.Helper()
	if _, err := proc.Find(p.program); p.optional && err != nil {
		t.Skipf("%v; make test does without it", err)
	}
	proctest.Need(t, p.program)
	proctest.Need(t, "redis-server")
}

// write puts the shipped files into a directory after these edits, one after
// the other. A piece of text that is in none of the files has changed there, and
// the test must follow.
func (p proxy) write(dir string, edits ...map[string]string) error {
	texts := make([]string, len(p.files))
	for i, name := range p.files {
		shipped, err := os.ReadFile(filepath.Join("../deploy/forward-auth", name))
		if err != nil {
			return err
		}
		texts[i] = string(shipped)
	}
	for _, edit := range edits {
		for from, to := range edit {
			if !strings.Contains(strings.Join(texts, ""), from) {
				return fmt.Errorf("no file of %s has %q: adapt the test", p.program, from)
			}
			for i := range texts {
				texts[i] = strings.ReplaceAll(texts[i], from, to)
			}
		}
	}
	for i, name := range p.files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(texts[i]), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// newProxy starts a proxy in front of the stack: on a free port, with extra
// routes, and with the recorder in place of the services; after the edits.
func (s *stack) newProxy(ctx context.Context, p proxy, edits map[string]string) (*gateway, error) {
	port, err := proc.FreePort()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(s.dir, p.program+"-")
	if err != nil {
		return nil, err
	}
	listen := map[string]string{p.listen: strings.Replace(p.listen, "8080", strconv.Itoa(port), 1)}
	if err := p.write(dir, edits, p.extra, listen, map[string]string{
		"127.0.0.1:8081": s.replicas[0].http,
		"127.0.0.1:8101": s.recorder.addr(), "127.0.0.1:8102": s.recorder.addr(), "127.0.0.1:8103": s.recorder.addr(),
	}); err != nil {
		return nil, err
	}
	path, err := proc.Find(p.program)
	if err != nil {
		return nil, err
	}
	process, err := proc.Start(ctx, path, p.args(filepath.Join(dir, p.files[0])), proc.Options{
		Dir: dir, Output: journal, Env: []string{"HOME=" + dir, "XDG_CONFIG_HOME=" + dir, "XDG_DATA_HOME=" + dir},
	})
	if err != nil {
		return nil, err
	}
	s.atEnd(process.Stop)
	g := &gateway{Envoy: &proc.Envoy{Process: process}, stack: s, addr: proc.Local(port)}
	ready, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return g, process.Ready(ready, proc.HTTP("http://"+g.addr+"/")) // with its routes, not only with a socket
}

// sharedProxy returns a proxy in front of the shared stack.
func sharedProxy(t *testing.T, p proxy, variant string) *gateway {
	t.Helper()
	p.need(t)
	edits, ok := p.variants[variant]
	require.True(t, ok || variant == asShipped, variant)
	sharedStacks.mu.Lock()
	defer sharedStacks.mu.Unlock()
	ctx := context.WithoutCancel(t.Context()) // the stack outlives the test
	if sharedStacks.stack == nil && sharedStacks.err == nil {
		sharedStacks.stack, sharedStacks.err = newStack(ctx, options{})
	}
	require.NoError(t, sharedStacks.err)
	key := p.program + ", " + variant
	g := sharedStacks.stack.gateways[key]
	if g == nil {
		var err error
		g, err = sharedStacks.stack.newProxy(ctx, p, edits)
		require.NoError(t, err)
		sharedStacks.stack.gateways[key] = g
	}
	before := journal.len()
	t.Cleanup(func() { logFailure(t, before) })
	return g
}

// behindProxies runs a test behind each of them.
func behindProxies(t *testing.T, test func(t *testing.T, g *gateway)) {
	t.Helper()
	for _, p := range proxies {
		t.Run(p.program, func(t *testing.T) { test(t, sharedProxy(t, p, asShipped)) })
	}
}

func TestARepresentativeDayBehindProxies(t *testing.T) {
	behindProxies(t, func(t *testing.T, g *gateway) { g.representative(t) })
}

// Behind Traefik, paths arrive normalised, as behind Envoy; nginx and Caddy hand
// them on as they are, so what could be read in two ways is refused.
func TestOddPathsBehindProxies(t *testing.T) {
	behindProxies(t, func(t *testing.T, g *gateway) {
		session := cookie(g.login(t, bob))
		normalises := strings.HasSuffix(t.Name(), traefik.program)
		for _, tc := range oddPaths {
			t.Run(tc.target, func(t *testing.T) {
				r := g.get(t, tc.target, session)
				if r.arrived == nil {
					require.Contains(t, []int{400, 403, 404}, r.status, r.line())
					require.False(t, tc.direct == "user" && !normalises, "a good path is refused: %s", r.line())
					return
				}
				if normalises {
					unambiguous(t, r)
				} else if tc.target != "http://"+host+r.arrived.target {
					require.Equal(t, "user", tc.direct, "a path of two meanings arrives: %s", r.arrived.target)
					require.Equal(t, tc.target, r.arrived.target)
				}
				if r.arrived.target != "/" { // the demo page is open, and checks nobody
					require.Equal(t, bob.fields(), r.arrived.identity())
				}
			})
		}
	})
}

// unambiguous checks that a service can't read another path out of what arrived
// than one of Bob's.
func unambiguous(t *testing.T, r reply) {
	t.Helper()
	path, _, _ := strings.Cut(r.arrived.target, "?")
	decoded, err := url.PathUnescape(path)
	require.NoError(t, err, path)
	for _, way := range []string{path, decoded} {
		require.NotRegexp(t, `(?i)//|/\.\.?(/|;|$)|\\|%2f|%5c|%2e|\x00|^/users/(admin|internal)(/|$)`, way)
	}
}

// Where the proxy itself refuses nothing, Gatehouse does, of whatever it is asked
// about.
func TestOddPathsBehindProxiesThatTakeAll(t *testing.T) {
	for _, p := range proxies {
		t.Run(p.program, func(t *testing.T) {
			g := sharedProxy(t, p, secondWall)
			session := cookie(g.login(t, bob))
			for _, tc := range oddPaths {
				// It leaves a parameter alone under a policy that the proxy has chosen.
				if strings.Contains(tc.target, ";") && !strings.Contains(tc.target, "..;") && !strings.Contains(tc.target, "/.;") {
					continue
				}
				t.Run(tc.target, func(t *testing.T) {
					r := g.get(t, tc.target, session)
					if r.arrived == nil {
						require.Contains(t, []int{400, 403, 404}, r.status, r.line())
						return
					}
					if len(r.arrived.identity()) != 0 { // checked, since Bob is known
						unambiguous(t, r)
					}
				})
			}
		})
	}
}

// A proxy that routes by another path than it hands on lets somebody reach by a
// route without a check what another route checks.
func TestNoWayAroundTheCheckBehindProxies(t *testing.T) {
	behindProxies(t, func(t *testing.T, g *gateway) {
		for _, target := range []string{
			"/users/admin/..%2f..%2fdemo/x", "/users/admin/%2e%2e/%2e%2e/demo", "/users/admin/../../demo", "/users/admin/..%2F..%2Fskipped/x",
			`/users/admin\..\..\demo`, "/users/admin/..%5c..%5cdemo", "/users/admin/%252e%252e/%252e%252e/demo",
			"/skipped/../users/admin", "/skipped/%2e%2e/users/admin/stats", "/skipped/..%2fusers/admin", "/skipped/%2e%2e%2fusers/admin",
			`/skipped/..\users/admin`, "/skipped/..;/users/admin", "/skipped/.;/../users/admin", "/skipped//../users/admin", "/skipped/%252e%252e/users/admin",
			"//users/admin", "/skipped/..", "/demo/..%00/users/admin", "/demo#/../users/admin", "/users/admin#/../../demo", "/demo?/../users/admin",
			"/auth/../users/admin", "/auth/..%2fusers/admin", "http://gateway.example.com/demo/../users/admin", "/users/%61dmin", "/users/admin;/../demo",
			"/USERS/admin", "/users/ADMIN", "/Users/Admin/stats",
		} {
			r := g.get(t, target)
			if r.arrived == nil {
				require.Contains(t, []int{400, 401, 403, 404}, r.status, "%s: %s", target, r.line())
				continue
			}
			path, _, _ := strings.Cut(r.arrived.target, "?")
			require.NotRegexp(t, `(?i)^/users|\.\.[^/]*/users`, path, target)
			require.NotContains(t, path, "..", target)
			require.NotContains(t, path, "%2", target)
			require.Empty(t, r.arrived.identity())
		}
	})
}

// aliases are further names that some server reads as an identity header: PHP
// makes an underscore of each of these characters.
var aliases = []string{"x.user.id: root", "x~user~id: root", "X.User-Roles: [\"admin\"]", "x!user!id: root\nx|org|id: evil", "x+user^id: root\nx`user'email: r"}

func TestSpoofedIdentityNeverArrivesBehindProxies(t *testing.T) {
	behindProxies(t, func(t *testing.T, g *gateway) {
		session := cookie(g.login(t, bob))
		heads := map[string]string{}
		for _, spoof := range spoofs {
			heads[spoof.name] = spoof.head
		}
		for _, alias := range aliases {
			heads[alias] = alias
		}
		for _, caller := range []struct {
			path, credential string
			as               identity
		}{
			{"/users/me", session, bob},
			{"/banking/1", session, bob},
			{"/public/hello", "", nobody},
			{"/p/open/x", session, nobody},
			{"/p/trial/x", "", nobody},
			{"/skipped/x", session, nobody},
			{"/demo/x", session, nobody},
			{"/", session, nobody},
		} {
			for name, head := range heads {
				t.Run(caller.path+"/"+name, func(t *testing.T) {
					head := "GET " + caller.path + " HTTP/1.1\n" + head
					if caller.credential != "" {
						head += "\n" + caller.credential
					}
					r := g.send(t, head)
					if r.status == http.StatusBadRequest {
						require.Nil(t, r.arrived)
						require.NotContains(t, []string{"the plain name", "upper case", "mixed case", "all four and the key", "the right values", "sent and nominated"}, name)
						return
					}
					requireAllowed(t, r, caller.as)
				})
			}
		}
	})
}

// Headers by which a client would ask Gatehouse about another request than the
// one that is served.
func TestForgedQuestionsBehindProxies(t *testing.T) {
	behindProxies(t, func(t *testing.T, g *gateway) {
		session := cookie(g.login(t, bob))
		forged := [][]string{
			{"X-Forwarded-Uri: /public/x"},
			{"X-Forwarded-Uri: /public/x", "X-Forwarded-Method: GET", "X-Forwarded-Host: " + host, "X-Forwarded-Proto: https"},
			{"x-forwarded-uri: /public/x", "X-FORWARDED-URI: /public/x"},
			{"X-Original-URI: /public/x"},
			{"X-Original-URI: /public/x", "X-Original-Method: GET"},
			{"X-Original-URL: https://" + host + "/public/x", "X-Original-Method: GET"},
			{"X-Original-URL: /public/x"},
			{"X-Rewrite-URL: /public/x"},
			{"X-Forwarded-Method: GET", "X-Original-Method: GET", "X-HTTP-Method-Override: GET", "X-Method-Override: GET"},
			{"X-Forwarded-Host: open.example.com"},
			{"X-Gatehouse-Status: 200", "X-Gatehouse-Policy: public"},
			{"X_Forwarded_Uri: /public/x", "X_Original_URL: https://" + host + "/public/x"},
			{"Connection: close, X-Forwarded-Uri, X-Forwarded-Method, X-Forwarded-Host"},
			{"Connection: close, X-Original-URL, X-Original-Method"},
			{"Connection: close, Host, Cookie2"},
		}
		for _, headers := range forged {
			name := strings.Join(headers, " ")
			for _, tc := range []struct {
				method, target string
				more           []string
				want           int
			}{
				{"GET", "/users/admin/stats", []string{session}, 403},
				{"GET", "/users/me", nil, 401},
				{"GET", "/misnamed", []string{session}, 403},
				{"POST", "/p/reports", []string{session}, 403}, // a route for GET only
				{"POST", "/users/me", []string{session, "Origin: https://open.example.com"}, 403},
				{"GET", "/p/elsewhere", []string{session}, 403}, // a host's
			} {
				r := g.do(t, tc.method, tc.target, append(tc.more, headers...)...)
				require.Contains(t, []int{400, tc.want}, r.status, "%s %s with %s: %s", tc.method, tc.target, name, r.line())
				require.Nil(t, r.arrived)
			}
			r := g.get(t, "/users/me", append([]string{session}, headers...)...)
			if r.status == 400 {
				require.Contains(t, name, "_", "an honest request with a header of anybody's is refused: %s", name)
				continue
			}
			requireAllowed(t, r, bob)
			for _, header := range []string{"x-original-url", "x-original-uri", "x-original-method", "x-rewrite-url", "x-forwarded-uri", "x-forwarded-method", "x-http-method-override", "x-method-override"} {
				require.Empty(t, r.arrived.values(header), "%s with %s", header, name)
			}
			require.NotContains(t, strings.Join(r.arrived.values("x-forwarded-host"), " "), "open.example.com")
		}
	})
}

// Nobody outside asks the door itself, behind whatever gateway.
func TestCheckIsOutOfReach(t *testing.T) {
	everywhere(t, func(t *testing.T, g *gateway) {
		headers := []string{
			cookie(g.login(t, alice)), "X-Forwarded-Method: GET", "X-Forwarded-Uri: /users/me", "X-Forwarded-Host: " + host,
		}
		for _, target := range []string{
			"/check", "/check?policy=user", "/CHECK", "/%63heck", "//check", "/auth/../check", "/auth/%2e%2e/check", "/auth/..%2fcheck", `/auth/..\check`,
			"/auth/..;/check", "/auth/check", "/.well-known/../check", "/_gatehouse", "/_gatehouse/user", "/_gatehouse/public?policy=public", "/%5fgatehouse/user",
			"http://" + host + "/check", "/demo/../check", "/.well-known/jwks.json/../../check",
		} {
			for _, with := range [][]string{headers, headers[:1]} {
				r := g.get(t, target, with...)
				require.Contains(t, []int{400, 404}, r.status, "%s: %s", target, r.line())
				for name := range r.header {
					require.NotContains(t, strings.ToLower(name), "x-user", target)
					require.NotContains(t, strings.ToLower(name), "x-gatehouse", target)
				}
			}
		}
	})
}

// The host is that by which the proxy routes, whatever else a request names.
func TestHostsBehindProxies(t *testing.T) {
	behindProxies(t, func(t *testing.T, g *gateway) {
		session := cookie(g.login(t, bob))
		for _, tc := range []struct{ target, host string }{
			{"http://" + host + "/p/elsewhere", "a.tenants.example.com"},
			{"/p/elsewhere", "a.tenants.example.com?x="},
			{"/p/elsewhere", "a.tenants.example.com#"},
			{"/p/elsewhere", "a.tenants.example.com@" + host},
			{"/p/elsewhere", "gateway.example.com, a.tenants.example.com"},
			{"/p/elsewhere", "a.tenants.example.com\nHost: a.tenants.example.com"},
			{"/users/admin/stats", host + "/public/x?"},
			{"/users/admin/stats", host + "?/public/x"},
		} {
			r := g.get(t, tc.target, "Host: "+tc.host, session)
			require.Contains(t, []int{400, 403}, r.status, "%v: %s", tc, r.line())
			require.Nil(t, r.arrived)
		}
	})
}

// After an upgrade to HTTP/2 a client sends further requests to the service on
// the same connection, which nobody checks. So nothing is upgraded to but
// WebSockets, however a client names something else beside them.
func TestNothingButWebSocketsBehindProxies(t *testing.T) {
	behindProxies(t, func(t *testing.T, g *gateway) {
		session := cookie(g.login(t, bob))
		for _, asked := range [][]string{
			{"Upgrade: h2c"},
			{"Upgrade: h2c", "Upgrade: websocket"},
			{"Upgrade: websocket", "Upgrade: h2c"},
			{"Upgrade: websocket, h2c"},
			{"Upgrade: h2c, websocket"},
			{"Upgrade: WebSocket", "Upgrade: h2c"},
			{"Upgrade: TLS/1.0"},
			{"Upgrade: HTTP/2.0", "Upgrade: websocket"},
		} {
			t.Run(strings.Join(asked, " and "), func(t *testing.T) {
				r := g.get(t, "/users/me", append(asked, session, "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQAAP__")...)
				if r.arrived == nil {
					require.Contains(t, []int{400, 403}, r.status, r.line())
					return
				}
				for _, upgrade := range r.arrived.values("upgrade") {
					require.True(t, strings.EqualFold(upgrade, "websocket"), upgrade)
				}
				require.LessOrEqual(t, len(r.arrived.values("upgrade")), 1)
			})
		}
	})
}

// A page of another site must not open a WebSocket with the user's cookie,
// though proxies don't show the check that it is one.
func TestWebSocketsBehindProxies(t *testing.T) {
	everywhere(t, func(t *testing.T, g *gateway) {
		session := cookie(g.login(t, bob))
		handshake := []string{session, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="}
		r := g.get(t, "/users/me", append(handshake, "Origin: https://evil.example")...)
		require.Equal(t, 403, r.status, r.line())
		require.Nil(t, r.arrived)
		if g.Admin != "" {
			return // the shipped Envoy opens none
		}
		r = g.get(t, "/users/me", append(handshake, "Origin: https://"+host)...)
		requireAllowed(t, r, bob)
		opens := !strings.HasSuffix(t.Name(), nginx.program)
		require.Equal(t, opens, len(r.arrived.values("upgrade")) == 1)
	})
}

// What a request carries beside its headers arrives as it was sent, and is no
// business of the check.
func TestBodiesBehindProxies(t *testing.T) {
	behindProxies(t, func(t *testing.T, g *gateway) {
		session := cookie(g.login(t, bob))
		large := strings.Repeat("x", 1<<20)
		for name, tc := range map[string]struct{ head, body string }{
			"with a length":     {"Content-Length: 3\n\nabc", "abc"},
			"in chunks":         {"Transfer-Encoding: chunked\n\n3\r\nabc\r\n0\r\n\r\n", "abc"},
			"large":             {"Content-Length: " + strconv.Itoa(len(large)) + "\n\n" + large, large},
			"none":              {"x-other: 1", ""},
			"an identity after": {"Transfer-Encoding: chunked\nTrailer: x-user-id\n\n3\r\nabc\r\n0\r\nx-user-id: root\r\n\r\n", "abc"},
		} {
			t.Run(name, func(t *testing.T) {
				r := g.send(t, "POST /users/me HTTP/1.1\n"+session+"\n"+tc.head)
				requireAllowed(t, r, bob)
				require.Equal(t, tc.body, r.arrived.body)
				r = g.send(t, "POST /users/admin HTTP/1.1\n"+session+"\n"+tc.head)
				require.Equal(t, 403, r.status, r.line())
				require.Nil(t, r.arrived)
			})
		}
		r := g.do(t, "HEAD", "/users/admin", session)
		require.Equal(t, 403, r.status)
		require.Empty(t, r.body)
		requireAllowed(t, g.do(t, "DELETE", "/users/me", session), bob)
		requireAllowed(t, g.do(t, "PURGE", "/users/me", session), bob)
	})
}

// An identity and cookies as large as they may be.
func TestLargeHeadersBehindProxies(t *testing.T) {
	behindProxies(t, func(t *testing.T, g *gateway) {
		record := bob.record()
		var roles []string
		for i := range 240 {
			roles = append(roles, fmt.Sprintf("role-%020d", i))
		}
		record["roles"] = roles
		session := cookie(signed(g.session(t, record), secretCurrent))
		r := g.get(t, "/users/me", session+"; theme="+strings.Repeat("x", 8000))
		require.Equal(t, 200, r.status, r.line())
		require.Equal(t, []string{mustJSON(t, roles)}, r.arrived.values("x-user-roles"))
		require.Greater(t, len(r.arrived.values("cookie")[0]), 8000)

		record["roles"] = append(roles, strings.Repeat("r", 4000))
		requireDenied(t, g.get(t, "/users/me", cookie(signed(g.session(t, record), secretCurrent))), 403, forbidden)
		r = g.get(t, "/users/me", session+"; theme="+strings.Repeat("x", 100_000))
		require.Contains(t, []int{0, 400, 413, 431}, r.status, "more than anybody reads")
		require.Nil(t, r.arrived)
	})
}

// startProxies runs a stack of the test's own behind every proxy that is there.
func startProxies(t *testing.T, config string, edits map[string]map[string]string, test func(t *testing.T, s *stack, g *gateway)) {
	t.Helper()
	for _, p := range proxies {
		t.Run(p.program, func(t *testing.T) {
			p.need(t)
			proctest.Need(t, "redis-server")
			s, err := newStack(context.WithoutCancel(t.Context()), options{config: config})
			require.NoError(t, err)
			before := journal.len()
			t.Cleanup(func() {
				require.NoError(t, s.stop())
				logFailure(t, before)
			})
			g, err := s.newProxy(context.WithoutCancel(t.Context()), p, edits[p.program])
			require.NoError(t, err)
			test(t, s, g)
		})
	}
}

// Redis goes and comes back; then Gatehouse does. No proxy lets anybody in, tells
// anybody that a session is invalid, or has to be restarted.
func TestOutagesBehindProxies(t *testing.T) {
	startProxies(t, `redis: {timeout: 200ms}`, nil, func(t *testing.T, s *stack, g *gateway) {
		c := s.everyCredential(t)
		requireAllowed(t, g.get(t, "/users/me", c.session), bob)
		s.redis.Kill()
		eventually(t, 503, func() reply { return g.get(t, "/users/me", c.session) })
		g.requireUnavailable(t, c)
		s.startRedis(t)
		eventually(t, 401, func() reply { return g.get(t, "/users/me", c.session) })
		c = s.everyCredential(t)
		eventually(t, 200, func() reply { return g.get(t, "/users/me", c.session) })

		s.replicas[0].Kill()
		for _, path := range []string{"/users/me", "/public/hello", "/p/open", "/users/internal/x", "/misnamed"} {
			for _, headers := range [][]string{{c.session}, {c.key}, {"x-user-id: root"}} {
				r := g.get(t, path, headers...)
				require.Nil(t, r.arrived)
				if strings.HasSuffix(t.Name(), traefik.program) { // has no other word for it
					require.Equal(t, 500, r.status, r.line())
					continue
				}
				requireDenied(t, r, 503, unavailable)
			}
		}
		require.Equal(t, 200, g.get(t, "/").status, "a page that is not checked")
		require.NoError(t, s.replicas[0].restart(t, "/readyz"))
		eventually(t, 200, func() reply { return g.get(t, "/users/me", c.session) })

		// A service that is out is not Gatehouse's outage.
		require.NoError(t, s.recorder.stop())
		eventually(t, map[bool]int{false: 503, true: 502}[strings.HasSuffix(t.Name(), traefik.program)], func() reply { return g.get(t, "/users/me", c.session) })
		r := g.get(t, "/users/me", c.session)
		require.NotEqual(t, unavailable, r.body)
	})
}

func TestRateLimitsBehindProxies(t *testing.T) {
	startProxies(t, `
rate_limits:
  few: {by: user, limit: 3, per: 1h}
  address: {by: address, limit: 4, per: 1h}
policies:
  few: {credentials: [session], rate_limit: few}
  strangers: {anonymous: true, rate_limit: address}
routes:
- {path: /p/few/*, policy: few}
- {path: /p/strangers/*, policy: strangers}
`, nil, func(t *testing.T, _ *stack, g *gateway) {
		tooMany := func(r reply) {
			t.Helper()
			require.Equal(t, 429, r.status, r.line())
			require.Equal(t, `{"error":"Too many requests"}`, r.body)
			require.Equal(t, []string{"application/json"}, r.header.Values("content-type"))
			require.Len(t, r.header.Values("retry-after"), 1)
			seconds, err := strconv.Atoi(r.header.Get("retry-after"))
			require.NoError(t, err)
			require.Greater(t, seconds, 1)
			require.Nil(t, r.arrived)
		}
		session := cookie(g.login(t, bob))
		for range 3 {
			requireAllowed(t, g.get(t, "/p/few", session), bob)
		}
		tooMany(g.get(t, "/p/few", session))
		requireAllowed(t, g.get(t, "/p/few", cookie(g.login(t, alice))), alice)
		for range 4 {
			requireAllowed(t, g.get(t, "/p/strangers"), nobody)
		}
		for _, made := range []string{"x-none: 1", "X-Forwarded-For: 203.0.113.7", "X-Forwarded-For: 203.0.113.7, 203.0.113.8", "X-Real-IP: 203.0.113.7", "Forwarded: for=203.0.113.7"} {
			tooMany(g.get(t, "/p/strangers", made))
		}
	})
}

// With strip_credentials in both files, services see neither the session cookie
// nor a token.
func TestCredentialsAreStrippedBehindProxies(t *testing.T) {
	startProxies(t, `identity: {strip_credentials: true}`, map[string]map[string]string{
		"nginx":   {"#strip ": "", "proxy_buffer_size 16k": "proxy_buffer_size 64k", "proxy_buffers 4 16k": "proxy_buffers 4 64k", "proxy_busy_buffers_size 32k": "proxy_busy_buffers_size 128k"},
		"caddy":   {"copy_headers X-User-Id": "copy_headers Cookie Authorization X-User-Id"},
		"traefik": {"authResponseHeaders: [": "authResponseHeaders: [Cookie, Authorization, "},
	}, func(t *testing.T, _ *stack, g *gateway) {
		session, token := g.login(t, bob), bearer(g.pem.issue(claimsOf(pemIssuer, bob)))
		for _, tc := range []struct {
			path, authorization string
			headers             []string
			as                  identity
			cookies             []string
			credentials         []string
		}{
			{path: "/users/me", headers: []string{"Cookie: a=1; sessionId=" + session + "; b=2"}, as: bob, cookies: []string{"a=1; b=2"}},
			{path: "/users/me", headers: []string{cookie(session)}, as: bob},
			{path: "/users/me", headers: []string{token, "Cookie: a=1"}, as: bob, cookies: []string{"a=1"}},
			{path: "/users/me", headers: []string{token, cookie(session)}, as: bob},
			{path: "/banking/1", headers: []string{"Authorization: Basic YTpi", cookie(session)}, as: bob, credentials: []string{"Basic YTpi"}},
			{path: "/public/x", headers: []string{"Cookie: a=" + strings.Repeat("x", 7000)}, as: nobody, cookies: []string{"a=" + strings.Repeat("x", 7000)}},
		} {
			r := g.get(t, tc.path, tc.headers...)
			requireAllowed(t, r, tc.as)
			require.Equal(t, tc.cookies, r.arrived.values("cookie"))
			require.Equal(t, tc.credentials, r.arrived.values("authorization"))
		}
	})
}

// The auth API is there, with the key that its callers may show.
func TestAuthAPIBehindProxies(t *testing.T) {
	behindProxies(t, func(t *testing.T, g *gateway) {
		session := cookie(g.login(t, bob))
		r := g.get(t, "/auth/me", session, "x-user-id: root", "X-Original-URL: https://"+host+"/auth/users/x")
		require.Equal(t, 200, r.status, r.line())
		require.Contains(t, r.body, `"userId":"bob"`)
		require.Equal(t, 401, g.get(t, "/auth/me", "x-user-id: bob").status)
		introspect := "POST /auth/introspect HTTP/1.1\nContent-Type: application/x-www-form-urlencoded\nContent-Length: 7\n"
		r = g.send(t, introspect+apiKey(apiKeys.backend)+"\n\ntoken=x")
		require.Equal(t, 200, r.status, r.line())
		require.JSONEq(t, `{"active":false}`, r.body)
		require.Equal(t, 403, g.send(t, introspect+"x-user-id: root\n\ntoken=x").status)
		require.Equal(t, 200, g.get(t, "/.well-known/jwks.json").status)
	})
}

// Whoever refuses, one request is one check: a proxy that asked again to find
// out what to tell the client would count twice against a limit.
func TestOneCheckForEachRequestBehindProxies(t *testing.T) {
	behindProxies(t, func(t *testing.T, g *gateway) {
		session := cookie(g.login(t, bob))
		for target, headers := range map[string][]string{
			"/users/me": {session}, "/users/admin": {session}, "/orders": {"x-none: 1"}, "/banking": {cookie("s%3Ax.y")}, "/public/x": {"x-none: 1"},
			"/p/web/x": {"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}, "/misnamed": {session},
		} {
			before := g.decisions(t)
			r := g.get(t, target, headers...)
			require.Equal(t, before+1, g.decisions(t), "%s: %s", target, r.line())
		}
		before := g.decisions(t)
		for _, target := range []string{"/", "/demo", "/auth/me", "/nothing"} {
			g.get(t, target, session)
		}
		require.Equal(t, before, g.decisions(t))
	})
}

// decisions is how many there were.
func (g *gateway) decisions(t *testing.T) (n int) {
	t.Helper()
	text, err := g.replicas[0].metrics(t.Context())
	require.NoError(t, err)
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "gatehouse_decisions_total{") {
			count, err := strconv.Atoi(strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]))
			require.NoError(t, err)
			n += count
		}
	}
	return n
}

// The log of nginx says why, as Envoy's does.
func TestNginxLogsDecisions(t *testing.T) {
	g := sharedProxy(t, nginx, asShipped)
	session := cookie(g.login(t, bob))
	for _, tc := range []struct{ target, header, reason, policy, user string }{
		{"/users/me", session, "authenticated", "user", "bob"},
		{"/users/admin", session, "role", "admin", ""},
		{"/users/me", "x-none: 1", "no_credential", "user", ""},
		{"/p/web/x", "Sec-Fetch-Mode: navigate", "no_credential", "web", ""},
		{"/misnamed", session, "policy_unknown", "", ""},
		{"/demo", session, "", "", ""},
	} {
		r := g.get(t, tc.target+"?secret=in-the-query", tc.header)
		id := r.header.Get("x-request-id")
		require.NotEmpty(t, id)
		line := g.logLine(t, g.AwaitLine, id)
		require.Equal(t, tc.target, line["path"])
		told := line["authz"].(object)
		require.Equal(t, []any{tc.reason, tc.policy, tc.user}, []any{told["reason"], told["policy"], told["user"]}, tc.target)
		require.NotContains(t, mustJSON(t, line), "in-the-query")
		for name := range r.header {
			require.NotContains(t, strings.ToLower(name), "gatehouse", "the client learns the reason")
		}
	}
}

// With the lines of the README nginx opens WebSockets, and nothing else.
func TestNginxOpensWebSockets(t *testing.T) {
	nginx.need(t)
	s := start(t, options{})
	g, err := s.newProxy(context.WithoutCancel(t.Context()), nginx, map[string]string{
		"    # ---- The path: nginx": `    map $http_upgrade $websocket { default ""; "~*^websocket$" websocket; }
    map $websocket $hop { default ""; websocket upgrade; }
    # ---- The path: nginx`,
		"        proxy_set_header Connection \"\";\n        proxy_set_header Keep-Alive": "        proxy_set_header Upgrade $websocket;\n        proxy_set_header Connection $hop;\n        proxy_set_header Keep-Alive",
	})
	require.NoError(t, err)
	session := cookie(g.login(t, bob))
	handshake := []string{session, "Connection: Upgrade, x-user-id", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="}
	r := g.get(t, "/users/me", append(handshake, "Origin: https://"+host)...)
	requireAllowed(t, r, bob)
	require.Equal(t, []string{"websocket"}, r.arrived.values("upgrade"))
	require.Equal(t, []string{"upgrade"}, r.arrived.values("connection"))
	requireDenied(t, g.get(t, "/users/me", append(handshake, "Origin: https://evil.example")...), 403, forbidden)

	r = g.get(t, "/users/me", session, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
	requireAllowed(t, r, bob)
	require.Empty(t, append(r.arrived.values("upgrade"), r.arrived.values("connection")...))
}
