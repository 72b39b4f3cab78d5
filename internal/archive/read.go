package archive

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/klauspost/compress/zstd"
)

// maxManifestLine is larger than any line of a manifest.
const maxManifestLine = 4096

// Read returns all confirmed lines of a day, file by file. A frame is verified before its lines
// are returned. A frame or file that cannot be read is an error, and Read continues with the next
// one; the error wraps [ErrDamaged] if the content is wrong. If the archive does not have the
// day, the error wraps [fs.ErrNotExist]. A line is not overwritten later.
//
// Read holds one frame in memory at a time. It may run while workers write.
func Read(dir string, day Day) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		paths, err := files(dir, day)
		if err != nil {
			yield(nil, err)
			return
		}
		decoder := newDecoder()
		defer decoder.Close()
		for _, path := range paths {
			for f, err := range confirmed(decoder, path) {
				if err != nil {
					if !yield(nil, err) {
						return
					}
					continue
				}
				for rest := f.lines; len(rest) > 0; {
					end := bytes.IndexByte(rest, '\n')
					if !yield(rest[:end:end], nil) {
						return
					}
					rest = rest[end+1:]
				}
			}
		}
	}
}

// Report describes a data file and its manifest.
type Report struct {
	Path     string // of the data file
	Day      Day
	Frames   int   // confirmed and undamaged
	Lines    int   // in these frames
	Bytes    int64 // of these frames
	Problems []error
	// Unconfirmed is the number of bytes after the last confirmed frame: what a crash has left,
	// or an Append that is under way. More than one whole frame there is a problem: the manifest
	// has lost lines.
	Unconfirmed int64
}

// Verify reads the whole archive and returns a report for each file. The error is that of a
// directory that cannot be listed, without a report; Verify then continues with the next one.
func Verify(dir string) iter.Seq2[Report, error] {
	return func(yield func(Report, error) bool) {
		days, err := Days(dir)
		if err != nil {
			yield(Report{}, err)
			return
		}
		decoder := newDecoder()
		defer decoder.Close()
		for _, day := range days {
			paths, err := files(dir, day)
			if err != nil && !yield(Report{}, err) {
				return
			}
			for _, path := range paths {
				if !yield(verify(decoder, day, path), nil) {
					return
				}
			}
		}
	}
}

func verify(decoder *zstd.Decoder, day Day, path string) Report {
	report := Report{Path: path + dataSuffix, Day: day}
	var size, end int64
	info, err := os.Stat(report.Path)
	if err == nil {
		size = info.Size()
	} else if !errors.Is(err, fs.ErrNotExist) { // confirmed reports a missing file
		report.Problems = append(report.Problems, fmt.Errorf("archive: verify: %w", err))
	}
	for f, err := range confirmed(decoder, path) {
		end = max(end, f.Offset+f.Bytes)
		if err != nil {
			report.Problems = append(report.Problems, err)
			continue
		}
		report.Frames++
		report.Lines += f.Lines
		report.Bytes += f.Bytes
	}
	report.Unconfirmed = max(0, size-end)
	if data, err := open(report.Path); err == nil {
		if unlistedFrames(data, end) > 1 {
			report.Problems = append(report.Problems, damaged(data, end, "more than one frame is not in the manifest, which has lost lines"))
		}
		_ = data.Close()
	}
	return report
}

// files returns the paths, without suffix, of the files of a day, sorted.
func files(dir string, day Day) ([]string, error) {
	if _, err := ParseDay(string(day)); err != nil {
		return nil, err
	}
	dayDir := filepath.Join(dir, string(day))
	entries, err := os.ReadDir(dayDir)
	if err != nil {
		return nil, fmt.Errorf("archive: list files: %w", err)
	}
	var paths []string
	for _, entry := range entries {
		name, isManifest := strings.CutSuffix(entry.Name(), manifestSuffix)
		name, isData := strings.CutSuffix(name, dataSuffix)
		if isManifest == isData || strings.HasPrefix(name, ".") || !entry.Type().IsRegular() {
			continue
		}
		paths = append(paths, filepath.Join(dayDir, name))
	}
	slices.Sort(paths)
	return slices.Compact(paths), nil
}

// content is a confirmed frame. lines is nil if it cannot be read.
type content struct {
	frame
	lines []byte // each with its line end
}

