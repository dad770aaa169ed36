package attack

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Options say what is attacked, and with what. The credentials are those of an
// ordinary user; none of them appears in a report or an error.
type Options struct {
	Target *url.URL // scheme, host and port
	Host   string   // what to ask for, where it is not the target's host
	TLS    *tls.Config

	Protected string   // a path that needs a login; the echo answers it and what is below
	Public    string   // a path that is open to all, likewise
	Headers   []string // the identity headers

	Cookie     string // "name=value", several as in a Cookie header; "" for none
	CookieName string // which of them is the session; needed where there are several
	Token      string // a bearer token; "" for none
	JWKS       []byte // the issuer's public keys
	SigningKey crypto.Signer

	Cases   []Case        // all, where it is nil
	Timeout time.Duration // of each request; zero means [DefaultTimeout]
	Pause   time.Duration // between requests

	// Progress, when not nil, learns of each result at once.
	Progress func(Result)

	attacker crypto.Signer
	slowest  time.Duration // that an answer took so far
}

// DefaultTimeout is how long an answer is waited for.
const DefaultTimeout = 5 * time.Second

// Verdict is what came of a case.
type Verdict string

// The verdicts.
const (
	Held         Verdict = "held"
	Broken       Verdict = "broken"
	Skipped      Verdict = "skipped"      // something was not given that it needs
	Inconclusive Verdict = "inconclusive" // nobody can tell from the answer
)

// Result is what came of one case.
type Result struct {
	Case    Case
	Verdict Verdict
	Status  int // of the answer; 0 for none
	// Reached is what reached the service, in short; "" for nothing.
	Reached string
	// Reason is what is wrong, or why nobody can tell, or why it was skipped.
	Reason string
}

// Report is what came of all.
type Report struct {
	Target string
	// Notes are what the ordinary requests showed that makes the rest doubtful.
	Notes   []string
	Results []Result
}

// Count returns how many cases have a verdict.
func (r *Report) Count(v Verdict) int {
	n := 0
	for _, result := range r.Results {
		if result.Verdict == v {
			n++
		}
	}
	return n
}

// TargetError says that the target does not do what it must for the attacks to
// tell anything, and what to do.
type TargetError struct{ message string }

func (e *TargetError) Error() string { return e.message }

func targetErrorf(format string, args ...any) error {
	return &TargetError{fmt.Sprintf(format, args...)}
}

// Run asks the target as an ordinary client does, then attacks it. An error says
// that there is no report: the options are wrong, the target can't be reached, or
// what answers there is no echo.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	b, err := o.ordinary(ctx)
	if err != nil {
		return nil, o.scrubError(err)
	}
	report := &Report{Target: o.Target.Scheme + "://" + o.Target.Host, Notes: b.notes}
	for _, c := range o.Cases {
		result, err := o.attack(ctx, c, b)
		if err != nil {
			return nil, o.scrubError(err)
		}
		result.Reached, result.Reason = o.scrub(result.Reached), o.scrub(result.Reason)
		report.Results = append(report.Results, result)
		if o.Progress != nil {
			o.Progress(result)
		}
	}
	return report, nil
}

var (
	plainPath  = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)+/?$`)
	plainName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*$`)
	plainValue = regexp.MustCompile(`^[\x21-\x7e]+$`)
	cookieForm = regexp.MustCompile(`^[!#-'*+.^-~0-9A-Z-]+=[\x21-\x3a\x3c-\x7e]*(; ?[!#-'*+.^-~0-9A-Z-]+=[\x21-\x3a\x3c-\x7e]*)*$`)
)

// check completes the options, or says what is wrong with them.
func (o *Options) check() error {
	if o.Target == nil || o.Target.Host == "" || o.Target.Scheme != "http" && o.Target.Scheme != "https" ||
		o.Target.User != nil || strings.Trim(o.Target.Path, "/") != "" || o.Target.RawQuery != "" || o.Target.Fragment != "" {
		return errors.New("the target is scheme, host and port, as in https://staging.example.com; paths are given apart")
	}
	for _, path := range []string{o.Protected, o.Public} {
		if !plainPath.MatchString(path) {
			return fmt.Errorf("the path %q is none to attack with: it begins with / and has letters, digits and -._~ in its segments", path)
		}
	}
	if reads(o.Public, o.Protected) || reads(o.Protected, o.Public) {
		return errors.New("the protected and the public path must not lie one below the other")
	}
	if len(o.Headers) == 0 {
		return errors.New("name at least one identity header")
	}
	for _, name := range o.Headers {
		if !plainName.MatchString(name) {
			return fmt.Errorf("%q is no name of a header", name)
		}
	}
	if o.Cookie != "" && !cookieForm.MatchString(o.Cookie) {
		return errors.New("the cookie is not as in a Cookie header, name=value; several are separated by semicolons")
	}
	if o.Cookie != "" {
		if name, _ := o.sessionCookie(); name == "" {
			return errors.New("several cookies were given, or none of that name: say which one is the session's")
		}
	}
	if o.Token != "" && !plainValue.MatchString(o.Token) {
		return errors.New("the token is none: it has no spaces and no line breaks; leave the word Bearer out")
	}
	if o.Cases == nil {
		o.Cases = List()
	}
	return nil
}

