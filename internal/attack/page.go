package attack

import (
	"fmt"
	"strconv"
	"strings"
)

//go:generate go test -count=1 -run ^TestPageIsFresh$ . -update

// pageMark is where the list begins on the page.
const pageMark = "<!-- What follows is made from internal/attack/attacks.yaml. 'make generate' writes it. -->\n"

// aboutCategories says what cases of a category have in common.
var aboutCategories = map[string]string{ //nolint:gosec // G101: no credential
	"credentials":     "Without a credential, or with something that is none.",
	"header-spoofing": "The client says who it is, in the headers by which services know the caller. As an ordinary user unless it says otherwise.",
	"hop-by-hop":      "The client names headers that are to be dropped on the way, or asks for another protocol.",
	"override":        "The client says of the request what only a gateway may say: path, method, host, address.",
	"path-confusion":  "Paths that two servers read differently, without a credential. What arrives is read as the most generous of servers would.",
	"method":          "Other methods and versions, without a credential.",
	"cookie":          "Cookies that are made from the user's own.",
	"token":           "Tokens that are made from the user's own. Some need the issuer's public key, and those that it signs its private one.",
	"smuggling":       "A request that one server takes for two.",
	"http2":           "The same in HTTP/2, where the target speaks it, and what only HTTP/2 allows.",
}

// page is the list for people, as Markdown.
func page(cases []Case) string {
	var b strings.Builder
	category := ""
	for _, c := range cases {
		if c.Category != category {
			category = c.Category
			fmt.Fprintf(&b, "\n### %s\n\n%s\n\n| case | what is sent | what must hold | why, and where it comes from |\n|---|---|---|---|\n", category, aboutCategories[category])
		}
		severity := ""
		if c.Severity == Medium {
			severity = " (medium)"
		}
		fmt.Fprintf(&b, "| `%s`%s | %s: %s | %s | %s *%s.* |\n", c.ID, severity, sentence(c.Title), c.shown(), c.Expect, cell(c.Why), cell(strings.Join(c.From, "; ")))
	}
	return b.String()
}

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// shown is the heart of a request, in one line.
func (c *Case) shown() string {
	var parts []string
	code := func(s string) {
		quoted := strconv.QuoteToASCII(s)
		quoted = strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
		if len(quoted) > 110 {
			quoted = quoted[:109] + "…"
		}
		parts = append(parts, "`"+strings.ReplaceAll(quoted, "|", "\\|")+"`")
	}
	for i, line := range c.Head {
		const most = 5
		if i == most {
			parts = append(parts, "…")
			break
		}
		code(line)
	}
	if c.HTTP2 != nil {
		for _, f := range c.HTTP2.Fields {
			code(strings.TrimSuffix(f[0]+": "+f[1], ": "))
		}
		for _, f := range c.HTTP2.Trailers {
			code("trailer " + f[0] + ": " + f[1])
		}
	}
	if c.Body != "" {
		code(c.Body)
	}
	return strings.Join(parts, "<br>")
}

// String says what must hold.
func (e Expect) String() string {
	if e.Refused {
		return "it does not reach the service"
	}
	var parts []string
	if e.Identity != "" {
		parts = append(parts, "it is refused, or arrives as "+e.Identity)
	}
	if e.Unprotected {
		parts = append(parts, "it is refused, or arrives at no path that could be read as the protected one")
	}
	if len(e.Absent) > 0 {
		parts = append(parts, "without "+strings.Join(e.Absent, ", "))
	}
	if len(e.Unsaid) > 0 {
		parts = append(parts, "with nothing of the client's in "+strings.Join(e.Unsaid, ", "))
	}
	if len(e.Keeps) > 0 {
		parts = append(parts, "with what the gateway sends otherwise in "+strings.Join(e.Keeps, "…, ")+"…")
	}
	if e.Framing {
		parts = append(parts, "with one length, and no answer goes astray")
	}
	return strings.Join(parts, "; ")
}

func cell(s string) string { return strings.ReplaceAll(s, "|", "\\|") }
