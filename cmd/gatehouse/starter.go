package main

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/gatehouse-auth/gatehouse/authz/token"
	"github.com/gatehouse-auth/gatehouse/authz/users"
	"github.com/gatehouse-auth/gatehouse/envoy"
)

// What init writes, before names, addresses and secrets are in it.
//
//go:embed init
var initTemplates embed.FS

// starterCase is a case that init knows.
type starterCase struct {
	name, about            string
	example                string // the directory of examples/ that goes on from it
	sessions, tokens, oidc bool
}

var starterCases = []starterCase{
	{name: "sessions", about: "people with a session cookie", example: "internal-services", sessions: true},
	{name: "jwt", about: "apps with a token that Gatehouse gives out", example: "mobile-app", tokens: true},
	{name: "both", about: "people with a session cookie, or a token", example: "single-page-app", sessions: true, tokens: true},
	{name: "api-keys", about: "programs with a key", example: "internal-services"},
	{name: "oidc", about: "people who log in at an OpenID provider, and get a session", example: "federated-sso", sessions: true, oidc: true},
}

func starterNames() []string {
	var names []string
	for _, c := range starterCases {
		names = append(names, c.name)
	}
	return names
}

func starterNamed(name string) (starterCase, error) {
	for _, c := range starterCases {
		if c.name == name {
			return c, nil
		}
	}
	return starterCase{}, fmt.Errorf("--for %q: it is %s", name, alternatives(starterNames()))
}

// starterFile is a file that init writes; its name has slashes.
type starterFile struct {
	name   string
	text   []byte
	secret bool
}

// starterSecrets are what nobody else may know. They go into files, and nowhere else.
type starterSecrets struct {
	session           []string
	key               string // of the program that is called backoffice
	password          string // of the first user
	client            string // of the gate at the OpenID provider
	current, next     []byte // signing keys
	keyHash, passHash string
}

// newStarterSecrets makes those that the case needs: keys and hashes take their time.
func newStarterSecrets(o initOptions, plan *starter) (*starterSecrets, error) {
	s := &starterSecrets{session: []string{rand.Text() + rand.Text()}, key: rand.Text() + rand.Text(), password: rand.Text()}
	sum := sha256.Sum256([]byte(s.key))
	s.keyHash = hex.EncodeToString(sum[:])
	var err error
	if plan.Users {
		if s.passHash, err = users.Hash(s.password); err != nil {
			return nil, err
		}
	}
	if plan.Tokens {
		for _, key := range []*[]byte{&s.current, &s.next} {
			if *key, err = token.GenerateKey(defaultAlg); err != nil {
				return nil, err
			}
		}
	}
	if o.expressSecretFile != "" {
		if s.session, err = expressSecrets(o.expressSecretFile); err != nil {
			return nil, usageError{err}
		}
	}
	if o.clientSecretFile != "" {
		if s.client, err = readSecret("the client secret", o.clientSecretFile); err != nil {
			return nil, usageError{err}
		}
	}
	return s, nil
}

// starter is what the templates are filled with.
type starter struct {
	starterCase
	About, Example              string
	Sessions, Tokens, OIDC      bool
	KeysOnly, Users             bool
	Kinds, Default              string // credentials of the policy user; the policy of all else
	Embedded, StorePassword     bool
	Store, StoreUser            string // as YAML
	Cookie                      string
	Express                     bool
	Issuer, IssuerURL, Audience string
	ClientID                    string
	ClientSecret                bool
	KeySHA256, PasswordHash     string
	Port                        int
	Base, Path, Below           string // of the gateway; of a service for whoever is let in; the same, to be gone on
	User                        string
	Upstreams                   []upstream
	Routes                      []envoy.Route
	Listed                      []struct{ Name, About string }
	secrets                     *starterSecrets
	storePassword               string
}

