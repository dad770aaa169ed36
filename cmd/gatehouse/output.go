package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/gatehouse-auth/gatehouse/internal/logging"
)

// What commands print for people and for scripts. Much of it comes out of the
// store, where other people wrote it: a user agent, an email address, whatever an
// application keeps in its sessions. None of that may reach a terminal as more
// than text.

// printable returns a text of which a terminal makes nothing but text: what can't
// be seen, and what changes the direction of writing, stands there as an escape.
func printable(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r == utf8.RuneError || !logging.Visible(r) }) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case logging.Visible(r):
			b.WriteRune(r)
		case r < utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		s = s[size:]
	}
	return b.String()
}

// shorten returns a text of at most so many characters, the last of which says
// that there were more.
func shorten(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most-1]) + "…"
}

// emitJSON writes a value as JSON on several lines. Everything that a terminal
// could take for more than text is escaped.
func emitJSON(w io.Writer, v any) error {
	text, err := jsonText(v, "")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, text)
	return err
}

func jsonText(v any, prefix string) (string, error) {
	var plain bytes.Buffer
	encoder := json.NewEncoder(&plain)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent(prefix, "  ")
	if err := encoder.Encode(v); err != nil {
		return "", err
	}
	return escaped(strings.TrimSuffix(plain.String(), "\n")), nil
}

// escaped returns JSON that says the same, and of which a terminal makes nothing
// but text and line ends. (Outside strings JSON has nothing else.)
func escaped(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r == '\n' || logging.Visible(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+(r-0x10000)>>10, 0xdc00+(r-0x10000)&0x3ff)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// instant is a time in JSON as the auth API writes it: RFC 3339 in UTC, with
// milliseconds; null for unknown, or never.
type instant time.Time

// MarshalJSON implements [json.Marshaler].
func (i instant) MarshalJSON() ([]byte, error) { //nolint:unparam // the interface has it
	if time.Time(i).IsZero() {
		return []byte("null"), nil
	}
	return []byte(time.Time(i).UTC().Format(`"2006-01-02T15:04:05.000Z"`)), nil
}

// span is a length of time in one unit.
func span(d time.Duration) string {
	switch d = d.Abs(); {
	case d < time.Minute:
		return strconv.Itoa(int(d/time.Second)) + "s"
	case d < time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + "m"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + "h"
	}
	return strconv.Itoa(int(d/(24*time.Hour))) + "d"
}

// distance is how far a time is from now.
func distance(t, now time.Time) string {
	if t.After(now) {
		return "in " + span(t.Sub(now))
	}
	return span(now.Sub(t)) + " ago"
}

// clock is a time and its distance from now; otherwise is what stands for none.
func clock(t, now time.Time, otherwise string) string {
	if t.IsZero() {
		return otherwise
	}
	return t.UTC().Format(time.RFC3339) + " (" + distance(t, now) + ")"
}

// parseTime takes a time that somebody typed, or that stands in a token.
func parseTime(text string) (time.Time, error) {
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil && seconds > 0 && seconds < 1<<33 {
		return time.Unix(seconds, 0), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time: write 2026-01-31T12:00:00Z, 2026-01-31 for the first moment of that day in UTC, or Unix seconds", text)
}

// tableWidth is how wide a table may be.
const tableWidth = 100

// table is rows under a header. Columns that may be shortened are, the widest
// first, until all of it fits.
type table struct {
	header  []string
	shrinks []bool
	rows    [][]string
}

func (t *table) add(cells ...string) {
	for i := range cells {
		if cells[i] = printable(cells[i]); cells[i] == "" {
			cells[i] = "-"
		}
	}
	t.rows = append(t.rows, cells)
}

const (
	columnGap   = 2
	leastColumn = 6
)

func (t *table) write(w io.Writer) error {
	widths := t.widths()
	tabs := tabwriter.NewWriter(w, 0, 0, columnGap, ' ', 0)
	for _, row := range append([][]string{t.header}, t.rows...) {
		cells := make([]string, len(row))
		for i := range row {
			cells[i] = shorten(row[i], widths[i])
		}
		fmt.Fprintln(tabs, strings.Join(cells, "\t"))
	}
	return tabs.Flush()
}

func (t *table) widths() []int {
	widths := make([]int, len(t.header))
	for _, row := range append([][]string{t.header}, t.rows...) {
		for i := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	for {
		total, widest := columnGap*(len(widths)-1), -1
		for i, width := range widths {
			total += width
			if t.shrinks[i] && width > max(leastColumn, len(t.header[i])) && (widest < 0 || width >= widths[widest]) {
				widest = i
			}
		}
		if total <= tableWidth || widest < 0 {
			return widths
		}
		widths[widest]--
	}
}

// details are lines of a name and what stands under it.
type details struct{ lines [][2]string }

// add adds a line; what is empty has none.
func (d *details) add(name, value string) {
	if value != "" {
		d.lines = append(d.lines, [2]string{name, printable(value)})
	}
}

func (d *details) write(w io.Writer) error {
	tabs := tabwriter.NewWriter(w, 0, 0, columnGap, ' ', 0)
	for _, line := range d.lines {
		fmt.Fprintf(tabs, "%s\t%s\n", line[0], line[1])
	}
	return tabs.Flush()
}

// deviceName guesses what a user agent is, for people, as the console does. It
// is what the client said of itself, and proves nothing.
func deviceName(agent string) string {
	browser, system := nameIn(browsers, agent), nameIn(systems, agent)
	switch {
	case browser != "" && system != "":
		return browser + " on " + system
	case browser != "":
		return browser
	}
	if product := product.FindStringSubmatch(agent); product != nil {
		return product[1]
	}
	return agent
}

type agentPart struct {
	name    string
	pattern *regexp.Regexp
}

var (
	browsers = []agentPart{
		{"Edge", regexp.MustCompile(`\bEdg(?:e|A|iOS)?/`)},
		{"Opera", regexp.MustCompile(`\bOPR/`)},
		{"Firefox", regexp.MustCompile(`\b(?:Firefox|FxiOS)/`)},
		{"Chrome", regexp.MustCompile(`\b(?:Chrome|CriOS|HeadlessChrome)/`)},
		{"Safari", regexp.MustCompile(`\bSafari/`)},
	}
	systems = []agentPart{
		{"iPhone", regexp.MustCompile(`\biPhone\b`)},
		{"iPad", regexp.MustCompile(`\biPad\b`)},
		{"Android", regexp.MustCompile(`\bAndroid\b`)},
		{"Windows", regexp.MustCompile(`\bWindows\b`)},
		{"ChromeOS", regexp.MustCompile(`\bCrOS\b`)},
		{"macOS", regexp.MustCompile(`\bMac OS X\b`)},
		{"Linux", regexp.MustCompile(`\bLinux\b`)},
	}
	product = regexp.MustCompile(`^([\w.-]{1,40})(?:$|[\s/])`)
)

func nameIn(list []agentPart, agent string) string {
	for _, n := range list {
		if n.pattern.MatchString(agent) {
			return n.name
		}
	}
	return ""
}
