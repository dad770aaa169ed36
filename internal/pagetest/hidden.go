package pagetest

import (
	"fmt"
	"regexp"
	"strings"
)

// What of a hidden step could do what the reader would have to.
var (
	// verbs are what a step of kind here may do, command by command.
	verbs = regexp.MustCompile(`^(exchange|patient|mkdir|cd|ln -s) [^&|<>` + "`" + `]+$`)
	// written redirects into a file; nowhere doesn't, and an arrow of JavaScript neither.
	nowhere = regexp.MustCompile(`\d?> ?(?:/dev/null\b|&\d\b)`)
	written = regexp.MustCompile(`(?:^|[^=\-])>`)
	started = regexp.MustCompile(`(?:^|[^&])&(?:[^&]|$)`)
	changes = regexp.MustCompile(`(?:^|[\s;&|({])(?:gatehouse|envoy|redis-server|redis-cli|mv|cp|tee|rm|ln|mkdir|touch|install|sed\s+(?:-\S+\s+)*-i)\b`)
)

// hidden makes a block of what the reader doesn't see. It refuses what a page would work
// by, though nobody who only reads it could do it.
func hidden(kind, text string) (string, error) {
	switch kind {
	case "wait":
		if needed(text) {
			return "", fmt.Errorf("a wait only looks: %s", text)
		}
		return "waited " + quote(text) + "\n", nil
	case "here":
		for command := range strings.SplitSeq(text, ";") {
			if !verbs.MatchString(strings.TrimSpace(command)) {
				return "", fmt.Errorf("%q is not among what may differ on this machine: exchange, patient, mkdir, cd, ln -s; what the reader needs belongs into a block", strings.TrimSpace(command))
			}
		}
	case "hand":
		if needed(text) {
			return "", fmt.Errorf("by hand, no file is written and no program of ours is started: what the reader needs belongs into a block: %s", text)
		}
	case "check":
		return "(\n" + `cp -R . "$CHECKED/"` + "\n" + `cd "$CHECKED"` + "\n" + `trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT` + "\n" + text + "\n)\n" + `rm -rf "$CHECKED"/* "$CHECKED"/.[!.]*` + "\n", nil
	case "demo":
		return "gatehouse demo --port " + text + " --dir demo >demo.txt 2>&1 &\nwaited \"grep -q '^Ctrl-C' demo.txt\"\n", nil
	}
	return text + "\n", nil
}

// needed reports whether a command writes a file or starts a program.
func needed(text string) bool {
	text = nowhere.ReplaceAllString(text, "")
	return written.MatchString(text) || started.MatchString(text) || changes.MatchString(text)
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