// starter makes sense of the options, or says which of them makes none. Secrets may be
// nil where nothing is to be written yet.
func (o initOptions) starter(env environment, secrets *starterSecrets) (*starter, error) {
	c, err := starterNamed(o.kind)
	if err != nil {
		return nil, err
	}
	if secrets == nil {
		secrets = &starterSecrets{}
	}
	if o.port < 1 || o.port > 65535 {
		return nil, fmt.Errorf("--port %d is no port: give 1 to 65535", o.port)
	}
	s := &starter{
		starterCase: c, About: c.about, Example: c.example, Sessions: c.sessions, Tokens: c.tokens, OIDC: c.oidc,
		KeysOnly: !c.sessions && !c.tokens, Users: o.users, Default: "user",
		Cookie: "sessionId", Express: o.expressSecretFile != "",
		KeySHA256: secrets.keyHash, PasswordHash: secrets.passHash, Port: o.port,
		Base: "http://127.0.0.1:" + strconv.Itoa(o.port), User: "alice", secrets: secrets,
	}
	switch {
	case s.KeysOnly:
		s.Default = "internal"
	case s.Sessions && s.Tokens:
		s.Kinds = "session, bearer"
	case s.Sessions:
		s.Kinds = "session"
	default:
		s.Kinds = "bearer"
	}
	if s.Users {
		s.User = "admin"
	}
	if err := o.fits(c, s, env); err != nil {
		return nil, err
	}
	at, err := parseStore(o.store, env)
	if err != nil {
		return nil, err
	}
	s.Embedded = at.embedded
	s.Store, s.StoreUser, s.storePassword, s.StorePassword = quoted(at.url), quotedOrNone(at.user), at.password, at.password != ""
	texts := o.upstreams
	if len(texts) == 0 {
		texts = []string{defaultUpstream}
	}
	if s.Upstreams, err = parseUpstreams(texts); err != nil {
		return nil, err
	}
	if err := checkPorts(o.port, at, s.Upstreams); err != nil {
		return nil, err
	}
	if s.Routes, err = routesTo(s.Upstreams, o.public, s); err != nil {
		return nil, err
	}
	first := slices.IndexFunc(s.Upstreams, func(u upstream) bool { return s.policyOf(u.Path) == s.Default })
	if first < 0 {
		return nil, fmt.Errorf("--upstream: %s is for administrators or programs inside alone, since its path has a part admin or internal: name another service, for whoever is logged in, or give it another path, as in %s=%s/",
			s.Upstreams[0].Name, s.Upstreams[0].Name, s.Upstreams[0].Address)
	}
	s.Path = s.Upstreams[first].Path
	s.Below = strings.TrimSuffix(s.Path, "/") + "/"
	s.list()
	return s, nil
}

// fits checks the options that belong to some cases only.
func (o initOptions) fits(c starterCase, s *starter, env environment) error {
	switch {
	case o.users && (c.oidc || s.KeysOnly):
		return fmt.Errorf("--users has no use with --for %s: nobody logs in here with a password", c.name)
	case s.Express && (!c.sessions || c.oidc):
		return fmt.Errorf("--express-secret-file is for sessions that an Express application makes: --for sessions, or both")
	case s.Express && o.users:
		return errors.New("--users and --express-secret-file: the Express application logs people in; leave one of the two out")
	case !s.Express && o.expressCookie != expressCookie:
		return errors.New("--express-cookie needs --express-secret-file: without the secret nobody can check the cookie")
	case o.issuer != "" && !c.oidc && !c.tokens:
		return fmt.Errorf("--issuer has no use with --for %s: it is for oidc, jwt and both", c.name)
	case o.issuer == "" && (c.oidc || o.audience != ""):
		return errors.New("--issuer is missing: the URL of the OpenID provider, as it writes it itself")
	case o.issuer != "" && c.tokens && o.audience == "":
		return errors.New("--audience is missing: without it, tokens that the issuer made for anybody else would be accepted here, too")
	case o.audience != "" && c.oidc:
		return errors.New("--audience has no use with --for oidc: tokens of its provider are accepted by --for both")
	case c.oidc && o.clientID == "":
		return errors.New("--client-id is missing: the gate's id at the provider")
	case !c.oidc && (o.clientID != "" || o.clientSecretFile != ""):
		return fmt.Errorf("--client-id and --client-secret-file have no use with --for %s: they are for oidc", c.name)
	}
	if s.Express {
		s.Cookie = o.expressCookie
		if err := checkKey(env, "--express-cookie", cookieSnippet(o.expressCookie)); err != nil {
			return err
		}
		s.Cookie = quoted(o.expressCookie)
	}
	if o.issuer != "" {
		if err := checkKey(env, "--issuer", issuerSnippet(o.issuer)); err != nil {
			return err
		}
		s.Issuer, s.IssuerURL, s.Audience = quoted(o.issuer), o.issuer, quotedOrNone(literal(o.audience))
		s.ClientID, s.ClientSecret = quotedOrNone(literal(o.clientID)), o.clientSecretFile != ""
	}
	return nil
}

