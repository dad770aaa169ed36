package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-auth/gatehouse/authz/config"
	"github.com/gatehouse-auth/gatehouse/authz/token"
)

func keysCommand(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Make and rotate the keys that sign access tokens, and identities for services",
		Args:  usageArgs(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(keysNewCommand(env), keysRotateCommand(env))
	return cmd
}

const (
	keysDir    = "keys"
	currentKey = "current.pem"

	// defaultAlg is what every verifier takes. ES256 makes tokens shorter.
	defaultAlg = "RS256"
)

// keyUse is what keys are for.
type keyUse struct {
	word      string // of --for
	dir       string // where they are by default
	alg       string
	only      bool // no other algorithm will do
	keep      time.Duration
	outlives  string // what lives as long as keep, for messages
	configure string // where the configuration lists them, by a format for the list
}

var keyUses = []keyUse{
	{
		word: "tokens", dir: keysDir, alg: defaultAlg, keep: 7 * 24 * time.Hour,
		outlives:  "refresh tokens made with it may live until %s; rotate then, or --force it and end their logins",
		configure: "  tokens:\n    signing_keys: [%s]\n",
	},
	{
		word: "assertion", dir: filepath.Join(keysDir, "assertion"), alg: token.AssertionAlgorithm, only: true, keep: time.Hour,
		outlives:  "replicas that have not read the files again may sign with it until %s; rotate then, or --force it",
		configure: "  identity:\n    assertion:\n      signing_keys: [%s]\n",
	},
}

// keyUseOf is the use that somebody typed.
func keyUseOf(word string) (keyUse, error) {
	for _, u := range keyUses {
		if u.word == word {
			return u, nil
		}
	}
	return keyUse{}, usageError{fmt.Errorf("--for %q: say tokens or assertion", word)}
}

// algorithm is the one for a new key, typed being "" where it is left to us.
func (u keyUse) algorithm(typed string) (string, error) {
	if typed == "" {
		return u.alg, nil
	}
	if u.only && typed != u.alg {
		return "", usageError{fmt.Errorf("--alg %q: keys for --for %s are %s", typed, u.word, u.alg)}
	}
	return typed, nil
}

func registerKeyUse(cmd *cobra.Command, word *string) {
	cmd.Flags().StringVar(word, "for", "tokens", "tokens, that Gatehouse issues, or assertion, for x-identity-assertion")
	completeWords(cmd, "for", "tokens", "assertion")
}

func keysNewCommand(env environment) *cobra.Command {
	var alg, out, word string
	var file configFlag
	cmd := &cobra.Command{
		Use:   "new [FILE]",
		Short: "Make a signing key",
		Long: `Writes a new private key, as PKCS #8 in PEM, readable by its owner only. FILE is
keys/current.pem (for assertions keys/assertion/current.pem) unless you name another;
- prints the key. A file that is there is never overwritten: 'gatehouse keys rotate'
replaces keys.

` + keysAuditText,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			use, err := keyUseOf(word)
			if err != nil {
				return err
			}
			if alg, err = use.algorithm(alg); err != nil {
				return err
			}
			path := filepath.Join(use.dir, currentKey)
			switch {
			case len(args) == 1 && out != "" && out != args[0]:
				return usageError{errors.New("the file is named twice: as an argument and by --out")}
			case len(args) == 1:
				path = args[0]
			case out != "":
				path = out
			}
			text, key, err := newKey(alg)
			if err != nil {
				return err
			}
			k, err := keysClerk(cmd, file, env)
			if err != nil {
				return err
			}
			what := []slog.Attr{slog.String("file", path), slog.String("kid", key.ID())}
			if err := k.permit(cmd.Context(), "key_new", what...); err != nil {
				return err
			}
			if path == "-" {
				fmt.Fprintf(env.stderr, "a new %s key, kid %s\n", key.Algorithm(), key.ID())
				_, err := env.stdout.Write(text)
				k.record(cmd.Context(), "key_new", err, what...)
				return err
			}
			err = createKey(path, text)
			k.record(cmd.Context(), "key_new", err, what...)
			if err != nil {
				return err
			}
			fmt.Fprintf(env.stdout, "%s: a new %s key, kid %s\n", path, key.Algorithm(), key.ID())
			fmt.Fprintf(env.stdout, "\nIn the configuration, whose files are relative to it:\n\n"+use.configure, "{file: "+path+"}")
			return nil
		},
	}
	cmd.Flags().StringVar(&alg, "alg", "", "RS256 (the default for tokens), ES256 (for assertions the only one), ES384, ES512 or EdDSA")
	registerKeyUse(cmd, &word)
	cmd.Flags().StringVarP(&out, "out", "o", "", "the file, as the argument")
	registerKeysConfig(cmd, &file)
	completeWords(cmd, "alg", "RS256", "ES256", "ES384", "ES512", "EdDSA")
	return cmd
}

