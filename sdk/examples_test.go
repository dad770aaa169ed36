package sdk_test

import (
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
	"github.com/gatehouse-auth/gatehouse/internal/sdktest"
)

// blocks are the fenced blocks of a language on a page.
func blocks(page, language string) []string {
	var all []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(page, -1) {
		all = append(all, m[1])
	}
	return all
}

// exchange is a request and what must come back.
type exchange struct {
	path    string
	headers map[string]string
	status  int
	body    string
}

var (
	asAlice = map[string]string{"x-user-id": "alice", "x-org-id": "org-1", "x-user-roles": `["admin"]`}
	asBob   = map[string]string{"x-user-id": "bob", "x-user-roles": `["member"]`}
	broken  = map[string]string{"x-user-id": "%"}

	orders = []exchange{
		{"/orders", asAlice, 200, `{"of":"org-1","for":"alice"}`},
		{"/orders", nil, 401, `{"error":"No token provided"}`},
		{"/orders", broken, 400, `{"error":"Bad request"}`},
	}
	reports = []exchange{
		{"/orders/report", asAlice, 200, `{"orders":"all of them"}`},
		{"/orders/report", asBob, 403, `{"error":"Forbidden"}`},
	}
	internal = []exchange{
		{"/internal/stock", map[string]string{"x-internal-api-key": "foo"}, 200, `{"stock":7}`},
		{"/internal/stock", asAlice, 403, `{"error":"Forbidden"}`},
	}
	anybody = []exchange{
		{"/", asAlice, 200, `{"for":"alice"}`},
		{"/", nil, 200, `{"for":null}`},
		{"/", broken, 400, `{"error":"Bad request"}`},
	}
	sockets = []exchange{
		{"/", upgrading(asAlice), 101, ""},
		{"/", upgrading(nil), 401, ""},
		{"/", upgrading(broken), 400, ""},
	}
)

// upgrading are headers with which a WebSocket begins.
func upgrading(headers map[string]string) map[string]string {
	all := map[string]string{"Connection": "Upgrade", "Upgrade": "websocket"}
	maps.Copy(all, headers)
	return all
}

// TestExamplesOfPages runs each program of the pages and asks it, as the gate would.
func TestExamplesOfPages(t *testing.T) {
	t.Parallel()
	var installed string
	js := func(t *testing.T, port, program string) *proc.Process {
		t.Helper()
		file := filepath.Join(installed, "app.mjs")
		require.NoError(t, os.WriteFile(file, []byte(program), 0o600))
		// printf foo | sha256sum
		keys := "INTERNAL_API_KEYS=2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
		return proctest.Start(t, proctest.Need(t, "node"), []string{file}, proc.Options{Env: []string{port, keys}})
	}
	asgi := func(t *testing.T, port, program string) *proc.Process {
		t.Helper()
		python, dir := sdktest.Python(t), pythonDir(t, program)
		return proctest.Start(t, python, []string{"-m", "uvicorn", "--lifespan", "off", "--port", strings.TrimPrefix(port, "PORT="), "app:app"},
			proc.Options{Dir: dir, Env: []string{"PYTHONPATH=" + source(t)}})
	}
	wsgi := func(t *testing.T, port, program string) *proc.Process {
		t.Helper()
		serve := `import os, app; from wsgiref.simple_server import make_server; make_server("127.0.0.1", int(os.environ["PORT"]), app.app).serve_forever()`
		return proctest.Start(t, sdktest.Python3(t), []string{"-c", serve},
			proc.Options{Dir: pythonDir(t, program), Env: []string{port, "PYTHONPATH=" + source(t)}})
	}
	golang := func(t *testing.T, port, program string) *proc.Process {
		t.Helper()
		dir := t.TempDir()
		file, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "example")
		require.NoError(t, os.WriteFile(file, []byte(program), 0o600))
		sdktest.Run(t, "..", nil, "go", "build", "-o", binary, file)
		return proctest.Start(t, binary, nil, proc.Options{Env: []string{port}})
	}
	type pageOf struct {
		file     string
		programs []example
	}
	for language, pages := range map[string][]pageOf{
		"go": {{"../docs/services.md", []example{{golang, [][]exchange{orders, reports}}}}},
		"js": {
			{"../docs/services.md", []example{{js, [][]exchange{orders, reports}}}},
			{"typescript/README.md", []example{{js, [][]exchange{orders, reports, internal}}, {js, [][]exchange{orders, reports}}, {js, [][]exchange{anybody, sockets}}}},
		},
		"python": {
			{"../docs/services.md", []example{{asgi, [][]exchange{orders, reports}}}},
			{"python/README.md", []example{{asgi, [][]exchange{orders}}, {wsgi, [][]exchange{orders}}}},
		},
	} {
		t.Run(language, func(t *testing.T) {
			if language == "js" {
				installed = sdktest.Installed(t)
			}
			for _, page := range pages {
				programs := blocks(read(t, page.file), language)
				require.Len(t, programs, len(page.programs), "%s: a block of %s that nobody runs", page.file, language)
				for i, program := range page.programs {
					t.Run(fmt.Sprintf("%s %d", filepath.Base(page.file), i+1), func(t *testing.T) {
						port := proctest.FreePort(t)
						p := program.start(t, fmt.Sprintf("PORT=%d", port), programs[i])
						require.NoError(t, p.Ready(t.Context(), proc.TCP(proc.Local(port))))
						for _, exchanges := range program.asks {
							for _, e := range exchanges {
								e.ask(t, proc.Local(port))
							}
						}
					})
				}
			}
		})
	}
}

