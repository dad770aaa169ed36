package extauthz_test

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// fuzzedCheck makes a check of fuzzed text: the lines are headers, by name and
// colon; the names are short for those that matter, so that fuzzing finds
// them.
func fuzzedCheck(method, host, path, lines string) check {
	names := map[string]string{
		"c": "cookie", "a": "authorization", "k": "x-internal-api-key", "o": "origin", "s": "sec-fetch-site", "m": "sec-fetch-mode",
		"u": "upgrade", "x": "x-user-id", "y": "x_user_id", "r": "x-requested-with", "t": "accept",
	}
	c := check{method: method, host: host, path: path}
	for line := range strings.SplitSeq(lines, "\n") {
		name, value, _ := strings.Cut(line, ":")
		if long, ok := names[name]; ok {
			name = long
		}
		if strings.ContainsFunc(name, func(r rune) bool { return r == ':' || r >= utf8.RuneSelf }) {
			continue // no header name: Envoy refuses it
		}
		if strings.ContainsAny(value, "\r\x00") {
			continue // no header value: RFC 9110 section 5.5, and Envoy refuses it
		}
		c.headers = append(c.headers, header{strings.ToLower(name), value})
	}
	c.method, c.host, c.path = bangs(c.method), bangs(c.host), bangs(c.path)
	return c
}

// Whatever a client sends: both header forms get the same reply, which is
// sound, and an identity only with a credential that proves it.
func FuzzCheck(f *testing.F) {
	f.Add("GET", "app.example.com", "/", "c:sessionId=signed.alice")
	f.Add("GET", "app.example.com", "/", "c:a=b\nc:sessionId=signed.bob; a=\xff\nx:root\ny:root")
	f.Add("POST", "app.example.com:443", "/admin/x", "c:sessionId=signed.alice\no:https://app.example.com\ns:same-origin")
	f.Add("GET", "api.example.com", "/;x", "a:Bearer token-of-alice\na:Basic x")
	f.Add("GET", "", "/internal/", "k:"+apiKey)
	f.Add("GET", "", "/internal/", "k:"+legacyKey)
	f.Add("GET", "h", "/web/a?b=c", "m:navigate\nt:text/html")
	f.Add("GET", "h", "/optional/", "a:bearer \xed\xa0\x80\nc:,sessionId=\"signed.bob\"")
	f.Add("GET", "h", "/trial/", "u:websocket\nc:sessionId=signed.long")
	f.Add("\xff", "\xc3", "/\xe2\x82", ":\n:\nc:\nc:=;,\nc:sessionId=signed.visitor")
	f.Fuzz(func(t *testing.T, method, host, path, lines string) {
		c := fuzzedCheck(method, host, path, lines)
		allowed := ask(t, newServer(t), c).GetOkResponse()
		if allowed == nil {
			return
		}
		id, known := headerValues(allowed.GetHeaders())["x-user-id"]
		if !known {
			return
		}
		shown := false
		for _, h := range c.headers {
			switch h.name {
			case "cookie":
				shown = shown || strings.Contains(h.value, "signed.")
			case "authorization":
				shown = shown || strings.Contains(h.value, "token-of-")
			case "x-internal-api-key":
				shown = shown || h.value == apiKey
			}
		}
		if !shown {
			t.Fatalf("allowed as %s by no credential: %+v", id, c)
		}
	})
}
