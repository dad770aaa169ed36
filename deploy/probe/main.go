// Probe asks a URL whether the program behind it is well: it exits 0 when the
// answer is 200, else 1 with one line. Images that hold nothing but a program
// have it as their health check, where others have a shell and curl.
//
//	probe http://127.0.0.1:8101/healthz
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// timeout is less than that of the health checks, so that the line is seen.
const timeout = 2 * time.Second

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stderr)) }

func run(ctx context.Context, args []string, stderr io.Writer) int {
	if len(args) != 1 {
		_, _ = fmt.Fprintln(stderr, "usage: probe URL")
		return 2
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := probe(ctx, args[0]); err != nil {
		_, _ = fmt.Fprintf(stderr, "probe: %v\n", err)
		return 1
	}
	return 0
}

func probe(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody) //nolint:gosec // G704: whoever starts a program may choose what it asks
	if err != nil {
		return err
	}
	// No proxy, whatever the environment says, and no redirect: the answer has
	// to come from the program that was asked.
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request) //nolint:gosec // G704: as above
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, response.Status)
	}
	return nil
}
