//go:build !linux && !darwin

package main

import "time"

// systemSuspended returns zero, because a suspension is not known here.
func systemSuspended() time.Duration { return 0 }
