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
	issuer        = "https://idp.example.com"
	audience      = "api"
	sessionTTL    = 24 * time.Hour
	sessionPrefix = "sess:"
	cookieName    = "sessionId"
	// maxTokens bounds how many tokens are made: a signature takes a
	// millisecond.
	maxTokens = 1000
)

// credentials are what the clients of a run show. They are made for the run
// and open nothing elsewhere.
type credentials struct {
	secret    string
	cookies   packed // signed values
	tokens    packed
	sign      func(claims ...any) (string, error) // makes a token
	publicKey []byte                              // PEM
	jwks      string
	apiKey    string
}

// newCredentials makes n sessions, and as many tokens, but at most maxTokens.
func newCredentials(n int, now time.Time) (*credentials, error) {
	c := &credentials{secret: rand.Text() + rand.Text(), apiKey: rand.Text()}
	if err := c.makeKey(); err != nil {
		return nil, err
	}
	signer, err := session.NewSigner([]string{c.secret})
	if err != nil {
		return nil, err
	}
	const signedLen = 96 // with some characters escaped
	c.cookies = newPacked(n, signedLen)
	for range n {
		c.cookies.add(signer.Sign((rand.Text() + rand.Text())[:idLen]))
	}
	for i := range min(n, maxTokens) {
		token, err := c.token(i, rand.Text(), now)
		if err != nil {
			return nil, err
		}
		c.tokens.add(token)
	}
	return c, nil
}

// Session ids are as long as those of express-session, and stand behind the
// start of the cookie.
const (
	idLen    = 32
	idBefore = "s%3A"
)

// id returns the id of session i.
func (c *credentials) id(i int) string {
	return string(c.cookies.at(i)[len(idBefore) : len(idBefore)+idLen])
}

// makeKey makes the key that signs tokens, and its public half as Gatehouse
// and as Envoy want it.
func (c *credentials) makeKey() error {
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
	c.sign = func(claims ...any) (string, error) {
		b := jwt.Signed(signer)
		for _, some := range claims {
			b = b.Claims(some)
		}
		return b.Serialize()
	}
	return nil
}

// token makes the RS256 token number i, with the claims that a provider
// usually puts into one, and more of them if given.
func (c *credentials) token(i int, id string, now time.Time, more ...any) (string, error) {
	u := user(i)
	return c.sign(append([]any{jwt.Claims{
		Issuer:    issuer,
		Subject:   u.ID,
		Audience:  jwt.Audience{audience},
		Expiry:    jwt.NewNumericDate(now.Add(sessionTTL)),
		NotBefore: jwt.NewNumericDate(now),
		IssuedAt:  jwt.NewNumericDate(now),
		ID:        id,
	}, map[string]any{
		"email": u.Email, "email_verified": true, "name": "Person " + u.ID,
		"roles": u.Roles, "org_id": u.Organization,
		"azp": "web", "scope": "openid profile email orders:read",
	}}, more...)...)
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

// record is a session as express-session writes it.
type record struct {
	Cookie recordCookie `json:"cookie"`
	identity
	AuthTime int64 `json:"authTime"`
}

type recordCookie struct {
	OriginalMaxAge int64  `json:"originalMaxAge"`
	Expires        string `json:"expires"`
	Secure         bool   `json:"secure"`
	HTTPOnly       bool   `json:"httpOnly"`
	Path           string `json:"path"`
	SameSite       string `json:"sameSite"`
}

func newRecord(u identity, now time.Time, life time.Duration) ([]byte, error) {
	return json.Marshal(record{
		recordCookie{
			OriginalMaxAge: life.Milliseconds(),
			Expires:        now.Add(life).UTC().Format("2006-01-02T15:04:05.000Z"),
			Secure:         true, HTTPOnly: true, Path: "/", SameSite: "strict",
		},
		u,
		now.Unix(),
	})
}

// store writes the sessions into Redis, as express-session and connect-redis
// do, some thousand at a time.
func (c *credentials) store(ctx context.Context, addr string, now time.Time) error {
	const batch = 5000
	rdb := redis.NewClient(&redis.Options{Addr: addr})
	defer func() { _ = rdb.Close() }()
	for start := 0; start < c.cookies.len(); start += batch {
		_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i := start; i < min(start+batch, c.cookies.len()); i++ {
				value, err := newRecord(user(i), now, sessionTTL)
				if err != nil {
					return err
				}
				p.Set(ctx, sessionPrefix+c.id(i), value, sessionTTL)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("store the sessions: %w", err)
		}
	}
	return nil
}

func (c *credentials) apiKeyHash() string {
	sum := sha256.Sum256([]byte(c.apiKey))
	return hex.EncodeToString(sum[:])
}
