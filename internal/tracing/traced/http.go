package traced

import (
	"net/http"
	"strconv"

	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// Transport is next, of which each request has a span that is named by its method and
// what it is for: a word of ours. nil is [http.DefaultTransport].
func Transport(next http.RoundTripper, purpose string) http.RoundTripper {
	if next == nil {
		next = http.DefaultTransport
	}
	return transport{next, purpose}
}

type transport struct {
	next    http.RoundTripper
	purpose string
}

// RoundTrip implements [http.RoundTripper].
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	method := Method(r.Method)
	ctx, s, ok := client(r.Context(), method+" "+t.purpose)
	if !ok {
		return t.next.RoundTrip(r)
	}
	defer s.End()
	s.SetAttributes(semconv.HTTPRequestMethodKey.String(method), semconv.URLScheme(r.URL.Scheme), semconv.ServerAddress(r.URL.Hostname()))
	if port, err := strconv.Atoi(r.URL.Port()); err == nil {
		s.SetAttributes(semconv.ServerPort(port))
	}
	response, err := t.next.RoundTrip(r.WithContext(ctx))
	if err != nil {
		fail(s, err, "connection")
		return response, err
	}
	s.SetAttributes(semconv.HTTPResponseStatusCode(response.StatusCode))
	if response.StatusCode >= http.StatusBadRequest { // what a client sent, we did
		code := strconv.Itoa(response.StatusCode)
		s.SetAttributes(semconv.ErrorTypeKey.String(code))
		s.SetStatus(codes.Error, code)
	}
	return response, nil
}

// CloseIdleConnections is for [http.Client.CloseIdleConnections].
func (t transport) CloseIdleConnections() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// Method is a method of HTTP as spans have it: one of a closed list.
func Method(method string) string {
	switch method {
	case "":
		return http.MethodGet
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodConnect, http.MethodOptions, http.MethodTrace, "QUERY":
		return method
	}
	return semconv.HTTPRequestMethodOther.Value.AsString() // what a client made up
}
