// Order-service is the demo service of orders; package orderservice has its
// story. It is configured by the environment or by flags:
//
//	LISTEN                 --listen                 127.0.0.1:8102
//	USER_SERVICE_URL       --user-service-url       http://127.0.0.1:8101
//	INTERNAL_API_KEY_FILE  --internal-api-key-file  file with the internal key that user-service accepts
//	INTERNAL_API_KEY                                the key itself, in place of the file
//
// There is no flag for the key itself: the command line is no place for it.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/gatehouse-auth/gatehouse/services/internal/upstream"
	"github.com/gatehouse-auth/gatehouse/services/orderservice"
)

func main() { os.Exit(upstream.Main(orderservice.Name, run)) }

func run(ctx context.Context, p upstream.Process) error {
	flags := upstream.NewFlags(orderservice.Name, p)
	listen := flags.String("listen", "LISTEN", "127.0.0.1:8102", "`address` to listen on")
	userService := flags.String("user-service-url", "USER_SERVICE_URL", "http://127.0.0.1:8101", "`URL` of user-service, reached directly")
	keyFile := flags.String("internal-api-key-file", "INTERNAL_API_KEY_FILE", "",
		"`file` with the internal key that user-service accepts; without it the key is in the environment as INTERNAL_API_KEY")
	if err := flags.Parse(); err != nil {
		return err
	}
	base, err := parseURL(*userService)
	if err != nil {
		return fmt.Errorf("USER_SERVICE_URL: %w", err)
	}
	key, err := readKey(p.Env("INTERNAL_API_KEY"), *keyFile)
	if err != nil {
		return err
	}
	log := p.Log()
	handler := orderservice.New(orderservice.Options{UserService: base, InternalKey: key, Log: log})
	return upstream.ListenAndServe(ctx, orderservice.Name, *listen, handler, log, p.Stdout)
}

// parseURL's errors don't repeat the text, which may hold a password.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" ||
		u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("give the address of user-service as http://host:port, without user, query and fragment")
	}
	return u, nil
}

func readKey(key, file string) (orderservice.Secret, error) {
	where := "INTERNAL_API_KEY"
	switch {
	case key != "" && file != "":
		return "", errors.New("both INTERNAL_API_KEY and INTERNAL_API_KEY_FILE are set: keep one of them")
	case file != "":
		where = "INTERNAL_API_KEY_FILE"
		content, err := os.ReadFile(file) //nolint:gosec // the operator names the file
		if err != nil {
			return "", fmt.Errorf("%s: %w", where, err)
		}
		key = strings.TrimRight(string(content), "\r\n") // as editors and echo leave it
	case key == "":
		return "", errors.New("the internal key is missing: name its file in INTERNAL_API_KEY_FILE, or put it into INTERNAL_API_KEY")
	}
	if key == "" || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", fmt.Errorf("%s: the key must be one line of visible ASCII characters", where)
	}
	return orderservice.Secret(key), nil
}
