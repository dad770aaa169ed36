package telemetry

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Steps tells how long the steps of decisions take, and what rate limits say. A nil
// one tells nothing. It is safe for concurrent use.
type Steps struct {
	took   map[string]prometheus.Observer
	limits *prometheus.CounterVec
}

// NewSteps returns a recorder whose metrics are registered with reg.
func NewSteps(reg prometheus.Registerer) *Steps {
	duration := DecisionStepDuration.histograms()
	s := &Steps{took: map[string]prometheus.Observer{}, limits: RateLimitDecisions.counters()}
	for _, step := range DecisionStepDuration.Labels[0].Values {
		s.took[step] = duration.WithLabelValues(step)
	}
	reg.MustRegister(duration, s.limits)
	return s
}

// Took tells of a step, one of those above; others are left out.
func (s *Steps) Took(step string, took time.Duration) {
	if s == nil {
		return
	}
	if o := s.took[step]; o != nil {
		o.Observe(took.Seconds())
	}
}

// Limited counts what a limit of the configuration said.
func (s *Steps) Limited(limit, result string) {
	if s != nil {
		s.limits.WithLabelValues(limit, result).Inc()
	}
}

// storeCommands are the commands that are told apart.
var storeCommands = []string{
	"evalsha", "eval", "script", "get", "set", "del", "exists", "expire", "pexpire", "pttl", "ttl", "hget", "zrange", "scan", "wait", "ping",
	"pipeline", "transaction", "hello", "auth", "client", "select", "cluster", "command", "info", "role", "readonly", "other",
}

// StoreCalls counts commands for the store. It is safe for concurrent use.
type StoreCalls struct {
	commands *prometheus.CounterVec
	duration map[string]prometheus.Observer
}

// NewStoreCalls returns a recorder whose metrics are registered with reg.
func NewStoreCalls(reg prometheus.Registerer) *StoreCalls {
	duration := StoreCommandDuration.histograms()
	c := &StoreCalls{commands: StoreCommands.counters(), duration: map[string]prometheus.Observer{}}
	for _, purpose := range StoreCommandDuration.Labels[0].Values {
		c.duration[purpose] = duration.WithLabelValues(purpose)
	}
	reg.MustRegister(duration, c.commands)
	return c
}

// Record counts a command by its purpose, name and outcome. Names that are in no list
// are one; purpose and outcome are of closed lists. sent is false for a command that
// never went out: then it took no time.
func (c *StoreCalls) Record(purpose, command, outcome string, sent bool, took time.Duration) {
	if !slices.Contains(storeCommands, command) {
		command = "other"
	}
	c.commands.WithLabelValues(purpose, command, outcome).Inc()
	if o := c.duration[purpose]; o != nil && sent {
		o.Observe(took.Seconds())
	}
}
