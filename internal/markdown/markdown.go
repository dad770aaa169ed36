// Package markdown lays out the text of pages that are generated, as people lay out the
// others.
package markdown

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Width is how many characters a line of a page has at most, where no word is longer.
const Width = 118

// Paragraph breaks a text into lines, and ends the last of them. How its words were
// spaced before doesn't matter.
func Paragraph(text string) string { return paragraph(text, Width, "\n") }

// Item is a paragraph behind the bullet of a list.
func Item(text string) string { return "- " + paragraph(text, Width-2, "\n  ") }

func paragraph(text string, width int, next string) string {
	var b strings.Builder
	column := 0
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case column == 0:
		case column+1+n > width:
			b.WriteString(next)
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	b.WriteByte('\n')
	return b.String()
}

// Upper is a text that begins like a sentence.
func Upper(text string) string {
	r, n := utf8.DecodeRuneInString(text)
	if n == 0 {
		return ""
	}
	return string(unicode.ToUpper(r)) + text[n:]
}
