package attack

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// gate is a gateway with its own check, in front of the echo, over one connection
// that it keeps. Without a weakness it is a strict one. Each weakness is something
// that a gateway has been seen to do.
type gate struct {
	weak     map[string]bool
	echo     string // address
	url      *url.URL
	key      *ecdsa.PrivateKey
	secret   []byte // of cookies
	mu       sync.Mutex
	listener net.Listener
	upstream net.Conn
	in       *bufio.Reader
}

const (
	gatePublic    = "/public/echo"
	gateProtected = "/users/echo"
	gateIssuer    = "https://issuer.example"
)

// startGate runs a gate, and an echo behind it, until the test ends.
func startGate(t *testing.T, weaknesses ...string) *gate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	g := &gate{weak: map[string]bool{}, key: key, secret: []byte(rand.Text()), echo: startEcho(t)}
	for _, w := range weaknesses {
		g.weak[w] = true
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g.listener = listener
	g.url = &url.URL{Scheme: "http", Host: listener.Addr().String()}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = conn.Close() }()
				g.serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		g.drop()
		wg.Wait()
	})
	return g
}

func startEcho(t *testing.T) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- ServeEcho(ctx, listener) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-done)
	})
	return listener.Addr().String()
}

// options attack the gate with all that can be given.
func (g *gate) options() Options {
	jwks, _ := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: g.key.Public(), KeyID: "k1", Algorithm: "ES256", Use: "sig"}}})
	return Options{
		Target: g.url, Protected: gateProtected, Public: gatePublic, Headers: []string{"x-user-id", "x-user-roles"},
		Cookie: "sessionId=" + g.cookie("bob"), Token: g.issue("bob"), JWKS: jwks, SigningKey: g.key,
	}
}

