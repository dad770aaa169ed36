package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
)

// format is the rule for one sort of text.
type format struct {
	// pattern is for the JSON Schema, in the part of the language that RE2
	// and ECMA 262 share. It accepts whatever check accepts, and maybe more;
	// "" accepts all.
	pattern string
	// check returns the text in its normal form, or what is wrong with it.
	// The message never repeats the text, which may come from the environment.
	check func(text string) (string, error)
	// words say the rule, in Markdown, as what the text is.
	words string
}

var formats = map[string]format{
	"listen":       {`^(unix:///.+|.*:[0-9]+)$`, checkListen, "`host:port`, or `unix:///path/to.sock`"},
	"origin":       {`^[Hh][Tt][Tt][Pp][Ss]?://[^/?#]+/?$`, checkOrigin, "scheme and host, such as `https://gateway.example.com`"},
	"url":          {`^[Hh][Tt][Tt][Pp][Ss]?://.+$`, checkURL, "an `https://` URL (or `http://`)"},
	"redis_url":    {`^(rediss?(\+(sentinel|cluster))?|unix|embedded)://`, checkRedisURL, "the URL of a store"},
	"redis_user":   {visiblePattern, matching(visiblePattern, "expected visible ASCII characters without spaces"), "visible ASCII without spaces"},
	"host_name":    {hostNamePattern, matching(hostNamePattern, "expected a host name or an address, without a port"), "a host name or an address, without a port"},
	"redis_prefix": {visiblePattern, matching(visiblePattern, "expected visible ASCII characters"), "visible ASCII without spaces"},
	"cookie_name":  {cookiePattern, matching(cookiePattern, "a cookie's name has letters, digits and !#$%&'*+-.^_`|~ only (RFC 6265)"), "the name of a cookie (RFC 6265)"},
	"field":        {``, checkField, "the name of a field, or a dotted path"},
	"claim":        {``, checkClaim, "the name of a claim, or a dotted path"},
	"issuer":       {`^[!-~]+$`, checkIssuer, "visible ASCII without spaces"},
	"header":       {headerPattern, checkHeader, "the name of a header: letters, digits and up to six hyphens"},
	"audience":     {audiencePattern, matching(audiencePattern, "the name of a service has up to 255 visible ASCII characters"), "the name of a service: up to 255 visible ASCII characters"},
	"attribute":    {`^(claims|session|identity)\.[^.]`, checkAttribute, "`claims.…`, `session.…` or `identity.…`"},
	"metadata":     {namePattern, checkMetadata, "up to 64 letters, digits, `_`, `.` and `-`"},
	"name":         {namePattern, matching(namePattern, "a name has up to 64 letters, digits, dots, hyphens and underscores, and begins with none of dot and hyphen"), "up to 64 letters, digits, `_`, `.` and `-`"},
	"segment":      {segmentPattern, matching(segmentPattern, "a name that stands in a URL has up to 64 letters, digits, hyphens and underscores"), "up to 64 letters, digits, `_` and `-`"},
	"scope":        {scopePattern, matching(scopePattern, `a scope has visible ASCII characters only, without " and \ (RFC 6749)`), "visible ASCII, without `\"` and `\\` (RFC 6749)"},
	"prefix":       {visiblePattern, matching(visiblePattern, "expected visible ASCII characters"), "visible ASCII without spaces"},
	"host":         {`^[^/:]+$`, checkHost, "a host name, or `*.example.com`"},
	"route_path":   {`^(/|\*$)`, checkRoutePath, "a path, or a prefix that ends in `*`"},
	"method":       {methodPattern, checkMethod, "an HTTP method"},
	"local_url":    {`^/`, checkLocalURL, "a path of the same origin"},
	"sha256":       {sha256Pattern, checkSHA256, "64 hexadecimal digits"},
	"auditfile":    {``, checkAuditFile, "a path, `stdout` or `stderr`"},
	"collector":    {collectorPattern, checkCollector, "`host:port`"},
	"resource":     {resourcePattern, checkResource, "up to 128 letters, digits, `_`, `.` and `-`"},
}