// keysAuditText is of the commands that change keys, in their help.
const keysAuditText = `A record of it goes to standard error, and to audit.file of the configuration that
--config or $GATEHOUSE_CONFIG names, else ./gatehouse.yaml if it is there.`

func registerKeysConfig(cmd *cobra.Command, file *configFlag) {
	cmd.Flags().StringVarP(&file.path, "config", "c", "", "configuration, for its audit log (default $GATEHOUSE_CONFIG, or gatehouse.yaml here)")
	_ = cmd.MarkFlagFilename("config", configExtensions...)
}

// keysClerk is the clerk of a command that works without a configuration: where none is
// named, that of this directory counts, if there is one. It may not be good yet, for its
// keys are only being made; but what it says of the audit log must be known.
func keysClerk(cmd *cobra.Command, file configFlag, env environment) (*clerk, error) {
	_, command, _ := strings.Cut(cmd.CommandPath(), " ")
	k := &clerk{env: env, command: command}
	path, err := file.resolve(nil, env)
	if err != nil {
		return nil, err
	}
	named, _ := env.lookup("GATEHOUSE_CONFIG")
	if file.path == "" && named == "" {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return k, nil
		}
	}
	k.audit, k.log, err = config.Records(path, env.lookup)
	if err != nil {
		return nil, err
	}
	return k, nil
}

// newKey makes a key for an algorithm that somebody typed.
func newKey(alg string) (text []byte, key *token.SigningKey, err error) {
	if text, err = token.GenerateKey(alg); err != nil {
		return nil, nil, usageError{fmt.Errorf("--alg: %w", err)}
	}
	key, err = token.ParseSigningKey(text, "")
	return text, key, err
}

// createKey writes a key into a file that is not there, in a directory that is
// made where it is missing.
func createKey(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // G304: the operator names the file
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already and is not overwritten: name another file, or replace keys with 'gatehouse keys rotate'", path)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

func keysRotateCommand(env environment) *cobra.Command {
	var dir, word string
	var file configFlag
	r := rotation{out: env.stdout, now: time.Now}
	cmd := &cobra.Command{
		Use:   "rotate [DIR]",
		Short: "Replace the signing key by the next one",
		Long: `Renews the three keys in DIR (keys, unless you name another):

  current.pem   signs
  next.pem      is published and verifies already, and signs after the next rotation
  previous.pem  signed before, and still verifies

next becomes current, current becomes previous, and next is new. In an empty DIR all
three are made; previous holds the key of current then. List them in this order, from
the beginning, so that no replica ever meets a token of a key that it doesn't know:

  tokens:
    signing_keys: [{file: keys/current.pem}, {file: keys/next.pem}, {file: keys/previous.pem}]

Servers that run take the files as soon as they have them. Where there was no next.pem
so far, the new key signs at once, and a server that doesn't have it yet refuses its
tokens: with several servers, call it with --prepare first, which makes the files that
are missing and signs with none of them, and list those. Refresh tokens are made with these keys, too: a rotation
that would drop a key which was current less than --keep ago is refused, unless you
--force it and let the logins of its refresh tokens end.

The same with --for assertion, in keys/assertion, for the keys of identity.assertion.

Each step leaves whole files behind, and one that was interrupted is finished by
the next call. Files keep the mode of those that they replace; run it as their
owner.

` + keysAuditText,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if r.use, err = keyUseOf(word); err != nil {
				return err
			}
			if _, err = r.use.algorithm(r.alg); err != nil {
				return err
			}
			if !cmd.Flags().Changed("keep") {
				r.keep = r.use.keep
			}
			r.dir = r.use.dir
			switch {
			case len(args) == 1 && dir != "" && dir != args[0]:
				return usageError{errors.New("the directory is named twice: as an argument and by --dir")}
			case len(args) == 1:
				r.dir = args[0]
			case dir != "":
				r.dir = dir
			}
			if isFile(r.dir) {
				return usageError{fmt.Errorf("%s is a file: name the directory that %s is in, as in 'gatehouse keys rotate %s'", r.dir, currentKey, r.use.dir)}
			}
			if r.prepared() {
				return r.run() // says so
			}
			k, err := keysClerk(cmd, file, env)
			if err != nil {
				return err
			}
			what := []slog.Attr{slog.String("file", r.dir)}
			if r.prepare {
				what = append(what, slog.Bool("prepare", true))
			}
			if err := k.permit(cmd.Context(), "key_rotate", what...); err != nil {
				return err
			}
			err = r.run()
			if current, readErr := r.read(currentKey); err == nil && readErr == nil && current.key != nil {
				what = append(what, slog.String("kid", current.key.ID()))
			}
			k.record(cmd.Context(), "key_rotate", err, what...)
			return err
		},
	}
	registerKeysConfig(cmd, &file)
	registerKeyUse(cmd, &word)
	cmd.Flags().StringVar(&r.alg, "alg", "", "of the new key (default: that of the latest, "+defaultAlg+" for the first; of assertions "+token.AssertionAlgorithm+")")
	cmd.Flags().StringVarP(&dir, "dir", "d", "", "the directory, as the argument")
	cmd.Flags().DurationVar(&r.keep, "keep", 0, "how long a key verifies after it was current (default 168h, refresh_ttl; of assertions 1h)")
	cmd.Flags().BoolVar(&r.force, "force", false, "drop a previous key that is younger than that")
	cmd.Flags().BoolVar(&r.prepare, "prepare", false, "make next.pem and previous.pem where they are missing, and change nothing else")
	completeWords(cmd, "alg", "RS256", "ES256", "ES384", "ES512", "EdDSA")
	_ = cmd.MarkFlagDirname("dir")
	return cmd
}

