package lint

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

// Report is what one run of the linter has to say.
type Report struct {
	Files    []string
	Findings []Finding
	Ignored  []Finding // left out of Findings by the user's wish
	Version  string    // of this program
}

// NewReport sorts findings into those that count and those whose codes are to
// be ignored.
func NewReport(files []string, findings []Finding, ignore []string, version string) Report {
	r := Report{Files: files, Version: version, Findings: []Finding{}}
	for _, f := range findings {
		if slices.Contains(ignore, f.Code) {
			r.Ignored = append(r.Ignored, f)
		} else {
			r.Findings = append(r.Findings, f)
		}
	}
	return r
}

// Count returns how many findings there are of a severity.
func (r Report) Count(s Severity) int {
	n := 0
	for _, f := range r.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

// Summary says in one line how many findings there are.
func (r Report) Summary() string {
	var parts []string
	for _, s := range []Severity{Error, Warning, Note} {
		if n := r.Count(s); n > 0 {
			parts = append(parts, plural(n, string(s)))
		}
	}
	if len(parts) == 0 {
		parts = []string{"nothing found"}
	}
	text := strings.Join(parts, ", ") + " in " + plural(len(r.Files), "file")
	if len(r.Ignored) > 0 {
		var codes []string
		for _, f := range r.Ignored {
			codes = append(codes, f.Code)
		}
		slices.Sort(codes)
		text += fmt.Sprintf("; %d ignored (%s)", len(r.Ignored), strings.Join(slices.Compact(codes), ", "))
	}
	return text
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Text writes the report for people. Attack and remedy stand at the first
// finding of each code.
func (r Report) Text(w io.Writer) error {
	var b strings.Builder
	explained := map[string]bool{}
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%s:%d:%d: %s %s: %s\n", printable(f.File), f.Line, f.Column, f.Severity, f.Code, f.Message)
		if f.Within != "" {
			fmt.Fprintf(&b, "    in      %s\n", f.Within)
		}
		if f.Place != "" {
			fmt.Fprintf(&b, "    at      %s\n", f.Place)
		}
		if !explained[f.Code] {
			explained[f.Code] = true
			ruleOf(f.Code).explain(&b)
		}
		b.WriteByte('\n')
	}
	b.WriteString(r.Summary() + "\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func (r Rule) explain(b *strings.Builder) {
	if r.Attack != "" {
		fmt.Fprintf(b, "    attack  %s\n", r.Attack)
	}
	fmt.Fprintf(b, "    remedy  %s\n", r.Remedy)
	for line := range strings.Lines(r.Setting) {
		fmt.Fprintf(b, "            %s\n", strings.TrimRight(line, "\n"))
	}
}

// Text writes the rule for people.
func (r Rule) Text(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %s\n", r.Code, r.Severity, r.Title)
	r.explain(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// jsonReport is the form of --format json. Fields are added, never changed.
type jsonReport struct {
	Version  int       `json:"version"` // of this form
	Files    []string  `json:"files"`
	Errors   int       `json:"errors"`
	Warnings int       `json:"warnings"`
	Notes    int       `json:"notes"`
	Ignored  int       `json:"ignored"`
	Findings []Finding `json:"findings"`
}

// JSON writes the report for programs.
func (r Report) JSON(w io.Writer) error {
	return writeJSON(w, jsonReport{
		Version: 1, Files: r.Files, Errors: r.Count(Error), Warnings: r.Count(Warning), Notes: r.Count(Note),
		Ignored: len(r.Ignored), Findings: r.Findings,
	})
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// The part of SARIF 2.1.0 that is written.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool       sarifTool     `json:"tool"`
		ColumnKind string        `json:"columnKind"`
		Results    []sarifResult `json:"results"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name    string      `json:"name"`
		Version string      `json:"version,omitempty"`
		Rules   []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID      string       `json:"id"`
		Short   sarifMessage `json:"shortDescription"`
		Full    sarifMessage `json:"fullDescription"`
		Help    sarifMessage `json:"help"`
		Default sarifDefault `json:"defaultConfiguration"`
	}
	sarifDefault struct {
		Level string `json:"level"`
	}
	sarifMessage struct {
		Text     string `json:"text"`
		Markdown string `json:"markdown,omitempty"`
	}
	sarifResult struct {
		RuleID       string             `json:"ruleId"`
		RuleIndex    int                `json:"ruleIndex"`
		Level        string             `json:"level"`
		Message      sarifMessage       `json:"message"`
		Locations    []sarifLocation    `json:"locations"`
		Suppressions []sarifSuppression `json:"suppressions,omitempty"`
	}
	sarifSuppression struct {
		Kind string `json:"kind"`
	}
	sarifLocation struct {
		Physical sarifPhysical  `json:"physicalLocation"`
		Logical  []sarifLogical `json:"logicalLocations,omitempty"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   sarifRegion   `json:"region"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifRegion struct {
		StartLine   int `json:"startLine"`
		StartColumn int `json:"startColumn"`
	}
	sarifLogical struct {
		FullyQualifiedName string `json:"fullyQualifiedName"`
	}
)

// SARIF writes the report in the form that code scanning services read. What is
// ignored is there as suppressed.
func (r Report) SARIF(w io.Writer) error {
	driver := sarifDriver{Name: "gatehouse envoy lint", Version: r.Version}
	index := map[string]int{}
	for i, rule := range rules {
		index[rule.Code] = i
		driver.Rules = append(driver.Rules, rule.sarif())
	}
	run := sarifRun{Tool: sarifTool{driver}, ColumnKind: "unicodeCodePoints", Results: []sarifResult{}}
	add := func(findings []Finding, suppressed bool) {
		for _, f := range findings {
			result := sarifResult{
				RuleID: f.Code, RuleIndex: index[f.Code], Level: string(f.Severity),
				Message: sarifMessage{Text: strings.TrimSpace(f.Message + " " + f.Remedy)},
				Locations: []sarifLocation{{Physical: sarifPhysical{
					Artifact: sarifArtifact{fileURI(f.File)}, Region: sarifRegion{f.Line, f.Column},
				}}},
			}
			if f.Place != "" {
				result.Locations[0].Logical = []sarifLogical{{f.Place}}
			}
			if suppressed {
				result.Suppressions = []sarifSuppression{{"external"}}
			}
			run.Results = append(run.Results, result)
		}
	}
	add(r.Findings, false)
	add(r.Ignored, true)
	return writeJSON(w, sarifLog{
		Schema:  "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
		Version: "2.1.0", Runs: []sarifRun{run},
	})
}

func (r Rule) sarif() sarifRule {
	text := strings.TrimSpace(r.Attack + "\n\n" + r.Remedy)
	help := sarifMessage{Text: text, Markdown: text}
	if r.Setting != "" {
		help.Text += "\n\n" + r.Setting
		help.Markdown += "\n\n```yaml\n" + r.Setting + "\n```"
	}
	return sarifRule{
		ID: r.Code, Short: sarifMessage{Text: r.Title + "."}, Full: sarifMessage{Text: text},
		Help: help, Default: sarifDefault{string(r.Severity)},
	}
}

// fileURI returns a file's name as a URI reference.
func fileURI(name string) string {
	path := filepath.ToSlash(name)
	u := url.URL{Path: path}
	if strings.HasPrefix(path, "/") {
		u.Scheme = "file"
	}
	return u.String()
}
