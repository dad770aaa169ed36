//go:build race

package main

// raceDetector: with it, pools forget on purpose, and all takes ten times as long. So
// what is about numbers, and one by one, is shorter: a tenth is as good to find races.
const (
	raceDetector = true
	floodChecks  = 2_000
	cachedChecks = 10_000
)
