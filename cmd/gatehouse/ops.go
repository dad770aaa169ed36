package main

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/gatehouse-auth/gatehouse/authz/session"
)

// readiness is what /readyz and gRPC health tell: not ready until the store
// has been reached once, and again from the moment that draining begins. A
// store that goes away later changes only the detail: replicas that are up
// must stay in rotation to answer 503.
type readiness struct {
	mu       sync.Mutex
	reached  bool
	draining bool
	storeErr error
	checked  time.Time
	changed  func(ready bool) // called with mu held, on each change
	cache    func() (_ session.CacheState, ok bool)
	silent   func() int // servers of the store that don't answer requests
	config   func() configDetail
	ready    bool
}

// store notes the outcome of a look at the store, and reports whether there was one:
// that too many ask, or that we had no time to, says nothing about it.
func (r *readiness) store(err error) (told bool) {
	if err != nil && !outOfReach(err) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.storeErr, r.checked = err, time.Now()
	r.reached = r.reached || err == nil
	r.update()
	return true
}

func (r *readiness) drain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.draining = true
	r.update()
}

func (r *readiness) update() {
	if ready := r.reached && !r.draining; ready != r.ready {
		r.ready = ready
		r.changed(ready)
	}
}

// readyDetail is the body of /readyz.
type readyDetail struct {
	Status string       `json:"status"` // ready, starting or draining
	Store  storeDetail  `json:"store"`
	Cache  cacheDetail  `json:"cache"`
	Config configDetail `json:"config"`
}

type storeDetail struct {
	State   string    `json:"state"` // up, down or unknown
	Error   string    `json:"error,omitempty"`
	Checked time.Time `json:"checked,omitzero"`
	// Silent is how many servers don't answer requests right now. The state is from
	// the last look at the store, which is a second ago at most.
	Silent int `json:"silent_servers,omitempty"`
}

type cacheDetail struct {
	State string `json:"state"` // off, unsupported, coherent or incoherent
	Error string `json:"error,omitempty"`
}

func (r *readiness) cacheDetail() cacheDetail {
	st, ok := r.cache()
	d := cacheDetail{State: "incoherent"}
	switch {
	case !ok:
		return cacheDetail{State: "off"}
	case st.Live:
		return cacheDetail{State: "coherent"}
	case st.Unsupported:
		d.State = "unsupported"
	}
	if st.Err != nil {
		d.Error = st.Err.Error()
	}
	return d
}

func (r *readiness) detail() (readyDetail, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := readyDetail{
		Status: "ready",
		Store:  storeDetail{State: "up", Checked: r.checked, Silent: r.silent()},
		Cache:  r.cacheDetail(),
		Config: r.config(),
	}
	switch {
	case r.checked.IsZero():
		d.Store.State = "unknown"
	case r.storeErr != nil:
		d.Store.State, d.Store.Error = "down", r.storeErr.Error()
	}
	switch {
	case r.draining:
		d.Status = "draining"
	case !r.reached:
		d.Status = "starting"
	default:
		return d, http.StatusOK
	}
	return d, http.StatusServiceUnavailable
}

// opsHandler serves metrics, health and the log level, and explains requests, to whoever operates the process; it is
// not meant to be reachable through Envoy.
func opsHandler(reg *prometheus.Registry, ready *readiness, explain, level http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{Registry: reg, EnableOpenMetrics: true}))
	mux.Handle("POST "+explainPath, explain)
	mux.Handle(levelPath, level)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "alive"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		detail, status := ready.detail()
		writeJSON(w, status, detail)
	})
	return mux
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		http.Error(w, `{"error":"Internal"}`, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // the client left: nothing to do
}
