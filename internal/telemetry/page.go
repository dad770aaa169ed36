package telemetry

import (
	"fmt"
	"strings"

	"github.com/gatehouse-auth/gatehouse/internal/markdown"
)

// Page is the reference of docs/metrics.md.
func Page() string {
	var b strings.Builder
	for _, g := range Catalogue() {
		fmt.Fprintf(&b, "\n### %s\n", g.Title)
		for _, m := range g.Metrics {
			m.write(&b)
		}
	}
	listing(&b, "Reasons", "Values of the label `reason` are", reasonLabel.Values)
	listing(&b, "Calls", "Values of the label `call` are the calls of the auth API,", callLabel.Values)
	return b.String()
}

func listing(b *strings.Builder, title, begin string, values []string) {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = "`" + v + "`"
	}
	fmt.Fprintf(b, "\n### %s\n\n%s", title, markdown.Paragraph(begin+" "+strings.Join(quoted, ", ")+"."))
}

func (m *Metric) write(b *strings.Builder) {
	kind := strings.ToUpper(string(m.Type[:1])) + string(m.Type[1:])
	if m.Unit != "" {
		kind += ", in " + m.Unit
	}
	fmt.Fprintf(b, "\n#### `%s`\n\n%s", m.Name, markdown.Paragraph(kind+". "+m.Help))
	if m.Use != "" {
		b.WriteString("\n" + markdown.Paragraph(m.Use))
	}
	if len(m.Labels) == 0 {
		return
	}
	b.WriteString("\n| label | values |\n| --- | --- |\n")
	for _, l := range m.Labels {
		fmt.Fprintf(b, "| `%s` | %s |\n", l.Name, l.valuesText())
	}
}

func (l Label) valuesText() string {
	switch {
	case l.Values == nil:
		return l.From
	case l.Name == "reason":
		texts := []string{"one of the [reasons](#reasons)"}
		for _, v := range l.Values[len(reasonLabel.Values):] {
			texts = append(texts, "`"+v+"`")
		}
		return strings.Join(texts, ", ")
	case l.Name == callLabel.Name:
		return "one of the [calls](#calls)"
	}
	texts := make([]string, len(l.Values))
	for i, v := range l.Values {
		texts[i] = "`" + v + "`"
		if v == "" {
			texts[i] = "empty (none)"
		}
	}
	return strings.Join(texts, ", ")
}
