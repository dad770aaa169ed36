package telemetry

import (
	"hash/fnv"
	"math"
	"math/rand/v2"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// sampleOf is what samples are counted out of.
const sampleOf = 1_000_000

// SetSample has this share of the requests that are allowed logged at info level, from
// 0 for none to 1 for all of them.
//
// The id that Envoy gives a request decides, and by the same rule as in Envoy's runtime
// filter of access logs with percent_sampled of a denominator of MILLION: the first 32
// bits of the UUID, modulo a million, are less than the numerator. So with the same
// share in both, and in all replicas, the same requests have a line.
func (r *Recorder) SetSample(share float64) {
	share = min(max(share, 0), 1) // and 0 for what is no number
	if math.IsNaN(share) {
		share = 0
	}
	r.sample.Store(uint32(math.Round(share * sampleOf)))
}

// samples reports whether an allowed request is one of the sample.
func (r *Recorder) samples(req *authz.Request) bool {
	n := r.sample.Load()
	if n == 0 {
		return false
	}
	id, ok := req.Headers.Header("x-request-id")
	if !ok || id == "" {
		return rand.Uint32N(sampleOf) < n //nolint:gosec // G404: nothing depends on it
	}
	return sampleNumber(id)%sampleOf < n
}

// sampleNumber is the number that Envoy takes of a request's id, and of an id that is
// none of Envoy's, a hash.
func sampleNumber(id string) uint32 {
	const digits = 8
	var n uint32
	for i := range min(len(id), digits) {
		switch c := id[i]; {
		case c >= '0' && c <= '9':
			n = n<<4 | uint32(c-'0')
		case c >= 'a' && c <= 'f':
			n = n<<4 | uint32(c-'a'+10)
		case c >= 'A' && c <= 'F':
			n = n<<4 | uint32(c-'A'+10)
		default:
			return hashOf(id)
		}
	}
	if len(id) != len("00000000-0000-4000-8000-000000000000") {
		return hashOf(id)
	}
	return n
}

func hashOf(id string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id)) // can't fail
	return h.Sum32()
}
