package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authapi"
	"github.com/gatehouse-auth/gatehouse/authz/token"
)

func tokensCommand(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tokens",
		Short: "Mint, inspect and revoke tokens",
		Long: `Works with the keys and the Redis of the configuration, whether or not a server runs.
Tokens are read from standard input, so that shell history and process lists don't show
them.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(tokensMintCommand(env), tokensInspectCommand(env), tokensRevokeCommand(env))
	return cmd
}

// minting is what 'tokens mint' is to make.
type minting struct {
	userID    string
	audiences []string
	ttl       time.Duration
	pairs     []string
	claims    map[string]any
	asJSON    bool
}

func tokensMintCommand(env environment) *cobra.Command {
	var file configFlag
	var m minting
	cmd := &cobra.Command{
		Use:   "mint --user ID",
		Short: "Mint an access token for a user",
		Long: `Mints an access token (RFC 9068) as POST /auth/token does, signed with the first of
tokens.signing_keys, and prints it alone:

  curl -H "authorization: Bearer $(gatehouse tokens mint --user alice)" …

Whoever has it is that user until it expires or is revoked. It lives tokens.access_ttl at
most, as all tokens that Gatehouse issues, and has no refresh token. It carries no identity
but the user's id: email, roles and organization are those of the profile. A user without
a profile, or one who is locked out, is warned about on standard error, and so is a Redis
out of reach: then nobody knows whether what is minted is good.

  --claim scope=orders:read     a claim that is a text
  --claim 'level:=3'            a claim that is JSON

--json prints {"accessToken", "expiresIn", "expiresAt", "jti"}.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if m.userID == "" {
				return usageError{errors.New("--user is missing: whose token is it? As in 'gatehouse tokens mint --user alice'")}
			}
			err := checkUser(m.userID)
			if err == nil {
				m.claims, err = parseClaims(m.pairs)
			}
			if err != nil {
				return err
			}
			o, err := newOperator(cmd, file, env)
			if err != nil {
				return err
			}
			return o.mint(cmd.Context(), m)
		},
	}
	file.register(cmd)
	jsonFlag(cmd, &m.asJSON)
	cmd.Flags().StringVarP(&m.userID, "user", "u", "", "the user's `ID`; required")
	cmd.Flags().StringArrayVarP(&m.audiences, "audience", "a", nil, "an `AUDIENCE` out of tokens.audiences; several times for more (default all of them)")
	cmd.Flags().DurationVar(&m.ttl, "ttl", 0, "life of the token, at most tokens.access_ttl (default that)")
	cmd.Flags().StringArrayVar(&m.pairs, "claim", nil, "a further claim, as `NAME=TEXT` or NAME:=JSON; several times for more")
	completeFlag(cmd, "user", completeUser(env))
	completeFlag(cmd, "audience", completeAudience(env))
	return cmd
}

// parseClaims reads further claims: name=text, or name:=JSON.
func parseClaims(pairs []string) (map[string]any, error) {
	claims := map[string]any{}
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		name, isJSON := strings.CutSuffix(name, ":")
		if !ok || name == "" {
			return nil, usageError{fmt.Errorf("--claim %q: write NAME=TEXT or NAME:=JSON", pair)}
		}
		if err := token.FreeClaim(name); err != nil {
			return nil, usageError{fmt.Errorf("--claim: %w", err)}
		}
		if _, twice := claims[name]; twice {
			return nil, usageError{fmt.Errorf("--claim %s is there twice; 'name:=[\"a\",\"b\"]' is an array", name)}
		}
		claims[name] = value
		if isJSON {
			if !json.Valid([]byte(value)) {
				return nil, usageError{fmt.Errorf("--claim %s: what follows := is not JSON; write = for a text", name)}
			}
			claims[name] = json.RawMessage(value)
		}
	}
	return claims, nil
}

var errNoSigningKeys = errors.New("no token is issued here: there are no tokens.signing_keys; 'gatehouse keys new' makes one")

