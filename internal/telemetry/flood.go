package telemetry

import (
	"context"
	"log/slog"
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

	mu    sync.Mutex
	kinds map[string]*flood // from closed lists, so few
}

// flood is what came of one kind in this second.
type flood struct{ lines, left int }

func newFloods(log *slog.Logger) *floods {
	return &floods{log: log, kinds: map[string]*flood{}}
}

// logs reports whether a line of this kind is to be logged. Of those that are not it
// logs the number, at the same level, when the second is over.
func (all *floods) logs(level slog.Level, kind string) bool {
	all.mu.Lock()
	defer all.mu.Unlock()
	f := all.kinds[kind]
	if f == nil {
		f = &flood{}
		all.kinds[kind] = f
		time.AfterFunc(floodTime, func() { all.over(level, kind) })
	}
	if f.lines < floodLines {
		f.lines++
		return true
	}
	f.left++
	return false
}

// over ends the second of a kind.
func (all *floods) over(level slog.Level, kind string) {
	all.mu.Lock()
	left := all.kinds[kind].left
	delete(all.kinds, kind)
	all.mu.Unlock()
	if left > 0 {
		all.log.LogAttrs(context.Background(), level, "checks not logged one by one", slog.String("reason", kind), slog.Int("count", left))
	}
}
