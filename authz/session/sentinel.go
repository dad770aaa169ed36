package session

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// The client of a master that Sentinels name.
//
// go-redis has such a client, too, but it believes the first Sentinel that answers,
// keeps the password of Sentinels for good, and can be left with a connection to the
// old master: one that was being opened while the others were closed. An old master
// that was only frozen, or cut off from its Sentinels, goes on answering, and what it
// answers is from before the failover: revoked sessions live there. So
//
//   - each connection is opened at the master that the Sentinels name at that moment,
//     all of those that can be reached: the newest configuration counts;
//   - when another master is named, all connections to other servers are closed, and
//     one that was being opened is thrown away;
//   - [Store.Run] asks anew with each heartbeat, and when a Sentinel announces a
//     change: that bounds how long an old master can be heard, idle connections and
//     lost announcements notwithstanding.
//
// What is left is a network that is split with Gatehouse, the old master and less than
// half of the Sentinels on one side, from before the failover: there nobody knows of it.
// So nothing is sent to a master but on the word of more than half of the Sentinels that
// it is the one, which is not older than wordBound. Two such majorities have a Sentinel
// in common, and one that has named the successor does not name the old one again. So
// when one Gatehouse acknowledges something that it wrote to the successor, no other
// one gets another word for the old master from then on, and its last one runs out.

const (
	// wordBound is how long a word of the Sentinels counts, from when they were
	// asked.
	wordBound = 2 * time.Second
	// wordFresh is when they are asked anew, beside the call that needs it.
	wordFresh = 500 * time.Millisecond
)

// word is what more than half of the Sentinels say.
type word struct {
	master string // address
	at     time.Time
}

// sentinelClient is a client of the master.
type sentinelClient struct {
	*redis.Client
	masters *masters
}

// masters knows who the master is, and has all connections to it.
type masters struct {
	name   string
	server func(ctx context.Context, network, address string) (net.Conn, error)
	client func(address string) *redis.Client // of a Sentinel
	word   atomic.Pointer[word]

	mu        sync.Mutex
	sentinels map[string]*sentinel // by address
	named     []string             // those that the URL names
	asking    *inquiry             // that is under way
	master    string               // address; "" before the first answer
	epoch     int64                // of the configuration that named it
	asked     time.Time            // when it was named last
	placed    map[*placed]struct{}
	closed    bool
}

// sentinel is one of them.
type sentinel struct {
	*redis.Client
	silent bool // didn't answer last time: not waited for, where another one answers
}

// inquiry is a question to all Sentinels that others wait for.
type inquiry struct {
	done    chan struct{}
	address string
	err     error
}

// openSentinel returns a client with these options, which are those of a server.
func openSentinel(u storeURL, o OpenOptions, options *redis.UniversalOptions) *sentinelClient {
	timeout := options.ReadTimeout
	m := &masters{
		name: u.master, named: u.hosts, placed: map[*placed]struct{}{}, sentinels: map[string]*sentinel{},
		server: redis.NewDialer(&redis.Options{DialTimeout: options.DialTimeout, TLSConfig: options.TLSConfig}),
		client: func(address string) *redis.Client {
			return redis.NewClient(&redis.Options{
				Addr: address, ClientName: options.ClientName, Protocol: options.Protocol, TLSConfig: options.TLSConfig,
				CredentialsProvider:   credentials(o.SentinelUsername, o.SentinelPassword, o.CurrentSentinelPassword),
				ContextTimeoutEnabled: true, ReadTimeout: timeout, WriteTimeout: timeout,
				DialTimeout: options.DialTimeout, DialerRetries: 1, MaxRetries: 1, PoolSize: 2, PipelinePoolSize: -1,
				DisableIdentity: options.DisableIdentity, MaintNotificationsConfig: options.MaintNotificationsConfig,
			})
		},
	}
	for _, address := range u.hosts {
		m.sentinels[address] = &sentinel{Client: m.client(address)}
	}
	plain := options.Simple()
	plain.Addr = "master " + m.name + " of the Sentinels" // for messages: it is never dialled
	plain.TLSConfig = nil                                 // ours
	plain.Dialer = m.dial
	return &sentinelClient{Client: redis.NewClient(plain), masters: m}
}

// Inner returns the client of the master alone, for those who look into it.
func (c *sentinelClient) Inner() *redis.Client { return c.Client }

// Close closes the client and its connections to the Sentinels.
func (c *sentinelClient) Close() error {
	return errors.Join(c.Client.Close(), c.masters.close())
}

