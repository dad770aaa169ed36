package config

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Tracing says where traces are sent, and which.
type Tracing struct {
	OTLP   OTLP  `yaml:"otlp" doc:"The collector that spans are sent to, by OTLP over gRPC."`
	Sample Ratio `yaml:"sample" default:"0" doc:"How many of the requests are traced that belong to no trace yet, from 0 to 1. Where the gateway traces, it decides, and this doesn't count."`
	// TrustTraceparent needs a proxy in front: [HTTPServer.TrustedHops] is 1 or more.
	TrustTraceparent bool `yaml:"trust_traceparent" default:"false" doc:"Requests of the http listener continue the trace that their traceparent names, and are recorded if it says so. Only where the proxy in front writes that header itself; else clients choose what is recorded."`

	ServiceName string            `yaml:"service_name" default:"gatehouse" doc:"The name under which spans are found (service.name)."`
	Attributes  map[string]string `yaml:"attributes" keys:"resource" doc:"Where this process runs, such as deployment.environment.name: production. All spans have them. OTEL_RESOURCE_ATTRIBUTES in the environment adds others."`
}

// defaultService is the default of [Tracing.ServiceName].
const defaultService = "gatehouse"

// Enabled reports whether there is tracing at all.
func (t Tracing) Enabled() bool { return t.OTLP.Endpoint != "" }

// OTLP is the way to a collector.
type OTLP struct {
	Endpoint    string  `yaml:"endpoint" format:"collector" doc:"host:port of the collector for OTLP over gRPC, usually port 4317."`
	TLS         OTLPTLS `yaml:"tls" doc:"Whom to trust, and our own certificate."`
	Insecure    bool    `yaml:"insecure" default:"false" doc:"Connect without TLS: whoever is on the way can read the spans, and the headers of headers_file."`
	HeadersFile File    `yaml:"headers_file" doc:"File with headers for the collector, such as a key: one name: value per line. A new one is used without a restart."`

	// Headers are those of HeadersFile, names in lower case.
	Headers []OTLPHeader `yaml:"-"`
}

// OTLPHeader is one header for the collector.
type OTLPHeader struct {
	Name  string
	Value Secret
}

// OTLPTLS is the client side of TLS towards the collector.
type OTLPTLS struct {
	CAFile     File   `yaml:"ca_file" doc:"PEM file with the authorities of the collector's certificate; without it the system's."`
	CertFile   File   `yaml:"cert_file" doc:"PEM file with the client's certificate."`
	KeyFile    File   `yaml:"key_file" doc:"PEM file with the client's private key."`
	ServerName string `yaml:"server_name" format:"host_name" doc:"What the collector's certificate is for, where that is not the host connected to."`
}

// checkCollector checks the address of a collector.
func checkCollector(s string) (string, error) {
	const expected = "expected host:port of the collector, as in otel-collector:4317"
	if strings.Contains(s, "://") {
		return "", errors.New(expected + ", without a scheme; tracing.otlp.insecure: true is http, else it is https")
	}
	host, port, ok := cutPort(s)
	if n, err := strconv.ParseUint(port, 10, 16); !ok || err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return "", errors.New(expected + ", with a port from 1 to 65535")
	}
	if !validHost(host) || strings.Contains(host, "%") {
		return "", errors.New(expected + "; IPv6 addresses stand in brackets")
	}
	return s, nil
}

const (
	collectorPattern = `^[^/]+:[0-9]+$`
	resourcePattern  = `^[A-Za-z][A-Za-z0-9_.-]{0,127}$`
)

// Resource attributes that say which program it is. They have a key of their own, or none.
var ownAttributes = []string{"service.name", "service.version"}

func checkResource(s string) (string, error) {
	switch {
	case !resourceName.MatchString(s):
		return "", errors.New("the name of an attribute has up to 128 letters, digits, dots, hyphens and underscores, and begins with a letter")
	case slices.Contains(ownAttributes, s):
		return "", errors.New("spans have this attribute already; the key for service.name is tracing.service_name")
	}
	return s, nil
}

var resourceName = regexp.MustCompile(resourcePattern)

// Names that gRPC keeps for itself, and what a header may be made of.
var (
	otlpHeaderName  = regexp.MustCompile(`^[a-z0-9_.-]+$`)
	otlpHeaderValue = regexp.MustCompile(`^[ -~]+$`)
)

func (v *validator) tracing() {
	t := &v.c.Tracing
	const otlp = "tracing.otlp"
	if !v.intact("tracing") {
		return
	}
	if o := t.OTLP; o.Endpoint == "" {
		if t.Sample > 0 || t.TrustTraceparent || len(t.Attributes) > 0 || t.ServiceName != defaultService || o.Insecure || o.HeadersFile != "" || o.TLS != (OTLPTLS{}) {
			v.refuse("tracing", "nothing is traced without tracing.otlp.endpoint; give it, as in otel-collector:4317, or take tracing out")
		}
		return
	}
	const hops = "server.http.trusted_hops"
	if t.TrustTraceparent && v.c.Server.HTTP.TrustedHops == 0 && v.intact(hops) {
		v.refuse("tracing.trust_traceparent", "with "+hops+": 0 there is no proxy whose traceparent it could be, and clients would choose what is recorded; set "+hops+" to the number of proxies in front, or take trust_traceparent out")
	}
	v.together(otlp+".tls", t.OTLP.TLS.CertFile, t.OTLP.TLS.KeyFile)
	if t.OTLP.Insecure && t.OTLP.TLS != (OTLPTLS{}) {
		v.refuse(otlp+".tls", "the connection has no TLS, since insecure is true; take one of the two out")
	}
	if t.OTLP.HeadersFile == "" {
		return
	}
	v.otlpHeaders(&t.OTLP)
	if t.OTLP.Insecure && !loopbackURL("http://"+t.OTLP.Endpoint) {
		v.warn(otlp+".insecure", "the headers of headers_file are sent without TLS: whoever is on the way can read them; take insecure out")
	}
}

// otlpHeaders reads the file of headers. Messages name lines, and show none.
func (v *validator) otlpHeaders(o *OTLP) {
	const key = "tracing.otlp.headers_file"
	text := v.secret(key, o.HeadersFile)
	if !v.intact(key) {
		return
	}
	o.Headers = nil
	for i, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		switch {
		case !ok || !otlpHeaderName.MatchString(name) || !otlpHeaderValue.MatchString(value):
			v.refuse(key, "line %d is no header; write name: value, in visible ASCII characters", i+1)
		case strings.HasPrefix(name, "grpc-") || strings.HasSuffix(name, "-bin") || name == "content-type" || name == "te" || name == "user-agent":
			v.refuse(key, "line %d: gRPC sets this header itself; take it out", i+1)
		case slices.ContainsFunc(o.Headers, func(h OTLPHeader) bool { return h.Name == name }):
			v.refuse(key, "line %d: this header is there already; keep one", i+1)
		default:
			o.Headers = append(o.Headers, OTLPHeader{name, NewSecret(value)})
			continue
		}
		v.markBroken(key)
	}
	if len(o.Headers) == 0 && v.intact(key) {
		v.refuse(key, "the file has no header; write name: value, one per line, or take headers_file out")
		v.markBroken(key)
	}
}
