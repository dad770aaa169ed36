package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/gatehouse-auth/gatehouse/authz/config"
	"github.com/gatehouse-auth/gatehouse/authz/extauthz"
	"github.com/gatehouse-auth/gatehouse/internal/logging"
	"github.com/gatehouse-auth/gatehouse/internal/recent"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/internal/tracing"
	"github.com/gatehouse-auth/gatehouse/internal/tracing/traced"
)

func serveCommand(env environment) *cobra.Command {
	var file configFlag
	cmd := &cobra.Command{
		Use:   "serve [FILE]",
		Short: "Answer Envoy's checks",
		Long: `Runs the three listeners of the configuration: check (gRPC for Envoy), http (auth
API and public keys) and ops (metrics and health).

With Redis out of reach it starts all the same, is not ready, and answers 503 until
Redis is there. SIGTERM and Ctrl-C drain: health turns NOT_SERVING, checks go on
being answered for server.drain, then connections are closed in order. A second
signal ends the program at once.

The configuration, and every file that it names, is read again when it changes and on
SIGHUP. What is wrong with it is logged and changes nothing; /readyz and metrics tell.
Listen addresses, TLS on or off and a few more wait for a restart. SIGHUP has the file of
the audit log opened again, too.`,
		Args:              usageArgs(cobra.MaximumNArgs(1)),
		ValidArgsFunction: completeConfig,
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := file.resolve(args, env)
			if err != nil {
				return err
			}
			tuneCollector(env)
			hangup := make(chan os.Signal, 1)
			signal.Notify(hangup, syscall.SIGHUP)
			defer signal.Stop(hangup)
			return serve(cmd.Context(), configFile{path, env.lookup}, env, hangup)
		},
	}
	file.register(cmd)
	return cmd
}

// collectorPercent is how much garbage may pile up before it is collected, in
// percent of what is in use. A check leaves little behind, most of it grpc's.
const collectorPercent = 400

// tuneCollector has garbage collected less often than Go does by itself, unless
// the environment says how often.
func tuneCollector(env environment) {
	if _, set := env.lookup("GOGC"); !set {
		debug.SetGCPercent(collectorPercent)
	}
}

// newLogger returns the log, and its level, which can be changed.
func newLogger(o config.Log, w io.Writer) (*slog.Logger, *logLevel) {
	level := newLogLevel(o.Level.Slog())
	return logging.New(w, logging.Options{Text: o.Format == config.LogText, Level: level}), level
}

// listeners are the open sockets of a server.
type listeners struct{ check, http, ops net.Listener }

// open opens all listeners, or none.
func (l *listeners) open(ctx context.Context, o config.Server) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if l.check, err = listen(ctx, "server.check.listen", string(o.Check.Listen)); err != nil {
		return err
	}
	if l.http, err = listen(ctx, "server.http.listen", string(o.HTTP.Listen)); err != nil {
		return err
	}
	l.ops, err = listen(ctx, "server.ops.listen", string(o.Ops.Listen))
	return err
}