func cookieSnippet(name string) string { return "sessions: {cookie: {name: " + quoted(name) + "}}" }

func issuerSnippet(issuer string) string {
	return "issuers: [{issuer: " + quoted(issuer) + ", discovery: true, audiences: [a]}]"
}

// quoted is a text as YAML, in which JSON's strings are texts, too.
func quoted(text string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(text); err != nil {
		panic("init: a string has a JSON form: " + err.Error())
	}
	return strings.TrimSpace(b.String())
}

// literal is a text in which the configuration replaces nothing.
func literal(text string) string { return strings.ReplaceAll(text, "${", "$${") }

func quotedOrNone(text string) string {
	if text == "" {
		return ""
	}
	return quoted(text)
}

// storeAddress is a store's URL, with what must not stand in it taken out.
type storeAddress struct {
	url, user, password string
	embedded            bool
}

// parseStore splits the login from a URL: gatehouse.yaml is no secret.
func parseStore(text string, env environment) (storeAddress, error) {
	if err := checkKey(env, "--store", "redis: {url: "+quoted(text)+"}"); err != nil {
		return storeAddress{}, err
	}
	at := storeAddress{url: text}
	scheme, rest, _ := strings.Cut(text, "://")
	at.embedded = strings.EqualFold(scheme, "embedded")
	hosts, after := rest, ""
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		hosts, after = rest[:i], rest[i:]
	}
	i := strings.LastIndexByte(hosts, '@')
	if i < 0 {
		return at, nil
	}
	if at.embedded {
		return at, errors.New("--store: embedded:// without a password: it listens on this machine only")
	}
	user, password, _ := strings.Cut(hosts[:i], ":")
	var err, also error
	at.user, err = url.PathUnescape(user)
	at.password, also = url.PathUnescape(password)
	if err != nil || also != nil {
		return at, errors.New("--store: the login in the URL has a % that stands for nothing: write it as %25")
	}
	at.url = scheme + "://" + hosts[i+1:] + after
	return at, nil
}

// upstream is a service behind the gate.
type upstream struct{ Name, Address, Path string }

var (
	upstreamName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,39}$`)
	upstreamHost = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?$`)
	upstreamPath = regexp.MustCompile(`^/([A-Za-z0-9_~-][A-Za-z0-9._~-]*(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*)?$`)
)

// yamlWords are names that a reader of envoy.yaml would take for something else.
var yamlWords = []string{"null", "true", "false", "yes", "no", "on", "off", "y", "n"}

