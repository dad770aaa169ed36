package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/services/demopage"
)

// demoLine is one thing to try.
type demoLine struct {
	about   string
	method  string // "" for GET, or for POST where there is a body
	path    string
	headers []string // "name: value"
	body    string   // JSON; "" for none
	jar     string   // file that keeps the cookies; "" for none
	status  int      // what it will answer; tried before it is printed
}

// lines logs people in, through the gateway as anybody would, and returns what
// to try: first with credentials that are there, then from the beginning.
func (d *demo) lines(ctx context.Context, c *demoClient) ([]demoLine, error) {
	admin, err := c.session(ctx, demopage.Alice)
	if err != nil {
		return nil, err
	}
	member, err := c.session(ctx, demopage.Bob)
	if err != nil {
		return nil, err
	}
	bearer, err := c.token(ctx, demopage.Bob)
	if err != nil {
		return nil, err
	}
	revoked, err := c.revokedToken(ctx, demopage.Bob)
	if err != nil {
		return nil, err
	}
	cookie := func(value string) string { return "Cookie: sessionId=" + value }
	const inside, app, victim = "bob.cookies", "bob-app.cookies", "carol.cookies"
	return []demoLine{
		{about: "Bob's session", path: "/users/me", headers: []string{cookie(member)}, status: 200},
		{about: "Bob's token", path: "/orders", headers: []string{"Authorization: Bearer " + bearer}, status: 200},
		{about: "Alice is an administrator", path: "/users/admin/stats", headers: []string{cookie(admin)}, status: 200},
		{about: "Bob is not", path: "/users/admin/stats", headers: []string{cookie(member)}, status: 403},
		{about: "Bob says that he is root; see what arrives", path: "/users/echo", headers: []string{cookie(member), "x-user-id: root", `x-user-roles: ["admin"]`}, status: 200},
		{about: "a revoked token", path: "/orders", headers: []string{"Authorization: Bearer " + revoked}, status: 401},
		{about: "nobody", path: "/users/me", status: 401},

		{about: "Bob logs in; the cookie goes into a file", path: "/auth/login", body: loginBody(demopage.Bob), jar: inside, status: 200},
		{about: "he works in his other organization", method: http.MethodPatch, path: "/auth/session", body: `{"organizationId":"org-1"}`, jar: inside, status: 200},
		{about: "with the same cookie the next request is there", path: "/orders", jar: inside, status: 200},
		{about: "he logs out", method: http.MethodPost, path: "/auth/logout", jar: inside, status: 200},
		{about: "he logs in for a token; the refresh token goes into a file", path: "/auth/token", body: loginBody(demopage.Bob), jar: app, status: 200},
		{about: "the next access token", method: http.MethodPost, path: "/auth/refresh", jar: app, status: 200},
		{about: "Carol logs in", path: "/auth/login", body: loginBody(demopage.Carol), jar: victim, status: 200},
		{about: "Alice revokes everything of Carol's", path: "/auth/revoke-all-sessions", headers: []string{cookie(admin)}, body: `{"userId":"carol"}`, status: 200},
		{about: "Carol's next request", path: "/users/me", jar: victim, status: 401},
		{about: "a login service of your own asks for a session", path: "/auth/sessions", headers: []string{"x-internal-api-key: " + d.secrets.InternalKey}, body: `{"userId":"dora","roles":["member"],"organizationId":"org-1"}`, status: 201},
	}, nil
}

// attackLine logs Bob in once more, for the attack kit, puts his credentials into
// files and returns the command that attacks the gateway with them.
func (d *demo) attackLine(ctx context.Context, c *demoClient) (string, error) {
	session, err := c.session(ctx, demopage.Bob)
	if err != nil {
		return "", err
	}
	token, err := c.token(ctx, demopage.Bob)
	if err != nil {
		return "", err
	}
	cookieFile, tokenFile := filepath.Join(d.dir, "attack.cookie"), filepath.Join(d.dir, "attack.token")
	for file, text := range map[string]string{cookieFile: "sessionId=" + session, tokenFile: token} {
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%s attack --target %s --cookie-file '%s' --token-file '%s' --jwks %s/.well-known/jwks.json --signing-key-file '%s'",
		os.Args[0], c.base, cookieFile, tokenFile, c.base, filepath.Join(d.dir, signingKeyFile)), nil
}

// loginBody is the body of a login.
func loginBody(p demopage.Person, more ...string) string {
	body := map[string]string{"email": p.Email, "password": p.Password}
	for i := 0; i+1 < len(more); i += 2 {
		body[more[i]] = more[i+1]
	}
	text, err := json.Marshal(body)
	if err != nil {
		panic("demo: strings have a JSON form: " + err.Error())
	}
	return string(text)
}