// close closes what is still open.
func (l *listeners) close() error {
	var errs []error
	for _, listener := range []net.Listener{l.check, l.http, l.ops} {
		if listener == nil {
			continue
		}
		if err := listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// serve runs a server until ctx ends and it has drained, and logs to stderr. Everything
// that can be wrong with the configuration shows before the first request is taken.
// From then on it follows the file, and reads it again for each signal that hangup
// brings.
func serve(ctx context.Context, file configFile, env environment, hangup <-chan os.Signal) error {
	c, err := file.load()
	if err != nil {
		return err
	}
	out := newStreams(env)
	defer out.close()
	log, level := newLogger(c.cfg.Log, out.stderr)
	log = slog.New(traced.LogHandler(log.Handler()))
	out.onDropped(func(lines int64) {
		log.Warn("lines of the log were dropped: nobody read it, or it could not be written", slog.Int64("lines", lines))
	})
	changes, err := openAudit(c.cfg, log, out)
	if err != nil {
		return err
	}
	defer func() { _ = changes.Close() }()
	registry := telemetry.NewRegistry()
	recorder := telemetry.NewRecorder(log, registry) //nolint:contextcheck // sums of lines outlive requests
	recorder.SetSample(float64(c.cfg.Log.SampleAllowed))
	defer recorder.Flush()
	latest := recent.New()
	decisions := latest.With(recorder)
	admission := &extauthz.Admission{Recorder: tracing.WithDecisions(decisions)}
	load := telemetry.NewLoad(registry, extauthz.Sheddings, admission.Waiting)
	admission.Shed = load.Shed
	in := instruments{
		log: log, decisions: decisions, recent: latest,
		overview: &overview{log: log, figures: registry, name: latest.Replica(), started: time.Now()},
		calls:    telemetry.NewCalls(registry), admission: admission,
		audit: changes,
		steps: telemetry.NewSteps(registry), store: telemetry.NewStoreCalls(registry), spans: tracing.NewSpans(registry),
	}
	first, err := newGeneration(c, nil, in) //nolint:contextcheck // its parts end by close, not with a caller
	if err != nil {
		return err
	}
	countFromZero(first.cfg, recorder, in.steps)
	current := &live{shedHTTP: load.ShedHTTP}
	current.replace(first)
	defer func() {
		if err := current.now.Load().close(); err != nil {
			log.Error("closing the store", slog.Any("error", err))
		}
	}()
	logWarnings(log, c.warnings, first.gate)
	var open listeners
	if err := open.open(ctx, c.cfg.Server); err != nil {
		return err
	}
	auditLoad(ctx, changes, file.path, first)
	registry.MustRegister(changes, logMetrics{out}, cacheMetrics{current}, feedMetrics{current}, storeMetrics{current}, issuerMetrics{current}, certificateMetrics{current})

	check := newCheckServer(extauthz.NewDoor(current), admission, c.cfg.Server.Check, current.checkTLS())
	health := newConfigHealth(registry, first)
	ready := &readiness{changed: check.ready, cache: current.cacheState, silent: current.silentServers, config: health.tell}
	registry.MustRegister(readinessMetrics(ready)...)
	in.overview.live, in.overview.ready = current, ready
	s := &server{
		log:   log,
		live:  current,
		check: check,
		ready: ready,
		http:  newHTTPServer(current, log, current.httpTLS()),
		ops:   newHTTPServer(opsHandler(registry, ready, explainHandler(current), levelHandler(level, log, changes)), log, nil), //nolint:contextcheck // as above
		reloader: &reloader{
			file: file, in: in, live: current, health: health, hangup: hangup, poll: pollInterval,
			tune: func(c *config.Config) {
				level.configure(c.Log.Level.Slog())
				recorder.SetSample(float64(c.Log.SampleAllowed))
				countFromZero(c, recorder, in.steps)
			},
		},
	}
	s.http.RegisterOnShutdown(func() { current.now.Load().auth.EndFeeds() })
	s.http.RegisterOnShutdown(latest.Close)
	for _, l := range []struct {
		name string
		net.Listener
	}{{"check", open.check}, {"http", open.http}, {"ops", open.ops}} {
		log.Info("listening", slog.String("listener", l.name), slog.String("address", addressOf(l.Listener)))
	}
	return s.run(ctx, open)
}

func addressOf(l net.Listener) string {
	if l.Addr().Network() == "unix" {
		return "unix://" + l.Addr().String()
	}
	return l.Addr().String()
}

// newHTTPServer bounds what one client can hold on to.
func newHTTPServer(handler http.Handler, log *slog.Logger, tlsConfig *tls.Config) *http.Server {
	return &http.Server{
		Handler:           handler,
		TLSConfig:         tlsConfig,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),

		DisableGeneralOptionsHandler: true, // OPTIONS * is 400
	}
}

// server is a running Gatehouse.
type server struct {
	log      *slog.Logger
	live     *live
	check    *checkServer
	ready    *readiness
	http     *http.Server
	ops      *http.Server
	reloader *reloader
}

// run serves until ctx ends, then stops in the reverse order: not ready, wait
// until the Envoys have noticed, GOAWAY, calls in flight, HTTP, and at last
// ops, which tells of it all. A part that fails takes the others down with it.
func (s *server) run(ctx context.Context, open listeners) error {
	// Background work goes on while the server drains: checks still need it.
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackground()
	group, failed := errgroup.WithContext(context.WithoutCancel(ctx))
	group.Go(func() error { return named("check listener", s.check.serve(open.check)) })
	group.Go(func() error { return named("http listener", serveHTTP(s.http, open.http)) })
	group.Go(func() error { return named("ops listener", serveHTTP(s.ops, open.ops)) })
	spawn := func(run func(context.Context) error) (stop func()) {
		ctx, cancel := context.WithCancel(background)
		ended := make(chan struct{})
		group.Go(func() error {
			defer close(ended)
			return run(ctx)
		})
		return func() { cancel(); <-ended }
	}
	s.live.now.Load().parts.start(spawn)
	group.Go(func() error { s.watchStore(background); return nil })
	s.reloader.spawn = spawn
	group.Go(func() error { s.reloader.run(ctx); return nil })
	group.Go(func() error {
		defer stopBackground()
		select {
		case <-ctx.Done():
		case <-failed.Done():
		}
		s.shutDown(failed)
		return nil
	})
	err := group.Wait()
	s.log.Info("stopped")
	return err
}

func named(part string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", part, err)
}

func serveHTTP(s *http.Server, l net.Listener) error {
	var err error
	if s.TLSConfig != nil {
		err = s.ServeTLS(l, "", "")
	} else {
		err = s.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// shutDown drains, for the whole of drain unless a part has already failed.
func (s *server) shutDown(failed context.Context) {
	s.ready.drain()
	drain := s.live.now.Load().cfg.Server.Drain
	s.log.Info("draining: another signal ends the program at once", slog.Duration("for", drain))
	timer := time.NewTimer(drain)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-failed.Done():
	}
	// Each has the whole grace: one that is slow takes nothing from the others.
	graceful := func(stop func(context.Context)) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(failed), stopGrace)
		defer cancel()
		stop(ctx)
	}
	shutDown := func(part *http.Server) func(context.Context) {
		return func(ctx context.Context) {
			if err := part.Shutdown(ctx); err != nil {
				_ = part.Close() // what is left had its time
			}
		}
	}
	var doors sync.WaitGroup
	doors.Go(func() { graceful(s.check.stop) })
	doors.Go(func() { graceful(shutDown(s.http)) })
	doors.Wait()
	graceful(shutDown(s.ops))
}

// How often the store is looked at for readiness, before and after it was
// first reached.
const (
	startInterval = 100 * time.Millisecond
	watchInterval = time.Second
)

// watchStore keeps readiness informed about the store, until ctx ends, and
// logs each time that it comes or goes.
func (s *server) watchStore(ctx context.Context) {
	up, first := false, true
	interval := startInterval
	for {
		err := s.live.ping(ctx)
		if ctx.Err() != nil {
			return
		}
		told := s.ready.store(err)
		if now := err == nil; told && (now != up || first) {
			up, first = now, false
			if up {
				interval = watchInterval
				s.log.Info("store reached")
			} else {
				s.log.Warn("store out of reach: whoever shows a session or a token gets 503", slog.Any("error", err))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(interval):
		}
	}
}
