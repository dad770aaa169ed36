package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
)

// A replica is the part of Gatehouse that hears of writes: a session.Store with
// its cache, in a process of its own. -scale starts some and tells them by HTTP
// what to do:
//
//	/listen   follow the announcements, from now on
//	/silent   don't, any more
//	/begin    note from now on how much was dropped when
//	/end      the notes
//	/state    how much was dropped
const replicaCommand = "replica"

// The paths of a replica.
const (
	pathListen = "/listen"
	pathSilent = "/silent"
	pathBegin  = "/begin"
	pathEnd    = "/end"
	pathState  = "/state"
)

// mark is a moment of the machine's clock, in Unix nanoseconds, and how many
// writes had been acknowledged then, or how many announcements worked off.
type mark struct {
	Count int64 `json:"n"`
	At    int64 `json:"t"`
}

// replicaState is what a replica says.
type replicaState struct {
	Dropped int64 `json:"dropped"` // announcements that were worked off
	Lost    int64 `json:"lost"`    // times that nothing in the cache counted any more
	// Asked are the lookups of one session that nobody writes, Answered those
	// of them that the cache answered.
	Asked    int64  `json:"asked"`
	Answered int64  `json:"answered"`
	Marks    []mark `json:"marks,omitempty"` // of /end
}

// replica is the state of the process.
type replica struct {
	store    *session.Store
	sessions int // in its cache, and one more for lookups

	mu     sync.Mutex
	silent func() error // nil: it doesn't listen
	warm   bool
	asking func() // ends the lookups

	recording       atomic.Bool
	notes           sync.Mutex
	marks           []mark
	asked, answered atomic.Int64
}

// runReplica serves until ctx is done. args are the command, where to listen,
// where Redis is, and how many sessions to have in the cache.
func runReplica(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) != 4 {
		return fmt.Errorf("usage: bench %s ADDRESS REDIS SESSIONS", replicaCommand)
	}
	sessions, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	r := &replica{sessions: sessions}
	client, err := r.connect(args[2])
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	r.store = session.New(client, session.Options{
		Profiles: true,
		Timeout:  replicaPatience,
		Cache:    &session.CacheOptions{MaxEntries: entriesFor(sessions), OmitRecords: true},
	})
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", args[1])
	if err != nil {
		return err
	}
	server := &http.Server{Handler: r.handler(ctx), ReadHeaderTimeout: replicaPatience}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if _, err := fmt.Fprintf(stdout, "%s%s\n", listeningOn, l.Addr()); err != nil {
		return err
	}
	err = server.Serve(l)
	r.mu.Lock()
	defer r.mu.Unlock()
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return errors.Join(err, r.hush())
}

// replicaPatience is how long a step may take: a machine that is full is slow,
// and that is to show as slow, not as an error.
const replicaPatience = 5 * time.Second

// connect opens a client as Gatehouse does, whose connections tell when their
// reader has worked off all that it had.
func (r *replica) connect(addr string) (*redis.Client, error) {
	opened, err := session.Open("redis://"+addr+"/0", session.OpenOptions{Timeout: replicaPatience})
	if err != nil {
		return nil, err
	}
	defer func() { _ = opened.Close() }()
	plain, ok := opened.(*redis.Client)
	if !ok {
		return nil, fmt.Errorf("the client of one server is a %T", opened)
	}
	o := *plain.Options()
	dial := o.Dialer
	o.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return noticing{c, r.note}, nil
	}
	return redis.NewClient(&o), nil
}

// noticing is a connection that tells when its owner is about to wait until
// there is something to read. The reader of the announcements does so when it
// has worked off all that it has read.
type noticing struct {
	net.Conn
	waits func()
}

func (c noticing) SyscallConn() (syscall.RawConn, error) {
	s, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	raw, err := s.SyscallConn()
	return noticingRaw{raw, c.waits}, err
}

type noticingRaw struct {
	syscall.RawConn
	waits func()
}

