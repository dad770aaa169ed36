package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gatehouse-auth/gatehouse/authz/config"
)

// What to run next, for those who see an error.

// orHelp is what stands behind a mistake: what was meant, else where to look.
func orHelp(cmd *cobra.Command, meant string) string {
	if meant == "" {
		return fmt.Sprintf("see '%s --help'", cmd.CommandPath())
	}
	return meant
}

// wrongArgs says which arguments of a command are missing, or that there are too many. It
// doesn't repeat them: one may be a secret.
func wrongArgs(cmd *cobra.Command, args []string) string {
	names := strings.TrimPrefix(cmd.Use, cmd.Name())
	usage := fmt.Sprintf("it is '%s%s'", cmd.CommandPath(), names)
	names, _, flagged := strings.Cut(names, " --")
	takes := strings.Fields(names)
	missing := slices.DeleteFunc(takes[min(len(args), len(takes)):], func(name string) bool { return strings.HasPrefix(name, "[") })
	switch {
	case len(cmd.ValidArgs) > 0:
		return "it takes one argument: " + alternatives(cmd.ValidArgs)
	case len(takes) == 0 && !flagged:
		return "it takes no arguments"
	case len(missing) == 0:
		return "too many arguments: " + usage
	case len(missing) == 1:
		return missing[0] + " is missing: " + usage
	}
	return strings.Join(missing, " and ") + " are missing: " + usage
}

// suggested says which of a command's subcommands was meant, "" where none is near.
func suggested(cmd *cobra.Command, typed string) string {
	cmd.SuggestionsMinimumDistance = nearDistance(typed)
	if near := cmd.SuggestionsFor(typed); len(near) > 0 {
		return fmt.Sprintf("did you mean '%s %s'?", cmd.CommandPath(), near[0])
	}
	return ""
}

// nearDistance is how many letters of a word may be wrong: fewer of a short one, or
// --dir is near --for.
func nearDistance(typed string) int {
	return min(2, (len(typed)-1)/2)
}

// suggestedFlag says which flag of a command was meant by an unknown one, "" where none
// is near.
func suggestedFlag(cmd *cobra.Command, err error) string {
	unknown, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok || unknown.GetSpecifiedShortnames() != "" {
		return ""
	}
	if name := swapped(cmd, unknown.GetSpecifiedName()); name != "" {
		return "did you mean --" + name + "?"
	}
	// Cobra knows what is near, of commands.
	names := &cobra.Command{SuggestionsMinimumDistance: nearDistance(unknown.GetSpecifiedName())}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
		}
	})
	if near := names.SuggestionsFor(unknown.GetSpecifiedName()); len(near) > 0 {
		return "did you mean --" + near[0] + "?"
	}
	return ""
}

// swapped is the flag of a command that a word is but for two letters next to each other,
// which cobra counts as two mistakes. "" where there is none.
func swapped(cmd *cobra.Command, typed string) string {
	for i := range len(typed) - 1 {
		name := typed[:i] + typed[i+1:i+2] + typed[i:i+1] + typed[i+2:]
		if f := cmd.Flags().Lookup(name); f != nil && !f.Hidden {
			return name
		}
	}
	return ""
}

// afterProblems says what to run when a configuration is not there, "" where it is.
func afterProblems(cmd *cobra.Command, problems config.Problems) string {
	file := problems[0].File
	info, err := os.Stat(file)
	begun := filepath.Join(defaultInitDir, defaultConfigFile)
	switch {
	case errors.Is(err, fs.ErrNotExist) && file == defaultConfigFile && isFile(begun):
		named := "--config " + begun
		if strings.Contains(cmd.Use, "[FILE]") {
			named = begun
		}
		return "there is one in " + defaultInitDir + ": name it, as in '" + cmd.CommandPath() + " " + named + "', or run this there"
	case errors.Is(err, fs.ErrNotExist) && isFile(otherYAML(file)):
		return "there is " + shellWord(otherYAML(file)) + ": name that"
	case errors.Is(err, fs.ErrNotExist):
		return "'gatehouse init' writes one to begin with"
	case slices.ContainsFunc(problems, func(p config.Problem) bool { return p.Key == "static_resources" }):
		return "that is a gateway's configuration, which 'gatehouse envoy lint " + shellWord(file) + "' reads"
	case err == nil && info.IsDir() && isFile(filepath.Join(file, defaultConfigFile)):
		return "name the file in it: " + shellWord(filepath.Join(file, defaultConfigFile))
	}
	return "" // each problem says what to do about it
}

// otherYAML is a name with the other extension of YAML, "" where it has neither.
func otherYAML(file string) string {
	if name, ok := strings.CutSuffix(file, ".yml"); ok {
		return name + ".yaml"
	}
	if name, ok := strings.CutSuffix(file, ".yaml"); ok {
		return name + ".yml"
	}
	return ""
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