func (g *gate) cookie(user string) string {
	m := hmac.New(sha256.New, g.secret)
	m.Write([]byte(user))
	return "s%3A" + user + "." + base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

func (g *gate) issue(user string) string {
	now := time.Now().Unix()
	header := map[string]any{"alg": "ES256", "typ": "at+jwt", "kid": "k1"}
	claims := map[string]any{"iss": gateIssuer, "aud": "api", "sub": user, "iat": now, "exp": now + 600}
	input := encodePart(header, "") + "." + encodePart(claims, "")
	signature, err := sign("ES256", g.key, input)
	if err != nil {
		panic(err)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// message is a request on its way through the gate.
type message struct {
	method, target, version string
	lines                   []string // of the head, as they came
	body                    []byte   // as it goes on
	trailers                []string
	h2, decoded             bool // the body was in chunks
}

type refusal int

// serve answers the requests of a connection.
func (g *gate) serve(conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	in := bufio.NewReader(conn)
	if start, _ := in.Peek(4); string(start) == "PRI " {
		g.serveHTTP2(conn, in)
		return
	}
	for {
		m, status := g.read(in)
		if m == nil && status == 0 {
			return
		}
		var response []byte
		if status == 0 {
			response, status = g.handle(m)
		}
		if status != 0 {
			_, _ = fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", status, http.StatusText(int(status)))
			return
		}
		if _, err := conn.Write(response); err != nil {
			return
		}
	}
}

// read reads one request; a strict gate takes nothing that two servers could read
// differently.
func (g *gate) read(in *bufio.Reader) (*message, refusal) {
	var head []byte
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		c, err := in.ReadByte()
		if err != nil || len(head) > 64<<10 {
			return nil, 0
		}
		head = append(head, c)
	}
	lines := strings.Split(strings.TrimSuffix(string(head), "\r\n\r\n"), "\r\n")
	m := &message{lines: lines[1:]}
	m.method, m.target, _ = strings.Cut(lines[0], " ")
	m.target, m.version, _ = lastCut(m.target, " ")
	if !g.weak["lenient syntax"] {
		if !regexp.MustCompile(`^(GET|HEAD|POST|OPTIONS) [^ ]+ HTTP/1\.1$`).MatchString(lines[0]) && !g.weak["one method"] {
			return nil, 400
		}
		for _, line := range m.lines {
			if !strictLine.MatchString(line) {
				if g.weak["lenient framing"] && regexp.MustCompile("^(?s)(?i:transfer-encoding|x-other)").MatchString(line) || g.weak["lenient framing"] && strings.HasPrefix(line, " ") {
					continue
				}
				return nil, 400
			}
		}
		if len(values(m.lines, "host")) != 1 {
			return nil, 400
		}
	}
	return m, g.readBody(in, m)
}

var strictLine = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\\x00-\\x08\\x0a-\\x1f\\x7f]*$")

var lenientLength = regexp.MustCompile(`[0-9]+\s*$`)

func (g *gate) readBody(in *bufio.Reader, m *message) refusal {
	length, coding := values(m.lines, "content-length"), values(m.lines, "transfer-encoding")
	switch {
	case g.weak["lenient framing"] && len(length) > 0: // the last number of the last one
		n, err := strconv.Atoi(strings.TrimSpace(lenientLength.FindString(length[len(length)-1])))
		if err != nil {
			return 400
		}
		m.body = make([]byte, n)
		if _, err := io.ReadFull(in, m.body); err != nil {
			return 400
		}
	case len(coding) > 0 && (len(length) > 0 || len(coding) > 1 || coding[0] != "chunked"), len(length) > 1,
		len(length) == 1 && !regexp.MustCompile(`^[0-9]+$`).MatchString(length[0]):
		return 400
	case len(coding) == 1:
		return g.readChunked(in, m)
	case len(length) == 1:
		n, _ := strconv.Atoi(length[0])
		m.body = make([]byte, n)
		if _, err := io.ReadFull(in, m.body); err != nil {
			return 400
		}
	}
	return 0
}

func (g *gate) readChunked(in *bufio.Reader, m *message) refusal {
	var decoded []byte
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return 400
		}
		text := strings.TrimSpace(line)
		if g.weak["lenient framing"] { // wraps around, and takes what is a number in Go
			text = strings.TrimPrefix(text, "0x")
			text = text[max(0, len(text)-16):]
		}
		n, err := strconv.ParseUint(text, 16, 64)
		if err != nil || n > 1<<20 {
			return 400
		}
		chunk := make([]byte, n)
		if _, err := io.ReadFull(in, chunk); err != nil {
			return 400
		}
		decoded = append(decoded, chunk...)
		if n > 0 {
			_, _ = in.ReadString('\n')
			continue
		}
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return 400
			}
			if line = strings.TrimRight(line, "\r\n"); line == "" {
				m.body, m.decoded = decoded, true
				return 0
			}
			m.trailers = append(m.trailers, line)
		}
	}
}

// values returns the values of a header, its name in any case and white space
// around it dropped.
func values(lines []string, name string) []string {
	var all []string
	for _, line := range lines {
		if n, v, found := strings.Cut(line, ":"); found && strings.EqualFold(strings.TrimSpace(n), name) {
			all = append(all, strings.TrimSpace(v))
		}
	}
	return all
}

func value(lines []string, name string) string { return strings.Join(values(lines, name), ", ") }

// handle checks a request and passes it on.
func (g *gate) handle(m *message) ([]byte, refusal) {
	if g.weak["upgrades"] && value(m.lines, "upgrade") != "" {
		return []byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"), 0
	}
	protected, status := g.route(m)
	if status != 0 {
		return nil, status
	}
	user := ""
	if protected && !g.weak["no check"] && !g.exempt(m) {
		if user = g.authenticate(m); user == "" {
			return nil, 401
		}
		if m.method == "POST" && value(m.lines, "sec-fetch-site") == "cross-site" && value(m.lines, "cookie") != "" && !g.weak["no cross-site check"] {
			return nil, 403
		}
	}
	return g.forward(m, user, protected)
}

var strictTarget = regexp.MustCompile(`^(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+(\?[A-Za-z0-9_=./&%:-]*)?$`)

