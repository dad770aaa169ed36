package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authapi"
	"github.com/gatehouse-auth/gatehouse/authz/config"
	"github.com/gatehouse-auth/gatehouse/authz/extauthz"
	"github.com/gatehouse-auth/gatehouse/internal/audit"
	"github.com/gatehouse-auth/gatehouse/internal/recent"
	"github.com/gatehouse-auth/gatehouse/internal/redisguard"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/internal/tracing"
)

// generation is all that follows from one state of the configuration. It does not
// change; another configuration is another generation.
type generation struct {
	*gate
	cfg     *config.Config // in force
	asked   *config.Config // as the file has it
	pending []string       // keys of the file that wait for a restart
	check   *extauthz.Server
	http    *httpDoor // of the http listener
	auth    *authapi.API

	checkTLS, httpTLS *part[*tls.Config] // of the listeners; their value nil: without TLS
	tracer            *part[*tracing.Tracer]

	number int
	loaded time.Time
	files  contents
	sum    digest // of all files
	shape  textShape
	hash   string // of the same, for people
	leases *leases
}

// instruments are what all generations tell about themselves with.
type instruments struct {
	log       *slog.Logger
	decisions extauthz.Recorder     // nil: none are told
	calls     authapi.Recorder      // nil: none are told
	steps     *telemetry.Steps      // nil: none are told
	store     *telemetry.StoreCalls // nil: none are told
	spans     *tracing.Spans        // nil: none are counted

	recent   *recent.Log // nil: no decisions are kept
	overview *overview   // nil: nobody is told how this replica is

	audit *audit.Log // nil: audit lines go to log

	admission *extauthz.Admission // of the check listener; nil: nothing is shed
}

// took tells of the steps that the authorizer makes by itself; nil where nobody is told.
func (in instruments) took() func(authz.Stage, time.Duration) {
	if in.steps == nil {
		return nil
	}
	return func(stage authz.Stage, took time.Duration) { in.steps.Took(string(stage), took) }
}

// loadedConfig is what the files of a configuration say.
type loadedConfig struct {
	cfg      *config.Config
	warnings []config.Warning
	files    contents
	sum      digest
	shape    textShape // of the YAML file
}

// newGeneration builds the generation after before, nil for the first one. It
// reads what the configuration names, and asks neither Redis nor an issuer.
func newGeneration(c loadedConfig, before *generation, in instruments) (_ *generation, err error) {
	g := &generation{
		cfg: c.cfg, asked: c.cfg, number: 1, loaded: time.Now(),
		files: c.files, sum: c.sum, shape: c.shape, hash: fingerprint(c.sum), leases: &leases{},
	}
	var old warm
	if before != nil {
		g.number, old = before.number+1, before.warm
		g.cfg = inForce(c.cfg, before.cfg)
		g.pending = differences(g.cfg, c.cfg)
	}
	if g.gate, err = newGate(g.cfg, c.files, old, in); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.close())
		}
	}()
	if passwordsInFiles(g.cfg) != passwordsInFiles(g.asked) { // no key is pending for it: it is the file that has changed
		g.warnings = append(g.warnings, "the embedded store keeps the password that it has until the next start")
	}
	if err := g.takeTLS(c.files, before); err != nil {
		return nil, err
	}
	if err := g.takeTracer(c.files, before, in); err != nil {
		return nil, err
	}
	if g.auth, err = g.newAuthAPI(g.cfg, in); err != nil {
		return nil, err
	}
	g.http = g.withForwardAuth(g.auth, g.cfg, g.decisions(in))
	g.check = extauthz.NewServer(g.authorizer, extauthz.Options{
		Headers:          g.cfg.Identity.Headers.Authz(),
		MaxHeaderBytes:   g.cfg.Identity.MaxHeaderBytes,
		StripCredentials: g.cfg.Identity.StripCredentials,
		SessionCookie:    g.cfg.Sessions.Cookie.Name,
		Recorder:         g.decisions(in),
		Tracer:           g.checkTracer(),
		Admission:        in.admission,
		MaxConcurrent:    g.cfg.Server.Check.MaxConcurrent,
	})
	return g, nil
}

