package main

import (
	"context"
	"crypto/tls"
	"net/http"

	"github.com/gatehouse-auth/gatehouse/authz/config"
	"github.com/gatehouse-auth/gatehouse/authz/extauthz"
	"github.com/gatehouse-auth/gatehouse/authz/forwardauth"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/internal/tracing"
)

// takeTracer takes what traces are begun and sent with; its value is nil where there
// are none.
func (g *generation) takeTracer(files contents, before *generation, in instruments) (err error) {
	var old *part[*tracing.Tracer]
	if before != nil {
		old = before.tracer
	}
	o := g.cfg.Tracing
	t := o.OTLP.TLS
	from := []any{o, files.of(o.OTLP.HeadersFile, t.CAFile, t.CertFile, t.KeyFile)}
	g.tracer, err = take(&g.parts, old, from, func(p *part[*tracing.Tracer]) (err error) {
		if !o.Enabled() {
			return nil
		}
		settings, err := collectorTLS(t)
		if err != nil {
			return problem(g.cfg, "tracing.otlp.tls", err)
		}
		headers := map[string]string{}
		for _, h := range o.OTLP.Headers {
			headers[h.Name] = h.Value.Reveal()
		}
		p.value, err = tracing.New(tracing.Options{
			Endpoint:          o.OTLP.Endpoint,
			TLS:               settings,
			InsecurePlaintext: o.OTLP.Insecure,
			Headers:           headers,
			Sample:            float64(o.Sample),
			ServiceName:       o.ServiceName,
			Version:           telemetry.ReadBuild().Version,
			Attributes:        o.Attributes,
			Log:               in.log,
			Spans:             in.spans,
		})
		if err != nil {
			return problem(g.cfg, "tracing.otlp", err)
		}
		p.end = func() error { return p.value.Shutdown(context.Background()) }
		return nil
	})
	return err
}

// collectorTLS returns the TLS settings towards the collector.
func collectorTLS(t config.OTLPTLS) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	var err error
	if t.CAFile != "" {
		if c.RootCAs, err = loadCAs(string(t.CAFile)); err != nil {
			return nil, err
		}
	}
	if t.CertFile != "" {
		own, err := tls.LoadX509KeyPair(string(t.CertFile), string(t.KeyFile))
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{own}
	}
	return c, nil
}

// spans is the tracer, nil for none.
func (g *generation) spans() *tracing.Tracer {
	if g.tracer == nil {
		return nil
	}
	return g.tracer.value
}

// checkTracer is the tracer of the check door, nil for none.
func (g *generation) checkTracer() extauthz.Tracer {
	if g.spans() == nil {
		return nil // never a nil pointer in an interface
	}
	return g.spans()
}

// decisions is the recorder of both doors: with traces, spans are told, too.
func (g *generation) decisions(in instruments) extauthz.Recorder {
	if g.spans() == nil {
		return in.decisions
	}
	return tracing.WithDecisions(in.decisions)
}

// traced begins the span of a request of the http listener.
func (g *generation) traced(w http.ResponseWriter, r *http.Request) (_ http.ResponseWriter, _ *http.Request, end func()) {
	if g.spans() == nil {
		return w, r, func() {}
	}
	route := ""
	if r.URL.Path == forwardauth.Path {
		route = forwardauth.Path
	}
	return g.spans().Request(w, r, route, g.cfg.Tracing.TrustTraceparent)
}
