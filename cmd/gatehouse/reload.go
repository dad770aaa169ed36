package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse-auth/gatehouse/authz/authapi"
	"github.com/gatehouse-auth/gatehouse/authz/config"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

// configFile is where a server finds its configuration.
type configFile struct {
	path   string
	lookup func(name string) (string, bool) // environment variables
}

// load reads the configuration for the first time.
func (f configFile) load() (c loadedConfig, err error) {
	_, c.files, c.sum, _ = f.read() // before: what changes under way is noticed then
	c.shape = shapeOf(f.path)
	c.cfg, c.warnings, err = config.Load(f.path, f.lookup)
	return c, err
}

// read returns the files that the configuration consists of now, and their
// contents. The error is that one of them can't be read again. A configuration that
// is no regular file, such as a pipe, is left alone.
func (f configFile) read() (files []string, all contents, sum digest, err error) {
	files = []string{f.path}
	if err := readableAgain(f.path); !errors.Is(err, errNotAgain) {
		files = config.Files(f.path, f.lookup)
	}
	all, sum, err = readContents(files)
	return files, all, sum, err
}

const (
	// settleTime is how long files must be left alone before they are read: who
	// saves one, or several, has not finished at the first notification.
	settleTime = 200 * time.Millisecond
	// settleMost bounds it where something writes all the time.
	settleMost = 3 * time.Second
	// pollInterval is how often files are compared where no notification came: some
	// file systems have none.
	pollInterval = 10 * time.Second
)

// reloader keeps the running generation in step with the files. What it finds
// wrong changes nothing: the generation that runs goes on.
type reloader struct {
	file   configFile
	in     instruments
	tune   func(*config.Config) // has the log and the counters follow; nil: nothing does
	live   *live
	spawn  spawn
	health *configHealth
	hangup <-chan os.Signal // asks for a reload; nil: nobody does
	poll   time.Duration

	watcher *watcher
	refused digest // what was looked at last and found wrong; zero: nothing
	again   bool   // try it again though it didn't change: the store may be there now
}

// run follows the files until ctx ends.
func (r *reloader) run(ctx context.Context) {
	if r.watcher == nil {
		r.watcher = newWatcher(r.in.log)
	}
	defer r.watcher.close()
	poll := time.NewTicker(r.poll)
	defer poll.Stop()

	var first time.Time // of the changes that are waited out; zero: none
	asked := false      // by SIGHUP, which is answered whatever comes of it
	settle := time.NewTimer(0)
	wait := func() {
		if first.IsZero() {
			first = time.Now()
		}
		settle.Reset(min(settleTime, time.Until(first.Add(settleMost))))
	}
	look := func() {
		first = time.Time{}
		settle.Stop()
		if changing := r.look(ctx, asked); changing {
			wait()
			return
		}
		asked = false
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.hangup:
			r.reopen()
			asked = true
			look()
		case e, ok := <-r.watcher.events():
			if ok && r.watcher.concerns(e) {
				wait()
			}
		case _, ok := <-r.watcher.errors(): // some were lost
			if ok {
				wait()
			}
		case <-settle.C:
			look()
		case <-poll.C:
			if first.IsZero() {
				look()
			}
		}
	}
}

// look compares the files with what runs, and has them applied when they are not
// the same. changing means that they are being written: nothing was decided.
func (r *reloader) look(ctx context.Context, asked bool) (changing bool) {
	running := r.live.now.Load() // nobody else replaces it
	files, all, sum, err := r.file.read()
	if r.watcher.watch(slices.Concat(files, running.asked.Files())) {
		files, all, sum, err = r.file.read() // nobody told of what changed in between
		r.watcher.watch(slices.Concat(files, running.asked.Files()))
	}
	switch {
	case sum == running.sum && (err == nil || !asked):
		r.unchanged(running, asked)
		return false
	case sum == r.refused && !asked && !r.again:
		return false
	}
	var next *generation
	c := loadedConfig{files: all, sum: sum, shape: shapeOf(r.file.path)}
	r.again = false
	if err == nil {
		next, err = r.build(ctx, &c, running)
	}
	if _, _, now, _ := r.file.read(); now != sum || ctx.Err() != nil {
		if next != nil {
			r.close(next)
		}
		return ctx.Err() == nil
	}
	if err != nil {
		if r.refused != sum || asked {
			r.record(ctx, authapi.OutcomeRefused, append(r.audited(running, nil, asked), slog.String("reason", "config_invalid")))
		}
		r.reject(sum, err, asked)
		return false
	}
	what := r.audited(running, next, asked)
	if err := r.permit(ctx, what); err != nil {
		r.close(next)
		r.again = true
		r.reject(sum, err, asked)
		return false
	}
	r.apply(running, next, c.warnings)
	r.record(ctx, authapi.OutcomeApplied, what)
	return false
}

