//go:build !unix

package main

// openFiles is how many files and connections the system lets us have.
func openFiles() int { return mostFiles }