// route says whether a path needs a login. A strict gate knows its paths, in one
// spelling, and checks all that is not public.
func (g *gate) route(m *message) (protected bool, status refusal) {
	target := m.target
	if g.weak["checks what the client says"] {
		for _, name := range []string{"x-forwarded-uri", "x-original-uri"} {
			if v := value(m.lines, name); v != "" {
				target = v
			}
		}
		for _, name := range []string{"x-forwarded-method", "x-original-method"} {
			if value(m.lines, name) == "OPTIONS" {
				return false, 0
			}
		}
	}
	uri := target
	target, _, _ = strings.Cut(target, "?")
	below := func(p, prefix string) bool { return p == prefix || strings.HasPrefix(p, prefix+"/") }
	switch {
	case g.weak["path as it stands"]: // lists what needs a login, by its spelling
		return below(target, gateProtected) && !below(target, gatePublic), 0
	case g.weak["exact paths"]:
		return target == gateProtected, 0
	case g.weak["resolved path"]: // and passes on what stands there
		decoded := decode(target)
		if strings.Contains(decoded, "#") && strings.HasSuffix(decoded, gatePublic) {
			return false, 0
		}
		return !below(path.Clean(decoded), gatePublic), 0
	case g.weak["patterns"]:
		if strings.HasSuffix(target, ".css") || strings.Contains(uri, gatePublic) {
			return false, 0
		}
		return true, 0
	case g.weak["lenient syntax"]:
		return !strings.Contains(uri, gatePublic) && !strings.HasPrefix(target, "@"), 0
	case g.weak["lenient HTTP/2"] && strings.HasPrefix(m.target, gatePublic):
		return false, 0
	case !strictTarget.MatchString(m.target):
		return false, 400
	case below(target, gatePublic):
		return false, 0
	case below(target, gateProtected):
		return true, 0
	}
	return false, 404
}

// exempt says whom a gate does not check.
func (g *gate) exempt(m *message) bool {
	switch {
	case g.weak["trusted callers"]:
		return strings.HasPrefix(value(m.lines, "user-agent"), "GoogleHC/") || strings.HasPrefix(value(m.lines, "x-forwarded-for"), "127.") ||
			slices.Contains(values(m.lines, "host"), "localhost") || value(m.lines, "x-middleware-subrequest") != ""
	case g.weak["trusts identity"]:
		return value(m.lines, "x-user-id") != "" && value(m.lines, "cookie") == "" && value(m.lines, "authorization") == ""
	case g.weak["one method"]:
		return m.method != "GET" || m.version != "HTTP/1.1"
	}
	return false
}

// authenticate returns the user, "" for nobody.
func (g *gate) authenticate(m *message) string {
	if g.weak["any header will do"] && value(m.lines, "authorization") != "" {
		return "somebody"
	}
	if g.weak["tokens in queries"] && strings.Contains(m.target, "access_token=") {
		_, token, _ := strings.Cut(m.target, "access_token=")
		return g.verify(token)
	}
	tokens := values(m.lines, "authorization")
	if len(tokens) == 1 && g.weak["checks one, uses another"] {
		tokens = strings.Split(tokens[0], ", ")
	}
	cookies := values(m.lines, "cookie")
	if len(tokens) > 1 || len(tokens) == 1 && len(cookies) > 0 {
		if !g.weak["checks one, uses another"] {
			return ""
		}
		if g.verify(strings.TrimPrefix(tokens[0], "Bearer ")) != "" || g.session(cookies) != "" {
			return subject(tokens[len(tokens)-1])
		}
	}
	if len(tokens) == 1 {
		token, found := strings.CutPrefix(tokens[0], "Bearer ")
		if !found {
			return ""
		}
		if g.weak["sessions as tokens"] && token == "bob" {
			return token
		}
		return g.verify(token)
	}
	return g.session(cookies)
}

var sessionForm = regexp.MustCompile(`(?:^|[;, ="])(?i:s|%73)essionId="?([^;,"]*)`)

