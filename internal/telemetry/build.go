package telemetry

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
)

// Set by the linker (-X) where the sources come without their repository, as in
// deploy/Dockerfile. With it, go build notes both by itself.
var version, revision string

// Build says what this program was built from.
type Build struct {
	Version  string // of the module, such as v1.2.3; else the revision's first 12 digits, else "devel"
	Revision string // the commit, with "+changes" behind it where more than that was built; "" if not known
	Go       string // the Go release
}

// ReadBuild returns what the running program was built from.
func ReadBuild() Build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return buildOf(info, version, revision)
}

func buildOf(info *debug.BuildInfo, version, revision string) Build {
	b := Build{Version: version, Revision: revision, Go: runtime.Version()}
	var commit, changes string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			changes = "+changes"
		}
	}
	if b.Revision == "" && commit != "" {
		b.Revision = commit + changes
	}
	if b.Version == "" && info.Main.Version != "(devel)" {
		b.Version = info.Main.Version
	}
	b.Version = cmp.Or(b.Version, fmt.Sprintf("%.12s", b.Revision), "devel")
	return b
}

func (b Build) String() string {
	return fmt.Sprintf("gatehouse %s (commit %s, %s, %s/%s)", b.Version, cmp.Or(b.Revision, "unknown"), b.Go, runtime.GOOS, runtime.GOARCH)
}
