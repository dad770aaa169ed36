package extauthz

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
	"unsafe"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// A CheckRequest is read from its bytes, field by field, without making the
// messages of the generated types: those cost more than all that is decided by
// them. What is read means the same, for every input: the rest is checked as
// the generated types would (shape), fields that are there twice are merged,
// and of map entries with one key the last counts. Fuzz tests compare the two.

// wireRequest is what is needed of a CheckRequest. It is used again: its strings
// are parts of its own copy of the bytes.
type wireRequest struct {
	bytes  []byte
	waited time.Duration // between its arrival and its turn, as far as that is known

	http               bool // there is an HTTP request
	method, path, host string
	address            string // of the peer's socket; "" for none
	policy             string
	hasPolicy          bool
	audience           string
	hasAudience        bool
	fromMap, fromList  []headerField
	upper              bool // a name of the map has capitals

	view wireHeaders
}

// headerField is one header, or one appearance of it.
type headerField struct {
	name, value string
	raw         string // of the list: bytes that need not be UTF-8; "" for none
}

var wireRequests = sync.Pool{New: func() any { return &wireRequest{} }}

// release makes the request ready for the next one. Nobody may use its strings
// any more.
func (w *wireRequest) release() {
	if cap(w.bytes) > 64<<10 { // one large body must not stay for ever
		w.bytes = nil
	}
	const most = 256 // headers, as above
	if cap(w.fromMap) > most || cap(w.fromList) > most {
		w.fromMap, w.fromList = nil, nil
	}
	clear(w.fromMap)
	clear(w.fromList)
	*w = wireRequest{bytes: w.bytes[:0], fromMap: w.fromMap[:0], fromList: w.fromList[:0]}
	wireRequests.Put(w)
}

// read reads the CheckRequest in bytes.
func (w *wireRequest) read() error {
	return fields(w.bytes, func(num protowire.Number, typ protowire.Type, value []byte) error {
		if num == 1 && typ == protowire.BytesType {
			return w.attributes(value)
		}
		return checkShape.field(num, typ, value, maxDepth-1)
	})
}

// text is string(b) without a copy, for bytes that stay as long as the request.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) } //nolint:gosec // G103: see release

var (
	errWire = errors.New("not a message in wire format")
	errUTF8 = errors.New("a string that is not UTF-8")
	errDeep = errors.New("messages in messages, too deep")
)

// stringField reads a string.
func stringField(to *string, value []byte) error {
	if !utf8.Valid(value) {
		return errUTF8
	}
	*to = text(value)
	return nil
}

// fields calls f for each field of a message. Of a length-delimited field the
// value is what it holds, of others it is nil.
func fields(b []byte, f func(num protowire.Number, typ protowire.Type, value []byte) error) error {
	for len(b) > 0 {
		// Nearly all that there is: a field with a length, either below 128.
		if len(b) >= 2 && b[0] < 0x80 && b[0]&7 == byte(protowire.BytesType) && b[0] >= 1<<3 && b[1] < 0x80 && int(b[1]) <= len(b)-2 {
			end := 2 + int(b[1])
			if err := f(protowire.Number(b[0]>>3), protowire.BytesType, b[2:end:end]); err != nil {
				return err
			}
			b = b[end:]
			continue
		}
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 || num > protowire.MaxValidNumber {
			return errWire
		}
		b = b[n:]
		if typ == protowire.BytesType {
			value, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return errWire
			}
			b = b[n:]
			if err := f(num, typ, value); err != nil {
				return err
			}
			continue
		}
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return errWire
		}
		b = b[n:]
		if err := f(num, typ, nil); err != nil {
			return err
		}
	}
	return nil
}

// attributes reads an AttributeContext.
func (w *wireRequest) attributes(b []byte) error {
	shape := shapes.attributes
	return fields(b, func(num protowire.Number, typ protowire.Type, value []byte) error {
		if typ != protowire.BytesType {
			return nil
		}
		switch num { //nolint:exhaustive // field numbers are no list of cases
		case 1: // source
			return w.peer(value)
		case 4: // request
			return w.request(value)
		case 10: // context_extensions
			return w.extension(value)
		}
		return shape.field(num, typ, value, maxDepth-2)
	})
}

// peer reads a Peer, of which the address counts.
func (w *wireRequest) peer(b []byte) error {
	shape := shapes.peer
	return fields(b, func(num protowire.Number, typ protowire.Type, value []byte) error {
		if num == 1 && typ == protowire.BytesType {
			return w.peerAddress(value)
		}
		return shape.field(num, typ, value, maxDepth-3)
	})
}

