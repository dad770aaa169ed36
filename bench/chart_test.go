package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestChartShowsWhatIsAdded(t *testing.T) {
	r := sample()
	r.Parts[0].Scenarios[1].Title = "<no-op> & server"
	at := r.Parts[0]
	at.Load.Rate = 1000
	swept := at
	swept.Load.Sweep = true
	r.Parts = append(r.Parts, at, swept)
	var got bytes.Buffer
	require.NoError(t, r.writeSVG(&got))
	text := got.String()

	d := xml.NewDecoder(&got)
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err, "it is XML")
	}
	require.Equal(t, 1, strings.Count(text, ">closed loop, 32 connections<"))
	require.Equal(t, 1, strings.Count(text, ">1000 requests/s, 32 connections<"), "a sweep is no panel")
	require.Equal(t, 2, strings.Count(text, ">&lt;no-op&gt; &amp; server<"))
	require.Equal(t, 0, strings.Count(text, ">no filter<"), "it adds nothing to itself")
	// Envoy 60 and server 30 of 100 that the axis has.
	require.Contains(t, text, `<rect class="envoy" x="270.0" y="90" width="312.0" height="16"/><rect class="server" x="582.0" y="90" width="156.0" height="16"/><rect class="redis" x="738.0" y="90" width="0.0" height="16"/><text x="744.0" y="102">90.0</text>`)
	require.Contains(t, text, "prefers-color-scheme:dark")
}

func TestChartNeedsSomethingToDraw(t *testing.T) {
	r := sample()
	r.Parts[0].Scenarios = r.Parts[0].Scenarios[1:]
	require.ErrorContains(t, r.writeSVG(io.Discard), "needs the scenario none")
	r = sample()
	r.Parts[0].Scenarios = r.Parts[0].Scenarios[:1]
	require.ErrorContains(t, r.writeSVG(io.Discard), "needs the scenario none and another one")
}

func TestAxisHasFewRoundSteps(t *testing.T) {
	for most, want := range map[float64]float64{0: 1, 0.5: 0.1, 7: 1, 8: 1, 9: 2, 40: 5, 90: 20, 300: 50, 634: 100} {
		require.InDelta(t, want, axisStep(most), 1e-9, "%v", most)
	}
}