func (o *operator) mint(ctx context.Context, m minting) error {
	t := o.cfg.Tokens
	for _, audience := range m.audiences {
		if !slices.Contains(t.Audiences, audience) {
			return usageError{fmt.Errorf("--audience %q is none of tokens.audiences (%s): the gate would refuse the token", audience, strings.Join(t.Audiences, ", "))}
		}
	}
	switch {
	case m.ttl < 0 || m.ttl > 0 && m.ttl < time.Second:
		return usageError{fmt.Errorf("--ttl %v: want a second at least", m.ttl)}
	case m.ttl > t.AccessTTL:
		return usageError{fmt.Errorf("--ttl %v is more than tokens.access_ttl (%v), and no token that is issued here lives longer", m.ttl, t.AccessTTL)}
	}
	cfg := *o.cfg
	if m.ttl > 0 {
		cfg.Tokens.AccessTTL = m.ttl
	}
	if len(m.audiences) > 0 {
		cfg.Tokens.Audiences = slices.Compact(slices.Sorted(slices.Values(m.audiences)))
	}
	issuer, err := newIssuer(&cfg)
	switch {
	case err != nil:
		return err
	case issuer == nil:
		return errNoSigningKeys
	}
	now := time.Now()
	raw, minted, err := issuer.Mint(token.Claims{Subject: m.userID, After: o.markOf(ctx, m.userID), Further: m.claims})
	if err != nil {
		return err
	}
	attrs := []slog.Attr{slog.String("user", m.userID), slog.String("token", authz.Handle(minted.TokenID)), slog.Time("expires", minted.Expires)}
	if len(m.claims) > 0 {
		attrs = append(attrs, slog.String("claims", strings.Join(slices.Sorted(maps.Keys(m.claims)), ",")))
	}
	if err := o.permit(ctx, "mint", attrs...); err != nil {
		return err
	}
	o.record(ctx, "mint", nil, attrs...)
	if !m.asJSON {
		_, err = fmt.Fprintln(o.env.stdout, raw)
		return err
	}
	return emitJSON(o.env.stdout, struct {
		AccessToken string  `json:"accessToken"`
		ExpiresIn   int64   `json:"expiresIn"` // seconds
		ExpiresAt   instant `json:"expiresAt"`
		TokenID     string  `json:"jti"`
	}{raw, int64(math.Ceil(minted.Expires.Sub(now).Seconds())), instant(minted.Expires), minted.TokenID})
}

// markOf returns the user's mark, which a new token has to lie behind, and warns
// of what will have the token refused.
func (o *operator) markOf(ctx context.Context, userID string) time.Time {
	if o.embedded() {
		o.warn("the store is embedded in its server: whether the user is known, and not locked out, can't be seen from here")
		return time.Time{}
	}
	err := o.open()
	if err != nil {
		o.warn("%v", err)
		return time.Time{}
	}
	defer func() { _ = o.close() }()
	standing, err := o.store.UserStanding(ctx, userID)
	switch {
	case err != nil:
		o.warn("whether the user is known, and not locked out, is not known: %v", o.explained(ctx, err))
	case standing.Disabled():
		o.warn("%q is locked out (disabled): the gate refuses the token", userID)
	case standing.Profile == nil && o.cfg.Identity.Profiles:
		if listed := o.listed(ctx, userID); listed != nil && listed.ID == userID {
			o.warn("%q has no profile, which the first login for tokens makes: the token is of a user without email, roles and organization", userID)
		} else {
			o.warn("%q has no profile: the token is of a user without email, roles and organization, if there is one of that id at all", userID)
		}
	}
	return standing.RevokedBefore
}

func tokensInspectCommand(env environment) *cobra.Command {
	var file configFlag
	var asJSON, offline bool
	cmd := &cobra.Command{
		Use:   "inspect [TOKEN|-]",
		Short: "Say what a token is, and whether it is good, or why not",
		Long: `Reads a token from standard input and says what is in it, whose it is, whether its
signature and its times are right, and what stands against it in Redis: revoked by its
jti, with its refresh family or its user, or a user who is locked out. An access token is
judged as the gate judges it, before any policy; a refresh token as POST /auth/refresh
does.

  pbpaste | gatehouse tokens inspect

Keys of issuers that publish them are fetched. --offline asks neither Redis nor an issuer:
then all that is said is whether the token is authentic and in time.

It exits 0 for a good token, 1 for any other, and where that can't be known. Neither the
token nor its signature is printed. --json prints {"valid", "kind", "reason", "problem",
"issuer", "signature", "header", "claims", "standing"}; signature is one of valid, invalid,
unchecked.`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, err := readToken(cmd, env, args)
			if err != nil {
				return err
			}
			o, err := newOperator(cmd, file, env)
			if err != nil {
				return err
			}
			if !offline {
				if err := o.open(); err != nil {
					return err
				}
				defer func() { _ = o.close() }()
			}
			return o.inspect(cmd.Context(), raw, asJSON)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	file.register(cmd)
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&offline, "offline", false, "ask neither Redis nor an issuer")
	return cmd
}

