package telemetry

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// Calls counts the calls of the auth API, and what they changed. It implements that
// door's Recorder interface and is safe for concurrent use.
type Calls struct {
	answered *prometheus.CounterVec
	duration *prometheus.HistogramVec
	refused  *prometheus.CounterVec
	changes  *prometheus.CounterVec
	reuses   prometheus.Counter
}

// NewCalls returns a recorder whose metrics are registered with reg.
func NewCalls(reg prometheus.Registerer) *Calls {
	c := &Calls{
		answered: AuthCalls.counters(), duration: AuthCallDuration.histograms(), refused: AuthRefusals.counters(),
		changes: AuthChanges.CounterVec(), reuses: RefreshReuses.counter(),
	}
	for _, call := range []string{"login", "token"} { // of which guesses are told by their increase
		for _, reason := range []authz.Reason{authz.ReasonPasswordWrong, authz.ReasonRateLimited} {
			c.refused.WithLabelValues(call, string(reason))
		}
		for _, status := range []int{http.StatusOK, http.StatusUnauthorized, http.StatusTooManyRequests} {
			c.answered.WithLabelValues(call, strconv.Itoa(status))
		}
	}
	reg.MustRegister(c.answered, c.duration, c.refused, c.changes, c.reuses)
	return c
}

// RecordCall counts a call by its name, which comes from a closed list, and its
// status.
func (c *Calls) RecordCall(call string, status int, took time.Duration) {
	c.answered.WithLabelValues(call, strconv.Itoa(status)).Inc()
	c.duration.WithLabelValues(call).Observe(took.Seconds())
}

// RecordRefusal counts a refused call by its reason, which comes from a closed list,
// too.
func (c *Calls) RecordRefusal(call, reason string) { c.refused.WithLabelValues(call, reason).Inc() }

// RecordChange counts a change by its action, of which there is a closed list.
func (c *Calls) RecordChange(action string) {
	c.changes.WithLabelValues(action).Inc()
	if action == reuseAction {
		c.reuses.Inc()
	}
}

// reuseAction is how the auth API calls it that a refresh token was used again.
const reuseAction = "refresh_token_reused"
