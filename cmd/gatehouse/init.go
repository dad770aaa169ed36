package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-auth/gatehouse/authz/config"
)

// initOptions are the answers to what init would ask.
type initOptions struct {
	dir       string
	kind      string // a name of starterCases
	store     string
	upstreams []string
	public    []string
	users     bool
	port      int
	force     bool

	expressSecretFile, expressCookie string

	issuer, audience, clientID, clientSecretFile string
}

const (
	defaultInitDir  = "gate"
	defaultStore    = "redis://127.0.0.1:6379/0"
	defaultUpstream = "app=127.0.0.1:3000/"
	expressCookie   = "connect.sid" // what express-session calls it
)

func initCommand(env environment) *cobra.Command {
	var o initOptions
	cmd := &cobra.Command{
		Use:   "init [DIR]",
		Short: "Write a configuration to begin with, its secrets and a gateway",
		Long: `Writes into DIR (gate, unless you name another) what a first gate needs:

  gatehouse.yaml   the configuration; each line says what it is for
  envoy.yaml       Envoy with every defence that Gatehouse ships, and your services
  secrets/, keys/  new ones, for your eyes only; none is printed
  users.yaml       with --users: somebody who can log in
  README.md        how to start it, and lines to try, with what comes out

At a terminal and without flags it asks. Otherwise --for says what a request comes
with:

  sessions   a session cookie                    examples/internal-services
  jwt        a token that Gatehouse gives out    examples/mobile-app
  both       either of the two                   examples/single-page-app
  api-keys   a key, of programs inside           examples/internal-services
  oidc       a session, after a login at an      examples/federated-sso
             OpenID provider

A service is NAME=HOST:PORT, which serves /NAME and what is below it, or
NAME=HOST:PORT/PATH for another path; / is all that is left. What has a part admin or
internal in its path, in whatever case, is for administrators, or for programs inside.
A password in the URL of --store goes into a file; embedded:// needs no Redis, for
first steps. The file of --express-secret-file has a secret in each line, the one that
signs first.

Nothing is ever overwritten: where one of the files is there, nothing is written. With
--force, those that are there are moved into DIR/replaced-TIME first. All is written,
checked and in place, or nothing is.`,
		Example: `  gatehouse init
  gatehouse init --for sessions --users --upstream shop=127.0.0.1:3000/ --upstream orders=127.0.0.1:4000
  gatehouse init --for sessions --express-secret-file session.secret
  gatehouse init --for both --issuer https://idp.example.com --audience https://api.example.com
  gatehouse init --for oidc --issuer https://idp.example.com --client-id gateway --client-secret-file secret`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.dir = defaultInitDir
			if len(args) == 1 {
				o.dir = args[0]
			}
			if o.dir == "" {
				return usageError{fmt.Errorf("the directory has no name: leave it out for %s, or name one", defaultInitDir)}
			}
			f, atTerminal := terminal(env)
			if atTerminal && cmd.Flags().NFlag() == 0 {
				if _, _, err := (placement{dir: o.dir}).room([]string{"gatehouse.yaml", "envoy.yaml", "README.md", ".gitignore", "secrets"}); err != nil {
					return err // before somebody answers in vain
				}
				if err := o.ask(cmd.Context(), env, f); err != nil {
					return fmt.Errorf("nothing was written: %w", err)
				}
			}
			return runInit(cmd.Context(), o, env)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.kind, "for", "", "sessions, jwt, both, api-keys or oidc")
	f.StringVar(&o.store, "store", defaultStore, "`URL` of Redis, or embedded://")
	f.StringArrayVar(&o.upstreams, "upstream", nil, "a `SERVICE`; several times for more (default "+defaultUpstream+")")
	f.StringArrayVar(&o.public, "public", nil, "a `PATH` of a service that is open to everybody; several times for more")
	f.BoolVar(&o.users, "users", false, "with a users file, so that people can log in here with a password")
	f.IntVar(&o.port, "port", gatewayPort, "port of the gateway")
	f.StringVar(&o.expressSecretFile, "express-secret-file", "", "a `FILE` with the secret of an express-session application")
	f.StringVar(&o.expressCookie, "express-cookie", expressCookie, "the name of its cookie")
	f.StringVar(&o.issuer, "issuer", "", "`URL` of the OpenID provider; for jwt and both: of whom tokens are accepted, too")
	f.StringVar(&o.audience, "audience", "", "for whom the tokens of --issuer are")
	f.StringVar(&o.clientID, "client-id", "", "the gate's `ID` at the provider")
	f.StringVar(&o.clientSecretFile, "client-secret-file", "", "a `FILE` with its secret there")
	f.BoolVar(&o.force, "force", false, "move files that are there aside, into DIR/replaced-TIME")
	completeWords(cmd, "for", starterNames()...)
	completeWords(cmd, "store", defaultStore, "embedded://")
	for _, flag := range []string{"upstream", "public", "port", "express-cookie", "issuer", "audience", "client-id"} {
		completeWords(cmd, flag)
	}
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
	return cmd
}