// The kinds of tokens.
const (
	kindAccess       = "access"
	kindRefreshToken = "refresh"
	kindUnknown      = "unknown"
)

// What is known about a signature.
const (
	signatureValid     = "valid"
	signatureInvalid   = "invalid"
	signatureUnchecked = "unchecked"
)

// finding is what was found out about a token. It holds no credential.
type finding struct {
	Valid     bool   `json:"valid"`
	Kind      string `json:"kind"`
	Reason    string `json:"reason,omitempty"`  // a word of the log, where it is not valid
	Problem   string `json:"problem,omitempty"` // the same in a sentence
	Issuer    string `json:"issuer,omitempty"`  // where in the configuration its issuer stands
	Signature string `json:"signature"`

	UserID string         `json:"userId,omitempty"`
	Family string         `json:"handle,omitempty"` // of the refresh family
	Header map[string]any `json:"header,omitempty"`
	Claims map[string]any `json:"claims,omitempty"`

	Standing *standingJSON `json:"standing,omitempty"` // nil: Redis was not asked
}

// standingJSON is what stands for and against a token in Redis.
type standingJSON struct {
	TokenRevoked  bool     `json:"tokenRevoked"`
	FamilyRevoked bool     `json:"familyRevoked"`
	UserRevoked   bool     `json:"userRevoked"`   // it is not newer than the mark
	RevokedBefore instant  `json:"revokedBefore"` // the user's mark
	Profile       bool     `json:"profile"`
	Disabled      bool     `json:"disabled"`
	Email         string   `json:"email"`
	Roles         []string `json:"roles"`
	Organization  string   `json:"organizationId"`
}

func (f *finding) refuse(err error) {
	if err != nil && f.Problem == "" {
		f.Reason, f.Problem = string(authz.ReasonOf(err)), problemOf(err)
	}
}

// problemOf is an error without its reason in front.
func problemOf(err error) string {
	if e, ok := errors.AsType[*authz.Error](err); ok && e.Err != nil {
		return e.Err.Error()
	}
	return err.Error()
}

func (o *operator) inspect(ctx context.Context, raw string, asJSON bool) error {
	own, verifier, err := o.issuers()
	if err != nil {
		return err
	}
	var f finding
	if refresh, ok := parsedRefresh(own, raw); ok {
		err = o.inspectRefresh(ctx, refresh, &f)
	} else {
		err = o.inspectAccess(ctx, verifier, raw, &f)
	}
	f.Valid = err == nil && f.Problem == ""
	if err != nil {
		f.refuse(err)
		f.Problem = "not known: " + o.explained(ctx, err).Error()
	}
	if asJSON {
		err = emitJSON(o.env.stdout, f)
	} else {
		err = o.writeFinding(&f)
	}
	if err == nil && !f.Valid {
		return errSaid
	}
	return err
}

func parsedRefresh(own *token.Issuer, raw string) (authz.RefreshToken, bool) {
	if own == nil {
		return authz.RefreshToken{}, false
	}
	t, err := own.RefreshTokens().Parse(raw)
	return t, err == nil
}

// inspectRefresh looks at a refresh token of ours. The error is about what can't be
// known.
func (o *operator) inspectRefresh(ctx context.Context, t authz.RefreshToken, f *finding) error {
	f.Kind, f.Signature, f.Issuer, f.Family = kindRefreshToken, signatureValid, "tokens", authz.Handle(t.Family)
	if o.store == nil {
		f.refuse(authz.Refuse(authz.ReasonStoreUnavailable, "whether a refresh token is good, only Redis knows; leave out --offline"))
		return nil
	}
	family, err := o.store.Family(ctx, t.Family)
	if err != nil {
		if authz.ReasonOf(err) == authz.ReasonRefreshInvalid {
			f.refuse(err)
			return nil
		}
		return err
	}
	f.UserID = family.UserID
	standing, err := o.store.UserStanding(ctx, family.UserID)
	if err != nil {
		return err
	}
	f.Standing = standingOf(standing, family.Created)
	switch {
	case f.Standing.UserRevoked:
		f.refuse(authz.Refuse(authz.ReasonRefreshInvalid, "everything of the user up to %s was revoked", standing.RevokedBefore.UTC().Format(time.RFC3339)))
	case standing.Disabled():
		f.refuse(authz.Refuse(authz.ReasonUserDisabled, "the user is locked out (disabled)"))
	case family.Generation != t.Generation || family.Hash != t.Hash:
		f.refuse(authz.Refuse(authz.ReasonRefreshReused, "it was used before, and another one took its place; used again after tokens.refresh_grace it revokes its family"))
	}
	return nil
}

