//go:build race

package main

// raceDetector: the built binary, which the tests with real processes use, is
// made without it, so that running them again would show nothing new.
const raceDetector = true