// TestInstallation does what the pages say to somebody who has a clone and a service, and
// loads what is there then, also by require().
func TestInstallation(t *testing.T) {
	t.Parallel()
	clone, home := sdktest.Clone(t), t.TempDir()
	service, bin := filepath.Join(home, "service"), filepath.Join(home, "bin")
	require.NoError(t, os.Mkdir(service, 0o700))
	require.NoError(t, os.Mkdir(bin, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(service, "package.json"), []byte(`{"private":true}`), 0o600))
	node, npm, python := proctest.Need(t, "node"), proctest.Need(t, "npm"), sdktest.Python(t)
	// Everything but what registries are asked for.
	for name, does := range map[string]string{
		"npm": "test \"$1\" = ci || exec '" + npm + "' \"$@\"",
		"pip": "exec '" + python + "' -m pip \"$@\"",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+does+"\n"), 0o700))
	}
	packages := filepath.Join(home, "packages")
	env := []string{
		"HOME=" + home, "PATH=" + bin + string(filepath.ListSeparator) + os.Getenv("PATH"),
		"npm_config_cache=" + filepath.Join(home, "cache"), "npm_config_offline=true", "npm_config_update_notifier=false", "npm_config_audit=false",
		"PIP_NO_INDEX=1", "PIP_NO_BUILD_ISOLATION=0", "PIP_TARGET=" + packages, "PIP_DISABLE_PIP_VERSION_CHECK=1",
	}
	for _, page := range []string{"typescript/README.md", "python/README.md"} {
		commands := blocks(read(t, page), "sh")
		require.Len(t, commands, 1, page)
		sdktest.Run(t, clone, env, "sh", "-euc", commands[0])
	}
	for _, how := range []string{`import("@gatehouse-auth/usercontext/express").then`, `Promise.resolve(require("@gatehouse-auth/usercontext/express")).then`} {
		require.Equal(t, "function\n", sdktest.Run(t, service, []string{"NODE_NO_WARNINGS=1"}, node, "-e", how+`((m) => console.log(typeof m.requireUser))`))
	}
	out := sdktest.Run(t, service, []string{"PYTHONPATH=" + packages}, python, "-c", `from gatehouse_usercontext import wsgi; print(wsgi.RequireUser.__name__)`)
	require.Equal(t, "RequireUser\n", out)
}

// example is how a program is started, and what it is asked.
type example struct {
	start func(t *testing.T, port, program string) *proc.Process
	asks  [][]exchange
}