func (o *Options) timeout() time.Duration {
	if o.Timeout <= 0 {
		return DefaultTimeout
	}
	return o.Timeout
}

// authority is what requests name as their host.
func (o *Options) authority() string {
	if o.Host != "" {
		return o.Host
	}
	return o.Target.Host
}

func (o *Options) address() string {
	port := o.Target.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[o.Target.Scheme]
	}
	return net.JoinHostPort(o.Target.Hostname(), port)
}

// sessionCookie returns name and value of the session's cookie, "" where it is not
// clear which one that is.
func (o *Options) sessionCookie() (name, value string) {
	pairs := strings.Split(o.Cookie, ";")
	for _, pair := range pairs {
		name, value, _ = strings.Cut(strings.TrimSpace(pair), "=")
		if name == o.CookieName || o.CookieName == "" && len(pairs) == 1 {
			return name, value
		}
	}
	return "", ""
}

// secrets are the texts that no report may have.
func (o *Options) secrets() []string {
	var all []string
	for pair := range strings.SplitSeq(o.Cookie, ";") {
		_, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
		all = append(all, value)
		if decoded, err := url.PathUnescape(value); err == nil {
			all = append(all, decoded)
		}
	}
	all = append(all, o.Token)
	all = append(all, strings.Split(o.Token, ".")...)
	return slices.DeleteFunc(all, func(s string) bool { return len(s) < 8 })
}

// scrub takes credentials out of a text that came from the target.
func (o *Options) scrub(s string) string {
	for _, secret := range o.secrets() {
		s = strings.ReplaceAll(s, secret, "[credential]")
	}
	return s
}

func (o *Options) scrubError(err error) error {
	if text := o.scrub(err.Error()); text != err.Error() {
		return errors.New(text)
	}
	return err
}

// baseline is how the gateway treats ordinary requests.
type baseline struct {
	callers [][]string // identity of the caller, by each credential
	nobody  []string
	headers map[string][]string // all that arrived with the first credential
	refusal int                 // status without a credential at the protected path, where that is none of the service's
	noHTTP2 string              // why HTTP/2 can't be used; "" where it can
	notes   []string
}

// ordinary asks as an ordinary client does.
func (o *Options) ordinary(ctx context.Context) (*baseline, error) {
	b := &baseline{}
	public, err := o.ask(ctx, o.Public)
	if err != nil {
		return nil, fmt.Errorf("the target can't be reached: %w", err)
	}
	if public.echo == nil {
		return nil, targetErrorf("no echo answers at %s without a credential (%s). Name a path that is open to all, with an echo service behind it; 'gatehouse attack echo' is one that can be put behind any gateway", o.Public, describe(public))
	}
	b.nobody = public.echo.identity(o.Headers)

	refused, err := o.ask(ctx, o.Protected)
	if err != nil {
		return nil, err
	}
	if refused.echo == nil {
		b.refusal = refused.status
	} else {
		b.notes = append(b.notes, fmt.Sprintf("%s is served without a credential: either the gateway checks nobody, or the path is one that needs no login", o.Protected))
	}
	for _, credential := range []struct{ what, line string }{
		{"cookie", "Cookie: " + o.Cookie}, {"token", "Authorization: Bearer " + o.Token},
	} {
		if credential.what == "cookie" && o.Cookie == "" || credential.what == "token" && o.Token == "" {
			continue
		}
		if err := o.ordinaryCaller(ctx, b, credential.what, credential.line); err != nil {
			return nil, err
		}
	}
	if len(b.callers) > 0 && len(b.callers[0]) == 0 {
		b.notes = append(b.notes, "with a credential, none of the headers "+strings.Join(o.Headers, ", ")+" arrives: name those by which your services know the caller, or all that could be said of them is inconclusive")
	}
	return b, o.ordinaryHTTP2(ctx, b)
}

// ordinaryHTTP2 sees whether the target serves HTTP/2: what it refuses of it says nothing
// where it refuses all.
func (o *Options) ordinaryHTTP2(ctx context.Context, b *baseline) error {
	b.noHTTP2 = "the target speaks no HTTP/2"
	if !o.speaksHTTP2(ctx) {
		return ctx.Err()
	}
	a, err := o.askHTTP2(ctx, o.Public)
	switch {
	case err != nil && ctx.Err() != nil:
		return ctx.Err()
	case err != nil || a.echo == nil || a.foreign:
		b.noHTTP2 = "an ordinary request over HTTP/2 doesn't reach the echo"
		b.notes = append(b.notes, fmt.Sprintf("the target speaks HTTP/2, and serves nothing over it: no echo answers at %s (%s)", o.Public, describe(a)))
	default:
		b.noHTTP2 = ""
	}
	return nil
}

