package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
)

// materials writes the bill of materials of a program in CycloneDX: what the
// program says that it was built from, with licences, and who needs whom, from
// modules. It is an error if the two don't name the same modules.
func materials(p product, program []byte, modules []module, commit commit) ([]byte, error) {
	info, err := buildinfo.Read(bytes.NewReader(program))
	if err != nil {
		return nil, fmt.Errorf("read what the program was built from: %w", err)
	}
	sums := map[string]string{}
	for _, d := range info.Deps {
		sums[d.Path] = d.Sum
	}
	var self *cyclonedx.Component
	var components []cyclonedx.Component
	refs := map[string]string{}
	for _, m := range modules {
		c := cyclonedx.Component{Type: cyclonedx.ComponentTypeLibrary, Name: m.Path, Version: m.Version}
		switch {
		case m.Main:
			c.Type, c.Name, c.Version = cyclonedx.ComponentTypeApplication, p.Name, info.Main.Version
			c.PackageURL = "pkg:golang/" + m.Path + "@" + c.Version + "#" + strings.TrimPrefix(p.Main, "./")
			digest := sha256.Sum256(program)
			c.Hashes = &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(digest[:])}}
		case m.Path == standard:
			if m.Version != info.GoVersion {
				return nil, fmt.Errorf("the program was built by %s, and %s lists its modules", info.GoVersion, m.Version)
			}
			c.PackageURL = "pkg:golang/" + standard + "@" + strings.TrimPrefix(m.Version, "go")
		default:
			sum, ok := sums[m.Path]
			if !ok {
				return nil, fmt.Errorf("module %s should be in the program, and the program doesn't name it", m.Path)
			}
			delete(sums, m.Path)
			c.PackageURL = "pkg:golang/" + m.Path + "@" + m.Version
			if c.Hashes, err = goSum(sum); err != nil {
				return nil, fmt.Errorf("module %s: %w", m.Path, err)
			}
		}
		c.BOMRef = c.PackageURL
		refs[m.Path] = c.BOMRef
		if c.Licenses, err = licensesOf(m); err != nil {
			return nil, err
		}
		if m.Main {
			self = &c
			continue
		}
		components = append(components, c)
	}
	if len(sums) > 0 {
		return nil, fmt.Errorf("the program names modules that it shouldn't need: %v", sums)
	}
	if self == nil {
		return nil, fmt.Errorf("no module of %v is the main one", modules)
	}

	var needs []cyclonedx.Dependency
	for _, m := range modules {
		d := cyclonedx.Dependency{Ref: refs[m.Path]}
		var on []string
		for _, path := range m.Needs {
			on = append(on, refs[path])
		}
		if len(on) > 0 {
			d.Dependencies = &on
		}
		needs = append(needs, d)
	}

	bom := cyclonedx.NewBOM()
	bom.SerialNumber = serial(program)
	bom.Metadata = &cyclonedx.Metadata{
		Timestamp:  commit.time.UTC().Format(time.RFC3339),
		Lifecycles: &[]cyclonedx.Lifecycle{{Phase: cyclonedx.LifecyclePhaseBuild}},
		Tools: &cyclonedx.ToolsChoice{Components: &[]cyclonedx.Component{
			{Type: cyclonedx.ComponentTypeApplication, Name: p.Module + "/tools/release", Version: info.Main.Version},
		}},
		Component:  self,
		Properties: buildProperties(info),
	}
	bom.Components = &components
	bom.Dependencies = &needs
	bom.Compositions = &[]cyclonedx.Composition{{
		Aggregate:    cyclonedx.CompositionAggregateComplete,
		Dependencies: &[]cyclonedx.BOMReference{cyclonedx.BOMReference(self.BOMRef)},
	}}
	var b bytes.Buffer
	encoder := cyclonedx.NewBOMEncoder(&b, cyclonedx.BOMFileFormatJSON)
	encoder.SetPretty(true).SetEscapeHTML(false)
	if err := encoder.Encode(bom); err != nil {
		return nil, fmt.Errorf("write the bill of materials: %w", err)
	}
	return b.Bytes(), nil
}

// licensesOf are a module's licences, all of which hold. They were found in its
// files, rather than said by its author in some other way.
func licensesOf(m module) (*cyclonedx.Licenses, error) {
	all, err := papers(m)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, p := range all {
		ids = append(ids, p.IDs...)
	}
	slices.Sort(ids)
	var choices cyclonedx.Licenses
	for _, id := range slices.Compact(ids) {
		choices = append(choices, cyclonedx.LicenseChoice{License: &cyclonedx.License{ID: id, Acknowledgement: cyclonedx.LicenseAcknowledgementConcluded}})
	}
	return &choices, nil
}

// goSum is the hash of go.sum in CycloneDX's form, as cyclonedx-gomod writes it: a
// SHA-256 over the names and hashes of the module's files.
func goSum(sum string) (*[]cyclonedx.Hash, error) {
	text, ok := strings.CutPrefix(sum, "h1:")
	if !ok {
		return nil, fmt.Errorf("its hash %q is none that go.sum has", sum)
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) != sha256.Size {
		return nil, fmt.Errorf("its hash %q is none that go.sum has", sum)
	}
	return &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(raw)}}, nil
}

// serial is a UUID (version 8) that follows from the program, so that it is another
// one for another program and the same for the same.
func serial(program []byte) string {
	digest := sha256.Sum256(append([]byte("bill of materials\n"), program...))
	u := digest[:16]
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// buildProperties says how the program was built, in the words of CycloneDX's
// taxonomy for Go.
func buildProperties(info *buildinfo.BuildInfo) *[]cyclonedx.Property {
	properties := []cyclonedx.Property{{Name: "cdx:gomod:build:env:GOVERSION", Value: info.GoVersion}}
	names := map[string]string{
		"CGO_ENABLED": "build:env:CGO_ENABLED", "GOARCH": "build:env:GOARCH", "GOOS": "build:env:GOOS", "-compiler": "build:compiler",
		"-tags": "build:tag", "vcs": "build:vcs", "vcs.revision": "build:vcs:revision", "vcs.time": "build:vcs:time", "vcs.modified": "build:vcs:modified",
	}
	for _, s := range info.Settings {
		if name, ok := names[s.Key]; ok {
			properties = append(properties, cyclonedx.Property{Name: "cdx:gomod:" + name, Value: s.Value})
		}
	}
	slices.SortFunc(properties, func(a, b cyclonedx.Property) int { return strings.Compare(a.Name, b.Name) })
	return &properties
}
