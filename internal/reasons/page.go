package reasons

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/markdown"
)

// Seen says how an operator sees a reason in the log and in metrics.
type Seen struct {
	Level  slog.Level
	Metric string // with the label reason
}

// Page is docs/reference/reasons.md. How reasons are seen is told by who logs and counts
// them: those of checks, and those of calls of the auth API.
func Page(check, call func(authz.Reason) Seen) string {
	var b strings.Builder
	b.WriteString(head)
	b.WriteString(challenges())
	b.WriteString("\n## All of them\n\n| the client gets | reasons |\n|---|---|\n")
	groups := grouped()
	for _, g := range groups {
		links := make([]string, len(g.reasons))
		for i, r := range g.reasons {
			links[i] = fmt.Sprintf("[`%s`](#%s)", r, r)
		}
		fmt.Fprintf(&b, "| %s | %s |\n", g.answer, strings.Join(links, ", "))
	}
	for _, g := range groups {
		fmt.Fprintf(&b, "\n## %s\n", markdown.Upper(g.answer))
		for _, r := range g.reasons {
			write(&b, r, check, call)
		}
	}
	return b.String()
}

const head = "<!-- Made from internal/reasons. 'make generate' writes it. -->\n" + `# Reasons

Each decision has one reason, a word of a closed list. It stands in the [log](../logging.md) (` + "`reason`" + `), in
[metrics](../metrics.md) (the label ` + "`reason`" + `), in Envoy's dynamic metadata and so in its access log, and in what
` + "[`gatehouse explain`](../explain.md)" + ` prints. A client never learns it: it gets a status and one of a few bodies. How to get from
an answer to its reason: [a request was denied](../how-to/denied.md).

For each reason stand here what it means, the likeliest causes, what to do, the level of its line in the log, and the
metric that counts it. ` + "`gatehouse explain`" + ` shows each step, with what the request has and what the policy asks for.

Calls of the [auth API](../auth-api.md) also have ` + "`not_found` and `method_not_allowed`" + `: 404 and 405. Some answer in words of
their own: a refresh without a token with ` + "`No refresh token`" + `, a logout that fails with 500 and ` + "`Logout failed`" + `.

Under ` + "`mode: observe`" + ` the reason of the decision is ` + "`anonymous`" + ` or ` + "`authenticated`" + `, and the one that would have refused the
request is ` + "`would_deny`" + ` in the log and the label of ` + "`gatehouse_observed_denials_total`" + `. During an outage or a flood, ten lines a
second are logged, and the number of the others.

## What comes with a status

`

// challenges are the headers of refusals, as the table of answers has them.
func challenges() string {
	policy := &authz.Policy{Credentials: []authz.Kind{authz.KindSession, authz.KindBearer}, LoginURL: "/login"}
	request := &authz.Request{Method: "POST", Headers: authz.HeaderMap(nil)}
	answer := func(reason authz.Reason, kind authz.Kind) authz.Answer {
		return authz.AnswerTo(&authz.Decision{Kind: kind, Policy: policy}, request, &authz.Error{Reason: reason})
	}
	page := &authz.Request{Method: "GET", RawPath: "/page", Headers: authz.HeaderMap{"accept": "text/html"}}
	redirect := authz.AnswerTo(&authz.Decision{Policy: policy}, page, &authz.Error{Reason: authz.ReasonNoCredential})
	var b strings.Builder
	b.WriteString("| status | with | when |\n|---|---|---|\n")
	row := func(status int, with, when string) { fmt.Fprintf(&b, "| %d | `%s` | %s |\n", status, with, when) }
	none := answer(authz.ReasonNoCredential, "")
	row(none.Status, "www-authenticate: "+none.WWWAuthenticate, "without a credential, where the policy accepts `bearer` (RFC 6750)")
	token := answer(authz.ReasonTokenInvalid, authz.KindBearer)
	row(token.Status, "www-authenticate: "+token.WWWAuthenticate, "with a token")
	role := answer(authz.ReasonRole, authz.KindBearer)
	row(role.Status, "www-authenticate: "+role.WWWAuthenticate, "with a token")
	row(answer(authz.ReasonRateLimited, "").Status, "retry-after", "and `ratelimit`, `ratelimit-policy` where a policy's limit counted")
	store := answer(authz.ReasonStoreUnavailable, "")
	row(store.Status, fmt.Sprintf("retry-after: %d", store.RetryAfter), "")
	row(redirect.Status, "location: "+redirect.Location, "instead of 401, for a browser's navigation without a token, under `on_unauthenticated: redirect`")
	return b.String()
}

// group is what has the same answer.
type group struct {
	answer  string
	reasons []authz.Reason
}

func grouped() (groups []group) {
	for _, r := range authz.Reasons() {
		answer := answerText(r)
		i := slices.IndexFunc(groups, func(g group) bool { return g.answer == answer })
		if i < 0 {
			i = len(groups)
			groups = append(groups, group{answer: answer})
		}
		groups[i].reasons = append(groups[i].reasons, r)
	}
	return groups
}

// answerText is what a client gets: where it depends on the credential, for each.
func answerText(r authz.Reason) string {
	if r == authz.ReasonAuthenticated || r == authz.ReasonAnonymous {
		return "the service's answer"
	}
	texts := map[authz.Kind]string{}
	for _, kind := range []authz.Kind{authz.KindSession, authz.KindBearer} {
		a := authz.AnswerTo(&authz.Decision{Kind: kind}, &authz.Request{Headers: authz.HeaderMap(nil)}, &authz.Error{Reason: r})
		texts[kind] = fmt.Sprintf("%d `%s`", a.Status, a.Body)
	}
	if session, token := texts[authz.KindSession], texts[authz.KindBearer]; session != token {
		return "with a session " + session + ", with a token " + token
	}
	return texts[authz.KindSession]
}

func write(b *strings.Builder, r authz.Reason, check, call func(authz.Reason) Seen) {
	t := Of(r)
	fmt.Fprintf(b, "\n### `%s`\n\n%s", r, markdown.Paragraph(t.Meaning))
	if len(t.Causes) > 0 {
		b.WriteString("\n")
		for _, c := range t.Causes {
			b.WriteString(markdown.Item(c))
		}
	}
	if t.Remedy != "" {
		b.WriteString("\n" + markdown.Paragraph("**What to do.** "+linked(t.Remedy)))
	}
	var seen []string
	tell := func(what string, s Seen) {
		seen = append(seen, fmt.Sprintf("%s: level `%s`, `%s{reason=\"%s\"}`", what, strings.ToLower(s.Level.String()), s.Metric, r))
	}
	if t.Where != Calls {
		tell("Checks", check(r))
	}
	if t.Where != Checks {
		tell("Auth API", call(r))
	}
	b.WriteString("\n" + markdown.Paragraph(strings.Join(seen, ". ")+"."))
}

// linked turns what a text names into a link.
func linked(text string) string {
	return strings.NewReplacer(
		"docs/overload.md", "[overload](../overload.md)",
		"`deploy/forward-auth`", "[`deploy/forward-auth`](../../deploy/forward-auth/README.md)",
	).Replace(text)
}
