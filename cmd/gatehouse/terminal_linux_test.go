package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// newTerminal returns both ends of a pseudo terminal: what a person has, and what
// a program has.
func newTerminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	t.Cleanup(func() { _ = person.Close() })
	control := func(request uintptr, value *int32) {
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, person.Fd(), request, uintptr(unsafe.Pointer(value)))
		require.Zero(t, errno)
	}
	var unlocked, number int32
	control(syscall.TIOCSPTLCK, &unlocked)
	control(syscall.TIOCGPTN, &number)
	program, err = os.OpenFile("/dev/pts/"+strconv.Itoa(int(number)), os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = program.Close() })
	return person, program
}

// echoes reports whether a terminal shows what is typed.
func echoes(program *os.File) bool {
	var state syscall.Termios
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, program.Fd(), syscall.TCGETS, uintptr(unsafe.Pointer(&state)))
	return errno != 0 || state.Lflag&syscall.ECHO != 0
}

// atTerminal runs a command for somebody who answers at a terminal.
func atTerminal(t *testing.T, answer string, args ...string) command {
	t.Helper()
	person, program := newTerminal(t)
	_, err := io.WriteString(person, answer)
	require.NoError(t, err)
	var stdout, stderr buffer
	code := run(t.Context(), args, environment{
		lookup: func(string) (string, bool) { return "", false }, stdin: program, stdout: &stdout, stderr: &stderr,
	})
	return command{code, stdout.String(), stderr.String()}
}

func TestRevokeAllAsksAtATerminal(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "", "")
	d.express(t, "id-1", `"userId":"bob"`, time.Hour)
	args := []string{"sessions", "revoke", "bob", "--all", "-c", d.file}
	for _, answer := range []string{"alice\n", "\n", "yes\n", "bo\x04\x04"} {
		c := atTerminal(t, answer, args...)
		require.Equal(t, exitFailed, c.code)
		require.Contains(t, c.stderr, "This ends every session, refresh family and access token of the user bob.\nType bob to go on: ")
		require.Contains(t, c.stderr, "nothing was done: that was something else")
		require.Empty(t, c.stdout)
	}
	c := interrupted(t, "", "Type bob to go on: ", args...)
	require.Equal(t, exitFailed, c.code)
	require.Contains(t, c.stderr, "nothing was done: interrupted")
	require.Contains(t, d.ok(t, "sessions", "list", "bob"), "session")

	c = atTerminal(t, "bob\n", args...)
	require.Equal(t, exitOK, c.code, c.stderr)
	require.Equal(t, "Revoked 1 session of bob, and all tokens\n", c.stdout)
}

// A token that is typed or pasted is not shown.
func TestTokenIsAskedForAtATerminal(t *testing.T) {
	t.Parallel()
	file := deskFile(t, deskConfig("redis://127.0.0.1:1", "", ""))
	person, program := newTerminal(t)
	shown := make(chan string, 1)
	var stdout, stderr buffer
	go func() {
		for end := time.Now().Add(patience); echoes(program) && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		_, _ = io.WriteString(person, "the-secret-token\n")
		line, _ := bufio.NewReader(person).ReadString('\n')
		shown <- line
	}()
	code := run(t.Context(), []string{"tokens", "inspect", "--offline", "-c", file}, environment{
		lookup: func(string) (string, bool) { return "", false }, stdin: program, stdout: &stdout, stderr: &stderr,
	})
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr.String(), "Token (it is not shown): ")
	require.Contains(t, stdout.String(), "it is no JWT")
	require.NotContains(t, stdout.String()+stderr.String(), "the-secret-token")
	_, _ = io.WriteString(program, "\n")
	require.NotContains(t, <-shown, "the-secret-token", "no echo")
}

// interrupted runs a command for somebody who answers at a terminal, and presses Ctrl-C, as
// main sees it, when the question is there.
func interrupted(t *testing.T, answer, question string, args ...string) command {
	t.Helper()
	ctx, interrupt := context.WithTimeout(t.Context(), patience)
	defer interrupt()
	person, program := newTerminal(t)
	_, err := io.WriteString(person, answer)
	require.NoError(t, err)
	var stdout, stderr buffer
	go func() {
		for {
			text, more := stderr.snapshot()
			if strings.Contains(text, question) {
				interrupt()
				return
			}
			select {
			case <-more:
			case <-ctx.Done():
				return
			}
		}
	}()
	code := run(ctx, args, environment{
		lookup: func(string) (string, bool) { return "", false }, stdin: program, stdout: &stdout, stderr: &stderr,
	})
	return command{code, stdout.String(), stderr.String()}
}

// answering has somebody at a terminal type each answer when its question is there.
func answering(t *testing.T, dialogue [][2]string, args ...string) command {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	person, program := newTerminal(t)
	var stdout, stderr buffer
	go func() {
		for _, d := range dialogue {
			for {
				text, more := stderr.snapshot()
				if strings.Contains(text, d[0]) {
					break
				}
				select {
				case <-more:
				case <-ctx.Done():
					return
				}
			}
			_, _ = io.WriteString(person, d[1]+"\n")
		}
	}()
	code := run(ctx, args, environment{
		lookup: func(string) (string, bool) { return "", false }, stdin: program, stdout: &stdout, stderr: &stderr,
	})
	return command{code, stdout.String(), stderr.String()}
}

