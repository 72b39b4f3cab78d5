// Package version identifies the build of a program.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Release is the version of this source code. The chart's appVersion, and with it the tag of
// the image, is the same.
const Release = "0.1.0"

// commit is set when an image is built, with
// -ldflags "-X terbayar/internal/version.commit=abc1234".
var commit string

// Commit returns the commit that the program was built from, or "unknown".
func Commit() string {
	if commit != "" {
		return commit
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return unknown
	}
	return fromBuildInfo(info.Settings)
}

const unknown = "unknown"

// fromBuildInfo returns the commit that the go command recorded. It records one if it finds
// git and the repository.
func fromBuildInfo(settings []debug.BuildSetting) string {
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

// Go returns the version of Go that the program was built with.
func Go() string { return runtime.Version() }

// String returns release, commit and Go version, e.g. "0.1.0 (commit abc1234, go1.26.8)".
func String() string { return fmt.Sprintf("%s (commit %s, %s)", Release, Commit(), Go()) }