func (e exchange) ask(t *testing.T, address string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+e.path, http.NoBody)
	require.NoError(t, err)
	for name, value := range e.headers {
		request.Header.Set(name, value)
	}
	client := http.Client{Timeout: 30 * time.Second}
	response, err := client.Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, e.status, response.StatusCode, "%s: %s", e.path, body)
	if e.body == "" {
		require.Empty(t, string(body))
		return
	}
	require.JSONEq(t, e.body, string(body))
}

// source is where Python finds the package.
func source(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("python/src")
	require.NoError(t, err)
	return path
}

func pythonDir(t *testing.T, program string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "app.py"), []byte(program), 0o600))
	return dir
}

// TestAssertionPage runs what docs/assertion.md shows in TypeScript and in Python, and
// compiles what it shows in Go, with what a service has around it.
func TestAssertionPage(t *testing.T) {
	t.Parallel()
	page := read(t, "../docs/assertion.md")
	t.Run("go", func(t *testing.T) {
		t.Parallel()
		programs := blocks(page, "go")
		require.Len(t, programs, 1)
		file := filepath.Join(t.TempDir(), "main.go")
		require.NoError(t, os.WriteFile(file, []byte(`package main

import (
	"context"
	"log"
	"net/http"

	"github.com/gatehouse-auth/gatehouse/services/usercontext"
)

func main() {
	mux, orders, alarm := http.NewServeMux(), http.NotFoundHandler(), func(context.Context, error) {}
`+programs[0]+"}\n"), 0o600))
		sdktest.Run(t, "..", nil, "go", "vet", file)
	})
	t.Run("js", func(t *testing.T) {
		t.Parallel()
		programs := blocks(page, "js")
		require.Len(t, programs, 1)
		dir := sdktest.Installed(t)
		program := "const app = { use: (handler) => console.log(typeof handler, handler.length, currentUser({}), typeof currentSession({})) };\n" + programs[0]
		require.NoError(t, os.WriteFile(filepath.Join(dir, "app.mjs"), []byte(program), 0o600))
		require.Equal(t, "function 3 undefined string\n", sdktest.Run(t, dir, nil, proctest.Need(t, "node"), "app.mjs"))
	})
	t.Run("python", func(t *testing.T) {
		t.Parallel()
		programs := blocks(page, "python")
		require.Len(t, programs, 1)
		out := sdktest.Run(t, pythonDir(t, "environ = {}\n"+programs[0]+"print(verified)\n"), []string{"PYTHONPATH=" + source(t)}, cryptographic(t), "app.py")
		require.Equal(t, "None\n", out)
	})
}

// TestGoExamplesAreComplete: whoever looks a function of the Go packages up finds how it
// is called, in an example that is run and whose output is compared.
func TestGoExamplesAreComplete(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"../services/usercontext", "../services/usercontext/usergrpc"} {
		var files []*ast.File
		set := token.NewFileSet()
		sources, err := filepath.Glob(dir + "/*.go")
		require.NoError(t, err)
		for _, source := range sources {
			file, err := parser.ParseFile(set, source, nil, parser.ParseComments)
			require.NoError(t, err)
			files = append(files, file)
		}
		pkg, err := doc.NewFromFiles(set, files, dir)
		require.NoError(t, err)

		missing := func(name string, examples []*doc.Example) {
			require.NotEmpty(t, examples, "%s: %s has no example", dir, name)
			for _, e := range examples {
				require.True(t, e.Output != "" || e.EmptyOutput, "%s: the example %s of %s has no output, so it isn't run", dir, e.Name, name)
			}
		}
		functions := 0
		for _, f := range pkg.Funcs {
			functions++
			missing(f.Name, f.Examples)
		}
		for _, typ := range pkg.Types {
			for _, f := range typ.Funcs {
				functions++
				missing(f.Name, f.Examples)
			}
			// Those of a Reader and of Guards are the functions of the same names.
			for _, m := range typ.Methods {
				if len(m.Examples) > 0 || pkg.Name == "usercontext" && typ.Name == "User" {
					missing(typ.Name+"."+m.Name, m.Examples)
				} else {
					missing(typ.Name, typ.Examples)
				}
			}
		}
		require.Greater(t, functions, 8)
	}
}
