package users

import (
	"errors"
	"fmt"
	"strings"

	"github.com/alexedwards/argon2id"
)

// Parameters are the cost of an argon2id hash (RFC 9106).
type Parameters struct {
	Memory      uint32 // KiB
	Passes      uint32
	Parallelism uint8
}

// DefaultParameters are those of OWASP's password storage cheat sheet.
var DefaultParameters = Parameters{Memory: 19 << 10, Passes: 2, Parallelism: 1}

// String returns them as a hash has them.
func (p Parameters) String() string {
	return fmt.Sprintf("m=%d,t=%d,p=%d", p.Memory, p.Passes, p.Parallelism)
}

const (
	saltBytes = 16
	keyBytes  = 32

	// What a hash in a file may cost at most: a typing error must not take the
	// machine's memory at the first login.
	maxMemory      = 1 << 20 // KiB
	maxPasses      = 20
	maxParallelism = 64
)

// Hash returns the argon2id hash of a password, for a users file, in the PHC
// string format. It refuses an empty password and one of more than 1,024 bytes.
func Hash(password string) (string, error) {
	switch {
	case password == "":
		return "", errors.New("an empty password is none")
	case len(password) > maxPassword:
		return "", fmt.Errorf("a password of %d bytes: at most %d are looked at", len(password), maxPassword)
	}
	p := DefaultParameters
	return argon2id.CreateHash(password, &argon2id.Params{
		Memory: p.Memory, Iterations: p.Passes, Parallelism: p.Parallelism, SaltLength: saltBytes, KeyLength: keyBytes,
	})
}

// checkHash says what is wrong with a hash of a file, "" for nothing. It does
// not repeat the hash.
func checkHash(hash string) string {
	const remedy = "; 'gatehouse password hash' makes one"
	if hash == "" {
		return "missing" + remedy
	}
	if !strings.HasPrefix(hash, "$argon2id$") {
		return "not an argon2id hash, which begins with $argon2id$" + remedy
	}
	p, _, _, err := argon2id.DecodeHash(hash)
	if err != nil {
		return "not a whole argon2id hash" + remedy
	}
	written := Parameters{p.Memory, p.Iterations, p.Parallelism}
	// The library reads with Sscanf, which leaves alone what follows a number.
	if parts := strings.Split(hash, "$"); parts[2] != "v=19" || parts[3] != written.String() {
		return "not an argon2id hash in the usual form, $argon2id$v=19$m=…,t=…,p=…$salt$hash" + remedy
	}
	switch {
	case p.SaltLength < 8 || p.KeyLength < 16:
		return "salt or hash too short: want 8 and 16 bytes at least" + remedy
	case p.Memory > maxMemory || p.Iterations > maxPasses || p.Parallelism > maxParallelism || p.KeyLength > 1024 || p.SaltLength > 1024:
		return fmt.Sprintf("%s cost too much: at most m=%d,t=%d,p=%d", written, maxMemory, maxPasses, maxParallelism)
	case p.Iterations < 1 || p.Parallelism < 1 || p.Memory < 8*uint32(p.Parallelism):
		return fmt.Sprintf("%s make no hash (RFC 9106)", written) + remedy
	}
	return ""
}

// weakHash says that a good hash is quickly guessed at, "" when it isn't: when
// it costs as much as one of the settings that OWASP calls equal. The less
// memory, the more passes.
func weakHash(hash string) string {
	decoded, _, _, err := argon2id.DecodeHash(hash)
	if err != nil {
		return ""
	}
	p := Parameters{decoded.Memory, decoded.Iterations, decoded.Parallelism}
	for _, least := range []Parameters{{47104, 1, 1}, {19456, 2, 1}, {12288, 3, 1}, {9216, 4, 1}, {7168, 5, 1}} {
		if p.Memory >= least.Memory && p.Passes >= least.Passes {
			return ""
		}
	}
	return fmt.Sprintf("%s is quickly guessed at: %s or what costs as much is better, and 'gatehouse password hash' makes it", p, DefaultParameters)
}
