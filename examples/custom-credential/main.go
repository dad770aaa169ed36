// Command custom-credential is a gate with a kind of credential of its own beside
// API keys: links that are signed. README.md tells it step by step.
package main

import (
	"crypto/sha256"
	"fmt"
	"log"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/extauthz"
)

// newServer returns a gRPC server that Envoy can ask.
func newServer(links *SignedURLs, apiKey string) (*grpc.Server, error) {
	policies, err := authz.NewPolicySet(authz.PolicySetOptions{
		Policies: []authz.Policy{
			{Name: "files", Credentials: []authz.Kind{KindSignedURL, authz.KindAPIKey}},
			{Name: "internal", Credentials: []authz.Kind{authz.KindAPIKey}},
		},
		Routes:  []authz.Route{{Path: "/files/*", Methods: []string{"GET", "HEAD"}, Policy: "files"}},
		Default: "internal",
	})
	if err != nil {
		return nil, err
	}
	keys := authz.NewAPIKeys([]authz.APIKey{
		{Name: "backup", SHA256: sha256.Sum256([]byte(apiKey)), Policies: []string{"files", "internal"}},
	}, nil)
	authorizer := authz.NewAuthorizer(policies, authz.Options{}, links, keys)

	server := grpc.NewServer(extauthz.ServerOption())
	extauthz.Register(server, extauthz.NewServer(authorizer, extauthz.Options{}))
	healthv1.RegisterHealthServer(server, health.NewServer())
	return server, nil
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	key, apiKey := os.Getenv("LINK_KEY"), os.Getenv("BACKUP_KEY")
	if len(key) < 32 || len(apiKey) < 32 {
		return fmt.Errorf("give LINK_KEY and BACKUP_KEY, each of 32 characters or more, such as openssl rand -base64 32 prints")
	}
	links := &SignedURLs{Key: []byte(key), Now: time.Now}
	if len(os.Args) == 4 && os.Args[1] == "sign" { // sign USER TARGET
		fmt.Println(links.Sign(os.Args[3], os.Args[2], time.Now().Add(time.Hour)))
		return nil
	}
	server, err := newServer(links, apiKey)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:9001") //nolint:noctx // it lasts as long as the program
	if err != nil {
		return err
	}
	log.Printf("listening on %s", listener.Addr())
	return server.Serve(listener)
}