func (m *masters) close() error {
	m.mu.Lock()
	m.closed = true
	all := m.sentinels
	m.sentinels = nil
	m.mu.Unlock()
	var errs []error
	for _, s := range all {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// dial opens a connection to the master.
func (m *masters) dial(ctx context.Context, network, _ string) (conn net.Conn, err error) {
	for range 3 { // it rarely moves once
		var address string
		if address, err = m.locate(ctx); err != nil {
			return nil, err
		}
		if conn, err = m.server(ctx, network, address); err != nil {
			return nil, err
		}
		if conn, err = m.place(conn, address); !errors.Is(err, errMoved) {
			break
		}
	}
	return conn, err
}

// place keeps a connection, to be closed when another server is the master. That
// may be so already: opening it took its time.
func (m *masters) place(conn net.Conn, address string) (net.Conn, error) {
	p := &placed{Conn: conn, masters: m, address: address}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || address != m.master {
		return nil, errors.Join(errMoved, conn.Close())
	}
	m.placed[p] = struct{}{}
	if raw, ok := conn.(syscall.Conn); ok {
		return rawPlaced{p, raw}, nil
	}
	return p, nil
}

var errMoved = errors.New("another server has become the master meanwhile")

// placed is a connection to a server that was the master when it was opened.
type placed struct {
	net.Conn
	masters  *masters
	address  string
	deadline atomic.Pointer[time.Time] // of writes
}

// Close closes the connection.
func (p *placed) Close() error {
	p.masters.mu.Lock()
	delete(p.masters.placed, p)
	p.masters.mu.Unlock()
	return p.Conn.Close()
}

// poll counts who names which master.
type poll struct {
	at    time.Time                  // of the question
	all   int                        // Sentinels that there are, by what they say
	votes map[string]map[string]bool // by master: the ids of those who name it
	ids   map[string]string          // of those who answered, by address
}

// agrees adds an answer, and reports whether more than half name that master. It takes
// it for the word of the Sentinels then. Half is of those that there are, or of those
// that the URL names, whichever are more: one that begins anew knows no others.
func (m *masters) agrees(p *poll, address string, n naming) bool {
	id := cmp.Or(n.id, address)
	p.ids[address] = id
	p.all = max(p.all, n.all)
	if p.votes[n.master] == nil {
		p.votes[n.master] = map[string]bool{}
	}
	p.votes[n.master][id] = true
	named := map[string]bool{} // one may be named twice
	for _, address := range m.named {
		named[cmp.Or(p.ids[address], address)] = true
	}
	if 2*len(p.votes[n.master]) <= max(p.all, len(named)) {
		return false
	}
	m.word.Store(&word{n.master, p.at})
	return true
}

// vouched reports whether there is a word for an address that counts.
func (m *masters) vouched(address string) bool {
	w := m.word.Load()
	if w == nil || w.master != address {
		return false
	}
	age := time.Since(w.at)
	if age >= wordFresh && age < wordBound {
		m.ask(context.Background())
	}
	return age < wordBound
}

// Write sends nothing without a word of the Sentinels.
func (p *placed) Write(b []byte) (int, error) {
	if !p.masters.vouched(p.address) {
		if err := p.askLeave(); err != nil {
			return 0, errors.Join(err, p.Close())
		}
	}
	return p.Conn.Write(b)
}

func (p *placed) askLeave() error {
	ctx := context.Background()
	if deadline := p.deadline.Load(); deadline != nil && !deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, *deadline)
		defer cancel()
	}
	for range 2 { // the first question may be an old one
		address, err := p.masters.locate(ctx)
		switch {
		case p.masters.vouched(p.address):
			return nil
		case err != nil:
			return fmt.Errorf("is %s still the master? %w", p.address, err)
		case address != p.address:
			// For the client that is a connection which has ended: it tries again.
			return fmt.Errorf("%w: %w", errMoved, io.EOF)
		}
	}
	return fmt.Errorf("is %s still the master? Not more than half of the Sentinels say so: of those that there are, and of those that the URL names", p.address)
}

// SetWriteDeadline implements [net.Conn].
func (p *placed) SetWriteDeadline(t time.Time) error {
	p.deadline.Store(&t)
	return p.Conn.SetWriteDeadline(t)
}

// SetDeadline implements [net.Conn].
func (p *placed) SetDeadline(t time.Time) error {
	p.deadline.Store(&t)
	return p.Conn.SetDeadline(t)
}

// cut closes it at once: TLS would say goodbye first, to whom may be frozen.
func (p *placed) cut() {
	if c, ok := p.Conn.(*tls.Conn); ok {
		_ = c.NetConn().Close()
	}
	_ = p.Close()
}

// rawPlaced is one whose socket can be looked into.
type rawPlaced struct {
	*placed
	syscall.Conn
}

