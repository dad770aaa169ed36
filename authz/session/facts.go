package session

import (
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// What the cache keeps is the outcome of reading, not what was read: a few
// hundred bytes without a pointer in them, which are read again without taking
// JSON apart.
//
// A value begins with what it is.
const (
	factPresent byte = 1 + iota // a session, or what stands for and against a user
	factRefused                 // the reason and the cause why not
	factClear                   // a token, or a family, that is not revoked
	factRevoked
)

// errFacts is what damaged facts are, which nobody should see.
var errFacts = errors.New("the cache holds what it can't")

// factWriter builds a value.
type factWriter []byte

func (w *factWriter) time(t time.Time) {
	if t.IsZero() {
		w.number(0)
		return
	}
	w.number(t.UnixMicro() + 1) // of no use: the first moment of 1970
}

func (w *factWriter) number(n int64) { *w = binary.AppendVarint(*w, n) }

func (w *factWriter) text(s string) {
	*w = binary.AppendUvarint(*w, uint64(len(s)))
	*w = append(*w, s...)
}

// list tells nil from empty.
func (w *factWriter) list(list []string) {
	if list == nil {
		w.number(-1)
		return
	}
	w.number(int64(len(list)))
	for _, s := range list {
		w.text(s)
	}
}

// factReader takes a value apart. The texts that it returns are part of it.
type factReader struct {
	rest string
	bad  bool
}

func (r *factReader) fail() { r.rest, r.bad = "", true }

func (r *factReader) byte() byte {
	if r.rest == "" {
		r.fail()
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

// uvarint is [binary.Uvarint] of a string.
func (r *factReader) uvarint() uint64 {
	var x uint64
	for i := 0; i < len(r.rest) && i < binary.MaxVarintLen64; i++ {
		b := r.rest[i]
		x |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			r.rest = r.rest[i+1:]
			return x
		}
	}
	r.fail()
	return 0
}

func (r *factReader) number() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (r *factReader) time() time.Time {
	n := r.number()
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n - 1)
}

func (r *factReader) text() string {
	n := r.uvarint()
	if n > uint64(len(r.rest)) {
		r.fail()
		return ""
	}
	s := r.rest[:n]
	r.rest = r.rest[n:]
	return s
}

// list appends to the memory that it is given.
func (r *factReader) list(memory []string) []string {
	n := r.number()
	if n < 0 || r.bad {
		return nil
	}
	list := memory[:0]
	for range n {
		if r.bad {
			return nil
		}
		list = append(list, r.text())
	}
	if list == nil {
		return []string{}
	}
	return list
}

// refusedFacts are those of something that the store refuses for good, until it
// changes.
func refusedFacts(err error) []byte {
	w := factWriter{factRefused}
	w.text(string(authz.ReasonOf(err)))
	cause := ""
	if e, ok := errors.AsType[*authz.Error](err); ok && e.Unwrap() != nil {
		cause = e.Unwrap().Error()
	}
	w.text(cause)
	return w
}

func (r *factReader) refusal() error {
	reason, cause := authz.Reason(r.text()), r.text()
	if r.bad {
		return authz.Refuse(authz.ReasonInternal, "%w", errFacts)
	}
	return authz.Refuse(reason, "%w", errors.New(cause)) //nolint:err113 // it was one before
}

// Behind the first byte of a session's facts stand four numbers, as little-endian
// integers. Those that are changed in place are Unix milliseconds: when it is to be
// touched next, when it was used last, and when its record is to be renewed. The
// fourth is the sum of its record's text, see [Store.sum].
const (
	touchAt = 1 + 8*iota
	seenAt
	renewAt
	sumAt
	numbersEnd
)

func numberAt(facts string, at int) (n int64) {
	for i := range 8 {
		n |= int64(facts[at+i]) << (8 * i)
	}
	return n
}

func setNumber(facts []byte, at int, n int64) {
	binary.LittleEndian.PutUint64(facts[at:], uint64(n)) //nolint:gosec // G115: read back as it was
}

// setTouch puts the next touch off until then.
func setTouch(facts []byte, then int64) {
	if len(facts) >= numbersEnd && facts[0] == factPresent {
		setNumber(facts, touchAt, then)
	}
}

// setSeen says that the session was used then, if that is not known yet.
func setSeen(facts []byte, then time.Time) {
	if len(facts) >= numbersEnd && facts[0] == factPresent && !then.IsZero() {
		setNumber(facts, seenAt, max(then.UnixMilli(), numberAt(textOfBytes(facts), seenAt)))
	}
}

// setUsed says that the session was used, and that this is known to the store.
func setUsed(facts []byte, now time.Time, precision time.Duration) {
	if len(facts) >= numbersEnd && facts[0] == factPresent {
		setNumber(facts, seenAt, now.UnixMilli())
		setNumber(facts, touchAt, min(now.Add(precision).UnixMilli(), numberAt(textOfBytes(facts), renewAt)))
	}
}

// sessionFacts are those of a session that was found, without its user's
// standing.
func (s *Store) sessionFacts(f *found, now time.Time) []byte {
	renew := int64(math.MaxInt64)
	if s.o.Rolling && f.ttl >= 0 {
		renew = now.Add(f.ttl - f.life + min(s.o.TouchInterval, f.life/2)).UnixMilli()
	}
	seen, touch := int64(0), int64(0)
	if !f.LastSeen.IsZero() {
		seen, touch = f.LastSeen.UnixMilli(), f.LastSeen.Add(s.o.IdlePrecision).UnixMilli()
	}
	w := make(factWriter, numbersEnd, 256)
	w[0] = factPresent
	setNumber(w, touchAt, min(touch, renew))
	setNumber(w, seenAt, seen)
	setNumber(w, renewAt, renew)
	setNumber(w, sumAt, int64(f.sum)) //nolint:gosec // G115: read back as it was
	w.time(f.AuthTime)
	w.time(f.Created)
	w.number(f.life.Milliseconds())
	w.number(f.memory.Milliseconds())
	w.text(f.ID)
	w.text(f.Email)
	w.text(f.Organization)
	w.list(f.Roles)
	w.list(f.Organizations)
	if s.cache.keepRecords {
		w.text(f.text)
	}
	w.list(f.provider)
	return w
}

// readSession fills a session from its facts.
func (s *Store) readSession(facts string, f *found) (touch int64, err error) {
	r := factReader{rest: facts}
	switch r.byte() {
	case factRefused:
		return 0, r.refusal()
	case factPresent:
	default:
		return 0, authz.Refuse(authz.ReasonInternal, "%w", errFacts)
	}
	if len(facts) < numbersEnd {
		return 0, authz.Refuse(authz.ReasonInternal, "%w", errFacts)
	}
	if seen := numberAt(facts, seenAt); seen != 0 {
		f.LastSeen = time.UnixMilli(seen)
	}
	f.sum = uint64(numberAt(facts, sumAt)) //nolint:gosec // G115: as above
	r.rest = facts[numbersEnd:]
	f.AuthTime, f.Created = r.time(), r.time()
	f.life, f.memory = time.Duration(r.number())*time.Millisecond, time.Duration(r.number())*time.Millisecond
	f.ID, f.Email, f.Organization = r.text(), r.text(), r.text()
	f.Roles, f.Organizations = r.list(f.Roles), r.list(f.Organizations)
	if s.cache.keepRecords {
		f.text = r.text()
	}
	f.provider = r.list(nil) // few have one
	if r.bad {
		return 0, authz.Refuse(authz.ReasonInternal, "%w", errFacts)
	}
	return numberAt(facts, touchAt), nil
}

// userFacts are what stands for and against a user: the mark, and the profile or
// why it can't be read.
func userFacts(st authz.Standing, refused error) []byte {
	if refused != nil {
		return refusedFacts(refused)
	}
	w := make(factWriter, 0, 64)
	w = append(w, factPresent)
	w.time(st.RevokedBefore)
	p := st.Profile
	if p == nil {
		return append(w, 0)
	}
	has := profileThere
	for _, member := range []struct {
		bit byte
		has bool
	}{{profileEmail, p.Email != nil}, {profileRoles, p.Roles != nil}, {profileOrganization, p.Organization != nil}, {profileDisabled, p.Disabled}} {
		if member.has {
			has |= member.bit
		}
	}
	w = append(w, has)
	if p.Email != nil {
		w.text(*p.Email)
	}
	if p.Roles != nil {
		w.list(append([]string{}, *p.Roles...))
	}
	if p.Organization != nil {
		w.text(*p.Organization)
	}
	w.list(p.Organizations)
	return w
}

const (
	profileThere byte = 1 << iota
	profileEmail
	profileRoles
	profileOrganization
	profileDisabled
)

// readUserFacts fills a standing from its facts, with a profile in the memory.
func readUserFacts(facts string, st *authz.Standing, m *authz.Memory) error {
	r := factReader{rest: facts}
	switch r.byte() {
	case factRefused:
		return r.refusal()
	case factPresent:
	default:
		return authz.Refuse(authz.ReasonInternal, "%w", errFacts)
	}
	st.RevokedBefore = r.time()
	has := r.byte()
	if has&profileThere != 0 {
		p := &m.Profile
		organizations := p.Organizations
		*p = authz.Profile{Disabled: has&profileDisabled != 0}
		if has&profileEmail != 0 {
			m.Email = r.text()
			p.Email = &m.Email
		}
		if has&profileRoles != 0 {
			m.Roles = r.list(m.Roles)
			p.Roles = &m.Roles
		}
		if has&profileOrganization != 0 {
			m.Organization = r.text()
			p.Organization = &m.Organization
		}
		p.Organizations = r.list(organizations)
		st.Profile = p
	}
	if r.bad {
		return authz.Refuse(authz.ReasonInternal, "%w", errFacts)
	}
	return nil
}
