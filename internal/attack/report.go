package attack

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Summary says in one line what came of all.
func (r *Report) Summary() string {
	parts := []string{fmt.Sprintf("%d held", r.Count(Held))}
	for _, v := range []Verdict{Broken, Skipped, Inconclusive} {
		if n := r.Count(v); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, v))
		}
	}
	return fmt.Sprintf("%d cases: %s", len(r.Results), strings.Join(parts, ", "))
}

// Line is a result in one line: verdict, id, status, and what reached the service,
// or why not.
func (r Result) Line() string {
	status := "-"
	if r.Status > 0 {
		status = fmt.Sprint(r.Status)
	}
	text := r.Reached
	switch {
	case r.Verdict == Skipped, r.Verdict == Inconclusive:
		text = r.Reason
	case text == "":
		text = "nothing reached the service"
	}
	return fmt.Sprintf("%-12s  %-34s  %3s  %s", r.Verdict, r.Case.ID, status, text)
}

// Explain says of a result that is broken what that means.
func (r Result) Explain() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s): %s\n", r.Case.ID, r.Case.Severity, r.Case.Title)
	fmt.Fprintf(&b, "    broken   %s\n", r.Reason)
	if r.Reached != "" {
		fmt.Fprintf(&b, "    reached  %s\n", r.Reached)
	}
	fmt.Fprintf(&b, "    why      %s\n", r.Case.Why)
	fmt.Fprintf(&b, "    from     %s\n", strings.Join(r.Case.From, "; "))
	return b.String()
}

// jsonReport is the form of the report for programs. Fields are added, never
// changed.
type jsonReport struct {
	Version      int          `json:"version"` // of this form
	Target       string       `json:"target"`
	Notes        []string     `json:"notes"`
	Held         int          `json:"held"`
	Broken       int          `json:"broken"`
	Skipped      int          `json:"skipped"`
	Inconclusive int          `json:"inconclusive"`
	Cases        []jsonResult `json:"cases"`
}

type jsonResult struct {
	ID       string   `json:"id"`
	Category string   `json:"category"`
	Severity Severity `json:"severity"`
	Title    string   `json:"title"`
	Verdict  Verdict  `json:"verdict"`
	Status   int      `json:"status"` // of the answer; 0 for none
	Reached  string   `json:"reached"`
	Reason   string   `json:"reason"`
	Why      string   `json:"why"`
	From     []string `json:"from"`
}

// JSON writes the report for programs.
func (r *Report) JSON(w io.Writer) error {
	out := jsonReport{
		Version: 1, Target: r.Target, Notes: append([]string{}, r.Notes...), Cases: []jsonResult{},
		Held: r.Count(Held), Broken: r.Count(Broken), Skipped: r.Count(Skipped), Inconclusive: r.Count(Inconclusive),
	}
	for _, result := range r.Results {
		c := result.Case
		out.Cases = append(out.Cases, jsonResult{
			c.ID, c.Category, c.Severity, c.Title, result.Verdict, result.Status, result.Reached, result.Reason, c.Why, c.From,
		})
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(out)
}
