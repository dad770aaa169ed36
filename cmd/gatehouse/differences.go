package main

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/config"
)

// differences returns the keys whose values are not the same in two
// configurations, in the order of the file's sections. Entries of maps are keys,
// elements of lists are not. What only a file holds that a key names is not
// looked at.
func differences(a, b *config.Config) []string {
	return append([]string{}, differ("", reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem())...)
}

func differ(key string, a, b reflect.Value) (keys []string) {
	if reflect.DeepEqual(a.Interface(), b.Interface()) {
		return nil
	}
	switch {
	case a.Kind() == reflect.Map:
		for _, name := range mapKeys(a, b) {
			x, y := a.MapIndex(reflect.ValueOf(name)), b.MapIndex(reflect.ValueOf(name))
			if !x.IsValid() || !y.IsValid() || !reflect.DeepEqual(x.Interface(), y.Interface()) {
				keys = append(keys, keyOf(key, name))
			}
		}
		return keys
	case a.Kind() == reflect.Struct && isSection(a.Type()):
		for i := range a.NumField() {
			if name := a.Type().Field(i).Tag.Get("yaml"); name != "" && name != "-" {
				keys = append(keys, differ(keyOf(key, name), a.Field(i), b.Field(i))...)
			}
		}
		return keys
	}
	return []string{key}
}

// isSection reports whether the fields of a struct are keys.
func isSection(t reflect.Type) bool { return t.NumField() > 0 && t.Field(0).Tag.Get("yaml") != "" }

