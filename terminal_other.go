//go:build !windows

package main

import "os"

// enableSequences does nothing: terminals of other systems follow control sequences.
func enableSequences(*os.File) {}
