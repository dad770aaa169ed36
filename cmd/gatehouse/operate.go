package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authapi"
	"github.com/gatehouse-auth/gatehouse/authz/config"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/authz/token"
	"github.com/gatehouse-auth/gatehouse/authz/users"
)

// errSaid ends a command with exit code 1 whose output says why.
var errSaid = exitError{code: exitFailed}

// operator is what commands have that work on the store of a configuration,
// whether or not a server runs. It does what the auth API does, with the same
// code.
type operator struct {
	clerk
	cfg *config.Config

	client redis.UniversalClient // nil until open
	store  *session.Store
	close  func() error
}

// newOperator reads the configuration. It asks nobody.
func newOperator(cmd *cobra.Command, file configFlag, env environment) (*operator, error) {
	path, err := file.resolve(nil, env)
	if err != nil {
		return nil, err
	}
	cfg, _, err := config.Load(path, env.lookup) // its warnings are for config check and serve
	if err != nil {
		return nil, err
	}
	_, command, _ := strings.Cut(cmd.CommandPath(), " ")
	return &operator{cfg: cfg, clerk: clerk{env: env, command: command, log: cfg.Log, audit: cfg.Audit}}, nil
}

// withStore runs a command on the store.
func withStore(cmd *cobra.Command, file configFlag, env environment, run func(context.Context, *operator) error) error {
	o, err := newOperator(cmd, file, env)
	if err != nil {
		return err
	}
	if err := o.open(); err != nil {
		return err
	}
	ctx := cmd.Context()
	if quiet, err := cmd.Flags().GetBool("quiet"); err != nil || !quiet {
		p := newProgress(env, "Looked at %s records of sessions, %s a second")
		defer p.clear()
		o.env.stdout, o.env.stderr = p.before(env.stdout), p.before(env.stderr)
		ctx = session.WithProgress(ctx, p.add)
	}
	return errors.Join(o.explained(ctx, run(ctx, o)), o.close())
}

// operatorPatience is the least time that a call of the store has: whoever waits
// at a terminal would rather have the answer than the deadline of a request.
const operatorPatience = 2 * time.Second

// open opens the store. Nothing is dialled.
func (o *operator) open() error {
	if o.embedded() {
		return problem(o.cfg, "redis.url", errors.New("an embedded store lives within the process of its server, where no other one can see it; use the auth API of that server, or a Redis"))
	}
	cfg := *o.cfg
	cfg.Redis.Timeout = max(cfg.Redis.Timeout, operatorPatience)
	cfg.Redis.Cache.Enabled = false // what is asked once needs no cache
	log := slog.New(slog.DiscardHandler)
	g := &gate{}
	if err := g.takeStore(&cfg, nil, warm{}, log); err != nil {
		return errors.Join(err, g.close())
	}
	o.client, o.store, o.close = g.client, g.store, g.close
	return nil
}

func (o *operator) embedded() bool {
	return strings.HasPrefix(strings.ToLower(o.cfg.Redis.URL.Reveal()), "embedded:")
}

// explained says what to do about an error of the store.
func (o *operator) explained(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	switch authz.ReasonOf(err) { //nolint:exhaustive // the others say by themselves what to do
	case authz.ReasonNotConfirmed:
		return fmt.Errorf("done, but not by as many replicas as redis.confirm_replicas asks for (%d): should the master fail now, it may be undone; run the same command again until it succeeds, which does no harm", o.cfg.Redis.ConfirmReplicas)
	case authz.ReasonStoreUnavailable, authz.ReasonOverloaded:
		if ctx.Err() != nil {
			return errors.New("interrupted: what was not reported as done may be done or not; run the same command again, which does no harm")
		}
		return fmt.Errorf("the store at %v: %w; start it, or correct redis.url; of a server that runs, 'gatehouse ready' says whether it has reached it", o.cfg.Redis.URL, err)
	case authz.ReasonProfileMalformed:
		return fmt.Errorf("%w; the gate refuses the user for it: correct or delete the key user:ID in Redis", err)
	}
	return err
}

// recordSome does the same for a change of several sessions, which may have come
// to a part of them before an error.
func (o *operator) recordSome(ctx context.Context, action string, err error, sessions int, attrs ...slog.Attr) {
	attrs = append(attrs, slog.Int("sessions", sessions))
	if authapi.Partly(err, sessions) {
		err, attrs = nil, append(attrs, slog.Bool("complete", false))
	}
	o.record(ctx, action, err, attrs...)
}

func (o *operator) warn(format string, args ...any) {
	fmt.Fprintf(o.env.stderr, "warning: %s\n", printable(fmt.Sprintf(format, args...)))
}

// issuers returns the issuer of our own tokens, nil for none, and the verifier of
// all. Keys that have to be fetched are, when they are needed.
func (o *operator) issuers() (*token.Issuer, *token.Verifier, error) {
	var g gate
	if err := g.takeTokens(o.cfg, nil, warm{}); err != nil {
		return nil, nil, err
	}
	return g.own, g.verifier, nil
}