// peerAddress reads an Address: of its three kinds the one that is named last.
func (w *wireRequest) peerAddress(b []byte) error {
	shape := shapes.address
	return fields(b, func(num protowire.Number, typ protowire.Type, value []byte) error {
		if typ != protowire.BytesType {
			return nil
		}
		switch num { //nolint:exhaustive // field numbers are no list of cases
		case 1: // socket_address
			return w.socket(value)
		case 2, 3: // pipe, envoy_internal_address
			w.address = ""
		}
		return shape.field(num, typ, value, maxDepth-4)
	})
}

func (w *wireRequest) socket(b []byte) error {
	shape := shapes.socket
	return fields(b, func(num protowire.Number, typ protowire.Type, value []byte) error {
		if num == 2 && typ == protowire.BytesType {
			return stringField(&w.address, value)
		}
		return shape.field(num, typ, value, maxDepth-5)
	})
}

// request reads an AttributeContext.Request.
func (w *wireRequest) request(b []byte) error {
	shape := shapes.request
	return fields(b, func(num protowire.Number, typ protowire.Type, value []byte) error {
		if num == 2 && typ == protowire.BytesType {
			w.http = true
			return w.httpRequest(value)
		}
		return shape.field(num, typ, value, maxDepth-3)
	})
}

// httpRequest reads an AttributeContext.HttpRequest.
func (w *wireRequest) httpRequest(b []byte) error {
	shape := shapes.http
	return fields(b, func(num protowire.Number, typ protowire.Type, value []byte) error {
		if typ != protowire.BytesType {
			return nil
		}
		switch num { //nolint:exhaustive // field numbers are no list of cases
		case 2:
			return stringField(&w.method, value)
		case 3:
			return w.mapHeader(value)
		case 4:
			return stringField(&w.path, value)
		case 5:
			return stringField(&w.host, value)
		case 13:
			return w.headerList(value)
		}
		return shape.field(num, typ, value, maxDepth-4)
	})
}

// pair reads an entry of a map of strings.
func pair(b []byte) (key, value string, err error) {
	err = fields(b, func(num protowire.Number, typ protowire.Type, v []byte) error {
		if typ != protowire.BytesType {
			return nil
		}
		switch num { //nolint:exhaustive // field numbers are no list of cases
		case 1:
			return stringField(&key, v)
		case 2:
			return stringField(&value, v)
		}
		return nil
	})
	return key, value, err
}

func (w *wireRequest) extension(b []byte) error {
	key, value, err := pair(b)
	if err == nil && key == policyExtension {
		w.policy, w.hasPolicy = value, true
	}
	if err == nil && key == audienceExtension {
		w.audience, w.hasAudience = value, true
	}
	return err
}

func (w *wireRequest) mapHeader(b []byte) error {
	key, value, err := pair(b)
	w.fromMap = append(w.fromMap, headerField{name: key, value: value})
	for i := range len(key) {
		if 'A' <= key[i] && key[i] <= 'Z' {
			w.upper = true
			break
		}
	}
	return err
}

// headerList reads a HeaderMap.
func (w *wireRequest) headerList(b []byte) error {
	return fields(b, func(num protowire.Number, typ protowire.Type, value []byte) error {
		if num != 1 || typ != protowire.BytesType {
			return nil
		}
		w.fromList = append(w.fromList, headerField{})
		h := &w.fromList[len(w.fromList)-1]
		return fields(value, func(num protowire.Number, typ protowire.Type, value []byte) error {
			if typ != protowire.BytesType {
				return nil
			}
			switch num { //nolint:exhaustive // field numbers are no list of cases
			case 1:
				return stringField(&h.name, value)
			case 2:
				return stringField(&h.value, value)
			case 3:
				h.raw = text(value)
			}
			return nil
		})
	})
}

// parts are the request for the core.
func (w *wireRequest) parts() authz.RequestParts {
	p := authz.RequestParts{
		Method: w.method, Authority: w.host, Target: w.path,
		PolicyName: w.policy, HasPolicyName: w.hasPolicy,
		Audience: w.audience, HasAudience: w.hasAudience,
	}
	if addr, err := netip.ParseAddr(w.address); err == nil {
		p.Address = addr.Unmap()
	}
	switch {
	case len(w.fromList) > 0:
		w.view = wireHeaders{fields: w.fromList, list: true}
		p.Headers = &w.view
	case w.upper: // not Envoy's
		p.Headers = authz.HeaderMap(lowerCased(w.headerMap()))
	default:
		w.view = wireHeaders{fields: w.fromMap}
		p.Headers = &w.view
	}
	return p
}

