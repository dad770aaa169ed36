package telemetry

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Calls counts the calls of the auth API. It implements that door's Recorder
// interface and is safe for concurrent use.
type Calls struct {
	answered *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

// NewCalls returns a recorder whose metrics are registered with reg.
func NewCalls(reg prometheus.Registerer) *Calls {
	c := &Calls{
		answered: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_auth_calls_total",
			Help: "Answered calls of the auth API, by call and status.",
		}, []string{"call", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "gatehouse_auth_call_duration_seconds",
			Help:    "Time from the arrival of a call of the auth API to its answer.",
			Buckets: []float64{1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1, 5, 15},
		}, []string{"call"}),
	}
	reg.MustRegister(c.answered, c.duration)
	return c
}

// RecordCall counts a call by its name, which comes from a closed list, and its
// status.
func (c *Calls) RecordCall(call string, status int, took time.Duration) {
	c.answered.WithLabelValues(call, strconv.Itoa(status)).Inc()
	c.duration.WithLabelValues(call).Observe(took.Seconds())
}
