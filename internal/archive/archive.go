// Package archive keeps lines (JSON objects) in files, so that their source may delete them.
//
// An archive is a directory with a directory for each UTC day, the day of archiving. A worker's
// process writes NAME.ndjson.zst and NAME.manifest into it:
//
//	2026-11-26/host-1234-k3v5q2m7x4ab.ndjson.zst
//	2026-11-26/host-1234-k3v5q2m7x4ab.manifest
//
// The data file is a sequence of zstd frames, one for each [Writer.Append], each with content
// size and checksum. "zstd -dc" prints its lines (NDJSON). The manifest has a line for each frame:
//
//	{"offset":0,"bytes":12345,"lines":500,"sha256":"hex, of the compressed frame"}
//
// A frame is confirmed by its line in the manifest, which is written after the frame is on disk.
// Append returns after both are on disk (fsync) and have been read back. So after a crash:
//
//   - bytes of the data file after the last confirmed frame, a data file without a manifest, and
//     the end of a manifest after its last line end are the remains of an Append that did not
//     return. Readers ignore them: the source still has those lines. For zstd, "head -c N" cuts
//     them off, where N is offset + bytes of the last line of the manifest.
//   - a frame may be confirmed although its Append did not return. Its lines are then appended
//     again, to another file: a line may be in the archive twice.
//
// Only the process that created a file writes to it, from start to end, and never after an error.
// Nothing is repaired and nothing is overwritten. Files and directories whose names have another
// form are ignored.
package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/klauspost/compress/zstd"
)

const (
	dataSuffix     = ".ndjson.zst"
	manifestSuffix = ".manifest"

	dirMode  = 0o750
	fileMode = 0o640

	// maxFrame is the largest size of a frame, compressed and not. It limits the memory of
	// readers, and is below the 128 MiB that "zstd -d" accepts.
	maxFrame = 64 << 20
)

// ErrDamaged is wrapped by the errors about confirmed lines that cannot be read.
var ErrDamaged = errors.New("archive is damaged")

// frame is a line of a manifest.
type frame struct {
	Offset int64  `json:"offset"` // in the data file
	Bytes  int64  `json:"bytes"`  // compressed
	Lines  int    `json:"lines"`
	SHA256 string `json:"sha256"` // of the compressed frame, lower-case hex
}

// Day is a UTC day in the form 2026-11-26.
type Day string

// DayOf returns the UTC day of a time.
func DayOf(t time.Time) Day { return Day(t.UTC().Format(time.DateOnly)) }

// ParseDay returns the day that s names.
func ParseDay(s string) (Day, error) {
	if _, err := time.Parse(time.DateOnly, s); err != nil {
		return "", fmt.Errorf("archive: parse day: %q does not have the form 2026-11-26", s)
	}
	return Day(s), nil
}

// Days returns the days of the archive, oldest first.
func Days(dir string) ([]Day, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("archive: list days: %w", err)
	}
	var days []Day
	for _, entry := range entries {
		if day, err := ParseDay(entry.Name()); err == nil && entry.IsDir() {
			days = append(days, day)
		}
	}
	return days, nil
}

// CheckDir reports whether an archive can be written to dir: dir exists, is a directory, and
// takes a file that can be fsynced. It is for the start of a program; the error is for its user.
func CheckDir(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the directory %s does not exist", dir)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory", dir)
	}
	if err := tryWrite(dir); err != nil {
		return fmt.Errorf("cannot write to the directory %s: %w", dir, err)
	}
	return nil
}

func tryWrite(dir string) error {
	file, err := os.CreateTemp(dir, ".check-*")
	if err != nil {
		return err
	}
	_, err = file.WriteString("written by a check, can be deleted\n")
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close(), os.Remove(file.Name()), syncDir(dir))
}

// syncDir waits until the entries of a directory are on disk.
func syncDir(path string) error {
	dir, err := open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func open(path string) (*os.File, error) {
	return os.Open(path) //nolint:gosec // G304: a file of the archive
}

func newDecoder() *zstd.Decoder {
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxFrame))
	if err != nil {
		panic(err) // the options are constant
	}
	return decoder
}
