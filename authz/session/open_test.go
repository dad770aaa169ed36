package session_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

var quiet = slog.New(slog.DiscardHandler)

func TestOpenRefusesURLsWithoutShowingThem(t *testing.T) {
	const secret = "hunter2"
	for _, tc := range []struct{ url, want string }{
		{"", "want redis://"},
		{secret, "want redis://"},
		{"redis:" + secret, "want redis://"},
		{"http://:" + secret + "@h", "want redis://"},
		{secret + "://h", "want redis://"},
		{"redis://", "host 1: want host"},
		{"redis://:" + secret + "@", "host 1"},
		{"redis://" + secret + "@h", "stands behind a colon"},
		{"redis://:" + secret + "%@h", "percent-encoded"},
		{"redis://%zz:" + secret + "@h", "percent-encoded"},
		{"redis://:" + secret + "#x@h", "%23"},
		{"redis://:" + secret + "?x@h", "%3F"},
		{"redis://:" + secret + "/x@h", "%2F"},
		{"redis://:" + secret + "/@h:6379", "%2F"},
		{"redis://u:" + secret + "@h1,h2", "several hosts"},
		{"redis://u:" + secret + "@h:port", "host 1"},
		{"redis://u:" + secret + "@h]", "host 1"},
		{"redis://u:" + secret + "@[a:b]", "host 1"},
		{"redis://u:" + secret + "@h%41", "host 1"},
		{"redis://u:" + secret + "@h:65536", "host 1"},
		{"redis://u:" + secret + "@h:", "host 1"},
		{"redis://u:" + secret + "@:6379", "host 1"},
		{"redis://u:" + secret + "@a:b:c", "host 1"},
		{"redis://u:" + secret + "@h/" + secret, "not a number"},
		{"redis://u:" + secret + "@h/-1", "not a number"},
		{"redis://u:" + secret + "@h/1/2", "not a number"},
		{"redis://u:" + secret + "@h/%zz", "percent-encoded"},
		{"redis://u:" + secret + "@h?db=1", "last part of the path"},
		{"redis+sentinel://u:" + secret + "@h", "name of the master"},
		{"redis+sentinel://u:" + secret + "@h/", "name of the master"},
		{"redis+sentinel://u:" + secret + "@h/m/" + secret, "not a number"},
		{"redis+sentinel://u:" + secret + "@h1,/m", "host 2"},
		{"redis+cluster://u:" + secret + "@h1,h2/1", "a path behind the hosts"},
		{"redis+cluster://u:" + secret + "@h1,,h2", "host 2"},
		{"unix://:" + secret + "@", "absolute path"},
		{"unix://:" + secret + "@host/path", "absolute path"},
		{"unix:///s?x=" + secret, "db=number or nothing"},
		{"unix:///s?db=" + secret, "not a number"},
		{"unix:///%zz" + secret, "percent-encoded"},
		{"embedded://:" + secret + "@h1:1,h2:2", "several hosts"},
		{"embedded:///" + secret, "a path behind the hosts"},
		{"embedded://0.0.0.0:7000", "no password"},
		{"embedded://localhost:7000", "no password"},
	} {
		client, err := session.Open(tc.url, session.OpenOptions{Logger: quiet})
		require.Nil(t, client, tc.url)
		require.ErrorContains(t, err, tc.want, tc.url)
		require.NotContains(t, err.Error(), secret, tc.url)
	}
}