// question is what init asks. An empty answer is the one that is offered.
type question struct {
	text   string
	answer *string
	check  func(answer string) error
}

// ask fills in what can be asked at a terminal. An answer that won't do is asked for
// again.
func (o *initOptions) ask(ctx context.Context, env environment, f *os.File) error {
	fmt.Fprintf(env.stderr, "This writes a first gate into %s. Enter takes what stands in brackets; Ctrl-C writes nothing.\n\n", printable(o.dir))
	for _, c := range starterCases {
		fmt.Fprintf(env.stderr, "  %-9s %s\n", c.name, c.about)
	}
	o.kind = starterCases[0].name
	if err := put(ctx, env, f, question{"What do requests come with?", &o.kind, func(a string) error { _, err := starterNamed(a); return err }}); err != nil {
		return err
	}
	c, err := starterNamed(o.kind)
	if err != nil {
		return err
	}
	services := defaultUpstream
	questions := []question{
		{"Where is Redis? (embedded:// for none, for first steps)", &o.store, func(string) error { _, err := parseStore(o.store, env); return err }},
		{"Your services, as name=host:port/path, with blanks between?", &services, func(a string) error {
			o.upstreams = strings.Fields(a)
			return o.servicesFit(env)
		}},
	}
	yes := "yes"
	switch {
	case c.oidc:
		questions = append(questions,
			question{"URL of the OpenID provider?", &o.issuer, func(a string) error { return checkKey(env, "the provider", issuerSnippet(a)) }},
			question{"The gate's client id there?", &o.clientID, func(a string) error { return missing(a, "a client id") }},
			question{"A file with its client secret? (- for a public client)", &o.clientSecretFile, func(a string) error {
				if a == "-" {
					return nil
				}
				_, err := readSecret("the client secret", a)
				return err
			}})
	case c.sessions:
		o.expressSecretFile = "-"
		questions = append(questions, question{"Is there an express-session application? A file with its secret (- for none)", &o.expressSecretFile, func(a string) error {
			if a == "-" {
				return nil
			}
			_, err := expressSecrets(a)
			return err
		}})
	}
	for _, q := range questions {
		if err := put(ctx, env, f, q); err != nil {
			return err
		}
	}
	for _, none := range []*string{&o.expressSecretFile, &o.clientSecretFile} {
		if *none == "-" {
			*none = ""
		}
	}
	if o.expressSecretFile != "" {
		if err := put(ctx, env, f, question{"The name of its cookie?", &o.expressCookie, func(a string) error { return checkKey(env, "the cookie", cookieSnippet(a)) }}); err != nil {
			return err
		}
	}
	o.upstreams = strings.Fields(services)
	if (c.sessions || c.tokens) && !c.oidc && o.expressSecretFile == "" {
		if err := put(ctx, env, f, question{"Are people to log in here, with a password of a users file? (no: something of yours logs them in)", &yes, func(a string) error {
			if a != "yes" && a != "no" {
				return errors.New("answer yes or no")
			}
			return nil
		}}); err != nil {
			return err
		}
		o.users = yes == "yes"
	}
	fmt.Fprintln(env.stderr)
	_, err = o.starter(env, nil)
	return err
}

// servicesFit checks services as they will be checked with all else.
func (o *initOptions) servicesFit(env environment) error {
	upstreams, err := parseUpstreams(o.upstreams)
	if err != nil {
		return err
	}
	at, err := parseStore(o.store, env)
	if err != nil {
		return err
	}
	return checkPorts(o.port, at, upstreams)
}

// put asks one question until there is an answer that will do.
func put(ctx context.Context, env environment, f *os.File, q question) error {
	offered := *q.answer
	for {
		fmt.Fprint(env.stderr, q.text)
		if offered != "" {
			fmt.Fprintf(env.stderr, " [%s]", printable(offered))
		}
		fmt.Fprint(env.stderr, " ")
		line, err := readLine(ctx, f)
		if err != nil {
			fmt.Fprintln(env.stderr)
			return err
		}
		if *q.answer = strings.TrimSpace(line); *q.answer == "" {
			*q.answer = offered
		}
		if err = q.check(*q.answer); err == nil {
			return nil
		}
		fmt.Fprintf(env.stderr, "  %v\n", err)
	}
}

