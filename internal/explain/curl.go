package explain

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/syntax"
)

// Request is a request to be explained, as the gateway would hand it over. It is
// what a running server is sent, as JSON.
type Request struct {
	Method    string      `json:"method"`
	Authority string      `json:"authority"` // Host header
	Target    string      `json:"target"`    // raw path with the query
	Headers   [][2]string `json:"headers"`   // name and value; a name may come more than once
	Address   string      `json:"address,omitempty"`
	// Policy is the one that the gateway's route names; nil for none.
	Policy *string `json:"policy,omitempty"`
	// Audience is the service that it names, for the signed identity; nil for none.
	Audience *string `json:"audience,omitempty"`
}

// ParseCommand reads a curl command as it is pasted into a shell, or what would
// stand behind the word curl; into which file or program its output goes is passed
// over. It runs nothing: a variable or a substitution in it is an error.
func ParseCommand(text string) (*Request, error) {
	file, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(text), "")
	if err != nil {
		return nil, fmt.Errorf("the command can't be read: %w", err)
	}
	switch len(file.Stmts) {
	case 0:
		return nil, errNoURL
	case 1:
	default:
		return nil, errors.New("several commands: one request at a time can be explained")
	}
	command := file.Stmts[0].Cmd
	for {
		pipe, ok := command.(*syntax.BinaryCmd)
		if !ok {
			break
		}
		if pipe.Op != syntax.Pipe && pipe.Op != syntax.PipeAll {
			return nil, errors.New("several commands: one request at a time can be explained")
		}
		command = pipe.X.Cmd
	}
	call, ok := command.(*syntax.CallExpr)
	if !ok {
		return nil, errors.New("the command is no curl command")
	}
	if err := literal(call); err != nil {
		return nil, err
	}
	words, err := expand.Fields(&expand.Config{Env: expand.ListEnviron()}, call.Args...)
	if err != nil {
		return nil, fmt.Errorf("the command can't be read: %w", err)
	}
	return ParseWords(words)
}

// literal refuses what only a shell knows.
func literal(call *syntax.CallExpr) (err error) {
	syntax.Walk(call, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.ParamExp:
			err = errors.New("the command has a variable: put its value in its place")
			if n.Param != nil {
				err = fmt.Errorf("the command has a variable, $%s: put its value in its place", clip(n.Param.Value))
			}
		case *syntax.CmdSubst, *syntax.ProcSubst, *syntax.ArithmExp, *syntax.Assign:
			err = errors.New("the command has other commands or assignments in it: put their values in their place")
		}
		return err == nil
	})
	return err
}

var errNoURL = errors.New("no URL: give the one that the client asks for, such as https://gateway.example.com/users/1")

// ParseWords is [ParseCommand] for a command that a shell has taken apart.
func ParseWords(words []string) (*Request, error) {
	if len(words) > 0 && words[0] == "curl" {
		words = words[1:]
	}
	p := curl{r: &Request{}}
	if err := p.options(words); err != nil {
		return nil, err
	}
	return p.request()
}

// curl is a curl command that is being read.
type curl struct {
	r       *Request
	url     string
	method  string // by -X
	implied string // by -d and others
	get     bool   // -G: data goes into the query
	data    []string
	agent   bool
}

// What curl's options mean here. Those that are left out make no difference to
// what is asked, or are refused.
type effect func(p *curl, value string) error

