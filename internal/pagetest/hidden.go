package pagetest

import (
	"fmt"
	"regexp"
	"strings"
)

// What a hidden step may be, whole. A list of what it may not be would have holes.
var (
	word    = "(?:'[^']*'|\"[^\"$`\\\\]*\"|\"\\$[A-Z_]+\"|[\\w./:]+)"
	address = `(?:http://)?127\.0\.0\.1:\d+[\w./]*`
	// looks are how a wait looks.
	looks = whole(`curl -sf -o /dev/null `+address,
		`curl -s `+address+` \| grep -q `+word,
		`grep -q `+word+` `+word,
		`\[\[ \$\(curl -s -o /dev/null -w '%\{http_code\}' `+address+`\) == \d+ \]\]`)
	// differs is what a step of kind here does, command by command. What is linked to is not the page's.
	outside = `"\$(?:REPOSITORY|NODE_MODULES|USERCONTEXT)"?[\w./]*"?(?:/\*)?`
	differs = whole(`exchange(?: [\w./]+)+`, `patient [\w./]+`, `mkdir node_modules`, `cd (?:"\$REPOSITORY"|'[^']*')`, `ln -s(?: `+outside+`)+ [\w./@-]+`)
	// A reader takes a value by hand, ends a program, and looks with a browser.
	taken  = whole(`(?:[A-Z_]+=\$\(after ` + word + ` (?:\w+=|` + word + `)\) ?)+`)
	ended  = whole(`end (\d+)`)
	looked = whole(`node -e '([^']*)'(?: ` + word + `)*`)
	// reaches is what Node has and a browser hasn't: files and programs.
	reaches = regexp.MustCompile(`\b(?:fs|child_process|require|getBuiltinModule)\b`)
	port    = whole(`\d+`)
)

func whole(forms ...string) *regexp.Regexp {
	return regexp.MustCompile(`^(?:` + strings.Join(forms, "|") + `)$`)
}

// hidden makes a block of what the reader doesn't see. It refuses what a page would work
// by, though nobody who only reads it could do it.
func hidden(kind, text string) (string, error) {
	switch kind {
	case "wait":
		if !looks.MatchString(text) {
			return "", fmt.Errorf("a wait only looks, as the others do (curl -sf -o /dev/null ADDRESS, curl -s ADDRESS | grep -q TEXT, grep -q TEXT FILE, or by the status that comes): %s", text)
		}
		return "waited " + quote(text) + "\n", nil
	case "here":
		for command := range strings.SplitSeq(text, ";") {
			if !differs.MatchString(strings.TrimSpace(command)) {
				return "", fmt.Errorf("%q is not among what may differ on this machine: exchange, patient, mkdir, cd, ln -s; what the reader needs belongs into a block", strings.TrimSpace(command))
			}
		}
	case "hand":
		if m := ended.FindStringSubmatch(text); m != nil {
			return fmt.Sprintf("end \"$TERMINAL_%[1]s\" %[1]s\n", m[1]), nil
		}
		script := looked.FindStringSubmatch(text)
		if !taken.MatchString(text) && (script == nil || reaches.MatchString(script[1])) {
			return "", fmt.Errorf("by hand, a reader takes a value (NAME=$(after LINE BEFORE)), ends a program (end PORT) or looks with a browser (node -e '…'); what else is needed belongs into a block: %s", text)
		}
	case "check":
		return "(\n" + `cp -R . "$CHECKED/"` + "\n" + `cd "$CHECKED"` + "\n" + `trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT` + "\n" + text + "\n)\n" + `rm -rf "$CHECKED"/* "$CHECKED"/.[!.]*` + "\n", nil
	case "demo":
		if !port.MatchString(text) {
			return "", fmt.Errorf("%q is not a port", text)
		}
		return "gatehouse demo --port " + text + " --dir demo >demo.txt 2>&1 &\nwaited \"grep -q '^Ctrl-C' demo.txt\"\n", nil
	}
	return text + "\n", nil
}

// shows reports whether a reader sees a text.
func shows(page, text string) bool {
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(strings.TrimSpace(line), "<!--") && strings.Contains(line, text) {
			return true
		}
	}
	return false
}
