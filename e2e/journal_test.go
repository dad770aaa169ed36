package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// journal collects what every program under test printed and every metric that
// it told, and knows every credential that a test ever showed to one of them.
var journal = &record{secrets: map[string]string{}}

type record struct {
	mu      sync.Mutex
	text    bytes.Buffer
	metrics bytes.Buffer
	secrets map[string]string // text that must not appear → what it is
}

// Write takes what a program printed.
func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

// measured takes metrics.
func (r *record) measured(text []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.metrics.Write(text)
}

// secret says that text must never appear in the journal, and returns it. A
// short one would appear by chance.
func (r *record) secret(what, text string) string {
	const least = 12
	if len(text) >= least {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.secrets[text] = what
	}
	return text
}

// since returns what was written after an offset.
func (r *record) since(offset int) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(r.text.Bytes()[offset:])
}

func (r *record) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Len()
}

// holdsNoSecret returns an error that names what leaked, and the line in which
// it did, with the secret taken out of it.
func (r *record) holdsNoSecret() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var leaks []error
	text := r.text.String() + r.metrics.String()
	for secret, what := range r.secrets {
		before, after, found := strings.Cut(text, secret)
		if !found {
			continue
		}
		start := before[strings.LastIndexByte(before, '\n')+1:]
		end, _, _ := strings.Cut(after, "\n")
		leaks = append(leaks, fmt.Errorf("%s is in this line: %s", what, start+"[here]"+end))
	}
	return errors.Join(leaks...)
}

func TestJournalFindsWhatLeaks(t *testing.T) {
	r := &record{secrets: map[string]string{}}
	_, err := r.Write([]byte("one\ntwo\n"))
	require.NoError(t, err)
	r.secret("a key", "0123456789abcdef")
	require.NoError(t, r.holdsNoSecret())
	_, err = r.Write([]byte("three 0123456789abcdef!\n"))
	require.NoError(t, err)
	require.EqualError(t, r.holdsNoSecret(), "a key is in this line: three [here]!")
	require.Equal(t, "two\nthree 0123456789abcdef!\n", r.since(len("one\n")))
}
