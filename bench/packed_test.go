package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPackedTextsComeBack(t *testing.T) {
	texts := []string{"a", "", "ccc", strings.Repeat("d", 300)}
	p := pack(texts...)
	require.Equal(t, 4, p.len())
	for i, want := range texts {
		require.Equal(t, want, string(p.at(i)))
	}
	require.Equal(t, 2, p.first(2).len())
	require.Equal(t, 4, p.first(9).len())
	require.Zero(t, pack().len())
}

// Every text once before any of them twice, and not in their order.
func TestTargetsJumpThroughTheirTexts(t *testing.T) {
	for n := 1; n <= 1000; n++ {
		step, seen := spread(n), make([]bool, n)
		for i := range n {
			seen[i*step%n] = true
		}
		require.NotContains(t, seen, false, "%d texts, step %d", n, step)
	}
	require.Greater(t, spread(1_000_000), 600_000)

	to := newTarget("<", pack("a", "b", "c"), ">", 200)
	var got []string
	for range 3 {
		got = append(got, string(to.next(nil)))
	}
	slices.Sort(got)
	require.Equal(t, []string{"<a>", "<b>", "<c>"}, got)
}
