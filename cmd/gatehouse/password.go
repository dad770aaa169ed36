package main

import (
	"bufio"
	"context"
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
		RunE: func(cmd *cobra.Command, _ []string) error {
			password, err := readPassword(cmd.Context(), env)
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
func readPassword(ctx context.Context, env environment) (string, error) {
	if f, ok := env.stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		first, err := askPassword(ctx, env, f, "Password: ")
		if err != nil {
			return "", err
		}
		second, err := askPassword(ctx, env, f, "Again: ")
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

// askPassword ends with ctx, which is how an interrupt reaches us, and leaves
// the terminal with its echo on.
func askPassword(ctx context.Context, env environment, terminal *os.File, prompt string) (string, error) {
	fd := int(terminal.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("read from the terminal: %w", err)
	}
	fmt.Fprint(env.stderr, prompt)
	defer fmt.Fprintln(env.stderr)
	type answer struct {
		text []byte
		err  error
	}
	answers := make(chan answer, 1)
	go func() { // which a read from a terminal may outlive; the process ends then
		text, err := term.ReadPassword(fd)
		answers <- answer{text, err}
	}()
	select {
	case a := <-answers:
		if a.err != nil {
			return "", fmt.Errorf("read from the terminal: %w", a.err)
		}
		return string(a.text), nil
	case <-ctx.Done():
		return "", errors.Join(errors.New("read from the terminal: interrupted"), term.Restore(fd, before))
	}
}