// takeTLS takes the TLS settings of both listeners.
func (g *generation) takeTLS(files contents, before *generation) (err error) {
	var checkTLS, httpTLS *part[*tls.Config]
	if before != nil {
		checkTLS, httpTLS = before.checkTLS, before.httpTLS
	}
	check, web := g.cfg.Server.Check.TLS, g.cfg.Server.HTTP.TLS
	if g.checkTLS, err = g.takeListenerTLS("server.check.tls", check, g.asked.Server.Check.TLS, files, checkTLS, "h2"); err != nil {
		return err
	}
	g.httpTLS, err = g.takeListenerTLS("server.http.tls", web, g.asked.Server.HTTP.TLS, files, httpTLS, "h2", "http/1.1")
	return err
}

func (g *generation) takeListenerTLS(key string, o, asked config.TLS, files contents, before *part[*tls.Config], protocols ...string) (*part[*tls.Config], error) {
	if before != nil && o.Enabled() != asked.Enabled() { // waits for a restart; the files may be gone
		keep(&g.parts, before)
		return before, nil
	}
	return take(&g.parts, before, []any{o, files.of(o.CertFile, o.KeyFile, o.ClientCAFile)}, func(p *part[*tls.Config]) (err error) {
		if !o.Enabled() {
			return nil
		}
		if p.value, err = serverTLS(string(o.CertFile), string(o.KeyFile), string(o.ClientCAFile)); err != nil {
			return problem(g.cfg, key, err)
		}
		p.value.NextProtos = protocols
		return nil
	})
}

// keyIDs are those of the public keys of our own tokens; the first one signs.
func (g *generation) keyIDs() []string {
	if g.own == nil {
		return nil
	}
	var set struct {
		Keys []struct {
			ID string `json:"kid"`
		} `json:"keys"`
	}
	if err := json.Unmarshal(g.own.PublicJWKS(), &set); err != nil {
		return nil
	}
	ids := make([]string, len(set.Keys))
	for i, k := range set.Keys {
		ids[i] = k.ID
	}
	return ids
}

// reachPatience is how long a store that nobody used before may take to answer.
const reachPatience = 3 * time.Second

// reach asks the store for the first time, if it isn't that of before: a typing
// error in its address must not become an outage. Nor must one in a password: with
// another one than before, new connections are tried. Where there is an outage
// already, the store of before being out of reach too, neither can do harm.
func (g *generation) reach(ctx context.Context, before *generation) error {
	ping, what := g.ping, "the store that the configuration leads to now can't be reached: %w; correct redis.url or the store; it is tried again"
	if g.clients == before.clients {
		if passwordsInFiles(g.cfg) == *g.clients.value.passwords.Load() {
			return nil
		}
		trial, err := openStore(g.cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			return problem(g.cfg, "redis", err)
		}
		defer func() { _ = trial.Close() }()
		ping, what = trial.pingAll, "with the new password the store can't be reached: %w; correct the file or give the user that password too; it is tried again"
	}
	patience, cancel := context.WithTimeout(ctx, reachPatience)
	defer cancel()
	outage := true // of before
	var err error
	for {
		latest := ping(patience)
		if latest == nil {
			return nil
		}
		// Else all that it says is that patience has ended, or that it was known already.
		if err == nil || patience.Err() == nil && !redisguard.Refused(latest) {
			err = latest
		}
		outage = outage && outOfReach(before.ping(ctx))
		select {
		case <-patience.Done():
			if outage {
				return nil
			}
			return problem(g.cfg, "redis", fmt.Errorf(what, err))
		case <-time.After(startInterval):
		}
	}
}

// awaitIdle waits until the generation's last request is done, or ctx ends: then the
// server has drained. The generation must have been replaced before.
func (g *generation) awaitIdle(ctx context.Context) {
	const often = 10 * time.Millisecond
	for !g.leases.idle() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(often):
		}
	}
}