// session returns the user of the session cookie.
func (g *gate) session(cookies []string) string {
	header := strings.Join(cookies, "; ")
	var found []string
	if g.weak["uses the first cookie"] || g.weak["uses the last cookie"] { // having checked that one is good
		good := false
		for _, m := range sessionForm.FindAllStringSubmatch(header, -1) {
			found = append(found, m[1])
			good = good || g.sessionOf(m[1]) != ""
		}
		switch {
		case !good:
			return ""
		case g.weak["uses the first cookie"]:
			return idOf(found[0])
		}
		for _, f := range found { // the one that is no good, wherever it stands
			if g.sessionOf(f) == "" {
				return idOf(f)
			}
		}
		return idOf(found[len(found)-1])
	}
	for pair := range strings.SplitSeq(header, ";") {
		name, v, _ := strings.Cut(strings.TrimSpace(pair), "=")
		if name == "sessionId" {
			found = append(found, v)
		}
	}
	if len(found) != 1 {
		return ""
	}
	if g.weak["unsigned cookies"] {
		return idOf(strings.Trim(found[0], `"`))
	}
	return g.sessionOf(found[0])
}

func idOf(v string) string {
	id, _, _ := strings.Cut(strings.TrimPrefix(v, "s%3A"), ".")
	if id == "" {
		return "the empty one"
	}
	return id
}

func (g *gate) sessionOf(v string) string {
	id := idOf(v)
	if hmac.Equal([]byte(g.cookie(id)), []byte(v)) {
		return id
	}
	return ""
}

// subject is what a token claims, whoever says so.
func subject(token string) string {
	parts := strings.Split(strings.TrimPrefix(token, "Bearer "), ".")
	if len(parts) < 2 {
		return ""
	}
	var claims struct{ Sub string }
	text, _ := base64.RawURLEncoding.DecodeString(parts[1])
	_ = json.Unmarshal(text, &claims)
	return claims.Sub
}

// verify returns a token's subject, "" for a token that is not good.
func (g *gate) verify(token string) string {
	if g.weak["unverified tokens"] {
		return subject(token)
	}
	if g.weak["JSON tokens"] && strings.HasPrefix(token, "{") {
		var t struct{ Protected, Payload, Signature string }
		if json.Unmarshal([]byte(token), &t) == nil && g.verify(t.Protected+"."+t.Payload+"."+t.Signature) != "" {
			return subject(strings.TrimPrefix(token, `{"`))
		}
	}
	if g.weak["encrypted tokens"] && strings.Count(token, ".") == 4 {
		object, err := jose.ParseEncryptedCompact(token, []jose.KeyAlgorithm{jose.ECDH_ES}, []jose.ContentEncryption{jose.A256GCM})
		if err != nil {
			return ""
		}
		inner, err := object.Decrypt(g.key)
		if err != nil {
			return ""
		}
		return subject(string(inner))
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	headerText, _ := base64.RawURLEncoding.DecodeString(parts[0])
	claimsText, _ := base64.RawURLEncoding.DecodeString(parts[1])
	signature, _ := base64.RawURLEncoding.DecodeString(parts[2])
	if g.weak["algorithm none"] { // takes the first of two members
		headerText = []byte(strings.Replace(string(headerText), `,"alg":"ES256"`, "", 1))
	}
	var header struct {
		Alg, Typ, Kid, Jku, X5u string
		Jwk                     *jose.JSONWebKey
		X5c                     []string
		Crit                    []string
	}
	if json.Unmarshal(headerText, &header) != nil || !g.signed(token, header.Alg, parts, signature, keySource{header.Jwk, header.X5c, header.Jku + header.X5u, header.Kid}) {
		return ""
	}
	return g.claims(string(headerText), string(claimsText), header.Typ, header.Crit)
}

type keySource struct {
	jwk *jose.JSONWebKey
	x5c []string
	url string
	kid string
}

func (g *gate) signed(token, alg string, parts []string, signature []byte, from keySource) bool {
	input := parts[0] + "." + parts[1]
	switch {
	case g.weak["algorithm none"] && (strings.EqualFold(alg, "none") || alg == ""), g.weak["no signature"] && len(signature) == 0:
		return true
	case g.weak["psychic signatures"] && alg == "ES256" && (len(bytes.Trim(signature, "\x00")) == 0 || len(signature) == 8):
		return len(signature) > 0
	case g.weak["HMAC"] && alg == "HS256":
		der, _ := x509.MarshalPKIXPublicKey(g.key.Public())
		text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
		jwk, _ := jose.JSONWebKey{Key: g.key.Public(), KeyID: "k1", Algorithm: "ES256", Use: "sig"}.MarshalJSON()
		for _, secret := range [][]byte{der, text, bytes.TrimSpace(text), jwk, nil, []byte("secret"), []byte("gatehouse-attack")} {
			if hmac.Equal(mac("HS256", secret, input), signature) {
				return true
			}
		}
		return false
	}
	key := g.key.Public()
	if g.weak["keys of the token's"] {
		switch {
		case from.jwk != nil:
			key = from.jwk.Key
		case len(from.x5c) > 0:
			der, _ := base64.StdEncoding.DecodeString(from.x5c[0])
			if certificate, err := x509.ParseCertificate(der); err == nil {
				key = certificate.PublicKey
			}
		case from.url != "":
			response, err := http.Get(from.url)
			if err != nil {
				return false
			}
			defer func() { _ = response.Body.Close() }()
		}
	}
	object, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		// go-jose refuses what it doesn't know as critical: verify by hand.
		k := g.key.Public().(*ecdsa.PublicKey)
		return g.weak["claims unread"] && len(signature) == 64 && verifyES256(k, input, signature)
	}
	if _, err = object.Verify(key); err != nil && g.weak["claims unread"] {
		return verifyES256(g.key.Public().(*ecdsa.PublicKey), input, signature)
	}
	return err == nil
}