// rotation renews the keys of a directory.
type rotation struct {
	use      keyUse
	dir, alg string
	keep     time.Duration
	force    bool
	prepare  bool
	out      io.Writer
	now      func() time.Time
}

// keyFile is one of the files; key is nil when it isn't there.
type keyFile struct {
	path string
	text []byte
	key  *token.SigningKey
	info fs.FileInfo
}

func (f *keyFile) same(other *keyFile) bool {
	return f.key != nil && other.key != nil && f.key.ID() == other.key.ID()
}

func (r rotation) read(name string) (*keyFile, error) {
	f := &keyFile{path: filepath.Join(r.dir, name)}
	var err error
	if f.info, err = os.Stat(f.path); errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return nil, err
	}
	if f.text, err = os.ReadFile(f.path); err != nil {
		return nil, err
	}
	if f.key, err = token.ParseSigningKey(f.text, ""); err != nil {
		return nil, fmt.Errorf("%s: %w; nothing was changed", f.path, err)
	}
	return f, nil
}

// prepared reports whether there is nothing that --prepare would make.
func (r rotation) prepared() bool {
	for _, name := range []string{currentKey, "next.pem", "previous.pem"} {
		if f, err := r.read(name); err != nil || f.key == nil {
			return false
		}
	}
	return r.prepare
}

func (r rotation) run() error {
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	unlock, err := lockDir(r.dir)
	if err != nil {
		return err
	}
	defer unlock()
	current, err := r.read(currentKey)
	if err != nil {
		return err
	}
	next, err := r.read("next.pem")
	if err != nil {
		return err
	}
	previous, err := r.read("previous.pem")
	if err != nil {
		return err
	}
	if current.key == nil {
		return r.first(current, next, previous)
	}
	if r.use.only && current.key.Algorithm() != r.use.alg {
		return fmt.Errorf("%s holds %s, and keys for --for %s are %s: name the directory of those; nothing was changed", current.path, current.key, r.use.word, r.use.alg)
	}
	if r.alg == "" { // the latest one's, so that a change of algorithm lasts
		r.alg = current.key.Algorithm()
		if next.key != nil {
			r.alg = next.key.Algorithm()
		}
	}
	if _, _, err := newKey(r.alg); err != nil { // before anything is changed
		return err
	}
	if r.prepare {
		return r.publish(current, next, previous)
	}
	// Of a rotation that was interrupted, two files hold the same key. What it
	// did is not done again, and drops nothing.
	promoted := next.same(current)
	if !promoted {
		if !previous.same(current) {
			if err := r.mayDrop(previous); err != nil {
				return err
			}
		}
		// Also where it holds that key already: its time is that of the rotation.
		if err := r.replace(previous, current, current); err != nil {
			return err
		}
	}
	unknown := next.key == nil
	if unknown {
		if err := r.renew(next, current); err != nil {
			return err
		}
	}
	if !promoted {
		if err := r.replace(current, next, current); err != nil {
			return err
		}
	}
	if err := r.renew(next, current); err != nil {
		return err
	}
	fmt.Fprintf(r.out, "%s signs now: %s\n%s verifies as before: %s\n%s is published, and is next to sign: %s\n",
		current.path, current.key, previous.path, previous.key, next.path, next.key)
	advice := "Servers that run take the files as soon as they have them."
	if unknown {
		advice = "No server knows the new key yet: give it to all at once, since those without it refuse its tokens.\nThe next rotation is gentler, for next.pem is there now."
	}
	fmt.Fprintf(r.out, "\n%s\n%s", advice, r.listed(current, next, previous))
	return nil
}