func standingOf(s authz.Standing, made time.Time) *standingJSON {
	u := s.Profile.Over(authz.User{})
	return &standingJSON{
		UserRevoked: s.Covers(made), RevokedBefore: instant(s.RevokedBefore), Profile: s.Profile != nil, Disabled: s.Disabled(),
		Email: u.Email, Roles: list(u.Roles), Organization: u.Organization,
	}
}

// inspectAccess looks at what may be an access token.
func (o *operator) inspectAccess(ctx context.Context, verifier *token.Verifier, raw string, f *finding) error {
	asking := ctx
	if o.store == nil { // keys that are there are used, and none fetched
		ended, cancel := context.WithCancel(ctx)
		cancel()
		asking = ended
	}
	asking, cancel := context.WithTimeout(asking, issuerPatience)
	defer cancel()
	e := verifier.Examine(asking, raw)
	f.Kind, f.Signature = kindAccess, signatureUnchecked
	f.Header = redactedClaims(e.Header)
	f.Claims = redactedClaims(e.Claims)
	f.Issuer = o.issuerEntry(e.Claims)
	switch {
	case e.Authentic():
		f.Signature = signatureValid
	case e.Signature != nil && authz.ReasonOf(e.Signature) == authz.ReasonTokenInvalid:
		f.Signature = signatureInvalid
	}
	switch {
	case e.Header == nil && e.Claims == nil:
		f.Kind = kindUnknown
		f.refuse(authz.Refuse(authz.ReasonTokenInvalid, "it is no JWT, and no refresh token that was made with the keys of this configuration"))
	case e.Signature != nil && o.store == nil && authz.ReasonOf(e.Signature) == authz.ReasonIssuerUnavailable:
		f.refuse(authz.Refuse(authz.ReasonIssuerUnavailable, "not known: the issuer's keys have to be fetched; leave out --offline"))
	default:
		f.refuse(e.Err())
	}
	if e.Token == nil {
		return nil
	}
	f.UserID = e.Token.ID
	if e.Token.Family != "" {
		f.Family = authz.Handle(e.Token.Family)
	}
	if o.store == nil {
		return nil
	}
	return o.inspectStanding(ctx, e.Token, f)
}

// issuerPatience is how long the keys of an issuer may take.
const issuerPatience = 15 * time.Second

// issuerEntry names the entry of the configuration that is about the issuer of a
// token; "" for none.
func (o *operator) issuerEntry(claims map[string]any) string {
	name, ok := claims["iss"].(string)
	if !ok {
		return ""
	}
	if len(o.cfg.Tokens.SigningKeys) > 0 && name == o.cfg.Tokens.Issuer {
		return "tokens"
	}
	for i, issuer := range o.cfg.Issuers {
		if issuer.Issuer == name {
			return fmt.Sprintf("issuers[%d]", i)
		}
	}
	return ""
}

// inspectStanding asks for each thing by which a token may be revoked.
func (o *operator) inspectStanding(ctx context.Context, t *authz.Token, f *finding) error {
	fresh := authz.ReadOptions{Fresh: true}
	user, err := o.store.TokenStanding(ctx, authz.TokenRef{UserID: t.ID}, fresh)
	if err != nil {
		return err
	}
	f.Standing = standingOf(user, t.IssuedAt)
	if f.Standing.TokenRevoked, err = o.marked(ctx, authz.TokenRef{TokenID: t.TokenID}); err != nil {
		return err
	}
	if f.Standing.FamilyRevoked, err = o.marked(ctx, authz.TokenRef{Family: t.Family}); err != nil {
		return err
	}
	switch {
	case f.Standing.TokenRevoked:
		f.refuse(authz.Refuse(authz.ReasonTokenRevoked, "it was revoked by its jti"))
	case f.Standing.FamilyRevoked:
		f.refuse(authz.Refuse(authz.ReasonTokenRevoked, "its refresh family was revoked"))
	case f.Standing.UserRevoked:
		f.refuse(authz.Refuse(authz.ReasonTokenRevoked, "everything of the user up to %s was revoked, and it was issued no later than that", user.RevokedBefore.UTC().Format(time.RFC3339)))
	case user.Disabled():
		f.refuse(authz.Refuse(authz.ReasonUserDisabled, "the user is locked out (disabled)"))
	}
	return nil
}