// listed returns the user of this id, or of this email address, in the users file;
// nil where there is none, or no such file.
func (o *operator) listed(ctx context.Context, idOrEmail string) *authz.User {
	file := o.cfg.Users.File
	if file == "" {
		return nil
	}
	store, err := users.Load(string(file))
	if err != nil {
		o.warn("%v", err)
		return nil
	}
	all, _ := store.FindUsers(ctx, idOrEmail, store.Len())
	i := slices.IndexFunc(all, func(u authz.User) bool { return u.ID == idOrEmail || strings.EqualFold(u.Email, idOrEmail) })
	if i < 0 {
		return nil
	}
	return &all[i]
}

// known reports whether there is a profile of a user, or a login for tokens. For
// sessions it doesn't look.
func (o *operator) known(ctx context.Context, userID string) (bool, error) {
	standing, err := o.store.UserStanding(ctx, userID)
	switch {
	case err != nil && authz.ReasonOf(err) == authz.ReasonProfileMalformed:
		return true, nil // a profile that can't be read is one
	case err != nil:
		return false, err
	case standing.Profile != nil:
		return true, nil
	}
	families, err := o.store.UserFamilies(ctx, userID)
	return len(families) > 0, err
}

// unknown says why nobody may be known by an id; "" where the users file has it.
func (o *operator) unknown(ctx context.Context, userID string) string {
	listed := o.listed(ctx, userID)
	switch {
	case listed == nil:
		return fmt.Sprintf("nobody is known by the id %q: no profile, no session, no token login", userID)
	case listed.ID != userID:
		return fmt.Sprintf("%q is an email address; the id of that user is %q", userID, listed.ID)
	}
	return ""
}

// checkUser is for an id that somebody typed.
func checkUser(id string) error {
	if !authapi.ValidUserID(id) {
		return usageError{fmt.Errorf("%q is no id of a user: it is empty, not UTF-8, or begins with %s as those of internal callers do", id, authz.ServicePrefix)}
	}
	return nil
}

// terminal returns standard input where it is one.
func terminal(env environment) (*os.File, bool) {
	f, ok := env.stdin.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// confirm has somebody at a terminal type a word before something goes on that
// can't be taken back. Where there is no terminal, yes must have been said in
// advance.
func confirm(ctx context.Context, env environment, yes bool, what, word string) error {
	if yes {
		return nil
	}
	f, ok := terminal(env)
	if !ok {
		return usageError{errors.New("standard input is no terminal to ask at: add --yes")}
	}
	fmt.Fprintf(env.stderr, "%s\nType %s to go on: ", printable(what), printable(word))
	line, err := readLine(ctx, f)
	if err != nil {
		fmt.Fprintln(env.stderr)
		return fmt.Errorf("nothing was done: %w", err)
	}
	if line != word {
		return errors.New("nothing was done: that was something else")
	}
	return nil
}

// readLine ends with ctx, which is how an interrupt reaches us.
func readLine(ctx context.Context, f *os.File) (string, error) {
	type answer struct {
		line string
		err  error
	}
	answers := make(chan answer, 1)
	go func() { // which a read from a terminal may outlive; the process ends then
		line, err := bufio.NewReader(f).ReadString('\n')
		answers <- answer{strings.TrimRight(line, "\r\n"), err}
	}()
	select {
	case a := <-answers:
		if errors.Is(a.err, io.EOF) && a.line != "" {
			a.err = nil
		}
		return a.line, a.err
	case <-ctx.Done():
		return "", errors.New("interrupted")
	}
}

// readToken returns a token that is given as an argument, or, for "-" and where
// there is none, through standard input, where neither shell history nor process
// lists show it. It is taken out of an Authorization header.
func readToken(cmd *cobra.Command, env environment, args []string) (string, error) {
	text := "-"
	if len(args) == 1 {
		text = args[0]
	}
	if text == "-" {
		var err error
		if f, ok := terminal(env); ok {
			text, err = askPassword(cmd.Context(), env, f, "Token (it is not shown): ")
		} else {
			text, err = readAll(env.stdin)
		}
		if err != nil {
			return "", err
		}
	}
	text = strings.TrimSpace(text)
	if name, value, ok := strings.Cut(text, ":"); ok && strings.EqualFold(name, "authorization") {
		text = strings.TrimSpace(value)
	}
	if scheme, rest, ok := strings.Cut(text, " "); ok && strings.EqualFold(scheme, "bearer") {
		text = strings.TrimSpace(rest)
	}
	if text == "" {
		return "", usageError{fmt.Errorf("no token: pipe one into standard input, as in 'pbpaste | %s'", cmd.CommandPath())}
	}
	return text, nil
}

func readAll(r io.Reader) (string, error) {
	const most = 64 << 10
	text, err := io.ReadAll(io.LimitReader(r, most+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("read the token: %w", err)
	case len(text) > most:
		return "", usageError{errors.New("more than 64 KiB: that is no token")}
	}
	return string(text), nil
}

// plural counts things.
func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + one + "s"
}
