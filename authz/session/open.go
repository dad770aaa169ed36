package session

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/gatehouse-auth/gatehouse/internal/redisguard"
)

// OpenOptions configure [Open]. The zero value is usable.
type OpenOptions struct {
	// Timeout bounds each read and write; default 100ms, as in [Options].
	Timeout time.Duration
	// PoolSize is how many connections there can be to one server; default 20
	// for each processor, 10 in a Cluster. How many requests may wait for it follows
	// from that.
	PoolSize int
	// Username and Password are for Redis itself, in place of those in the URL;
	// "" keeps these.
	Username, Password string
	// CurrentPassword, where not nil, is asked for the password of each new
	// connection, in place of Password, so that it can change while the client
	// is used. Connections that are open stay. It must be safe for concurrent
	// use and not block.
	CurrentPassword func() string
	// TLS is for the schemes with a double s, beginning with rediss. It is for
	// the Sentinels, too.
	TLS TLSOptions
	// SentinelUsername and SentinelPassword are for the Sentinels, as above. The
	// credentials in the URL are for Redis itself.
	SentinelUsername, SentinelPassword string
	CurrentSentinelPassword            func() string
	// OnServer, where not nil, is told when a server ceases to answer, so that
	// requests are refused without asking it, and when it answers again. It must
	// not block.
	OnServer func(ServerChange)
	// Hook, where not nil, sees each command before it waits for its turn, and is told
	// when it was answered.
	Hook redis.Hook
	// Logger is told, loudly, of an embedded store; default [slog.Default].
	Logger *slog.Logger
}

// TLSOptions say whom to trust, and how to prove who we are. TLS 1.2 is the
// least.
type TLSOptions struct {
	CAFile string // PEM; "" for the system's authorities
	// CertFile and KeyFile are our own certificate (PEM), for servers that ask
	// for one. They are read again for each connection, so they can be
	// renewed. While they can't be read or don't fit each other, the last ones
	// that did are used.
	CertFile, KeyFile string
	// ServerName is what the server's certificate must be for; "" for the host
	// connected to. Nodes of a Cluster and masters behind Sentinel are often
	// known by address only.
	ServerName string
}

// Open returns a client for the store at a URL:
//
//	redis://[user:password@]host[:6379][/database]
//	unix://[user:password@]/path/to/socket[?db=database]
//	redis+sentinel://[user:password@]host[:26379],…/master[/database]
//	redis+cluster://[user:password@]host[:6379],…
//	embedded://[:password@][host:port]
//
// and rediss://, rediss+sentinel:// and rediss+cluster:// for TLS. User and
// password are percent-encoded; a password alone stands behind a colon.
//
// It doesn't connect: a store that is down is found by the first call, and
// waited for by those that follow. Only an embedded store is started here; it
// fails when its address is taken. Closing the client ends it. Errors show
// nothing of the URL, which holds a password.
func Open(rawURL string, o OpenOptions) (redis.UniversalClient, error) {
	u, err := parseURL(rawURL)
	if err != nil {
		return nil, fmt.Errorf("store URL: %w", err)
	}
	u.username, u.password = cmp.Or(o.Username, u.username), cmp.Or(o.Password, u.password)
	if u.kind == kindEmbedded {
		if o.CurrentPassword != nil { // it has one for good
			u.password, o.CurrentPassword = o.CurrentPassword(), nil
		}
		return openEmbedded(u, o)
	}
	options := clientOptions(u, o)
	if u.tls {
		if options.TLSConfig, err = o.TLS.config(); err != nil {
			return nil, fmt.Errorf("store TLS: %w", err)
		}
	} else if o.TLS != (TLSOptions{}) {
		return nil, errors.New("store URL: there are TLS settings, but the scheme is one without TLS; write rediss")
	}
	var client redis.UniversalClient
	switch u.kind {
	case kindSentinel:
		client = openSentinel(u, o, options)
	case kindCluster:
		cluster := options.Cluster()
		cluster.ClusterStateReloadInterval = time.Second // by default a minute, in which a successor isn't known
		client = redis.NewClusterClient(cluster)
	case kindSingle, kindEmbedded:
		client = redis.NewUniversalClient(options)
	}
	if o.Hook != nil {
		client.AddHook(o.Hook)
	}
	guard := redisguard.Of(client) // before it knows any node of a Cluster
	if o.OnServer != nil {
		guard.Notify(o.OnServer)
	}
	return client, nil
}

