// Package table is a bounded map from names to small values, for caches that
// hold hundreds of thousands of entries: the garbage collector has nothing to
// look at in it. Names and values lie as bytes in chunks, and entries refer to
// each other by number.
//
//	t := table.New(200_000)
//	r := t.Begin(name)                // before the source is asked
//	…                                 // ask it
//	t.End(r, value, deadline, epoch)  // kept, unless t.Drop(name) came in between
//	value, _, ok := t.Get(name, now, epoch, buffer[:0])
//
// A value that was read before its name was dropped, and arrives after that, is
// not kept: whoever reads says so before, and a drop spoils the readings under
// way.
//
// Of an entry that was dropped the value stays until its place is needed: Last
// returns it, as a hint.
package table

import (
	"hash/maphash"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
)

const (
	shardBits = 4
	shards    = 1 << shardBits

	// MaxSize bounds the bytes of a name and its value together. What is larger
	// is not kept.
	MaxSize = largest - 1

	largest = 16 << 10
	chunk   = 4 << 10 // bytes are allocated by about so many,
	segment = 256     // and entries by so many
	grain   = 16      // sizes are multiples of it, up to fine
	fine    = 512
)

// Name is what a value is kept under.
type Name struct {
	Kind byte
	ID   string
}

// Table is safe for concurrent use.
type Table struct {
	seed   maphash.Seed
	shards [shards]shard

	open   atomic.Int32 // how many there are of searches
	mu     sync.Mutex
	search map[*Search]struct{}
}

// New returns a table for about so many entries, of so many bytes on average,
// which bounds the memory for them. What would be more takes the place of what
// was not used for long; where the sizes of the values have changed so much that
// there is none, a part of the table is emptied.
func New(most, size int) *Table {
	t := &Table{seed: maphash.MakeSeed(), search: map[*Search]struct{}{}}
	for i := range t.shards {
		each := (max(most, 1) + shards - 1) / shards
		t.shards[i].init(uint32(each), 2*largest+int64(each)*int64(size)) //nolint:gosec // G115: some millions
	}
	return t
}

func (t *Table) shard(n Name) (*shard, uint32) {
	h := maphash.String(t.seed, n.ID) ^ uint64(n.Kind)*0x9e3779b97f4a7c15
	return &t.shards[h>>(64-shardBits)], uint32(h) //nolint:gosec // G115: the lower half
}

