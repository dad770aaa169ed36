package main

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authapi"
	"github.com/gatehouse-auth/gatehouse/authz/users"
)

func completionCommand(env environment) *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print a script by which a shell completes commands",
		Long: `Prints a script for your shell, which then completes commands, flags, and what can be
known without asking anybody: files, words that a flag takes, ids out of the users file
of the configuration. TAB never asks Redis.

  bash         source <(gatehouse completion bash)       in ~/.bashrc; needs the package
               bash-completion
  zsh          source <(gatehouse completion zsh)        in ~/.zshrc, behind compinit
  fish         gatehouse completion fish | source        in ~/.config/fish/config.fish
  powershell   gatehouse completion powershell | Out-String | Invoke-Expression
                                                         in $PROFILE`,
		Args:      usageArgs(cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)),
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(env.stdout, true)
			case "zsh":
				return root.GenZshCompletion(env.stdout)
			case "fish":
				return root.GenFishCompletion(env.stdout, true)
			}
			return root.GenPowerShellCompletionWithDesc(env.stdout)
		},
	}
}

// Extensions of configuration files.
var configExtensions = []string{"yaml", "yml"}

// completeConfig completes a configuration that is named as an argument.
func completeConfig(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return configExtensions, cobra.ShellCompDirectiveFilterFileExt
}

// completeFlag registers how a flag of a command is completed.
func completeFlag(cmd *cobra.Command, flag string, complete cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic("completion: " + err.Error()) // a flag that is not there
	}
}

// completeWords completes a flag that takes one of these words.
func completeWords(cmd *cobra.Command, flag string, words ...string) {
	completeFlag(cmd, flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// sketch is of a configuration what completion wants of it. Whoever presses TAB
// need not have the secrets in the environment that the whole needs, and wants no
// message about what is wrong with it.
type sketch struct {
	Users  struct{ File string }
	Tokens struct {
		Issuer    string
		Audiences []string
	}
	Policies map[string]any

	dir string
}

func sketchOf(cmd *cobra.Command, env environment) (s sketch) {
	var flag configFlag
	if f := cmd.Flags().Lookup("config"); f != nil {
		flag.path = f.Value.String()
	}
	path, err := flag.resolve(nil, env)
	if err != nil {
		return s
	}
	if !readAtOnce(path) {
		return s
	}
	text, err := os.ReadFile(path) //nolint:gosec // G304: the operator names the file
	if err != nil || yaml.Unmarshal(text, &s) != nil {
		return sketch{}
	}
	s.dir = filepath.Dir(path)
	return s
}

// readAtOnce reports whether a file is one that nobody waits for who presses TAB: a named
// pipe is none, nor is one with more names than anybody would look through.
func readAtOnce(file string) bool {
	const most = 1 << 20
	info, err := os.Stat(file)
	return err == nil && info.Mode().IsRegular() && info.Size() <= most
}

// users are those of the users file; none where it can't be read.
func (s *sketch) users() []authz.User {
	file := s.Users.File
	if file == "" {
		return nil
	}
	if !filepath.IsAbs(file) {
		file = filepath.Join(s.dir, file)
	}
	if !readAtOnce(file) {
		return nil
	}
	store, err := users.Load(file)
	if err != nil {
		return nil
	}
	all, _ := store.FindUsers(context.Background(), "", store.Len())
	return all
}

// plainWord reports whether a shell takes a word as it is. What a completion puts
// into the line is run with it: one that is to be quoted is left to who types.
func plainWord(s string) bool {
	return s == printable(s) && !strings.ContainsAny(s, " $`\"'\\;&|<>()[]{}*?!~#^")
}

// completeUser completes the id of a user as the first argument, or as a flag's.
func completeUser(env environment) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var ids []string
		s := sketchOf(cmd, env)
		for _, u := range s.users() {
			if strings.HasPrefix(u.ID, typed) && plainWord(u.ID) {
				ids = append(ids, cobra.CompletionWithDesc(u.ID, printable(u.Email)))
			}
		}
		return ids, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeChange completes what 'sessions set' takes: a user, then keys and values.
func completeChange(env environment) cobra.CompletionFunc {
	user := completeUser(env)
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return user(cmd, args, typed)
		}
		given := func(key string) bool {
			return slices.ContainsFunc(args[1:], func(pair string) bool { return strings.HasPrefix(pair, key+"=") })
		}
		key, value, hasValue := strings.Cut(typed, "=")
		if !hasValue {
			var keys []string
			for _, name := range authapi.UserChangeFields() {
				if strings.HasPrefix(name, key) && !given(name) {
					keys = append(keys, name+"=")
				}
			}
			return keys, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		}
		var words []string
		s := sketchOf(cmd, env)
		switch key {
		case "disabled":
			words = []string{"true", "false"}
		case "organizationId":
			for _, u := range s.users() {
				words = append(words, u.Organizations...)
			}
		case "roles":
			done := ""
			if i := strings.LastIndexByte(value, ','); i >= 0 {
				done = value[:i+1]
			}
			for _, u := range s.users() {
				for _, role := range u.Roles {
					words = append(words, done+role)
				}
			}
		}
		slices.Sort(words)
		var pairs []string
		for _, word := range slices.Compact(words) {
			if strings.HasPrefix(word, value) && plainWord(word) {
				pairs = append(pairs, key+"="+word)
			}
		}
		return pairs, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeAudience completes one of tokens.audiences.
func completeAudience(env environment) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		s := sketchOf(cmd, env)
		audiences := s.Tokens.Audiences
		if len(audiences) == 0 && s.Tokens.Issuer != "" {
			audiences = []string{s.Tokens.Issuer}
		}
		unfit := func(a string) bool { return !strings.HasPrefix(a, typed) || !plainWord(a) }
		return slices.DeleteFunc(slices.Clone(audiences), unfit), cobra.ShellCompDirectiveNoFileComp
	}
}

// completePolicy completes the name of a policy of the configuration.
func completePolicy(env environment) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		var names []string
		for _, name := range slices.Sorted(maps.Keys(sketchOf(cmd, env).Policies)) {
			if strings.HasPrefix(name, typed) && plainWord(name) {
				names = append(names, name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