// ServerChange is that a server ceased to answer, or answers again.
type ServerChange = redisguard.Change

// credentials returns what go-redis asks for the login of each connection.
func credentials(username, password string, current func() string) func() (string, string) {
	return func() (string, string) {
		if current != nil {
			return username, current()
		}
		return username, password
	}
}

// defaultPoolSize is twice that of go-redis, since the connections are shared out: see
// package redisguard. They are opened when they are needed.
func defaultPoolSize(k urlKind) int {
	if k == kindCluster {
		return 10 * runtime.GOMAXPROCS(0)
	}
	return 20 * runtime.GOMAXPROCS(0)
}

func clientOptions(u storeURL, o OpenOptions) *redis.UniversalOptions {
	timeout := cmp.Or(o.Timeout, defaultTimeout)
	return &redis.UniversalOptions{
		Addrs:               u.hosts,
		DB:                  u.db,
		CredentialsProvider: credentials(u.username, u.password, o.CurrentPassword),
		IsClusterMode:       u.kind == kindCluster,
		ClientName:          "gatehouse",
		Protocol:            2,

		// The deadline of a call bounds all that it does. Two quick retries
		// within it carry it over connections that a restarted server dropped.
		ContextTimeoutEnabled: true,
		ReadTimeout:           timeout,
		WriteTimeout:          timeout,
		PoolTimeout:           timeout,
		MaxRetries:            2,
		MinRetryBackoff:       2 * time.Millisecond,
		MaxRetryBackoff:       16 * time.Millisecond,

		// Connecting goes on in the background when the call that needed it
		// gave up, so it may take its time: a TLS handshake across zones takes
		// longer than a read. Trying again is for the next call.
		DialTimeout:   max(timeout, time.Second),
		DialerRetries: 1,

		PoolSize:         cmp.Or(o.PoolSize, defaultPoolSize(u.kind)),
		PipelinePoolSize: -1, // nearly everything is a pipeline: one pool, one size to set

		DisableIdentity:          true, // CLIENT SETINFO is an error before Redis 7.2
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

func (o TLSOptions) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: o.ServerName}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: no certificate in PEM form", o.CAFile)
		}
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		return nil, errors.New("a certificate needs its key and a key its certificate: set both files")
	}
	if o.CertFile != "" {
		first, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			return nil, err
		}
		var last atomic.Pointer[tls.Certificate]
		last.Store(&first)
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if renewed, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile); err == nil {
				last.Store(&renewed)
			} // else one of the two is being replaced
			return last.Load(), nil
		}
	}
	return c, nil
}

type urlKind int

const (
	kindSingle urlKind = iota
	kindSentinel
	kindCluster
	kindEmbedded
)

// storeURL is a URL taken apart. [url.Parse] is no help: it refuses lists of
// hosts with ports, and its errors quote the password.
type storeURL struct {
	kind               urlKind
	tls                bool
	username, password string
	hosts              []string // host:port, or one path of a socket
	master             string
	db                 int
}

var schemes = map[string]storeURL{
	"redis":           {},
	"unix":            {},
	"rediss":          {tls: true},
	"redis+sentinel":  {kind: kindSentinel},
	"rediss+sentinel": {kind: kindSentinel, tls: true},
	"redis+cluster":   {kind: kindCluster},
	"rediss+cluster":  {kind: kindCluster, tls: true},
	"embedded":        {kind: kindEmbedded},
}

const (
	redisPort    = "6379"
	sentinelPort = "26379"
)

