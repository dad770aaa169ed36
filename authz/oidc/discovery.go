package oidc

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/gatehouse-auth/gatehouse/authz"
)

const (
	renewAfter = time.Hour       // when a discovery document is fetched again
	retryAfter = 3 * time.Second // after a failed fetch, while there is no document
	renewRetry = time.Minute     // after a failed fetch, while there is an older one
)

// algorithms are those that this package takes, whatever the issuer says.
var algorithms = []string{
	gooidc.RS256, gooidc.RS384, gooidc.RS512,
	gooidc.PS256, gooidc.PS384, gooidc.PS512,
	gooidc.ES256, gooidc.ES384, gooidc.ES512,
	gooidc.EdDSA,
}

// metadata is what an issuer's discovery document says. It is not changed.
type metadata struct {
	endpoint     oauth2.Endpoint
	userInfo     string // "": none
	algorithms   []string
	issParameter bool // the callback has always iss (RFC 9207)
	keys         *keySet
}

// keySet are the keys of an issuer: fetched when a token has one that is not
// known yet, at most once in a few seconds.
type keySet struct {
	location string
	source   *cooled
	current  atomic.Pointer[gooidc.RemoteKeySet]
}

func (d *directory) keySet(location string) *keySet {
	k := &keySet{location: location, source: &cooled{client: d.clients.read, now: d.now}}
	k.current.Store(k.remote())
	return k
}

func (k *keySet) remote() *gooidc.RemoteKeySet {
	ctx := gooidc.ClientContext(context.Background(), &http.Client{Transport: k.source})
	return gooidc.NewRemoteKeySet(ctx, k.location)
}

// VerifySignature implements [gooidc.KeySet].
func (k *keySet) VerifySignature(ctx context.Context, jwt string) ([]byte, error) {
	return k.current.Load().VerifySignature(ctx, jwt)
}

// renewed is the key set as it will be after a fetch, which takes place at
// once. Until it has verified something, the old one stays.
func (k *keySet) renewed() gooidc.KeySet {
	k.source.forget()
	return &renewedKeys{k, k.remote()}
}

type renewedKeys struct {
	of  *keySet
	set *gooidc.RemoteKeySet
}

func (r *renewedKeys) VerifySignature(ctx context.Context, jwt string) ([]byte, error) {
	payload, err := r.set.VerifySignature(ctx, jwt)
	if err == nil {
		r.of.current.Store(r.set)
	}
	return payload, err
}

// directory finds out where the endpoints of an issuer are, and remembers it.
type directory struct {
	issuer  string
	clients clients
	timeout time.Duration
	now     func() time.Time

	mu     sync.Mutex
	known  *metadata     // nil: never found
	err    error         // of the last fetch
	due    time.Time     // when to fetch next
	flight chan struct{} // closed when the fetch under way is over; nil: none
}

// metadata returns what is known of the issuer. It blocks only when nothing is
// known yet, for one fetch at most, which all who wait share.
func (d *directory) metadata(ctx context.Context) (*metadata, error) {
	d.mu.Lock()
	if d.flight == nil && !d.now().Before(d.due) {
		if d.known != nil {
			d.begin(context.Background()) //nolint:contextcheck // nobody waits for it, and it is in nobody's trace
		} else {
			d.begin(ctx)
		}
	}
	known, err, flight := d.known, d.err, d.flight
	d.mu.Unlock()
	switch {
	case known != nil:
		return known, nil
	case flight == nil: // it failed a moment ago
		return nil, unavailable(err)
	}
	select {
	case <-flight:
	case <-ctx.Done():
		return nil, authz.Refuse(authz.ReasonIssuerUnavailable, "waiting for the issuer's discovery document: %w", ctx.Err())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known == nil {
		return nil, unavailable(d.err)
	}
	return d.known, nil
}

func unavailable(err error) error {
	return authz.Refuse(authz.ReasonIssuerUnavailable, "discovery: %w", err)
}

// begin starts a fetch. It belongs to all who wait for it, and goes on when ctx
// is cancelled.
func (d *directory) begin(ctx context.Context) {
	flight, older := make(chan struct{}), d.known
	d.flight = flight
	ctx = context.WithoutCancel(ctx)
	go func() {
		ctx, cancel := context.WithTimeout(ctx, d.timeout)
		defer cancel()
		found, err := d.fetch(ctx, older)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.flight, d.err = nil, err
		switch {
		case err == nil:
			d.known, d.due = found, d.now().Add(renewAfter)
		case d.known != nil:
			d.due = d.now().Add(renewRetry)
		default:
			d.due = d.now().Add(retryAfter)
		}
		close(flight)
	}()
}

// fetch reads the discovery document. Keys that were found before stay known,
// as long as they are at the same place.
func (d *directory) fetch(ctx context.Context, older *metadata) (*metadata, error) {
	provider, err := gooidc.NewProvider(gooidc.ClientContext(ctx, d.clients.read), d.issuer)
	if err != nil {
		return nil, clip(err)
	}
	var says struct {
		JWKS         string   `json:"jwks_uri"`
		Algorithms   []string `json:"id_token_signing_alg_values_supported"`
		AuthMethods  []string `json:"token_endpoint_auth_methods_supported"`
		IssParameter bool     `json:"authorization_response_iss_parameter_supported"`
	}
	if err := provider.Claims(&says); err != nil {
		return nil, clip(err)
	}
	m := &metadata{
		endpoint:     provider.Endpoint(),
		userInfo:     provider.UserInfoEndpoint(),
		issParameter: says.IssParameter,
		algorithms:   slices.DeleteFunc(says.Algorithms, func(a string) bool { return !slices.Contains(algorithms, a) }),
	}
	if len(m.algorithms) == 0 {
		m.algorithms = []string{gooidc.RS256} // OpenID Connect Core 1.0 section 3.1.3.7
	}
	m.endpoint.AuthStyle = authStyle(says.AuthMethods)
	tls := strings.HasPrefix(strings.ToLower(d.issuer), "https:")
	for _, e := range []struct{ name, location string }{
		{"authorization_endpoint", m.endpoint.AuthURL},
		{"token_endpoint", m.endpoint.TokenURL},
		{"userinfo_endpoint", m.userInfo},
		{"jwks_uri", says.JWKS},
	} {
		if e.location == "" && e.name == "userinfo_endpoint" {
			continue
		}
		if err := endpoint(e.name, e.location, tls); err != nil {
			return nil, err
		}
	}
	if older != nil && older.keys.location == says.JWKS {
		m.keys = older.keys
	} else {
		m.keys = d.keySet(says.JWKS) //nolint:contextcheck // keys outlive the request that found them
	}
	return m, nil
}

// authStyle is how a client secret is sent, client_secret_basic where the
// issuer doesn't say (OpenID Connect Discovery 1.0 section 3).
func authStyle(methods []string) oauth2.AuthStyle {
	if slices.Contains(methods, "client_secret_post") && !slices.Contains(methods, "client_secret_basic") {
		return oauth2.AuthStyleInParams
	}
	return oauth2.AuthStyleInHeader
}
