// Package explain tells why a request passes the gate or not: it reads a request
// from a curl command, and turns a traced decision into what people and scripts
// read.
//
//	request, err := explain.ParseCommand(`curl https://gateway.example.com/users -H 'cookie: …'`)
//	parts, err := request.Parts()
//	report := explain.NewReport(door.Explain(ctx, parts))
//	report.Print(os.Stdout)
//
// A report holds no credential: no cookie, token, key or session id, and no value
// of the query.
package explain

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/extauthz"
	"github.com/gatehouse-auth/gatehouse/internal/reasons"
)

// Parts is the request as a door hands it over. The error says which part of it
// makes no sense.
func (r *Request) Parts() (authz.RequestParts, error) {
	address, err := r.address()
	if err != nil {
		return authz.RequestParts{}, err
	}
	values := map[string][]string{}
	for _, h := range r.Headers {
		name := strings.ToLower(h[0])
		values[name] = append(values[name], h[1])
	}
	headers := make(authz.HeaderMap, len(values))
	for name, all := range values {
		separator := ","
		if name == "cookie" { // crumbs, as HTTP/2 has them
			separator = "; "
		}
		headers[name] = strings.Join(all, separator)
	}
	parts := authz.RequestParts{Method: r.Method, Authority: r.Authority, Target: r.Target, Address: address, Headers: headers}
	if r.Policy != nil {
		parts.PolicyName, parts.HasPolicyName = *r.Policy, true
	}
	if r.Audience != nil {
		parts.Audience, parts.HasAudience = *r.Audience, true
	}
	return parts, nil
}

// Report is a decision explained. Its JSON is for scripts: fields are added, not
// renamed. Times are in microseconds.
type Report struct {
	Decision string `json:"decision"` // allow or deny
	Reason   string `json:"reason"`
	// WouldDeny is why a policy that only observes would refuse the request.
	WouldDeny string `json:"would_deny,omitempty"`
	// Meaning and Remedy are about the reason of a refusal, or about that of WouldDeny:
	// what it means, and what an operator does about it.
	Meaning  string       `json:"meaning,omitempty"`
	Remedy   string       `json:"remedy,omitempty"`
	Policy   string       `json:"policy,omitempty"`
	Route    *int         `json:"route,omitempty"` // that chose the policy, counted from 0
	RouteAt  string       `json:"route_at,omitempty"`
	Request  RequestView  `json:"request"`
	Steps    []Step       `json:"steps"`
	Upstream *Upstream    `json:"upstream,omitempty"` // what the service gets; none for a refused request
	Client   *Client      `json:"client,omitempty"`   // what the client gets, as far as Gatehouse says it
	Metadata []FieldValue `json:"metadata"`           // for the gateway's log and filters
	Took     int64        `json:"took_us"`
}

// RequestView is the canonical request.
type RequestView struct {
	Method  string `json:"method"`
	Host    string `json:"host"`
	Path    string `json:"path"` // decoded, as routes match it
	RawPath string `json:"raw_path"`
	// Query has the names of the parameters; "…" is one that has none, whose text
	// may be a token.
	Query   []string `json:"query,omitempty"`
	Address string   `json:"address,omitempty"`
	// NamedPolicy is the one that the gateway's route names.
	NamedPolicy *string `json:"named_policy,omitempty"`
	// Headers are the names of those that were sent.
	Headers []string `json:"headers"`
}

// Step is one step of the decision.
type Step struct {
	Stage   string `json:"stage"`
	Name    string `json:"name"`
	Outcome string `json:"outcome"` // ok, refused or none
	Detail  string `json:"detail,omitempty"`
	Took    int64  `json:"took_us,omitempty"`
}

// Upstream is what happens to the request's headers on its way to the service.
type Upstream struct {
	Set    []FieldValue `json:"set"`
	Remove []string     `json:"remove"`
}

// Client is what the client of a request gets from Gatehouse.
type Client struct {
	Status  int          `json:"status,omitempty"` // 0 where the service answers
	Headers []FieldValue `json:"headers"`
	Body    string       `json:"body,omitempty"`
}

