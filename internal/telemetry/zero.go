package telemetry

import (
	"slices"
	"strings"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// A counter that is there for the first time with its first event shows no increase:
// Prometheus knows nothing of the zero before. So what alerts ask for is told from the
// beginning. That is bounded by the configuration, as all labels are.

// unavailable are the reasons by which a check is answered with 503.
var unavailable = []authz.Reason{
	authz.ReasonStoreUnavailable, authz.ReasonIssuerUnavailable, authz.ReasonOverloaded, authz.ReasonProfileMalformed, authz.ReasonInternal,
}

// unobserved are the reasons that no policy has: of allowed requests, of checks for which
// none was chosen, and of the auth API.
var unobserved = []authz.Reason{
	authz.ReasonAuthenticated, authz.ReasonAnonymous,
	authz.ReasonBadPath, authz.ReasonBadHost, authz.ReasonBadRequest, authz.ReasonNoPolicy, authz.ReasonPolicyUnknown,
	authz.ReasonPasswordWrong, authz.ReasonLoginRefused, authz.ReasonRefreshInvalid, authz.ReasonRefreshReused,
	authz.ReasonNotConfirmed, authz.ReasonAuditUnavailable,
}

// Begin has counted from zero what policies can meet: outages, by each kind of
// credential; what they would deny, where they only observe; and what they let pass
// without the store. limits are those that let requests pass uncounted. It is for each
// configuration that is applied, before it answers; what was counted stays.
func (r *Recorder) Begin(policies []authz.Policy, limits []string) {
	deny := func(policy string, kind authz.Kind, reasons ...authz.Reason) {
		for _, reason := range reasons {
			r.metersOf(labels{policy, kind, "deny", reason})
		}
	}
	deny("", "", authz.ReasonPolicyUnknown, authz.ReasonInternal, authz.ReasonOverloaded)
	for _, p := range policies {
		deny(p.Name, "", unavailable...)
		for _, kind := range p.Credentials {
			deny(p.Name, kind, unavailable...)
		}
		if p.Observe {
			for _, reason := range authz.Reasons() {
				if !slices.Contains(unobserved, reason) && meets(p.Credentials, reason) {
					r.observed.WithLabelValues(p.Name, string(reason))
				}
			}
		}
		if p.OnStoreOutage != "" && p.OnStoreOutage != authz.OutageDeny {
			r.degraded.WithLabelValues(p.Name, string(p.OnStoreOutage))
		}
	}
	for _, limit := range limits {
		r.uncounted.WithLabelValues(limit)
	}
}

// meets reports whether a reason can be met by who shows one of these kinds of
// credentials.
func meets(kinds []authz.Kind, reason authz.Reason) bool {
	for prefix, kind := range map[string]authz.Kind{
		"session_": authz.KindSession, "cross_site": authz.KindSession,
		"token_": authz.KindBearer, "issuer": authz.KindBearer, "audience": authz.KindBearer,
		"api_key_": authz.KindAPIKey,
	} {
		if strings.HasPrefix(string(reason), prefix) {
			return slices.Contains(kinds, kind)
		}
	}
	return true
}

// Begin has counted from zero what these limits of a configuration say.
func (s *Steps) Begin(limits []string) {
	for _, limit := range limits {
		for _, result := range RateLimitDecisions.Labels[1].Values {
			s.limits.WithLabelValues(limit, result)
		}
	}
}
