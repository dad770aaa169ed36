package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/config"
	"github.com/gatehouse-auth/gatehouse/authz/extauthz"
	"github.com/gatehouse-auth/gatehouse/internal/explain"
)

// explainer is what decides and tells why: the door of the configuration in force.
type explainer interface {
	Explain(ctx context.Context, parts authz.RequestParts) *extauthz.Explanation
}

func explainCommand(env environment) *cobra.Command {
	var (
		file            configFlag
		server          string
		policy, address string
		audience        string
		asJSON          bool
		timeout         time.Duration
	)
	cmd := &cobra.Command{
		Use:   "explain [flags] {URL [curl options] | curl … | -}",
		Short: "Say why a request may pass, or not",
		Long: `Decides one request as serve would, by the same code, and tells every step: which
policy and why, which credential, what could have revoked it, each condition, and the
headers that the service would get. Nothing changes by it: no session is renewed, no
request is counted.

The request is a URL with curl's options, or a whole curl command, pasted as it is;
with - it is read from standard input, which keeps a credential out of the shell's
history. Gatehouse's own flags come first.

The configuration's file decides, with its Redis, unless --server names a running
server's ops listener on this host. A route of Envoy that names a policy
(context_extensions) is not known here: say --policy NAME; and --audience NAME for
the service that it names for the signed identity.

Exit status: 0 allowed, 1 denied, 2 not explained.`,
		Example: `  gatehouse explain --policy admin https://gateway.example.com/users/admin -H 'cookie: sessionId=…'
  gatehouse explain --server 127.0.0.1:9090 curl -X DELETE https://gateway.example.com/orders/7 -b 'sessionId=…'
  gatehouse explain --json - < request.txt`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("no request: give a URL with curl's options, a curl command, or - to read one; see 'gatehouse explain --help'")}
			}
			if timeout <= 0 {
				return usageError{errors.New("--timeout must be more than zero")}
			}
			request, err := requestToExplain(args, env.stdin)
			if err != nil {
				return usageError{err}
			}
			if cmd.Flags().Changed("policy") {
				request.Policy = &policy
			}
			if cmd.Flags().Changed("audience") {
				request.Audience = &audience
			}
			request.Address = address
			if _, err := request.Parts(); err != nil {
				return usageError{fmt.Errorf("--address: %w", err)}
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			var report *explain.Report
			if server != "" {
				if cmd.Flags().Changed("config") {
					return usageError{errors.New("--server asks a server that has its own configuration: leave --config out")}
				}
				report, err = askToExplain(ctx, server, request)
			} else {
				report, err = explainByFile(ctx, &file, request, env)
			}
			if err != nil {
				return exitError{exitUsage, err}
			}
			if asJSON {
				encoder := json.NewEncoder(env.stdout)
				encoder.SetIndent("", "  ")
				err = encoder.Encode(report)
			} else {
				err = report.Print(env.stdout)
			}
			if err != nil {
				return exitError{exitUsage, err}
			}
			if report.Decision != "allow" {
				return errSaid
			}
			return nil
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows is curl's
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		if text := err.Error(); strings.HasPrefix(text, "unknown ") || strings.HasPrefix(text, "bad flag") { // one of curl's, which is repeated with the credential in it
			err = errors.New("that is no flag of explain: options of curl stand behind the URL, or behind the word curl")
		}
		return usageError{fmt.Errorf("%w; see 'gatehouse explain --help'", err)}
	})
	file.register(cmd)
	cmd.Flags().StringVar(&server, "server", "", "ask a running server, by its ops listener: host:port, or unix:///path")
	cmd.Flags().StringVar(&policy, "policy", "", "the policy that the gateway's route names")
	cmd.Flags().StringVar(&audience, "audience", "", "the service that the gateway's route names (assertion_audience)")
	cmd.Flags().StringVar(&address, "address", "", "the client's address, as the gateway reports it")
	cmd.Flags().BoolVar(&asJSON, "json", false, "for scripts")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Second, "how long it may take")
	completeFlag(cmd, "policy", completePolicy(env))
	completeWords(cmd, "server")
	completeWords(cmd, "audience")
	completeWords(cmd, "address")
	return cmd
}

// mostCommand bounds a curl command from standard input.
const mostCommand = 1 << 20

func requestToExplain(args []string, stdin io.Reader) (*explain.Request, error) {
	if len(args) != 1 || args[0] != "-" {
		return explain.ParseWords(args)
	}
	text, err := io.ReadAll(io.LimitReader(stdin, mostCommand))
	if err != nil {
		return nil, fmt.Errorf("read the request: %w", err)
	}
	return explain.ParseCommand(string(text))
}

// explainByFile decides by a configuration's file, and its Redis.
func explainByFile(ctx context.Context, file *configFlag, request *explain.Request, env environment) (*explain.Report, error) {
	path, err := file.resolve(nil, env)
	if err != nil {
		return nil, err
	}
	cfg, _, err := config.Load(path, env.lookup)
	if err != nil {
		return nil, err
	}
	if embedded(cfg) {
		fmt.Fprintf(env.stderr, "warning: an embedded store lives within the process of its server, and is empty here: ask that server for sessions and revocations, by --server %s\n", cfg.Server.Ops.Listen)
		cfg.Redis.URL = config.NewSecretURL("embedded://") // where the server listens, it would be in the way
	}
	g, err := newGeneration(loadedConfig{cfg: cfg}, nil, instruments{log: slog.New(slog.DiscardHandler)}) //nolint:contextcheck // its parts end by close, not with a caller
	if err != nil {
		return nil, err
	}
	report, err := explainRequest(ctx, g.check, g.cfg, request)
	return report, errors.Join(err, g.close())
}