const (
	cookiePattern  = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"
	headerPattern  = `^[A-Za-z0-9]+(-[A-Za-z0-9]+){0,6}$`
	visiblePattern = `^[!-~]+$`

	audiencePattern = `^[!-~]{1,255}$`
	// A name, or an address of IPv4 or IPv6 without brackets.
	hostNamePattern = `^([A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*)$`
	segmentPattern  = `^[A-Za-z0-9_-]{1,64}$`
	scopePattern    = `^[!#-\[\]-~]+$`
	namePattern     = `^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$`
	methodPattern   = `^[A-Za-z]+(-[A-Za-z]+)*$`
	sha256Pattern   = `^[0-9A-Fa-f]{64}$`
)

func matching(pattern, complaint string) func(string) (string, error) {
	re := regexp.MustCompile(pattern)
	return func(s string) (string, error) {
		if !re.MatchString(s) {
			return "", errors.New(complaint)
		}
		return s, nil
	}
}

// hasControl reports whether s has a control character or, with space, a
// space.
func hasControl(s string, space bool) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || space && r == ' ' })
}

// unixPathMax is what fits into sockaddr_un on Linux, its final zero byte
// left out.
const unixPathMax = 107

func checkListen(s string) (string, error) {
	if file, ok := strings.CutPrefix(s, unixScheme); ok {
		switch {
		case !path.IsAbs(file) || path.Clean(file) != file || file == "/":
			return "", errors.New("expected unix:// and the absolute path of a socket, as in unix:///run/gatehouse/check.sock")
		case len(file) > unixPathMax:
			return "", fmt.Errorf("the path of a socket has at most %d bytes; choose a shorter one", unixPathMax)
		case hasControl(file, false):
			return "", errors.New("control character in the path of the socket; take it out")
		}
		return s, nil
	}
	host, port, ok := cutPort(s)
	if !ok {
		return "", errors.New("expected host:port, as in 127.0.0.1:9001 or [::1]:9001, or unix:///path/to.sock")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return "", errors.New("expected a port from 0 to 65535 after the last colon")
	}
	if !validHost(host) && host != "" {
		return "", errors.New("expected a host name or an IP address before the port; IPv6 addresses stand in brackets")
	}
	return s, nil
}

// cutPort splits host:port at the last colon. The brackets around an IPv6
// address stay. Without a port the host is all of s.
func cutPort(s string) (host, port string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.HasSuffix(s, "]") {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// validHost reports whether s is a host name, an IPv4 address, or an IPv6
// address in brackets; no port. Link-local IPv6 addresses may have a zone.
func validHost(s string) bool {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		addr, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		return err == nil && addr.Is6() && strings.HasSuffix(s, "]") && !hasControl(s, true)
	}
	host, err := authz.CanonicalHost(s)
	return err == nil && host != "" && !strings.Contains(s, ":")
}

// webURL parses an http or https URL that names a host and nobody's password.
func webURL(s string) (*url.URL, error) {
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return nil, errors.New("a URL has visible ASCII characters only; percent-encode the others")
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Opaque != "":
		return nil, errors.New("malformed URL; expected something like https://idp.example.com/path")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("expected a URL that begins with https:// (or http://)")
	case u.User != nil:
		return nil, errors.New("a user name or password in this URL would end up in logs; take it out")
	case strings.Contains(s, "#"):
		return nil, errors.New("a URL to fetch has no fragment; take out what begins with #")
	}
	host, port, hasPort := cutPort(u.Host)
	if n, err := strconv.ParseUint(port, 10, 16); hasPort && (err != nil || n == 0) {
		return nil, errors.New("expected a port from 1 to 65535 after the colon")
	}
	if !validHost(host) || strings.Contains(host, "%") {
		return nil, errors.New("expected a host name or an IP address after ://")
	}
	return u, nil
}

