package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz/authapi"
	"github.com/gatehouse-auth/gatehouse/authz/config"
	"github.com/gatehouse-auth/gatehouse/internal/audit"
	"github.com/gatehouse-auth/gatehouse/internal/flood"
)

// logLevel is the least level that is logged: that of the configuration, or for a while
// another one. It is safe for concurrent use.
type logLevel struct {
	*slog.LevelVar

	mu         sync.Mutex
	configured slog.Level
	until      time.Time   // of another one; zero: there is none
	back       *time.Timer // to the configured one
}

func newLogLevel(configured slog.Level) *logLevel {
	l := &logLevel{LevelVar: &slog.LevelVar{}, configured: configured}
	l.Set(configured)
	return l
}

// configure takes the level of a configuration. Where that is another one than before,
// it counts at once: the last word wins.
func (l *logLevel) configure(level slog.Level) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if level == l.configured {
		return
	}
	l.configured = level
	l.end()
}

// lend sets another level for a while, and calls over when that has passed. A second
// call takes the place of the first.
func (l *logLevel) lend(level slog.Level, span time.Duration, over func(back slog.Level)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end()
	l.Set(level)
	l.until = time.Now().Add(span)
	var mine *time.Timer
	mine = time.AfterFunc(span, func() {
		l.mu.Lock()
		ours := l.back == mine
		if ours {
			l.end()
		}
		back := l.configured
		l.mu.Unlock()
		if ours {
			over(back)
		}
	})
	l.back = mine
}

// restore goes back to the configured level now.
func (l *logLevel) restore() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end()
}

// end is restore with mu held.
func (l *logLevel) end() {
	if l.back != nil {
		l.back.Stop()
	}
	l.back, l.until = nil, time.Time{}
	l.Set(l.configured)
}

// levelDetail is what /log/level answers.
type levelDetail struct {
	Level      string    `json:"level"`
	Configured string    `json:"configured"`
	Until      time.Time `json:"until,omitzero"` // when it goes back to that
}

func (l *logLevel) detail() levelDetail {
	l.mu.Lock()
	defer l.mu.Unlock()
	return levelDetail{levelName(l.Level()), levelName(l.configured), l.until.UTC()}
}

func levelName(level slog.Level) string { return strings.ToLower(level.String()) }

// The time for which a level is lent.
const (
	usualLevelTime   = 15 * time.Minute
	longestLevelTime = 24 * time.Hour
)

// levelChange is the body of PUT /log/level.
type levelChange struct {
	Level config.LogLevel `json:"level"`
	For   string          `json:"for"`
}

func (c levelChange) parse() (level slog.Level, span time.Duration, err error) {
	switch c.Level {
	case config.LevelDebug, config.LevelInfo, config.LevelWarn, config.LevelError:
		level = c.Level.Slog()
	default:
		return level, 0, fmt.Errorf("level %q: write debug, info, warn or error", c.Level)
	}
	if c.For == "" {
		return level, usualLevelTime, nil
	}
	if span, err = time.ParseDuration(c.For); err != nil || span < time.Second || span > longestLevelTime {
		return level, 0, fmt.Errorf("for %q: write a duration from 1s to %v, such as 10m; log.level in the configuration is for longer", c.For, longestLevelTime)
	}
	return level, span, nil
}

// levelHandler shows and changes the level: GET, PUT with {"level", "for"}, and DELETE,
// which goes back. Who changes it could hide what they try next, so only callers on this
// host may, as with [explainHandler]: no proxy's, and no web page, be it that its own name
// leads here.
func levelHandler(l *logLevel, log *slog.Logger, changes *audit.Log) http.Handler {
	refuse := func(w http.ResponseWriter, status int, why string) {
		writeJSON(w, status, map[string]string{"error": why})
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+levelPath, func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, l.detail()) })
	refusals := flood.New(func(_ string, count int) {
		changes.Record(context.Background(), authapi.OutcomeRefused, slog.String("action", "log_level"), slog.String("by", "ops"), slog.Int("count", count))
	})
	change := func(change func(http.ResponseWriter, *http.Request)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			refuse := func(w http.ResponseWriter, status int, why string) { //nolint:contextcheck // the sum outlives the request
				if refusals.Passes("") {
					changes.Record(r.Context(), authapi.OutcomeRefused, append(byOps(r), slog.String("reason", why))...)
				}
				refuse(w, status, why)
			}
			switch {
			case !fromThisHost(r.RemoteAddr) || forwarded(r):
				refuse(w, http.StatusForbidden, "the level is changed by callers on this host only, and through no proxy")
			case !namesThisHost(r.Host):
				refuse(w, http.StatusMisdirectedRequest, "ask by localhost or by an IP address")
			case r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "":
				refuse(w, http.StatusForbidden, "a web page can't change the level")
			default:
				change(w, r)
			}
		}
	}
	mux.HandleFunc("PUT "+levelPath, change(func(w http.ResponseWriter, r *http.Request) {
		decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10))
		decoder.DisallowUnknownFields()
		var body levelChange
		if err := decoder.Decode(&body); err != nil {
			refuse(w, http.StatusBadRequest, `want an object such as {"level":"debug","for":"10m"}: `+err.Error())
			return
		}
		level, span, err := body.parse()
		if err != nil {
			refuse(w, http.StatusBadRequest, err.Error())
			return
		}
		what := append(byOps(r), slog.String("to", levelName(level)), slog.Duration("for", span))
		if changes.Permit(r.Context(), what...) != nil {
			refuse(w, http.StatusServiceUnavailable, unwritten)
			return
		}
		log.Warn("log level changed", slog.String("to", levelName(level)), slog.Duration("for", span)) // as long as warnings are logged
		l.lend(level, span, func(back slog.Level) { log.Warn(levelIsBack, slog.String("to", levelName(back))) })
		changes.Record(r.Context(), authapi.OutcomeApplied, what...)
		writeJSON(w, http.StatusOK, l.detail())
	}))
	mux.HandleFunc("DELETE "+levelPath, change(func(w http.ResponseWriter, r *http.Request) {
		before := l.detail()
		if before.Until.IsZero() { // nothing changes
			writeJSON(w, http.StatusOK, before)
			return
		}
		what := append(byOps(r), slog.String("to", before.Configured))
		if changes.Permit(r.Context(), what...) != nil {
			refuse(w, http.StatusServiceUnavailable, unwritten)
			return
		}
		l.restore()
		changes.Record(r.Context(), authapi.OutcomeApplied, what...)
		log.Warn(levelIsBack, slog.String("to", l.detail().Level))
		writeJSON(w, http.StatusOK, l.detail())
	}))
	return mux
}

const (
	levelIsBack = "log level is that of the configuration again"
	unwritten   = "the audit log can't be written, so nothing was changed"
)

// byOps are the attributes of a change of the level, for the audit log. Who reaches the
// ops listener proves nothing about who it is.
func byOps(r *http.Request) []slog.Attr {
	what := []slog.Attr{slog.String("action", "log_level"), slog.String("by", "ops")}
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		what = append(what, slog.String("address", host))
	}
	if agent := r.UserAgent(); agent != "" {
		what = append(what, slog.String("user_agent", agent[:min(len(agent), 256)]))
	}
	return what
}

// levelPath is where the ops listener has the level.
const levelPath = "/log/level"
