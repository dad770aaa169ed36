package proc_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
)

func TestMergeYAML(t *testing.T) {
	text, err := proc.MergeYAML("a: {b: 1, c: [1, 2]}\nd: x", "", "a: {c: [3], e: {f: 2}}", "d: {g: 4}")
	require.NoError(t, err)
	require.YAMLEq(t, "a: {b: 1, c: [3], e: {f: 2}}\nd: {g: 4}", string(text))

	_, err = proc.MergeYAML("a: 1", "a: [")
	require.ErrorContains(t, err, "a: [", "the text that is wrong is shown")
}