func (g *gate) claims(headerText, claimsText, typ string, crit []string) string {
	var c struct {
		Sub, Iss string
		Aud      any
		Exp, Nbf int64
	}
	if json.Unmarshal([]byte(claimsText), &c) != nil {
		return ""
	}
	now := time.Now().Unix()
	if g.weak["claims unread"] {
		return c.Sub
	}
	if typ != "at+jwt" || crit != nil || strings.Count(claimsText, `"sub"`) != 1 || strings.Count(headerText, `"alg"`) > 1 && !g.weak["algorithm none"] ||
		c.Iss != gateIssuer || c.Aud != "api" || c.Exp < now || c.Nbf > now {
		return ""
	}
	return c.Sub
}

var (
	hopByHop = []string{"connection", "proxy-connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings", "content-length"}
	lies     = []string{
		"x-forwarded-for", "x-forwarded-host", "x-forwarded-server", "x-forwarded-prefix", "x-forwarded-uri", "x-forwarded-method", "x-forwarded-client-cert",
		"x-real-ip", "forwarded", "x-original-url", "x-original-uri", "x-rewrite-url", "x-http-method-override", "x-http-method", "x-method-override",
		"x-envoy-original-path", "x-envoy-internal", "x-envoy-external-address", "x-envoy-force-trace", "x-envoy-original-dst-host",
	}
	identity = []string{"x-user-id", "x-user-roles"}
)

