package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// listen opens what a `listen` key names: host:port, or unix:///path. The
// error says which key it was and what to do.
func listen(ctx context.Context, key, address string) (net.Listener, error) {
	network, target := "tcp", address
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		network, target = "unix", path
		if err := removeStaleSocket(ctx, path); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, network, target)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: address %s is in use: stop the program that has it ('gatehouse ready' says whether it is a Gatehouse), or choose another one", key, address)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%s: not allowed to listen on %s: choose another address or run with the rights for it", key, address)
	case err != nil:
		return nil, fmt.Errorf("%s: can't listen on %s: %w", key, address, err)
	}
	if network == "unix" {
		// Envoy often runs as another user of the same group. Whoever can
		// connect may ask, but learns no more than a client of the gateway.
		if err := os.Chmod(target, 0o660); err != nil { //nolint:gosec // G302: meant for the group
			return nil, errors.Join(fmt.Errorf("%s: %w", key, err), l.Close())
		}
	}
	return l, nil
}

// removeStaleSocket removes the socket that a killed process left behind. It
// keeps one that answers, and anything that is no socket.
func removeStaleSocket(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&os.ModeSocket == 0:
		return fmt.Errorf("%s is there and is no socket: remove it, or choose another path", path)
	}
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err == nil {
		_ = conn.Close()
		return fmt.Errorf("socket %s is in use: stop the program that has it, or choose another path", path)
	}
	return os.Remove(path)
}

// serverTLS returns the TLS settings of a listener. With a client CA, only
// clients with a certificate of that authority get in.
func serverTLS(certFile, keyFile, clientCAFile string) (*tls.Config, error) {
	certificate, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("can't load certificate %s with key %s: %w", certFile, keyFile, err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	if clientCAFile == "" {
		return config, nil
	}
	config.ClientCAs, err = loadCAs(clientCAFile)
	if err != nil {
		return nil, fmt.Errorf("client_ca_file: %w", err)
	}
	config.ClientAuth = tls.RequireAndVerifyClientCert
	return config, nil
}

func loadCAs(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file) //nolint:gosec // G304: the operator names the file
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no PEM certificate", file)
	}
	return pool, nil
}
