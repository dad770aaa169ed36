package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manCommand writes manual pages. Releases have them; nobody else needs it.
func manCommand(env environment) *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write manual pages, one for each command",
		Hidden: true,
		Args:   usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil { //nolint:gosec // G301: pages for everybody
				return err
			}
			return writeManual(cmd.Root(), args[0], env)
		},
	}
}

func writeManual(cmd *cobra.Command, dir string, env environment) error {
	path := filepath.Join(dir, manName(cmd)+".1")
	if err := os.WriteFile(path, []byte(manPage(cmd)), 0o644); err != nil { //nolint:gosec // G306: likewise
		return err
	}
	fmt.Fprintln(env.stdout, path)
	var errs []error
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			errs = append(errs, writeManual(sub, dir, env))
		}
	}
	return errors.Join(errs...)
}

// manName is gatehouse-sessions-list.
func manName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// manPage is a page in the language of man(7). What a command says of itself is laid out
// for a terminal already, so that lines stay as they are. It has neither date nor version:
// the same sources make the same page.
func manPage(cmd *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s 1 \"\" Gatehouse \"Gatehouse Manual\"\n", roff(strings.ToUpper(manName(cmd))))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(manName(cmd)), roff(cmd.Short))
	use := cmd.UseLine()
	if cmd.HasAvailableSubCommands() {
		use = cmd.CommandPath() + " COMMAND"
	}
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", roff(use))
	asIs := func(heading, text string) {
		if strings.TrimSpace(text) != "" {
			fmt.Fprintf(&b, ".SH %s\n.nf\n%s.fi\n", heading, roffLines(text))
		}
	}
	long := cmd.Long
	if long == "" {
		long = cmd.Short + "."
	}
	asIs("DESCRIPTION", long)
	if cmd.HasAvailableSubCommands() {
		var commands strings.Builder
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				fmt.Fprintf(&commands, "%-*s  %s\n", cmd.NamePadding(), sub.Name(), sub.Short)
			}
		}
		asIs("COMMANDS", commands.String())
	}
	cmd.InitDefaultHelpFlag()
	var all pflag.FlagSet
	for _, flags := range []*pflag.FlagSet{cmd.NonInheritedFlags(), cmd.InheritedFlags()} {
		flags.VisitAll(all.AddFlag)
	}
	asIs("OPTIONS", all.FlagUsages())
	asIs("EXAMPLES", cmd.Example)
	var also []string
	if cmd.HasParent() {
		also = append(also, manName(cmd.Parent()))
	}
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			also = append(also, manName(sub))
		}
	}
	for i, name := range also {
		end := ","
		if i == len(also)-1 {
			end = ""
		}
		if i == 0 {
			b.WriteString(".SH \"SEE ALSO\"\n")
		}
		fmt.Fprintf(&b, ".BR %s (1)%s\n", roff(name), end)
	}
	return b.String()
}

// roff is a text of one line, of which roff makes nothing but text. It has no "…": where
// the terminal has none, man would show "[HANDLE]" for "[HANDLE…]", which means one.
func roff(line string) string {
	line = strings.NewReplacer(`\`, `\e`, `…`, `...`, `-`, `\-`, `'`, `\(aq`, "`", "\\(ga", "^", `\(ha`, "~", `\(ti`).Replace(line)
	if strings.HasPrefix(line, ".") {
		line = `\&` + line
	}
	return line
}

func roffLines(text string) string {
	var b strings.Builder
	for line := range strings.Lines(strings.Trim(text, "\n") + "\n") {
		line = strings.TrimRight(line, " \n")
		if line == "" {
			b.WriteString(".sp\n")
			continue
		}
		b.WriteString(roff(line) + "\n")
	}
	return b.String()
}