func (o *operator) marked(ctx context.Context, ref authz.TokenRef) (bool, error) {
	standing, err := o.store.TokenStanding(ctx, ref, authz.ReadOptions{Fresh: true})
	return standing.Revoked, err
}

func (o *operator) writeFinding(f *finding) error {
	now := time.Now()
	var d details
	verdict := "good"
	switch {
	case !f.Valid:
		verdict = "not good: " + f.Problem
	case f.Standing == nil:
		verdict = "authentic and in time; whether it was revoked was not asked (--offline)"
	}
	d.add("verdict", verdict)
	d.add("reason", f.Reason)
	d.add("kind", f.Kind)
	issuer := f.Issuer
	if f.Kind == kindAccess && issuer == "" {
		issuer = "none of the configuration's"
	}
	d.add("issuer", issuer)
	d.add("signature", f.Signature)
	d.add("user", f.UserID)
	d.add("refresh family", f.Family)
	for _, date := range []struct{ name, claim string }{{"issued", "iat"}, {"not before", "nbf"}, {"authenticated", "auth_time"}, {"expires", "exp"}} {
		when := claimClock(f.Claims[date.claim], now)
		if date.claim == "exp" && f.Valid && strings.HasSuffix(when, " ago)") {
			when += ", which doesn't count yet: clocks differ"
		}
		d.add(date.name, when)
	}
	f.Standing.describe(&d, now)
	if err := d.write(o.env.stdout); err != nil {
		return err
	}
	for _, part := range []struct {
		name    string
		members map[string]any
	}{{"header", f.Header}, {"claims", f.Claims}} {
		if part.members == nil {
			continue
		}
		text, err := jsonText(part.members, "")
		if err != nil {
			return err
		}
		if part.name == "claims" && f.Signature != signatureValid {
			part.name += " (nobody vouches for them)"
		}
		fmt.Fprintf(o.env.stdout, "%s\n%s\n", part.name, text)
	}
	return nil
}

func (s *standingJSON) describe(d *details, now time.Time) {
	if s == nil {
		return
	}
	var against []string
	for _, fact := range []struct {
		holds bool
		text  string
	}{{s.TokenRevoked, "revoked by its jti"}, {s.FamilyRevoked, "refresh family revoked"}, {s.UserRevoked, "not newer than the user's mark"}, {s.Disabled, "user locked out"}} {
		if fact.holds {
			against = append(against, fact.text)
		}
	}
	if against == nil {
		against = []string{"nothing"}
	}
	d.add("against it", strings.Join(against, ", "))
	d.add("user's mark", clock(time.Time(s.RevokedBefore), now, "none"))
	profile := "none"
	if s.Profile {
		profile = strings.TrimSpace(s.Email + "  roles " + strings.Join(s.Roles, ",") + "  organization " + s.Organization)
	}
	d.add("profile", profile)
}

// claimClock reads a NumericDate for people; "" for none.
func claimClock(value any, now time.Time) string {
	n, ok := value.(json.Number)
	if !ok {
		return ""
	}
	seconds, err := n.Float64()
	if err != nil || seconds < 0 || seconds > 253402300799 {
		return n.String() + ", which is no date"
	}
	return clock(time.Unix(int64(seconds), 0), now, "")
}

