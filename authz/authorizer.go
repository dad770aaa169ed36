package authz

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"
)

// An Authenticator resolves one kind of credential. Implementations are safe
// for concurrent use.
type Authenticator interface {
	// Kind is the name by which policies ask for it.
	Kind() Kind
	// Credential picks this kind's credential out of a request. present is
	// true as soon as the client shows one, however malformed: the first kind
	// that is present decides. Pure.
	Credential(r *Request) (value string, present bool)
	// Authenticate returns whose credential it is, or an error with a reason:
	// a 401 reason for an invalid one, a 503 reason when it can't be known.
	// Never two nils.
	Authenticate(ctx context.Context, value string, p *Policy) (*Principal, error)
}

// Options are the parts of an [Authorizer] beyond policies and credentials.
type Options struct {
	TrustedOrigins Origins
	Limiter        Limiter          // required where a policy names a limit
	Asserter       Asserter         // required where a policy has the identity signed
	Now            func() time.Time // nil means time.Now
	// Took is told how long the authorizer took to choose the policy ([StagePolicy]) and
	// to ask its conditions ([StageCondition]), but by Quick. nil: nobody is.
	Took func(Stage, time.Duration)
}

// Authorizer decides requests. It is safe for concurrent use.
type Authorizer struct {
	policies       *PolicySet
	authenticators map[Kind]Authenticator
	o              Options
}

// NewAuthorizer returns an authorizer. Of two authenticators of one kind the
// later one counts.
func NewAuthorizer(policies *PolicySet, o Options, authenticators ...Authenticator) *Authorizer {
	if o.Now == nil {
		o.Now = time.Now
	}
	a := &Authorizer{policies: policies, authenticators: make(map[Kind]Authenticator), o: o}
	for _, auth := range authenticators {
		a.authenticators[auth.Kind()] = auth
	}
	return a
}

// Decision is what was found out about a request, as far as the decision
// got.
type Decision struct {
	Policy    *Policy    // nil when none was chosen
	Kind      Kind       // of the credential that decided; "" when none was presented
	Principal *Principal // nil: anonymous, or refused before it was known
	Reason    Reason
	// Observed is, under a policy that only observes, why the request would
	// have been refused; nil otherwise.
	Observed error
	// Quota is what is left of the policy's rate limit; zero when nothing was
	// counted.
	Quota Quota
	// Extra are the headers that the policy adds for the service, encoded, and
	// Metadata is what it adds for the gateway: of a request that passes, what has
	// a value.
	Extra, Metadata []Header

	// What Quick makes its answers in.
	memory    Memory
	principal Principal
}

// Authorize decides a canonical request. The decision is never nil; an error
// always means: refused, with the reason that [ReasonOf] returns.
func (a *Authorizer) Authorize(ctx context.Context, r *Request) (*Decision, error) {
	d := &Decision{}
	t := TraceFrom(ctx)
	began := a.now(t)
	policy, route, err := a.policies.choose(r)
	a.took(StagePolicy, began)
	t.chosen(r, policy, route, err)
	if err != nil {
		d.Reason = ReasonOf(err)
		return d, err
	}
	d.Policy = policy
	err = a.decide(ctx, r, d)
	if err == nil || policy.Observe { // which lets it pass, and told of who it is
		err = cmp.Or(err, a.tell(t, r, d))
	}
	switch {
	case err != nil && policy.Observe:
		d.Observed = err
		d.Reason = ReasonAnonymous
		if d.Principal != nil {
			d.Reason = ReasonAuthenticated
		}
		return d, nil
	case err != nil:
		d.Reason = ReasonOf(err)
	case d.Principal == nil:
		d.Reason = ReasonAnonymous
	default:
		d.Reason = ReasonAuthenticated
	}
	return d, err
}

func (a *Authorizer) decide(ctx context.Context, r *Request, d *Decision) error {
	t := TraceFrom(ctx)
	err := a.authenticate(ctx, r, d)
	began := a.now(t)
	if err != nil {
		if !d.Policy.Anonymous || !proves(err, nobody) {
			return err
		}
		t.None(StageIdentity, "anonymous", "no valid credential; the policy lets the request through without identity")
		err = d.Policy.permitsNobody(t, r)
	} else {
		err = a.permits(t, r, d)
	}
	a.took(StageCondition, began)
	if err != nil {
		return err
	}
	return a.count(ctx, r, d)
}

// now is the time for a step, zero where nobody wants to know. An explanation is no
// decision.
func (a *Authorizer) now(t *Trace) (now time.Time) {
	if a.o.Took != nil && t == nil {
		now = time.Now()
	}
	return now
}