// parseUpstreams reads services as somebody typed them.
func parseUpstreams(texts []string) ([]upstream, error) {
	var all []upstream
	for _, text := range texts {
		name, rest, found := strings.Cut(text, "=")
		address, path, hasPath := strings.Cut(rest, "/")
		if path = "/" + strings.TrimSuffix(path, "/"); !hasPath {
			path = "/" + name
		}
		host, port, err := net.SplitHostPort(address)
		number, badPort := strconv.ParseUint(port, 10, 16)
		switch {
		case !found || err != nil || badPort != nil || number == 0 || host == "":
			return nil, fmt.Errorf("--upstream %q: write NAME=HOST:PORT, as in orders=127.0.0.1:4000, or NAME=HOST:PORT/PATH", text)
		case !upstreamName.MatchString(name):
			return nil, fmt.Errorf("--upstream %q: the name has small letters, digits, - and _, and begins with a letter", text)
		case slices.Contains(yamlWords, name):
			return nil, fmt.Errorf("--upstream %q: %s is no text in YAML; choose another name", text, name)
		case name == "gatehouse" || name == "gatehouse_http":
			return nil, fmt.Errorf("--upstream %q: envoy.yaml has a cluster of this name already; choose another one", text)
		case !upstreamHost.MatchString(host) && net.ParseIP(host) == nil:
			return nil, fmt.Errorf("--upstream %q: %q is neither a host name nor an address", text, host)
		}
		if err := checkPath("--upstream "+strconv.Quote(text), path); err != nil {
			return nil, err
		}
		for _, other := range all {
			switch {
			case other.Name == name:
				return nil, fmt.Errorf("--upstream %q: the name %s is there twice", text, name)
			case strings.EqualFold(other.Path, path):
				return nil, fmt.Errorf("--upstream %q: %s has the path %s already", text, other.Name, other.Path)
			}
		}
		all = append(all, upstream{name, address, path})
	}
	if len(all) == 0 {
		return nil, errors.New("--upstream: name a service, as in app=127.0.0.1:3000/")
	}
	return all, nil
}

// checkPorts refuses a port of this machine that two are to have: one of them wouldn't
// start, or the gateway would ask itself.
func checkPorts(gateway int, store storeAddress, upstreams []upstream) error {
	// Those that the templates have.
	has := map[int]string{
		9001: "Gatehouse's for checks", 8081: "Gatehouse's for /auth", 9090: "Gatehouse's for metrics and health", 9901: "Envoy's for its administration",
	}
	ports := store.here()
	for _, port := range ports {
		if whose, taken := has[port]; taken {
			return fmt.Errorf("--store: port %d of this machine is %s: choose another one for the store", port, whose)
		}
	}
	for _, port := range ports {
		has[port] = "the store's (--store)"
	}
	if whose, taken := has[gateway]; taken {
		return fmt.Errorf("--port %d: that port is %s: choose another one for the gateway, as in --port %d", gateway, whose, gatewayPort)
	}
	has[gateway] = "the gateway's (--port)"
	for _, u := range upstreams {
		port, here := portHere(u.Address)
		if whose, taken := has[port]; here && taken {
			return fmt.Errorf("--upstream: the service %s is at %s, and port %d of this machine is %s: one of the two needs another port", u.Name, u.Address, port, whose)
		}
	}
	return nil
}

// here are the ports of a store on this machine.
func (at storeAddress) here() []int {
	_, hosts, _ := strings.Cut(at.url, "://")
	if i := strings.IndexAny(hosts, "/?"); i >= 0 {
		hosts = hosts[:i]
	}
	var ports []int
	for address := range strings.SplitSeq(hosts, ",") {
		if port, here := portHere(address); here && port != 0 {
			ports = append(ports, port)
		}
	}
	return ports
}

// portHere is the port of an address, and whether that is one of this machine alone.
func portHere(address string) (port int, here bool) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return 0, false
	}
	port, err = strconv.Atoi(text)
	ip := net.ParseIP(host)
	name := strings.ToLower(host)
	local := name == "localhost" || strings.HasSuffix(name, ".localhost") || ip != nil && (ip.IsLoopback() || ip.IsUnspecified())
	return port, err == nil && local
}

// checkPath refuses what the gate itself answers, and what two servers could read
// differently.
func checkPath(flag, path string) error {
	lower := strings.ToLower(path)
	switch {
	case !upstreamPath.MatchString(path):
		return fmt.Errorf("%s: a path has letters, digits, -, _, ~ and dots, which begin no part of it, as in /api/orders", flag)
	case lower == "/auth" || strings.HasPrefix(lower, "/auth/"):
		return fmt.Errorf("%s: /auth is the auth API's; choose another path", flag)
	}
	return nil
}

// below reports whether a path is another, or lies below it.
func below(path, other string) bool {
	return other == "/" || path == other || strings.HasPrefix(path, other+"/")
}

