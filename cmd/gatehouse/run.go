package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gatehouse-auth/gatehouse/authz/config"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

// go-redis has one logger for all clients and writes to stderr in a form of
// its own. What it would say reaches us as errors, and gets into our log with
// the request or the readiness that it is about.
func init() { redis.SetLogger(silent{}) }

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// environment is everything that a command touches outside its arguments.
type environment struct {
	lookup         func(name string) (string, bool) // environment variables
	stdin          io.Reader
	stdout, stderr io.Writer
	// longWork is how long something may take before it is said how far it is; zero is
	// a second.
	longWork time.Duration
}

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// usageError marks a mistake in how the command was called.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// exitError ends a command with an exit code of its own; err is nil where all has
// been said already.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}
func (e exitError) Unwrap() error { return e.err }

// run executes one command line and returns the exit code. It is main without
// the process: tests call it.
func run(ctx context.Context, args []string, env environment) int {
	root := rootCommand(env) //nolint:contextcheck // cobra hands the context to the command that runs
	root.SetArgs(args)
	root.SetIn(env.stdin)
	root.SetOut(env.stdout)
	root.SetErr(env.stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var (
		usage    usageError
		exit     = exitError{code: exitFailed}
		problems config.Problems
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &exit) && exit.err == nil:
		return exit.code
	case errors.As(err, &usage):
		fmt.Fprintf(env.stderr, "gatehouse: %v\n", err)
		return exitUsage
	case errors.As(err, &problems): // one line each, in the form that editors know
		fmt.Fprintln(env.stderr, problems)
		if next := afterProblems(cmd, problems); next != "" {
			fmt.Fprintf(env.stderr, "gatehouse: %s\n", next)
		}
	default:
		fmt.Fprintf(env.stderr, "gatehouse: %v\n", err)
	}
	return exit.code
}

func rootCommand(env environment) *cobra.Command {
	root := &cobra.Command{
		Use:   "gatehouse",
		Short: "The guard at an Envoy gate",
		Long: `Gatehouse answers Envoy's external authorization checks: it resolves a session
cookie, a bearer token or an API key through Redis and says who is calling, or
why the request may not pass.

To begin: 'gatehouse demo' runs a whole gate on this machine, and 'gatehouse init'
writes one for a service of yours. When a request is denied, 'gatehouse explain' says
why.`,
		Version:       telemetry.ReadBuild().Version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          usageArgs(cobra.NoArgs),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate(telemetry.ReadBuild().String() + "\n")
	root.Flags().BoolP("version", "v", false, "say which version this is")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok && invalid.GetFlag().Value.Type() == "duration" {
			return usageError{fmt.Errorf("--%s %q: it is a number with a unit, such as 500ms, 90s, 15m or 24h", invalid.GetFlag().Name, invalid.GetValue())}
		}
		return usageError{fmt.Errorf("%w; %s", err, orHelp(cmd, suggestedFlag(cmd, err)))}
	})
	root.AddCommand(serveCommand(env), configCommand(env), keysCommand(env), passwordCommand(env), initCommand(env), demoCommand(env), readyCommand(env))
	root.AddCommand(sessionsCommand(env), tokensCommand(env), explainCommand(env), envoyCommand(env), attackCommand(env), completionCommand(env), versionCommand(env), manCommand(env))
	return root
}

// versionCommand is for those who try it before --version.
func versionCommand(env environment) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Say which version this is",
		Long:  "Says the same as --version: the version, the commit, the Go release and the platform.",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(env.stdout, telemetry.ReadBuild())
			return err
		},
	}
}

// usageArgs makes a cobra check of arguments a usage error.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		err := check(cmd, args)
		if err == nil {
			return nil
		}
		if !cmd.HasSubCommands() {
			return usageError{fmt.Errorf("%s; %s", wrongArgs(cmd, args), orHelp(cmd, ""))}
		}
		message, _, _ := strings.Cut(err.Error(), "\n")
		return usageError{fmt.Errorf("%s; %s", message, orHelp(cmd, suggested(cmd, args[0])))}
	}
}

// defaultConfigFile is read where neither an argument nor the environment
// names a file.
const defaultConfigFile = "gatehouse.yaml"

// configFlag lets a command name its configuration by argument, by --config
// or by $GATEHOUSE_CONFIG, in this order.
type configFlag struct{ path string }

func (f *configFlag) register(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.path, "config", "c", "", "configuration file (default $GATEHOUSE_CONFIG, else "+defaultConfigFile+")")
	_ = cmd.MarkFlagFilename("config", configExtensions...)
}

func (f *configFlag) resolve(args []string, env environment) (string, error) {
	if len(args) == 1 && f.path != "" && args[0] != f.path {
		return "", usageError{errors.New("the configuration is named twice: as an argument and by --config")}
	}
	if len(args) == 1 {
		return args[0], nil
	}
	if f.path != "" {
		return f.path, nil
	}
	if path, ok := env.lookup("GATEHOUSE_CONFIG"); ok && path != "" {
		return path, nil
	}
	return defaultConfigFile, nil
}
