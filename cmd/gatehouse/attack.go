package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-auth/gatehouse/internal/attack"
)

// The environment's names for the credentials.
const (
	attackCookieVariable = "GATEHOUSE_ATTACK_COOKIE"
	attackTokenVariable  = "GATEHOUSE_ATTACK_TOKEN"
)

type attackFlags struct {
	target, host, protected, public   string
	headers, only, skip               []string
	cookieFile, cookieName, tokenFile string
	jwks, signingKeyFile, caFile      string
	insecure, strict, list            bool
	format                            string
	timeout, total, pause             time.Duration
}

func attackCommand(env environment) *cobra.Command {
	var flags attackFlags
	cmd := &cobra.Command{
		Use:   "attack",
		Short: "Attack a gateway, and see what reaches the service behind it",
		Long: `Sends the published list of attacks (docs/attacks.md) to a gateway that has an echo
service behind it, and reports of each what reached the service: spoofed identity
headers, paths that two servers read differently, cookies and tokens that are nobody's,
requests that hide another one. The gateway may be any: Envoy, nginx, Traefik, a mesh,
whatever checks for it.

Attack only what you are allowed to attack, and no gateway that others use: where a
request is taken for two, another client may get the answer. Requests go to the target
alone, one at a time, and change nothing.

The gateway needs an echo at two paths and what is below them, one that needs a login
and one that is open to all: Gatehouse's demo services have it, 'gatehouse attack echo'
is one to put behind yours, and the echoes of httpbin, traefik/whoami, ealen/echo-server
and mendhak/http-https-echo are understood.

Give the credentials of an ordinary user, by file or by $GATEHOUSE_ATTACK_COOKIE and
$GATEHOUSE_ATTACK_TOKEN; cases that need what isn't given are skipped, and say so. Many
refusals may count against that user or your address: use a user of its own.

Exits 0 when nothing is broken (with --strict: when all held), 1 when something is,
2 when it was called wrongly, or when the target can't be reached or is no echo.`,
		Example: `  gatehouse attack --target http://127.0.0.1:8080 --cookie-file cookie --token-file token
  gatehouse attack --target https://staging.example.com --ca-file ca.pem \
    --public /open --protected /api --header-names x-auth-request-user,x-auth-request-email
  gatehouse attack --target http://127.0.0.1:8080 --only path-confusion,spoof-underscores
  gatehouse attack --list
  gatehouse attack echo --listen 127.0.0.1:8101`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && strings.Contains(args[0], "://") {
				return usageError{errors.New("attack: name the gateway by --target, as in --target http://127.0.0.1:8080")}
			}
			return usageArgs(cobra.NoArgs)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if flags.format != "text" && flags.format != "json" {
				return usageError{fmt.Errorf("--format %s: it is text or json", flags.format)}
			}
			cases, err := attack.Choose(attack.List(), flags.only, flags.skip)
			if err != nil {
				return usageError{fmt.Errorf("%w; 'gatehouse attack --list' has them all", err)}
			}
			if flags.list {
				return printAttacks(env.stdout, cases, flags.format)
			}
			return runAttack(cmd.Context(), env, flags, cases)
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.target, "target", "", "the gateway: scheme, host and port")
	f.StringVar(&flags.host, "host", "", "the host to ask for, where it is not the target's")
	f.StringVar(&flags.protected, "protected", "/users/echo", "a path that needs a login, with an echo behind it")
	f.StringVar(&flags.public, "public", "/public/echo", "a path that is open to all, with an echo behind it")
	f.StringSliceVar(&flags.headers, "header-names", []string{"x-user-id", "x-user-email", "x-user-roles", "x-org-id", "x-identity-assertion"}, "headers that name the caller")
	f.Lookup("header-names").DefValue = "those of Gatehouse" // all of them don't fit into a line
	f.StringVar(&flags.cookieFile, "cookie-file", "", "file with the user's cookie, as name=value")
	f.StringVar(&flags.cookieName, "cookie-name", "", "which cookie is the session, where the file has several")
	f.StringVar(&flags.tokenFile, "token-file", "", "file with the user's bearer token")
	f.StringVar(&flags.jwks, "jwks", "", "URL or file of the token issuer's public keys")
	f.StringVar(&flags.signingKeyFile, "signing-key-file", "", "the token issuer's private key (PEM); of a test issuer only")
	f.StringSliceVar(&flags.only, "only", nil, "cases or categories; repeat it for more")
	f.StringSliceVar(&flags.skip, "skip", nil, "cases or categories to leave out")
	f.StringVar(&flags.caFile, "ca-file", "", "certificates (PEM) that the target's is signed by")
	f.BoolVar(&flags.insecure, "insecure", false, "take any certificate")
	f.DurationVar(&flags.timeout, "timeout", attack.DefaultTimeout, "how long to wait for an answer")
	f.DurationVar(&flags.total, "total", 10*time.Minute, "how long all of it may take")
	f.DurationVar(&flags.pause, "pause", 0, "pause before each case, where the gateway limits how often it is asked")
	f.StringVar(&flags.format, "format", "text", "text or json")
	f.BoolVar(&flags.strict, "strict", false, "exit 1 when a case is skipped or inconclusive, too")
	f.BoolVar(&flags.list, "list", false, "list the cases, and attack nothing")
	for _, file := range []string{"cookie-file", "token-file", "signing-key-file", "ca-file", "jwks"} {
		_ = cmd.MarkFlagFilename(file)
	}
	completeWords(cmd, "format", "text", "json")
	for _, flag := range []string{"only", "skip"} {
		completeWords(cmd, flag, attackNames()...)
	}
	for _, flag := range []string{"target", "host", "protected", "public", "header-names", "cookie-name", "timeout", "total", "pause"} {
		completeWords(cmd, flag)
	}
	cmd.AddCommand(attackEchoCommand(env))
	return cmd
}