// Get appends the value of a name to buffer, and returns its deadline. ok is
// false where there is none, where it was dropped, where its deadline is not
// after now, and where it was read in another epoch.
func (t *Table) Get(n Name, now int64, epoch uint32, buffer []byte) (value []byte, deadline int64, ok bool) {
	s, h := t.shard(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.find(n, h)
	if e == nil || !e.holds(now, epoch) {
		return buffer, 0, false
	}
	e.flags |= used
	return append(buffer, s.value(e)...), e.deadline, true
}

// Last returns the value that a name had last, be it that it was dropped, or that
// its deadline has passed or its epoch is over: a hint, and no more.
func (t *Table) Last(n Name) (value []byte, ok bool) {
	s, h := t.shard(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.find(n, h)
	if e == nil {
		return nil, false
	}
	return slices.Clone(s.value(e)), true
}

// Holds reports whether Get would find the name's value.
func (t *Table) Holds(n Name, now int64, epoch uint32) bool {
	s, h := t.shard(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.find(n, h)
	return e != nil && e.holds(now, epoch)
}

// Change has the value of a name changed in place, where Get would find it.
// change must not keep it, nor call the table.
func (t *Table) Change(n Name, now int64, epoch uint32, change func(value []byte)) {
	s, h := t.shard(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.find(n, h); e != nil && e.holds(now, epoch) {
		change(s.value(e))
	}
}

// Drop makes a name's value wrong, and that of each reading that is under way.
// It reports whether there was one to drop.
func (t *Table) Drop(n Name) bool {
	t.tell(func(s *Search) { // before the shard: see EndAs
		if s.kind == n.Kind {
			s.note(n)
		}
	})
	s, h := t.shard(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spoil(n)
	e := s.find(n, h)
	if e == nil || e.flags&dropped != 0 {
		return false
	}
	e.flags |= dropped
	return true
}

// DropAll does it for all names.
func (t *Table) DropAll() {
	t.tell(func(s *Search) { s.spoilt = true })
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for n := range s.readings {
			s.spoil(n)
		}
		for _, entries := range s.entries {
			for i := range entries {
				entries[i].flags |= dropped
			}
		}
		s.mu.Unlock()
	}
}

// Reading is a question to the source that is under way.
type Reading struct {
	name   Name
	spoilt bool // under the shard's lock, as the next
	count  int
}

// Begin says that the source will be asked for a name. End must follow.
func (t *Table) Begin(n Name) *Reading {
	s, _ := t.shard(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.readings[n]
	if !ok {
		r = &Reading{name: n}
		s.readings[n] = r
	}
	r.count++
	return r
}

// End ends a reading, and keeps the value for its name until the deadline, if
// the name was not dropped in between. A nil value keeps nothing.
func (t *Table) End(r *Reading, value []byte, deadline int64, epoch uint32) (kept bool) {
	s, h := t.shard(r.name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.spoilt {
		return false
	}
	if r.count--; r.count == 0 {
		delete(s.readings, r.name)
	}
	return value != nil && s.put(r.name, h, value, deadline, epoch)
}

// Search is a question to the source for what has a name that the answer tells.
// EndAs or Cancel must follow.
type Search struct {
	kind    byte
	dropped []Name // since it began
	spoilt  bool
}

// mostNoted bounds the names that a search notes. One during which more are
// dropped keeps nothing.
const mostNoted = 256

func (s *Search) note(n Name) {
	if len(s.dropped) == mostNoted {
		s.spoilt = true
		return
	}
	s.dropped = append(s.dropped, n)
}

func (t *Table) tell(f func(*Search)) {
	if t.open.Load() == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for s := range t.search {
		f(s)
	}
}

// Search begins one, for a name of this kind.
func (t *Table) Search(kind byte) *Search {
	s := &Search{kind: kind}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.search[s] = struct{}{}
	t.open.Add(1)
	return s
}

// Cancel ends a search that found nothing. It does no harm after EndAs.
func (t *Table) Cancel(s *Search) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.search[s]; ok {
		delete(t.search, s)
		t.open.Add(-1)
	}
}

// EndAs ends a search, and keeps the value as [Table.End] does.
func (t *Table) EndAs(search *Search, n Name, value []byte, deadline int64, epoch uint32) (kept bool) {
	defer t.Cancel(search)
	s, h := t.shard(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	// A drop that is not noted by now comes to this shard when we have left
	// it, and finds what we put there.
	t.mu.Lock()
	spoilt := search.spoilt || slices.Contains(search.dropped, n)
	t.mu.Unlock()
	return !spoilt && s.put(n, h, value, deadline, epoch)
}

// Stats are the figures of a table.
type Stats struct {
	Entries int   // names that have a value, dropped ones included
	Bytes   int64 // allocated for them
	Evicted int64 // that had to make place
}

// Stats returns the figures.
func (t *Table) Stats() (all Stats) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		all.Entries += int(s.used())
		all.Bytes += s.bytes
		all.Evicted += s.evicted
		s.mu.Unlock()
	}
	return all
}

// entry describes a name and its value, in 32 bytes and without a pointer.
type entry struct {
	deadline int64
	hash     uint32
	next     uint32 // in the bucket, or among the free ones
	epoch    uint32
	chunk    uint32 // where the bytes are: the number of the chunk in its class,
	place    uint16 // and of the place in the chunk
	nameLen  uint16 // with the byte of the kind
	valueLen uint16
	class    uint8
	flags    uint8
}

const entryBytes = 32

const (
	used    uint8 = 1 << iota // since the hand passed last
	dropped                   // its value is wrong
	free                      // it is none
)

func (e *entry) holds(now int64, epoch uint32) bool {
	return e.flags&dropped == 0 && e.epoch == epoch && now < e.deadline
}

const none = ^uint32(0)

type shard struct {
	mu       sync.Mutex
	most     uint32
	entries  [][]entry // segments
	handed   uint32    // entries handed out so far, free ones included
	freeHead uint32
	freed    uint32
	hand     uint32
	buckets  []uint32 // a power of two of them
	classes  [classes]class
	readings map[Name]*Reading
	bytes    int64
	limit    int64 // of them
	evicted  int64
	_        [64]byte // shards share no cache line
}

// class has the places of one size.
type class struct {
	chunks [][]byte
	handed uint32 // places
	free   []uint32
}

func (s *shard) init(most uint32, limit int64) {
	s.most, s.limit = most, limit
	s.readings = map[Name]*Reading{}
	s.empty()
}

// empty takes all entries out, and gives their memory back. What is being read
// is not touched.
func (s *shard) empty() {
	s.evicted += int64(s.used())
	s.entries, s.handed, s.freeHead, s.freed, s.hand, s.bytes = nil, 0, none, 0, 0, 0
	s.classes = [classes]class{}
	s.setBuckets(16)
}

func (s *shard) setBuckets(n int) {
	s.buckets = make([]uint32, n)
	for i := range s.buckets {
		s.buckets[i] = none
	}
}

func (s *shard) used() uint32 { return s.handed - s.freed }

func (s *shard) entry(i uint32) *entry { return &s.entries[i/segment][i%segment] }

func (s *shard) bucket(h uint32) *uint32 {
	return &s.buckets[h&uint32(len(s.buckets)-1)] //nolint:gosec // G115: at most some millions
}

func (s *shard) spoil(n Name) {
	if r, ok := s.readings[n]; ok {
		r.spoilt = true
		delete(s.readings, n)
	}
}

// bytesOf are those of an entry's place.
func (s *shard) bytesOf(e *entry) []byte {
	size := sizeOf(e.class)
	at := int(e.place) * size
	return s.classes[e.class].chunks[e.chunk][at : at+size]
}

func (s *shard) value(e *entry) []byte {
	return s.bytesOf(e)[e.nameLen:][:e.valueLen]
}

func (s *shard) find(n Name, h uint32) *entry {
	for i := *s.bucket(h); i != none; {
		e := s.entry(i)
		if e.hash == h && int(e.nameLen) == len(n.ID)+1 {
			if b := s.bytesOf(e); b[0] == n.Kind && string(b[1:e.nameLen]) == n.ID {
				return e
			}
		}
		i = e.next
	}
	return nil
}

// put keeps a value. What it replaces is gone in any case.
func (s *shard) put(n Name, h uint32, value []byte, deadline int64, epoch uint32) bool {
	size := 1 + len(n.ID) + len(value)
	e := s.find(n, h)
	if e != nil && (size > MaxSize || e.class != classOf(size)) {
		s.remove(e)
		e = nil
	}
	if size > MaxSize {
		return false
	}
	if e == nil {
		e = s.add(n, h, classOf(size))
	}
	copy(s.bytesOf(e)[e.nameLen:], value)
	e.valueLen = uint16(len(value)) //nolint:gosec // G115: MaxSize
	e.deadline, e.epoch = deadline, epoch
	e.flags &^= dropped
	return true
}

// add makes an entry for a name that has none.
func (s *shard) add(n Name, h uint32, c uint8) *entry {
	if s.used() >= s.most {
		s.evict()
	}
	if s.bytes > s.limit && !s.classes[c].hasPlace(c) {
		s.empty()
	}
	if int(s.used()) >= len(s.buckets) {
		s.grow()
	}
	i := s.freeHead
	if i != none {
		s.freeHead = s.entry(i).next
		s.freed--
	} else {
		i = s.handed
		s.handed++
		if i%segment == 0 {
			s.entries = append(s.entries, make([]entry, segment))
			s.bytes += segment * entryBytes
		}
	}
	e := s.entry(i)
	*e = entry{hash: h, class: c, nameLen: uint16(1 + len(n.ID))} //nolint:gosec // G115: MaxSize
	e.chunk, e.place = s.take(c)
	b := s.bytesOf(e)
	b[0] = n.Kind
	copy(b[1:], n.ID)
	bucket := s.bucket(h)
	e.next, *bucket = *bucket, i
	return e
}

// grow doubles the buckets.
func (s *shard) grow() {
	s.bytes += int64(len(s.buckets)) * 4
	s.setBuckets(2 * len(s.buckets))
	for i := range s.handed {
		if e := s.entry(i); e.flags&free == 0 {
			bucket := s.bucket(e.hash)
			e.next, *bucket = *bucket, i
		}
	}
}

// evict makes place: of an entry that was dropped, or not used since the hand
// passed it last.
func (s *shard) evict() {
	for {
		if s.hand >= s.handed {
			s.hand = 0
		}
		e := s.entry(s.hand)
		s.hand++
		switch {
		case e.flags&free != 0:
		case e.flags&(used|dropped) == used:
			e.flags &^= used
		default:
			s.remove(e)
			s.evicted++
			return
		}
	}
}

// remove frees an entry.
func (s *shard) remove(e *entry) {
	at := s.bucket(e.hash)
	for s.entry(*at) != e {
		at = &s.entry(*at).next
	}
	i := *at
	*at = e.next
	c := &s.classes[e.class]
	c.free = append(c.free, e.chunk*perChunk(e.class)+uint32(e.place))
	*e = entry{flags: free, next: s.freeHead}
	s.freeHead = i
	s.freed++
}

// hasPlace reports whether a place can be had without more memory.
func (c *class) hasPlace(of uint8) bool {
	return len(c.free) > 0 || c.handed < uint32(len(c.chunks))*perChunk(of) //nolint:gosec // G115: some millions
}

// take returns a free place of a class.
func (s *shard) take(of uint8) (chunk uint32, place uint16) {
	c := &s.classes[of]
	var at uint32
	if n := len(c.free); n > 0 {
		at = c.free[n-1]
		c.free = c.free[:n-1]
	} else {
		at = c.handed
		c.handed++
		if int(at/perChunk(of)) == len(c.chunks) {
			size := int(perChunk(of)) * sizeOf(of)
			c.chunks = append(c.chunks, make([]byte, size))
			s.bytes += int64(size)
		}
	}
	return at / perChunk(of), uint16(at % perChunk(of)) //nolint:gosec // G115: less than 256
}

func perChunk(class uint8) uint32 { return uint32(max(chunk/sizeOf(class), 1)) } //nolint:gosec // G115: at most 256

// Sizes up to fine are multiples of grain; from there on four to each power of
// two.
const (
	finePower   = 9 // of fine
	fineClasses = fine / grain
	classes     = fineClasses + 4*(14-finePower) // up to largest, which is 1<<14
)

func classOf(size int) uint8 {
	if size <= fine {
		return uint8(max(size-1, 0) / grain)
	}
	power := bits.Len(uint(size-1)) - 1
	quarter := (size - 1) >> (power - 2) & 3
	return uint8(fineClasses + 4*(power-finePower) + quarter) //nolint:gosec // G115: less than classes
}

func sizeOf(class uint8) int {
	if class < fineClasses {
		return (int(class) + 1) * grain
	}
	c := int(class) - fineClasses
	power := finePower + c/4
	return 1<<power + (c%4+1)<<(power-2)
}