// afterAgreement is how long others are waited for when more than half agree: they may
// know of a newer configuration.
const afterAgreement = 50 * time.Millisecond

// inquiryTime bounds a question to all Sentinels, whoever waits for it.
const inquiryTime = 3 * time.Second

// locate asks the Sentinels who the master is, once for all who ask at the same
// moment.
func (m *masters) locate(ctx context.Context) (address string, err error) {
	q := m.ask(ctx)
	select {
	case <-q.done:
		return q.address, q.err
	case <-ctx.Done():
		return "", fmt.Errorf("ask the Sentinels: %w", ctx.Err())
	}
}

// ask has all Sentinels asked, unless that is under way. The question outlives the
// call that needed it first.
func (m *masters) ask(ctx context.Context) *inquiry {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.asking == nil {
		m.asking = &inquiry{done: make(chan struct{})}
		go m.inquire(context.WithoutCancel(ctx), m.asking)
	}
	return m.asking
}

func (m *masters) inquire(ctx context.Context, q *inquiry) {
	ctx, cancel := context.WithTimeout(ctx, inquiryTime)
	defer cancel()
	defer close(q.done)
	q.err = errors.New("the question to the Sentinels was stopped") // should it panic
	answer, err := m.askAll(ctx)
	if err == nil {
		err = m.believe(answer)
	}
	if err == nil && !answer.agreed && m.knowsMoreThan(answer.of) { // the URL names a few of them
		if answer, err = m.askAll(ctx); err == nil {
			err = m.believe(answer)
		}
	}
	m.mu.Lock()
	m.asking = nil
	m.mu.Unlock()
	q.address, q.err = answer.master, err
}

// naming is what Sentinels say of the set.
type naming struct {
	master  string
	epoch   int64           // of the configuration; a failover counts it up
	others  []string        // addresses of other Sentinels
	all     int             // Sentinels, by what this one knows
	id      string          // of the Sentinel
	because map[string]bool // the ids of all who answered
	of      int             // who were asked
	agreed  bool            // more than half named one and the same
}

// knowsMoreThan reports whether there are more Sentinels to ask.
func (m *masters) knowsMoreThan(n int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.sentinels) > n
}

// askAll asks all Sentinels at once, waits for those that answered last time, and for
// the others until more than half agree, and returns the newest of the answers.
func (m *masters) askAll(ctx context.Context) (newest naming, err error) {
	m.mu.Lock()
	all := make(map[string]*sentinel, len(m.sentinels))
	awaited := 0
	silent := map[string]bool{}
	for address, s := range m.sentinels {
		all[address] = s
		silent[address] = s.silent
		if !s.silent {
			awaited++
		}
	}
	m.mu.Unlock()
	type reply struct {
		address string
		naming
		err error
	}
	replies := make(chan reply, len(all))
	at := time.Now()
	for address, s := range all {
		go func() {
			n, err := s.ask(ctx, m.name)
			m.mu.Lock()
			s.silent = err != nil
			m.mu.Unlock()
			replies <- reply{address, n, err}
		}()
	}
	ids := map[string]bool{}
	var others []string // all of which anybody knows; nobody names itself
	p := &poll{at: at, votes: map[string]map[string]bool{}, ids: map[string]string{}}
	agreed := false
	var errs []error
	var enough <-chan time.Time
	for got := 0; got < len(all); got++ {
		var r reply
		select {
		case r = <-replies: // each has its own timeouts
		case <-enough:
			got = len(all)
			continue
		}
		if !silent[r.address] {
			awaited--
		}
		if r.err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.address, r.err))
		} else {
			ids[cmp.Or(r.id, r.address)] = true
			others = append(append(others, r.address), r.others...)
			agreed = m.agrees(p, r.address, r.naming) || agreed
			if len(ids) == 1 || r.epoch > newest.epoch {
				newest = r.naming
			}
		}
		if agreed && awaited == 0 {
			break
		}
		if agreed && enough == nil {
			enough = time.After(afterAgreement)
		}
	}
	if len(ids) == 0 {
		return newest, fmt.Errorf("no Sentinel names the master: %w", errors.Join(errs...))
	}
	newest.others, newest.because, newest.of, newest.agreed = others, ids, len(all), agreed
	return newest, nil
}

