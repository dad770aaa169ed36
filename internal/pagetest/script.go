package pagetest

import (
	"fmt"
	"regexp"
	"strings"
)

// prelude is what the shell knows from the beginning. Programs in the background are of
// the shell's process group, which the caller ends, or, where that was killed, watch.
const prelude = `set -euo pipefail
listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
# Whoever ends this shell, even by KILL, has not ended what it put into the background.
watch() {
	while kill -0 $$ && ! grep -qs ') Z' /proc/$$/stat; do sleep 1; done
	kill -KILL -- -$$
}
watch </dev/null >/dev/null 2>&1 &
vacant() { # a port
	if ! listening "$1"; then return 0; fi
	echo "somebody listens on port $1 already: the page has to end what it started there before"
	return 1
}
settled() { # a program of the background, at the end: it lives, ended well, or was ended by the page
	if kill -0 "$1" 2>/dev/null; then return 0; fi
	local status=0
	wait "$1" || status=$?
	case $status in 0 | 130 | 137 | 143) return 0 ;; esac
	cat "$2"
	echo "it has ended, with status $status"
	return 1
}
waited() { # a command, for as long as it fails
	for ((tries = 0; tries < 600; tries++)); do
		if eval "$1" >/dev/null 2>&1; then return 0; fi
		sleep 0.1
	done
	echo "this fails after a minute, too:"
	eval "$1"
	return 1
}
patient() { # the configuration of a gate, or of its Envoy: a busy machine answers late
	sed -i -e '/^redis: {/!s|^redis:|&\n  timeout: 5s|' -e 's|^redis: {|&timeout: 5s, |' -e 's|^                timeout: 1s$|                timeout: 5s|' \
		-e 's|{cluster_name: gatehouse}, timeout: 1s}|{cluster_name: gatehouse}, timeout: 5s}|' -e 's|max_interval: 0.5s|max_interval: 5s|' -e 's|connect_timeout: 0.25s|connect_timeout: 5s|' "$1"
}
after() { # a line of what the demo printed, and what stands before a value in the next one
	grep -A 1 "^# $1" demo.txt | sed -n "s/.*\($2\)\([^']*\)'.*/\2/p" | head -1
}
end() { # a program, and where it listens
	kill "$1"
	while listening "$2"; do sleep 0.1; done
}
# Where what comes out is no terminal, curl shows how far it is.
printf '%s\n' silent show-error >"$HOME/.curlrc"
CHECKED=$(mktemp -d "$HOME/checked.XXXX")
await() { # a port, and who is to listen there
	for ((tries = 0; tries < 600; tries++)); do
		if ! kill -0 "$2" 2>/dev/null; then
			echo "it has ended, and nobody listens on port $1"
			return 1
		fi
		if listening "$1"; then return 0; fi
		sleep 0.1
	done
	echo "nobody listens on port $1 after a minute"
	return 1
}
`

// step is what is run between two marks, and what is to come out.
type step struct {
	line   int
	script string
	wants  string // for console; with … for anything
	checks bool
}

// steps are those of a page, with ports exchanged.
func (p Page) steps(exchange func(string) string) []step {
	var all, last []step
	for i, b := range p.Blocks {
		text := exchange(b.Text)
		switch b.Kind {
		case Shell:
			all = append(all, step{line: b.Line, script: text})
		case Background:
			// The terminal's own bash is replaced by the program where there is but one.
			script := fmt.Sprintf("bash -euo pipefail -c %s >\"$TERMINALS/%d\" 2>&1 &\nSTARTED_%d=$!\n", quote(text), i, i)
			last = append(last, step{line: b.Line, script: fmt.Sprintf("settled \"$STARTED_%d\" \"$TERMINALS/%d\"\n", i, i)})
			if b.Port != "" {
				script = fmt.Sprintf("vacant %s\n", exchange(b.Port)) + script
				script += fmt.Sprintf("TERMINAL_%s=$!\n", b.Port)
				script += fmt.Sprintf("await %s $! || { cat \"$TERMINALS/%d\"; exit 1; }\n", exchange(b.Port), i)
			}
			all = append(all, step{line: b.Line, script: script})
		case File:
			all = append(all, step{line: b.Line, script: fmt.Sprintf("mkdir -p \"$(dirname %[1]s)\"\nprintf %%s %[2]s >%[1]s\n", quote(b.Name), quote(text))})
		case Console:
			all = append(all, session(b.Line, text)...)
		}
	}
	return append(all, last...)
}

// session takes the commands of a terminal session apart.
func session(line int, text string) (all []step) {
	for i, l := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		command, is := strings.CutPrefix(l, "$ ")
		switch last := len(all) - 1; {
		case is:
			all = append(all, step{line: line + 1 + i, script: command + "\n", checks: true})
		case last >= 0 && all[last].wants == "" && strings.HasSuffix(all[last].script, "\\\n"):
			all[last].script += strings.TrimPrefix(l, "> ") + "\n"
		case last >= 0:
			all[last].wants += l + "\n"
		default: // it would be neither run nor compared
			return []step{{line: line + 1 + i, script: "echo 'a console block begins with a command, as in $ true'; false"}}
		}
	}
	return all
}

// quote makes one word of a text, for the shell.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

const mark = "\x1e" // no page and no program prints that

// script is the whole program.
func script(steps []step, from, to []string) string {
	var b strings.Builder
	b.WriteString(prelude)
	b.WriteString("exchange() { sed -i -E")
	for i := range from { // two steps: what one port becomes may be another one
		fmt.Fprintf(&b, ` -e 's/\b%s\b/PORT-%d-/g'`, from[i], i)
	}
	for i := range to {
		fmt.Fprintf(&b, ` -e 's/PORT-%d-/%s/g'`, i, to[i])
	}
	b.WriteString(" -e '' \"$@\"; }\n")
	for i, s := range steps {
		fmt.Fprintf(&b, "printf '%s%%s\\n' %d\n%s\n", mark, i, strings.TrimSuffix(s.script, "\n"))
	}
	fmt.Fprintf(&b, "printf '%s%%s\\n' %d\n", mark, len(steps))
	return b.String()
}

// outputs are what each step printed; as many as were begun.
func outputs(all string) []string {
	parts := strings.Split(all, mark)[1:]
	for i, part := range parts {
		_, parts[i], _ = strings.Cut(part, "\n")
	}
	return parts
}

// fits reports whether what came out is what is written. Blanks at the ends of lines
// don't count, and a server ends lines with a carriage return.
func fits(wants, got string) bool {
	var pattern strings.Builder
	pattern.WriteString(`(?s)^`)
	for i, part := range strings.Split(tidy(wants), "…") {
		if i > 0 {
			pattern.WriteString(`.*`)
		}
		pattern.WriteString(regexp.QuoteMeta(part))
	}
	pattern.WriteString(`$`)
	return regexp.MustCompile(pattern.String()).MatchString(tidy(got))
}

var lineEnds = regexp.MustCompile(`[ \t\r]+\n`)

func tidy(text string) string {
	return strings.TrimSpace(lineEnds.ReplaceAllString(text+"\n", "\n"))
}

// exchanger exchanges numbers that stand alone.
func exchanger(from, to []string) func(string) string {
	if len(from) == 0 {
		return func(s string) string { return s }
	}
	pairs := map[string]string{}
	for i := range from {
		pairs[from[i]] = to[i]
	}
	number := regexp.MustCompile(`\b(` + strings.Join(from, "|") + `)\b`)
	return func(s string) string {
		return number.ReplaceAllStringFunc(s, func(n string) string { return pairs[n] })
	}
}
