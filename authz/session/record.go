package session

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Record is the JSON text of a session or a profile while it is being changed.
// What is not changed keeps its bytes and its place: member names as they are
// escaped, numbers of any size, members that Gatehouse knows nothing of. Only
// white space between members may go.
//
// A path is the name of a member, or a dotted path as in [Fields]. A Record is
// not safe for concurrent use.
type Record struct {
	members []member
	changed bool
}

type member struct {
	name  string
	text  []byte // the name as it is written, quotes included
	value json.RawMessage
}

// parseRecord takes a JSON object apart.
func parseRecord(text []byte) (*Record, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	r := &Record{}
	for decoder.More() {
		start := decoder.InputOffset()
		token, err := decoder.Token()
		if err != nil {
			return nil, fmt.Errorf("not a JSON object: %w", err)
		}
		name, ok := token.(string)
		if !ok {
			return nil, errors.New("not a JSON object: a member has no name")
		}
		m := member{name: name, text: text[start:decoder.InputOffset()]}
		m.text = m.text[bytes.IndexByte(m.text, '"'):] // a comma and white space stand before it
		if err := decoder.Decode(&m.value); err != nil {
			return nil, fmt.Errorf("not a JSON object: %w", err)
		}
		r.members = append(r.members, m)
	}
	if _, err := decoder.Token(); err != nil { // the closing brace
		return nil, fmt.Errorf("not a JSON object: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("not a JSON object: something follows it")
	}
	return r, nil
}

// Get returns the JSON text at a path; ok is false when nothing is there. It
// must not be changed. Of members with the same name the last one counts, as
// in JavaScript.
func (r *Record) Get(path string) (value json.RawMessage, ok bool) {
	if i := r.index(path); i >= 0 {
		return r.members[i].value, true
	}
	i, rest := r.parent(path)
	if i < 0 {
		return nil, false
	}
	child, err := parseRecord(r.members[i].value)
	if err != nil {
		return nil, false
	}
	return child.Get(rest)
}

// Set puts the JSON form of value at a path: in place of what is there, else
// as a new member at the end, in new objects where the path asks for them. A
// [json.RawMessage] is taken as it is, white space aside. It fails for a value
// without JSON form, and for a path that leads through something that is not
// an object.
func (r *Record) Set(path string, value any) error {
	text, err := marshal(value)
	if err != nil {
		return fmt.Errorf("set %s: %w", path, err)
	}
	return r.set(path, text)
}

func (r *Record) set(path string, text json.RawMessage) error {
	if i := r.index(path); i >= 0 {
		r.change(i, text)
		return nil
	}
	head, rest, dotted := strings.Cut(path, ".")
	if !dotted {
		return r.add(path, text)
	}
	i, _ := r.parent(path)
	child := &Record{}
	if i >= 0 && string(r.members[i].value) != "null" {
		var err error
		if child, err = parseRecord(r.members[i].value); err != nil {
			return fmt.Errorf("set %s: %s is %w", path, head, err)
		}
	}
	if err := child.set(rest, text); err != nil {
		return err
	}
	if i >= 0 {
		r.change(i, child.encode())
		return nil
	}
	return r.add(head, child.encode())
}

// Delete removes what is at a path, if anything is.
func (r *Record) Delete(path string) {
	n := len(r.members)
	r.members = slices.DeleteFunc(r.members, func(m member) bool { return m.name == path })
	if len(r.members) < n {
		r.changed = true
		return
	}
	i, rest := r.parent(path)
	if i < 0 {
		return
	}
	child, err := parseRecord(r.members[i].value)
	if err != nil {
		return
	}
	if child.Delete(rest); child.changed {
		r.change(i, child.encode())
	}
}

// index returns the place of the member that counts for a name, -1 for none.
func (r *Record) index(name string) int {
	for i, m := range slices.Backward(r.members) {
		if m.name == name {
			return i
		}
	}
	return -1
}

// parent returns the place of the member through which a dotted path leads and
// the rest of the path; -1 when there is none.
func (r *Record) parent(path string) (i int, rest string) {
	head, rest, dotted := strings.Cut(path, ".")
	if !dotted {
		return -1, ""
	}
	return r.index(head), rest
}

func (r *Record) change(i int, text json.RawMessage) {
	if !bytes.Equal(r.members[i].value, text) {
		r.members[i].value, r.changed = text, true
	}
}

func (r *Record) add(name string, text json.RawMessage) error {
	quoted, err := marshal(name)
	if err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	r.members = append(r.members, member{name: name, text: quoted, value: text})
	r.changed = true
	return nil
}

func (r *Record) encode() []byte {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range r.members {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(m.text)
		b.WriteByte(':')
		b.Write(m.value)
	}
	b.WriteByte('}')
	return b.Bytes()
}
