package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// An index is a sorted set of ids by the time, in Unix milliseconds, when they
// can be forgotten: twice the longest life that is known of what they name
// after it was used last, so that a renewal that we were not asked about, or
// one lost write, leaves nothing living without an entry. It is written before
// what it points to, and may point to what is gone: whoever reads it looks. At
// each write the entries whose time has come are taken out, and the whole has
// a life as long as that of its last entry.

// enterScript puts an entry into an index, or puts off its end, and returns a
// user's mark, "" for none. An entry that would be put off by less than the
// slack stays as it is, so that many replicas that see the same session write
// it once.
//
// KEYS: index; the user's mark, if it is asked for.
// ARGV: entry, when it can be forgotten in Unix ms, slack in ms, now in Unix
// ms.
var enterScript = redis.NewScript(`
local before = KEYS[2] and redis.call('GET', KEYS[2]) or ''
local stays, now = tonumber(ARGV[2]), tonumber(ARGV[4])
local stayed = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '')
if not stayed or stayed + tonumber(ARGV[3]) <= stays then
	redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[4])
	redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
	local last = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
	redis.call('PEXPIRE', KEYS[1], string.format('%d', math.max(tonumber(last[2]) - now, 1)))
end
return before
`)

// enter returns the call that keeps an entry in an index for so long.
func (s *Store) enter(index, entry string, life, slack time.Duration, now time.Time) *scriptCall {
	return &scriptCall{
		script: enterScript,
		keys:   []string{index},
		args:   []any{entry, now.Add(life).UnixMilli(), slack.Milliseconds(), now.UnixMilli()},
	}
}

// withMark has the call return the user's mark, too. The index must be of the
// same user.
func (c *scriptCall) withMark(k userKeys) *scriptCall {
	c.keys = append(c.keys, k.before)
	return c
}

// standing returns the mark that a call withMark got.
func (c *scriptCall) standing() (standing authz.Standing, err error) {
	text, err := c.reply.Text()
	if err == nil && text != "" {
		standing.RevokedBefore, err = markTime(text)
	}
	if err != nil {
		return standing, unavailable("read the user's mark", err)
	}
	return standing, nil
}

// lives of a record: what it is renewed to, and how long what we know about it
// is kept beside it.
func (s *Store) lives(values map[string]any, ttl time.Duration) (life, memory time.Duration) {
	life = cmp.Or(maxAge(values), s.o.TTL)
	return life, s.memory(life, ttl)
}

func (s *Store) memory(life, ttl time.Duration) time.Duration {
	if ttl == ttlNever {
		return markLife
	}
	return min(2*max(life, ttl, s.o.TTL), 2*markLife)
}

// candidate is what may be a session of a user.
type candidate struct {
	sessionID string
	keys      recordKeys
	text      string // of the record
	exists    bool
	dead      bool
	ttl       time.Duration
	seen      time.Time
	// session is what could be read of the record. Where something in it is
	// malformed, so that the gate refuses it, it has no more than the id of the
	// user: another program may let it pass.
	*authz.Session
}

// of reports whether it is a session of the user that lives: there, not ended,
// and not covered by the user's mark.
func (c *candidate) of(userID string, standing authz.Standing) bool {
	return c.exists && !c.dead && c.ID == userID && !standing.Covers(c.MadeAt())
}

// readAtOnce is how many records are read in one step: few enough that large
// ones, too, come within the time of a call.
const readAtOnce = 50

// look reads sessions in steps: in smaller ones when one takes longer than a call
// may, since there are large records. Ids that no session of ours can have are
// left out.
func (s *Store) look(ctx context.Context, ids []string, visit func(*candidate)) error {
	for size := readAtOnce; len(ids) > 0; {
		part := ids[:min(size, len(ids))]
		err := s.lookAtSome(ctx, part, visit)
		switch {
		case err != nil && len(part) > 1 && ctx.Err() == nil && tookTooLong(err):
			size = (len(part) + 3) / 4
		case err != nil:
			return err
		default:
			ids = ids[len(part):]
		}
	}
	return nil
}

func tookTooLong(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return errors.Is(err, context.DeadlineExceeded) || ok && timeout.Timeout()
}

// lookAtSome visits all of them, or with an error none.
func (s *Store) lookAtSome(ctx context.Context, ids []string, visit func(*candidate)) error {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	pipe := s.client.Pipeline()
	var reads []func() *candidate
	for _, id := range ids {
		keys, ok := s.keys(id)
		if !ok {
			continue
		}
		record := pipe.Get(ctx, keys.record)
		ttl := pipe.PTTL(ctx, keys.record)
		dead := pipe.Exists(ctx, keys.dead)
		seen := pipe.Get(ctx, keys.seen)
		reads = append(reads, func() *candidate {
			c := &candidate{sessionID: id, keys: keys, dead: dead.Val() != 0, ttl: ttl.Val()}
			text, exists, err := textOf(record)
			c.exists = err == nil && exists && c.ttl != ttlAbsent && c.ttl != 0
			c.text = text
			c.seen, _ = timeOf(seen) // for lists
			c.Session = s.o.Fields.decodeLoosely(text, s.o.Now())
			return c
		})
	}
	if len(reads) == 0 {
		return nil
	}
	if err := exec(ctx, pipe); err != nil {
		return unavailable("read sessions", err)
	}
	for _, read := range reads {
		visit(read())
	}
	return nil
}

