package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/fsnotify/fsnotify"
)

// watcher hears of changes of files from the file system. It watches directories,
// since a file that is saved is often another file of the same name, and every
// symbolic link on the way, by which Kubernetes exchanges a mounted ConfigMap or
// Secret as a whole (..data).
type watcher struct {
	log     *slog.Logger
	notify  *fsnotify.Watcher // nil: it hears of nothing
	dirs    map[string]bool
	entries map[string]bool // directory/name of what matters
	failed  map[string]bool // directories that can't be watched, which was said
}

// newWatcher returns a watcher of nothing.
func newWatcher(log *slog.Logger) *watcher {
	w := &watcher{log: log, failed: map[string]bool{}}
	var err error
	if w.notify, err = fsnotify.NewWatcher(); err != nil {
		w.notify = nil
		log.Warn("no notifications of changed files: they are looked at now and then", slog.Any("error", err))
	}
	return w
}

func (w *watcher) close() {
	if w.notify != nil {
		_ = w.notify.Close()
	}
}

// events and errors of the file system; nil channels where there is none.
func (w *watcher) events() <-chan fsnotify.Event {
	if w.notify == nil {
		return nil
	}
	return w.notify.Events
}

func (w *watcher) errors() <-chan error {
	if w.notify == nil {
		return nil
	}
	return w.notify.Errors
}

// watch replaces what is watched. It is called again after each change: links may
// lead elsewhere by then. more is true when it hears of things now that it did not
// hear of before.
func (w *watcher) watch(files []string) (more bool) {
	if w.notify == nil {
		return false
	}
	dirs, entries := map[string]bool{}, map[string]bool{}
	for _, f := range files {
		for _, e := range wayTo(f) {
			entries[e], dirs[filepath.Dir(e)] = true, true
			more = more || !w.entries[e]
		}
	}
	for d := range dirs {
		// Again, too: it may be another directory of that name.
		err := w.notify.Add(d)
		if err != nil && !w.failed[d] {
			w.log.Warn("a directory can't be watched: its files are looked at now and then", slog.String("directory", d), slog.Any("error", err))
		}
		w.failed[d] = err != nil
	}
	for d := range w.dirs {
		if !dirs[d] {
			_ = w.notify.Remove(d) // it may be gone already
			delete(w.failed, d)
		}
	}
	w.dirs, w.entries = dirs, entries
	return more
}

// concerns reports whether an event is about what is watched, and not about its
// neighbours.
func (w *watcher) concerns(e fsnotify.Event) bool { return w.entries[e.Name] || w.dirs[e.Name] }

// mostLinks is how many symbolic links Linux follows on one way.
const mostLinks = 40

// wayTo returns the directory entries that decide what is read under a path: the
// file's own, and the symbolic links on the way to it. Their directories are
// without links. Where the way ends early, the last is what is missing.
func wayTo(path string) []string {
	path, err := filepath.Abs(path)
	if err != nil { // the working directory is gone
		return nil
	}
	var entries []string
	root := filepath.VolumeName(path) + string(filepath.Separator)
	here, rest := root, strings.Split(path[len(root):], string(filepath.Separator))
	for links := 0; len(rest) > 0; {
		entry := filepath.Join(here, rest[0])
		rest = rest[1:]
		info, err := os.Lstat(entry)
		if err != nil {
			return append(entries, entry)
		}
		if info.Mode()&os.ModeSymlink == 0 {
			if len(rest) == 0 {
				entries = append(entries, entry)
			}
			here = entry
			continue
		}
		entries = append(entries, entry)
		target, err := os.Readlink(entry)
		if links++; err != nil || links > mostLinks {
			return entries
		}
		if filepath.IsAbs(target) {
			here, target = root, strings.TrimPrefix(target, root)
		}
		rest = append(strings.Split(filepath.Clean(target), string(filepath.Separator)), rest...)
	}
	return entries
}
