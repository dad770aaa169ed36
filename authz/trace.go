package authz

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Trace is what a decision did, step by step, for people who want to know why:
//
//	var trace authz.Trace
//	decision, err := authorizer.Authorize(authz.WithTrace(ctx, &trace), request)
//
// A traced decision is made by the same code as any other one, and changes
// nothing: no session is renewed or ended by it, no idle timeout starts anew, and
// rate limits are looked at and not counted. All conditions are asked, also
// behind the first that doesn't hold.
//
// A step holds no credential: no cookie, token, key or session id. A nil Trace is
// none, and its methods do nothing.
type Trace struct {
	Steps []Step
	// Route is the route that chose the policy, counted from 0; nil where none
	// did.
	Route *int
}

// Step is one step of a decision.
type Step struct {
	Stage   Stage
	Name    string  // such as session, signature, roles.any
	Outcome Outcome // what came of it
	Detail  string  // for people; may be ""
	Took    time.Duration
}

// Stage is the part of a decision that a step belongs to.
type Stage string

// The stages, in their order.
const (
	StagePolicy     Stage = "policy"     // which one, and why
	StageCredential Stage = "credential" // which kinds are shown, which one decides
	StageProof      Stage = "proof"      // what makes the credential a valid one
	StageRevocation Stage = "revocation" // each thing that could have revoked it
	StageIdentity   Stage = "identity"   // where the identity is from
	StageCondition  Stage = "condition"  // what the policy asks beyond it
	StageLimit      Stage = "limit"      // how often
)

// Outcome is what came of a step.
type Outcome string

// The outcomes.
const (
	OutcomeOK      Outcome = "ok"
	OutcomeRefused Outcome = "refused" // and so the request is, unless the policy only observes or is anonymous
	OutcomeNone    Outcome = "none"    // it isn't there, or wasn't asked for
)

type traceKey struct{}

// WithTrace has the decision that is made with the returned context traced.
func WithTrace(ctx context.Context, t *Trace) context.Context {
	return context.WithValue(ctx, traceKey{}, t)
}

// TraceFrom returns the trace of the decision that ctx belongs to, nil for none.
// Authenticators, stores and verifiers add to it what only they know.
func TraceFrom(ctx context.Context) *Trace {
	t, _ := ctx.Value(traceKey{}).(*Trace)
	return t
}

// Add adds a step that began at a time: ok, or refused where err is not nil,
// whose text then stands behind the detail. The zero time is no time.
func (t *Trace) Add(stage Stage, name string, began time.Time, err error, format string, args ...any) {
	if t == nil {
		return
	}
	s := Step{Stage: stage, Name: name, Outcome: OutcomeOK, Detail: fmt.Sprintf(format, args...)}
	if err != nil {
		s.Outcome = OutcomeRefused
		if s.Detail != "" {
			s.Detail += ": "
		}
		s.Detail += err.Error()
	}
	if !began.IsZero() {
		s.Took = time.Since(began)
	}
	t.Steps = append(t.Steps, s)
}

// None adds a step about what isn't there.
func (t *Trace) None(stage Stage, name, format string, args ...any) {
	if t != nil {
		t.Steps = append(t.Steps, Step{Stage: stage, Name: name, Outcome: OutcomeNone, Detail: fmt.Sprintf(format, args...)})
	}
}

// now is the time for a step, zero where nobody wants to know.
func (t *Trace) now() time.Time {
	if t == nil {
		return time.Time{}
	}
	return time.Now()
}

// chosen tells which policy was chosen, and by what.
func (t *Trace) chosen(r *Request, p *Policy, route int, err error) {
	switch {
	case t == nil:
	case err != nil:
		t.Add(StagePolicy, "policy", time.Time{}, err, "")
	case r.HasPolicyName:
		t.Add(StagePolicy, p.Name, time.Time{}, nil, "named by the gateway's route")
	case route != none:
		t.Route = &route
		t.Add(StagePolicy, p.Name, time.Time{}, nil, "by routes[%d], the first one that matches", route)
	default:
		t.Add(StagePolicy, p.Name, time.Time{}, nil, "no route matches; it is the default policy")
	}
}

// looker is an [Authenticator] that says what it looked for and didn't find: who reads that
// sees when the client sends something else.
type looker interface{ looks() string }

