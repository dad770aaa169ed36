// Package orderservice is the second of the two demo services behind the
// gate: the orders of the caller's organization. It also shows the
// service-to-service case: the names of the buyers come from user-service,
// which it asks directly, not through the gate, with the internal key.
//
//	handler := orderservice.New(orderservice.Options{
//		UserService: &url.URL{Scheme: "http", Host: "127.0.0.1:8101"},
//		InternalKey: orderservice.Secret(key),
//	})
//	http.ListenAndServe("127.0.0.1:8102", handler)
//
// Every answer but an error and /healthz has a member "user": the caller as
// the service read it from the headers. The services' README lists the
// routes.
//
// It is a demonstration: its data is made up and in memory, and /orders/echo
// tells the caller what arrived, which a service of your own should not.
package orderservice

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/gatehouse-auth/gatehouse/services/internal/upstream"
	"github.com/gatehouse-auth/gatehouse/services/usercontext"
)

// Name is what the service calls itself in its answers.
const Name = "order-service"

// Secret is a string that fmt and log/slog, by whichever verb, and
// encoding/json print as a placeholder.
type Secret string

const placeholder = "[secret]"

// Format implements [fmt.Formatter].
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, placeholder) }

// LogValue implements [slog.LogValuer].
func (Secret) LogValue() slog.Value { return slog.StringValue(placeholder) }

// MarshalText implements [encoding.TextMarshaler].
func (Secret) MarshalText() ([]byte, error) { return []byte(placeholder), nil }

// Options configure the service.
type Options struct {
	// UserService is where user-service listens, as it is reached directly.
	// nil is nowhere: what needs it is then answered 502.
	UserService *url.URL
	// InternalKey is the raw key that is shown to user-service.
	InternalKey Secret
	// Client makes the calls to user-service. nil means one with a timeout of
	// two seconds that uses no proxy. Redirects are not followed in any case:
	// the key is for user-service alone.
	Client *http.Client
	// Log gets a line for each call to user-service that failed, and for each
	// request with malformed identity headers; nil discards.
	Log *slog.Logger
}

// order is an order as it is answered.
type order struct {
	ID             string `json:"id"`
	OrganizationID string `json:"organizationId"`
	Buyer          buyer  `json:"buyer"`
	Item           string `json:"item"`
	Quantity       int    `json:"quantity"`
	TotalCents     int    `json:"totalCents"` // of Currency
	Currency       string `json:"currency"`   // ISO 4217
	PlacedOn       string `json:"placedOn"`   // a date
}

// buyer is who placed an order.
type buyer struct {
	ID string `json:"id"`
	// DisplayName is what user-service calls the buyer; absent when it
	// doesn't know the id.
	DisplayName string `json:"displayName,omitempty"`
}

var orders = []order{
	{"ord-1001", "org-1", buyer{ID: "alice"}, "Oak desk", 2, 119800, "EUR", "2026-09-03"},
	{"ord-1002", "org-1", buyer{ID: "bob"}, "Desk lamp", 12, 47880, "EUR", "2026-09-17"},
	{"ord-1003", "org-1", buyer{ID: "alice"}, "Whiteboard", 1, 18900, "EUR", "2026-10-02"},
	{"ord-2001", "org-2", buyer{ID: "bob"}, "Coffee beans, 1 kg", 40, 75600, "EUR", "2026-09-21"},
	{"ord-2002", "org-2", buyer{ID: "alice"}, "Espresso machine", 1, 164900, "EUR", "2026-10-11"},
}

// New returns the service. It starts nothing.
func New(o Options) http.Handler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &service{users: newUserClient(o), log: o.Log}
	reader := upstream.Reader(o.Log)

	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", upstream.Health)
	mux.Handle("GET /orders", reader.Require(http.HandlerFunc(s.list)))
	mux.Handle("GET /orders/{id}", reader.Require(http.HandlerFunc(s.one)))
	routes := upstream.JSONErrors(mux)

	echo := upstream.Echo(Name)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Beside the mux, because it takes every method and every path, those
		// that the mux would redirect included.
		if upstream.Under(r, "/orders/echo") {
			echo.ServeHTTP(w, r)
			return
		}
		routes.ServeHTTP(w, r)
	})
}

type service struct {
	users *userClient
	log   *slog.Logger
}

