package telemetry

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"
)

// floodLines is how many lines of one kind are logged in a second, and floodTime
// that second.
const (
	floodLines = 10
	floodTime  = time.Second
)

// floods bounds lines that come by the thousand when something is out of order for
// all. It is safe for concurrent use.
type floods struct {
	log *slog.Logger

	mu   sync.Mutex
	each map[floodKind]*flood // few: levels and kinds are from closed lists
}

// floodKind is what lines of a flood have in common. Warnings are not left out for
// lines that say less.
type floodKind struct {
	level slog.Level
	name  string
}

// flood is what came of one kind in this second.
type flood struct {
	lines, left int
	end         *time.Timer
}

func newFloods(log *slog.Logger) *floods {
	return &floods{log: log, each: map[floodKind]*flood{}}
}

// logs reports whether a line of this kind is to be logged. Of those that are not it
// logs the number, at the same level, when the second is over.
func (all *floods) logs(kind floodKind) bool {
	all.mu.Lock()
	defer all.mu.Unlock()
	f := all.each[kind]
	if f == nil {
		f = &flood{}
		f.end = time.AfterFunc(floodTime, func() { all.over(kind, f) })
		all.each[kind] = f
	}
	if f.lines < floodLines {
		f.lines++
		return true
	}
	f.left++
	return false
}

// over ends the second of a kind, if nobody has yet.
func (all *floods) over(kind floodKind, f *flood) {
	all.mu.Lock()
	if all.each[kind] != f {
		all.mu.Unlock()
		return
	}
	delete(all.each, kind)
	all.mu.Unlock()
	f.end.Stop()
	if f.left > 0 {
		all.log.LogAttrs(context.Background(), kind.level, "checks not logged one by one",
			slog.String("reason", kind.name), slog.Int("count", f.left))
	}
}

// flush ends all seconds now.
func (all *floods) flush() {
	all.mu.Lock()
	each := maps.Clone(all.each)
	all.mu.Unlock()
	for kind, f := range each {
		all.over(kind, f)
	}
}
