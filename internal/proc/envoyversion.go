package proc

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"sync"

	"go.yaml.in/yaml/v4"
)

// EnvoyVersion is the version of an Envoy, without its patch level.
type EnvoyVersion struct{ Major, Minor int }

// Before reports whether v is older than another version.
func (v EnvoyVersion) Before(other EnvoyVersion) bool {
	return v.Major < other.Major || v.Major == other.Major && v.Minor < other.Minor
}

func (v EnvoyVersion) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// VersionOfEnvoy asks the Envoy that [Find] finds for its version.
func VersionOfEnvoy(ctx context.Context) (EnvoyVersion, error) {
	path, err := Find("envoy")
	if err != nil {
		return EnvoyVersion{}, err
	}
	if v, ok := versions.Load(path); ok {
		return v.(EnvoyVersion), nil
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output() //nolint:gosec // G204: Find says which programs are run
	if err != nil {
		return EnvoyVersion{}, fmt.Errorf("ask %s for its version: %w", path, err)
	}
	v, err := parseEnvoyVersion(out)
	if err == nil {
		versions.Store(path, v)
	}
	return v, err
}

var (
	versions       sync.Map // path to EnvoyVersion
	versionInReply = regexp.MustCompile(`version: [0-9a-f]+/([0-9]{1,4})\.([0-9]{1,4})\.`)
)

func parseEnvoyVersion(reply []byte) (v EnvoyVersion, err error) {
	m := versionInReply.FindSubmatch(reply)
	if m == nil {
		return v, fmt.Errorf("what Envoy says of its version has another form: %q", reply)
	}
	v.Major, _ = strconv.Atoi(string(m[1])) // digits, by the expression
	v.Minor, _ = strconv.Atoi(string(m[2]))
	return v, nil
}

// allowPathsSince is the first version that knows admin.allow_paths.
var allowPathsSince = EnvoyVersion{1, 37}

// KnowsAllowPaths reports whether the version knows admin.allow_paths, the list of
// pages that the admin interface has.
func (v EnvoyVersion) KnowsAllowPaths() bool { return !v.Before(allowPathsSince) }

// FitEnvoy takes out of a configuration what the Envoy of a version doesn't know
// and can do without: admin.allow_paths. Whatever else it doesn't know it refuses,
// as it should.
func FitEnvoy(config []byte, v EnvoyVersion) ([]byte, error) {
	if v.KnowsAllowPaths() {
		return config, nil
	}
	var doc yaml.Node
	if err := yaml.Load(config, &doc); err != nil {
		return nil, fmt.Errorf("read Envoy configuration: %w", err)
	}
	if len(doc.Content) == 0 {
		return config, nil
	}
	admin := field(doc.Content[0], "admin")
	if field(admin, "allow_paths") == nil {
		return config, nil
	}
	for i := 0; i+1 < len(admin.Content); i += 2 {
		if admin.Content[i].Value == "allow_paths" {
			admin.Content = append(admin.Content[:i], admin.Content[i+2:]...)
			break
		}
	}
	return yaml.Dump(&doc)
}
