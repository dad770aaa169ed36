// User-service is the demo service of profiles; package userservice has its
// story. It is configured by the environment or by flags:
//
//	LISTEN                   --listen                   127.0.0.1:8101
//	INTERNAL_API_KEY_SHA256  --internal-api-key-sha256  hashes of the internal keys that it accepts,
//	                                                    separated by commas, each as HASH or HASH@2027-01-01
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/gatehouse-auth/gatehouse/services/internal/upstream"
	"github.com/gatehouse-auth/gatehouse/services/usercontext"
	"github.com/gatehouse-auth/gatehouse/services/userservice"
)

func main() { os.Exit(upstream.Main(userservice.Name, run)) }

func run(ctx context.Context, p upstream.Process) error {
	flags := upstream.NewFlags(userservice.Name, p)
	listen := flags.String("listen", "LISTEN", "127.0.0.1:8101", "`address` to listen on")
	hashes := flags.String("internal-api-key-sha256", "INTERNAL_API_KEY_SHA256", "",
		"`hashes` of the internal keys to accept, separated by commas, each as HASH or HASH@2027-01-01")
	if err := flags.Parse(); err != nil {
		return err
	}
	keys, err := parseKeys(*hashes)
	if err != nil {
		return fmt.Errorf("INTERNAL_API_KEY_SHA256: %w", err)
	}
	log := p.Log()
	if len(keys) == 0 {
		log.WarnContext(ctx, "no internal key is configured, so /users/internal/ answers 403 to everyone: set INTERNAL_API_KEY_SHA256")
	}
	handler := userservice.New(userservice.Options{InternalKeys: keys, Log: log})
	return upstream.ListenAndServe(ctx, userservice.Name, *listen, handler, log, p.Stdout)
}

func parseKeys(list string) ([]usercontext.Key, error) {
	var keys []usercontext.Key
	if strings.TrimSpace(list) == "" {
		return nil, nil
	}
	for text := range strings.SplitSeq(list, ",") {
		key, err := usercontext.ParseKey(strings.TrimSpace(text))
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}
