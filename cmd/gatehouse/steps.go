package main

import (
	"context"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/limit"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/authz/token"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

// The parts of a decision, with the time that they take. What memory knows is answered
// by the parts themselves, and has no time to be told of. Explanations are none, either.

type timedStore struct {
	*session.Store
	steps *telemetry.Steps
}

// Session implements [authz.SessionStore].
func (s timedStore) Session(ctx context.Context, id string, o authz.ReadOptions) (*authz.Session, error) {
	defer tellStep(ctx, s.steps, telemetry.StepSession, time.Now())
	return s.Store.Session(ctx, id, o)
}

// TokenStanding implements [authz.StandingStore].
func (s timedStore) TokenStanding(ctx context.Context, ref authz.TokenRef, o authz.ReadOptions) (authz.Standing, error) {
	defer tellStep(ctx, s.steps, telemetry.StepStanding, time.Now())
	return s.Store.TokenStanding(ctx, ref, o)
}

type timedVerifier struct {
	*token.Verifier
	steps *telemetry.Steps
}

// Verify implements [authz.TokenVerifier].
func (v timedVerifier) Verify(ctx context.Context, raw string) (*authz.Token, error) {
	defer tellStep(ctx, v.steps, telemetry.StepToken, time.Now())
	return v.Verifier.Verify(ctx, raw)
}

type timedLimiter struct {
	*limit.Limiter
	steps *telemetry.Steps
}

// Allow implements [authz.Limiter].
func (l timedLimiter) Allow(ctx context.Context, name string, r *authz.Request, p *authz.Principal) (authz.Quota, error) {
	began := time.Now()
	q, err := l.Limiter.Allow(ctx, name, r, p)
	l.steps.Took(telemetry.StepLimit, time.Since(began))
	result := "allowed"
	switch {
	case err != nil && authz.ReasonOf(err) == authz.ReasonRateLimited:
		result = "refused"
	case err != nil:
		result = "unavailable"
	case q.Uncounted != nil:
		result = "uncounted"
	}
	l.steps.Limited(name, result)
	return q, err
}

func tellStep(ctx context.Context, steps *telemetry.Steps, step string, began time.Time) {
	if steps != nil && authz.TraceFrom(ctx) == nil {
		steps.Took(step, time.Since(began))
	}
}