var withValue = map[string]effect{
	"-X": (*curl).setMethod, "--request": (*curl).setMethod,
	"-H": (*curl).header, "--header": (*curl).header,
	"-b": (*curl).cookie, "--cookie": (*curl).cookie,
	"-u": (*curl).basic, "--user": (*curl).basic,
	"--oauth2-bearer": func(p *curl, v string) error { return p.header("authorization: Bearer " + v) },
	"-A":              (*curl).userAgent, "--user-agent": (*curl).userAgent,
	"-e": (*curl).referer, "--referer": (*curl).referer,
	"--url": (*curl).setURL,
	"-d":    (*curl).post, "--data": (*curl).post, "--data-raw": (*curl).post, "--data-binary": (*curl).post,
	"--data-ascii": (*curl).post, "--data-urlencode": (*curl).post,
	"--json": func(p *curl, v string) error {
		return errors.Join(p.post(v), p.header("content-type: application/json"), p.header("accept: application/json"))
	},
	"-F": (*curl).post, "--form": (*curl).post, "--form-string": (*curl).post,
	"-T": func(p *curl, _ string) error { p.implied = "PUT"; return nil }, "--upload-file": func(p *curl, _ string) error { p.implied = "PUT"; return nil },
}

var withoutValue = map[string]effect{
	"-I": func(p *curl, _ string) error { p.implied = "HEAD"; return nil }, "--head": func(p *curl, _ string) error { p.implied = "HEAD"; return nil },
	"-G": func(p *curl, _ string) error { p.get = true; return nil }, "--get": func(p *curl, _ string) error { p.get = true; return nil },
	"--compressed": func(p *curl, _ string) error { return p.header("accept-encoding: deflate, gzip, br, zstd") },
}

// These say how curl goes about it, not what it asks.
var (
	noMatter = words(`-s --silent -S --show-error -i --include --show-headers -v --verbose -L --location -k --insecure -f --fail
		--fail-with-body -N --no-buffer -g --globoff -4 --ipv4 -6 --ipv6 -0 --http1.0 --http1.1 --http2 --http2-prior-knowledge --http3
		--path-as-is -O --remote-name -J -# --progress-bar -n --netrc --tcp-nodelay --no-keepalive --raw -q --disable --tlsv1.2 --tlsv1.3
		--ssl-reqd --no-alpn`)
	noMatterWithValue = words(`-o --output -m --max-time --connect-timeout --resolve --connect-to --cacert --capath -E --cert --key
		--cert-type --key-type --pass -x --proxy --retry --retry-delay --retry-max-time -w --write-out -c --cookie-jar -D --dump-header
		--interface --limit-rate --max-redirs --ciphers --tls-max --unix-socket -r --range --stderr --trace --trace-ascii --noproxy`)
)

func words(list string) map[string]bool {
	set := map[string]bool{}
	for w := range strings.FieldsSeq(list) {
		set[w] = true
	}
	return set
}

