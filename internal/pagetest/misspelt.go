package pagetest

import (
	"fmt"
	"regexp"
	"strings"
)

var meant = regexp.MustCompile(`^<!-- *(run|sh|wait|here|hand|check|demo|not run|checked|all checked)\b`)

// misspelt finds comments that would otherwise be neither run nor missed.
func misspelt(text string) error {
	end := "" // of the block that this is in
	for i, line := range strings.Split(text, "\n") {
		said := strings.TrimSpace(line)
		m := fence.FindStringSubmatch(line)
		switch {
		case end != "" && said == end:
			end = ""
		case end == "" && m != nil:
			end = m[2]
		case end == "" && meant.MatchString(said) && !comment.MatchString(said):
			return fmt.Errorf("line %d: is this meant for the test? The kinds are run, wait, here, hand, check, demo, not run, checked and all checked, as in <!-- wait: … -->, on one line", i+1)
		}
	}
	return nil
}
