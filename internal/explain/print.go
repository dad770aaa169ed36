package explain

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
)

// Print writes a report for people.
func (r *Report) Print(w io.Writer) error {
	p := &printer{}
	p.verdict(r)
	p.request(&r.Request)
	stage := ""
	for _, s := range r.Steps {
		if s.Stage != stage {
			stage = s.Stage
			p.title(titles[stage])
		}
		name := s.Name
		if r.RouteAt != "" && s.Stage == "policy" && r.Route != nil {
			s.Detail += ", " + r.RouteAt
		}
		p.step(marks[s.Outcome], name, s.Detail, s.Took)
		if s.Stage == "policy" && r.Route == nil && r.Request.NamedPolicy == nil {
			p.line("     (where the gateway's route names another, as in Envoy's context_extensions: --policy NAME)")
		}
	}
	if r.Upstream != nil {
		p.title("the service gets")
		for _, h := range r.Upstream.Set {
			p.line("  %s: %s", h.Name, h.Value)
		}
		p.list("  without ", r.Upstream.Remove)
	}
	if c := r.Client; c != nil {
		p.title("the client gets")
		if c.Status != 0 {
			p.line("  %d %s", c.Status, c.Body)
		}
		for _, h := range c.Headers {
			p.line("  %s: %s", h.Name, h.Value)
		}
	}
	if r.Meaning != "" {
		p.title("what that means, and what to do")
		p.text(r.Meaning)
		p.text(r.Remedy)
	}
	p.title("the gateway's log and filters get")
	for _, m := range r.Metadata {
		p.line("  %s: %s", m.Name, m.Value)
	}
	_, err := io.WriteString(w, p.b.String())
	return err
}

var titles = map[string]string{
	"request":    "the request is refused",
	"policy":     "policy",
	"credential": "credentials",
	"proof":      "is it valid?",
	"revocation": "was it revoked?",
	"identity":   "who is it?",
	"condition":  "what the policy asks",
	"limit":      "rate limit",
}

var marks = map[string]string{"ok": "ok", "refused": "NO", "none": "-"}

type printer struct{ b strings.Builder }

// line writes a line, in which nothing can move a cursor or ring a bell.
func (p *printer) line(format string, args ...any) {
	p.b.WriteString(visible(fmt.Sprintf(format, args...)))
	p.b.WriteByte('\n')
}

func visible(s string) string {
	return strings.Map(func(c rune) rune {
		if c == unicode.ReplacementChar || !unicode.IsPrint(c) {
			return '\uFFFD'
		}
		return c
	}, s)
}

func (p *printer) title(text string) { p.line(""); p.line("%s", text) }

func (p *printer) verdict(r *Report) {
	verdict := "ALLOWED"
	if r.Decision == "deny" {
		verdict = "DENIED"
	}
	took := (time.Duration(r.Took) * time.Microsecond).String()
	p.line("%s: %s  (%s)", verdict, r.Reason, took)
	if r.WouldDeny != "" {
		p.line("the policy only observes; it would deny: %s", r.WouldDeny)
	}
}

func (p *printer) request(v *RequestView) {
	p.title("request")
	p.line("  %s %s%s", v.Method, v.Host, orElse(v.Path, v.RawPath))
	if v.Path != "" && v.RawPath != v.Path {
		p.line("  sent as %s", v.RawPath)
	}
	p.list("  query, without its values: ", v.Query)
	if v.Address != "" {
		p.line("  from %s", v.Address)
	}
	p.list("  headers: ", v.Headers)
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func (p *printer) step(mark, name, detail string, took int64) {
	text := fmt.Sprintf("  %-2s %-14s %s", mark, name, detail)
	if took > 0 {
		text = fmt.Sprintf("%s  (%s)", text, time.Duration(took)*time.Microsecond)
	}
	p.line("%s", strings.TrimRight(text, " "))
}

// text writes sentences in lines that fit.
func (p *printer) text(sentences string) {
	const width = 100
	line := " "
	for word := range strings.FieldsSeq(sentences) {
		if len(line)+len(word) > width {
			p.line("%s", line)
			line = " "
		}
		line += " " + word
	}
	if line != " " {
		p.line("%s", line)
	}
}

// list writes words in lines that fit.
func (p *printer) list(title string, items []string) {
	const width = 100
	if len(items) == 0 {
		return
	}
	line := title
	for i, item := range items {
		if i < len(items)-1 {
			item += ", "
		}
		if len(line)+len(item) > width && line != title {
			p.line("%s", strings.TrimRight(line, " "))
			line = strings.Repeat(" ", len(title))
		}
		line += item
	}
	p.line("%s", line)
}
