// Package yamltext says where a text is not YAML, what is wrong there, and what usually
// causes it, for those who wrote the text.
package yamltext

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// Fault is what is wrong with a text. Lines and columns count from 1; a column is that of
// a character, not of a byte.
type Fault struct {
	Line, Column int
	Message      string
}

// BadCharacter finds what YAML allows nowhere, for which the parser knows no place: nil
// where there is nothing such.
func BadCharacter(text []byte) *Fault {
	line, column := 1, 1
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && size == 1:
			return &Fault{line, column, "not UTF-8; save the file in this encoding"}
		case r == '\n':
			line, column = line+1, 0
		case r < ' ' && r != '\t' && r != '\r', r >= 0x7f && r < 0xa0 && r != 0x85:
			return &Fault{line, column, fmt.Sprintf("control character U+%04X; take it out", r)}
		}
		column++
		text = text[size:]
	}
	return nil
}

// Syntax makes a fault of the error with which the parser gave a text up.
func Syntax(text []byte, err error) *Fault {
	f := &Fault{1, 1, err.Error()}
	if e, ok := errors.AsType[*yaml.LoadError](err); ok {
		f.Message = e.Message
		if e.Mark.Line > 0 {
			f.Line, f.Column = e.Mark.Line, e.Mark.Column
		}
		if e.ContextMsg != "" {
			f.Message += " " + e.ContextMsg
			if e.ContextMark.Line > 0 && e.ContextMark.Line != f.Line {
				f.Message += fmt.Sprintf(" that begins on line %d", e.ContextMark.Line)
			}
		}
	}
	if strings.HasPrefix(f.Message, "unknown anchor") { // the name may be a secret that nobody put in quotes
		f.Message = "what begins with * refers to an anchor, and there is none of this name; put a value that is text in quotes"
	}
	f.Message = "not valid YAML: " + strings.Join(strings.Fields(f.Message), " ")
	if bytes.HasPrefix(bytes.TrimLeft(f.in(text), " "), []byte("\t")) {
		f.Message += "; use spaces: YAML is not indented with tabs"
	}
	return f
}

// in is the line of a text that the fault is on.
func (f *Fault) in(text []byte) []byte {
	for i, line := range bytes.Split(text, []byte("\n")) {
		if i == f.Line-1 {
			return line
		}
	}
	return nil
}

// Says reports whether the line that the fault is on has a text in it.
func (f *Fault) Says(text []byte, part string) bool { return bytes.Contains(f.in(text), []byte(part)) }