func missing(value, what string) error {
	if value == "" {
		return fmt.Errorf("%s is needed", what)
	}
	return nil
}

// checkKey has the configuration's own rules judge a value, in a piece of YAML that
// has nothing else.
func checkKey(env environment, what, snippet string) error {
	_, _, err := config.Parse(what, []byte(snippet), env.lookup)
	if problems, ok := errors.AsType[config.Problems](err); ok {
		// init has no key for the other way that it speaks of.
		return fmt.Errorf("%s: %s", what, strings.TrimSuffix(problems[0].Message, "; give jwks_url instead"))
	}
	return err
}

func runInit(ctx context.Context, o initOptions, env environment) error {
	if o.kind == "" {
		return usageError{fmt.Errorf("--for is missing: what do requests come with? %s; see 'gatehouse init --help'", alternatives(starterNames()))}
	}
	plan, err := o.starter(env, nil)
	if err != nil {
		return usageError{err}
	}
	secrets, err := newStarterSecrets(o, plan)
	if err != nil {
		return err
	}
	s, err := o.starter(env, secrets)
	if err != nil {
		return err
	}
	files, err := s.files()
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return errors.New("nothing was written: interrupted")
	}
	p := placement{dir: o.dir, force: o.force, now: time.Now}
	aside, err := p.write(ctx, files, env)
	if err != nil {
		return err
	}
	s.tell(env, o.dir, aside)
	return nil
}

// placement puts files into a directory: all of them, or none.
type placement struct {
	dir   string
	force bool
	now   func() time.Time
}

// write returns where files that were in the way are now, "" where there were none.
func (p placement) write(ctx context.Context, files []starterFile, env environment) (aside string, err error) {
	isNew, inTheWay, err := p.room(topLevel(files))
	if err != nil {
		return "", err
	}
	parent := p.dir
	if isNew {
		parent = filepath.Dir(filepath.Clean(p.dir))
		if _, err := os.Stat(parent); err != nil {
			return "", fmt.Errorf("%w: make that directory first", err)
		}
	}
	temporary, err := os.MkdirTemp(parent, ".gatehouse-init-")
	if err != nil {
		return "", err
	}
	defer func() {
		if e := os.RemoveAll(temporary); e != nil {
			err = errors.Join(err, e)
		}
	}()
	for _, f := range files {
		if err := f.write(temporary); err != nil {
			return "", err
		}
	}
	if err := checkStarter(ctx, temporary, env); err != nil {
		return "", fmt.Errorf("nothing was written: what init would write is not right, which is a mistake of gatehouse: %s", strings.ReplaceAll(err.Error(), temporary, p.dir))
	}
	if isNew {
		if err := os.Chmod(temporary, 0o755); err != nil { //nolint:gosec // G302: what is secret in it is not readable by others
			return "", err
		}
		if _, err := os.Lstat(p.dir); err == nil { // a rename would replace an empty one
			return "", fmt.Errorf("%s has been made by somebody else just now: try again", printable(p.dir))
		}
		return "", os.Rename(temporary, p.dir)
	}
	return p.into(temporary, topLevel(files), inTheWay)
}

