package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

func readyCommand(env environment) *cobra.Command {
	var ops string
	var timeout time.Duration
	var live bool
	cmd := &cobra.Command{
		Use:   "ready",
		Short: "Ask a running server whether it is ready",
		Long: `Exits 0 when the server's /readyz answers 200, else 1 with one line. It is the
health check of images that hold nothing but gatehouse. With --live it asks
/healthz: whether the process answers at all, Redis or not.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if timeout <= 0 {
				return usageError{errors.New("--timeout must be more than zero")}
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			path, word := "/readyz", "ready"
			if live {
				path, word = "/healthz", "live"
			}
			if err := askStatus(ctx, ops, path, word); err != nil {
				return err
			}
			fmt.Fprintln(env.stdout, word)
			return nil
		},
	}
	cmd.Flags().StringVar(&ops, "ops", "127.0.0.1:9090", "the server's ops listener: host:port, or unix:///path")
	cmd.Flags().BoolVar(&live, "live", false, "ask whether it lives, not whether it is ready")
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Second, "how long to wait for the answer")
	return cmd
}

// askStatus returns nil when the server whose ops listener is at address answers
// 200 to a path. word is what the server is then.
func askStatus(ctx context.Context, address, path, word string) error {
	response, err := askOps(ctx, address, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("not %s: %s answers %s", word, address, response.Status)
	}
	return nil
}
