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
// must say why, or which test in which directory does something else with it. Of a page of
// which nothing is run, one line can say so for all of it that says nothing else:
//
//	<!-- not run: it is for another operating system -->
//	<!-- checked: e2e TestCommandsOfThePage -->
//	<!-- all checked: e2e TestCommandsOfThePage -->
//
// A page says in a comment what it needs, and which ports it names. They are exchanged
// for free ones, wherever they stand, and back in what comes out:
//
//	<!-- run: needs=envoy,redis-server ports=8080,9001 -->
//
// What a reader does without being told, or needn't do, is a comment of one of these kinds.
// Each takes few forms, and refuses others: what the page works by may not be hidden.
//
//	<!-- wait: LOOK -->       people are slow: goes on when an address answers or a file
//	                          holds a text (hidden.go has the forms), and fails when that
//	                          isn't so within a minute
//	<!-- here: COMMANDS -->   this machine is another one than the reader's: exchange FILE…
//	                          exchanges the ports in files that a program has written,
//	                          patient FILE lets a gate wait longer for its store, or its
//	                          Envoy for it; and mkdir, cd and ln -s put in place what the
//	                          reader has
//	<!-- hand: STEP -->       the reader does by hand what the page says: end PORT ends the
//	                          program of a terminal, NAME=$(after LINE BEFORE) takes a value
//	                          out of what the demo printed, node -e '…' looks as a browser
//	<!-- check: COMMANDS -->  proves what the page claims, in a copy of the directory, which
//	                          is gone afterwards, as are the programs that it started
//	<!-- demo: PORT -->       the demo, which the page tells its reader to start
package pagetest

import (
	"errors"
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
	Others []Other
	Runs   bool // it says that it is to be run
}

// Other is a block that is neither run nor plain text.
type Other struct {
	Line     int // of the page, where it begins
	Language string
	Text     string
	NotRun   string // why, or
	Checked  Test   // by whom
}

// Test names a test.
type Test struct {
	Dir  string // of its package, from the repository's root
	Name string
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
	comment  = regexp.MustCompile(`^<!-- (run|wait|here|hand|check|demo|not run|checked|all checked): *(.*?) *-->$`)
	testName = regexp.MustCompile(`^(Test|Example)\w+$`)
	fence    = regexp.MustCompile("^( *)(```+)(.*)$")
)

// Parse reads a page. It refuses blocks of which it isn't said what becomes of them.
func Parse(text string) (Page, error) {
	if err := misspelt(text); err != nil {
		return Page{}, err
	}
	var p Page
	var every Test
	lines := strings.Split(text, "\n")
	var said *Other // of the block that comes next
	for i := 0; i < len(lines); i++ {
		if m := comment.FindStringSubmatch(strings.TrimSpace(lines[i])); m != nil {
			if m[1] == "demo" && !shows(text, "make demo") && !shows(text, "gatehouse demo") {
				return p, fmt.Errorf("line %d: the page doesn't tell its reader to start the demo", i+1)
			}
			next, err := p.comment(m[1], m[2], i+1, &every)
			if err != nil {
				return p, fmt.Errorf("line %d: %w", i+1, err)
			}
			if next != nil {
				said = next
				continue
			}
		}
		m := fence.FindStringSubmatch(lines[i])
		if m == nil {
			if strings.TrimSpace(lines[i]) != "" {
				if said != nil {
					return p, fmt.Errorf("line %d: a block was to come here", i+1)
				}
			}
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
		if said == nil && every != (Test{}) {
			said = &Other{Checked: every}
		}
		if err := p.add(begin+1, m[3], body.String(), said); err != nil {
			return p, fmt.Errorf("line %d: %w", begin+1, err)
		}
		said = nil
	}
	switch {
	case said != nil:
		return p, fmt.Errorf("line %d: a block was to come here", len(lines))
	case p.Runs && every != (Test{}):
		return p, errors.New("the page is to be run, and all of it is checked by a test: nothing would be run")
	}
	return p, nil
}

// comment takes in what a comment says. What it says of the next block is returned.
func (p *Page) comment(kind, text string, line int, every *Test) (*Other, error) {
	switch kind {
	case "run":
		p.Runs = true
		return nil, p.header(text)
	case "wait", "here", "hand", "check", "demo":
		step, err := hidden(kind, text)
		p.Blocks = append(p.Blocks, Block{Line: line, Kind: Shell, Text: step})
		return nil, err
	case "not run":
		if text == "" {
			return nil, errors.New("why is it not run?")
		}
		return &Other{NotRun: text}, nil
	}
	dir, name, _ := strings.Cut(text, " ")
	if !testName.MatchString(name) {
		return nil, fmt.Errorf("%q is not a directory and a test in it", text)
	}
	if kind == "checked" {
		return &Other{Checked: Test{dir, name}}, nil
	}
	*every = Test{dir, name}
	return nil, nil
}

// add takes in a block, of which something may have been said before.
func (p *Page) add(line int, info, text string, said *Other) error {
	language, _, _ := strings.Cut(strings.TrimSpace(info), " ")
	if strings.TrimSpace(info) == "text" {
		return nil
	}
	if said != nil {
		said.Line, said.Language, said.Text = line, language, text
		p.Others = append(p.Others, *said)
		return nil
	}
	block, err := blockOf(info, text)
	if err != nil {
		return err
	}
	block.Line = line
	p.Blocks = append(p.Blocks, block)
	return nil
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

func blockOf(info, text string) (Block, error) {
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
			return b, fmt.Errorf("nobody knows what %q means behind a fence", word)
		}
	}
	switch {
	case b.Kind == File || b.Kind == Background || language == "sh":
		return b, nil
	case language == "console":
		b.Kind = Console
		return b, nil
	}
	return b, fmt.Errorf("what becomes of the block (%s)? Name its file (%s file=NAME), the test that checks it (<!-- checked: DIR TestX -->), "+
		"or say why it isn't run (<!-- not run: … -->)", info, language)
}
