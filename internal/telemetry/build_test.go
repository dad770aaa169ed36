package telemetry

import (
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBuildSaysWhatItWasBuiltFrom(t *testing.T) {
	const commit = "0123456789abcdef0123456789abcdef01234567"
	vcs := func(modified string) []debug.BuildSetting {
		return []debug.BuildSetting{{Key: "vcs.revision", Value: commit}, {Key: "vcs.modified", Value: modified}}
	}
	for name, c := range map[string]struct {
		info              debug.BuildInfo
		version, revision string // by the linker
		want              Build
	}{
		"a release":                {info: debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}, Settings: vcs("false")}, want: Build{Version: "v1.2.3", Revision: commit}},
		"go install":               {info: debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}}, want: Build{Version: "v1.2.3"}},
		"a checkout":               {info: debug.BuildInfo{Main: debug.Module{Version: "(devel)"}, Settings: vcs("false")}, want: Build{Version: "0123456789ab", Revision: commit}},
		"a checkout, changed":      {info: debug.BuildInfo{Main: debug.Module{Version: "(devel)"}, Settings: vcs("true")}, want: Build{Version: "0123456789ab", Revision: commit + "+changes"}},
		"nothing known":            {info: debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, want: Build{Version: "devel"}},
		"an image":                 {info: debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, version: "v1.2.3", revision: commit, want: Build{Version: "v1.2.3", Revision: commit}},
		"an image of no version":   {info: debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, revision: commit, want: Build{Version: "0123456789ab", Revision: commit}},
		"an image, nothing given":  {info: debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, want: Build{Version: "devel"}},
		"the linker has last word": {info: debug.BuildInfo{Main: debug.Module{Version: "v0.0.1"}, Settings: vcs("true")}, version: "v1.2.3", revision: "abc", want: Build{Version: "v1.2.3", Revision: "abc"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.want.Go = runtime.Version()
			require.Equal(t, c.want, buildOf(&c.info, c.version, c.revision))
		})
	}
}
