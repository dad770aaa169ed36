package main

import (
	"io"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse-auth/gatehouse/internal/logging"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

const (
	// logPatience is how long a change waits for its line in a stream. Who reads that
	// is not within anybody's power who waits for the answer.
	logPatience = time.Second
	// lastPatience is how long the end of the server waits for its last lines.
	lastPatience = 2 * time.Second
)

// streams are what a server writes its logs to. Nobody waits for standard output and
// error of a process, which may be pipes that nobody reads: a queue is between. What a
// test gives in their place is no file, and is written at once.
type streams struct {
	stderr                 io.Writer // of the log: never waits
	sureStdout, sureStderr io.Writer // of the audit log: an error where a line isn't written in time

	queues []*logging.Queue // those between
	log    *logging.Queue   // the one of stderr; nil: there is none
}

func newStreams(env environment) *streams {
	s := &streams{stderr: env.stderr, sureStdout: env.stdout, sureStderr: env.stderr}
	if f, ok := env.stderr.(*os.File); ok {
		s.log = s.queue(f)
		s.stderr, s.sureStderr = s.log, s.log.Sure(logPatience)
	}
	if f, ok := env.stdout.(*os.File); ok {
		s.sureStdout = s.queue(f).Sure(logPatience)
	}
	return s
}

func (s *streams) queue(f *os.File) *logging.Queue {
	q := logging.NewQueue(f)
	s.queues = append(s.queues, q)
	return q
}

// onDropped has f called when the log is written again after lines were dropped.
func (s *streams) onDropped(f func(lines int64)) {
	if s.log != nil {
		s.log.OnDropped(f)
	}
}

// close writes what waits. What nobody reads by now stays unread.
func (s *streams) close() {
	for _, q := range s.queues {
		_ = q.Close(lastPatience)
	}
}

// logMetrics are those of the log.
type logMetrics struct{ streams *streams }

var logDropped = describe(telemetry.LogDropped)

// Describe implements [prometheus.Collector].
func (logMetrics) Describe(ch chan<- *prometheus.Desc) { ch <- logDropped.Desc }

// Collect implements [prometheus.Collector].
func (m logMetrics) Collect(ch chan<- prometheus.Metric) {
	dropped := int64(0)
	if m.streams.log != nil {
		dropped = m.streams.log.Dropped()
	}
	logDropped.tell(ch, float64(dropped))
}
