package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/gatehouse-auth/gatehouse/internal/claim"
)

// maxDepth bounds the nesting of JSON from outside, for our sake and for that
// of everybody who walks the claims later.
const maxDepth = 32

// decodeObject decodes exactly one JSON object, numbers as [json.Number]. It
// is stricter than encoding/json where two readers could differ (RFC 8725
// section 2.6, RFC 7493): duplicate members at any depth, however they are
// spelled, invalid UTF-8, unpaired surrogates and trailing data are errors.
// Names keep their case.
func decodeObject(data []byte) (map[string]any, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("not valid UTF-8")
	}
	if unpairedSurrogate(data) {
		return nil, errors.New("an escape of half a surrogate pair")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	v, err := decodeValue(d, 0)
	if err != nil {
		return nil, err
	}
	object, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("not a JSON object")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("data behind the JSON object")
	}
	return object, nil
}

func decodeValue(d *json.Decoder, depth int) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, jsonError(err)
	}
	open, ok := t.(json.Delim)
	if !ok {
		return t, nil
	}
	if depth == maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	if open == '[' {
		list := []any{}
		for d.More() {
			v, err := decodeValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = d.Token()
		return list, jsonError(err)
	}
	object := make(map[string]any, 12)
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, jsonError(err)
		}
		name, ok := t.(string)
		if !ok {
			return nil, errors.New("a member without a name")
		}
		if _, twice := object[name]; twice {
			return nil, fmt.Errorf("member %s twice", claim.Quote(name))
		}
		if object[name], err = decodeValue(d, depth+1); err != nil {
			return nil, err
		}
	}
	_, err = d.Token()
	return object, jsonError(err)
}

// jsonError keeps io.EOF, which reads like success, away from callers.
func jsonError(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// unpairedSurrogate finds \uD800 to \uDFFF outside a pair. encoding/json reads
// each as U+FFFD, which would make one user id of many.
func unpairedSurrogate(data []byte) bool {
	for i := bytes.IndexByte(data, '\\'); i >= 0 && i < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		i++ // whatever is escaped is none of the next escape's
		high := escapedUnit(data[i-1:])
		if !utf16.IsSurrogate(high) {
			continue
		}
		low := escapedUnit(data[min(i+5, len(data)):])
		if utf16.DecodeRune(high, low) == utf8.RuneError {
			return true
		}
		i += 10
	}
	return false
}

// escapedUnit returns the UTF-16 unit of the \uXXXX that s begins with, -1
// when it begins with anything else.
func escapedUnit(s []byte) rune {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(string(s[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(n)
}
