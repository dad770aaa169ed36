package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/config"
	"github.com/gatehouse-auth/gatehouse/envoy/lint"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

func envoyCommand(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "envoy",
		Short: "Look at a gateway's configuration",
		Args:  usageArgs(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(lintCommand(env))
	return cmd
}

// stdinName stands for standard input among files.
const stdinName = "-"

type lintFlags struct {
	config, format string
	ignore         []string
	strict, rules  bool
}

func lintCommand(env environment) *cobra.Command {
	var flags lintFlags
	cmd := &cobra.Command{
		Use:   "lint FILE…",
		Short: "Find the settings of a gateway that turn the check into decoration",
		Long: `Reads configurations of gateways and says which settings let requests past the
check, or let clients say who they are: with the place in the file, what an
attacker does with it, and the setting that closes it. - is standard input.

A file is, in YAML or JSON, with any number of documents in it:
  Envoy           a bootstrap, the admin interface's /config_dump, listeners, route
                  configurations and clusters, discovery responses
  Istio           AuthorizationPolicy with action CUSTOM; the mesh configuration: the
                  ConfigMap istio, an IstioOperator, Helm values; VirtualService,
                  Gateway, and the gateway chart's values
  Envoy Gateway   SecurityPolicy with extAuth, ClientTrafficPolicy, HTTPRoute

Give all files of one gateway at once: they are read together.

With --config it also knows Gatehouse's policies and the names of the identity
headers, and finds names that don't exist.

Exits 0 when there is no error, 1 when there is one (with --strict: a warning),
2 when it was called wrongly.`,
		Example: `  gatehouse envoy lint envoy/envoy.yaml --config gatehouse.yaml
  curl -s http://127.0.0.1:9901/config_dump | gatehouse envoy lint -
  gatehouse envoy lint --strict --format sarif envoy.yaml >lint.sarif
  gatehouse envoy lint deploy/istio/*.yaml
  gatehouse envoy lint --rules GH101`,
		Args: func(cmd *cobra.Command, args []string) error {
			if flags.rules {
				return nil
			}
			return usageArgs(cobra.MinimumNArgs(1))(cmd, args)
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if !slices.Contains([]string{"text", "json", "sarif"}, flags.format) {
				return usageError{fmt.Errorf("--format %s: it is text, json or sarif", flags.format)}
			}
			if flags.rules {
				return printRules(env.stdout, args, flags.format)
			}
			return runLint(env, args, flags)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&flags.config, "config", "c", "", "Gatehouse's configuration: its policies and identity headers")
	f.StringVar(&flags.format, "format", "text", "text, json or sarif (2.1.0)")
	f.StringSliceVar(&flags.ignore, "ignore", nil, "leave out findings of this code; repeat it for more")
	f.BoolVar(&flags.strict, "strict", false, "exit 1 on warnings, too")
	f.BoolVar(&flags.rules, "rules", false, "list all rules, or explain those whose codes are given, and read no file")
	_ = cmd.MarkFlagFilename("config", configExtensions...)
	completeWords(cmd, "format", "text", "json", "sarif")
	var codes []string
	for _, rule := range lint.Rules() {
		if rule.Ignorable() {
			codes = append(codes, cobra.CompletionWithDesc(rule.Code, rule.Title))
		}
	}
	completeWords(cmd, "ignore", codes...)
	return cmd
}

func runLint(env environment, files []string, flags lintFlags) error {
	for i, code := range flags.ignore {
		flags.ignore[i] = strings.ToUpper(strings.TrimSpace(code))
		rules, err := rulesOf([]string{code})
		if err != nil {
			return err
		}
		if !rules[0].Ignorable() {
			return usageError{fmt.Errorf("%s can't be ignored: in a file that is not read nothing is found", rules[0].Code)}
		}
	}
	options, err := lintOptions(env, flags.config)
	if err != nil {
		return err
	}
	var (
		sources []lint.Source
		names   []string
		seen    = map[string]bool{}
	)
	for _, file := range files {
		clean := filepath.Clean(file)
		if seen[clean] {
			return usageError{fmt.Errorf("%q is named twice", file)}
		}
		seen[clean] = true
		source, err := lintSource(env, file)
		if err != nil {
			return err
		}
		sources, names = append(sources, source), append(names, source.Name)
	}
	report := lint.NewReport(names, lint.Lint(sources, options), flags.ignore, telemetry.ReadBuild().Version)
	write := map[string]func(io.Writer) error{"text": report.Text, "json": report.JSON, "sarif": report.SARIF}[flags.format]
	if err := write(env.stdout); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if report.Count(lint.Error) > 0 || flags.strict && report.Count(lint.Warning) > 0 {
		return fmt.Errorf("lint: %s", report.Summary())
	}
	return nil
}

func lintSource(env environment, file string) (lint.Source, error) {
	if file == stdinName {
		text, err := io.ReadAll(env.stdin)
		if err != nil {
			return lint.Source{}, fmt.Errorf("read standard input: %w", err)
		}
		return lint.Source{Name: "stdin", Data: text}, nil
	}
	text, err := os.ReadFile(file) //nolint:gosec // G304: the file that the user names
	if err != nil {
		if pe, ok := errors.AsType[*fs.PathError](err); ok { // says the name as it is, line breaks and all
			err = pe.Err
		}
		next := ""
		switch {
		case errors.Is(err, fs.ErrNotExist):
			next = "; 'gatehouse init' writes one to begin with"
		case isDir(file):
			next = "; name the files in it, all of one gateway at once, as in " + shellWord(filepath.Clean(file)) + "/*.yaml"
		}
		return lint.Source{}, fmt.Errorf("read the gateway's configuration, %q: %w%s", file, err, next)
	}
	return lint.Source{Name: file, Data: text}, nil
}

// lintOptions reads what the rules want to know of Gatehouse's configuration.
func lintOptions(env environment, path string) (lint.Options, error) {
	if path == "" {
		return lint.Options{}, nil
	}
	cfg, _, err := config.Load(path, env.lookup)
	if err != nil {
		return lint.Options{}, err
	}
	known := &lint.Gatehouse{
		Policies: cfg.PolicyNames(),
		Fallback: len(cfg.Routes) > 0 || cfg.DefaultPolicy != "",
	}
	for _, name := range known.Policies {
		p := cfg.Policies[name]
		if p.Anonymous {
			known.Anonymous = append(known.Anonymous, name)
		}
		known.Kinds = append(known.Kinds, p.Credentials...)
		for _, header := range slices.Sorted(maps.Keys(p.Headers)) {
			if !slices.Contains(known.Headers, header) {
				known.Headers = append(known.Headers, header)
			}
		}
	}
	if cfg.Identity.Asserting() {
		known.Headers = append(known.Headers, authz.HeaderAssertion)
	}
	for _, a := range []config.Address{cfg.Server.Check.Listen, cfg.Server.Ops.Listen} {
		_, address := a.Network()
		known.Private = append(known.Private, address)
	}
	return lint.Options{IdentityHeaders: cfg.Identity.Headers.Authz(), Gatehouse: known}, nil
}

// rulesOf returns the rules of these codes; all of them when none is given.
func rulesOf(codes []string) ([]lint.Rule, error) {
	all := lint.Rules()
	if len(codes) == 0 {
		return all, nil
	}
	var out []lint.Rule
	for _, code := range codes {
		i := slices.IndexFunc(all, func(r lint.Rule) bool { return strings.EqualFold(r.Code, strings.TrimSpace(code)) })
		if i < 0 {
			return nil, usageError{fmt.Errorf("there is no rule %q; 'gatehouse envoy lint --rules' lists them", code)}
		}
		out = append(out, all[i])
	}
	return out, nil
}

func printRules(w io.Writer, codes []string, format string) error {
	rules, err := rulesOf(codes)
	if err != nil {
		return err
	}
	switch format {
	case "sarif":
		return usageError{errors.New("--rules knows --format text and json")}
	case "json":
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(rules)
	}
	for _, rule := range rules {
		if len(codes) > 0 {
			err = rule.Text(w)
		} else {
			_, err = fmt.Fprintf(w, "%s  %-7s  %s\n", rule.Code, rule.Severity, rule.Title)
		}
		if err != nil {
			return fmt.Errorf("print the rules: %w", err)
		}
	}
	return nil
}
