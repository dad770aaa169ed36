package main

import (
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/gatehouse-auth/gatehouse/authz/config"
)

func configCommand(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check a configuration, or print its JSON Schema",
		Args:  usageArgs(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(configCheckCommand(env), configSchemaCommand(env))
	return cmd
}

func configCheckCommand(env environment) *cobra.Command {
	var file configFlag
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Say everything that is wrong with a configuration",
		Long: `Reads a configuration as serve would, keys and secrets included, and prints each
problem on a line of its own: file:line:column: key: what is wrong and what to do.
Nothing is started and Redis is not asked.`,
		Args:              usageArgs(cobra.MaximumNArgs(1)),
		ValidArgsFunction: completeConfig,
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := file.resolve(args, env)
			if err != nil {
				return err
			}
			cfg, warnings, err := config.Load(path, env.lookup)
			if err != nil {
				return err
			}
			for _, w := range warnings {
				fmt.Fprintf(env.stderr, "warning: %v\n", w)
			}
			g, err := newGeneration(loadedConfig{cfg: cfg}, nil, instruments{log: slog.New(slog.DiscardHandler)})
			if err != nil {
				return err
			}
			for _, w := range g.warnings {
				fmt.Fprintf(env.stderr, "warning: %s\n", w)
			}
			if err := g.close(); err != nil {
				return err
			}
			fmt.Fprintf(env.stdout, "%s: ok\n", path)
			return nil
		},
	}
	file.register(cmd)
	return cmd
}

func configSchemaCommand(env environment) *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the configuration",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			_, err := env.stdout.Write(config.Schema())
			return err
		},
	}
}