func TestOpenReadsURLs(t *testing.T) {
	type where struct {
		addrs              []string
		username, password string
		db                 int
		tls                bool
	}
	for url, want := range map[string]where{
		"redis://h":                        {addrs: []string{"h:6379"}},
		"REDIS://h/":                       {addrs: []string{"h:6379"}},
		"redis://h:1/15":                   {addrs: []string{"h:1"}, db: 15},
		"redis://[::1]":                    {addrs: []string{"[::1]:6379"}},
		"redis://[fe80::1%25eth0]:7":       {addrs: []string{"[fe80::1%eth0]:7"}},
		"redis://[::1]:7/1":                {addrs: []string{"[::1]:7"}, db: 1},
		"redis://:p@h":                     {addrs: []string{"h:6379"}, password: "p"},
		"redis://u:p@h":                    {addrs: []string{"h:6379"}, username: "u", password: "p"},
		"redis://u%40x:p%2F%23%3F%25+@h":   {addrs: []string{"h:6379"}, username: "u@x", password: "p/#?%+"},
		"redis://u:p@q:r@h":                {addrs: []string{"h:6379"}, username: "u", password: "p@q:r"},
		"rediss://h":                       {addrs: []string{"h:6379"}, tls: true},
		"unix:///run/redis%20x.sock?db=2":  {addrs: []string{"/run/redis x.sock"}, db: 2},
		"unix://u:p@/s":                    {addrs: []string{"/s"}, username: "u", password: "p"},
		"redis+cluster://u:p@h1,h2:7000":   {addrs: []string{"h1:6379", "h2:7000"}, username: "u", password: "p"},
		"redis+cluster://h":                {addrs: []string{"h:6379"}},
		"rediss+cluster://[::1],[::2]:1":   {addrs: []string{"[::1]:6379", "[::2]:1"}, tls: true},
		"redis+sentinel://u:p@h1,h2:1/m/3": {addrs: []string{"m by h1:26379,h2:1"}, username: "u", password: "p", db: 3},
		"rediss+sentinel://h/m":            {addrs: []string{"m by h:26379"}, tls: true},
	} {
		client, err := session.Open(url, session.OpenOptions{})
		require.NoError(t, err, url)
		var got where
		switch c := client.(type) {
		case *redis.ClusterClient:
			o := c.Options()
			got = where{addrs: o.Addrs, tls: o.TLSConfig != nil}
			got.username, got.password = o.CredentialsProvider()
		case *redis.Client:
			o := c.Options()
			got = where{addrs: []string{o.Addr}, db: o.DB, tls: o.TLSConfig != nil}
			got.username, got.password = o.CredentialsProvider()
			require.True(t, o.ContextTimeoutEnabled)
		default:
			name, sentinels, o, tls := session.BehindSentinel(client)
			got = where{addrs: []string{name + " by " + strings.Join(sentinels, ",")}, db: o.DB, tls: tls}
			got.username, got.password = o.CredentialsProvider()
			require.True(t, o.ContextTimeoutEnabled)
		}
		require.Equal(t, want, got, url)
		require.NoError(t, client.Close())
	}
}

// Settings for TLS with a scheme without it would send everything in clear.
func TestOpenRefusesTLSSettingsWithoutTLS(t *testing.T) {
	for _, url := range []string{"redis://h", "unix:///s", "redis+sentinel://h/m", "redis+cluster://h"} {
		_, err := session.Open(url, session.OpenOptions{TLS: session.TLSOptions{ServerName: "h"}})
		require.ErrorContains(t, err, "write rediss")
	}
}

// authority issues certificates into a directory.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.issue(t, "ca")
	return a
}

