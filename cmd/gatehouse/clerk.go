package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"strconv"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authapi"
	"github.com/gatehouse-auth/gatehouse/authz/config"
	"github.com/gatehouse-auth/gatehouse/internal/audit"
	"github.com/gatehouse-auth/gatehouse/internal/logging"
)

// openAudit opens the audit log of a server.
func openAudit(cfg *config.Config, log *slog.Logger, out *streams) (*audit.Log, error) {
	o := audit.Options{Strict: cfg.Audit.OnFailure == config.AuditRefuse, Log: log}
	switch cfg.Audit.File {
	case "":
		o.Writer, o.Text = out.sureStderr, cfg.Log.Format == config.LogText
	case config.AuditStdout:
		o.Writer = out.sureStdout
	case config.AuditStderr:
		o.Writer = out.sureStderr
	default:
		o.File = cfg.Audit.File
	}
	changes, err := audit.Open(o)
	if err != nil {
		return nil, problem(cfg, "audit.file", err)
	}
	return changes, nil
}

// auditLoad writes down with which configuration a server begins. A log that can't be
// written refuses changes, and never keeps the gate from starting.
func auditLoad(ctx context.Context, changes *audit.Log, file string, first *generation) {
	changes.Record(ctx, authapi.OutcomeApplied,
		slog.String("action", "config_load"), slog.String("by", osUser()), slog.String("file", file), slog.String("hash", first.hash))
}

// clerk writes down what commands change: a line on standard error, and one in the file
// of the audit log where the configuration has one.
type clerk struct {
	env     environment
	command string
	log     config.Log
	audit   config.Audit

	file   *audit.Log // once it was needed; nil where there is none
	opened bool
}

// inFile returns the audit log, nil for none. A command that changes nothing opens none.
func (k *clerk) inFile() (*audit.Log, error) {
	switch k.audit.File {
	case "", config.AuditStdout, config.AuditStderr: // of the server
		return nil, nil //nolint:nilnil // there is none, and nothing is wrong
	}
	if k.opened {
		return k.file, nil
	}
	k.opened = true
	log := logging.New(k.env.stderr, logging.Options{Text: k.log.Format == config.LogText})
	file, err := audit.Open(audit.Options{File: k.audit.File, Strict: k.audit.OnFailure == config.AuditRefuse, Log: log})
	if err != nil {
		return nil, fmt.Errorf("audit.file: %w; run this as the user whom the server runs as", err)
	}
	k.file = file
	return file, nil
}

// permit is called before a change. An error says that nothing may be changed, since it
// could not be written down.
func (k *clerk) permit(ctx context.Context, action string, attrs ...slog.Attr) error {
	file, err := k.inFile()
	strict := k.audit.OnFailure == config.AuditRefuse
	switch {
	case err != nil && strict:
		return fmt.Errorf("nothing was done, since audit.on_failure is refuse: %w", err)
	case err != nil:
		fmt.Fprintf(k.env.stderr, "warning: %s\n", printable(err.Error()))
		return nil
	case file == nil:
		return nil
	}
	if err := file.Permit(ctx, k.line(action, attrs)...); err != nil {
		return fmt.Errorf("nothing was done, since audit.on_failure is refuse: the audit log can't be written: %w", err)
	}
	return nil
}

// record writes the line about a change that the auth API writes, too: who did what to
// whom. Standard error has none where an error says that nothing was changed.
func (k *clerk) record(ctx context.Context, action string, err error, attrs ...slog.Attr) {
	o := authapi.OutcomeOf(err)
	all := k.line(action, attrs)
	if err != nil {
		reason := string(authz.ReasonOf(err))
		if errors.Is(err, errNoLogin) { // as the auth API calls it
			reason = "not_found"
		}
		all = append(all, slog.String("reason", reason))
	}
	if o == authapi.OutcomeNotConfirmed {
		all = append(all, slog.Bool("confirmed", false))
	}
	if file, openErr := k.inFile(); openErr == nil && file != nil {
		file.Record(context.WithoutCancel(ctx), o, all...)
	}
	if o != authapi.OutcomeApplied && o != authapi.OutcomeNotConfirmed {
		return
	}
	shown, openErr := audit.Open(audit.Options{Writer: k.env.stderr, Text: k.log.Format == config.LogText})
	if openErr == nil { // as always, without a file
		shown.Record(ctx, o, all...)
	}
}

// line are the attributes of a line, with who runs the command.
func (k *clerk) line(action string, attrs []slog.Attr) []slog.Attr {
	all := append([]slog.Attr{slog.String("action", action)}, attrs...)
	all = append(all, slog.String("by", osUser()), slog.String("command", k.command))
	if sudo, ok := k.env.lookup("SUDO_USER"); ok && sudo != "" && os.Geteuid() == 0 { // else anybody could say so
		all = append(all, slog.String("sudo_user", sudo))
	}
	if host, err := os.Hostname(); err == nil {
		all = append(all, slog.String("host", host))
	}
	return all
}

// osUser is the user of the operating system, by name and number. Of one whom the system
// has no name for, Go takes it from $USER, which anybody can set: the number is certain. No
// user of the gate has such an id.
func osUser() string {
	name := ""
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return "os:" + name + "(" + strconv.Itoa(os.Getuid()) + ")"
}
