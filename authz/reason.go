package authz

import (
	"errors"
	"fmt"
	"slices"
)

// Reason says in one word why a request was decided as it was. The same word
// appears in the log, as a metric label and in the gateway's dynamic
// metadata; it is never sent to the client. The list is closed: [Reasons]
// returns all of it, and every table that maps reasons is tested against it.
type Reason string

// The reasons of an allowed request.
const (
	ReasonAuthenticated Reason = "authenticated" // a valid credential, and the policy permits its principal
	ReasonAnonymous     Reason = "anonymous"     // let through without an identity, as the policy says
)

// The reasons of a refused request.
//
//nolint:gosec // G101: words about credentials
const (
	// The request itself: 400.
	ReasonBadPath    Reason = "bad_path"    // a path that two servers could read differently
	ReasonBadHost    Reason = "bad_host"    // a host that is not a host name or address
	ReasonBadRequest Reason = "bad_request" // no HTTP request inside the check at all

	// The credential: 401.
	ReasonNoCredential      Reason = "no_credential"      // none of the kinds that the policy accepts
	ReasonTokenInvalid      Reason = "token_invalid"      // malformed, forbidden header, wrong algorithm, key, signature or claims
	ReasonTokenExpired      Reason = "token_expired"      // past exp
	ReasonTokenRevoked      Reason = "token_revoked"      // by jti, by family, or older than the user's mark
	ReasonTokenStale        Reason = "token_stale"        // authenticated longer ago than max_auth_age
	ReasonSessionForged     Reason = "session_forged"     // signature of no secret of ours; the store was not asked
	ReasonSessionUnknown    Reason = "session_unknown"    // no such record
	ReasonSessionExpired    Reason = "session_expired"    // past its time to live
	ReasonSessionRevoked    Reason = "session_revoked"    // marked dead, or older than the user's mark
	ReasonSessionMalformed  Reason = "session_malformed"  // a record that can't be read
	ReasonSessionAnonymous  Reason = "session_anonymous"  // a record of nobody: not logged in
	ReasonSessionStale      Reason = "session_stale"      // authenticated longer ago than max_auth_age
	ReasonSessionIdle       Reason = "session_idle"       // unused longer than idle_timeout
	ReasonUserDisabled      Reason = "user_disabled"      // the profile says so
	ReasonCredentialInvalid Reason = "credential_invalid" // of a kind that is not built in

	// What only the auth API is shown: 401.
	ReasonPasswordWrong  Reason = "password_wrong"  // no such user, another password, or a user who is locked out
	ReasonLoginRefused   Reason = "login_refused"   // what an OpenID provider said proves nobody
	ReasonRefreshInvalid Reason = "refresh_invalid" // malformed, forged, unknown, expired or revoked
	ReasonRefreshReused  Reason = "refresh_reused"  // used before, longer ago than the grace: its family is revoked now

	// Known, not allowed: 403.
	ReasonAPIKeyUnknown   Reason = "api_key_unknown"   // no such key
	ReasonAPIKeyExpired   Reason = "api_key_expired"   // past its date
	ReasonAPIKeyPolicy    Reason = "api_key_policy"    // not one of the policies that the key may use
	ReasonRole            Reason = "role"              // none, or not all, of the roles that the policy asks for
	ReasonOrganization    Reason = "organization"      // not one of the policy's organizations
	ReasonIssuer          Reason = "issuer"            // a valid token of an issuer that the policy does not list
	ReasonAudience        Reason = "audience"          // a valid token for an audience that the policy does not list
	ReasonCondition       Reason = "condition"         // the policy's condition is false, or failed
	ReasonCrossSite       Reason = "cross_site"        // an unsafe request of another site with a session cookie
	ReasonIdentityTooLong Reason = "identity_too_long" // the identity headers would exceed their budget
	ReasonNoPolicy        Reason = "no_policy"         // nothing matches and there is no default
	ReasonPolicyUnknown   Reason = "policy_unknown"    // the gateway names a policy that does not exist
	ReasonNoAudience      Reason = "no_audience"       // the identity is to be signed, and nothing says for which service

	// Too often: 429.
	ReasonRateLimited Reason = "rate_limited"

	// Not known right now: 503.
	ReasonStoreUnavailable  Reason = "store_unavailable"  // Redis out of reach
	ReasonIssuerUnavailable Reason = "issuer_unavailable" // no keys of the issuer, and it is out of reach
	ReasonProfileMalformed  Reason = "profile_malformed"  // the user's profile can't be read
	ReasonOverloaded        Reason = "overloaded"         // shed before any work was done
	ReasonInternal          Reason = "internal"           // a bug: an error without a reason
	ReasonNotConfirmed      Reason = "not_confirmed"      // written, but not yet held by the replicas that must confirm it
	ReasonAuditUnavailable  Reason = "audit_unavailable"  // a change that can't be written down, where none is made without that
)

var reasons = []Reason{
	ReasonAuthenticated, ReasonAnonymous,
	ReasonBadPath, ReasonBadHost, ReasonBadRequest,
	ReasonNoCredential, ReasonTokenInvalid, ReasonTokenExpired, ReasonTokenRevoked, ReasonTokenStale,
	ReasonSessionForged, ReasonSessionUnknown, ReasonSessionExpired, ReasonSessionRevoked,
	ReasonSessionMalformed, ReasonSessionAnonymous, ReasonSessionStale, ReasonSessionIdle,
	ReasonUserDisabled, ReasonCredentialInvalid,
	ReasonPasswordWrong, ReasonLoginRefused, ReasonRefreshInvalid, ReasonRefreshReused,
	ReasonAPIKeyUnknown, ReasonAPIKeyExpired, ReasonAPIKeyPolicy, ReasonRole, ReasonOrganization,
	ReasonIssuer, ReasonAudience, ReasonCondition, ReasonCrossSite, ReasonIdentityTooLong,
	ReasonNoPolicy, ReasonPolicyUnknown, ReasonNoAudience,
	ReasonRateLimited,
	ReasonStoreUnavailable, ReasonIssuerUnavailable, ReasonProfileMalformed, ReasonOverloaded, ReasonInternal,
	ReasonNotConfirmed, ReasonAuditUnavailable,
}

// Reasons returns every reason there is, those of allowed requests first.
func Reasons() []Reason { return slices.Clone(reasons) }

// Error is a refusal: the reason, and for the log what lies below it. The
// place that knows the fact creates it; those in between only wrap it.
type Error struct {
	Reason Reason
	Err    error // the cause; may be nil; never sent to a client
}

// Refuse returns an [*Error] with that reason. The message follows
// [fmt.Errorf], %w included; it must hold no credential.
func Refuse(reason Reason, format string, args ...any) error {
	return &Error{Reason: reason, Err: fmt.Errorf(format, args...)}
}

func (e *Error) Error() string {
	if e.Err == nil {
		return string(e.Reason)
	}
	return string(e.Reason) + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// ReasonOf returns the reason that err carries, [ReasonInternal] when it
// carries none. err must not be nil.
func ReasonOf(err error) Reason {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return ReasonInternal
}
