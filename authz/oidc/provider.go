package oidc

import (
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/claim"
)

const (
	flowLife = 10 * time.Minute // from the redirect to the provider to the callback
	leeway   = time.Minute      // how far a clock, theirs or that of another replica, may be off
)

// Options of a [Provider].
type Options struct {
	// Name is the provider's name in our URLs, and the member "provider" of the
	// sessions. It ties sealed flows to this provider.
	Name string
	// Issuer is the issuer's URL, as the provider itself writes it.
	Issuer   string
	ClientID string
	// ClientSecret is "" for a public client.
	ClientSecret string
	// RedirectURL is where the provider sends the browser back to.
	RedirectURL string
	// Scopes to ask for; default openid, profile and email. openid is asked for
	// in any case.
	Scopes []string
	Claims Claims
	// UserIDPrefix stands before the ids of this provider's users, so that they
	// are nobody else's.
	UserIDPrefix string
	// SealingKeys are the secrets from which the keys are derived that seal what
	// browsers keep. The first seals, all open; there is at least one.
	SealingKeys [][]byte
	// HTTPClient does the fetching. It brings what a private CA or a proxy needs;
	// its redirect policy is replaced and its cookie jar left out. nil means one
	// of our own.
	HTTPClient *http.Client
	// Timeout of one fetch. Default 5 s. A login takes up to four.
	Timeout time.Duration
	// Now is the clock; nil means [time.Now].
	Now func() time.Time
}

// Provider is an OpenID provider that people log in through. Safe for
// concurrent use.
type Provider struct {
	o         Options
	clients   clients
	directory *directory
	sealer    *sealer
}

// New returns a provider. It asks nobody yet. Its errors say what is wrong with
// the options.
func New(o Options) (*Provider, error) {
	issuer, err := url.Parse(o.Issuer)
	switch {
	case err != nil || issuer.Host == "" || issuer.User != nil || issuer.Scheme != "https" && issuer.Scheme != "http":
		return nil, errors.New("the issuer is no http or https URL")
	case strings.ContainsAny(o.Issuer, "?#"):
		return nil, errors.New("an issuer with a query or fragment can't be discovered")
	case o.ClientID == "":
		return nil, errors.New("no client id")
	case len(o.SealingKeys) == 0:
		return nil, errors.New("no sealing key")
	}
	if back, err := url.Parse(o.RedirectURL); err != nil || back.Host == "" {
		return nil, errors.New("the redirect URL is not absolute")
	}
	o.Scopes = slices.Clone(o.Scopes)
	if len(o.Scopes) == 0 {
		o.Scopes = []string{gooidc.ScopeOpenID, gooidc.ScopeProfile, gooidc.ScopeEmail}
	}
	if !slices.Contains(o.Scopes, gooidc.ScopeOpenID) {
		o.Scopes = slices.Insert(o.Scopes, 0, gooidc.ScopeOpenID)
	}
	if o.Claims == (Claims{}) {
		o.Claims = defaultClaims
	}
	o.Claims.UserID = cmp.Or(o.Claims.UserID, "sub")
	o.Timeout = cmp.Or(max(o.Timeout, 0), 5*time.Second)
	if o.Now == nil {
		o.Now = time.Now
	}
	s, err := newSealer(o.SealingKeys, o.Name, o.Issuer, o.ClientID)
	if err != nil {
		return nil, err
	}
	o.SealingKeys = nil
	c := newClients(o.HTTPClient, o.Timeout)
	return &Provider{
		o: o, clients: c, sealer: s,
		directory: &directory{issuer: o.Issuer, clients: c, timeout: o.Timeout, now: o.Now},
	}, nil
}

// Begin starts a login that ends at returnTo, which [Provider.Finish] returns
// as it is: whether it is a path of this origin is the caller's to check. One
// of more than 2048 bytes, which no cookie could keep, becomes /. The browser
// goes to location, and keeps sealed for ten minutes in a cookie that is named
// after flow, twelve letters and digits. ReasonIssuerUnavailable when nothing
// is known of the provider and it can't be reached.
func (p *Provider) Begin(ctx context.Context, returnTo string) (location, flow, sealed string, err error) {
	m, err := p.directory.metadata(ctx)
	if err != nil {
		return "", "", "", err
	}
	if len(returnTo) > maxReturnTo {
		returnTo = "/"
	}
	f := newFlow(p.o.Now(), returnTo)
	state := text(f.state[:])
	flow = flowName(state)
	location = p.oauth(m).AuthCodeURL(state,
		gooidc.Nonce(text(f.nonce[:])),
		oauth2.S256ChallengeOption(text(f.verifier[:])),
	)
	return location, flow, p.sealer.seal(flow, f), nil
}

