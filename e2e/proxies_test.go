package e2e

import (
	"context"
	"fmt"
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
			"middlewares: [refuse]": "middlewares: []", "sanitizePath: true": "sanitizePath: false",
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
