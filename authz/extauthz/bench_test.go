package extauthz_test

import (
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"
)

// BenchmarkCheck measures the door and the decision core: no network, no
// Redis, no signature. The headers are those of a browser behind Envoy.
func BenchmarkCheck(b *testing.B) {
	browser := []string{
		"accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "accept-encoding", "gzip, deflate, br", "accept-language", "de-DE,de;q=0.9,en;q=0.8",
		"sec-fetch-dest", "empty", "sec-fetch-mode", "cors", "sec-fetch-site", "same-origin", "user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
		"x-forwarded-for", "192.0.2.7", "x-forwarded-proto", "https", "x-request-id", "00000000-0000-4000-8000-000000000000",
	}
	server := newServer(b)
	for _, bm := range []struct {
		name  string
		check check
		allow bool
	}{
		{"session", get("/orders/7?page=2", append(browser, "cookie", "theme=dark; sessionId=signed.alice; lang=de")...), true},
		{"bearer", get("/orders/7?page=2", append(browser, "authorization", "Bearer token-of-alice")...), true},
		{"api_key", get("/internal/orders", "x-internal-api-key", apiKey), true},
		{"anonymous", get("/public/logo.svg", browser...), true},
		{"no_credential", get("/orders/7?page=2", browser...), false},
		{"forged", get("/orders/7?page=2", append(browser, "cookie", "theme=dark; sessionId=forged; lang=de")...), false},
	} {
		for form, req := range map[string]*authv3.CheckRequest{"map": bm.check.asMap(), "list": bm.check.asList()} {
			b.Run(bm.name+"/"+form, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					response, err := server.Check(b.Context(), req)
					if err != nil || (response.GetStatus().GetCode() == int32(codes.OK)) != bm.allow {
						b.Fatal(response, err)
					}
				}
			})
		}
	}
}
