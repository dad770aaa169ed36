package pagetest

import (
	"fmt"
	"regexp"
	"strings"
)

var meant = regexp.MustCompile(`^<!-- *(run|sh|not run)\b`)

// misspelt finds what would otherwise be neither run nor missed.
func misspelt(text string) error {
	end := "" // of the block
	begun := false
	for i, line := range strings.Split(text, "\n") {
		said := strings.TrimSpace(line)
		m := fence.FindStringSubmatch(line)
		switch {
		case begun && said != end && !strings.HasPrefix(said, "$ "):
			return fmt.Errorf("line %d: a console block begins with a command, as in $ true", i+1)
		case end == "" && meant.MatchString(said) && !comment.MatchString(said):
			return fmt.Errorf("line %d: is this meant for the test? Write <!-- run: … -->, <!-- sh: … --> or <!-- not run: … -->, on one line", i+1)
		}
		begun = end == "" && m != nil && strings.HasPrefix(m[3], "console")
		switch {
		case end == "" && m != nil:
			end = m[2]
		case said == end:
			end = ""
		}
	}
	return nil
}
