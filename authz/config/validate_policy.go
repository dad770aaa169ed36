package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/condition"
)

func (v *validator) policies() {
	if len(v.c.Policies) == 0 && v.intact("policies") {
		v.warn("", "there are no policies, so every request is denied; give policies")
	}
	v.refersToPolicy("default_policy", v.c.DefaultPolicy)
	for _, name := range v.c.PolicyNames() {
		key := named("policies", name)
		p := v.c.Policies[name]
		v.condition(key, p)
		v.references(key, p)
		if v.intact(key + ".credentials") {
			v.credentials(key, name, p)
			v.anonymous(key, p)
			v.effective(key, p)
		}
		v.extras(key, p)
		v.asserts(key, p)
		v.unauthenticated(key, p)
		v.outage(key, p)
		if p.Mode == ModeObserve {
			v.warn(key+".mode", "policy %s only observes: requests that it would deny pass", name)
		}
	}
	v.spellings()
}

// extras checks what a policy tells of the caller: that it is not the identity
// again, and that a credential which the policy accepts has it.
func (v *validator) extras(key string, p Policy) {
	if at := key + ".headers"; v.intactAll(at, "identity.headers") {
		for _, name := range slices.Sorted(maps.Keys(p.Headers)) {
			if h := v.c.Identity.Headers; slices.Contains([]string{h.UserID, h.Email, h.Roles, h.OrgID}, name) {
				v.refuse(named(at, name), "this is an identity header already; choose another name")
			}
		}
	}
	for _, section := range []string{"headers", "metadata"} {
		values := p.Headers
		if section == "metadata" {
			values = p.Metadata
		}
		at := child(key, section)
		if !v.intactAll(at, key+".credentials") {
			continue
		}
		if len(p.Credentials) == 0 && len(values) > 0 {
			v.refuse(at, "this policy accepts no credential, so there is nobody to tell about; list credentials, or take this out")
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(values)) {
			a, err := authz.ParseAttribute(values[name])
			if err == nil && a.Kind() != "" && !slices.Contains(p.Credentials, a.Kind()) {
				v.refuse(named(at, name), "speaks of %s credentials, which this policy does not accept; add the kind to credentials, or take this out", a.Kind())
			}
		}
	}
}

// asserts checks that a policy that has the identity signed says for whom, and that
// there is something to sign with.
func (v *validator) asserts(key string, p Policy) {
	at := key + ".assertion"
	if !v.given(at) || !v.intactAll(at, key+".credentials", "identity.assertion") {
		return
	}
	switch {
	case !p.asserts():
		v.refuse(at, "says for no service; give audience, the service's name, or from_route: true where the gateway's routes name it")
	case len(p.Credentials) == 0:
		v.refuse(at, "this policy accepts no credential, so there is no identity to sign; list credentials, or take this out")
	case !v.c.Identity.Asserting():
		v.refuse(at, "there is nothing to sign it; give identity.assertion.signing_keys, whose keys 'gatehouse keys new --for assertion' makes")
	}
}

// mostSpellings bounds what policies' headers add to every reply: each spelling of
// each of them is taken out of what clients send.
const mostSpellings = 256

func (v *validator) spellings() {
	names, spellings := map[string]bool{}, 0
	for _, policy := range v.c.PolicyNames() {
		at := named("policies", policy) + ".headers"
		if !v.intact(at) {
			return
		}
		for _, name := range slices.Sorted(maps.Keys(v.c.Policies[policy].Headers)) {
			if names[name] {
				continue
			}
			names[name] = true
			if spellings += 1 << strings.Count(name, "-"); spellings > mostSpellings {
				v.refuse(named(at, name), "with this one the headers of all policies have more than %d spellings with - and _, each of which is taken out of every request; use fewer headers, or fewer hyphens", mostSpellings)
				return
			}
		}
	}
}

// condition compiles a policy's condition: what is wrong with it must show at
// load.
func (v *validator) condition(key string, p Policy) {
	at := key + ".condition"
	if p.Condition == "" || !v.intact(at) {
		return
	}
	if _, err := condition.Compile(p.Condition); err != nil {
		v.refuse(at, "not a CEL condition: %v; expected an expression over %s", err, condition.Names)
	}
}

func (v *validator) references(key string, p Policy) {
	if _, defined := v.c.RateLimits[p.RateLimit]; p.RateLimit != "" && !defined && !v.broken["rate_limits"] {
		v.undefined(key+".rate_limit", "rate_limits", v.c.RateLimitNames())
	}
	v.limitCounts(key, p)
	if !v.intactAll("issuers", "tokens.issuer") {
		return
	}
	for i, issuer := range p.Issuers {
		known := issuer == v.c.Tokens.Issuer ||
			slices.ContainsFunc(v.c.Issuers, func(c Issuer) bool { return c.Issuer == issuer })
		if at := element(key+".issuers", i); v.intact(at) && !known {
			v.undefined(at, "issuers", v.issuerNames())
		}
	}
}