// reopen is for who rotates the audit log.
func (r *reloader) reopen() {
	if r.in.audit == nil {
		return
	}
	if err := r.in.audit.Reopen(); err != nil {
		r.in.log.Error("the file of the audit log can't be opened again: lines go where they went before", slog.Any("error", err))
	}
}

// audited are the attributes of a reload in the audit log.
func (r *reloader) audited(running, next *generation, asked bool) []slog.Attr {
	by := "file" // whoever may write it
	if asked {
		by = "SIGHUP"
	}
	what := []slog.Attr{slog.String("action", "config_reload"), slog.String("by", by), slog.String("file", r.file.path)}
	if next != nil {
		what = append(what, slog.Int("generation", next.number), slog.String("hash", next.hash), slog.Any("changed", differences(running.asked, next.asked)),
			slog.Any("files", next.files.changed(running.files, r.file.path)))
	}
	return what
}

func (r *reloader) permit(ctx context.Context, what []slog.Attr) error {
	if r.in.audit == nil {
		return nil
	}
	if err := r.in.audit.Permit(ctx, what...); err != nil {
		return fmt.Errorf("the audit log can't be written, and audit.on_failure is refuse: %w; it is tried again", err)
	}
	return nil
}

func (r *reloader) record(ctx context.Context, o authapi.Outcome, what []slog.Attr) {
	if r.in.audit != nil {
		r.in.audit.Record(ctx, o, what...)
	}
}

var errNoPolicies = errors.New("there are no policies, so every request would be denied: was the file cut off? " +
	"Restart to have such a configuration applied")

// errCutOff: half of a file can be a configuration, of which policies ask for less.
var errCutOff = errors.New("the file is shorter than before, and its last line has no end: was it cut off? " +
	"End the line to have it applied")

// build loads the files and makes the next generation of them. A bug that only this
// configuration meets must not end what runs.
func (r *reloader) build(ctx context.Context, c *loadedConfig, running *generation) (_ *generation, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic while the configuration was read: %v", p)
		}
	}()
	if c.cfg, c.warnings, err = config.Load(r.file.path, r.file.lookup); err != nil {
		return nil, err
	}
	if len(c.cfg.Policies) == 0 && len(running.cfg.Policies) > 0 {
		return nil, problem(c.cfg, "policies", errNoPolicies)
	}
	if c.shape.cutOff(running.shape) {
		return nil, fmt.Errorf("%s: %w", r.file.path, errCutOff)
	}
	next, err := newGeneration(*c, running, r.in) //nolint:contextcheck // its parts end by close, not with a caller
	if err != nil {
		return nil, err
	}
	if err := next.reach(ctx, running); err != nil {
		r.again = true
		return nil, errors.Join(err, next.close())
	}
	return next, nil
}

// apply puts the next generation in place. Requests that are being answered have
// the one before to their end.
func (r *reloader) apply(running, next *generation, warnings []config.Warning) {
	next.usePasswords(next.cfg)
	next.parts.start(r.spawn)
	if r.tune != nil {
		r.tune(next.cfg)
	}
	r.live.replace(next)
	running.auth.EndFeeds() // they would hold it for ever; clients go on with the next one
	r.refused = digest{}
	r.health.applied(next)
	log := r.in.log
	log.Info("configuration applied", slog.Int("generation", next.number), slog.String("hash", next.hash),
		slog.Any("changed", differences(running.asked, next.asked)),       // keys, without their values
		slog.Any("files", next.files.changed(running.files, r.file.path))) // that keys name
	logWarnings(log, warnings, next.gate)
	for _, w := range dangers(running, next) {
		log.Warn("configuration", slog.String("warning", w))
	}
	if len(next.pending) > 0 {
		log.Warn("configuration: these keys have values in the file that wait for a restart", slog.Any("keys", next.pending))
	}
	r.spawn(func(ctx context.Context) error {
		running.awaitIdle(ctx)
		r.close(running)
		return nil
	})
}

