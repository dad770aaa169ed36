// Demo-page serves the page at the gateway's root where the demo runs in
// containers; package demopage has its story. It is configured by the
// environment or by flags:
//
//	LISTEN            --listen            127.0.0.1:8103
//	SIGNING_KEY_FILE  --signing-key-file  PEM file with the key that signs Gatehouse's tokens
//	ISSUER            --issuer            http://localhost:8080, as in Gatehouse's configuration
//	AUDIENCE          --audience          api, as in Gatehouse's configuration
//	REDIS_URL                             the store that Gatehouse reads
//	SESSION_SECRET                        the secret that signs session cookies
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/authz/token"
	"github.com/gatehouse-auth/gatehouse/services/demopage"
	"github.com/gatehouse-auth/gatehouse/services/internal/upstream"
)

const name = "demo-page"

// storeTimeout is generous: this page has no gateway that waits for it.
const storeTimeout = time.Second

func main() { os.Exit(upstream.Main(name, run)) }

func run(ctx context.Context, p upstream.Process) error {
	flags := upstream.NewFlags(name, p)
	listen := flags.String("listen", "LISTEN", "127.0.0.1:8103", "`address` to listen on")
	keyFile := flags.String("signing-key-file", "SIGNING_KEY_FILE", "", "PEM `file` with the key that signs Gatehouse's tokens")
	issuer := flags.String("issuer", "ISSUER", "http://localhost:8080", "`name` of the issuer, as in Gatehouse's configuration")
	audience := flags.String("audience", "AUDIENCE", "api", "`audience` of the tokens, as in Gatehouse's configuration")
	if err := flags.Parse(); err != nil {
		return err
	}
	log := p.Log()
	key, err := token.LoadSigningKey(*keyFile, "")
	if err != nil {
		return fmt.Errorf("SIGNING_KEY_FILE: %w", err)
	}
	var people demopage.People
	people.Issuer, err = token.NewIssuer(token.MintOptions{Issuer: *issuer, Audiences: []string{*audience}, Keys: []*token.SigningKey{key}})
	if err != nil {
		return err
	}
	if people.Signer, err = session.NewSigner([]string{p.Env("SESSION_SECRET")}); err != nil {
		return fmt.Errorf("SESSION_SECRET: %w", err)
	}
	redisURL := p.Env("REDIS_URL")
	if redisURL == "" {
		return errors.New("REDIS_URL is missing: give the store that Gatehouse reads")
	}
	client, err := session.Open(redisURL, session.OpenOptions{Timeout: storeTimeout, Logger: log})
	if err != nil {
		return fmt.Errorf("REDIS_URL: %w", err)
	}
	defer func() { _ = client.Close() }()
	people.Store = session.New(client, session.Options{Timeout: storeTimeout, Cookie: session.Cookie{InsecureHTTP: true}})

	page := demopage.Options{Store: "Redis", Login: people.Login, Logout: people.Logout, Log: log}
	if page.RevokedToken, err = prepare(ctx, people); err != nil {
		return err
	}
	return upstream.ListenAndServe(ctx, name, *listen, demopage.New(page), log, p.Stdout)
}

// prepare waits for the store, a minute at most, and returns the revoked token.
func prepare(ctx context.Context, people demopage.People) (revoked string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		if err = people.Prepare(ctx); err == nil {
			return people.RevokedToken(ctx, demopage.Bob)
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("the store is not there: %w", err)
		case <-time.After(time.Second):
		}
	}
}