// issue writes NAME.crt and NAME.key, valid for 127.0.0.1 and for both ends.
func (a *authority) issue(t *testing.T, name string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		template.IsCA, template.BasicConstraintsValid, template.ExtKeyUsage = true, true, nil
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	require.NoError(t, err)
	if a.cert == nil {
		a.key = key
		a.cert, err = x509.ParseCertificate(der)
		require.NoError(t, err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	certFile, keyFile = a.file(name+".crt"), a.file(name+".key")
	require.NoError(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	return certFile, keyFile
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

func ping(t *testing.T, url string, o session.OpenOptions) error {
	t.Helper()
	o.Timeout = patience
	client, err := session.Open(url, o)
	require.NoError(t, err)
	defer func() { _ = client.Close() }()
	return session.New(client, session.Options{Timeout: patience}).Ping(t.Context())
}

func TestMutualTLSAndUsers(t *testing.T) {
	ca := newAuthority(t)
	serverCert, serverKey := ca.issue(t, "server")
	port := proctest.FreePort(t)
	proctest.StartRedis(t, "--tls-port", fmt.Sprint(port), "--tls-cert-file", serverCert, "--tls-key-file", serverKey,
		"--tls-ca-cert-file", ca.file("ca.crt"), "--tls-auth-clients", "yes",
		"--user", "gate", "on", ">pass~word", "~*", "+@all", "--user", "default", "off")
	url := fmt.Sprintf("rediss://gate:pass~word@127.0.0.1:%d", port)

	client, key := ca.issue(t, "client")
	full := session.TLSOptions{CAFile: ca.file("ca.crt"), CertFile: client, KeyFile: key}
	require.NoError(t, ping(t, url, session.OpenOptions{TLS: full}))

	other := full
	other.ServerName = "redis.example.com"
	requireReason(t, authz.ReasonStoreUnavailable, ping(t, url, session.OpenOptions{TLS: other}))
	requireReason(t, authz.ReasonStoreUnavailable, ping(t, url, session.OpenOptions{TLS: session.TLSOptions{CAFile: full.CAFile}}))
	requireReason(t, authz.ReasonStoreUnavailable, ping(t, url, session.OpenOptions{}))
	err := ping(t, fmt.Sprintf("rediss://gate:wrong-word@127.0.0.1:%d", port), session.OpenOptions{TLS: full})
	requireReason(t, authz.ReasonStoreUnavailable, err)
	require.ErrorContains(t, err, "WRONGPASS")
	require.NotContains(t, err.Error(), "wrong-word")

	// A renewed certificate is used without a restart: the client was opened
	// with one that the server doesn't know.
	stranger := newAuthority(t)
	strangerCert, strangerKey := stranger.issue(t, "client")
	c, err := session.Open(url, session.OpenOptions{Timeout: patience, TLS: session.TLSOptions{
		CAFile: ca.file("ca.crt"), CertFile: strangerCert, KeyFile: strangerKey,
	}})
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	require.Error(t, c.Ping(t.Context()).Err())
	for from, to := range map[string]string{client: strangerCert, key: strangerKey} {
		text, err := os.ReadFile(from)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(to, text, 0o600))
	}
	require.NoError(t, c.Ping(t.Context()).Err())
}

func TestOpenRefusesTLSFilesThatAreNone(t *testing.T) {
	ca := newAuthority(t)
	for want, o := range map[string]session.TLSOptions{
		"no such file":        {CAFile: ca.file("missing")},
		"no certificate":      {CAFile: ca.file("ca.key")},
		"a certificate needs": {CertFile: ca.file("ca.crt")},
		"set both files":      {KeyFile: ca.file("ca.key")},
		"failed to find":      {CertFile: ca.file("ca.key"), KeyFile: ca.file("ca.key")},
	} {
		_, err := session.Open("rediss://h", session.OpenOptions{TLS: o})
		require.ErrorContains(t, err, want)
	}
}

func TestEmbeddedStore(t *testing.T) {
	var log bytes.Buffer
	open := func(url string) redis.UniversalClient {
		client, err := session.Open(url, session.OpenOptions{Timeout: patience, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		require.NoError(t, err)
		t.Cleanup(func() { _ = client.Close() })
		return client
	}
	address := func(c redis.UniversalClient) string {
		return c.(interface{ Options() *redis.Options }).Options().Addr
	}

	alone := open("embedded://")
	require.Contains(t, log.String(), "NOT FOR PRODUCTION")
	require.Contains(t, log.String(), "level=WARN")
	require.NoError(t, alone.Set(t.Context(), "k", "v", 100*time.Millisecond).Err())
	require.NoError(t, alone.Set(t.Context(), "long", "v", time.Hour).Err())
	require.Eventually(t, func() bool { return alone.Exists(t.Context(), "k").Val() == 0 }, 10*time.Second, 5*time.Millisecond, "time passes")
	require.EqualValues(t, 1, alone.Exists(t.Context(), "long").Val())
	about(t, time.Hour, alone.PTTL(t.Context(), "long").Val())
	stranger := redis.NewClient(&redis.Options{Addr: address(alone), Protocol: 2, DisableIdentity: true, MaxRetries: -1})
	defer func() { _ = stranger.Close() }()
	require.ErrorContains(t, stranger.Get(t.Context(), "long").Err(), "NOAUTH", "nobody else may read it")

	port := proctest.FreePort(t)
	shared := open(fmt.Sprintf("embedded://127.0.0.1:%d", port))
	require.NoError(t, shared.Set(t.Context(), "k", "v", 0).Err())
	require.NoError(t, ping(t, fmt.Sprintf("redis://127.0.0.1:%d", port), session.OpenOptions{}))
	_, err := session.Open(fmt.Sprintf("embedded://127.0.0.1:%d", port), session.OpenOptions{Logger: quiet})
	require.ErrorContains(t, err, "embedded store")

	require.NoError(t, shared.Close())
	require.ErrorIs(t, shared.Close(), redis.ErrClosed)
	requireReason(t, authz.ReasonStoreUnavailable, ping(t, fmt.Sprintf("redis://127.0.0.1:%d", port), session.OpenOptions{}))

	guarded := open(fmt.Sprintf("embedded://:s3cret@0.0.0.0:%d", proctest.FreePort(t)))
	require.NoError(t, guarded.Ping(t.Context()).Err())
	require.NotContains(t, log.String(), "s3cret")
}

func TestUnixSocketSelectsTheDatabase(t *testing.T) {
	s := newServer(t, backends[2])
	client, _ := s.connect(t, patience)
	require.NoError(t, client.Set(t.Context(), "k", "v", 0).Err())
	info, err := client.Info(t.Context(), "keyspace").Result()
	require.NoError(t, err)
	require.Contains(t, info, "db3:keys=1")
}
