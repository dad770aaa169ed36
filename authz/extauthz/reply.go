package extauthz

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// A reply that lets a request through is written as bytes, without the messages
// of the generated types: the same as [okResponse], as a test compares. Refusals,
// and what has credentials taken out, take the ordinary way.

// Numbers of fields.
const (
	replyStatus   = 1 // CheckResponse
	replyOK       = 3
	replyMetadata = 4

	okHeaders = 2 // OkHttpResponse
	okRemove  = 5
	okAnswer  = 6 // headers of the response

	optionHeader = 1 // HeaderValueOption
	optionAppend = 3
	overwriteIt  = 2 // OVERWRITE_IF_EXISTS_OR_ADD
)

// sizeField is the size of a field with a length, whose number is below 16.
func sizeField(length int) int {
	if length < 0x80 {
		return 2 + length
	}
	return 1 + protowire.SizeBytes(length)
}

func appendLength(b []byte, num protowire.Number, length int) []byte {
	if length < 0x80 { // as most are; each number of ours is below 16
		return append(b, byte(num)<<3|byte(protowire.BytesType), byte(length)) //nolint:gosec // G115: as said
	}
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return protowire.AppendVarint(b, uint64(length))
}

func appendText(b []byte, num protowire.Number, s string) []byte {
	return append(appendLength(b, num, len(s)), s...)
}

// metadataField is a field of the dynamic metadata.
type metadataField struct{ name, value string }

// metadataOf is what Envoy's access log, RBAC and rate-limit filters can read
// below envoy.filters.http.ext_authz. Values that are not known are left out.
func metadataOf(d *authz.Decision, decision string, memory []metadataField) []metadataField {
	all := append(memory, metadataField{"decision", decision}, metadataField{"reason", string(d.Reason)})
	add := func(name, value string) {
		if value != "" {
			all = append(all, metadataField{name, value})
		}
	}
	if d.Policy != nil {
		add("policy", d.Policy.Name)
	}
	add("credential", string(d.Kind))
	if d.Observed != nil {
		add("would_deny", string(authz.ReasonOf(d.Observed)))
	}
	if p := d.Principal; p != nil {
		add("user", validUTF8(p.ID))
		add("organization", validUTF8(p.Organization))
		add("degraded", string(p.Degraded))
	}
	for i := range d.Metadata {
		all = append(all, metadataField{d.Metadata[i].Name, d.Metadata[i].Value})
	}
	return all
}

// appendMetadata appends a google.protobuf.Struct of strings.
func appendMetadata(b []byte, all []metadataField) []byte {
	const mapField, key, value, stringValue = 1, 1, 2, 3
	entry := func(f *metadataField) int { return sizeField(len(f.name)) + sizeField(sizeField(len(f.value))) }
	size := 0
	for i := range all {
		size += sizeField(entry(&all[i]))
	}
	b = appendLength(b, replyMetadata, size)
	for i := range all {
		f := &all[i]
		b = appendLength(b, mapField, entry(f))
		b = appendText(b, key, f.name)
		b = appendLength(b, value, sizeField(len(f.value)))
		b = appendText(b, stringValue, f.value) // a oneof: there even when empty
	}
	return b
}