func mapKeys(maps ...reflect.Value) []string {
	var names []string
	for _, m := range maps {
		for _, k := range m.MapKeys() {
			names = append(names, k.String())
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func keyOf(section, name string) string {
	switch {
	case section == "":
		return name
	case strings.Contains(name, "."):
		return section + `["` + name + `"]`
	}
	return section + "." + name
}

// inForce returns what applies when a configuration is asked for while the program
// runs: the same, but for what it can't change before it is started again.
func inForce(asked, running *config.Config) *config.Config {
	c := *asked
	c.Server.Check.Listen = running.Server.Check.Listen
	c.Server.Check.MaxConnectionAge = running.Server.Check.MaxConnectionAge
	c.Server.HTTP.Listen = running.Server.HTTP.Listen
	c.Server.Ops.Listen = running.Server.Ops.Listen
	if c.Server.Check.TLS.Enabled() != running.Server.Check.TLS.Enabled() {
		c.Server.Check.TLS = running.Server.Check.TLS
	}
	if c.Server.HTTP.TLS.Enabled() != running.Server.HTTP.TLS.Enabled() {
		c.Server.HTTP.TLS = running.Server.HTTP.TLS
	}
	c.Log.Format = running.Log.Format
	c.Audit = running.Audit
	if embedded(asked) && embedded(running) { // another one would be empty
		confirm, cache := c.Redis.ConfirmReplicas, c.Redis.Cache
		c.Redis = running.Redis
		c.Redis.ConfirmReplicas, c.Redis.Cache = confirm, cache
	}
	return &c
}

func embedded(c *config.Config) bool {
	return strings.HasPrefix(strings.ToLower(c.Redis.URL.Reveal()), "embedded:")
}

// dangers says what of a change lets more through than before, or locks people
// out: what nobody should have to find out by an incident.
func dangers(running, next *generation) (warnings []string) {
	before, after := running.cfg, next.cfg
	warn := func(dangerous bool, format string, args ...any) {
		if dangerous {
			warnings = append(warnings, fmt.Sprintf(format, args...))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(before.Policies)) {
		p, still := after.Policies[name]
		warn(!still, "policy %s is gone: gateways whose routes still name it get 403 for every request", name)
		if still {
			for _, w := range weaker(before.Policies[name], p) {
				warn(true, "policy %s %s", name, w)
			}
		}
	}
	warn(before.DefaultPolicy != "" && after.DefaultPolicy == "", "default_policy is gone: requests that no route matches are denied")

	b, a := before.Sessions, after.Sessions
	warn(b.Cookie.Secure && !a.Cookie.Secure, "sessions.cookie.secure is off: browsers send session cookies over plain HTTP")
	warn(b.Cookie.Name != a.Cookie.Name || b.Prefix != a.Prefix, "sessions are looked for under another name: nobody who is logged in is known any more")
	warn(len(b.Secrets) > 0 && !slices.ContainsFunc(a.Secrets, func(s config.Secret) bool { return s.Reveal() == b.Secrets[0].Reveal() }),
		"the secret that signed session cookies until now is gone from sessions.secrets: everybody whose cookie it signed is logged out; to rotate it, keep it behind the new one for as long as sessions live")
	keys := running.keyIDs()
	warn(len(keys) > 0 && !slices.Contains(next.keyIDs(), keys[0]),
		"the key that signed tokens until now is gone from tokens.signing_keys: its tokens are refused; to rotate it, keep it behind the new one until they have expired")
	if running.assertions != nil && next.assertions != nil {
		warn(!slices.Contains(next.assertions.KeyIDs(), running.assertions.KeyIDs()[0]),
			"the key that signed identities until now is gone from identity.assertion.signing_keys: services refuse what it signed a moment ago, and requests with it; to rotate it, keep it behind the new one for some minutes")
	}
	warn(before.Redis.URL.String() != after.Redis.URL.String() && !embedded(before), "redis.url leads to another store: what it doesn't hold, sessions and revocations alike, is not known any more")
	warn(before.Redis.ConfirmReplicas > after.Redis.ConfirmReplicas, "redis.confirm_replicas is less: a revocation can be lost with fewer servers")
	warn(before.Identity.Headers != after.Identity.Headers,
		"identity.headers have other names: services that still read the old ones read what a client sends in them; change the services first, and have the gateway remove the old ones")
	if gone := without(toldHeaders(before), toldHeaders(after)); gone != "" {
		warn(true, "no policy adds these headers any more, so Gatehouse doesn't take out what clients send in them: %s; services that still read them believe it", gone)
	}
	for _, name := range slices.Sorted(maps.Keys(after.RateLimits)) {
		b, there := before.RateLimits[name]
		warn(there && b.OnOutage != config.OnOutageAllow && after.RateLimits[name].OnOutage == config.OnOutageAllow,
			"rate limit %s lets requests pass uncounted while Redis is out of reach now", name)
	}
	warn(before.Identity.StripCredentials && !after.Identity.StripCredentials, "identity.strip_credentials is off: services see cookies and tokens")
	warn(before.Server.HTTP.TrustedHops < after.Server.HTTP.TrustedHops,
		"server.http.trusted_hops is more: without as many proxies in front, clients choose their address")
	warn(!before.Tracing.TrustTraceparent && after.Tracing.TrustTraceparent,
		"tracing.trust_traceparent is on: unless every proxy in front writes traceparent itself, clients choose what is recorded")
	return warnings
}

// weaker says in what a policy asks for less than before.
func weaker(before, after config.Policy) (how []string) {
	say := func(weaker bool, what string) {
		if weaker {
			how = append(how, what)
		}
	}
	gone := func(before, after []string) bool { return len(before) > 0 && len(after) == 0 }
	// wider is for lists of which one is enough.
	wider := func(before, after []string, format string) {
		if more := without(after, before); more != "" && len(before) > 0 {
			say(true, fmt.Sprintf(format, more))
		}
	}
	longer := func(before, after time.Duration) bool { return before > 0 && (after == 0 || after > before) }
	say(before.Mode != config.ModeObserve && after.Mode == config.ModeObserve, "only observes now: requests that it would deny pass")
	say(!before.Anonymous && after.Anonymous, "lets requests without a credential through now")
	say(gone(before.Roles.Any, after.Roles.Any) || gone(before.Roles.All, after.Roles.All), "asks for no roles any more")
	wider(before.Roles.Any, after.Roles.Any, "takes who has one of these roles, too, now: %s")
	if fewer := without(before.Roles.All, after.Roles.All); fewer != "" && len(after.Roles.All) > 0 {
		say(true, "asks for these roles no more: "+fewer)
	}
	wider(before.Organizations, after.Organizations, "takes these organizations, too, now: %s")
	wider(before.Issuers, after.Issuers, "takes tokens of these issuers, too, now: %s")
	wider(before.Audiences, after.Audiences, "takes tokens for these audiences, too, now: %s")
	wider(kindNames(before.Credentials), kindNames(after.Credentials), "takes these credentials, too, now: %s")
	say(gone(before.Organizations, after.Organizations), "takes every organization now")
	say(gone(before.Issuers, after.Issuers), "takes tokens of every issuer now")
	say(gone(before.Audiences, after.Audiences), "takes tokens for every audience now")
	say(before.Condition != "" && after.Condition == "", "has no condition any more")
	say(before.CSRF && !after.CSRF, "lets pages of other sites act with a user's session now")
	say(before.Freshness == authz.FreshnessStrict && after.Freshness != authz.FreshnessStrict, "does not ask Redis for every request any more")
	say(longer(before.MaxAuthAge, after.MaxAuthAge), "takes a login that is longer ago now")
	say(longer(before.IdleTimeout, after.IdleTimeout), "lets sessions be idle for longer now")
	say(before.OnStoreOutage == authz.OutageDeny && after.OnStoreOutage != authz.OutageDeny, "lets requests through while Redis is out of reach now")
	say(before.StaleFor > 0 && after.OnStoreOutage == before.OnStoreOutage && after.StaleFor > before.StaleFor, "takes older answers while Redis is out of reach now")
	say(before.Assertion != config.Assertion{} && after.Assertion == config.Assertion{}, "doesn't have the identity signed any more: services that ask for a signature refuse its requests")
	say(before.RateLimit != "" && after.RateLimit == "", "has no rate limit any more")
	return how
}

// without is what of all is not among some, as text; "" where some has all.
func without(all, some []string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(some, s) }), ", ")
}

// toldHeaders are the headers that some policy adds, which are taken out of what
// clients send.
func toldHeaders(cfg *config.Config) []string {
	names := map[string]bool{}
	for _, p := range cfg.Policies {
		for name := range p.Headers {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

func kindNames(kinds []authz.Kind) []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = string(k)
	}
	return names
}
