package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// commandCounts asks Redis how often each command has been executed, those
// within scripts included.
func (s *stack) commandCounts(ctx context.Context) (map[string]int64, error) {
	if s.redis == nil {
		return nil, nil //nolint:nilnil // a stack without Redis executes nothing
	}
	return executed(ctx, s.redis)
}

// executed asks a Redis how often each command has been executed.
func executed(ctx context.Context, rdb *redis.Client) (map[string]int64, error) {
	info, err := rdb.Info(ctx, "commandstats").Result()
	if err != nil {
		return nil, fmt.Errorf("count Redis commands: %w", err)
	}
	return parseCommandStats(info)
}

// parseCommandStats reads lines such as
//
//	cmdstat_client|getredir:calls=12,usec=9,usec_per_call=0.75,…
func parseCommandStats(info string) (map[string]int64, error) {
	counts := map[string]int64{}
	for line := range strings.Lines(info) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "cmdstat_")
		if !ok {
			continue
		}
		command, figures, _ := strings.Cut(rest, ":")
		calls, _, _ := strings.Cut(strings.TrimPrefix(figures, "calls="), ",")
		n, err := strconv.ParseInt(calls, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("unexpected form of INFO commandstats: %q", line)
		}
		counts[command] = n
	}
	return counts, nil
}

// commandsBetween returns what was executed between two readings, without the
// first reading itself. (A command is counted when it has ended.)
func commandsBetween(before, after map[string]int64) map[string]int64 {
	diff := map[string]int64{}
	for command, n := range after {
		if n -= before[command]; command == "info" {
			n--
		}
		if n > 0 {
			diff[command] = n
		}
	}
	return diff
}

// beats are the commands per second by which each Gatehouse proves, used or
// not, that its cache is coherent.
type beats map[string]float64

// idleBeats looks for them while nothing else happens.
func (s *stack) idleBeats(ctx context.Context) (beats, error) {
	const long = 2 * time.Second // four beats of each
	if len(s.ops) < 2 {
		return beats{}, nil // nobody is idle while another one is measured
	}
	before, err := s.commandCounts(ctx)
	if err != nil {
		return nil, err
	}
	if !pause(ctx, long) {
		return nil, ctx.Err()
	}
	after, err := s.commandCounts(ctx)
	if err != nil {
		return nil, err
	}
	b := beats{}
	for command, n := range commandsBetween(before, after) {
		b[command] = float64(n) / long.Seconds() / float64(len(s.ops))
	}
	return b, nil
}

// perThousand returns the commands per 1,000 requests, in all and each, less
// the beats of so many Gatehouses that took no part.
func (b beats) perThousand(commands map[string]int64, idle int, elapsed time.Duration, requests int) (total float64, each map[string]float64) {
	each = map[string]float64{}
	for command, n := range commands {
		own := float64(n) - b[command]*float64(idle)*elapsed.Seconds()
		if own < 0.5 || requests == 0 { // less than one
			continue
		}
		each[command] = own * 1000 / float64(requests)
		total += each[command]
	}
	return total, each
}

// memoryReport is what a Gatehouse holds after the last window.
type memoryReport struct {
	Process  string  `json:"process"`
	Sessions int     `json:"sessions"`    // that were shown to it
	RSS      int64   `json:"rss_bytes"`   // resident set
	Entries  float64 `json:"entries"`     // of its cache
	Bytes    float64 `json:"cache_bytes"` // that the cache has allocated
	Coherent bool    `json:"coherent"`
	// Answers are the lookups since it started, by how they were answered.
	Answers map[string]float64 `json:"answers"`
}

// memory looks at every Gatehouse of these scenarios.
func (s *stack) memory(ctx context.Context, users int, scenarios []scenario) ([]memoryReport, error) {
	sessions := map[string]int{}
	for _, sc := range scenarios {
		n := sc.server.sessions
		if n == 0 {
			n = users
		}
		sessions[sc.server.name()] = n
	}
	var all []memoryReport
	for _, p := range s.processes {
		ops, ok := s.ops[p.name]
		if _, measured := sessions[p.name]; !ok || !measured {
			continue
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
		if err != nil {
			return nil, err
		}
		rss, err := parseRSS(string(status))
		if err != nil {
			return nil, err
		}
		m, err := settledMetrics(ctx, ops)
		if err != nil {
			return nil, fmt.Errorf("read Gatehouse's metrics: %w", err)
		}
		r := memoryReport{
			Process: p.name, Sessions: sessions[p.name], RSS: rss,
			Entries: m["gatehouse_cache_entries"], Bytes: m["gatehouse_cache_bytes"], Coherent: m[cacheCoherent] == 1,
			Answers: map[string]float64{},
		}
		for name, value := range m {
			if result, ok := strings.CutPrefix(name, `gatehouse_cache_answers_total{result="`); ok {
				r.Answers[strings.TrimSuffix(result, `"}`)] = value
			}
		}
		all = append(all, r)
	}
	return all, nil
}

// parseRSS reads VmRSS of proc_pid_status(5), in bytes.
func parseRSS(status string) (int64, error) {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kilobytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kilobytes << 10, err
		}
	}
	return 0, fmt.Errorf("no VmRSS in /proc/PID/status: %q", status)
}

// parseMetrics reads Prometheus's text format: values by name and labels, as
// they stand there.
func parseMetrics(text string) map[string]float64 {
	values := map[string]float64{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			if v, err := strconv.ParseFloat(line[i+1:], 64); err == nil {
				values[line[:i]] = v
			}
		}
	}
	return values
}

// cacheCoherent is 1 while a Gatehouse's cache answers.
const cacheCoherent = "gatehouse_cache_coherent"

// settledMetrics are those of a Gatehouse whose cache answers: a heartbeat that is late has
// it doubt that for a moment. After as long as a start may take they are what they are.
func settledMetrics(ctx context.Context, ops string) (map[string]float64, error) {
	for end := time.Now().Add(startTimeout); ; {
		text, err := fetch(ctx, "http://"+ops+"/metrics")
		if err != nil {
			return nil, err
		}
		m := parseMetrics(text)
		if m[cacheCoherent] == 1 || time.Now().After(end) {
			return m, nil
		}
		if !pause(ctx, 20*time.Millisecond) {
			return nil, ctx.Err()
		}
	}
}

// awaitCoherent waits until the cache of a Gatehouse answers.
func (s *stack) awaitCoherent(ctx context.Context, name string) error {
	m, err := settledMetrics(ctx, s.ops[name])
	if err == nil && m[cacheCoherent] != 1 {
		err = errors.New("it does not become coherent")
	}
	if err != nil {
		return fmt.Errorf("the cache of %s: %w", name, err)
	}
	return nil
}

// cpuOf returns the times of a scenario's own processes, under the names that
// figures have: the check servers of others are left out, whose heartbeats have
// nothing to do with it.
func cpuOf(all map[string]time.Duration, server string) map[string]time.Duration {
	return map[string]time.Duration{
		"envoy": all["envoy"], "server": all[server], "redis": all["redis"], generator: all[generator],
	}
}
