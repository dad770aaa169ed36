package telemetry

import (
	"context"
	"log/slog"

	"github.com/gatehouse-auth/gatehouse/internal/flood"
)

// floodKind is what lines of a flood have in common. Warnings are not left out for
// lines that say less.
type floodKind struct {
	level slog.Level
	name  string
}

// newFloods bounds lines about checks. Of those that are left out it logs the number, at
// the same level.
func newFloods(log *slog.Logger) *flood.Bound[floodKind] {
	return flood.New(func(kind floodKind, left int) {
		log.LogAttrs(context.Background(), kind.level, "checks not logged one by one",
			slog.String("reason", kind.name), slog.Int("count", left))
	})
}
