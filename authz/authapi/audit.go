package authapi

import (
	"context"
	"encoding/base64"
	"log/slog"
	"slices"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// Audit keeps the audit log: what was changed, by whom, and whose it was. Attributes
// hold no credential.
type Audit interface {
	// Permit is called before each change, with what is known of it. An error refuses
	// the change, with 503: for those who must not do what they can't write down.
	Permit(ctx context.Context, attrs ...slog.Attr) error
	// Record is called for each change that was made, or asked for and not made.
	Record(ctx context.Context, o Outcome, attrs ...slog.Attr)
}

// Outcome is what came of a change.
type Outcome string

// The outcomes of changes.
const (
	OutcomeApplied      Outcome = "applied"       // it was made
	OutcomeNotConfirmed Outcome = "not_confirmed" // it was made, and fewer replicas hold it than must
	OutcomeRefused      Outcome = "refused"       // it was not made: whoever asked may not, or there is nothing to change
	OutcomeFailed       Outcome = "failed"        // it was not made, or nobody knows whether it was
)

// OutcomeOf is the outcome of a change that ended with err, which may be nil.
func OutcomeOf(err error) Outcome {
	switch {
	case err == nil:
		return OutcomeApplied
	case authz.ReasonOf(err) == authz.ReasonNotConfirmed:
		return OutcomeNotConfirmed
	case authz.AnswerTo(&authz.Decision{}, &authz.Request{Headers: authz.HeaderMap(nil)}, err).Status >= 500:
		return OutcomeFailed
	}
	return OutcomeRefused
}

// logAudit is the audit log of who has none: lines of the log.
type logAudit struct{ log *slog.Logger }

func (logAudit) Permit(context.Context, ...slog.Attr) error { return nil }

func (a logAudit) Record(ctx context.Context, o Outcome, attrs ...slog.Attr) {
	all := append([]slog.Attr{slog.String("log", "audit")}, attrs...)
	a.log.LogAttrs(ctx, slog.LevelInfo, "audit", append(all, slog.String("outcome", string(o)))...)
}

// permit asks whether a change may be made, which is to be audited afterwards.
func (a *API) permit(ctx context.Context, c *call, action string, attrs ...slog.Attr) error {
	if err := a.o.Audit.Permit(ctx, c.audited(action, attrs)...); err != nil {
		return authz.Refuse(authz.ReasonAuditUnavailable, "the audit log can't be written, so nothing was changed: %w", err)
	}
	c.permitted = true
	return nil
}

// audit tells of a change: who did what to whom, and what came of it.
func (a *API) audit(ctx context.Context, c *call, action string, err error, attrs ...slog.Attr) {
	c.told = true
	if err != nil && authz.ReasonOf(err) == authz.ReasonAuditUnavailable { // nor can this be written
		return
	}
	if err != nil {
		attrs = append(attrs, slog.String("reason", string(authz.ReasonOf(err))))
	}
	o := OutcomeOf(err)
	if a.o.Recorder != nil && (o == OutcomeApplied || o == OutcomeNotConfirmed) {
		a.o.Recorder.RecordChange(action)
	}
	if o == OutcomeNotConfirmed { // as it was called before there were outcomes
		attrs = append(attrs, slog.Bool("confirmed", false))
	}
	a.record(ctx, c, o, action, attrs)
}

// auditSome is audit for a change of several sessions, which may have come to a part of
// them before an error.
func (a *API) auditSome(ctx context.Context, c *call, action string, err error, sessions int, attrs ...slog.Attr) {
	attrs = append(attrs, slog.Int("sessions", sessions))
	if Partly(err, sessions) {
		err, attrs = nil, append(attrs, slog.Bool("complete", false))
	}
	a.audit(ctx, c, action, err, attrs...)
}

// Partly reports whether a change of several sessions that ended with err was made to
// some of them all the same.
func Partly(err error, sessions int) bool {
	return err != nil && sessions > 0 && authz.ReasonOf(err) != authz.ReasonNotConfirmed
}

// record writes a line. Of what was refused to somebody who isn't known only some are
// written, and how many others there were: else anybody could fill the disk.
func (a *API) record(ctx context.Context, c *call, o Outcome, action string, attrs []slog.Attr) {
	if c.caller == "" && !c.permitted && (o == OutcomeRefused || o == OutcomeFailed) && !a.refusals.Passes(refusals{o, action}) {
		return
	}
	a.o.Audit.Record(ctx, o, c.audited(action, attrs)...)
}

// refusals are calls of one kind that came to nothing.
type refusals struct {
	outcome Outcome
	action  string
}

// recordRefusals writes down how many there were that have no lines of their own.
func (a *API) recordRefusals(all refusals, count int) {
	a.o.Audit.Record(context.Background(), all.outcome, slog.String("action", all.action), slog.Int("count", count))
}

// audited are the attributes of a line: with where the call comes from.
func (c *call) audited(action string, attrs []slog.Attr) []slog.Attr {
	all := append([]slog.Attr{slog.String("action", action)}, attrs...)
	for _, a := range [...]struct{ key, value string }{
		{"by", c.caller},
		{"address", c.address()},
		{"user_agent", userAgent(c.header("user-agent"))},
		{"request_id", c.header("x-request-id")},
	} {
		if a.value != "" {
			all = append(all, slog.String(a.key, clip(a.value, 512)))
		}
	}
	return all
}

// unheard are the reasons of calls that ask for no change in earnest: what is no request
// of the API, and too many of them, which their lines would make another overload of.
var unheard = []string{
	string(authz.ReasonBadRequest), string(authz.ReasonBadPath), string(authz.ReasonBadHost),
	string(authz.ReasonRateLimited), string(authz.ReasonOverloaded),
	string(authz.ReasonAuditUnavailable), // nor can this be written
}

// auditRefusal tells of a change that was asked for and came to nothing, of which
// nothing was told: before anything was tried, as a rule.
func (a *API) auditRefusal(ctx context.Context, c *call, status int) {
	if c.op == nil || c.op.changes == "" || c.err == nil || c.told {
		return
	}
	if !c.permitted && slices.Contains(unheard, c.reason) {
		return
	}
	o := OutcomeRefused
	if status >= 500 {
		o = OutcomeFailed
	}
	attrs := []slog.Attr{slog.String("reason", c.reason)}
	for _, a := range [...]struct{ key, value string }{{"user", c.user}, {"session", c.session}} {
		if a.value != "" {
			attrs = append(attrs, slog.String(a.key, clip(a.value, 512)))
		}
	}
	a.record(ctx, c, o, c.op.changes, attrs)
}

// onlyHandle is a handle that somebody sent; "" for what is none, which may be the id of a
// session.
func onlyHandle(s string) string {
	if b, err := base64.RawURLEncoding.Strict().DecodeString(s); err != nil || len(b) != 15 {
		return ""
	}
	return s
}
