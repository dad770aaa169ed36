package explain

import (
	"strings"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// Meaning is a reason in plain words.
type Meaning struct {
	Means string // what it says about the request
	Do    string // what to do about it; "" for what needs nothing done

	stage authz.Stage // of the decision in which it is found; "" where that depends, or is none
	step  string      // of the stage; "" for the reason's own word
}

// requestStage is before all stages: the request itself.
const requestStage authz.Stage = "request"

// maxAuthAge is the one condition that is asked before it is told who it is.
const maxAuthAge = "max_auth_age"

// MeaningOf returns what a reason means. Every reason has a meaning.
func MeaningOf(r authz.Reason) Meaning { return meanings[r] }

var meanings = map[authz.Reason]Meaning{
	authz.ReasonAuthenticated: {Means: "A valid credential, and the policy permits who it belongs to."},
	authz.ReasonAnonymous:     {Means: "Let through without an identity, as the policy says."},

	authz.ReasonBadPath: {
		Means: "The path can be read in two ways, so a route's policy could be walked around.",
		Do:    "Have the client send the plain path: no //, no dot segments, no escaped slash. From strangers, these are probes.",
		stage: requestStage, step: "path",
	},
	authz.ReasonBadHost: {
		Means: "The host is neither a host name nor an address.",
		Do:    "Correct the client. From strangers, these are probes.",
		stage: requestStage, step: "host",
	},
	authz.ReasonBadRequest: {
		Means: "What came is no HTTP request.",
		Do:    "Look at what asks Gatehouse: only the gateway's check filter should.",
		stage: requestStage, step: "request",
	},

	authz.ReasonNoCredential: {
		Means: "Nothing was shown that this policy accepts.",
		Do:    "If the user is logged in: the cookie has another name, or the browser didn't send it (SameSite, Secure, another host). Else they log in.",
		stage: authz.StageCredential, step: "credential",
	},
	authz.ReasonTokenInvalid: {
		Means: "The token is malformed, or its algorithm, key, signature or claims are not what was asked for.",
		Do:    "'gatehouse tokens inspect' says which claim, and what was expected.",
		stage: authz.StageProof, step: "token",
	},
	authz.ReasonTokenExpired: {
		Means: "The token is past its exp.",
		Do:    "The client refreshes it. If it does: compare the clocks.",
		stage: authz.StageProof, step: "token",
	},
	authz.ReasonTokenRevoked: {
		Means: "The token, its login or its user was revoked.",
		Do:    "The user logs in again. The audit log says who revoked it.",
		stage: authz.StageRevocation, step: "marks",
	},
	authz.ReasonTokenStale: {
		Means: "The user authenticated longer ago than the policy's max_auth_age.",
		Do:    "The user logs in again.",
		stage: authz.StageCondition, step: maxAuthAge,
	},
	authz.ReasonSessionForged: {
		Means: "The cookie is signed by none of our secrets.",
		Do:    "If all users see it: the application's secret is another one than sessions.secrets. One alone is a forgery, or an old cookie.",
		stage: authz.StageProof, step: "signature",
	},
	authz.ReasonSessionUnknown: {
		Means: "The cookie is genuine, and there is no such session.",
		Do:    "It has ended, and the user logs in again. If all users see it: Gatehouse looks into another Redis, database or prefix.",
		stage: authz.StageProof, step: "record",
	},
	authz.ReasonSessionExpired: {
		Means: "The session is past its time to live.",
		Do:    "The user logs in again.",
		stage: authz.StageProof, step: "record",
	},
	authz.ReasonSessionRevoked: {
		Means: "The session was revoked, by itself or with all that its user had.",
		Do:    "The user logs in again. The audit log says who revoked it.",
		stage: authz.StageRevocation, step: "marks",
	},
	authz.ReasonSessionMalformed: {
		Means: "The session's record can't be read.",
		Do:    "Compare sessions.fields with what the application writes: 'gatehouse sessions show' shows the record.",
		stage: authz.StageProof, step: "record",
	},
	authz.ReasonSessionAnonymous: {
		Means: "The session is a visitor's: nobody has logged in with it.",
		Do:    "The user logs in. If they have: sessions.fields.user_id names another member than the application writes.",
		stage: authz.StageProof, step: "record",
	},
	authz.ReasonSessionStale: {
		Means: "The user authenticated longer ago than the policy's max_auth_age.",
		Do:    "The user logs in again.",
		stage: authz.StageCondition, step: maxAuthAge,
	},
	authz.ReasonSessionIdle: {
		Means: "The session was unused for longer than the policy's idle_timeout.",
		Do:    "The user logs in again.",
		stage: authz.StageProof, step: "record",
	},
	authz.ReasonUserDisabled: {
		Means: "The user is locked out.",
		Do:    "If that is a mistake: let the user in again on their page here. The audit log says who did it.",
		stage: authz.StageRevocation, step: "profile",
	},
	authz.ReasonCredentialInvalid: {
		Means: "The credential is not valid.",
		Do:    "Ask whoever added this kind of credential.",
		stage: authz.StageProof, step: "credential",
	},

	authz.ReasonPasswordWrong: {
		Means: "No such user, another password, or a user who is locked out.",
		Do:    "Many of one address are somebody who guesses.",
		stage: authz.StageProof, step: "password",
	},
	authz.ReasonLoginRefused: {
		Means: "What the OpenID provider said proves nobody.",
		Do:    "The error says which claim, and what was expected.",
		stage: authz.StageProof, step: "provider",
	},
	authz.ReasonRefreshInvalid: {
		Means: "The refresh token is malformed, forged, unknown, expired or revoked.",
		Do:    "The user logs in again.",
		stage: authz.StageProof, step: "refresh token",
	},
	authz.ReasonRefreshReused: {
		Means: "A refresh token was used twice, so somebody has a copy. All that came from its login is revoked.",
		Do:    "Find out whether the client stores its tokens wrongly, or one was stolen. The user logs in again.",
		stage: authz.StageRevocation, step: "refresh token",
	},

	authz.ReasonAPIKeyUnknown: {
		Means: "No internal key has this hash.",
		Do:    "Compare it with api_keys in the configuration: sha256 is that of the key without a newline.",
		stage: authz.StageProof, step: "key",
	},
	authz.ReasonAPIKeyExpired: {
		Means: "The internal key is past its date.",
		Do:    "Give its owner a new one. Two entries of one name are valid at once.",
		stage: authz.StageProof, step: "key",
	},
	authz.ReasonAPIKeyPolicy: {
		Means: "The internal key is not for this policy.",
		Do:    "If it should be: add the policy to the key's policies.",
		stage: authz.StageProof, step: "key",
	},
	authz.ReasonRole: {
		Means: "The user doesn't have the roles that the policy asks for.",
		Do:    "Give the user the role on their page here, or correct the policy. Both count at the next request.",
		stage: authz.StageCondition, step: "roles",
	},
	authz.ReasonOrganization: {
		Means: "The user works in an organization that is none of the policy's.",
		Do:    "The user switches, or the policy lists it.",
		stage: authz.StageCondition, step: "organizations",
	},
	authz.ReasonIssuer: {
		Means: "A valid token of an issuer that the policy doesn't list.",
		Do:    "If it should be let in: add it to the policy's issuers.",
		stage: authz.StageCondition, step: "issuers",
	},
	authz.ReasonAudience: {
		Means: "A valid token for an audience that the policy doesn't list.",
		Do:    "The client asks for a token for this service, or the policy lists the audience.",
		stage: authz.StageCondition, step: "audiences",
	},
	authz.ReasonCondition: {
		Means: "The policy's condition is false for this request, or failed.",
		Do:    "'gatehouse explain' tells each part of the condition.",
		stage: authz.StageCondition, step: "condition",
	},
	authz.ReasonCrossSite: {
		Means: "A page of another site had the browser send a request that changes something.",
		Do:    "If that page is yours: add its origin to sessions.trusted_origins. Else somebody tried something.",
		stage: authz.StageCondition, step: "csrf",
	},
	authz.ReasonIdentityTooLong: {
		Means: "The identity doesn't fit into its headers.",
		Do:    "The user has very many roles, or very long ones: fewer, or a larger identity.max_header_bytes.",
		stage: authz.StageIdentity, step: "headers",
	},
	authz.ReasonNoPolicy: {
		Means: "No route matches, and there is no default policy.",
		Do:    "Name the policy in the gateway's route (context_extensions), in routes, or as default_policy.",
		stage: authz.StagePolicy, step: "policy",
	},
	authz.ReasonPolicyUnknown: {
		Means: "The gateway's route names a policy that doesn't exist.",
		Do:    "Correct the name in the gateway's route, or add the policy. Until then all its requests are refused.",
		stage: authz.StagePolicy, step: "policy",
	},

	authz.ReasonRateLimited: {
		Means: "The rate limit is used up.",
		Do:    "It is refilled as time passes. If many meet it who shouldn't: the limit is too low, or counts by an address that all share.",
		stage: authz.StageLimit, step: "limit",
	},

	authz.ReasonStoreUnavailable: {
		Means: "Redis is out of reach, so nobody can know.",
		Do:    "Look at Redis and the network to it. Nobody has to log in again.",
	},
	authz.ReasonIssuerUnavailable: {
		Means: "The issuer's keys are not there, and it is out of reach.",
		Do:    "Look at the issuer and the network to it.",
		stage: authz.StageProof, step: "token",
	},
	authz.ReasonProfileMalformed: {
		Means: "The user's profile can't be read.",
		Do:    "Correct the record user:<id> in Redis.",
		stage: authz.StageRevocation, step: "profile",
	},
	authz.ReasonOverloaded: {
		Means: "There were more requests than can be answered in time.",
		Do:    "If it stays: more processors or replicas, or fewer requests.",
	},
	authz.ReasonInternal: {
		Means: "A mistake in Gatehouse, or a part that is missing.",
		Do:    "The error in the log says more. Please report it.",
	},
	authz.ReasonNotConfirmed: {
		Means: "It was done, and fewer replicas of Redis hold it than must.",
		Do:    "Do it again: that does no harm. If it stays, look at the replicas.",
	},
	authz.ReasonAuditUnavailable: {
		Means: "The audit log can't be written, so nothing was changed.",
		Do:    "Is the disk full?",
	},
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