// curl is the line as a person would type it. Files with cookies are in dir.
func (l demoLine) curl(base, dir string) string {
	var b strings.Builder
	b.WriteString("curl -i " + base + l.path)
	if l.method != "" {
		b.WriteString(" -X " + l.method)
	}
	if l.jar != "" {
		file := filepath.Join(dir, l.jar)
		b.WriteString(" -b '" + file + "' -c '" + file + "'")
	}
	for _, h := range l.headers {
		b.WriteString(" -H '" + h + "'")
	}
	if l.body != "" {
		b.WriteString(" -H 'content-type: application/json' -d '" + l.body + "'")
	}
	return b.String()
}

// demoClient does what curl would do with the lines, through the gateway.
type demoClient struct {
	base string
	jars map[string]http.CookieJar // by the names of their files
}

// demoPatience is how long a line is tried again while a server says that it can't tell: a
// machine that is starting all of this may stand still for longer than a store is waited for.
const demoPatience = 15 * time.Second

// do sends a line's request and returns the cookies and the body of the answer,
// an error for any other status than the line's.
func (c *demoClient) do(ctx context.Context, l demoLine) ([]*http.Cookie, []byte, error) {
	const pause = 200 * time.Millisecond
	for end := time.Now().Add(demoPatience); ; {
		status, cookies, body, err := c.send(ctx, l)
		switch {
		case err != nil:
			return nil, nil, err
		case status == l.status:
			return cookies, body, nil
		case status < http.StatusInternalServerError || time.Now().After(end):
			return nil, nil, fmt.Errorf("%s answers %d instead of %d: %s", l.path, status, l.status, bytes.TrimSpace(body))
		}
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// send sends a line's request once.
func (c *demoClient) send(ctx context.Context, l demoLine) (status int, cookies []*http.Cookie, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	method := l.method
	switch {
	case method == "" && l.body != "":
		method = http.MethodPost
	case method == "":
		method = http.MethodGet
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base+l.path, strings.NewReader(l.body))
	if err != nil {
		return 0, nil, nil, err
	}
	if l.body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	request.Header.Set("User-Agent", "gatehouse-demo")
	for _, h := range l.headers {
		name, value, _ := strings.Cut(h, ": ")
		request.Header.Set(name, value)
	}
	jar, err := c.jar(l.jar)
	if err != nil {
		return 0, nil, nil, err
	}
	response, err := (&http.Client{Jar: jar}).Do(request)
	if err != nil {
		return 0, nil, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(response.Body, 64<<10))
	return response.StatusCode, response.Cookies(), body, err
}

// jar returns the cookie jar that stands for a file, nil for "".
func (c *demoClient) jar(name string) (http.CookieJar, error) {
	if name == "" {
		return nil, nil //nolint:nilnil // http.Client takes nil for no jar
	}
	if jar, ok := c.jars[name]; ok {
		return jar, nil
	}
	jar, err := cookiejar.New(nil)
	if err == nil {
		c.jars[name] = jar
	}
	return jar, err
}

// try returns status and the beginning of the answer.
func (c *demoClient) try(ctx context.Context, l demoLine) (string, error) {
	const most = 100
	_, body, err := c.do(ctx, l)
	if err != nil {
		return "", err
	}
	text := strings.Join(strings.Fields(string(body)), " ")
	if len(text) > most {
		text = text[:most] + "…"
	}
	return strconv.Itoa(l.status) + " " + text, nil
}

// session logs somebody in and returns the value of the session cookie.
func (c *demoClient) session(ctx context.Context, p demopage.Person) (string, error) {
	cookies, _, err := c.do(ctx, demoLine{path: "/auth/login", body: loginBody(p), status: http.StatusOK})
	if err != nil {
		return "", fmt.Errorf("log %s in: %w", p.ID, err)
	}
	for _, cookie := range cookies {
		if cookie.Name == "sessionId" {
			return cookie.Value, nil
		}
	}
	return "", fmt.Errorf("log %s in: there is no cookie sessionId", p.ID)
}

// token logs somebody in and returns an access token.
func (c *demoClient) token(ctx context.Context, p demopage.Person) (string, error) {
	_, body, err := c.do(ctx, demoLine{path: "/auth/token", body: loginBody(p, "client", "mobile"), status: http.StatusOK})
	if err != nil {
		return "", fmt.Errorf("get a token for %s: %w", p.ID, err)
	}
	var answer struct{ AccessToken string }
	if err := json.Unmarshal(body, &answer); err != nil || answer.AccessToken == "" {
		return "", errors.Join(fmt.Errorf("get a token for %s: there is none in the answer", p.ID), err)
	}
	return answer.AccessToken, nil
}

// revokedToken gets a token and revokes it, as RFC 7009 says.
func (c *demoClient) revokedToken(ctx context.Context, p demopage.Person) (string, error) {
	token, err := c.token(ctx, p)
	if err != nil {
		return "", err
	}
	_, _, err = c.do(ctx, demoLine{
		path: "/auth/revoke", headers: []string{"Content-Type: application/x-www-form-urlencoded"},
		body: url.Values{"token": {token}}.Encode(), status: http.StatusOK,
	})
	if err != nil {
		return "", fmt.Errorf("revoke a token: %w", err)
	}
	return token, nil
}