func explainRequest(ctx context.Context, door explainer, cfg *config.Config, request *explain.Request) (*explain.Report, error) {
	parts, err := request.Parts()
	if err != nil {
		return nil, err
	}
	report := explain.NewReport(door.Explain(ctx, parts))
	if report.Route != nil {
		report.RouteAt = cfg.Place(fmt.Sprintf("routes[%d]", *report.Route))
	}
	return report, nil
}

// explainPath is where the ops listener explains.
const explainPath = "/explain"

// askToExplain has a running server explain a request.
func askToExplain(ctx context.Context, address string, request *explain.Request) (*explain.Report, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	response, err := askOps(ctx, address, http.MethodPost, explainPath, body)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		var refusal struct{ Error string }
		text, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
		if json.Unmarshal(text, &refusal) == nil && refusal.Error != "" {
			return nil, fmt.Errorf("%s answers %s: %s", address, response.Status, refusal.Error)
		}
		return nil, fmt.Errorf("%s answers %s; is that a Gatehouse that can explain?", address, response.Status)
	}
	report := &explain.Report{}
	if err := json.NewDecoder(response.Body).Decode(report); err != nil {
		return nil, fmt.Errorf("the answer of %s: %w", address, err)
	}
	return report, nil
}

// explainHandler explains requests to who is on this host: whoever holds a
// credential could learn about it what a client never does. A page in a browser on
// this host can't ask either: it can't send this content type to another origin,
// and one whose own name leads here has that name in the Host header. Neither can
// who comes through a proxy on this host.
func explainHandler(current *live) http.Handler {
	refuse := func(w http.ResponseWriter, status int, why string) {
		writeJSON(w, status, map[string]string{"error": why})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !fromThisHost(r.RemoteAddr) || forwarded(r):
			refuse(w, http.StatusForbidden, "requests are explained to callers on this host only, and through no proxy")
			return
		case !namesThisHost(r.Host):
			refuse(w, http.StatusMisdirectedRequest, "ask by localhost or by an IP address")
			return
		case r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Origin") != "":
			refuse(w, http.StatusUnsupportedMediaType, "send the request as application/json, and from no web page")
			return
		}
		decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, mostCommand))
		decoder.DisallowUnknownFields()
		request := &explain.Request{}
		if err := decoder.Decode(request); err != nil {
			refuse(w, http.StatusBadRequest, "the request to explain: "+err.Error())
			return
		}
		g, held := current.acquire()
		defer held.Release()
		report, err := explainRequest(r.Context(), g.check, g.cfg, request)
		if err != nil {
			refuse(w, http.StatusBadRequest, err.Error())
			return
		}
		writeJSON(w, http.StatusOK, report)
	})
}

// fromThisHost reports whether a connection is from this host: over loopback, or
// over a Unix socket, whose clients have no address. Of loopback's addresses only
// the usual two: Istio's sidecar hands on what comes from elsewhere as 127.0.0.6.
func fromThisHost(remote string) bool {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return remote == "" || remote == "@" || strings.HasPrefix(remote, "/")
	}
	return host == "127.0.0.1" || host == "::1"
}

// forwarded reports whether a request has what proxies add to those that they pass on:
// an Envoy without use_remote_address says nothing of the address, for instance. One that
// adds nothing, as nginx unless it is told to, can't be told from a client.
func forwarded(r *http.Request) bool {
	for name := range r.Header {
		switch {
		case name == "Forwarded", name == "Via", name == "X-Real-Ip", name == "X-Request-Id", name == "Traceparent":
			return true
		case strings.HasPrefix(name, "X-Forwarded-"), strings.HasPrefix(name, "X-Envoy-"), strings.HasPrefix(name, "X-B3-"):
			return true
		}
	}
	return false
}

// opsHost is the host by which askOps asks.
const opsHost = "gatehouse"

// namesThisHost reports whether a Host header is one that no name server of
// somebody else can make lead here.
func namesThisHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	return host == opsHost || strings.EqualFold(host, "localhost") || net.ParseIP(host) != nil
}

// askOps calls a server's ops listener, by no proxy.
func askOps(ctx context.Context, address, method, path string, body []byte) (*http.Response, error) {
	network, target := "tcp", address
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		network, target = "unix", path
	}
	client := &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { // whatever the URL says
				var dialer net.Dialer
				return dialer.DialContext(ctx, network, target)
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+opsHost+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if len(body) > 0 {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := client.Do(request)
	if err != nil {
		if cause := errors.Unwrap(err); cause != nil { // without the made-up URL
			err = cause
		}
		return nil, fmt.Errorf("no answer from %s: %w; is the server running ('gatehouse serve'), and is that its server.ops.listen?", address, err)
	}
	return response, nil
}
