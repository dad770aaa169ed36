//go:build race

package main

// raceDetector: with it, pools forget on purpose.
const raceDetector = true