// first makes the keys of an empty directory.
func (r rotation) first(current, next, previous *keyFile) error {
	if next.key != nil || previous.key != nil {
		return fmt.Errorf("%s is missing, but another key is there: put the key that signs back in its place", current.path)
	}
	if r.alg == "" {
		r.alg = r.use.alg
	}
	for _, f := range []*keyFile{current, next, previous} { // in this order the next call finishes what is interrupted here
		text, key, err := newKey(r.alg)
		if err != nil {
			return err
		}
		if f == previous { // so that it can be listed before the first rotation
			text, key = current.text, current.key
		}
		if err := createKey(f.path, text); err != nil {
			return err
		}
		f.text, f.key = text, key
	}
	fmt.Fprintf(r.out, "%s signs: %s\n%s is published, and is next to sign: %s\n%s will verify what signed before; until a rotation it is that of %s\n%s",
		current.path, current.key, next.path, next.key, previous.path, current.path, r.listed(current, next, previous))
	return nil
}

// publish makes a next key where there is none, and the file for the previous one, and
// leaves all else as it is: a replica that still runs with the old files would refuse
// tokens of a key that signed at once.
func (r rotation) publish(current, next, previous *keyFile) error {
	if next.key != nil && previous.key != nil {
		fmt.Fprintf(r.out, "%s is there already: %s\n", next.path, next.key)
		return nil
	}
	if previous.key == nil {
		if err := r.replace(previous, current, current); err != nil {
			return err
		}
	}
	said := "is there already"
	if next.key == nil {
		said = "is new"
		if err := r.renew(next, current); err != nil {
			return err
		}
	}
	fmt.Fprintf(r.out, "%s signs as before: %s\n%s %s, and is next to sign: %s\n", current.path, current.key, next.path, said, next.key)
	fmt.Fprintf(r.out, "\nNothing else was changed, since the servers don't know the files yet: list them,\nand rotate when all of them publish the next key.\n%s", r.listed(current, next, previous))
	return nil
}

// listed says how the keys that are there stand in the configuration.
func (r rotation) listed(files ...*keyFile) string {
	var names []string
	for _, f := range files {
		if f.key != nil {
			names = append(names, "{file: "+f.path+"}")
		}
	}
	return "\nIn the configuration, whose files are relative to it:\n\n" + fmt.Sprintf(r.use.configure, strings.Join(names, ", "))
}

// mayDrop reports why the previous key must not go yet.
func (r rotation) mayDrop(previous *keyFile) error {
	if previous.key == nil || r.force {
		return nil
	}
	// The file was written when its key ceased to be current.
	until := previous.info.ModTime().Add(r.keep)
	if !r.now().Before(until) {
		return nil
	}
	return fmt.Errorf("%s was current until %s: "+r.use.outlives,
		previous.path, previous.info.ModTime().UTC().Format(time.RFC3339), until.UTC().Format(time.RFC3339))
}

// renew puts a new key into a file.
func (r rotation) renew(target, like *keyFile) error {
	text, key, err := newKey(r.alg)
	if err != nil {
		return err
	}
	return r.replace(target, &keyFile{text: text, key: key}, like)
}

// replace gives a file the key of another one, at once: whoever reads it finds
// the old key or the new one. Its mode is its own, or, where it is new, that of
// like.
func (r rotation) replace(target, source, like *keyFile) (err error) {
	mode := fs.FileMode(0o600)
	for _, f := range []*keyFile{like, target} {
		if f.info != nil {
			mode = f.info.Mode().Perm()
		}
	}
	f, err := os.CreateTemp(r.dir, ".key-*")
	if err != nil {
		return err
	}
	renamed := false
	defer func() {
		if err != nil && !renamed {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(source.text)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), target.path); err != nil {
		return err
	}
	renamed = true
	target.text, target.key = source.text, source.key
	if target.info, err = os.Stat(target.path); err != nil {
		return err
	}
	return syncDir(r.dir)
}

// syncDir has a rename outlive a power failure before the next one begins.
// Systems that can't do that for a directory order renames by themselves.
func syncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	dir, err := os.Open(path) //nolint:gosec // G304: the operator names the directory
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