// routesTo are the routes to services, the longest path first: the first that matches
// counts.
func routesTo(upstreams []upstream, public []string, s *starter) ([]envoy.Route, error) {
	if s.KeysOnly && len(public) > 0 {
		return nil, fmt.Errorf("--public has no use with --for %s: no policy is open to everybody there", s.name)
	}
	sorted := slices.SortedFunc(slices.Values(upstreams), func(a, b upstream) int {
		return cmp.Or(cmp.Compare(len(b.Path), len(a.Path)), cmp.Compare(a.Path, b.Path))
	})
	var routes []envoy.Route
	seen := map[string]bool{}
	opened := make([]string, len(public))
	for i, path := range public {
		opened[i] = path
		if err := checkPath("--public "+strconv.Quote(path), path); err != nil {
			return nil, err
		}
		if seen[path] {
			return nil, fmt.Errorf("--public %s is there twice", path)
		}
		seen[path] = true
		if !slices.ContainsFunc(sorted, func(u upstream) bool { return below(path, u.Path) }) {
			return nil, fmt.Errorf("--public %s: no service has that path", path)
		}
	}
	done := map[string]bool{}
	for _, u := range sorted {
		whole := s.policyOf(u.Path)
		prefix := strings.TrimSuffix(u.Path, "/")
		var own []envoy.Route
		for _, policy := range stricterPolicies {
			path := prefix + "/" + policy
			if s.KeysOnly || whole == policy || whole == "internal" || slices.ContainsFunc(routes, func(r envoy.Route) bool { return r.AnyCase && strings.EqualFold(r.Path, path) }) {
				continue // all of it has that policy, or a stricter one; or another service has the path
			}
			own = append(own, envoy.Route{Name: u.Name + "-" + policy, Path: path, AnyCase: true, Policy: policy, Service: u.Name})
		}
		stricter := whole != s.Default
		last := envoy.Route{Name: u.Name, Path: u.Path, AnyCase: stricter, Policy: whole, Service: u.Name}
		strict := slices.Concat(routes, own)
		if stricter {
			strict = append(strict, last)
		}
		n := 0
		for _, path := range opened {
			if done[path] || !below(path, u.Path) {
				continue
			}
			done[path] = true
			if guarded(strict, path) {
				return nil, fmt.Errorf("--public %s lies below what is for administrators, or for programs inside: open it by hand in envoy.yaml, if that is meant", path)
			}
			if path == u.Path {
				return nil, fmt.Errorf("--public %s opens all of %s: choose paths below it, or change the policy of its route in envoy.yaml", path, u.Name)
			}
			n++
			own = append(own, envoy.Route{Name: fmt.Sprintf("%s-public-%d", u.Name, n), Path: path, Policy: "public", Service: u.Name})
		}
		routes = append(routes, own...)
		routes = append(routes, last)
	}
	return routes, nil
}

// stricterPolicies are named as the parts of a path that get them; the strictest is last.
var stricterPolicies = []string{"admin", "internal"}

// policyOf is the policy of a service with a path: a part of it, in whatever case, can say
// that it is for administrators, or, which is stricter, for programs inside.
func (s *starter) policyOf(path string) string {
	parts := strings.Split(strings.ToLower(path), "/")
	for _, policy := range slices.Backward(stricterPolicies) {
		if !s.KeysOnly && slices.Contains(parts, policy) {
			return policy
		}
	}
	return s.Default
}

// guarded reports whether a path falls to a route with a stricter policy.
func guarded(routes []envoy.Route, path string) bool {
	path = strings.ToLower(path)
	return slices.ContainsFunc(routes, func(r envoy.Route) bool { return r.AnyCase && below(path, strings.ToLower(r.Path)) })
}

// list says what each file is.
func (s *starter) list() {
	add := func(is bool, name, about string) {
		if is {
			s.Listed = append(s.Listed, struct{ Name, About string }{name, about})
		}
	}
	add(true, "gatehouse.yaml", "the configuration; each line says what it is for")
	add(true, "envoy.yaml", "the gateway, with your services behind it")
	add(s.Users, "users.yaml", "who can log in; secrets/first-login.json has the first password")
	add(s.Tokens, "keys/", "keys that sign tokens")
	add(true, "secrets/", "what nobody else may know")
	add(true, "README.md", "how to start it, and what to try")
}