func (s *service) list(w http.ResponseWriter, r *http.Request) {
	user := upstream.Context(r.Context())
	found, err := s.withNames(r.Context(), ordersOf(user.OrganizationID))
	if err != nil {
		s.badGateway(w, r, err)
		return
	}
	upstream.WriteJSON(w, struct {
		Service string            `json:"service"`
		User    *usercontext.User `json:"user"`
		Orders  []order           `json:"orders"`
	}{Name, user, found})
}

// one answers another organization's order as it answers one that doesn't
// exist, so that nobody learns which ids are taken.
func (s *service) one(w http.ResponseWriter, r *http.Request) {
	user := upstream.Context(r.Context())
	found := slices.DeleteFunc(ordersOf(user.OrganizationID), func(o order) bool { return o.ID != r.PathValue("id") })
	if len(found) == 0 {
		usercontext.WriteError(w, http.StatusNotFound, "Not found")
		return
	}
	found, err := s.withNames(r.Context(), found)
	if err != nil {
		s.badGateway(w, r, err)
		return
	}
	upstream.WriteJSON(w, struct {
		Service string            `json:"service"`
		User    *usercontext.User `json:"user"`
		Order   order             `json:"order"`
	}{Name, user, found[0]})
}

// ordersOf returns copies of an organization's orders; none, not nil, for a
// user who is in no organization.
func ordersOf(organization string) []order {
	found := []order{}
	for _, o := range orders {
		if organization != "" && o.OrganizationID == organization {
			found = append(found, o)
		}
	}
	return found
}

// withNames fills in the buyers' names, asking once for each buyer.
func (s *service) withNames(ctx context.Context, orders []order) ([]order, error) {
	names := map[string]string{}
	for i := range orders {
		id := orders[i].Buyer.ID
		if _, known := names[id]; !known {
			name, err := s.users.displayName(ctx, id)
			if err != nil {
				return nil, err
			}
			names[id] = name
		}
		orders[i].Buyer.DisplayName = names[id]
	}
	return orders, nil
}

// badGateway tells the log what the caller has no use for: a wrong internal
// key is this service's trouble, not a 403 for the user.
func (s *service) badGateway(w http.ResponseWriter, r *http.Request, err error) {
	s.log.LogAttrs(r.Context(), slog.LevelError, "call to user-service failed", slog.String("cause", err.Error()))
	usercontext.WriteError(w, http.StatusBadGateway, "Bad gateway")
}

// userClient asks user-service.
type userClient struct {
	base *url.URL
	key  Secret
	http http.Client
}

func newUserClient(o Options) *userClient {
	c := &userClient{base: o.UserService, key: o.InternalKey}
	if o.Client != nil {
		c.http = *o.Client
	} else {
		c.http = http.Client{
			Timeout: 2 * time.Second,
			// No Proxy: the key must not travel through one that the
			// environment happens to name. The idle time is below that of any
			// server, so that no call meets a connection being closed.
			Transport: &http.Transport{MaxIdleConnsPerHost: 16, IdleConnTimeout: 30 * time.Second},
		}
	}
	// On a redirect net/http would send the key along, wherever it leads.
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

const maxAnswer = 64 << 10

// displayName returns a user's display name, "" for a user that user-service
// doesn't know. Errors never hold the key.
func (c *userClient) displayName(ctx context.Context, id string) (string, error) {
	if c.base == nil {
		return "", errors.New("the address of user-service is not configured")
	}
	endpoint := c.base.JoinPath("users", "internal", url.PathEscape(id))
	target := endpoint.Redacted()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint.String(), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set(usercontext.HeaderInternalKey, string(c.key))
	res, err := c.http.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return "", nil
	case http.StatusForbidden:
		return "", fmt.Errorf("%s answered 403: it doesn't accept the internal key of this service", target)
	default:
		return "", fmt.Errorf("%s answered %d", target, res.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return "", fmt.Errorf("%s: read the answer: %w", target, err)
	}
	var answer struct {
		ID          string `json:"id"`
		DisplayName string `json:"displayName"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", fmt.Errorf("%s: read the answer: %w", target, err)
	}
	if answer.ID != id {
		return "", fmt.Errorf("%s answered for another user", target)
	}
	return answer.DisplayName, nil
}