func checkURL(s string) (string, error) {
	_, err := webURL(s)
	return s, err
}

// checkOrigin returns an origin as browsers write it (RFC 6454 section 6.2).
func checkOrigin(s string) (string, error) {
	u, err := webURL(s)
	if err != nil {
		return "", err
	}
	if u.Path != "" && u.Path != "/" || strings.Contains(s, "?") {
		return "", errors.New("expected scheme and host only, as in https://gateway.example.com; take the rest away")
	}
	host := strings.ToLower(u.Host)
	switch u.Scheme {
	case "http":
		host = strings.TrimSuffix(host, ":80")
	case "https":
		host = strings.TrimSuffix(host, ":443")
	}
	return u.Scheme + "://" + host, nil
}

// checkIssuer checks an iss claim, which is compared byte by byte and
// therefore stays as it is. One that is a web URL has to be a proper one.
func checkIssuer(s string) (string, error) {
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", errors.New("an issuer has visible ASCII characters only")
	}
	if lower := strings.ToLower(s); strings.HasPrefix(lower, "http:") || strings.HasPrefix(lower, "https:") {
		if _, err := webURL(s); err != nil {
			return "", err
		}
	}
	return s, nil
}

// redisSchemes are the ways to a store, without the s for TLS.
var redisSchemes = []string{"redis", "redis+sentinel", "redis+cluster", "unix", "embedded"}

// checkRedisURL checks the form of the store's URL, as session.Open reads it.
func checkRedisURL(s string) (string, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	plain := plainRedisScheme(scheme)
	if !ok || !slices.Contains(redisSchemes, plain) {
		return "", errors.New("expected redis://, rediss://, redis+sentinel://, redis+cluster://, unix:// or embedded://")
	}
	rest, query, hasQuery := strings.Cut(rest, "?")
	authority, tail, _ := strings.Cut(rest, "/")
	hosts := authority
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		hosts = authority[i+1:]
		if err := checkRedisUser(authority[:i]); err != nil {
			return "", err
		}
	}
	switch {
	case hasControl(s, true):
		return "", errors.New("space or control character in the URL; percent-encode it")
	case strings.Contains(s, "#") || hasQuery && plain != "unix":
		return "", errors.New("expected no ? and no #; further settings are keys of the redis section, and in a password they are written %3F and %23")
	case strings.Contains(tail, "@"):
		return "", errors.New("a slash before the @; write it %2F in a password")
	case plain == "unix":
		return s, checkRedisSocket(hosts, tail, query)
	case plain == "embedded" && hosts == "" && tail == "":
		return s, nil
	}
	if err := checkRedisHosts(plain, hosts); err != nil {
		return "", err
	}
	return s, checkRedisTail(plain, tail)
}

// plainRedisScheme takes the s of TLS from a scheme.
func plainRedisScheme(scheme string) string {
	if rest, ok := strings.CutPrefix(scheme, "rediss"); ok {
		return "redis" + rest
	}
	return scheme
}

func checkRedisUser(user string) error {
	name, password, ok := strings.Cut(user, ":")
	if !ok {
		return errors.New("a user without a password; write user:password@, or user:@ together with password_file")
	}
	for _, part := range []string{name, password} {
		if _, err := url.PathUnescape(part); err != nil || strings.Contains(part, "@") {
			return errors.New("user name or password is malformed; percent-encode % and @ in them")
		}
	}
	return nil
}

func checkRedisSocket(host, socket, query string) error {
	if _, err := url.PathUnescape(socket); host != "" || socket == "" || err != nil {
		return errors.New("expected the absolute path of a socket, as in unix:///run/redis.sock")
	}
	db, ok := strings.CutPrefix(query, "db=")
	if query != "" && !ok {
		return errors.New("behind the ? of a socket only db=number is possible; take the rest away")
	}
	return checkRedisDB(db)
}