// oauth is the OAuth 2.0 side of the provider. A public client names itself in
// the body (RFC 6749 section 4.1.3).
func (p *Provider) oauth(m *metadata) *oauth2.Config {
	c := &oauth2.Config{
		ClientID: p.o.ClientID, ClientSecret: p.o.ClientSecret,
		Endpoint: m.endpoint, RedirectURL: p.o.RedirectURL, Scopes: p.o.Scopes,
	}
	if p.o.ClientSecret == "" {
		c.Endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	return c
}

// Flow returns the name of the flow that a callback belongs to, by its state;
// "" when it has none that we could have made.
func (p *Provider) Flow(query url.Values) string {
	state, err := parameter(query, "state")
	if err != nil {
		return ""
	}
	return flowName(state)
}

// parameter returns a parameter, which may stand once at most (RFC 6749 section
// 3.1); "" where it is missing.
func parameter(query url.Values, name string) (string, error) {
	switch values := query[name]; len(values) {
	case 0:
		return "", nil
	case 1:
		return values[0], nil
	}
	return "", fmt.Errorf("the parameter %s stands twice", name)
}

// callback is what a provider says through the browser.
type callback struct{ state, iss, code, failure string }

func parseCallback(query url.Values) (c callback, err error) {
	for _, p := range []struct {
		name  string
		value *string
	}{{"state", &c.state}, {"iss", &c.iss}, {"code", &c.code}, {"error", &c.failure}} {
		if *p.value, err = parameter(query, p.name); err != nil {
			return c, err
		}
	}
	return c, nil
}

// Finish takes the provider's callback, with what the browser kept, and returns
// who has logged in and where to go on. sealed is worth something only once:
// the provider takes a code once, and the caller should clear the cookie.
//
// ReasonBadRequest when the callback does not fit what the browser kept, or
// that is older than ten minutes; ReasonLoginRefused when the provider refuses,
// or what it says proves nobody; ReasonIssuerUnavailable when it can't be
// reached, has a failure of its own, or does not know us.
func (p *Provider) Finish(ctx context.Context, query url.Values, sealed string) (l authz.Login, returnTo string, err error) {
	c, err := parseCallback(query)
	if err != nil {
		return l, "", authz.Refuse(authz.ReasonBadRequest, "the callback: %w", err)
	}
	f, err := p.resume(c, sealed)
	if err != nil {
		return l, "", authz.Refuse(authz.ReasonBadRequest, "the callback: %w", err)
	}
	m, err := p.directory.metadata(ctx)
	if err != nil {
		return l, "", err
	}
	if err := p.fromIssuer(c, m); err != nil {
		return l, "", authz.Refuse(authz.ReasonBadRequest, "the callback: %w", err)
	}
	switch {
	case c.failure != "":
		return l, "", refused("the provider's callback", c.failure)
	case c.code == "":
		return l, "", authz.Refuse(authz.ReasonBadRequest, "the callback has neither code nor error")
	}
	token, err := p.exchange(ctx, m, c.code, f)
	if err != nil {
		return l, "", err
	}
	claims, err := p.idToken(ctx, m, token, text(f.nonce[:]))
	if err != nil {
		return l, "", err
	}
	userInfo, err := p.userInfo(ctx, m, token, claims)
	if err != nil {
		return l, "", err
	}
	l, err = p.login(claims, userInfo)
	if err != nil {
		return authz.Login{}, "", authz.Refuse(authz.ReasonLoginRefused, "%w", err)
	}
	return l, f.returnTo, nil
}

// resume opens what the browser kept, and makes sure that the callback is the
// end of that very login.
func (p *Provider) resume(c callback, sealed string) (flow, error) {
	name := flowName(c.state)
	if name == "" {
		return flow{}, errors.New("no state of ours")
	}
	f, ok := p.sealer.open(name, sealed)
	if !ok {
		return flow{}, errors.New("this browser has not begun such a login")
	}
	if subtle.ConstantTimeCompare([]byte(text(f.state[:])), []byte(c.state)) != 1 {
		return flow{}, errors.New("the state of another login")
	}
	if age := p.o.Now().Sub(f.begun); age > flowLife || age < -leeway {
		return flow{}, fmt.Errorf("the login began %v ago; it may take %v", age.Round(time.Second), flowLife)
	}
	return f, nil
}

// fromIssuer makes sure that the callback is not another provider's answer (the
// mix-up attack, RFC 9207).
func (p *Provider) fromIssuer(c callback, m *metadata) error {
	switch {
	case c.iss == "" && m.issParameter:
		return errors.New("no parameter iss, which this provider always gives")
	case c.iss != "" && c.iss != p.o.Issuer:
		return errors.New("the parameter iss names another issuer")
	}
	return nil
}

// refused is the refusal for an OAuth 2.0 error code. The code may come through
// the browser, so it is quoted, and not all of a long one.
func refused(who, code string) error {
	shown := strconv.QuoteToASCII(code[:min(len(code), 40)])
	switch code {
	case "server_error", "temporarily_unavailable":
		return authz.Refuse(authz.ReasonIssuerUnavailable, "%s: error %s", who, shown)
	case "invalid_client", "unauthorized_client":
		return authz.Refuse(authz.ReasonIssuerUnavailable, "%s: error %s: the provider doesn't take us for its client; check client id and secret", who, shown)
	}
	return authz.Refuse(authz.ReasonLoginRefused, "%s: error %s", who, shown)
}

// exchange gets the tokens for a code. Errors are made anew: those of the
// library hold what the provider answered.
func (p *Provider) exchange(ctx context.Context, m *metadata, code string, f flow) (*oauth2.Token, error) {
	const who = "the token endpoint"
	token, err := p.oauth(m).Exchange(gooidc.ClientContext(ctx, p.clients.call), code, oauth2.VerifierOption(text(f.verifier[:])))
	if err == nil {
		return token, nil
	}
	if failed, ok := errors.AsType[*url.Error](err); ok { // no answer
		return nil, authz.Refuse(authz.ReasonIssuerUnavailable, "%s: %w", who, clip(failed.Err))
	}
	answer, ok := errors.AsType[*oauth2.RetrieveError](err)
	switch {
	case !ok:
		return nil, authz.Refuse(authz.ReasonLoginRefused, "%s gave no tokens that can be read", who)
	case answer.ErrorCode != "":
		return nil, refused(who, answer.ErrorCode)
	}
	return nil, authz.Refuse(authz.ReasonIssuerUnavailable, "%s answered %d", who, answer.Response.StatusCode)
}

// userInfo asks the userinfo endpoint, where there is one, if any of the mapped
// claims is not in the ID token. Else it returns nil. The answer must be about
// the same subject (OpenID Connect Core 1.0 section 5.3.2).
func (p *Provider) userInfo(ctx context.Context, m *metadata, token *oauth2.Token, idToken claimSet) (claimSet, error) {
	missing := func(name string) bool { return claim.NewPath(name).In(idToken) == nil }
	if m.userInfo == "" || !slices.ContainsFunc(p.o.Claims.names(), missing) {
		return nil, nil
	}
	body, err := p.getUserInfo(ctx, m.userInfo, token)
	if err != nil {
		return nil, authz.Refuse(authz.ReasonIssuerUnavailable, "the userinfo endpoint: %w", clip(err))
	}
	claims, err := claim.Decode(body)
	if err != nil {
		return nil, authz.Refuse(authz.ReasonLoginRefused, "the userinfo endpoint: %w", err)
	}
	if sub, ok := claims["sub"].(string); !ok || sub != idToken["sub"] {
		return nil, authz.Refuse(authz.ReasonLoginRefused, "the userinfo endpoint speaks of another subject")
	}
	return claims, nil
}

func (p *Provider) getUserInfo(ctx context.Context, location string, token *oauth2.Token) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, location, http.NoBody)
	if err != nil {
		return nil, errors.New("a malformed URL")
	}
	req.Header.Set("Accept", "application/json")
	token.SetAuthHeader(req)
	res, err := p.clients.call.Do(req)
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return nil, failed.Err
	}
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("answered %d", res.StatusCode)
	}
	return io.ReadAll(res.Body)
}

// login is who the claims speak of.
func (p *Provider) login(idToken, userInfo claimSet) (authz.Login, error) {
	u, err := p.o.Claims.user(idToken, userInfo, p.o.UserIDPrefix)
	if err != nil {
		return authz.Login{}, err
	}
	l := authz.Login{Identity: u.Identity, Organizations: u.Organizations, AuthTime: p.o.Now()}
	authTime, err := claim.Date(idToken, "auth_time")
	if err != nil {
		return authz.Login{}, err
	}
	if !authTime.IsZero() && authTime.Before(l.AuthTime) {
		l.AuthTime = authTime
	}
	l.Provider.Issuer = p.o.Issuer
	if l.Provider.Subject, err = claim.NewPath("sub").Text(idToken); err != nil {
		return authz.Login{}, err
	}
	if l.Provider.SessionID, err = claim.NewPath("sid").Text(idToken); err != nil {
		return authz.Login{}, err
	}
	if p.o.Name != "" {
		l.Values = map[string]any{"provider": p.o.Name}
	}
	return l, nil
}
