package explain

import (
	"strings"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/reasons"
)

// Meaning is a reason in plain words; code in it is in backticks.
type Meaning struct {
	Means string // what it says about the request
	Do    string // what to do about it; "" for what needs nothing done

	place
}

// place is where in a decision a reason is found.
type place struct {
	stage authz.Stage // "" where that depends, or is none
	step  string      // of the stage; "" for the reason's own word
}

// requestStage is before all stages: the request itself.
const requestStage authz.Stage = "request"

// maxAuthAge is the one condition that is asked before it is told who it is.
const maxAuthAge = "max_auth_age"

// MeaningOf returns what a reason means, in the words of package reasons. Every reason
// has a meaning.
func MeaningOf(r authz.Reason) Meaning {
	text := reasons.Of(r)
	return Meaning{Means: text.Meaning, Do: text.Remedy, place: places[r]}
}

// places has those of refusals.
var places = map[authz.Reason]place{
	authz.ReasonBadPath:    {requestStage, "path"},
	authz.ReasonBadHost:    {requestStage, "host"},
	authz.ReasonBadRequest: {requestStage, "request"},

	authz.ReasonNoCredential:      {authz.StageCredential, "credential"},
	authz.ReasonTokenInvalid:      {authz.StageProof, "token"},
	authz.ReasonTokenExpired:      {authz.StageProof, "token"},
	authz.ReasonTokenRevoked:      {authz.StageRevocation, "marks"},
	authz.ReasonTokenStale:        {authz.StageCondition, maxAuthAge},
	authz.ReasonSessionForged:     {authz.StageProof, "signature"},
	authz.ReasonSessionUnknown:    {authz.StageProof, "record"},
	authz.ReasonSessionExpired:    {authz.StageProof, "record"},
	authz.ReasonSessionRevoked:    {authz.StageRevocation, "marks"},
	authz.ReasonSessionMalformed:  {authz.StageProof, "record"},
	authz.ReasonSessionAnonymous:  {authz.StageProof, "record"},
	authz.ReasonSessionStale:      {authz.StageCondition, maxAuthAge},
	authz.ReasonSessionIdle:       {authz.StageProof, "record"},
	authz.ReasonUserDisabled:      {authz.StageRevocation, "profile"},
	authz.ReasonCredentialInvalid: {authz.StageProof, "credential"},

	authz.ReasonPasswordWrong:  {authz.StageProof, "password"},
	authz.ReasonLoginRefused:   {authz.StageProof, "provider"},
	authz.ReasonRefreshInvalid: {authz.StageProof, "refresh token"},
	authz.ReasonRefreshReused:  {authz.StageRevocation, "refresh token"},

	authz.ReasonAPIKeyUnknown:   {authz.StageProof, "key"},
	authz.ReasonAPIKeyExpired:   {authz.StageProof, "key"},
	authz.ReasonAPIKeyPolicy:    {authz.StageProof, "key"},
	authz.ReasonRole:            {authz.StageCondition, "roles"},
	authz.ReasonOrganization:    {authz.StageCondition, "organizations"},
	authz.ReasonIssuer:          {authz.StageCondition, "issuers"},
	authz.ReasonAudience:        {authz.StageCondition, "audiences"},
	authz.ReasonCondition:       {authz.StageCondition, "condition"},
	authz.ReasonCrossSite:       {authz.StageCondition, "csrf"},
	authz.ReasonIdentityTooLong: {authz.StageIdentity, "headers"},
	authz.ReasonNoAudience:      {authz.StageIdentity, "assertion"},
	authz.ReasonNoPolicy:        {authz.StagePolicy, "policy"},
	authz.ReasonPolicyUnknown:   {authz.StagePolicy, "policy"},

	authz.ReasonRateLimited: {authz.StageLimit, "limit"},

	authz.ReasonIssuerUnavailable: {authz.StageProof, "token"},
	authz.ReasonProfileMalformed:  {authz.StageRevocation, "profile"},
}

// Known is what a decision leaves behind when it is over.
type Known struct {
	Policy string     // "" for none
	Kind   authz.Kind // of the credential that decided; "" for none
	Reason authz.Reason
	Error  string // of the refusal
	User   string // whose credential it was; "" for not known
}

// stages are those that a request passes, in their order.
var stages = []authz.Stage{
	authz.StagePolicy, authz.StageCredential, authz.StageProof, authz.StageRevocation, authz.StageIdentity, authz.StageCondition, authz.StageLimit,
}

// Steps are those of a refusal that is over, as far as they can be known without the
// credential: where it was refused, and that all before it was in order. A traced
// decision ([NewReport]) has each with its details.
func (k Known) Steps() []Step {
	m := MeaningOf(k.Reason)
	refusal := Step{Stage: string(m.stage), Name: m.step, Outcome: string(authz.OutcomeRefused), Detail: k.Error}
	var steps []Step
	for _, stage := range stages {
		if stage == m.stage || m.stage == requestStage {
			break
		}
		s, ok := k.passed(stage)
		switch {
		case !ok,
			m.stage == "" && stage != authz.StagePolicy && stage != authz.StageCredential, // it may be any other one
			m.step == maxAuthAge && stage == authz.StageIdentity:                          // which comes after it
			continue
		}
		steps = append(steps, s)
	}
	if m.stage == "" {
		refusal.Stage, refusal.Name = string(requestStage), strings.ReplaceAll(string(k.Reason), "_", " ")
		if len(steps) > 0 {
			refusal.Stage = "" // somewhere behind them
		}
	}
	return append(steps, refusal)
}

// passed is a stage, as a whole, that must have been in order; ok is false for one that this kind of
// decision doesn't have.
func (k Known) passed(stage authz.Stage) (s Step, ok bool) {
	s = Step{Stage: string(stage), Outcome: string(authz.OutcomeOK)}
	switch stage {
	case authz.StagePolicy:
		s.Name, s.Detail = k.Policy, "it decides about this request"
		return s, k.Policy != ""
	case authz.StageCredential:
		s.Name, s.Detail = string(k.Kind), "shown, and decides"
	case authz.StageProof:
		s.Detail = "signature, times and record are in order"
		if k.Kind == authz.KindAPIKey {
			s.Detail = "one of the keys, for this policy"
		}
	case authz.StageRevocation:
		s.Detail = "nothing revoked it"
		return s, k.Kind != "" && k.Kind != authz.KindAPIKey
	case authz.StageIdentity:
		s.Detail = k.User
	case authz.StageCondition:
		s.Detail = "all of it holds"
		return s, k.Policy != ""
	case authz.StageLimit:
		return s, false // the last one
	}
	return s, k.Kind != ""
}
