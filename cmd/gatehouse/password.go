package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/gatehouse-auth/gatehouse/authz/users"
)

func passwordCommand(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "password",
		Short: "Hash passwords for the users file",
		Args:  usageArgs(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "hash",
		Short: "Print the argon2id hash of a password",
		Long: `Asks for a password, or reads it from the first line of standard input where that
is no terminal, and prints its argon2id hash, for password_hash in the users file.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{errors.New("a password is not taken as an argument, where shell history and process lists would show it: type it when asked, or pipe it in")}
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error {
			password, err := readPassword(env)
			if err != nil {
				return err
			}
			hash, err := users.Hash(password)
			if err != nil {
				return err
			}
			fmt.Fprintln(env.stdout, hash)
			return nil
		},
	})
	return cmd
}

// readPassword asks at a terminal, twice and without an echo; elsewhere it reads
// a line.
func readPassword(env environment) (string, error) {
	if f, ok := env.stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		first, err := askPassword(env, f, "Password: ")
		if err != nil {
			return "", err
		}
		second, err := askPassword(env, f, "Again: ")
		if err != nil {
			return "", err
		}
		if first != second {
			return "", errors.New("the two are not the same: try again")
		}
		return first, nil
	}
	const most = 64 << 10
	line, err := bufio.NewReader(io.LimitReader(env.stdin, most)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the password: %w", err)
	}
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), nil
}

func askPassword(env environment, terminal *os.File, prompt string) (string, error) {
	fmt.Fprint(env.stderr, prompt)
	text, err := term.ReadPassword(int(terminal.Fd()))
	fmt.Fprintln(env.stderr)
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	return string(text), nil
}
