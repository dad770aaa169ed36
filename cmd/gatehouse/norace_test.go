//go:build !race

package main

const (
	raceDetector = false
	floodChecks  = 20_000  // checks
	cachedChecks = 100_000 // of each kind
)
