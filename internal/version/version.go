// Package version says which build a program is.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Release is the version of this source. The chart's appVersion, and so the tag
// of the image that it asks for, is the same.
const Release = "0.1.0"

// commit is what an image's build stamps with
// -ldflags "-X terbayar/internal/version.commit=abc1234".
var commit string

// Commit is the commit the program was built from, "unknown" where nobody said.
func Commit() string {
	if commit != "" {
		return commit
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return unknown
	}
	return recorded(info.Settings)
}

const unknown = "unknown"

// recorded is the commit as the go command wrote it down, which it does where
// it finds git and the repository.
func recorded(settings []debug.BuildSetting) string {
	revision, dirty := unknown, ""
	for _, s := range settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(len(s.Value), 7)]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "-dirty"
		}
	}
	return revision + dirty
}

// Go is the version of Go the program was built with.
func Go() string { return runtime.Version() }

// String is all of it, e.g. "0.1.0 (commit abc1234, go1.26.8)".
func String() string { return fmt.Sprintf("%s (commit %s, %s)", Release, Commit(), Go()) }
