package config

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Problem is one thing wrong with a configuration. It takes one line of
// print, and never shows a secret.
type Problem struct {
	File string // as it was given to Load
	// Line and Column count from 1, columns in characters; both are 0 when
	// the file itself is the problem.
	Line, Column int
	Key          string // path such as policies.user.roles.any[0]; "" for the whole file
	Message      string // what is wrong, and what was expected or what to do
}

// String returns file:line:column: key: message.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		b.WriteString(":" + strconv.Itoa(p.Line) + ":" + strconv.Itoa(p.Column))
	}
	if p.Key != "" {
		b.WriteString(": " + p.Key)
	}
	b.WriteString(": " + p.Message)
	return b.String()
}

// Problems is the error of [Load] and [Parse]: everything that is wrong,
// sorted by place.
type Problems []Problem //nolint:errname // a list of Problem, and named for it

// Error returns one line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Warning is a doubt about a valid configuration: allowed, but seldom meant.
type Warning Problem

// String returns file:line:column: key: message.
func (w Warning) String() string { return Problem(w).String() }

func byPlace(a, b Problem) int {
	return cmp.Or(
		cmp.Compare(a.Line, b.Line),
		cmp.Compare(a.Column, b.Column),
		cmp.Compare(a.Key, b.Key),
		cmp.Compare(a.Message, b.Message),
	)
}

func sorted(ps []Problem) []Problem {
	slices.SortFunc(ps, byPlace)
	return slices.Compact(ps)
}

// quote shows a value as it stands in the file: in quotes, on one line, and
// not all of a long one.
func quote(s string) string { return `"` + shorten(s) + `"` }

// shorten is quote without the quotes.
func shorten(s string) string {
	const most = 40
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return printable(s)
}

// printable escapes what would not print, or not on one line.
func printable(s string) string {
	quoted := strconv.Quote(s)
	return quoted[1 : len(quoted)-1]
}

// list writes names for a message: a, b or c.
func list(names []string) string {
	last := len(names) - 1
	if last < 1 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

// didYouMean returns the candidate that a misspelt name most likely stands
// for, "" when none is near.
func didYouMean(name string, candidates []string) string {
	fold := func(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") }
	best, least := "", 0
	for _, c := range candidates {
		// A third of the letters may be wrong, and at least one.
		limit := max(1, min(len(name), len(c))/3)
		if len(name)-len(c) > limit || len(c)-len(name) > limit {
			continue
		}
		if d := distance(fold(name), fold(c)); d <= limit && (best == "" || d < least) {
			best, least = c, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour to get from a to b (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(row[j-1]+1, last[j]+1, last[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