// confirmed returns the frames that the manifest of path confirms.
func confirmed(decoder *zstd.Decoder, path string) iter.Seq2[content, error] {
	return func(yield func(content, error) bool) {
		fail := func(err error) bool { return yield(content{}, err) }
		manifest, err := open(path + manifestSuffix)
		if errors.Is(err, fs.ErrNotExist) {
			return // nothing is confirmed
		}
		if err != nil {
			fail(fmt.Errorf("archive: read: %w", err))
			return
		}
		defer manifest.Close()
		// The manifest up to its present size, and the data file opened after that: then the data
		// file has all frames that are confirmed, also on a network file system with a cache.
		info, err := manifest.Stat()
		if err != nil {
			fail(fmt.Errorf("archive: read: %w", err))
			return
		}
		data, err := open(path + dataSuffix)
		missing := errors.Is(err, fs.ErrNotExist)
		if err != nil && !missing {
			fail(fmt.Errorf("archive: read: %w", err))
			return
		}
		defer data.Close()

		entries := bufio.NewReaderSize(io.LimitReader(manifest, info.Size()), maxManifestLine)
		next := int64(0) // offset of the next frame; -1: unknown
		var entry []byte
		for at := int64(0); ; at += int64(len(entry)) {
			entry, err = entries.ReadSlice('\n')
			switch {
			case errors.Is(err, io.EOF):
				// The start of a line: a write was cut off. Zeros may follow, nothing else.
				entry = bytes.TrimRight(entry, "\x00")
				if end := bytes.IndexByte(entry, '}'); end >= 0 && end < len(entry)-1 {
					fail(damaged(manifest, at, "malformed line"))
				}
				return
			case err != nil && !errors.Is(err, bufio.ErrBufferFull): // a line that is too long is malformed
				fail(fmt.Errorf("archive: read: %w", err))
				return
			case missing:
				fail(fmt.Errorf("archive: read %s: the file is missing: %w", path+dataSuffix, ErrDamaged))
				return
			}
			f, ok := parseEntry(entry)
			if !ok {
				next = -1
				if !fail(damaged(manifest, at, "malformed line")) {
					return
				}
				continue
			}
			if next >= 0 && f.Offset != next &&
				!fail(damaged(manifest, at, fmt.Sprintf("a line for byte %d instead of %d", f.Offset, next))) {
				return
			}
			next = f.Offset + f.Bytes
			lines, err := readFrame(decoder, data, f)
			if !yield(content{f, lines}, err) {
				return
			}
		}
	}
}

// parseEntry parses a line of a manifest. Unknown members are malformed, so that a changed letter
// in a name is noticed.
func parseEntry(entry []byte) (f frame, ok bool) {
	err := json.Unmarshal(entry, &f, json.RejectUnknownMembers(true))
	return f, err == nil && bytes.HasSuffix(entry, []byte("\n")) &&
		0 <= f.Offset && f.Offset < math.MaxInt64-maxFrame && 0 < f.Bytes && f.Bytes <= maxFrame && f.Lines > 0
}

// readFrame returns the verified lines of a frame.
func readFrame(decoder *zstd.Decoder, data *os.File, f frame) ([]byte, error) {
	compressed := make([]byte, f.Bytes)
	if n, err := data.ReadAt(compressed, f.Offset); errors.Is(err, io.EOF) {
		return nil, damaged(data, f.Offset, fmt.Sprintf("the file has %d bytes of a frame of %d bytes", n, f.Bytes))
	} else if err != nil {
		return nil, fmt.Errorf("archive: read at byte %d: %w", f.Offset, err)
	}
	if sum := sha256.Sum256(compressed); hex.EncodeToString(sum[:]) != f.SHA256 {
		return nil, damaged(data, f.Offset, "the SHA-256 of the frame differs from the manifest's")
	}
	lines, err := decoder.DecodeAll(compressed, nil)
	if err != nil {
		return nil, damaged(data, f.Offset, err.Error())
	}
	if n := bytes.Count(lines, []byte("\n")); n != f.Lines || lines[len(lines)-1] != '\n' {
		return nil, damaged(data, f.Offset, fmt.Sprintf("%d lines instead of %d", n, f.Lines))
	}
	return lines, nil
}

func damaged(file *os.File, offset int64, what string) error {
	return fmt.Errorf("archive: read %s at byte %d: %s: %w", file.Name(), offset, what, ErrDamaged)
}