func (c noticingRaw) Read(f func(fd uintptr) bool) error {
	c.waits()
	return c.RawConn.Read(f)
}

// note notes how much was dropped by now.
func (r *replica) note() {
	if !r.recording.Load() {
		return
	}
	m := mark{Count: r.store.CacheStats().Invalidations, At: time.Now().UnixNano()}
	r.notes.Lock()
	defer r.notes.Unlock()
	if n := len(r.marks); n == 0 || r.marks[n-1].Count < m.Count {
		r.marks = append(r.marks, m)
	}
}

func (r *replica) handler(ctx context.Context) http.Handler {
	mux := http.NewServeMux()
	for path, do := range map[string]func() error{
		pathListen: func() error { return r.listen(ctx) },
		pathSilent: r.hush,
		pathBegin:  func() error { r.begin(ctx); return nil },
		pathEnd:    func() error { r.end(); return nil },
		pathState:  func() error { return nil },
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if err := do(); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			_ = json.NewEncoder(w).Encode(r.state(path == pathEnd)) // the one who asks notices
		})
	}
	return mux
}

func (r *replica) state(withMarks bool) replicaState {
	stats := r.store.CacheStats()
	s := replicaState{Dropped: stats.Invalidations, Lost: stats.Drops, Asked: r.asked.Load(), Answered: r.answered.Load()}
	if withMarks {
		r.notes.Lock()
		defer r.notes.Unlock()
		s.Marks = r.marks
	}
	return s
}

// listen follows the announcements and returns when they can be relied on. The
// first time it reads all sessions, so that announcements are about entries
// that are there.
func (r *replica) listen(ctx context.Context) error {
	if r.silent != nil {
		return nil
	}
	own, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- r.store.Run(own) }()
	r.silent = func() error {
		cancel()
		return <-done
	}
	if err := awaitLive(ctx, r.store); err != nil {
		return errors.Join(err, r.hush())
	}
	for i := range r.sessions {
		if r.warm {
			break
		}
		if _, err := r.store.Session(ctx, scaleID(i), authz.ReadOptions{Passive: true}); err != nil {
			return fmt.Errorf("fill the cache: %w", err)
		}
	}
	r.warm = true
	if _, err := r.store.Session(ctx, scaleID(r.sessions), authz.ReadOptions{}); err != nil {
		return fmt.Errorf("read the session that is looked up: %w", err)
	}
	return nil
}

func (r *replica) hush() error {
	if r.silent == nil {
		return nil
	}
	err := r.silent()
	r.silent = nil
	return err
}

// begin begins to note, and to look a session up that nobody writes: a
// hundred times a second, so that it costs next to nothing.
func (r *replica) begin(ctx context.Context) {
	r.end()
	r.notes.Lock()
	r.marks = nil
	r.notes.Unlock()
	r.asked.Store(0)
	r.answered.Store(0)
	r.recording.Store(true)
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() { r.ask(ctx) })
	r.asking = func() { cancel(); done.Wait() }
}

func (r *replica) end() {
	r.recording.Store(false)
	if r.asking != nil {
		r.asking()
		r.asking = nil
	}
}

func (r *replica) ask(ctx context.Context) {
	const every = 10 * time.Millisecond
	id := scaleID(r.sessions)
	var m authz.Memory
	for pause(ctx, every) {
		r.asked.Add(1)
		if _, ok := r.store.CachedSession(id, authz.ReadOptions{}, &m); ok {
			r.answered.Add(1)
			continue
		}
		// As a gate would. What goes wrong shows as a question more.
		_, _ = r.store.Session(ctx, id, authz.ReadOptions{})
	}
}

// scaleID is the id of a session that -scale writes, as long as those of
// express-session.
func scaleID(i int) string {
	const before = "scale-"
	digits := strconv.Itoa(i)
	return before + strings.Repeat("0", idLen-len(before)-len(digits)) + digits
}
