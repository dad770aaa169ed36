package attack

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Case is one attack of the list.
type Case struct {
	// ID never changes its meaning, and is never used again for another case.
	ID       string   `yaml:"id" json:"id"`
	Category string   `yaml:"category" json:"category"`
	Severity Severity `yaml:"severity" json:"severity"`
	Title    string   `yaml:"title" json:"title"`
	Why      string   `yaml:"why" json:"why"`
	// From are the public weaknesses: CVE, CWE, RFC, publication.
	From []string `yaml:"from" json:"from"`

	// Head is an HTTP/1 request, line by line. Host, Connection and the number by
	// which the echo's answer is known again are added where they are not there.
	Head []string `yaml:"head,omitempty" json:"head,omitempty"`
	Body string   `yaml:"body,omitempty" json:"body,omitempty"`
	// HTTP2 is sent instead of Head.
	HTTP2 *HTTP2 `yaml:"http2,omitempty" json:"http2,omitempty"`
	// Token is what {token} stands for.
	Token *Forgery `yaml:"token,omitempty" json:"token,omitempty"`

	Expect Expect `yaml:"expect" json:"expect"`
}

// HTTP2 is a request's fields, valid or not. Pseudo-headers that are not named
// have their ordinary values.
type HTTP2 struct {
	Fields   [][2]string `yaml:"fields" json:"fields"`
	Body     string      `yaml:"body,omitempty" json:"body,omitempty"`
	Trailers [][2]string `yaml:"trailers,omitempty" json:"trailers,omitempty"`
}

// Expect is what must hold of a request that reaches the service. That it is
// refused is always good.
type Expect struct {
	// Refused: it must not reach the service at all.
	Refused bool `yaml:"refused,omitempty" json:"refused,omitempty"`
	// Identity is whom the identity headers name, in any spelling of their names:
	// "caller" or "nobody", each as in an ordinary request.
	Identity string `yaml:"identity,omitempty" json:"identity,omitempty"`
	// Unprotected: without a credential, it must not arrive at a path that some
	// server reads as the protected one.
	Unprotected bool `yaml:"unprotected,omitempty" json:"unprotected,omitempty"`
	// Absent headers must not arrive, in any spelling.
	Absent []string `yaml:"absent,omitempty" json:"absent,omitempty"`
	// Unsaid headers must not say what the attacker said.
	Unsaid []string `yaml:"unsaid,omitempty" json:"unsaid,omitempty"`
	// Keeps are the first letters of headers that arrive with an ordinary request,
	// and have to arrive with this one.
	Keeps []string `yaml:"keeps,omitempty" json:"keeps,omitempty"`
	// Framing: it must arrive with one length only, and answers must stay with
	// their requests.
	Framing bool `yaml:"framing,omitempty" json:"framing,omitempty"`
}

// Severity says how bad it is when a case does not hold.
type Severity string

// The severities.
const (
	High   Severity = "high"   // somebody gets in, or is somebody else
	Medium Severity = "medium" // a service is lied to about something else, or a defence is missing
)

// Categories are the categories of cases, in the order of the list.
func Categories() []string { return slices.Clone(categories) }

var categories = []string{
	"credentials", "header-spoofing", "hop-by-hop", "override", "path-confusion", "method", "cookie", "token", "smuggling", "http2",
}

//go:embed attacks.yaml
var listText []byte

// List returns all cases, by category.
func List() []Case { return slices.Clone(list) }

var list = func() []Case {
	cases, err := parseList(listText)
	if err != nil {
		panic("attack: attacks.yaml: " + err.Error())
	}
	return cases
}()

var idForm = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// parseList reads a list, strictly.
func parseList(text []byte) ([]Case, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	var cases []Case
	if err := decoder.Decode(&cases); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, c := range cases {
		if err := c.validate(); err != nil {
			return nil, fmt.Errorf("%q: %w", c.ID, err)
		}
		if seen[c.ID] {
			return nil, fmt.Errorf("%q is there twice", c.ID)
		}
		seen[c.ID] = true
	}
	slices.SortStableFunc(cases, func(a, b Case) int {
		return slices.Index(categories, a.Category) - slices.Index(categories, b.Category)
	})
	return cases, nil
}

func (c *Case) validate() error {
	switch {
	case !idForm.MatchString(c.ID):
		return errors.New("the id is not in kebab-case")
	case !slices.Contains(categories, c.Category):
		return fmt.Errorf("there is no category %q", c.Category)
	case c.Severity != High && c.Severity != Medium:
		return fmt.Errorf("there is no severity %q", c.Severity)
	case c.Title == "" || c.Why == "" || len(c.From) == 0:
		return errors.New("title, why and from are needed")
	case (len(c.Head) == 0) == (c.HTTP2 == nil):
		return errors.New("either head or http2 is needed")
	case !slices.Contains([]string{"", callerIdentity, nobodyIdentity}, c.Expect.Identity):
		return fmt.Errorf("expect.identity is %s or %s", callerIdentity, nobodyIdentity)
	case !c.Expect.Refused && c.Expect.Identity == "" && !c.Expect.Unprotected && !c.Expect.Framing:
		return errors.New("nothing is expected")
	case (c.Token != nil) != strings.Contains(c.source(), "{token}"):
		return errors.New("{token} and token belong together")
	}
	return nil
}

// Names of expect.identity.
const (
	callerIdentity = "caller"
	nobodyIdentity = "nobody"
)

// source is all text of the request, with its placeholders.
func (c *Case) source() string {
	parts := append(slices.Clone(c.Head), c.Body)
	if c.HTTP2 != nil {
		for _, f := range slices.Concat(c.HTTP2.Fields, c.HTTP2.Trailers) {
			parts = append(parts, f[0], f[1])
		}
		parts = append(parts, c.HTTP2.Body)
	}
	return strings.Join(parts, "\n")
}

// Choose returns the cases that only names, or all where it names none, without
// those that skip names. Both name ids and categories; an unknown name is an error.
func Choose(cases []Case, only, skip []string) ([]Case, error) {
	for _, name := range slices.Concat(only, skip) {
		if !slices.ContainsFunc(cases, func(c Case) bool { return c.named(name) }) {
			return nil, fmt.Errorf("there is no case and no category %q", name)
		}
	}
	var chosen []Case
	for _, c := range cases {
		if len(only) > 0 && !slices.ContainsFunc(only, c.named) || slices.ContainsFunc(skip, c.named) {
			continue
		}
		chosen = append(chosen, c)
	}
	if len(chosen) == 0 {
		return nil, errors.New("no case is left")
	}
	return chosen, nil
}

func (c Case) named(name string) bool { return c.ID == name || c.Category == name }