// files makes all that is written.
func (s *starter) files() ([]starterFile, error) {
	var files []starterFile
	add := func(name, text string, secret bool) { files = append(files, starterFile{name, []byte(text), secret}) }
	for _, t := range []struct {
		name string
		is   bool
	}{{"gatehouse.yaml", true}, {"README.md", true}, {"users.yaml", s.Users}} {
		if !t.is {
			continue
		}
		text, err := s.fill(t.name)
		if err != nil {
			return nil, err
		}
		add(t.name, text, t.name == "users.yaml")
	}
	gateway, err := s.gateway()
	if err != nil {
		return nil, err
	}
	add("envoy.yaml", gateway, false)
	ignored, err := fs.ReadFile(initTemplates, "init/gitignore")
	if err != nil {
		return nil, err
	}
	add(".gitignore", string(ignored), false)
	add("secrets/backoffice.header", "x-internal-api-key: "+s.secrets.key+"\n", true)
	if s.Sessions {
		add("secrets/session-secrets", strings.Join(s.secrets.session, "\n")+"\n", true)
	}
	if s.Users {
		add("secrets/first-login.json", fmt.Sprintf("{\"email\":\"admin@example.com\",\"password\":%s}\n", quoted(s.secrets.password)), true)
	}
	if s.StorePassword {
		add("secrets/redis-password", s.storePassword+"\n", true)
	}
	if s.ClientSecret {
		add("secrets/oidc-client-secret", s.secrets.client+"\n", true)
	}
	if s.Tokens {
		add("keys/current.pem", string(s.secrets.current), true)
		add("keys/next.pem", string(s.secrets.next), true)
	}
	return files, nil
}

func (s *starter) fill(name string) (string, error) {
	t, err := template.New(name+".tmpl").Option("missingkey=error").ParseFS(initTemplates, "init/"+name+".tmpl")
	if err != nil {
		return "", err
	}
	var b strings.Builder
	if err := t.Execute(&b, s); err != nil {
		return "", err
	}
	return b.String(), nil
}

// gateway is the shipped one with the services behind it.
func (s *starter) gateway() (string, error) {
	var services []envoy.Service
	for _, u := range s.Upstreams {
		services = append(services, envoy.Service{Name: u.Name, Address: u.Address})
	}
	text, err := envoy.ForServices(services, s.Routes)
	if err != nil {
		return "", err
	}
	const shipped = "socket_address: {address: 127.0.0.1, port_value: 8080}"
	if strings.Count(text, shipped) != 1 {
		return "", errors.New("the shipped gateway has no port 8080 to be changed")
	}
	return strings.Replace(text, shipped, "socket_address: {address: 127.0.0.1, port_value: "+strconv.Itoa(s.Port)+"}", 1), nil
}

// leastSecret is how long a secret of sessions must be.
const leastSecret = 16

// expressSecrets reads the secrets of an express-session application, one in a line.
func expressSecrets(file string) ([]string, error) {
	text, err := readSecret("the secret of express-session", file)
	if err != nil {
		return nil, err
	}
	var secrets []string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			continue
		}
		if len(line) < leastSecret {
			return nil, fmt.Errorf("%s: a secret of %d bytes can be guessed, and init begins nothing with less than %d: in the application, put a new one in front (secret: [new, old]), and begin here with the new one when the sessions of the old one have ended; a configuration of your own may have both until then, with a warning",
				printable(file), len(line), leastSecret)
		}
		secrets = append(secrets, line)
	}
	return secrets, nil
}

// readSecret reads a file that somebody named.
func readSecret(what, file string) (string, error) {
	const most = 64 << 10
	info, err := os.Stat(file)
	if err == nil && (!info.Mode().IsRegular() || info.Size() > most) {
		err = errors.New("it is no file with a secret alone")
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(file) //nolint:gosec // G304: the user names the file
	}
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err
	}
	if err == nil && strings.TrimSpace(string(text)) == "" {
		err = errors.New("it is empty")
	}
	if err != nil {
		return "", fmt.Errorf("%s, %q: %w; put the secret alone into a file, and name that", what, file, err)
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r"), nil
}
