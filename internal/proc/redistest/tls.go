//go:build unix

package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TLS is an authority with a certificate for servers (127.0.0.1 and
// redis.internal) and one for clients, in files of PEM.
type TLS struct {
	CAFile                        string
	CertFile, KeyFile             string // of servers; replicas show it as clients, too
	ClientCertFile, ClientKeyFile string

	tb   testing.TB
	ca   *x509.Certificate
	key  *ecdsa.PrivateKey
	last int64 // serial number
}

// ServerName is a name that the certificate of servers is for, which no
// resolver knows.
const ServerName = "redis.internal"

// NewTLS makes an authority and certificates, in a directory of the test's.
func NewTLS(tb testing.TB) *TLS {
	tb.Helper()
	dir := tb.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	t := &TLS{
		CAFile: in("ca.pem"), CertFile: in("server.pem"), KeyFile: in("server.key"),
		ClientCertFile: in("client.pem"), ClientKeyFile: in("client.key"), tb: tb,
	}
	t.key = t.newKey()
	template := t.template("authority")
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, t.key.Public(), t.key)
	if err == nil {
		t.ca, err = x509.ParseCertificate(der)
	}
	if err != nil {
		tb.Fatal(err)
	}
	t.write(t.CAFile, "CERTIFICATE", der)
	server := t.template("server")
	server.DNSNames, server.IPAddresses = []string{ServerName}, []net.IP{net.IPv4(127, 0, 0, 1)}
	t.issue(server, t.CertFile, t.KeyFile)
	t.RenewClient("client")
	return t
}

// RenewClient replaces the clients' certificate and key by new ones for a name,
// each at once.
func (t *TLS) RenewClient(name string) {
	t.tb.Helper()
	t.issue(t.template(name), t.ClientCertFile, t.ClientKeyFile)
}

// Config is for a client that shows the clients' certificate of now.
func (t *TLS) Config() *tls.Config {
	t.tb.Helper()
	certificate, err := tls.LoadX509KeyPair(t.ClientCertFile, t.ClientKeyFile)
	if err != nil {
		t.tb.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(t.ca)
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{certificate}}
}

// server is the configuration of a server that listens on a port with TLS only.
func (t *TLS) server(port int, clientCertificates bool) string {
	ask := "no"
	if clientCertificates {
		ask = "yes"
	}
	return strings.Join([]string{
		"port 0", fmt.Sprintf("tls-port %d", port), "tls-cert-file " + t.CertFile, "tls-key-file " + t.KeyFile,
		"tls-ca-cert-file " + t.CAFile, "tls-auth-clients " + ask,
	}, "\n")
}

func (t *TLS) template(name string) *x509.Certificate {
	t.last++
	return &x509.Certificate{
		SerialNumber: big.NewInt(t.last), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

func (t *TLS) newKey() *ecdsa.PrivateKey {
	t.tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.tb.Fatal(err)
	}
	return key
}

func (t *TLS) issue(template *x509.Certificate, certFile, keyFile string) {
	t.tb.Helper()
	key := t.newKey()
	certificate, err := x509.CreateCertificate(rand.Reader, template, t.ca, key.Public(), t.key)
	if err != nil {
		t.tb.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.tb.Fatal(err)
	}
	t.write(certFile, "CERTIFICATE", certificate)
	t.write(keyFile, "PRIVATE KEY", private)
}

// write replaces a file at once.
func (t *TLS) write(file, kind string, der []byte) {
	t.tb.Helper()
	err := os.WriteFile(file+".new", pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		t.tb.Fatal(err)
	}
}