// reject says what is wrong, once.
func (r *reloader) reject(sum digest, err error, asked bool) {
	problems := strings.Split(err.Error(), "\n")
	r.health.rejected(problems)
	if r.refused != sum || asked {
		r.in.log.Error("configuration rejected: what ran before goes on", slog.Int("count", len(problems)), slog.Any("problems", problems))
	}
	r.refused = sum
}

// unchanged notes that the files say what runs.
func (r *reloader) unchanged(running *generation, asked bool) {
	recovered := r.refused != digest{}
	r.refused, r.again = digest{}, false
	if asked || recovered {
		r.health.unchanged()
		r.in.log.Info("configuration read again: it is what runs", slog.Int("generation", running.number))
	}
}

func (r *reloader) close(g *generation) {
	if err := g.close(); err != nil {
		r.in.log.Error("closing a generation's parts", slog.Any("error", err))
	}
}

// logWarnings logs the doubts about a configuration.
func logWarnings(log *slog.Logger, warnings []config.Warning, g *gate) {
	for _, w := range warnings {
		log.Warn("configuration", slog.String("warning", w.String()))
	}
	for _, w := range g.warnings {
		log.Warn("configuration", slog.String("warning", w))
	}
}

// configHealth tells of the configuration: as the detail in /readyz and as metrics.
type configHealth struct {
	reloads *prometheus.CounterVec
	good    prometheus.Gauge
	loaded  prometheus.Gauge
	pending prometheus.Gauge

	mu     sync.Mutex
	detail configDetail
}

// configDetail is the configuration's part of /readyz.
type configDetail struct {
	State          string    `json:"state"` // current or rejected
	Generation     int       `json:"generation"`
	Loaded         time.Time `json:"loaded"`
	Hash           string    `json:"hash"`
	Error          string    `json:"error,omitempty"`
	PendingRestart []string  `json:"pending_restart,omitempty"` // keys
}

// The results of a reload, which are a label.
const (
	reloadApplied   = "applied"
	reloadRejected  = "rejected"
	reloadUnchanged = "unchanged"
)

func newConfigHealth(reg prometheus.Registerer, first *generation) *configHealth {
	h := &configHealth{
		reloads: telemetry.ConfigReloads.CounterVec(), good: telemetry.ConfigGood.Gauge(),
		loaded: telemetry.ConfigLoaded.Gauge(), pending: telemetry.ConfigPending.Gauge(),
	}
	reg.MustRegister(h.reloads, h.good, h.loaded, h.pending)
	h.runs(first)
	return h
}

func (h *configHealth) runs(g *generation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.detail = configDetail{
		State: "current", Generation: g.number, Loaded: g.loaded, Hash: g.hash, PendingRestart: g.pending,
	}
	h.good.Set(1)
	h.loaded.Set(float64(g.loaded.UnixMilli()) / 1000)
	h.pending.Set(float64(len(g.pending)))
}

func (h *configHealth) applied(g *generation) {
	h.reloads.WithLabelValues(reloadApplied).Inc()
	h.runs(g)
}

func (h *configHealth) rejected(problems []string) {
	h.reloads.WithLabelValues(reloadRejected).Inc()
	h.good.Set(0)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.detail.State, h.detail.Error = "rejected", problems[0]
	if n := len(problems) - 1; n > 0 {
		h.detail.Error += fmt.Sprintf(" (and %d more)", n)
	}
}

func (h *configHealth) unchanged() {
	h.reloads.WithLabelValues(reloadUnchanged).Inc()
	h.good.Set(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.detail.State, h.detail.Error = "current", ""
}

func (h *configHealth) tell() configDetail {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.detail
}
