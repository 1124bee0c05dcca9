package main

// Which call-me this is: what --version prints and the server tells who has the key.

import (
	"cmp"
	"fmt"
	"runtime/debug"
	"strings"
)

// release is the tag of the release. The linker sets it in builds whose build info has
// no version, as those of images. It is empty in other builds.
var release string

// version returns the release, the commit with its time, and the version of Go, as
// "v1.0.0 (commit 0123456789ab, 2025-01-01T00:00:00Z, go1.26.0)". It is "unknown" if
// the binary has no build info.
func version() string {
	info, found := debug.ReadBuildInfo()
	if !found {
		return "unknown"
	}
	var details []string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			details = append(details, "commit "+s.Value[:min(12, len(s.Value))])
		case s.Key == "vcs.time":
			details = append(details, s.Value)
		case s.Key == "vcs.modified" && s.Value == "true":
			details = append(details, "modified")
		}
	}
	details = append(details, info.GoVersion)
	return fmt.Sprintf("%s (%s)", cmp.Or(release, info.Main.Version), strings.Join(details, ", "))
}
