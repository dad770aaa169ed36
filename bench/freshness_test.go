package main

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSharesAddUp(t *testing.T) {
	for _, n := range []int{0, 3, 10, 23, 10_000} {
		sum := 0
		for lane := range 10 {
			sum += share(n, 10, lane)
		}
		require.Equal(t, n, sum)
	}
}

// Every change must show: a new answer that equals the old one would be
// honoured before it was made.
func TestEachChangeChangesTheAnswer(t *testing.T) {
	u := &subject{
		session: asker{known: answer{http.StatusOK, "org-01"}},
		bearer:  asker{known: answer{http.StatusOK, "org-02"}},
	}
	u.sessionUser.Organization, u.tokenUser.Organization = "org-01", "org-02"
	for range 3 * kinds {
		c := u.next()
		require.NotEqual(t, c.want, c.asker.known, c.write)
		c.asker.known = c.want
	}
}

func TestDistribution(t *testing.T) {
	var d distribution
	d.summarize([]time.Duration{3 * time.Millisecond, time.Millisecond, 2 * time.Millisecond})
	require.Equal(t, distribution{Tries: 3, P50: 2, P99: 3, Max: 3}, d)
	d.summarize(nil)
	require.Zero(t, d)
}