// limitCounts warns of a limit by what no caller under the policy has: it would be
// one of addresses.
func (v *validator) limitCounts(key string, p Policy) {
	limit, defined := v.c.RateLimits[p.RateLimit]
	if !defined || !v.intactAll(key+".rate_limit", key+".credentials", named("rate_limits", p.RateLimit)) {
		return
	}
	var of []authz.Kind
	switch limit.By {
	case ByAddress:
		return
	case ByUser:
		of = []authz.Kind{authz.KindSession, authz.KindBearer, authz.KindAPIKey}
	case ByOrganization:
		of = []authz.Kind{authz.KindSession, authz.KindBearer}
	case BySession:
		of = []authz.Kind{authz.KindSession}
	case ByAPIKey:
		of = []authz.Kind{authz.KindAPIKey}
	}
	if !slices.ContainsFunc(p.Credentials, func(k authz.Kind) bool { return slices.Contains(of, k) }) {
		v.warn(key+".rate_limit", "counts by %s, which no caller under this policy has, so all count by their address; accept %s credentials, or name another limit", limit.By, kinds(of))
	}
}

// issuerNames returns the known issuers as they stand in the file.
func (v *validator) issuerNames() []string {
	var names []string
	if v.given("tokens.issuer") {
		names = append(names, printable(v.source.places["tokens.issuer"].raw))
	}
	for i := range v.c.Issuers {
		names = append(names, printable(v.source.places[element("issuers", i)+".issuer"].raw))
	}
	return names
}

// credentials checks that each kind a policy accepts can be checked at all.
func (v *validator) credentials(key, name string, p Policy) {
	if len(p.Credentials) == 0 && !p.Anonymous && v.intact(key+".anonymous") {
		v.warn(key, "accepts no credential, so it denies every request; list credentials, or say anonymous: true")
	}
	for i, kind := range p.Credentials {
		at := element(key+".credentials", i)
		switch kind {
		case authz.KindSession:
			switch {
			case len(v.c.Sessions.Secrets) > 0 || !v.intactAll("sessions.secrets", "sessions.secrets_file"):
			case len(p.Credentials) > 1:
				v.warn(at, "without sessions.secrets no session cookie is valid; give them, or sessions.secrets_file")
			default:
				v.refuse(at, "session cookies can't be verified without sessions.secrets; give them, or sessions.secrets_file")
			}
		case authz.KindBearer:
			if len(v.c.Issuers) == 0 && !v.c.Tokens.Issuing() && v.intactAll("issuers", "tokens.signing_keys") {
				v.warn(at, "without issuers no token is valid; give issuers, or tokens.signing_keys")
			}
		case authz.KindAPIKey:
			v.apiKeyUse(at, name)
		}
	}
}

func (v *validator) apiKeyUse(at, name string) {
	switch {
	case !v.intact("api_keys"):
	case len(v.c.APIKeys) == 0:
		v.warn(at, "there are no api_keys, so no key is valid; give one")
	case !slices.ContainsFunc(v.c.APIKeys, func(k APIKey) bool { return slices.Contains(k.Policies, name) }):
		v.warn(at, "no entry of api_keys lists policy %s, so no key opens it; add it to one", name)
	}
}

// anonymous checks that a policy that asks for nobody does not ask who it is.
func (v *validator) anonymous(key string, p Policy) {
	for _, field := range []string{"roles", "organizations", "max_auth_age", "idle_timeout"} {
		if at := child(key, field); p.Anonymous && v.given(at) && v.intact(at) {
			v.refuse(at, "asks for an identity, while anonymous: true lets requests pass without one; take one of the two out")
		}
	}
}

// effective checks that what a policy asks can be asked of a credential that
// it accepts: a condition without effect would be a hole, and one that nobody
// meets a locked door.
func (v *validator) effective(key string, p Policy) {
	if len(p.Credentials) == 0 {
		return
	}
	person := []authz.Kind{authz.KindSession, authz.KindBearer}
	for _, f := range []struct {
		field string
		of    []authz.Kind
	}{
		{"roles", person},
		{"organizations", person},
		{"max_auth_age", person},
		{"idle_timeout", person[:1]},
		{"issuers", person[1:]},
		{"audiences", person[1:]},
	} {
		at := child(key, f.field)
		accepted := slices.ContainsFunc(p.Credentials, func(k authz.Kind) bool { return slices.Contains(f.of, k) })
		if v.given(at) && v.intact(at) && !accepted {
			v.refuse(at, "speaks of %s credentials, which this policy does not accept; add the kind to credentials, or take this out", kinds(f.of))
		}
	}
	if !p.CSRF && v.intact(key+".csrf") && slices.Contains(p.Credentials, authz.KindSession) {
		v.warn(key+".csrf", "INSECURE: pages of other sites can act with a user's session; take this out, unless no browser holds such a session")
	}
}

func kinds(ks []authz.Kind) string {
	names := make([]string, len(ks))
	for i, k := range ks {
		names[i] = string(k)
	}
	return list(names)
}

