package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
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

// shortest is how long a secret is at least; a shorter text would appear by chance.
const shortest = 12

// secret says that text must never appear in the journal, and returns it.
func (r *record) secret(what, text string) string {
	if len(text) >= shortest {
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

// holdsNoSecret returns an error that names what leaked, and the line in which it did
// first, with the secret taken out of it. There are thousands of secrets and tens of
// megabytes of text: it is read once for all of them.
func (r *record) holdsNoSecret() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	byBeginning := map[[shortest]byte][]string{}
	for secret := range r.secrets {
		beginning := [shortest]byte([]byte(secret))
		byBeginning[beginning] = append(byBeginning[beginning], secret)
	}
	var leaks []error
	leaked := map[string]bool{}
	text := slices.Concat(r.text.Bytes(), r.metrics.Bytes())
	for i := range len(text) - shortest + 1 {
		for _, secret := range byBeginning[[shortest]byte(text[i:])] {
			if leaked[secret] || !bytes.HasPrefix(text[i:], []byte(secret)) {
				continue
			}
			leaked[secret] = true
			start := text[bytes.LastIndexByte(text[:i], '\n')+1 : i]
			end, _, _ := bytes.Cut(text[i+len(secret):], []byte("\n"))
			leaks = append(leaks, fmt.Errorf("%s is in this line: %s[here]%s", r.secrets[secret], start, end))
		}
	}
	return errors.Join(leaks...)
}

func TestJournalFindsWhatLeaks(t *testing.T) {
	r := &record{secrets: map[string]string{}}
	require.NoError(t, r.holdsNoSecret())
	_, err := r.Write([]byte("one\ntwo\n"))
	require.NoError(t, err)
	r.secret("a key", "0123456789abcdef")
	require.NoError(t, r.holdsNoSecret())
	_, err = r.Write([]byte("three 0123456789abcdef!\n"))
	require.NoError(t, err)
	require.EqualError(t, r.holdsNoSecret(), "a key is in this line: three [here]!")
	require.Equal(t, "two\nthree 0123456789abcdef!\n", r.since(len("one\n")))
	// Another one that begins alike, and is not there; one inside of it; and one that is
	// the end of all.
	r.secret("another key", "0123456789abcdef0")
	r.secret("a code", "123456789abc")
	r.measured([]byte("0123456789abcdef\nthe last=word of all"))
	r.secret("the end", "word of all.")
	r.secret("a password", "last=word of all")
	require.EqualError(t, r.holdsNoSecret(), "a key is in this line: three [here]!\n"+
		"a code is in this line: three 0[here]def!\n"+"a password is in this line: the [here]")
}