// forward sends a request to the echo and returns its answer.
func (g *gate) forward(m *message, user string, protected bool) ([]byte, refusal) {
	var out []string
	dropped := map[string]bool{}
	for _, line := range m.lines {
		name, _, _ := strings.Cut(line, ":")
		if !g.weak["lenient syntax"] {
			name = strings.TrimSpace(name)
		}
		if g.takesOut(name, dropped, protected) || m.decoded && strings.EqualFold(name, "transfer-encoding") {
			continue
		}
		out = append(out, strings.TrimPrefix(line, notByName))
	}
	if user != "" {
		out = append(out, "x-user-id: "+user, `x-user-roles: ["member"]`)
	}
	out = append(out, "x-forwarded-for: 127.0.0.1")
	if g.weak["drops what Connection names"] {
		named := strings.ToLower(strings.Join([]string{value(m.lines, "connection"), value(m.lines, "proxy-connection")}, ","))
		out = slices.DeleteFunc(out, func(line string) bool {
			name, _, _ := strings.Cut(line, ":")
			return slices.Contains(strings.FieldsFunc(named, func(r rune) bool { return r == ',' || r == ' ' }), strings.ToLower(name))
		})
	}
	target := m.target
	switch {
	case g.weak["writes the path decoded"]:
		target = strings.ReplaceAll(decode(target), "\r\n", " HTTP/1.1\r\n")
		if strings.Contains(target, "\r\n") {
			target += "\r\nx-rest: 1" // what stood behind the target
			out = append([]string{"x-version: HTTP/1.1"}, out...)
		}
	}
	line := m.method + " " + target + " HTTP/1.1"
	if strings.Contains(target, "\r\n") && !m.h2 {
		line = m.method + " " + target
	}
	body := m.body
	switch {
	case g.weak["lenient framing"] && !m.decoded:
	case g.weak["trailers"] && len(m.trailers) > 0:
		out = append(out, "transfer-encoding: chunked")
		body = fmt.Appendf(nil, "%x\r\n%s\r\n0\r\n%s\r\n\r\n", len(body), body, strings.Join(m.trailers, "\r\n"))
	case len(body) > 0:
		out = append(out, fmt.Sprintf("content-length: %d", len(body)))
	}
	return g.exchange(line+"\r\n"+strings.Join(out, "\r\n")+"\r\n\r\n"+string(body), m.method)
}

// takesOut reports whether a header goes no further.
func (g *gate) takesOut(name string, dropped map[string]bool, protected bool) bool {
	is := func(list []string) bool {
		return slices.ContainsFunc(list, func(n string) bool {
			switch {
			case g.weak["exact names"]:
				return strings.EqualFold(n, name)
			case g.weak["names in lower case"]:
				return n == name
			}
			return fold(n) == fold(name)
		})
	}
	lower := strings.ToLower(name)
	switch {
	case slices.Contains(hopByHop, lower):
		return !g.weak["lenient framing"] || lower != "content-length" && lower != "transfer-encoding"
	case slices.Contains(lies, lower):
		return !g.weak["passes on what the client says"]
	case is(identity):
		if g.weak["keeps identity"] || g.weak["keeps identity of nobody"] && !protected {
			return false
		}
		if g.weak["takes out the first"] {
			was := dropped[lower]
			dropped[lower] = true
			return !was
		}
		return true
	}
	return false
}

// exchange asks the echo over the one connection, and takes the next answer on it
// for the answer.
func (g *gate) exchange(request, method string) ([]byte, refusal) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.upstream == nil {
		conn, err := net.Dial("tcp", g.echo)
		if err != nil {
			return nil, 502
		}
		g.upstream, g.in = conn, bufio.NewReader(conn)
	}
	_ = g.upstream.SetDeadline(time.Now().Add(time.Second))
	if _, err := io.WriteString(g.upstream, request); err != nil {
		g.dropLocked()
		return nil, 502
	}
	response, err := http.ReadResponse(g.in, &http.Request{Method: method})
	if err != nil {
		g.dropLocked()
		return nil, 502
	}
	defer func() { _ = response.Body.Close() }()
	var b bytes.Buffer
	if err := response.Write(&b); err != nil {
		g.dropLocked()
		return nil, 502
	}
	return b.Bytes(), 0
}

func (g *gate) drop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dropLocked()
}

func (g *gate) dropLocked() {
	if g.upstream != nil {
		_ = g.upstream.Close()
		g.upstream = nil
	}
}