// appendAllowed appends the reply that [okResponse] makes of a decision and the
// headers of its identity, without making either. Without known it is one without
// identity.
func (s *Server) appendAllowed(b []byte, d *authz.Decision, known bool) []byte {
	var set [4]valueOf
	n, which := 0, 0
	if known {
		p := d.Principal
		h := &s.o.Headers
		for i, v := range [...]valueOf{{name: h.ID, value: p.ID}, {name: h.Email, value: p.Email}, {name: h.Organization, value: p.Organization}} {
			if v.value != "" {
				set[n] = v
				n++
				which |= 1 << i
			}
		}
		set[n] = valueOf{name: h.Roles, roles: p.Roles}
		if set[n].roles == nil {
			set[n].roles = noRoles
		}
		n++
	}
	size := 0
	for i := range set[:n] {
		v := &set[i]
		v.size = v.length()
		size += sizeField(v.option())
	}
	var extra []authz.Header
	if known {
		extra = d.Extra
	}
	for i := range extra {
		size += sizeField(optionSize(len(extra[i].Name), len(extra[i].Value)))
	}
	size += len(s.removals[which])
	for i := range s.extra {
		if !s.extra[i].isSet(extra) {
			size += len(s.extra[i].encoded)
		}
	}
	answer := d.ClientHeaders()
	for _, h := range answer {
		size += sizeField(optionSize(len(h.Name), len(h.Value)))
	}
	b = appendLength(b, replyStatus, 0)
	b = appendLength(b, replyOK, size)
	for i := range set[:n] {
		v := &set[i]
		b = appendOption(b, okHeaders, v.name, v.size)
		b = appendOverwrite(v.append(b))
	}
	for i := range extra {
		b = appendOption(b, okHeaders, extra[i].Name, len(extra[i].Value))
		b = appendOverwrite(append(b, extra[i].Value...))
	}
	b = append(b, s.removals[which]...)
	for i := range s.extra {
		if !s.extra[i].isSet(extra) {
			b = append(b, s.extra[i].encoded...)
		}
	}
	for _, h := range answer {
		b = appendOption(b, okAnswer, h.Name, len(h.Value))
		b = appendOverwrite(append(b, h.Value...))
	}
	var memory [8]metadataField
	return appendMetadata(b, metadataOf(d, "allow", memory[:0]))
}

var noRoles = []string{}

// valueOf is a header's value: a text, or roles where they are not nil. Its
// length is counted before it is written.
type valueOf struct {
	name, value string
	roles       []string
	size        int
}

func (v *valueOf) length() int {
	if v.roles != nil {
		return authz.RolesLength(v.roles)
	}
	return authz.ValueLength(v.value)
}

func (v *valueOf) append(b []byte) []byte {
	if v.roles != nil {
		return authz.AppendRoles(b, v.roles)
	}
	return authz.AppendValue(b, v.value)
}

// option is the size of the HeaderValueOption.
func (v *valueOf) option() int { return optionSize(len(v.name), v.size) }

// optionSize is the size of a HeaderValueOption. No value is empty.
func optionSize(name, value int) int { return sizeField(sizeField(name)+sizeField(value)) + 2 }

// appendOption begins a HeaderValueOption, up to the value; behind that goes
// appendOverwrite.
func appendOption(b []byte, num protowire.Number, name string, value int) []byte {
	b = appendLength(b, num, optionSize(len(name), value))
	b = appendLength(b, optionHeader, sizeField(len(name))+sizeField(value))
	b = appendText(b, 1, name)
	return appendLength(b, 2, value)
}

func appendOverwrite(b []byte) []byte {
	b = protowire.AppendTag(b, optionAppend, protowire.VarintType)
	return protowire.AppendVarint(b, overwriteIt)
}

// removal is the name of a header that some policy adds, and its removal.
type removal struct {
	name    string
	encoded []byte
}

func (r *removal) isSet(extra []authz.Header) bool {
	for i := range extra {
		if extra[i].Name == r.name {
			return true
		}
	}
	return false
}

// encodeRemovals encodes the names to remove beside each set of headers that can
// be there, by bits for id, email and organization. An identity has an id always:
// the place of none is for nobody's request. The headers that policies add come
// last, one by one.
func (s *Server) encodeRemovals() {
	for _, name := range s.authorizer.ExtraHeaders() {
		s.extra = append(s.extra, removal{name, appendText(nil, okRemove, name)})
	}
	h := s.o.Headers
	for which := range s.removals {
		var set []authz.Header
		for i, name := range [...]string{h.ID, h.Email, h.Organization} {
			if which&(1<<i) != 0 {
				set = append(set, authz.Header{Name: name})
			}
		}
		if which != 0 {
			set = append(set, authz.Header{Name: h.Roles})
		}
		for _, name := range unset(s.spellings[:len(s.spellings)-len(s.extra)], set) {
			s.removals[which] = appendText(s.removals[which], okRemove, name)
		}
	}
}
