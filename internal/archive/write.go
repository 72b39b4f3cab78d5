package archive

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/klauspost/compress/zstd"
)

// level is the fastest, because its frames are also the smallest: most of what is left of a
// payment after compression is random (ids, digests, times). Size and CPU time of a line of 1 KB
// in BenchmarkAppend (frames of 1,000 lines; fsync and reading back included):
//
//	SpeedFastest            119 B,  9 us
//	SpeedDefault            128 B, 13 us
//	SpeedBetterCompression  124 B, 24 us
//	SpeedBestCompression    119 B, 72 us
const level = zstd.SpeedFastest

// Writer appends lines to an archive. It is safe for concurrent use. Any number of writers, also
// of different processes and hosts, may write to one archive.
type Writer struct {
	dir    string
	worker string // as part of a file name
	now    func() time.Time

	mu         sync.Mutex
	encoder    *zstd.Encoder
	decoder    *zstd.Decoder
	out        *output // nil: the next Append creates one
	raw, frame []byte  // buffers
}

// output is the pair of files that a Writer appends to. Its offsets are those after the last
// Append that succeeded.
type output struct {
	day            Day
	path           string // without suffix
	data, manifest *os.File
	dataEnd        int64
	manifestEnd    int64
}

// NewWriter returns a Writer that appends to the archive in dir, which must exist. The names of
// its files begin with the name of the worker.
func NewWriter(dir, worker string, now func() time.Time) *Writer {
	encoder, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(level),
		zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(true),
		// Not the default of 4 MiB: no larger for these lines, and a Writer keeps 2 MB instead of 10.
		zstd.WithWindowSize(256<<10),
		zstd.WithLowerEncoderMem(true),
		zstd.WithSingleSegment(true), // each frame has its content size, however small it is
	)
	if err != nil {
		panic(err) // the options are constant
	}
	return &Writer{dir: dir, worker: fileName(worker), now: now, encoder: encoder, decoder: newDecoder()}
}

// fileName returns the name of a worker with only letters, digits, "-", "_" and "." in it.
func fileName(worker string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '_', r == '.':
			return r
		}
		return '-'
	}, worker)
	name = strings.TrimLeft(name, ".") // hidden files are foreign files
	return name[:min(len(name), 100)]
}

// Append writes the lines as one frame to the file of the present day, and returns that day. When
// it returns nil, all lines are on disk and have been read back: their source may delete them.
// After an error none of them counts as archived, although some may be read later. The next
// Append then creates a new file.
//
// No lines, an empty line, a line with a line end, and lines of more than 64 MiB together are
// errors.
func (w *Writer) Append(lines [][]byte) (Day, error) {
	if len(lines) == 0 {
		return "", errors.New("archive: append: no lines")
	}
	size := 0
	for i, line := range lines {
		size += len(line) + 1
		switch {
		case len(line) == 0:
			return "", fmt.Errorf("archive: append: line %d of %d is empty", i+1, len(lines))
		case bytes.IndexByte(line, '\n') >= 0:
			return "", fmt.Errorf("archive: append: line %d of %d contains a line end", i+1, len(lines))
		case size > maxFrame:
			return "", fmt.Errorf("archive: append: %d lines are more than %d bytes", len(lines), maxFrame)
		}
	}

	w.mu.Lock()
	defer w.mu.Unlock()
	day := DayOf(w.now())
	if w.out != nil && w.out.day != day {
		_ = w.abandon() // all that it contains is on disk
	}
	if w.out == nil {
		out, err := create(w.dir, day, w.worker)
		if err != nil {
			return "", fmt.Errorf("archive: append: create file: %w", err)
		}
		w.out = out
	}
	if err := w.append(lines); err != nil {
		path := w.out.path
		_ = w.abandon()
		return "", fmt.Errorf("archive: append to %s: %w", path+dataSuffix, err)
	}
	return day, nil
}

