package authapi

import (
	"context"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// This file has what administrators see of the gate at work: the last decisions, and how
// this replica is. Both are about the replica that answers, and about no other.

// Decisions are the last decisions of this replica. Its methods don't block.
type Decisions interface {
	// Listen has decisions kept that allow, too, until leave is called. ok is false
	// where too many listen already.
	Listen() (leave func(), ok bool)
	// Since returns what is kept of the decisions behind the one with this number, the
	// first one first; 0 for all of them.
	Since(number uint64) DecisionList
	// Done is closed when the replica shuts down: whoever listens has to leave.
	Done() <-chan struct{}
}

// DecisionList is a part of the decisions of a replica.
type DecisionList struct {
	Replica   string // which one; another one after each start
	Decisions []Decision
	LeftOut   uint64 // how many refusals were not kept, since there were too many at once
}

// Decision is a decision, as administrators see it. It holds no credential, and nothing
// of a query. Texts of the request are as they were sent.
type Decision struct {
	Number     uint64 // of those that were kept, counted from 1
	Time       time.Time
	Denied     bool
	Reason     authz.Reason
	WouldDeny  authz.Reason // by a policy that only observes; "" for none
	Detail     string       // of the refusal: the error in the log; "" for none
	Means, Do  string       // the refusal in plain words, and what to do about it
	Steps      []DecisionStep
	Policy     string
	Credential authz.Kind
	Method     string
	Host, Path string
	Status     int // that the client got; 0 where the service answers
	RequestID  string
	User       string
	Session    string // handle of the session or of the token login
	Degraded   authz.Outage
	Took       time.Duration
}

// DecisionStep is a step of a refusal, as far as it is known when it is over.
type DecisionStep struct {
	Stage   string `json:"stage"`
	Name    string `json:"name"`
	Outcome string `json:"outcome"`
	Detail  string `json:"detail"`
}

type decisionJSON struct {
	ID         string         `json:"id"`
	Time       moment         `json:"time"`
	Decision   string         `json:"decision"`
	Reason     string         `json:"reason"`
	WouldDeny  string         `json:"wouldDeny"`
	Means      string         `json:"means"`
	Do         string         `json:"do"`
	Detail     string         `json:"detail"`
	Steps      []DecisionStep `json:"steps"`
	Policy     string         `json:"policy"`
	Credential string         `json:"credential"`
	Method     string         `json:"method"`
	Host       string         `json:"host"`
	Path       string         `json:"path"`
	Status     int            `json:"status"`
	RequestID  string         `json:"requestId"`
	User       string         `json:"user"`
	Session    string         `json:"session"`
	Degraded   string         `json:"degraded"`
	Took       int64          `json:"tookMicroseconds"`
}

// eventID names a decision of a replica: what a client gives back as Last-Event-ID.
func eventID(replica string, number uint64) string {
	return replica + "-" + strconv.FormatUint(number, 10)
}

// numberOf is the number in an id, 0 for an id of another replica, and for what is none.
func numberOf(id, replica string) uint64 {
	digits, ok := strings.CutPrefix(id, replica+"-")
	if !ok {
		return 0
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func decisionOf(d *Decision, replica string) decisionJSON {
	j := decisionJSON{
		ID: eventID(replica, d.Number), Time: moment(d.Time), Decision: "allow", Reason: string(d.Reason), WouldDeny: string(d.WouldDeny),
		Means: d.Means, Do: d.Do, Detail: d.Detail, Steps: d.Steps, Policy: d.Policy, Credential: string(d.Credential),
		Method: d.Method, Host: d.Host, Path: d.Path, Status: d.Status, RequestID: d.RequestID, User: d.User, Session: d.Session,
		Degraded: string(d.Degraded), Took: d.Took.Microseconds(),
	}
	if d.Denied {
		j.Decision = "deny"
	}
	if j.Steps == nil {
		j.Steps = []DecisionStep{}
	}
	return j
}

// authenticateReader authenticates who may see what others do. A page of another site
// learns nothing by having a browser ask, but it could take the places of those who
// listen.
func (a *API) authenticateReader(ctx context.Context, c *call) error {
	p, err := a.authenticateAdmin(ctx, c)
	if err != nil || p.Kind != authz.KindSession {
		return err
	}
	r := *c.request
	r.Method = http.MethodPost // reading counts as changing here
	return a.o.TrustedOrigins.CrossSite(&r)
}

const (
	// streamTime bounds a stream: below the time after which gateways cut calls, and so
	// that whoever is no administrator any more is one for no longer. Clients come again,
	// and go on where they were.
	streamTime = 10 * time.Second
	// streamOften is how often a stream is looked after: nobody is waited for, and
	// nobody wakes it.
	streamOften = 200 * time.Millisecond
)

// decisions answers the last decisions: a list, or a stream to who asks for events.
func (a *API) decisions(ctx context.Context, c *call) (reply, error) {
	if err := a.authenticateReader(ctx, c); err != nil {
		return reply{}, err
	}
	if !accepts(c.header("accept"), eventStream) {
		list := a.o.Decisions.Since(0)
		all := make([]decisionJSON, len(list.Decisions))
		for i := range list.Decisions {
			all[i] = decisionOf(&list.Decisions[i], list.Replica)
		}
		return ok(struct {
			Replica   string         `json:"replica"`
			LeftOut   uint64         `json:"leftOut"`
			Decisions []decisionJSON `json:"decisions"`
		}{list.Replica, list.LeftOut, all}), nil
	}
	if c.r.Method == http.MethodHead {
		return streaming(nil), nil
	}
	leave, ok := a.o.Decisions.Listen()
	if !ok {
		return reply{}, authz.Refuse(authz.ReasonOverloaded, "too many listen to the decisions")
	}
	after := c.header("last-event-id")
	return streaming(func(ctx context.Context, to *events) {
		defer leave()
		ctx, cancel := context.WithTimeout(ctx, streamTime)
		defer cancel()
		a.streamDecisions(ctx, to, after)
	}), nil
}

// streamDecisions sends what is kept and what comes, until ctx ends or the client can't
// be written to.
func (a *API) streamDecisions(ctx context.Context, to *events, after string) {
	tick := time.NewTicker(streamOften)
	defer tick.Stop()
	list := a.o.Decisions.Since(math.MaxUint64) // none of them
	last := numberOf(after, list.Replica)
	leftOut := uint64(0)
	for first := true; ; first = false {
		var lines strings.Builder
		list = a.o.Decisions.Since(last)
		if first || list.LeftOut != leftOut {
			leftOut = list.LeftOut
			state := struct {
				Replica string `json:"replica"`
				LeftOut uint64 `json:"leftOut"`
			}{list.Replica, leftOut}
			lines.WriteString(eventLines("", "state", state))
		}
		for i := range list.Decisions {
			d := &list.Decisions[i]
			lines.WriteString(eventLines(eventID(list.Replica, d.Number), "decision", decisionOf(d, list.Replica)))
			last = d.Number
		}
		if !to.send(lines.String()) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-a.o.Decisions.Done():
			return
		case <-tick.C:
		}
	}
}

// accepts reports whether an Accept header names a media type.
func accepts(header, kind string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, _, _ := strings.Cut(part, ";")
		if strings.EqualFold(strings.TrimSpace(name), kind) {
			return true
		}
	}
	return false
}

// Moment is a time as the API tells it: null for the zero one.
type Moment = moment

// Status is how a replica is. Numbers count since its start, but for those of the cache
// and of the store, which begin again when a reload makes others.
type Status struct {
	Replica  ReplicaStatus  `json:"replica"`
	Config   ConfigStatus   `json:"config"`
	Policies []PolicyStatus `json:"policies"`
	Load     LoadStatus     `json:"load"`
	Cache    CacheStatus    `json:"cache"`
	Store    StoreStatus    `json:"store"`
	Issuers  []IssuerStatus `json:"issuers"`
}

// ReplicaStatus says which program it is.
type ReplicaStatus struct {
	Name     string  `json:"name"` // as in the decisions
	Host     string  `json:"host"`
	State    string  `json:"state"` // ready, starting or draining
	Version  string  `json:"version"`
	Revision string  `json:"revision"`
	Go       string  `json:"go"`
	Started  Moment  `json:"started"`
	Uptime   float64 `json:"uptimeSeconds"`
}

// ConfigStatus is that of the configuration.
type ConfigStatus struct {
	State          string   `json:"state"` // current or rejected
	Error          string   `json:"error"` // why it was rejected
	Generation     int      `json:"generation"`
	Loaded         Moment   `json:"loaded"`
	Hash           string   `json:"hash"`
	PendingRestart []string `json:"pendingRestart"`
}

// PolicyStatus counts the decisions under a policy; Name "" where none was chosen.
type PolicyStatus struct {
	Name     string            `json:"name"`
	Mode     string            `json:"mode"` // enforce or observe; "" where none was chosen
	Default  bool              `json:"default"`
	Allowed  uint64            `json:"allowed"`
	Denied   map[string]uint64 `json:"denied"`   // by reason
	Observed map[string]uint64 `json:"observed"` // what it would have denied, by reason
	Degraded map[string]uint64 `json:"degraded"` // allowed without the store, by leave of which mode
}

// LoadStatus is what is under way, and what was too much.
type LoadStatus struct {
	InFlight uint64            `json:"inFlight"`
	Shed     map[string]uint64 `json:"shed"` // by why
}

// CacheStatus is that of the cache.
type CacheStatus struct {
	State     string  `json:"state"` // off, unsupported, coherent or incoherent
	Error     string  `json:"error"`
	Entries   uint64  `json:"entries"`
	Bytes     uint64  `json:"bytes"`
	Hits      uint64  `json:"hits"`
	Misses    uint64  `json:"misses"` // those that waited for another one's question included
	Stale     uint64  `json:"stale"`
	HitRatio  float64 `json:"hitRatio"` // 0 before the first question
	Drops     uint64  `json:"drops"`
	Evictions uint64  `json:"evictions"`
	ProofAge  float64 `json:"proofAgeSeconds"`
}

// StoreStatus is that of the store, as this replica sees it.
type StoreStatus struct {
	State    string            `json:"state"` // up, down or unknown
	Error    string            `json:"error"`
	Checked  Moment            `json:"checked"` // when it was last looked at
	Silent   int               `json:"silentServers"`
	Waiting  uint64            `json:"waiting"`
	Outcomes map[string]uint64 `json:"outcomes"` // of commands
	Refused  map[string]uint64 `json:"refused"`  // questions that were not asked, by why
	Answered uint64            `json:"answered"` // commands that were timed
	Seconds  float64           `json:"seconds"`  // that these took
	P99      float64           `json:"p99Seconds"`
}

// IssuerStatus is that of an issuer whose keys are fetched.
type IssuerStatus struct {
	Issuer    string `json:"issuer"`
	Keys      int    `json:"keys"`
	LastFetch Moment `json:"lastFetch"`
	Failures  int    `json:"failures"` // since the last good fetch
	Error     string `json:"error"`
}

// status answers how this replica is.
func (a *API) status(ctx context.Context, c *call) (reply, error) {
	if err := a.authenticateReader(ctx, c); err != nil {
		return reply{}, err
	}
	return ok(a.o.Status(ctx)), nil
}