// attackNames are all names that choose cases.
func attackNames() []string {
	names := attack.Categories()
	for _, c := range attack.List() {
		names = append(names, cobra.CompletionWithDesc(c.ID, c.Title))
	}
	return names
}

func printAttacks(w io.Writer, cases []attack.Case, format string) error {
	if format == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return encoder.Encode(cases)
	}
	for _, c := range cases {
		if _, err := fmt.Fprintf(w, "%-16s  %-34s  %-6s  %s\n", c.Category, c.ID, c.Severity, c.Title); err != nil {
			return fmt.Errorf("print the cases: %w", err)
		}
	}
	return nil
}

func runAttack(ctx context.Context, env environment, flags attackFlags, cases []attack.Case) error {
	ctx, cancel := context.WithTimeout(ctx, flags.total)
	defer cancel()
	o, err := attackOptions(ctx, env, flags)
	if err != nil {
		return exitError{exitUsage, fmt.Errorf("attack: %w", err)}
	}
	o.Cases = cases
	text := flags.format == "text"
	if text {
		category := ""
		o.Progress = func(r attack.Result) {
			if category == "" { // the target is what it has to be
				fmt.Fprintf(env.stdout, "Attacking %s: %s, one at a time. Attack only what you are allowed to attack.\n",
					printable(o.Target.Scheme+"://"+o.Target.Host), counted(len(cases), "case"))
			}
			if r.Case.Category != category {
				category = r.Case.Category
				fmt.Fprintf(env.stdout, "\n%s\n", category)
			}
			fmt.Fprintf(env.stdout, "  %s\n", printable(r.Line()))
		}
	}
	report, err := attack.Run(ctx, o)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("not done within --total %v: %w", flags.total, err)
		}
		next := ""
		if errors.Is(err, syscall.ECONNREFUSED) {
			next = "; start the gateway first, or 'gatehouse demo', which prints an attack on itself"
		}
		return exitError{exitUsage, fmt.Errorf("attack: %s%s", printable(err.Error()), next)}
	}
	if text {
		err = tellAttack(env.stdout, report)
	} else {
		var plain bytes.Buffer
		if err = report.JSON(&plain); err == nil {
			_, err = io.WriteString(env.stdout, escaped(plain.String()))
		}
	}
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if report.Count(attack.Broken) > 0 || flags.strict && report.Count(attack.Held) < len(report.Results) {
		return fmt.Errorf("attack: %s", report.Summary())
	}
	return nil
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// tellAttack writes what follows the list of results.
func tellAttack(w io.Writer, report *attack.Report) error {
	var b strings.Builder
	if report.Count(attack.Broken) > 0 {
		b.WriteString("\nBroken:\n\n")
	}
	for _, r := range report.Results {
		if r.Verdict == attack.Broken {
			for line := range strings.Lines(r.Explain()) {
				b.WriteString("  " + printable(strings.TrimSuffix(line, "\n")) + "\n")
			}
		}
	}
	for _, note := range report.Notes {
		b.WriteString("\nNote: " + printable(note) + ".\n")
	}
	_, err := fmt.Fprintf(w, "%s\n%s\n", b.String(), report.Summary())
	return err
}