func (w *Writer) append(lines [][]byte) error {
	w.raw = w.raw[:0]
	for _, line := range lines {
		w.raw = append(append(w.raw, line...), '\n')
	}
	w.frame = w.encoder.EncodeAll(w.raw, w.frame[:0])
	if len(w.frame) > maxFrame {
		return fmt.Errorf("frame of %d bytes is too large", len(w.frame))
	}
	sum := sha256.Sum256(w.frame)
	written := frame{Offset: w.out.dataEnd, Bytes: int64(len(w.frame)), Lines: len(lines), SHA256: hex.EncodeToString(sum[:])}
	entry, err := json.Marshal(written)
	if err != nil {
		return err
	}
	entry = append(entry, '\n')

	// The order matters: an entry on disk promises that its frame is.
	if err := writeSync(w.out.data, w.frame); err != nil {
		return err
	}
	if err := writeSync(w.out.manifest, entry); err != nil {
		return err
	}
	if err := w.readBack(lines, written, entry); err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	w.out.dataEnd += int64(len(w.frame))
	w.out.manifestEnd += int64(len(entry))
	return nil
}

func writeSync(file *os.File, b []byte) error {
	if _, err := file.Write(b); err != nil {
		return err
	}
	return file.Sync()
}

// readBack reports an error unless a reader, which opens the files by name, finds the lines.
func (w *Writer) readBack(lines [][]byte, written frame, entry []byte) error {
	manifest, err := open(w.out.path + manifestSuffix)
	if err != nil {
		return err
	}
	defer manifest.Close()
	found := make([]byte, len(entry))
	if _, err := manifest.ReadAt(found, w.out.manifestEnd); err != nil {
		return fmt.Errorf("%s: %w", manifest.Name(), err)
	}
	if !bytes.Equal(found, entry) {
		return fmt.Errorf("%s: the line differs from what was written", manifest.Name())
	}

	data, err := open(w.out.path + dataSuffix)
	if err != nil {
		return err
	}
	defer data.Close()
	rest, err := readFrame(w.decoder, data, written)
	if err != nil {
		return err
	}
	for i, line := range lines {
		after, ok := bytes.CutPrefix(rest, line)
		if !ok || len(after) == 0 || after[0] != '\n' {
			return fmt.Errorf("line %d of %d differs from what was written", i+1, len(lines))
		}
		rest = after[1:]
	}
	return nil // readFrame has compared the number of lines
}

// Close closes the current file. An Append after it creates a new one.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.out == nil {
		return nil
	}
	if err := w.abandon(); err != nil {
		return fmt.Errorf("archive: close: %w", err)
	}
	return nil
}

// abandon closes the current file, and deletes it if no Append to it has succeeded.
func (w *Writer) abandon() error {
	out := w.out
	w.out = nil
	err := errors.Join(out.data.Close(), out.manifest.Close())
	if out.dataEnd == 0 {
		out.remove()
	}
	return err
}

// remove deletes files without confirmed lines: otherwise each retry on a full disk would leave
// two. The manifest is deleted first, because the data file alone confirms nothing.
func (o *output) remove() {
	_ = os.Remove(o.path + manifestSuffix)
	_ = os.Remove(o.path + dataSuffix)
}

// create creates a pair of files, and the directory of the day where it is missing. Their entries
// in the directories are on disk when it returns.
func create(dir string, day Day, worker string) (*output, error) {
	// Not MkdirAll: a missing dir is likely a volume that is not mounted.
	dayDir := filepath.Join(dir, string(day))
	if err := os.Mkdir(dayDir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	suffix := strings.ToLower(rand.Text()[:12]) // 60 bits
	out := &output{day: day, path: filepath.Join(dayDir, worker+"-"+suffix)}
	var err error
	if out.data, err = createFile(out.path + dataSuffix); err != nil {
		return nil, err
	}
	if out.manifest, err = createFile(out.path + manifestSuffix); err != nil {
		_ = out.data.Close()
		_ = os.Remove(out.data.Name())
		return nil, err
	}
	// Also dir if the day's directory was there: the process that created it may not have synced.
	if err := errors.Join(syncDir(dayDir), syncDir(dir)); err != nil {
		_ = out.data.Close()
		_ = out.manifest.Close()
		out.remove()
		return nil, err
	}
	return out, nil
}

func createFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fileMode) //nolint:gosec // G302, G304: the operator's own directory; a group may read the archive
}