// took tells of a step that began at a time.
func (a *Authorizer) took(stage Stage, began time.Time) {
	if !began.IsZero() {
		a.o.Took(stage, time.Since(began))
	}
}

// count counts a request that the policy permits.
func (a *Authorizer) count(ctx context.Context, r *Request, d *Decision) (err error) {
	if d.Policy.RateLimit == "" {
		return nil
	}
	if a.o.Limiter == nil {
		return Refuse(ReasonInternal, "policy %q names a rate limit and there is no limiter", d.Policy.Name)
	}
	if t := TraceFrom(ctx); t != nil { // an explanation counts nothing
		began := t.now()
		d.Quota, err = a.o.Limiter.Peek(ctx, d.Policy.RateLimit, r, d.Principal)
		t.Add(StageLimit, d.Policy.RateLimit, began, err, "%d of %d left; not counted", d.Quota.Remaining, d.Quota.Burst)
		return err
	}
	d.Quota, err = a.o.Limiter.Allow(ctx, d.Policy.RateLimit, r, d.Principal)
	return err
}

// authenticate fills in Kind and Principal from the first kind that is
// present.
func (a *Authorizer) authenticate(ctx context.Context, r *Request, d *Decision) error {
	t := TraceFrom(ctx)
	a.shown(t, r, d.Policy)
	for _, kind := range d.Policy.Credentials {
		auth := a.authenticators[kind]
		if auth == nil {
			return Refuse(ReasonInternal, "policy %q accepts credential kind %q, which nothing here resolves", d.Policy.Name, kind)
		}
		value, present := auth.Credential(r)
		if !present {
			continue
		}
		d.Kind = kind
		principal, err := auth.Authenticate(ctx, value, d.Policy)
		if err != nil {
			return err
		}
		if principal == nil || principal.ID == "" {
			return Refuse(ReasonInternal, "the authenticator of kind %q names nobody and gives no error", kind)
		}
		if impersonates(kind, principal.ID) {
			return Refuse(impostor(kind), "a user's id may not begin with %q: services would take it for an internal caller's", ServicePrefix)
		}
		if err := d.Policy.recent(principal, a.o.Now()); err != nil {
			t.Add(StageCondition, "max_auth_age", time.Time{}, err, "")
			return suspect(err, principal.ID, principal.loginID())
		}
		t.identified(d.Policy, principal)
		d.Principal = principal
		return nil
	}
	return Refuse(ReasonNoCredential, "none of %q was presented", d.Policy.Credentials)
}

// impersonates reports whether a principal that is no service has a service's id.
func impersonates(kind Kind, id string) bool {
	return kind != KindAPIKey && strings.HasPrefix(id, ServicePrefix)
}

// impostor is the reason for a principal that is not of its kind.
func impostor(kind Kind) Reason {
	switch kind {
	case KindSession:
		return ReasonSessionMalformed
	case KindBearer:
		return ReasonTokenInvalid
	case KindAPIKey: // the one kind whose principals are services
	}
	return ReasonCredentialInvalid
}

func (a *Authorizer) permits(t *Trace, r *Request, d *Decision) (err error) {
	if d.Kind == KindSession && !d.Policy.InsecureSkipCSRF {
		began := t.now()
		err = a.o.TrustedOrigins.CrossSite(r)
		t.Add(StageCondition, "csrf", began, err, "")
		if err != nil && t == nil {
			return err
		}
	}
	return cmp.Or(err, d.Policy.permits(t, r, d.Principal))
}

// nobody are the reasons that prove there is no valid credential, so that an
// anonymous policy may go on without one. Everything else is either a valid
// credential that may not pass, or not known.
var nobody = []Reason{
	ReasonNoCredential,
	ReasonTokenInvalid, ReasonTokenExpired, ReasonTokenRevoked, ReasonTokenStale,
	ReasonSessionForged, ReasonSessionUnknown, ReasonSessionExpired, ReasonSessionRevoked,
	ReasonSessionMalformed, ReasonSessionAnonymous, ReasonSessionStale, ReasonSessionIdle,
	ReasonUserDisabled, ReasonCredentialInvalid, ReasonAPIKeyUnknown, ReasonAPIKeyExpired,
	ReasonPasswordWrong, ReasonLoginRefused, ReasonRefreshInvalid, ReasonRefreshReused,
}

func proves(err error, reasons []Reason) bool { return slices.Contains(reasons, ReasonOf(err)) }