// ordinaryCaller asks twice, to see what changes by itself.
func (o *Options) ordinaryCaller(ctx context.Context, b *baseline, what, line string) error {
	var first []string
	for i := range 2 {
		a, err := o.ask(ctx, o.Protected, line)
		if err != nil {
			return err
		}
		if a.echo == nil {
			return targetErrorf("no echo answers at %s with the %s (%s). Name a path that needs a login, with an echo service behind it, and give a %s that is good now", o.Protected, what, describe(a), what)
		}
		identity := a.echo.identity(o.Headers)
		if i == 0 {
			first = identity
			if b.headers == nil {
				b.headers = a.echo.Headers
			}
			continue
		}
		if !slices.Equal(first, identity) {
			return targetErrorf("the identity headers differ between two requests of the same caller: leave out those that change with every request")
		}
	}
	b.callers = append(b.callers, first)
	return nil
}

func describe(a answer) string {
	switch {
	case a.late:
		return "no answer in time"
	case a.garbage:
		return "it answers something that is no HTTP"
	case a.status == 0:
		return "it closes the connection"
	case a.foreign:
		return "the answer belongs to another request"
	}
	return fmt.Sprintf("it answers %d %s", a.status, http.StatusText(a.status))
}

// ask sends an ordinary GET.
func (o *Options) ask(ctx context.Context, path string, lines ...string) (answer, error) {
	return o.send(ctx, newID(), append([]string{"GET " + path + " HTTP/1.1"}, lines...), "", false)
}

func newID() string { return strings.ToLower(rand.Text()) }

// attack runs one case.
func (o *Options) attack(ctx context.Context, c Case, b *baseline) (Result, error) {
	if err := wait(ctx, o.Pause); err != nil {
		return Result{}, err
	}
	result := Result{Case: c}
	if c.HTTP2 != nil && b.noHTTP2 != "" {
		result.Verdict, result.Reason = Skipped, b.noHTTP2
		return result, nil
	}
	var fetched *callback
	e := &expander{o: o, id: newID()}
	e.callback = func() (string, error) {
		if fetched == nil {
			c, err := o.listenForCallback(ctx, o.attackerSet())
			if err != nil {
				return "", err
			}
			fetched = c
		}
		return fetched.url, nil
	}
	defer func() {
		if fetched != nil {
			fetched.stop()
		}
	}()
	answers, err := o.try(ctx, c, e)
	if missing, ok := errors.AsType[missingError](err); ok {
		result.Verdict, result.Reason = Skipped, missing.what
		return result, nil
	}
	if err != nil && ctx.Err() == nil { // a gateway that dies of a case is found out by it
		if _, ok := errors.AsType[net.Error](err); ok {
			result.Verdict, result.Reason = Inconclusive, fmt.Sprintf("the target can't be reached any more: %v", err)
			return result, nil
		}
	}
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", c.ID, err)
	}
	answers.fetched = fetched != nil && fetched.hit()
	o.judge(&result, answers, b)
	return result, nil
}

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// outcome is all that was seen of one case.
type outcome struct {
	answer
	fetched   bool     // the gateway fetched what a token named
	followers []answer // of ordinary requests that came next
	method    string   // of HTTP/1
}

// try sends the request of a case.
func (o *Options) try(ctx context.Context, c Case, e *expander) (out outcome, err error) {
	if c.Token != nil {
		if e.token, err = e.forge(c.Token); err != nil {
			return out, err
		}
	}
	if e.body, err = e.text(c.Body); err != nil {
		return out, err
	}
	if c.HTTP2 != nil {
		request, err := e.http2(c.HTTP2)
		if err != nil {
			return out, err
		}
		if out.answer, err = o.sendHTTP2(ctx, e.id, request); err != nil {
			return out, err
		}
	} else {
		var lines []string
		for _, line := range c.Head {
			expanded, err := e.lines(line)
			if err != nil {
				return out, err
			}
			lines = append(lines, expanded...)
		}
		out.method, _, _ = strings.Cut(lines[0], " ")
		if out.answer, err = o.send(ctx, e.id, lines, e.body, c.Expect.Framing); err != nil {
			return out, err
		}
	}
	if c.Expect.Framing {
		for range 2 {
			follower, err := o.ask(ctx, o.Public)
			if err != nil {
				return out, err
			}
			out.followers = append(out.followers, follower)
		}
	}
	return out, nil
}

// http2 fills the placeholders of a request.
func (e *expander) http2(request *HTTP2) (HTTP2, error) {
	var out HTTP2
	for _, list := range []struct {
		from [][2]string
		to   *[][2]string
	}{{request.Fields, &out.Fields}, {request.Trailers, &out.Trailers}} {
		for _, f := range list.from {
			if f[0] == "{credential}" {
				line, err := e.credential()
				if err != nil {
					return out, err
				}
				name, value, _ := strings.Cut(line, ": ")
				*list.to = append(*list.to, [2]string{strings.ToLower(name), value})
				continue
			}
			const between = "\x00\x00"
			lines, err := e.lines(f[0] + between + f[1])
			if err != nil {
				return out, err
			}
			for _, line := range lines {
				name, value, _ := strings.Cut(line, between)
				*list.to = append(*list.to, [2]string{name, value})
			}
		}
	}
	var err error
	out.Body, err = e.text(request.Body)
	return out, err
}