func checkRedisHosts(plain, hosts string) error {
	nodes := strings.Split(hosts, ",")
	if len(nodes) > 1 && (plain == "redis" || plain == "embedded") {
		return errors.New("expected one host; several are for redis+sentinel:// and redis+cluster://")
	}
	for _, node := range nodes {
		host, port, hasPort := cutPort(node)
		if _, err := strconv.ParseUint(port, 10, 16); hasPort && err != nil {
			return errors.New("expected a port from 0 to 65535 after the host")
		}
		if !validHost(host) {
			return errors.New("expected host or host:port after :// or the @")
		}
	}
	return nil
}

func checkRedisTail(plain, tail string) error {
	switch plain {
	case "redis+sentinel":
		master, db, _ := strings.Cut(tail, "/")
		if _, err := url.PathUnescape(master); master == "" || err != nil {
			return errors.New("expected the master's name after the hosts, as in redis+sentinel://h1:26379,h2:26379/mymaster/0")
		}
		return checkRedisDB(db)
	case "redis+cluster", "embedded":
		if tail != "" {
			return errors.New("only redis:// and redis+sentinel:// have the number of a database; leave the part behind the hosts away")
		}
		return nil
	}
	return checkRedisDB(tail)
}

func checkRedisDB(db string) error {
	if _, err := strconv.ParseUint(db, 10, 31); db != "" && err != nil {
		return errors.New("expected the number of a database after the last slash")
	}
	return nil
}

func checkField(s string) (string, error) {
	switch {
	case hasControl(s, false):
		return "", errors.New("control character in the name of a field; take it out")
	case s == "cookie":
		return "", errors.New(`the field "cookie" of a session record belongs to express-session; name another`)
	}
	return s, nil
}

func checkClaim(s string) (string, error) {
	if slices.Contains(strings.Split(s, "."), "") || hasControl(s, false) {
		return "", errors.New("expected the path of a claim, names joined by dots, as in realm_access.roles")
	}
	return s, nil
}

// reservedHeaders mean something to gateways, servers or Gatehouse itself, and
// can't carry an identity.
var reservedHeaders = []string{
	"authorization", "proxy-authorization", "proxy-authenticate", "www-authenticate",
	"cookie", "set-cookie", "host", "date", "expect", "origin", "referer", "range", "upgrade", "via",
	"connection", "proxy-connection", "keep-alive", "te", "trailer", "transfer-encoding",
	"content-length", "content-type", "content-encoding", "accept", "accept-encoding",
	"cache-control", "user-agent", "forwarded", "x-request-id", authz.HeaderAPIKey, authz.HeaderAssertion,
	"x-real-ip", "x-http-method", "x-http-method-override", "x-method-override",
	"x-original-url", "x-original-uri", "x-rewrite-url", "x-rewrite-uri",
	// What an answer of the forward-auth door has beside the identity.
	"location", "retry-after", authz.HeaderRateLimit, authz.HeaderRateLimitPolicy,
}

var reservedHeaderPrefixes = []string{"x-forwarded-", "x-envoy-", "x-gatehouse-", "sec-", "grpc-"}

// headerHyphens bounds the hyphens in a header's name: every spelling with _
// for - is removed from requests, and their number doubles with each.
const headerHyphens = 6

var headerName = regexp.MustCompile(headerPattern)

func checkHeader(s string) (string, error) {
	s = strings.ToLower(s)
	switch {
	case strings.Count(s, "-") > headerHyphens:
		return "", fmt.Errorf("at most %d hyphens, since each doubles the number of spellings to remove from requests; choose another name", headerHyphens)
	case !headerName.MatchString(s):
		return "", errors.New("expected a header name of letters, digits and single hyphens, as in x-user-id")
	case slices.Contains(reservedHeaders, s) || slices.ContainsFunc(reservedHeaderPrefixes, func(p string) bool { return strings.HasPrefix(s, p) }):
		return "", errors.New("this header means something else already; choose another name")
	}
	return s, nil
}