// attackOptions reads what the flags name.
func attackOptions(ctx context.Context, env environment, flags attackFlags) (o attack.Options, err error) {
	if flags.target == "" {
		return o, errors.New("name the gateway by --target, as in --target http://127.0.0.1:8080")
	}
	if o.Target, err = url.Parse(flags.target); err != nil {
		return o, errors.New("--target is no URL: it is scheme, host and port, as in http://127.0.0.1:8080")
	}
	o.Host, o.Protected, o.Public, o.Headers = flags.host, flags.protected, flags.public, flags.headers
	o.CookieName, o.Timeout, o.Pause = flags.cookieName, flags.timeout, flags.pause
	if o.Cookie, err = attackCredential(env, flags.cookieFile, attackCookieVariable); err != nil {
		return o, err
	}
	if o.Token, err = attackCredential(env, flags.tokenFile, attackTokenVariable); err != nil {
		return o, err
	}
	if o.TLS, err = attackTLS(flags); err != nil {
		return o, err
	}
	if o.SigningKey, err = attackSigningKey(flags.signingKeyFile); err != nil {
		return o, err
	}
	o.JWKS, err = attackKeys(ctx, flags.jwks, o.TLS)
	return o, err
}

// attackCredential reads a file, or else the environment.
func attackCredential(env environment, file, variable string) (string, error) {
	if file == "" {
		value, _ := env.lookup(variable)
		return strings.TrimSpace(value), nil
	}
	text, err := os.ReadFile(file) //nolint:gosec // G304: the file that the user names
	if err != nil {
		return "", err
	}
	value := strings.TrimSpace(string(text))
	if value == "" {
		return "", fmt.Errorf("%q is empty", file)
	}
	return value, nil
}

func attackTLS(flags attackFlags) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: flags.insecure} //nolint:gosec // G402: by the user's wish
	if flags.host != "" {
		name, _, err := net.SplitHostPort(flags.host)
		if err != nil {
			name = flags.host
		}
		config.ServerName = name
	}
	if flags.caFile == "" {
		return config, nil
	}
	text, err := os.ReadFile(flags.caFile)
	if err != nil {
		return nil, err
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%q has no certificate in it", flags.caFile)
	}
	return config, nil
}

func attackSigningKey(file string) (crypto.Signer, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // none was given
	}
	text, err := os.ReadFile(file) //nolint:gosec // G304: the file that the user names
	if err != nil {
		return nil, err
	}
	bad := fmt.Errorf("%q has no private key in it, as PEM", file)
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, bad
	}
	var key any
	switch block.Type {
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok {
		return nil, bad
	}
	return signer, nil
}

const mostKeys = 1 << 20

// attackKeys reads a key set from a URL or a file.
func attackKeys(ctx context.Context, from string, config *tls.Config) ([]byte, error) {
	if from == "" {
		return nil, nil
	}
	if !strings.HasPrefix(from, "http://") && !strings.HasPrefix(from, "https://") {
		return os.ReadFile(from) //nolint:gosec // G304: the file that the user names
	}
	ctx, cancel := context.WithTimeout(ctx, attack.DefaultTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, from, http.NoBody)
	if err != nil {
		return nil, errors.New("--jwks is no URL")
	}
	transport := &http.Transport{TLSClientConfig: config.Clone()}
	transport.TLSClientConfig.ServerName = "" // the keys may be elsewhere
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return nil, fmt.Errorf("fetch the public keys: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch the public keys: %s answers %s", from, response.Status)
	}
	return io.ReadAll(io.LimitReader(response.Body, mostKeys))
}

func attackEchoCommand(env environment) *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use:   "echo",
		Short: "Run an echo service to put behind a gateway",
		Long: `Answers every request, on any path, with what arrived, as JSON. It reads HTTP/1.1 as
the most generous of servers do, so that it shows what the gateway let through. Of
credentials it shows only that they arrived. It is for tests: nothing but the gateway
should reach it. Ctrl-C stops it.`,
		Example: `  gatehouse attack echo --listen 127.0.0.1:8101`,
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, _, err := net.SplitHostPort(address); err != nil && !strings.HasPrefix(address, "unix://") {
				return usageError{fmt.Errorf("--listen %q: write HOST:PORT, as in 127.0.0.1:8101", address)}
			}
			listener, err := listen(cmd.Context(), "--listen", address)
			if err != nil {
				return err
			}
			fmt.Fprintf(env.stdout, "the echo listens on %s\n", listener.Addr())
			return attack.ServeEcho(cmd.Context(), listener)
		},
	}
	cmd.Flags().StringVar(&address, "listen", "127.0.0.1:8101", "address to listen on")
	completeWords(cmd, "listen")
	return cmd
}