func (p *curl) options(words []string) error {
	for i := 0; i < len(words); i++ {
		word := words[i]
		value := func() (string, error) {
			if i++; i >= len(words) {
				return "", fmt.Errorf("option %s has no value", word)
			}
			return words[i], nil
		}
		switch {
		case word == "-" || !strings.HasPrefix(word, "-"):
			if err := p.setURL(word); err != nil {
				return err
			}
		case word == "--next" || word == "-:":
			return errors.New("--next: one request at a time can be explained; leave out what is behind it")
		case strings.HasPrefix(word, "--"):
			if err := p.option(word, value); err != nil {
				return err
			}
		default: // -sSXPOST
			for rest := word[1:]; rest != ""; {
				name := "-" + rest[:1]
				rest = rest[1:]
				attached := func() (string, error) {
					if rest == "" {
						return value()
					}
					v := rest
					rest = ""
					return v, nil
				}
				if err := p.option(name, attached); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (p *curl) option(name string, value func() (string, error)) error {
	if apply, ok := withoutValue[name]; ok {
		return apply(p, "")
	}
	if noMatter[name] {
		return nil
	}
	apply, ok := withValue[name]
	if !ok && !noMatterWithValue[name] {
		if option, _, attached := strings.Cut(name, "="); attached { // which may be a credential
			return fmt.Errorf("option %s: put its value behind a space, as curl wants it", clip(option))
		}
		return fmt.Errorf("option %s of curl is not known here: leave it out, or write what it does as -H 'name: value'", clip(name))
	}
	v, err := value()
	if err != nil || !ok {
		return err
	}
	return apply(p, v)
}

func (p *curl) setMethod(m string) error {
	p.method = m
	return nil
}

func (p *curl) setURL(text string) error {
	if p.url != "" {
		return errors.New("two URLs: one request at a time can be explained")
	}
	p.url = text
	return nil
}

func (p *curl) header(line string) error {
	name, value, ok := strings.Cut(line, ":")
	switch {
	case strings.HasPrefix(line, "@"):
		return errors.New("-H @file: give the headers themselves, each with its -H")
	case !ok && strings.HasSuffix(line, ";"): // how curl sends one without a value
		name, value = strings.TrimSuffix(line, ";"), ""
	case !ok:
		return errors.New("a header (-H) has no colon; write it as 'name: value'")
	case strings.TrimSpace(value) == "":
		return nil // how curl leaves out one of its own
	}
	name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
	if name == "" || strings.ContainsAny(name, " \t\r\n") || strings.ContainsAny(value, "\r\n") {
		return errors.New("a header with no name, or with a space or a line break where none can be")
	}
	if name == "host" {
		p.r.Authority = value
		return nil
	}
	p.agent = p.agent || name == "user-agent"
	p.r.Headers = append(p.r.Headers, [2]string{name, value})
	return nil
}

func (p *curl) cookie(value string) error {
	if !strings.Contains(value, "=") {
		return errors.New("-b with the name of a file: give the cookies themselves, as in -b 'sessionId=…'")
	}
	return p.header("cookie: " + value)
}

func (p *curl) basic(value string) error {
	return p.header("authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(value)))
}

func (p *curl) userAgent(value string) error { return p.header("user-agent: " + value) }
func (p *curl) referer(value string) error   { return p.header("referer: " + value) }

func (p *curl) post(value string) error {
	if p.implied == "" {
		p.implied = "POST"
	}
	p.data = append(p.data, value)
	return nil
}

// request puts together what was read.
func (p *curl) request() (*Request, error) {
	if p.url == "" {
		return nil, errNoURL
	}
	text := p.url
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	scheme, rest, _ := strings.Cut(text, "://")
	if s := strings.ToLower(scheme); s != "http" && s != "https" {
		return nil, errors.New("the URL has another scheme: give one of http or https")
	}
	// The path is taken as it stands: what another reader would make of it is
	// what explaining is for.
	rest, _, _ = strings.Cut(rest, "#")
	end := strings.IndexAny(rest, "/?")
	authority, target := rest, "/"
	if end >= 0 {
		authority, target = rest[:end], rest[end:]
	}
	if strings.HasPrefix(target, "?") {
		target = "/" + target
	}
	if user, host, ok := cutLast(authority, "@"); ok {
		authority = host
		name, err := url.PathUnescape(user)
		if err != nil { // which quotes the password
			return nil, errors.New("the user or the password in the URL has a % that two hexadecimal digits don't follow: write %25")
		}
		if err := p.basic(name); err != nil {
			return nil, err
		}
	}
	if authority == "" {
		return nil, errors.New("the URL has no host")
	}
	if p.get && len(p.data) > 0 {
		separator := "?"
		if strings.Contains(target, "?") {
			separator = "&"
		}
		target += separator + strings.Join(p.data, "&")
	}
	r := p.r
	r.Target = target
	if r.Authority == "" {
		r.Authority = authority
	}
	switch {
	case p.method != "":
		r.Method = p.method
	case p.get, p.implied == "":
		r.Method = "GET"
	default:
		r.Method = p.implied
	}
	if !p.agent {
		r.Headers = append(r.Headers, [2]string{"user-agent", "curl"})
	}
	return r, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}

// address is the client's; the zero one for none.
func (r *Request) address() (netip.Addr, error) {
	if r.Address == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(r.Address)
	if err != nil {
		return a, fmt.Errorf("address %q is no IP address", clip(r.Address))
	}
	return a.Unmap(), nil
}

func clip(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}