// checkAttribute checks what a policy tells of the caller.
func checkAttribute(s string) (string, error) {
	a, err := authz.ParseAttribute(s)
	if err != nil {
		return "", err
	}
	if head, _, _ := strings.Cut(a.Path(), "."); a.Kind() == authz.KindSession && head == session.OwnMember {
		return "", errors.New("the field " + session.OwnMember + " of a session record is Gatehouse's own; name another")
	}
	return s, nil
}

var metadataName = regexp.MustCompile(namePattern)

func checkMetadata(s string) (string, error) {
	switch {
	case !metadataName.MatchString(s):
		return "", errors.New("a field's name has up to 64 letters, digits, dots, hyphens and underscores, and begins with none of dot and hyphen")
	case slices.Contains(authz.MetadataFields, s):
		return "", errors.New("every decision has a field of this name; choose another")
	}
	return s, nil
}

func checkHost(s string) (string, error) {
	if s == "*" {
		return s, nil
	}
	name, wildcard := strings.CutPrefix(s, "*.")
	switch {
	case strings.ContainsAny(name, ":[/"):
		return "", errors.New("expected a host name alone; scheme and port play no part in the match")
	case strings.Contains(name, "*"):
		return "", errors.New("a star stands only for whole names below a domain, as in *.example.com")
	}
	host, err := authz.CanonicalHost(name)
	if err != nil || host == "" {
		return "", errors.New("expected a host name, as in api.example.com or *.example.com")
	}
	if wildcard {
		host = "*." + host
	}
	return host, nil
}

func checkRoutePath(s string) (string, error) {
	prefix := strings.TrimSuffix(s, "*")
	switch {
	case s == "*":
		return s, nil
	case !strings.HasPrefix(s, "/"):
		return "", errors.New("expected a path that starts with a slash, such as /admin/*")
	case strings.Contains(prefix, "*"):
		return "", errors.New("a star may only be the last character, as in /admin/*; the rest of the path is matched as it is")
	case strings.Contains(prefix, "?"):
		return "", errors.New("a query plays no part in the match; end the path before the ?")
	case strings.Contains(prefix, ";"):
		return "", errors.New("requests with ; in the path are refused, so this would never match; leave it out")
	}
	decoded, err := authz.CanonicalPath(prefix)
	if err != nil {
		return "", fmt.Errorf("no request gets through with such a path: %w; write it in its plain form, as in /admin/*", errors.Unwrap(err))
	}
	if strings.ContainsAny(decoded, ";") {
		return "", errors.New("requests with ; in the path are refused, so this would never match; leave it out")
	}
	return s, nil
}

var methodName = regexp.MustCompile(methodPattern)

func checkMethod(s string) (string, error) {
	if !methodName.MatchString(s) {
		return "", errors.New("expected an HTTP method, such as GET; leave methods away to match all")
	}
	return strings.ToUpper(s), nil
}

// checkLocalURL checks where a browser may be sent: a path of this origin.
// Browsers read // and /\ at the start as another host, and drop tabs and
// line ends before they look.
func checkLocalURL(s string) (string, error) {
	pathPart, _, _ := strings.Cut(s, "?")
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '\\' || r == '#' }) {
		return "", errors.New("expected visible ASCII characters without backslash and #")
	}
	if _, err := authz.CanonicalPath(pathPart); err != nil {
		return "", errors.New("expected a path of the same origin that begins with one slash, such as /login")
	}
	return s, nil
}

func checkSHA256(s string) (string, error) {
	if ok, err := regexp.MatchString(sha256Pattern, s); err != nil || !ok {
		return "", errors.New("expected the SHA-256 of the key as 64 hexadecimal digits; printf %s \"$KEY\" | sha256sum prints it")
	}
	return strings.ToLower(s), nil
}

// checkAuditFile is for a file that need not be there yet.
func checkAuditFile(s string) (string, error) {
	switch {
	case hasControl(s, false):
		return "", errors.New("control character in the path; take it out")
	case strings.HasSuffix(s, "/"):
		return "", errors.New("a path that ends in / is a directory; expected a file, stdout or stderr")
	}
	return s, nil
}