func (v *validator) unauthenticated(key string, p Policy) {
	on, login := key+".on_unauthenticated", key+".login_url"
	if !v.intactAll(on, login) {
		return
	}
	switch redirect := p.OnUnauthenticated == UnauthenticatedRedirect; {
	case redirect && p.LoginURL == "":
		v.refuse(on, "redirect needs login_url; give it, such as /login")
	case !redirect && p.LoginURL != "":
		v.warn(login, "has no effect without on_unauthenticated: redirect; set that, or take this out")
	}
}

func (v *validator) outage(key string, p Policy) {
	on, stale := key+".on_store_outage", key+".stale_for"
	if !v.intactAll(on, stale, key+".freshness", key+".credentials") {
		return
	}
	switch {
	case p.OnStoreOutage == authz.OutageDeny:
	case p.Freshness == authz.FreshnessStrict:
		v.refuse(on, "%s contradicts freshness: strict, which lets nothing pass that Redis has not confirmed; take one of the two out", p.OnStoreOutage)
	case p.OnStoreOutage == authz.OutageAcceptBearer && !slices.Contains(p.Credentials, authz.KindBearer):
		v.refuse(on, "accept_bearer speaks of bearer credentials, which this policy does not accept; add the kind to credentials, or say deny")
	case p.OnStoreOutage == authz.OutageServeStale && p.StaleFor == 0:
		v.refuse(on, "serve_stale needs stale_for, the age up to which an answer is served; give it, such as 30s")
	}
	if p.OnStoreOutage == authz.OutageServeStale && !v.c.Redis.Cache.Enabled {
		v.warn(on, "with redis.cache.enabled: false there is nothing old to serve: it acts like deny; enable the cache, or say deny")
	}
	if p.StaleFor > 0 && p.OnStoreOutage != authz.OutageServeStale {
		v.warn(stale, "has no effect without on_store_outage: serve_stale; set that, or take this out")
	}
}

const (
	// mostRoutes bounds the memory that routes take, and how long it takes to
	// look for conflicts between them.
	mostRoutes = 10_000
	// mostConflicts are told; who has more has one of them many times.
	mostConflicts = 20
)

func (v *validator) routes() {
	if n := len(v.c.Routes); n > mostRoutes {
		v.refuse("routes", "%d routes; at most %d are possible; let wider ones (/api/*, *.example.com) take the place of many", n, mostRoutes)
		return
	}
	routes := make([]authz.Route, len(v.c.Routes))
	for i, r := range v.c.Routes {
		key := element("routes", i)
		v.refersToPolicy(key+".policy", r.Policy)
		if v.intact(key) {
			routes[i] = authz.Route{Host: r.Host, Path: r.Path, Methods: r.Methods, Policy: r.Policy}
		} else {
			routes[i].Path = "invalid" // passed over
		}
	}
	conflicts := authz.RouteConflicts(routes, mostConflicts)
	for _, c := range conflicts {
		v.conflict(c)
	}
	if len(conflicts) == mostConflicts {
		v.warn("routes", "there may be more routes like the last %d; only so many are told", mostConflicts)
	}
}

// conflict warns of a route that doesn't get all the requests that it names.
func (v *validator) conflict(c authz.RouteConflict) {
	key := element("routes", c.Route)
	var earlier []string
	for _, i := range c.Earlier {
		first := element("routes", i)
		earlier = append(earlier, fmt.Sprintf("%s on line %d", first, v.line(first)))
	}
	takes, take := earlier[0]+" takes", "all of its requests"
	if len(earlier) > 1 {
		takes = strings.Join(earlier, " and ") + " take"
	}
	if len(c.Methods) > 0 {
		take = strings.Join(c.Methods, " and ") + " requests"
	}
	switch policy := v.c.Routes[c.Earlier[0]].Policy; {
	case c.Never:
		v.warn(key, "never matches: %s %s; put this one first, or take it out", takes, take)
	case !c.Overlaps():
		v.warn(key, "matches in part: %s its %s; put this one first, or leave these methods out", takes, take)
	default:
		others := ""
		if n := len(earlier) - 1; n > 0 {
			others = fmt.Sprintf(" (and %d more before it)", n)
		}
		v.warn(key, "overlaps %s%s, and neither is the narrower one: requests for %s get policy %s; to say that this is meant, or which other one, write a route {%s} before both",
			earlier[0], others, region(c), policy, region(c))
	}
}

// region says which requests a conflict is about, in the words of a route.
func region(c authz.RouteConflict) string {
	var parts []string
	if c.Host != "" {
		parts = append(parts, "host: "+c.Host)
	}
	if c.Path != "" {
		parts = append(parts, "path: "+c.Path)
	}
	if len(c.Methods) > 0 {
		parts = append(parts, "methods: ["+strings.Join(c.Methods, ", ")+"]")
	}
	return strings.Join(parts, ", ")
}