func parseURL(raw string) (storeURL, error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	u, known := schemes[strings.ToLower(scheme)]
	if !ok || !known {
		return u, errors.New("want redis://, rediss://, unix://, redis+sentinel://, redis+cluster:// or embedded://")
	}
	if strings.Contains(rest, "#") {
		return u, errors.New("it has a fragment; a # in a password is written %23")
	}
	rest, query, _ := strings.Cut(rest, "?")
	authority, path := rest, ""
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		authority, path = rest[:i], rest[i+1:]
	}
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		if err := u.parseUser(authority[:i]); err != nil {
			return u, err
		}
		authority = authority[i+1:]
	}
	if strings.EqualFold(scheme, "unix") {
		return u, u.parseSocket(authority, path, query)
	}
	if query != "" {
		return u, errors.New("it has a query; a ? in a password is written %3F, and a database is the last part of the path")
	}
	if err := u.parseHosts(authority); err != nil {
		return u, err
	}
	return u, u.parsePath(path)
}

func (u *storeURL) parseUser(user string) error {
	username, password, ok := strings.Cut(user, ":")
	if !ok {
		return errors.New("a user without a password; a password alone stands behind a colon, as in :password@")
	}
	var errUser, errPassword error
	u.username, errUser = url.PathUnescape(username)
	u.password, errPassword = url.PathUnescape(password)
	if errUser != nil || errPassword != nil { // both would quote what they were given
		return errors.New("user or password is not percent-encoded; a % is written %25")
	}
	return nil
}

func (u *storeURL) parseSocket(host, path, query string) error {
	if host != "" || path == "" {
		return errors.New("a socket is an absolute path, as in unix:///run/redis.sock")
	}
	path, err := url.PathUnescape("/" + path)
	if err != nil {
		return errors.New("the path of the socket is not percent-encoded")
	}
	u.hosts = []string{path}
	if query == "" {
		return nil
	}
	db, ok := strings.CutPrefix(query, "db=")
	if !ok {
		return errors.New("the query of a socket is db=number or nothing")
	}
	return u.parseDB(db)
}

func (u *storeURL) parseHosts(authority string) error {
	if u.kind == kindEmbedded && authority == "" {
		return nil
	}
	port := redisPort
	if u.kind == kindSentinel {
		port = sentinelPort
	}
	for i, address := range strings.Split(authority, ",") {
		host, err := hostPort(address, port)
		if err != nil {
			return fmt.Errorf("host %d: %w", i+1, err)
		}
		u.hosts = append(u.hosts, host)
	}
	if len(u.hosts) > 1 && (u.kind == kindSingle || u.kind == kindEmbedded) {
		return errors.New("several hosts are for redis+sentinel:// and redis+cluster://")
	}
	return nil
}

func hostPort(address, port string) (string, error) {
	bad := errors.New("want host, host:port or [address]:port; a / in a password is written %2F")
	var host string
	if inside, ok := strings.CutSuffix(address, "]"); ok {
		if host, ok = strings.CutPrefix(inside, "["); !ok {
			return "", bad
		}
	} else if host = address; strings.Contains(address, ":") {
		var err error
		if host, port, err = net.SplitHostPort(address); err != nil { // quotes the address
			return "", bad
		}
	}
	if strings.Contains(host, ":") {
		host = strings.Replace(host, "%25", "%", 1) // before the zone of an address, by RFC 6874
		if _, err := netip.ParseAddr(host); err != nil {
			return "", bad
		}
	} else if strings.Contains(host, "%") {
		return "", bad
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil || host == "" || strings.ContainsAny(host, "@[] ") {
		return "", bad
	}
	return net.JoinHostPort(host, port), nil
}

func (u *storeURL) parsePath(path string) error {
	var err error
	switch path, err = url.PathUnescape(path); {
	case err != nil:
		return errors.New("the path is not percent-encoded")
	case u.kind == kindSentinel:
		var db string
		if u.master, db, _ = strings.Cut(path, "/"); u.master == "" {
			return errors.New("the name of the master is missing, as in redis+sentinel://host/mymaster")
		}
		return u.parseDB(db)
	case u.kind == kindSingle:
		return u.parseDB(path)
	case path != "":
		return errors.New("there is a path behind the hosts; only redis:// and redis+sentinel:// have a database number")
	}
	return nil
}

func (u *storeURL) parseDB(db string) error {
	if db == "" {
		return nil
	}
	n, err := strconv.ParseUint(db, 10, 31)
	if err != nil { // quotes the number, which may be the rest of a password
		return errors.New("the database is not a number")
	}
	u.db = int(n)
	return nil
}
