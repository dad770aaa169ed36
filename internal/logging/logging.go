// Package logging makes the handlers behind every log of Gatehouse. Two things hold
// for each line, whoever writes it and in every format:
//
// It is one line of printable text. Much of a line is what a client sent. What a
// terminal, a browser or a reader of lines takes for more than text (control
// characters, those of C1 too, line separators, marks that change the direction of
// writing, zero-width characters) stands there as an escape.
//
// It holds no credential. A value is shown when its type is known to be harmless
// (see [Redacted]), when it isn't secret by the name that it stands under, and without
// those parts that are secret by their looks.
package logging

import (
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"unicode"
)

// Options of a handler. The zero value is JSON at level info.
type Options struct {
	Text  bool         // for people, in place of one JSON object per line
	Level slog.Leveler // nil: info
}

// NewHandler returns a handler that writes to w, one Write for each line.
func NewHandler(w io.Writer, o Options) slog.Handler {
	options := &slog.HandlerOptions{Level: o.Level, ReplaceAttr: Redacted}
	if o.Text {
		return slog.NewTextHandler(escaping{w}, options)
	}
	return slog.NewJSONHandler(escaping{w}, options)
}

// New is a logger with that handler.
func New(w io.Writer, o Options) *slog.Logger { return slog.New(NewHandler(w, o)) }

// escaping writes lines without anything that can't be seen. Outside of quotes a
// handler writes nothing of the kind, and inside \u0085 says the same in both formats.
type escaping struct{ w io.Writer }

func (e escaping) Write(line []byte) (int, error) {
	if plain(line) {
		return e.w.Write(line)
	}
	if _, err := io.WriteString(e.w, Escape(string(line))); err != nil {
		return 0, err
	}
	return len(line), nil
}

// plain reports whether a line is printable ASCII, as nearly all are.
func plain(line []byte) bool {
	for i, b := range line {
		if (b < ' ' || b > '~') && (b != '\n' || i < len(line)-1) {
			return false
		}
	}
	return true
}

// Visible reports whether something is to be seen where a character stands in a line of
// text, and that in its place: no control character, mark of direction, or blank but the
// space.
func Visible(r rune) bool {
	switch r {
	case '\u115f', '\u1160', '\u2800', '\u3164', '\uffa0': // letters and a symbol that are blank
		return false
	}
	return strconv.IsPrint(r) && !unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// Escape returns a line of JSON, or of quoted text, that says the same with nothing in
// it but printable characters. A line end is only kept at the end.
func Escape(line string) string {
	text, end := strings.CutSuffix(line, "\n")
	var b strings.Builder
	b.Grow(len(line) + 16)
	for _, r := range text {
		switch {
		case Visible(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+(r-0x10000)>>10, 0xdc00+(r-0x10000)&0x3ff)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	if end {
		b.WriteByte('\n')
	}
	return b.String()
}
