package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// toxiproxy is a running toxiproxy-server, through whose proxies connections go
// that are to be broken.
type toxiproxy struct {
	*proc.Process
	api string // URL
}

// toxic is what is done to the data of all connections of a proxy, the open ones
// and those to come. The attributes are toxiproxy's: times in milliseconds, those
// of a slicer in microseconds.
type toxic struct {
	Name       string           `json:"name"` // one of each name in a proxy
	Type       string           `json:"type"`
	Stream     string           `json:"stream"` // upstream: to the server
	Attributes map[string]int64 `json:"attributes"`
}

const (
	upstream   = "upstream"
	downstream = "downstream"
)

// startToxiproxy runs a toxiproxy until the test ends.
func startToxiproxy(t *testing.T) *toxiproxy {
	t.Helper()
	port := proctest.FreePort(t)
	x := &toxiproxy{api: "http://" + proc.Local(port)}
	args := []string{"-host", "127.0.0.1", "-port", strconv.Itoa(port)}
	x.Process = proctest.Start(t, proctest.Need(t, "toxiproxy-server"), args, proc.Options{Env: []string{"LOG_LEVEL=fatal"}})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, x.Ready(ctx, proc.HTTP(x.api+"/version")))
	return x
}

// listen makes a proxy of that name for a server, and returns its address.
func (x *toxiproxy) listen(ctx context.Context, name, server string) (address string, err error) {
	port, err := proc.FreePort()
	if err != nil {
		return "", err
	}
	address = proc.Local(port)
	return address, x.call(ctx, http.MethodPost, "/proxies", map[string]any{
		"name": name, "listen": address, "upstream": server, "enabled": true,
	})
}

// add adds a toxic to a proxy.
func (x *toxiproxy) add(ctx context.Context, proxy string, poison toxic) error {
	return x.call(ctx, http.MethodPost, "/proxies/"+proxy+"/toxics", poison)
}

// remove takes it away.
func (x *toxiproxy) remove(ctx context.Context, proxy, name string) error {
	return x.call(ctx, http.MethodDelete, "/proxies/"+proxy+"/toxics/"+name, nil)
}

// enable opens a proxy, or closes it and all of its connections.
func (x *toxiproxy) enable(ctx context.Context, proxy string, open bool) error {
	return x.call(ctx, http.MethodPost, "/proxies/"+proxy, map[string]any{"enabled": open})
}

func (x *toxiproxy) call(ctx context.Context, method, path string, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, x.api+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	text, err = io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= 300 {
		return fmt.Errorf("toxiproxy answers %s with %s: %s", path, response.Status, text)
	}
	return nil
}