// shown tells which kinds of credential a request shows, and what the policy
// makes of them.
func (a *Authorizer) shown(t *Trace, r *Request, p *Policy) {
	if t == nil {
		return
	}
	decided := false
	for _, kind := range p.Credentials {
		auth := a.authenticators[kind]
		if auth == nil {
			continue
		}
		switch _, present := auth.Credential(r); {
		case !present:
			detail := "not shown"
			if l, ok := auth.(looker); ok {
				detail += ": " + l.looks()
			}
			t.None(StageCredential, string(kind), "%s", detail)
		case decided:
			t.None(StageCredential, string(kind), "shown, too, and not looked at: the first kind that is shown decides")
		default:
			decided = true
			t.Add(StageCredential, string(kind), time.Time{}, nil, "shown, and decides")
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(a.authenticators)) {
		if _, present := a.authenticators[kind].Credential(r); present && !slices.Contains(p.Credentials, kind) {
			t.None(StageCredential, string(kind), "shown, and not among the kinds that this policy accepts")
		}
	}
}

// identified tells whose credential it is.
func (t *Trace) identified(p *Policy, who *Principal) {
	if t == nil {
		return
	}
	if p.MaxAuthAge > 0 {
		t.Add(StageCondition, "max_auth_age", time.Time{}, nil, "authenticated at %s, at most %v ago", moment(who.AuthTime), p.MaxAuthAge)
	}
	if p.IdleTimeout > 0 && who.Kind == KindSession {
		t.Add(StageCondition, "idle_timeout", time.Time{}, nil, "not unused for %v", p.IdleTimeout)
	}
	t.Add(StageIdentity, string(who.Kind), time.Time{}, nil, "%s", who.summary())
	if who.Degraded != "" {
		t.None(StageIdentity, "degraded", "the store is out of reach; let in by on_store_outage: %s", who.Degraded)
	}
}

func (id Identity) summary() string {
	text := fmt.Sprintf("user %q", id.ID)
	if id.Email != "" {
		text += fmt.Sprintf(", email %q", id.Email)
	}
	text += fmt.Sprintf(", roles %q", id.Roles)
	if id.Organization != "" {
		text += fmt.Sprintf(", organization %q", id.Organization)
	}
	return text
}

// condition tells what came of a condition, and of the parts of an expression.
func (t *Trace) condition(p *Policy, c *policyCondition, r *Request, who *Principal, began time.Time, err error) {
	detail := ""
	switch {
	case c.name == "audiences": // which nothing else tells
		detail = fmt.Sprintf("%q, of %q", who.Audiences, p.Audiences)
	case err == nil:
		switch c.name {
		case "issuers":
			detail = fmt.Sprintf("%q", who.Issuer)
		case "roles.any":
			detail = fmt.Sprintf("%q, of %q", who.Roles, p.RolesAny)
		case "roles.all":
			detail = fmt.Sprintf("%q, and %q are asked for", who.Roles, p.RolesAll)
		case "organizations":
			detail = fmt.Sprintf("%q", who.Organization)
		}
	}
	t.Add(StageCondition, c.name, began, err, "%s", detail)
	if c.name != "condition" {
		return
	}
	for _, part := range p.ConditionParts {
		began := t.now()
		ok, err := part.Holds(r, who)
		if err == nil && !ok {
			err = errFalse
		}
		t.Add(StageCondition, "condition.part", began, err, "%s", part.Text)
	}
}

var errFalse = errors.New("false")

// standing tells each thing that could have revoked a credential made at a time.
func (t *Trace) standing(s *Standing, user string, made time.Time) {
	if t == nil {
		return
	}
	switch {
	case s.RevokedBefore.IsZero():
		t.None(StageRevocation, "user's mark", "nothing of user %q was revoked as a whole", user)
	case made.IsZero():
		t.None(StageRevocation, "user's mark", "all that was made until %s is revoked; this credential carries no time", moment(s.RevokedBefore))
	case s.predates(made):
		t.Add(StageRevocation, "user's mark", time.Time{}, fmt.Errorf("all that was made until %s is revoked", moment(s.RevokedBefore)), "made at %s", moment(made))
	default:
		t.Add(StageRevocation, "user's mark", time.Time{}, nil, "all that was made until %s is revoked; this was made later, at %s", moment(s.RevokedBefore), moment(made))
	}
	switch {
	case s.Profile == nil:
		t.None(StageRevocation, "profile", "user %q has none", user)
	case s.Profile.Disabled:
		t.Add(StageRevocation, "profile", time.Time{}, errors.New("it says disabled"), "")
	default:
		t.Add(StageRevocation, "profile", time.Time{}, nil, "not disabled")
	}
}

// moment is a time for people.
func moment(t time.Time) string {
	if t.IsZero() {
		return "a time that is not told"
	}
	return t.UTC().Format("2006-01-02 15:04:05.999Z")
}