// ask asks one Sentinel.
func (s *sentinel) ask(ctx context.Context, name string) (n naming, err error) {
	pipe := s.Pipeline()
	address := pipe.Do(ctx, "sentinel", "get-master-addr-by-name", name) // the new one a moment earlier than "master"
	facts := pipe.Do(ctx, "sentinel", "master", name)
	others := pipe.Do(ctx, "sentinel", "sentinels", name)
	id := pipe.Do(ctx, "sentinel", "myid") // since Redis 6.2
	_, _ = pipe.Exec(ctx)
	where, err := address.StringSlice()
	if errors.Is(err, redis.Nil) {
		return n, fmt.Errorf("knows no master %q: correct its name in the URL, which is that of 'sentinel monitor'", name)
	}
	if err != nil {
		return n, err
	}
	if len(where) != 2 {
		return n, errors.New("gives no address of the master")
	}
	n.master = net.JoinHostPort(where[0], where[1])
	n.id, _ = id.Text()
	about, err := pairs(facts.Val()), facts.Err()
	if err != nil {
		return n, err
	}
	n.epoch, _ = strconv.ParseInt(about["config-epoch"], 10, 64)
	more, _ := strconv.Atoi(about["num-other-sentinels"])
	n.all = 1 + more
	list, _ := others.Slice()
	for _, other := range list {
		if o := pairs(other); o["ip"] != "" && o["port"] != "" {
			n.others = append(n.others, net.JoinHostPort(o["ip"], o["port"]))
		}
	}
	return n, nil
}

// pairs makes a map of a reply of names and values.
func pairs(reply any) map[string]string {
	list, _ := reply.([]any)
	m := make(map[string]string, len(list)/2)
	for i := 0; i+1 < len(list); i += 2 {
		m[fmt.Sprint(list[i])] = fmt.Sprint(list[i+1])
	}
	return m
}

// believe takes an answer for true: it closes the connections to other servers, and
// learns of other Sentinels. An older configuration than one that was seen before is
// believed to more than half of the Sentinels only, which have been set up anew then.
func (m *masters) believe(n naming) error {
	m.mu.Lock()
	if n.epoch < m.epoch && 2*len(n.because) <= n.all {
		m.mu.Unlock()
		return errors.New("the Sentinels in reach know of an older configuration only than was seen before")
	}
	m.master, m.epoch, m.asked = n.master, n.epoch, time.Now()
	var astray []*placed
	for p := range m.placed {
		if p.address != n.master {
			astray = append(astray, p)
		}
	}
	gone := m.meet(n.others)
	m.mu.Unlock()
	for _, p := range astray {
		p.cut()
	}
	for _, s := range gone {
		_ = s.Close()
	}
	return nil
}

// meet adds the Sentinels that a Sentinel knows, and returns those that neither it nor
// the URL names any more.
func (m *masters) meet(others []string) (gone []*sentinel) {
	if m.closed {
		return nil
	}
	stays := map[string]bool{}
	for _, address := range append(others, m.named...) {
		stays[address] = true
		if m.sentinels[address] == nil {
			m.sentinels[address] = &sentinel{Client: m.client(address), silent: true} // until it has answered
		}
	}
	for address, s := range m.sentinels {
		if !stays[address] {
			delete(m.sentinels, address)
			gone = append(gone, s)
		}
	}
	return gone
}

// watch sees to it that the master is asked for at least once in each interval, and when
// a Sentinel announces another one, until ctx ends.
func (m *masters) watch(ctx context.Context, every time.Duration) {
	var listeners sync.WaitGroup
	defer listeners.Wait()
	switched := make(chan struct{}, 1)
	for _, address := range m.named {
		listeners.Go(func() { m.listen(ctx, address, every, switched) })
	}
	for {
		wait := time.Until(m.lastNamed().Add(every)) // by whoever opened a connection
		if wait <= 0 {
			_, _ = m.locate(ctx) // who wants a connection is told why there is none
			wait = every
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		case <-switched:
			_, _ = m.locate(ctx) // as above
		}
	}
}

func (m *masters) lastNamed() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked
}

// listen tells of each failover that a Sentinel announces.
func (m *masters) listen(ctx context.Context, address string, pause time.Duration, switched chan<- struct{}) {
	for ctx.Err() == nil {
		m.mu.Lock()
		s := m.sentinels[address]
		m.mu.Unlock()
		if s == nil { // closed
			return
		}
		announcements := s.Subscribe(ctx, "+switch-master")
		stop := context.AfterFunc(ctx, func() { _ = announcements.Close() }) // reading heeds no context
		for {
			message, err := announcements.Receive(ctx)
			if err != nil {
				break
			}
			if _, ok := message.(*redis.Message); ok {
				select {
				case switched <- struct{}{}:
				default:
				}
			}
		}
		stop()
		_ = announcements.Close()
		select {
		case <-ctx.Done():
		case <-time.After(max(pause, time.Second)):
		}
	}
}
