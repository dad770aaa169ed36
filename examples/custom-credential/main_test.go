package main

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/gatehouse-auth/gatehouse/authz"
)

const backupKey = "the key of the backup service, long enough"

var noon = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

func testLinks() *SignedURLs {
	return &SignedURLs{Key: []byte("a key for links in tests, long enough"), Now: func() time.Time { return noon }}
}

// gate serves as main does, and returns what asks it.
func gate(t *testing.T) func(method, target string, headers map[string]string) *authv3.CheckResponse {
	t.Helper()
	server, err := newServer(testLinks(), backupKey)
	require.NoError(t, err)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	client := authv3.NewAuthorizationClient(conn)
	return func(method, target string, headers map[string]string) *authv3.CheckResponse {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		response, err := client.Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
			Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
				Method: method, Host: "files.example.com", Path: target, Headers: headers,
			}},
		}})
		require.NoError(t, err)
		return response
	}
}

// outcome is the user, or the status and the reason of a refusal.
func outcome(response *authv3.CheckResponse) string {
	if denied := response.GetDeniedResponse(); denied != nil {
		return denied.GetStatus().GetCode().String() + " " + response.GetDynamicMetadata().GetFields()["reason"].GetStringValue()
	}
	for _, h := range response.GetOkResponse().GetHeaders() {
		if h.GetHeader().GetKey() == "x-user-id" {
			return h.GetHeader().GetValue()
		}
	}
	return "nobody"
}

func TestSignedURLs(t *testing.T) {
	ask := gate(t)
	links := testLinks()
	link := links.Sign("/files/report.pdf?page=2", "mia", noon.Add(time.Minute))
	key := map[string]string{authz.HeaderAPIKey: backupKey}
	other := &SignedURLs{Key: []byte("somebody else's key, long enough as well"), Now: links.Now}
	for _, tt := range []struct {
		name, method, target string
		headers              map[string]string
		want                 string
	}{
		{"as it was given", "GET", link, nil, "mia"},
		{"to look whether it is there", "HEAD", link, nil, "mia"},
		{"to change the file", "DELETE", link, nil, "Unauthorized no_credential"}, // the policy of other methods takes API keys only
		{"for another file", "GET", strings.Replace(link, "report", "salaries", 1), nil, "Unauthorized credential_invalid"},
		{"for another user", "GET", strings.Replace(link, "u=mia", "u=tom", 1), nil, "Unauthorized credential_invalid"},
		{"for longer", "GET", strings.Replace(link, "&e=1", "&e=2", 1), nil, "Unauthorized credential_invalid"},
		{"with something behind it", "GET", link + "&u=tom", nil, "Unauthorized credential_invalid"},
		{"signed by somebody else", "GET", other.Sign("/files/report.pdf", "mia", noon.Add(time.Minute)), nil, "Unauthorized credential_invalid"},
		{"too late", "GET", links.Sign("/files/report.pdf", "mia", noon), nil, "Unauthorized credential_invalid"},
		{"a target with our parameters", "GET", links.Sign("/files/a?u=tom&e=9999999999", "mia", noon.Add(time.Minute)), nil, "mia"},
		{"as an internal caller", "GET", links.Sign("/files/a", authz.ServicePrefix+"billing", noon.Add(time.Minute)), nil, "Unauthorized credential_invalid"},
		{"of nobody", "GET", links.Sign("/files/a", "", noon.Add(time.Minute)), nil, "ServiceUnavailable internal"},
		{"beside a key: the first kind decides", "GET", link + "x", key, "Unauthorized credential_invalid"},
		{"a key alone", "GET", "/files/report.pdf", key, "service:backup"},
		{"nothing", "GET", "/files/report.pdf", nil, "Unauthorized no_credential"},
	} {
		require.Equal(t, tt.want, outcome(ask(tt.method, tt.target, tt.headers)), tt.name)
	}
}