func (w *wireRequest) headerMap() map[string]string {
	m := make(map[string]string, len(w.fromMap))
	for _, h := range w.fromMap {
		m[h.name] = h.value
	}
	return m
}

// wireHeaders are the headers in either of Envoy's forms: the entries of a map,
// of which the last of a name counts, or a list, in which what is repeated is
// joined by commas, and "!" stands for bytes that are not UTF-8, as Envoy does
// for the map. It must: the two forms give the same decision, and a protobuf
// string in the reply can't hold such bytes.
type wireHeaders struct {
	fields []headerField
	list   bool
}

// Header implements [authz.Headers].
func (h *wireHeaders) Header(name string) (string, bool) {
	if h.list {
		return h.joined(name)
	}
	for _, f := range slices.Backward(h.fields) {
		if f.name == name {
			return f.value, true
		}
	}
	return "", false
}

func (h *wireHeaders) joined(name string) (string, bool) {
	var (
		value string
		more  []string
		found bool
	)
	for i := range h.fields {
		f := &h.fields[i]
		if !strings.EqualFold(f.name, name) {
			continue
		}
		v := f.value
		if f.raw != "" {
			v = sanitized(f.raw)
		}
		if found {
			more = append(more, v)
			continue
		}
		value, found = v, true
	}
	if more == nil {
		return value, found
	}
	return value + "," + strings.Join(more, ","), true
}

// All implements [authz.Headers].
func (h *wireHeaders) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for i := range h.fields {
			name := h.fields[i].name
			if h.list {
				name = strings.ToLower(name)
			}
			if slices.ContainsFunc(h.fields[:i], func(earlier headerField) bool {
				return earlier.name == name || h.list && strings.EqualFold(earlier.name, name)
			}) {
				continue
			}
			if value, _ := h.Header(name); !yield(name, value) {
				return
			}
		}
	}
}

// maxDepth is how deep the generated types read messages in messages.
const maxDepth = protowire.DefaultRecursionLimit

// shape is what of a message can be wrong beyond its wire format: strings that
// are not UTF-8, and the messages in it.
type shape struct {
	fields []fieldShape // by number; those beyond are unknown
}

type fieldShape struct {
	text    bool
	message *shape
}

var checkShape = shapeOf((&authv3.CheckRequest{}).ProtoReflect().Descriptor(), map[protoreflect.FullName]*shape{})

// shapes are those of the messages that are read.
var shapes = struct{ attributes, peer, address, socket, request, http *shape }{
	checkShape.message(1), checkShape.message(1, 1), checkShape.message(1, 1, 1), checkShape.message(1, 1, 1, 1), checkShape.message(1, 4), checkShape.message(1, 4, 2),
}

func shapeOf(d protoreflect.MessageDescriptor, known map[protoreflect.FullName]*shape) *shape {
	if s, ok := known[d.FullName()]; ok {
		return s
	}
	s := &shape{}
	known[d.FullName()] = s
	for i := range d.Fields().Len() {
		s.fields = append(s.fields, make([]fieldShape, max(int(d.Fields().Get(i).Number())+1-len(s.fields), 0))...)
	}
	for i := range d.Fields().Len() {
		switch f := d.Fields().Get(i); f.Kind() { //nolint:exhaustive // all others can hold whatever they like
		case protoreflect.StringKind:
			s.fields[f.Number()].text = true
		case protoreflect.MessageKind:
			s.fields[f.Number()].message = shapeOf(f.Message(), known)
		default:
			if f.IsPacked() || f.Kind() == protoreflect.GroupKind {
				panic(fmt.Sprintf("extauthz: field %s of a kind that is not expected", f.FullName()))
			}
		}
	}
	return s
}

// message returns the shape of the message at a path of fields.
func (s *shape) message(path ...protowire.Number) *shape {
	for _, num := range path {
		s = s.fields[num].message
	}
	return s
}

// field checks a field of the message.
func (s *shape) field(num protowire.Number, typ protowire.Type, value []byte, depth int) error {
	if typ != protowire.BytesType || int(num) >= len(s.fields) {
		return nil
	}
	if s.fields[num].text && !utf8.Valid(value) {
		return errUTF8
	}
	inner := s.fields[num].message
	if inner == nil {
		return nil
	}
	if depth <= 0 {
		return errDeep
	}
	return fields(value, func(num protowire.Number, typ protowire.Type, value []byte) error {
		return inner.field(num, typ, value, depth-1)
	})
}
