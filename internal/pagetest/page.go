// Package pagetest runs what a page of documentation tells its reader to do, in the order
// in which it stands there, in an empty directory, with a real shell. So what is written
// is what works.
//
// Of a page's fenced blocks, by the word behind the fence:
//
//	sh                     is run, by one bash from the first block to the last, which ends
//	                       at the first command that fails
//	sh background port=N   is run in a terminal of its own; the page goes on when somebody
//	                       listens on that port, or, without one, at once; TERMINAL_N is
//	                       its process then. It must not fail before the end of the page
//	console                lines that begin with "$ " are run, and what follows each must be
//	                       what comes out, nothing too; … stands for anything, also for lines
//	LANG file=NAME         is written to that file, below the directory (GitHub shows the
//	                       block in the colours of LANG all the same)
//
// Any other block is shown and not run: its language must be text, or the line before it
// must say why, as in
//
//	<!-- not run: it is for another operating system -->
//
// A page says in a comment what it needs, and which ports it names. They are exchanged
// for free ones, wherever they stand, and back in what comes out:
//
//	<!-- run: needs=envoy,redis-server ports=8080,9001 -->
//
// What must not be seen by the reader, a wait for instance, is an HTML comment:
//
//	<!-- sh: until curl -sf localhost:8080; do sleep 0.1; done -->
package pagetest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Page is what there is to run on a page.
type Page struct {
	Needs  []string // programs
	Ports  []string // that it names
	Blocks []Block
	Runs   bool // it says that it is to be run
}

// Kind is what is done with a block.
type Kind int

// Kinds of blocks.
const (
	Shell Kind = iota
	Background
	Console
	File
)

// Block is one block that is run or written.
type Block struct {
	Line int // of the page, where it begins
	Kind Kind
	Text string
	Name string // of the file
	Port string // where somebody is to listen
}

var (
	comment = regexp.MustCompile(`^<!-- (run|sh|not run): *(.*?) *-->$`)
	fence   = regexp.MustCompile("^( *)(```+)(.*)$")
)

// Parse reads a page. It refuses blocks of which it isn't said what becomes of them, on
// pages that are to be run.
func Parse(text string) (Page, error) {
	if err := misspelt(text); err != nil {
		return Page{}, err
	}
	var p Page
	lines := strings.Split(text, "\n")
	excused := false
	for i := 0; i < len(lines); i++ {
		if m := comment.FindStringSubmatch(strings.TrimSpace(lines[i])); m != nil {
			switch m[1] {
			case "run":
				p.Runs = true
				if err := p.header(m[2]); err != nil {
					return p, fmt.Errorf("line %d: %w", i+1, err)
				}
			case "sh":
				p.Blocks = append(p.Blocks, Block{Line: i + 1, Kind: Shell, Text: m[2] + "\n"})
			case "not run":
				if m[2] == "" {
					return p, fmt.Errorf("line %d: why is it not run?", i+1)
				}
				excused = true
				continue
			}
		}
		m := fence.FindStringSubmatch(lines[i])
		if m == nil {
			excused = excused && strings.TrimSpace(lines[i]) == ""
			continue
		}
		begin := i
		var body strings.Builder
		for i++; i < len(lines) && strings.TrimSpace(lines[i]) != m[2]; i++ {
			body.WriteString(strings.TrimPrefix(lines[i], m[1]) + "\n")
		}
		if i == len(lines) {
			return p, fmt.Errorf("line %d: the block has no end", begin+1)
		}
		block, err := blockOf(m[3], body.String())
		switch {
		case excused:
		case err != nil:
			return p, fmt.Errorf("line %d: %w", begin+1, err)
		case block != nil:
			block.Line = begin + 1
			p.Blocks = append(p.Blocks, *block)
		}
		excused = false
	}
	return p, nil
}

func (p *Page) header(text string) error {
	for word := range strings.FieldsSeq(text) {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "needs":
			p.Needs = append(p.Needs, strings.Split(value, ",")...)
		case "ports":
			p.Ports = append(p.Ports, strings.Split(value, ",")...)
		default:
			return fmt.Errorf("run: %q is neither needs= nor ports=", word)
		}
	}
	return nil
}

// blockOf returns nil for what is only shown.
func blockOf(info, text string) (*Block, error) {
	words := strings.Fields(info)
	b := Block{Text: text}
	language := ""
	if len(words) > 0 {
		language, words = words[0], words[1:]
	}
	if language == "sh" && slices.Contains(words, "background") {
		b.Kind = Background
	}
	for _, word := range words {
		switch name, value, _ := strings.Cut(word, "="); name {
		case "background":
		case "port":
			b.Port = value
		case "file":
			b.Kind, b.Name = File, value
		default:
			return nil, fmt.Errorf("nobody knows what %q means behind a fence", word)
		}
	}
	switch {
	case b.Kind == File || b.Kind == Background || language == "sh":
		return &b, nil
	case language == "console":
		b.Kind = Console
		return &b, nil
	case language == "text":
		return nil, nil //nolint:nilnil // nothing to run, and nothing wrong
	}
	return nil, fmt.Errorf("what becomes of the block (%s)? Name its file (%s file=NAME), or say why it isn't run (<!-- not run: … -->)", info, language)
}
