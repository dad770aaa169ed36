package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func readyCommand(env environment) *cobra.Command {
	var ops string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "ready",
		Short: "Ask a running server whether it is ready",
		Long: `Exits 0 when the server's /readyz answers 200, else 1 with one line. It is the
health check of images that hold nothing but gatehouse.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if timeout <= 0 {
				return usageError{errors.New("--timeout must be more than zero")}
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			if err := askReady(ctx, ops); err != nil {
				return err
			}
			fmt.Fprintln(env.stdout, "ready")
			return nil
		},
	}
	cmd.Flags().StringVar(&ops, "ops", "127.0.0.1:9090", "the server's ops listener: host:port, or unix:///path")
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Second, "how long to wait for the answer")
	return cmd
}

// askReady returns nil when the server whose ops listener is at address says
// that it is ready.
func askReady(ctx context.Context, address string) error {
	network, target := "tcp", address
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		network, target = "unix", path
	}
	// The listener is dialled whatever the URL says, so no proxy comes between.
	client := &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var dialer net.Dialer
				return dialer.DialContext(ctx, network, target)
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://gatehouse/readyz", http.NoBody)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		// Without the made-up URL.
		if cause := errors.Unwrap(err); cause != nil {
			err = cause
		}
		return fmt.Errorf("no answer from %s: %w; is the server running, and is that its server.ops.listen?", address, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s answers %s", address, response.Status)
	}
	return nil
}