// topLevel are the entries of the directory that files make.
func topLevel(files []starterFile) []string {
	var names []string
	seen := map[string]bool{}
	for _, f := range files {
		name, _, _ := strings.Cut(f.name, "/")
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names
}

// room looks at the directory: whether it is to be made, and which of the names are
// there. Without force, one that is there is an error.
func (p placement) room(names []string) (isNew bool, inTheWay []string, err error) {
	info, err := os.Stat(p.dir)
	switch {
	case err == nil && !info.IsDir():
		return false, nil, fmt.Errorf("%s is there and is no directory: name another one, as in 'gatehouse init my-gate'", printable(p.dir))
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Lstat(p.dir); err == nil {
			return false, nil, fmt.Errorf("%s is a link to what is not there: make that directory first, or name another one, as in 'gatehouse init my-gate'", printable(p.dir))
		}
		return true, nil, nil
	case err != nil:
		return false, nil, err
	}
	for _, name := range names {
		switch _, err := os.Lstat(filepath.Join(p.dir, name)); {
		case err == nil:
			inTheWay = append(inTheWay, name)
		case !errors.Is(err, fs.ErrNotExist):
			return false, nil, err
		}
	}
	if len(inTheWay) > 0 && !p.force {
		return false, nil, fmt.Errorf("nothing was written: in %s there are %s already; name another directory, as in 'gatehouse init my-gate', or add --force, which moves them aside",
			printable(p.dir), strings.Join(inTheWay, ", "))
	}
	return false, inTheWay, nil
}

// into moves what was made into a directory that is there, and takes all of it back
// where that fails.
func (p placement) into(temporary string, names, inTheWay []string) (aside string, err error) {
	var undo []func() error
	defer func() {
		if err == nil {
			return
		}
		for _, back := range slices.Backward(undo) {
			err = errors.Join(err, back())
		}
	}()
	move := func(from, to string) error {
		if _, err := os.Lstat(to); err == nil {
			return fmt.Errorf("%s has been made by somebody else just now: try again", to)
		}
		if err := os.Rename(from, to); err != nil {
			return err
		}
		undo = append(undo, func() error { return os.Rename(to, from) })
		return nil
	}
	if len(inTheWay) > 0 {
		name := filepath.Join(p.dir, "replaced-"+p.now().UTC().Format("20060102T150405Z"))
		there := name
		for n := 2; ; n++ { // of the same second
			if err := os.Mkdir(there, 0o700); err == nil {
				break
			} else if !errors.Is(err, fs.ErrExist) {
				return "", err
			}
			there = fmt.Sprintf("%s-%d", name, n)
		}
		aside = there
		undo = append(undo, func() error { return os.Remove(there) })
		for _, name := range inTheWay {
			if err := move(filepath.Join(p.dir, name), filepath.Join(aside, name)); err != nil {
				return "", err
			}
		}
	}
	for _, name := range names {
		if err := move(filepath.Join(temporary, name), filepath.Join(p.dir, name)); err != nil {
			return "", err
		}
	}
	return aside, nil
}

// write writes a file below a directory. Directories with secrets are for their owner.
func (f starterFile) write(dir string) error {
	path := filepath.Join(dir, filepath.FromSlash(f.name))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if f.secret {
		mode = 0o600
	}
	return os.WriteFile(path, f.text, mode)
}

// checkStarter reads what was written as the programs will that it is for.
func checkStarter(ctx context.Context, dir string, env environment) error {
	quiet := environment{lookup: env.lookup, stdin: strings.NewReader("")}
	var said strings.Builder
	quiet.stdout, quiet.stderr = &said, &said
	file := filepath.Join(dir, "gatehouse.yaml")
	for _, args := range [][]string{
		{"config", "check", file},
		{"envoy", "lint", "--strict", "--config", file, filepath.Join(dir, "envoy.yaml")},
	} {
		said.Reset()
		root := rootCommand(quiet) //nolint:contextcheck // cobra hands the context to the command that runs
		root.SetArgs(args)
		root.SetOut(&said)
		root.SetErr(&said)
		if err := root.ExecuteContext(ctx); err != nil {
			return fmt.Errorf("%w\n%s", err, said.String())
		}
	}
	return nil
}

// tell says what was written, and what to do with it.
func (s *starter) tell(env environment, dir, aside string) {
	out := env.stdout
	if strings.HasPrefix(dir, "-") {
		dir = "." + string(filepath.Separator) + dir // cd takes it for an option
	}
	fmt.Fprintf(out, "%s is a gate for %s.\n\n", printable(dir), s.About)
	for _, f := range s.Listed {
		fmt.Fprintf(out, "  %-16s %s\n", f.Name, f.About)
	}
	redis := "; Redis has to run"
	if s.Embedded {
		redis = ""
	}
	if aside != "" {
		fmt.Fprintf(out, "\nWhat was there is in %s now.\n", printable(aside))
	}
	fmt.Fprintf(out, "\nNext, each in a terminal of its own%s:\n\n", redis)
	for _, line := range []string{
		"gatehouse serve gatehouse.yaml",
		"envoy -c envoy.yaml",
	} {
		fmt.Fprintf(out, "  cd %s && %s\n", shellWord(dir), line)
	}
	for _, u := range s.Upstreams {
		fmt.Fprintf(out, "  gatehouse attack echo --listen %s    # until your %s runs there\n", u.Address, u.Name)
	}
	fmt.Fprintf(out, "  curl -i %s%s\n\n%s has more lines to try.\n", s.Base, s.Path, filepath.Join(printable(dir), "README.md"))
}

// shellWord quotes a path where a shell would take it apart.
func shellWord(s string) string {
	if plainWord(s) || runtime.GOOS == "windows" {
		return s
	}
	return "'" + strings.ReplaceAll(printable(s), "'", `'\''`) + "'"
}

// alternatives writes words for a message: a, b or c.
func alternatives(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