// serveHTTP2 answers the request on stream 1.
func (g *gate) serveHTTP2(conn net.Conn, in *bufio.Reader) {
	if _, err := io.CopyN(io.Discard, in, int64(len(http2.ClientPreface))); err != nil {
		return
	}
	framer := http2.NewFramer(conn, in)
	decoder := hpack.NewDecoder(4096, nil)
	if framer.WriteSettings() != nil {
		return
	}
	var (
		fields, trailers []hpack.HeaderField
		body             []byte
	)
	for ended := false; !ended; {
		frame, err := framer.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.HeadersFrame:
			all, err := decoder.DecodeFull(frame.HeaderBlockFragment())
			if err != nil {
				return
			}
			if fields == nil {
				fields = all
			} else {
				trailers = all
			}
			ended = frame.StreamEnded()
		case *http2.DataFrame:
			body = append(body, frame.Data()...)
			ended = frame.StreamEnded()
		}
	}
	m, status := g.fromHTTP2(fields, trailers, body)
	var response []byte
	if status == 0 {
		response, status = g.handle(m)
	}
	text := []byte{}
	if status == 0 {
		status = 502
		if r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(response)), nil); err == nil {
			text, _ = io.ReadAll(r.Body)
			_ = r.Body.Close()
			status = refusal(r.StatusCode)
		}
	}
	if g.weak["resets HTTP/2"] {
		_ = framer.WriteRSTStream(1, http2.ErrCodeRefusedStream)
		return
	}
	if g.weak["says goodbye first"] {
		_ = framer.WriteGoAway(math.MaxInt32, http2.ErrCodeNo, nil)
	}
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	head := func(status int) {
		block.Reset()
		_ = encoder.WriteField(hpack.HeaderField{Name: ":status", Value: strconv.Itoa(status)})
		_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	}
	if g.weak["sends hints first"] {
		head(http.StatusEarlyHints)
	}
	head(int(status))
	_ = framer.WriteData(1, !g.weak["cuts answers off"], text)
}

var (
	strictH2Name  = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9a-z-]+$")
	strictH2Value = regexp.MustCompile(`^[^\x00-\x08\x0a-\x1f\x7f]*$`)
)

// notByName marks a line that came as a field of another name.
const notByName = "\x01"

// fromHTTP2 makes HTTP/1 of it, by putting texts together.
func (g *gate) fromHTTP2(fields, trailers []hpack.HeaderField, body []byte) (*message, refusal) {
	m := &message{version: "HTTP/1.1", body: body, h2: true}
	pseudo := map[string]string{}
	var cookies []string
	for i, f := range fields {
		strict := !g.weak["lenient HTTP/2"]
		if strings.HasPrefix(f.Name, ":") {
			if _, twice := pseudo[f.Name]; strict && (twice || i > 3 || strings.ContainsAny(f.Value, " \r\n")) || strict && f.Name == ":scheme" && f.Value != "http" {
				return nil, 400
			}
			if _, twice := pseudo[f.Name]; !twice { // the first one is checked
				pseudo[f.Name] = f.Value
			}
			continue
		}
		if strict && (!strictH2Name.MatchString(f.Name) || !strictH2Value.MatchString(f.Value) || slices.Contains(hopByHop[:7], f.Name)) ||
			strict && f.Name == "content-length" && f.Value != strconv.Itoa(len(body)) {
			return nil, 400
		}
		if f.Name == "cookie" {
			cookies = append(cookies, f.Value)
			continue
		}
		if strings.Contains(f.Name, ":") { // so it is none of the names to take out
			f.Name = notByName + f.Name
		}
		m.lines = append(m.lines, f.Name+": "+f.Value)
	}
	m.lines = append(m.lines, "host: "+pseudo[":authority"])
	if cookies != nil {
		m.lines = append(m.lines, "cookie: "+strings.Join(cookies, "; "))
	}
	for _, f := range trailers {
		m.trailers = append(m.trailers, f.Name+": "+f.Value)
	}
	m.method, m.target = pseudo[":method"], pseudo[":path"]
	return m, 0
}
