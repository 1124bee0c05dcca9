package main

import (
	"os"

	"golang.org/x/sys/windows"
)

// enableSequences makes the console that file writes to follow control sequences; without
// it the console shows them. It does nothing if file is not a console.
func enableSequences(file *os.File) {
	var mode uint32
	console := windows.Handle(file.Fd())
	if windows.GetConsoleMode(console, &mode) == nil {
		windows.SetConsoleMode(console, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING)
	}
}
