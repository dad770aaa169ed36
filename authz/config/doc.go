// Package config reads Gatehouse's configuration: one YAML file, every key of
// which is optional, and nothing in it that is not understood.
//
//	cfg, warnings, err := config.Load("gatehouse.yaml", os.LookupEnv)
//	for _, w := range warnings {
//		fmt.Fprintln(os.Stderr, "warning:", w)
//	}
//	if err != nil {
//		return err // config.Problems: one line each, with file, line, column and key
//	}
//
// [Load] puts the defaults in place, decodes strictly, and then checks what
// the values mean together. It reports everything that is wrong at once,
// sorted by place. What it returns is complete: secrets are read, files
// exist, names refer to something.
//
// The keys, their documentation, defaults and bounds stand in one place, the
// tags of the structs below [Config]; [Schema] derives the JSON Schema from
// the same tags, and schema.json beside this file is its committed copy.
// Editors with a YAML language server use it when the configuration begins
// with
//
//	# yaml-language-server: $schema=schema.json
//
// # Strictness
//
// Unknown keys, repeated keys, several documents, YAML tags (!!str) and values
// of another type are errors: a number where text is expected wants quotes,
// yes is not true, 15 is not a duration. A null counts as "not given" and
// leaves the default, except in lists. The file is UTF-8 and at most 1 MiB.
// Aliases (*name) and merge keys (<<) work, up to a total of 10,000 nodes
// taken through them, so that no small file grows without bound; an explicit
// key wins over a merged one.
//
// # Environment and files
//
// ${NAME} in a text value is replaced by the environment variable NAME; one
// that is not set is an error, and so is one that leaves a value empty. $${
// stands for a literal ${, and a dollar sign without a brace for itself, so
// that password hashes ($argon2id$…) need no care. The replacement happens
// after YAML was parsed: no value of a variable can add keys, and none is
// replaced again. Keys, comments, numbers, booleans, durations, dates and
// words from a fixed list are never replaced.
//
// A secret can come from a file of its own instead (secrets_file,
// password_file, client_secret_file); one line end at the end of the file is
// not part of it. Relative paths are relative to the configuration's
// directory.
//
// Secrets have types, [Secret] and [SecretURL], that print as placeholders
// whatever the formatter; messages quote a value only as it stands in the
// file, and never where it could be a secret.
//
// The package does not build anything from a configuration: that is the
// compile step, which can report what it finds in the same form through
// [Config.Problem].
package config