func TestInitAsksAtATerminal(t *testing.T) {
	t.Parallel()
	secret := write(t, "secret", "the secret of the application\n")

	t.Run("Enter takes what is offered", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Join(t.TempDir(), "gate")
		c := answering(t, [][2]string{
			{"What do requests come with? [sessions] ", ""},
			{"[redis://127.0.0.1:6379/0] ", ""},
			{"[app=127.0.0.1:3000/] ", ""},
			{"express-session application? A file with its secret (- for none) [-] ", ""},
			{"Are people to log in here", ""},
		}, "init", dir)
		require.Equal(t, exitOK, c.code, c.stderr)
		require.Contains(t, tree(t, dir), "users.yaml")
		require.Contains(t, c.stdout, "is a gate for people with a session cookie")
	})
	t.Run("what won't do is asked for again", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Join(t.TempDir(), "gate")
		c := answering(t, [][2]string{
			{"What do requests come with? [sessions] ", "cookies"},
			{`--for "cookies": it is sessions, jwt, both, api-keys or oidc` + "\nWhat do requests come with? [sessions] ", "both"},
			{"[redis://127.0.0.1:6379/0] ", "localhost"},
			{"--store: ", "embedded://"},
			{"[app=127.0.0.1:3000/] ", "shop=127.0.0.1:3000/ orders=127.0.0.1:4000"},
			{"(- for none) [-] ", secret},
			{"The name of its cookie? [connect.sid] ", "sid"},
		}, "init", dir)
		require.Equal(t, exitOK, c.code, c.stderr)
		files := tree(t, dir)
		require.NotContains(t, files, "users.yaml", "the application logs people in")
		require.Equal(t, "the secret of the application\n", files["secrets/session-secrets"])
		require.Contains(t, files["gatehouse.yaml"], `url: "embedded://"`)
		require.Contains(t, files["envoy.yaml"], "- name: orders-admin\n")
	})
	t.Run("what is there is said before anything is asked", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "envoy.yaml"), nil, 0o600))
		c := answering(t, nil, "init", dir)
		require.Equal(t, exitFailed, c.code)
		require.Contains(t, c.stderr, "there are envoy.yaml already")
		require.NotContains(t, c.stderr, "What do requests come with?")
	})
	t.Run("a service at the gateway's port is asked for again", func(t *testing.T) {
		t.Parallel()
		c := answering(t, [][2]string{
			{"What do requests come with? [sessions] ", "api-keys"},
			{"[redis://127.0.0.1:6379/0] ", ""},
			{"[app=127.0.0.1:3000/] ", "a=127.0.0.1:8080/"},
			{"port 8080 of this machine is the gateway's", "a=127.0.0.1:8088/"},
		}, "init", filepath.Join(t.TempDir(), "gate"))
		require.Equal(t, exitOK, c.code, c.stderr)
	})
	t.Run("Ctrl-C leaves nothing", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		c := interrupted(t, "jwt\n", "Where is Redis?", "init", filepath.Join(dir, "gate"))
		require.Equal(t, exitFailed, c.code)
		require.Contains(t, c.stderr, "nothing was written: interrupted")
		require.Empty(t, tree(t, dir))
	})
}

// What takes long says how far it is: at a terminal in one line, which is gone when the
// result is printed, elsewhere in lines of their own, and never with --quiet.
func TestLongWorkSaysHowFarItIs(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "", "")
	const records = 1500
	for i := range records {
		d.express(t, fmt.Sprintf("id-%d", i), fmt.Sprintf(`"userId":"u%d"`, i), time.Hour)
	}
	revoke := func(t *testing.T, stdout, stderr io.Writer, more ...string) {
		t.Helper()
		code := run(t.Context(), append([]string{"sessions", "revoke", "u7", "--all", "--yes", "-c", d.file}, more...), environment{
			lookup: func(string) (string, bool) { return "", false }, stdin: strings.NewReader(""), stdout: stdout, stderr: stderr, longWork: time.Nanosecond,
		})
		require.Equal(t, exitOK, code)
	}
	const line = `Looked at [0-9,]+ records of sessions, [0-9,]+ a second`
	person, program := newTerminal(t)
	shown := make(chan string, 1)
	go func() {
		var all strings.Builder
		reader := bufio.NewReader(person)
		for !strings.Contains(all.String(), "Revoked 1 session of u7") {
			text, err := reader.ReadString('\n')
			all.WriteString(text)
			if err != nil {
				break
			}
		}
		shown <- all.String()
	}()
	revoke(t, program, program)
	screen := <-shown
	require.Regexp(t, "^\r"+line+"\x1b\\[K", screen)
	require.Regexp(t, line+"\x1b\\[K\r\x1b\\[K\\{", screen, "it is gone before the record")
	require.Regexp(t, "\nRevoked 1 session of u7, and all tokens\r\n$", screen)

	var stdout, stderr buffer
	revoke(t, &stdout, &stderr)
	require.Regexp(t, "^"+line+"\n", stderr.String())
	require.NotContains(t, stderr.String(), "\x1b")
	require.NotContains(t, stdout.String(), "Looked at")

	var quiet buffer
	revoke(t, &stdout, &quiet, "--quiet")
	require.NotContains(t, quiet.String(), "Looked at")
}
