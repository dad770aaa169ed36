package flood_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/flood"
)

// What is let through and what is told to be left out is all there was, kind by kind.
func TestBound(t *testing.T) {
	t.Parallel()
	var told [2]atomic.Int64
	b := flood.New(func(kind, left int) { told[kind].Add(int64(left)) })
	var passed [2]atomic.Int64
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for i := range 1000 {
				if b.Passes(i % 2) {
					passed[i%2].Add(1)
				}
			}
		})
	}
	all.Wait()
	b.Flush()
	for kind := range told {
		require.GreaterOrEqual(t, passed[kind].Load(), int64(10))
		require.Less(t, passed[kind].Load(), int64(2000))
		require.Equal(t, int64(2000), passed[kind].Load()+told[kind].Load())
	}
	require.True(t, b.Passes(0), "another second")
	b.Flush()
}
