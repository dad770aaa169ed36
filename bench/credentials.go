package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/authz/session"
)

const (
	issuer     = "https://idp.example.com"
	audience   = "api"
	sessionTTL = 24 * time.Hour
)

// credentials are what the clients of a run show. They are made for the run
// and open nothing elsewhere.
type credentials struct {
	secret    string
	ids       []string // of sessions
	cookies   []string // their signed cookie values
	tokens    []string
	publicKey []byte // PEM
	jwks      string
	apiKey    string
}

// newCredentials makes n sessions and n tokens.
func newCredentials(n int, now time.Time) (*credentials, error) {
	c := &credentials{secret: rand.Text() + rand.Text(), apiKey: rand.Text()}
	if err := c.sign(n); err != nil {
		return nil, err
	}
	return c, c.mint(n, now)
}

// sign makes session ids as long as those of express-session.
func (c *credentials) sign(n int) error {
	signer, err := session.NewSigner([]string{c.secret})
	if err != nil {
		return err
	}
	const idLen = 32
	for range n {
		id := (rand.Text() + rand.Text())[:idLen]
		c.ids = append(c.ids, id)
		c.cookies = append(c.cookies, signer.Sign(id))
	}
	return nil
}

// mint makes RS256 tokens with the claims that a provider usually puts into
// one, and the public key as Gatehouse and as Envoy want it.
func (c *credentials) mint(n int, now time.Time) error {
	const bits, kid = 2048, "bench"
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	c.publicKey = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	jwks, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: &key.PublicKey, KeyID: kid, Algorithm: string(jose.RS256), Use: "sig"},
	}})
	if err != nil {
		return err
	}
	c.jwks = string(jwks)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: kid}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return err
	}
	for i := range n {
		u := user(i)
		token, err := jwt.Signed(signer).Claims(jwt.Claims{
			Issuer:    issuer,
			Subject:   u.ID,
			Audience:  jwt.Audience{audience},
			Expiry:    jwt.NewNumericDate(now.Add(sessionTTL)),
			NotBefore: jwt.NewNumericDate(now),
			IssuedAt:  jwt.NewNumericDate(now),
			ID:        rand.Text(),
		}).Claims(map[string]any{
			"email": u.Email, "email_verified": true, "name": "Person " + u.ID,
			"roles": u.Roles, "org_id": u.Organization,
			"azp": "web", "scope": "openid profile email orders:read",
		}).Serialize()
		if err != nil {
			return err
		}
		c.tokens = append(c.tokens, token)
	}
	return nil
}

// identity is who a session or a token belongs to, with the names that a
// session record has for it.
type identity struct {
	ID           string   `json:"userId"`
	Email        string   `json:"email"`
	Roles        []string `json:"roles"`
	Organization string   `json:"organizationId"`
}

func user(i int) identity {
	return identity{
		ID:           fmt.Sprintf("user-%04d", i),
		Email:        fmt.Sprintf("user-%04d@example.com", i),
		Roles:        []string{"member", "editor"},
		Organization: fmt.Sprintf("org-%02d", i%50),
	}
}

// store writes the sessions into Redis, as express-session and connect-redis
// do.
func (c *credentials) store(ctx context.Context, addr string, now time.Time) error {
	type cookie struct {
		OriginalMaxAge int64  `json:"originalMaxAge"`
		Expires        string `json:"expires"`
		Secure         bool   `json:"secure"`
		HTTPOnly       bool   `json:"httpOnly"`
		Path           string `json:"path"`
		SameSite       string `json:"sameSite"`
	}
	rdb := redis.NewClient(&redis.Options{Addr: addr})
	defer func() { _ = rdb.Close() }()
	_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, id := range c.ids {
			record, err := json.Marshal(struct {
				Cookie cookie `json:"cookie"`
				identity
				AuthTime int64 `json:"authTime"`
			}{
				cookie{
					OriginalMaxAge: sessionTTL.Milliseconds(),
					Expires:        now.Add(sessionTTL).UTC().Format("2006-01-02T15:04:05.000Z"),
					Secure:         true, HTTPOnly: true, Path: "/", SameSite: "strict",
				},
				user(i),
				now.Unix(),
			})
			if err != nil {
				return err
			}
			p.Set(ctx, "sess:"+id, record, sessionTTL)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store the sessions: %w", err)
	}
	return nil
}

func (c *credentials) apiKeyHash() string {
	sum := sha256.Sum256([]byte(c.apiKey))
	return hex.EncodeToString(sum[:])
}