func tokensRevokeCommand(env environment) *cobra.Command {
	var file configFlag
	var jti, expires string
	cmd := &cobra.Command{
		Use:   "revoke [TOKEN|-]",
		Short: "Revoke a token, or the token of a jti",
		Long: `Revokes a token (RFC 7009) that it reads from standard input: an access token alone, a
refresh token with its family, and with that the access tokens that came from it. What is
no token of an issuer of this configuration is not, and neither is one that has expired.

  --jti ID          revokes an access token of which only the jti is known. The revocation
                    lives until --expires, its exp, in Unix seconds or as
                    2026-01-31T12:00:00Z; without it for 400 days, longer than any token
                    should.

All tokens of a user: 'sessions revoke USER --all', or --before TIME.`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if jti == "" && !cmd.Flags().Changed("jti") {
				if expires != "" {
					return usageError{errors.New("--expires belongs to --jti: a token says itself when it expires")}
				}
				raw, err := readToken(cmd, env, args)
				if err != nil {
					return err
				}
				return withStore(cmd, file, env, func(ctx context.Context, o *operator) error { return o.revokeToken(ctx, raw) })
			}
			until, err := parseJTI(jti, expires, args, time.Now())
			if err != nil {
				return err
			}
			return withStore(cmd, file, env, func(ctx context.Context, o *operator) error { return o.revokeJTI(ctx, jti, until) })
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	file.register(cmd)
	cmd.Flags().StringVar(&jti, "jti", "", "the `ID` of an access token, in place of the token")
	cmd.Flags().StringVar(&expires, "expires", "", "when the token of --jti expires, a `TIME`")
	return cmd
}

// longestToken is how long a token may be revoked of which nobody knows when it
// expires: as long as the longest of the store's own marks.
const longestToken = 400 * 24 * time.Hour

func parseJTI(jti, expires string, args []string, now time.Time) (until time.Time, err error) {
	switch {
	case len(args) > 0:
		return until, usageError{errors.New("a token and --jti: name one of them")}
	case jti == "":
		return until, usageError{errors.New("--jti is empty")}
	case strings.Count(jti, ".") == 2 && strings.HasPrefix(jti, "eyJ"):
		return until, usageError{errors.New("--jti takes the claim jti, and that is a whole token: pipe it in without --jti")}
	case expires == "":
		return now.Add(longestToken), nil
	}
	if until, err = parseTime(expires); err != nil {
		return until, usageError{fmt.Errorf("--expires: %w", err)}
	}
	if !until.After(now) {
		return until, usageError{errors.New("--expires: the token has expired, so there is nothing to revoke")}
	}
	return until, nil
}

func (o *operator) revokeToken(ctx context.Context, raw string) error {
	own, verifier, err := o.issuers()
	if err != nil {
		return err
	}
	r := authapi.Revoker{Store: o.store, Verifier: verifier, Leeway: longestLeeway(o.cfg)}
	if own != nil { // never a nil pointer in an interface
		r.RefreshTokens = own.RefreshTokens()
	}
	var refused error
	r.Permit = func(ctx context.Context, revoked authapi.Revoked) error {
		refused = o.permit(ctx, "revoke", revoked.Attrs()...)
		return refused
	}
	asking, cancel := context.WithTimeout(ctx, issuerPatience)
	defer cancel()
	revoked, err := r.Revoke(asking, raw)
	if refused != nil {
		return refused
	}
	switch {
	case revoked.Family != "":
		handle := authz.Handle(revoked.Family)
		o.record(ctx, "revoke", err, revoked.Attrs()...)
		return o.revokedToken(err, "Revoked the refresh family %s and the access tokens that came from it\n", handle)
	case revoked.TokenID != "":
		o.record(ctx, "revoke", err, revoked.Attrs()...)
		return o.revokedToken(err, "Revoked the access token %s of %s\n", printable(revoked.TokenID), printable(revoked.UserID))
	case revoked.UserID != "":
		return fmt.Errorf("the token has no jti, by which it could be revoked alone: revoke all that the user has with 'gatehouse sessions revoke %s --all', or what was made until now with --before", printable(revoked.UserID))
	}
	switch authz.ReasonOf(err) { //nolint:exhaustive // others say by themselves
	case authz.ReasonTokenExpired:
		return fmt.Errorf("nothing to revoke: the token %s", problemOf(err))
	case authz.ReasonTokenInvalid:
		return fmt.Errorf("nothing was revoked: %s; the gate refuses such a token anyway", problemOf(err))
	case authz.ReasonIssuerUnavailable:
		return fmt.Errorf("nothing was revoked: %s; 'gatehouse tokens revoke --jti' needs no key", problemOf(err))
	}
	return err
}

func (o *operator) revokedToken(err error, format string, args ...any) error {
	if err == nil || authz.ReasonOf(err) == authz.ReasonNotConfirmed {
		fmt.Fprintf(o.env.stdout, format, args...)
	}
	return err
}

func (o *operator) revokeJTI(ctx context.Context, jti string, until time.Time) error {
	if err := o.permit(ctx, "revoke", slog.String("token", authz.Handle(jti))); err != nil {
		return err
	}
	err := o.store.RevokeToken(ctx, jti, until.Add(longestLeeway(o.cfg)))
	o.record(ctx, "revoke", err, slog.String("token", authz.Handle(jti)))
	return o.revokedToken(err, "Revoked any token with the jti %s, until %s\n", printable(jti), until.UTC().Format(time.RFC3339))
}
