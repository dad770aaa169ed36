package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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
	case errors.Is(err, fs.ErrNotExist):
		return "'gatehouse init' writes one to begin with"
	case err == nil && info.IsDir() && isFile(filepath.Join(file, defaultConfigFile)):
		return "name the file in it: " + shellWord(filepath.Join(file, defaultConfigFile))
	}
	return "" // each problem says what to do about it
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