// FieldValue is a header or a field of the metadata.
type FieldValue struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// NewReport makes a report of a decision that was traced.
func NewReport(e *extauthz.Explanation) *Report {
	r := &Report{Decision: "allow", Reason: string(e.Decision.Reason), Request: view(e.Request), Took: e.Took.Microseconds(), Route: e.Trace.Route}
	if e.Decision.Policy != nil {
		r.Policy = e.Decision.Policy.Name
	}
	refusal := e.Err
	if e.Decision.Observed != nil {
		refusal = e.Decision.Observed
		r.WouldDeny = refusal.Error()
	}
	if refusal != nil {
		text := reasons.Of(authz.ReasonOf(refusal))
		r.Meaning, r.Remedy = text.Meaning, text.Remedy
	}
	if e.Err != nil && !tells(e.Trace.Steps, e.Err) { // what no step is about, such as a path
		e.Trace.Add("request", "request", time.Time{}, e.Err, "")
	}
	for _, s := range e.Trace.Steps {
		r.Steps = append(r.Steps, Step{string(s.Stage), s.Name, string(s.Outcome), s.Detail, s.Took.Microseconds()})
	}
	if ok := e.Response.GetOkResponse(); ok != nil {
		r.Upstream = &Upstream{Set: fields(ok.GetHeaders(), e.Request), Remove: ok.GetHeadersToRemove()}
		if headers := fields(ok.GetResponseHeadersToAdd(), e.Request); len(headers) > 0 {
			r.Client = &Client{Headers: headers}
		}
	}
	if denied := e.Response.GetDeniedResponse(); denied != nil {
		r.Decision = "deny"
		r.Client = &Client{Status: int(denied.GetStatus().GetCode()), Headers: fields(denied.GetHeaders(), e.Request), Body: denied.GetBody()}
	}
	for name, value := range e.Response.GetDynamicMetadata().GetFields() {
		text := value.GetStringValue()
		if text == "" {
			b, _ := json.Marshal(value.AsInterface())
			text = string(b)
		}
		r.Metadata = append(r.Metadata, FieldValue{name, text})
	}
	slices.SortFunc(r.Metadata, func(a, b FieldValue) int { return strings.Compare(a.Name, b.Name) })
	return r
}

// tells reports whether a step is about an error.
func tells(steps []authz.Step, err error) bool {
	return slices.ContainsFunc(steps, func(s authz.Step) bool {
		return s.Outcome == authz.OutcomeRefused && strings.Contains(s.Detail, err.Error())
	})
}

func view(r *authz.Request) RequestView {
	v := RequestView{Method: r.Method, Host: r.Host, Path: r.Path, RawPath: r.RawPath, Headers: []string{}}
	for pair := range strings.SplitSeq(r.Query, "&") {
		switch name, _, named := strings.Cut(pair, "="); {
		case pair == "":
		case named && name != "":
			v.Query = append(v.Query, name)
		default:
			v.Query = append(v.Query, "…")
		}
	}
	if r.Address.IsValid() {
		v.Address = r.Address.String()
	}
	if r.HasPolicyName {
		v.NamedPolicy = &r.PolicyName
	}
	for name := range r.Headers.All() {
		v.Headers = append(v.Headers, name)
	}
	slices.Sort(v.Headers)
	return v
}

// assertion is what a signed identity says, without the signature: with it, whoever
// reads the report could show it to the service.
func assertion(signed string) string {
	_, rest, _ := strings.Cut(signed, ".")
	payload, _, _ := strings.Cut(rest, ".")
	claims, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil || !json.Valid(claims) {
		return "(signed)"
	}
	return "(signed) " + string(claims)
}

// fields are headers without what must not be told: cookies that stay, and the
// query in where a login page is to lead back to.
func fields(headers []*corev3.HeaderValueOption, r *authz.Request) []FieldValue {
	all := make([]FieldValue, 0, len(headers))
	for _, h := range headers {
		f := FieldValue{h.GetHeader().GetKey(), h.GetHeader().GetValue()}
		switch {
		case f.Name == "cookie":
			f.Value = "(the cookies but the one that was checked)"
		case f.Name == authz.HeaderAssertion:
			f.Value = assertion(f.Value)
		case f.Name == "location" && r.Query != "":
			f.Value = strings.ReplaceAll(f.Value, url.QueryEscape("?"+r.Query), url.QueryEscape("?")+"…")
		}
		all = append(all, f)
	}
	return all
}
