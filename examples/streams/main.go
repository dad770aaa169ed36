// Streams is a service behind the gate that holds streams open, and ends each of them when
// its session is revoked. It is configured by the environment:
//
//	LISTEN         127.0.0.1:8104
//	FEED_URL       http://127.0.0.1:8081/auth/feed
//	FEED_KEY_FILE  file with an internal key with auth_api: true
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/gatehouse-auth/gatehouse/services/revocation"
	"github.com/gatehouse-auth/gatehouse/services/usercontext"
)

func main() {
	if err := run(); err != nil {
		slog.Error("streams", slog.Any("error", err))
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	file := os.Getenv("FEED_KEY_FILE")
	if file == "" {
		return errors.New("FEED_KEY_FILE is not set: name a file with an internal key with auth_api: true")
	}
	key, err := os.ReadFile(file) //nolint:gosec // G703: whoever starts it says which file
	if err != nil {
		return fmt.Errorf("FEED_KEY_FILE: %w", err)
	}
	feed, err := revocation.New(revocation.Options{
		URL: cmp.Or(os.Getenv("FEED_URL"), "http://127.0.0.1:8081/auth/feed"),
		Key: strings.TrimSpace(string(key)),
		OnBlind: func(err error) {
			if err != nil {
				slog.Warn("the revocation feed is not heard", slog.Any("error", err))
				return
			}
			slog.Info("the revocation feed is heard")
		},
	})
	if err != nil {
		return err
	}
	go func() { _ = feed.Watch(ctx, nil) }() // until ctx ends
	mux := http.NewServeMux()
	mux.HandleFunc("GET /streams", ticks(feed))
	server := &http.Server{
		Addr: cmp.Or(os.Getenv("LISTEN"), "127.0.0.1:8104"), Handler: usercontext.Require(mux), ReadHeaderTimeout: 5 * time.Second,
	}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// ticks sends the time every second, until the user's session is revoked.
func ticks(feed *revocation.Feed) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		user, _ := usercontext.FromContext(r.Context())
		ctx, stop := feed.Until(r.Context(), revocation.Stream{UserID: user.ID})
		defer stop()
		control := http.NewResponseController(w)
		w.Header().Set("Content-Type", "text/event-stream")
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			_, err := fmt.Fprintf(w, "data: %s\n\n", time.Now().Format(time.TimeOnly))
			if err != nil || control.Flush() != nil {
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				// EventSource comes back by itself, and the gate says whether it may.
				_, _ = fmt.Fprintf(w, "event: end\ndata: %v\n\n", context.Cause(ctx))
				return
			}
		}
	}
}
