package session

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Who says what, how many must agree, and what is believed.
//
// More than half of the Sentinels must agree. How many there are can't be left to what
// they say: one that begins anew, from a configuration in which the master is one that
// was replaced long ago, knows no others, and would be all of them. So half is counted
// of whichever is most:
//
//   - those that there are by what they say now;
//   - those that the URL names;
//   - those that ever answered the same question.
//
// The last two are memory, in which those that are gone for good would stay. So when
// more than half, counted like that, agree and know of fewer, these count from then on:
// five become three, and three become two. Two never become one: who is left can't be
// told from who is cut off.
//
// And one that is wrong must not stop all. How many there are is what more than half of
// those that answer say, at least. Of two masters, that of the newer configuration is
// believed, for a failover is known to one Sentinel first; at the same one, that which
// more name, whoever answers first. But when more than half go on naming another for
// longer than news needs from Sentinel to Sentinel, they are right.

// naming is what a Sentinel says of the set.
type naming struct {
	id     string   // its own
	master string   // address
	epoch  int64    // of the configuration; a failover counts it up
	others []string // addresses of other Sentinels
	all    int      // Sentinels that there are
}

// poll is what Sentinels say to one question.
type poll struct {
	at      time.Time         // of the question
	asked   int               // Sentinels
	answers map[string]naming // by address; a Sentinel may have two
	errs    map[string]error  // of the others, by address
	newest  naming            // of the answers: what is believed
	of      int               // Sentinels that half was counted of
	agreed  bool              // more than half name one and the same
	word    string            // that master, when they do
}

// newsSpreads is how long a newer configuration takes at most until all Sentinels that
// can be reached know of it: they tell each other every two seconds.
const newsSpreads = 5 * time.Second

func newPoll(asked int) *poll {
	return &poll{at: time.Now(), asked: asked, answers: map[string]naming{}, errs: map[string]error{}}
}

// say returns how many Sentinels name a master; "" for how many answered.
func (p *poll) say(master string) int {
	ids := map[string]bool{}
	for _, n := range p.answers {
		if master == "" || n.master == master {
			ids[n.id] = true
		}
	}
	return len(ids)
}

// known is how many there are by what more than half of those that answered say, and how
// many answered.
func (p *poll) known() int {
	said := p.said()
	if len(said) == 0 {
		return 0
	}
	return max(len(said), said[(len(said)-1)/2])
}

// said is how many there are by what each of them says that answered, the most first.
func (p *poll) said() []int {
	all := map[string]int{}
	for _, n := range p.answers {
		all[n.id] = max(all[n.id], n.all)
	}
	return slices.SortedFunc(maps.Values(all), func(a, b int) int { return b - a })
}

// epoch is the newest configuration by which a master is the one; -1: by none.
func (p *poll) epoch(master string) int64 {
	newest := int64(-1)
	for _, n := range p.answers {
		if n.master == master {
			newest = max(newest, n.epoch)
		}
	}
	return newest
}

// there is how many Sentinels there are, for half of them to be counted. m.mu is held.
func (m *masters) there(p *poll) int { return max(p.known(), m.most, m.inURL()) }

// inURL is how many the URL names; 0 when they have said how many there are.
func (m *masters) inURL() int {
	if m.counted {
		return 0
	}
	named := map[string]bool{} // one may be named twice
	for _, address := range m.named {
		id := ""
		if s := m.sentinels[address]; s != nil {
			id = s.id
		}
		named[cmp.Or(id, address)] = true
	}
	return len(named)
}

// hear adds an answer, and takes what more than half of the Sentinels name for their
// word.
func (m *masters) hear(p *poll, address string, n naming) {
	p.answers[address] = n
	m.mu.Lock()
	defer m.mu.Unlock()
	p.of = m.there(p)
	for _, n := range p.answers { // by what this one says, others may be enough
		if 2*p.say(n.master) > p.of && (!p.agreed || p.epoch(n.master) > p.epoch(p.word)) {
			p.agreed, p.word = true, n.master
		}
	}
	if p.agreed {
		m.word.Store(&word{p.word, p.at})
	}
	p.newest = m.newest(p)
}

// newest is the answer to believe. m.mu is held.
func (m *masters) newest(p *poll) naming {
	var newest *naming
	for _, address := range slices.Sorted(maps.Keys(p.answers)) {
		n := p.answers[address]
		if p.agreed && n.master != p.word && m.apart(address, p.at) >= newsSpreads {
			continue
		}
		if newest == nil || cmp.Or(cmp.Compare(n.epoch, newest.epoch), cmp.Compare(p.say(n.master), p.say(newest.master))) > 0 {
			newest = &n
		}
	}
	return *newest // the word's, at least
}

// apart is for how long a Sentinel has named a newer configuration than that of more
// than half of them, and another master. m.mu is held.
func (m *masters) apart(address string, now time.Time) time.Duration {
	if s := m.sentinels[address]; s != nil && !s.apart.IsZero() {
		return now.Sub(s.apart)
	}
	return 0
}

// note notes who does so. m.mu is held.
func (m *masters) note(p *poll) {
	if !p.agreed {
		return
	}
	epoch := p.epoch(p.word)
	for address, n := range p.answers {
		s := m.sentinels[address]
		switch {
		case s == nil:
		case n.master == p.word || n.epoch <= epoch:
			s.apart = time.Time{}
		case s.apart.IsZero():
			s.apart = p.at
		}
	}
}

// believe takes the newest answer for true: it closes the connections to other servers,
// and learns of other Sentinels. An older configuration than one that was seen before is
// believed to more than half of the Sentinels only: they have been set up anew then, or
// who told us of the newer one was wrong.
func (m *masters) believe(p *poll) error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return errSentinelsClosed
	}
	m.note(p)
	if p.newest.epoch < m.epoch && 2*p.say(p.newest.master) <= m.there(p) {
		m.mu.Unlock()
		return fmt.Errorf("the Sentinels in reach know of an older configuration only than was seen before: %s", m.doubt(p, p.newest.master))
	}
	m.remember(p)
	gone := m.meet(p)
	m.master, m.epoch, m.asked = p.newest.master, p.newest.epoch, time.Now()
	var astray []*placed
	for c := range m.placed {
		if c.address != m.master {
			astray = append(astray, c)
		}
	}
	m.mu.Unlock()
	for _, c := range astray {
		c.cut()
	}
	for _, s := range gone {
		_ = s.Close()
	}
	return nil
}

// remember keeps how many there are. That they are fewer counts when all say so who
// answered: among three, two that began anew would have the third one's five forgotten.
// m.mu is held.
func (m *masters) remember(p *poll) {
	m.most = max(m.most, p.say(""))
	if p.agreed {
		m.most = min(max(m.most, m.inURL()), max(p.say(""), p.said()[0]))
		m.counted = true
	}
}

// meet adds the Sentinels that those know who answered, and returns those that nobody
// names any more, neither they nor the URL: but only where more than half agree. One
// that is cut off would have the others forgotten. m.mu is held.
func (m *masters) meet(p *poll) (gone []*sentinel) {
	stays := map[string]bool{}
	for _, address := range m.named {
		stays[address] = true
	}
	for address, n := range p.answers { // nobody names itself
		stays[address] = true
		for _, other := range n.others {
			stays[other] = true
		}
	}
	for address := range stays {
		if m.sentinels[address] == nil {
			m.sentinels[address] = &sentinel{Client: m.client(address), silent: true} // until it has answered
		}
	}
	if !p.agreed {
		return nil
	}
	for address, s := range m.sentinels {
		if !stays[address] {
			delete(m.sentinels, address)
			gone = append(gone, s)
		}
	}
	return gone
}

// doubt says why there is no word for a master: how many name it, what is with each of
// the others, and what to do.
func (m *masters) doubt(p *poll, master string) string {
	if len(p.answers) == 0 {
		return unansweredError{p}.Error()
	}
	n := p.say(master)
	if 2*n > p.of {
		return fmt.Sprintf("is %s the master? The Sentinels said so %v after they were asked, and that counts for %v only", master, time.Since(p.at).Round(time.Millisecond), wordBound)
	}
	why := []string{fmt.Sprintf("is %s the master? %d of %d Sentinels say so, and more than half must", master, n, p.of)}
	for _, address := range slices.Sorted(maps.Keys(p.answers)) {
		if other := p.answers[address].master; other != master {
			why = append(why, address+" names "+other)
		}
	}
	why = append(why, p.namesakes()...)
	why = append(why, p.reasons()...)
	return strings.Join(append(why, fmt.Sprintf("have the others start; 'SENTINEL RESET %s' at those that are left forgets those that are gone for good; if these are half of them, name those that are left in redis.url, and restart Gatehouse where it names just them already", m.name)), "; ")
}

// namesakes say which answers count once, since they have the same id.
func (p *poll) namesakes() (why []string) {
	addresses := map[string][]string{} // by id
	for _, address := range slices.Sorted(maps.Keys(p.answers)) {
		id := p.answers[address].id
		addresses[id] = append(addresses[id], address)
	}
	for _, id := range slices.Sorted(maps.Keys(addresses)) {
		if same := addresses[id]; len(same) > 1 {
			why = append(why, strings.Join(same, " and ")+" have the same SENTINEL MYID and count once: if they are not one Sentinel of several addresses, take 'sentinel myid' out of their configuration files and restart them")
		}
	}
	return why
}

// reasons say why Sentinels didn't answer.
func (p *poll) reasons() (why []string) {
	for _, address := range slices.Sorted(maps.Keys(p.errs)) {
		why = append(why, fmt.Sprintf("%s: %v", address, p.errs[address]))
	}
	return why
}

// unansweredError is that no Sentinel answered.
type unansweredError struct{ poll *poll }

func (e unansweredError) Error() string {
	return "no Sentinel names the master: " + strings.Join(e.poll.reasons(), "; ")
}

// Unwrap implements what [errors.Is] looks for.
func (e unansweredError) Unwrap() []error { return slices.Collect(maps.Values(e.poll.errs)) }

var errSentinelsClosed = fmt.Errorf("ask the Sentinels: %w", redis.ErrClosed)
