package session

import (
	"cmp"
	"errors"
	"time"
)

// Who says what of the set, who agrees, and what is believed.

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