// userSessions are the ids that may be sessions of a user.
type userSessions struct {
	indexed  []string
	swept    []string // those that the index doesn't have
	families []string
	standing authz.Standing // the mark alone
}

func (u *userSessions) all() []string { return slices.Concat(u.indexed, u.swept) }

// findUser returns what may be of a user: what the indexes have, and what a sweep
// finds. The sweep is first, since it takes its time.
func (s *Store) findUser(ctx context.Context, userID string, sweep bool) (u userSessions, err error) {
	if sweep {
		if u.swept, err = s.sweep(ctx, userID); err != nil {
			return u, err
		}
	}
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	k := keysOf(userID)
	pipe := s.client.Pipeline()
	sessions := pipe.ZRange(ctx, k.sessions, 0, -1)
	families := pipe.ZRange(ctx, k.families, 0, -1)
	before := pipe.Get(ctx, k.before)
	if err := exec(ctx, pipe); err != nil {
		return u, unavailable("read the user's index", err)
	}
	if u.standing.RevokedBefore, err = timeOf(before); err != nil {
		return u, unavailable("read the user's mark", err)
	}
	if err := errors.Join(sessions.Err(), families.Err()); err != nil {
		return u, unavailable("read the user's index", err)
	}
	u.indexed, u.families = sessions.Val(), families.Val()
	u.add(u.swept)
	return u, nil
}

// findAll returns what may be of a user, and the context in which to go on,
// which has no end: what comes takes as long as the user has sessions, each step
// has its own time, and half of it would be worse. Where ctx runs out before all
// records were looked through, missed says that it may not be all.
func (s *Store) findAll(ctx context.Context, userID string) (_ context.Context, u userSessions, missed, err error) {
	on := context.WithoutCancel(ctx)
	swept, err := s.sweep(ctx, userID)
	if err != nil {
		if !ranOut(ctx) {
			return on, u, nil, err
		}
		missed = err
	}
	u, err = s.findUser(on, userID, false)
	u.add(swept)
	return on, u, missed, err
}

// ranOut reports whether the deadline of a context has passed, or is so near
// that a socket's timer may have been the first to notice.
func ranOut(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) < 20*time.Millisecond && !errors.Is(ctx.Err(), context.Canceled)
}

// add adds what a sweep found.
func (u *userSessions) add(swept []string) {
	known := make(map[string]bool, len(u.indexed))
	for _, id := range u.indexed {
		known[id] = true
	}
	u.swept = slices.DeleteFunc(swept, func(id string) bool { return known[id] })
}

// UserSessions lists the sessions of a user that live, the latest first. It
// finds those that were made here and those that the gate saw. With sweep it
// finds those, too, that another program made and that were never used here:
// it reads every record there is, in small steps, and notes what it found, so
// that [Store.RevokeHandle] finds it again.
//
// A session that the gate let pass in the last [Options] TouchInterval is
// listed as last seen then. One that the gate would refuse because something
// in its record is malformed is listed with the user's id alone.
func (s *Store) UserSessions(ctx context.Context, userID string, sweep bool) ([]authz.ActiveLogin, error) {
	if userID == "" {
		return nil, errors.New("list sessions: no user id")
	}
	ctx = repeatable(ctx)
	user, err := s.findUser(ctx, userID, sweep)
	if err != nil {
		return nil, err
	}
	now := s.o.Now()
	logins := []authz.ActiveLogin{}
	visit := func(c *candidate) {
		if c.of(userID, user.standing) {
			logins = append(logins, c.login(now))
		}
	}
	if err := s.look(ctx, user.indexed, visit); err != nil {
		return nil, err
	}
	var note []*scriptCall
	if err := s.look(ctx, user.swept, func(c *candidate) {
		visit(c)
		if c.of(userID, user.standing) {
			_, memory := s.lives(c.Values, c.ttl)
			note = append(note, s.enter(keysOf(userID).sessions, c.sessionID, memory, 0, now))
		}
	}); err != nil {
		return nil, err
	}
	for part := range slices.Chunk(note, readAtOnce) {
		if _, err := s.send(ctx, part, false); err != nil {
			s.lost(fmt.Errorf("index sessions: %w", err))
		}
	}
	latestFirst(logins)
	return logins, nil
}

// login is what may be shown of a session.
func (c *candidate) login(now time.Time) authz.ActiveLogin {
	ours := ourValuesIn(c.Values)
	l := authz.ActiveLogin{
		Handle:   authz.Handle(c.sessionID),
		User:     authz.User{Identity: c.Identity, Organizations: c.Organizations},
		Device:   ours.device,
		Created:  cmp.Or(c.Created, c.AuthTime),
		LastSeen: c.seen,
	}
	if c.Created.After(l.LastSeen) { // a login is a use
		l.LastSeen = c.Created
	}
	if c.ttl > 0 {
		l.Expires = now.Add(c.ttl)
	}
	return l
}

// latestFirst sorts by the last use, else by the beginning.
func latestFirst(logins []authz.ActiveLogin) {
	latest := func(l authz.ActiveLogin) time.Time {
		if l.LastSeen.After(l.Created) {
			return l.LastSeen
		}
		return l.Created
	}
	slices.SortFunc(logins, func(a, b authz.ActiveLogin) int {
		return cmp.Or(latest(b).Compare(latest(a)), cmp.Compare(a.Handle, b.Handle))
	})
}

func milliseconds(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }
