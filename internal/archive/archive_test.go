package archive_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"terbayar/internal/archive"
)

const today = archive.Day("2026-11-26")

func clock() time.Time { return time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC) }

func newWriter(t testing.TB, dir, worker string) *archive.Writer {
	t.Helper()
	w := archive.NewWriter(dir, worker, clock)
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func bytesOf(lines ...string) [][]byte {
	var out [][]byte
	for _, line := range lines {
		out = append(out, []byte(line))
	}
	return out
}

func mustAppend(t testing.TB, w *archive.Writer, lines ...string) {
	t.Helper()
	if day, err := w.Append(bytesOf(lines...)); err != nil || day != today {
		t.Fatalf("Append: %q, %v", day, err)
	}
}

func collect(seq iter.Seq2[[]byte, error]) (lines []string, errs []error) {
	var kept [][]byte // converted at the end: a line must not be overwritten
	for line, err := range seq {
		if err != nil {
			errs = append(errs, err)
			continue
		}
		kept = append(kept, line)
	}
	for _, line := range kept {
		lines = append(lines, string(line))
	}
	return lines, errs
}

// wantLines fails the test unless the day has exactly these lines and no error.
func wantLines(t testing.TB, dir string, day archive.Day, want ...string) {
	t.Helper()
	got, errs := collect(archive.Read(dir, day))
	if len(errs) > 0 {
		t.Fatalf("Read: %v", errs)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("lines (-want +got):\n%s", diff)
	}
}

// dataFiles returns the paths of the data files of a day.
func dataFiles(t testing.TB, dir string, day archive.Day) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, string(day), "*.ndjson.zst"))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func manifestOf(data string) string { return strings.TrimSuffix(data, ".ndjson.zst") + ".manifest" }

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// writeFile does not use os.WriteFile, which empties a file first: ext4 then writes to the disk
// at once, which takes milliseconds.
func writeFile(t testing.TB, path string, content []byte) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, err = file.WriteAt(content, 0)
	if err := errors.Join(err, file.Truncate(int64(len(content))), file.Close()); err != nil {
		t.Fatal(err)
	}
}

func reports(t testing.TB, dir string) (all []archive.Report) {
	t.Helper()
	for report, err := range archive.Verify(dir) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, report)
	}
	return all
}

func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, dir, "pod-7/x:1234")
	long := `{"long":"` + strings.Repeat("0123456789", 100_000) + `"}`
	mustAppend(t, w, `{"id":1}`, `{"id":"é\n"}`)
	mustAppend(t, w, `{"id":3}`)
	mustAppend(t, w, long, `{}`)
	want := []string{`{"id":1}`, `{"id":"é\n"}`, `{"id":3}`, long, `{}`}
	wantLines(t, dir, today, want...)

	paths := dataFiles(t, dir, today)
	if len(paths) != 1 || !regexp.MustCompile(`/2026-11-26/pod-7-x-1234-[a-z2-7]{12}\.ndjson\.zst$`).MatchString(paths[0]) {
		t.Fatalf("data files: %v", paths)
	}
	data := readFile(t, paths[0])
	var text []byte
	if _, err := exec.LookPath("zstd"); err == nil {
		text, err = exec.Command("zstd", "-dc", paths[0]).Output()
		if err != nil {
			t.Fatal(err)
		}
	} else {
		decoder, err := zstd.NewReader(nil)
		if err != nil {
			t.Fatal(err)
		}
		if text, err = decoder.DecodeAll(data, nil); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(strings.Join(want, "\n")+"\n", string(text)); diff != "" {
		t.Fatalf("zstd -dc (-want +got):\n%s", diff)
	}

	var manifest []string
	for _, f := range parts(t, paths[0]) {
		var header zstd.Header
		if err := header.Decode(f.data); err != nil || !header.HasFCS || !header.HasCheckSum {
			t.Errorf("frame at %d: %v, content size %v, checksum %v", f.offset, err, header.HasFCS, header.HasCheckSum)
		}
		manifest = append(manifest, f.entry)
	}
	if len(manifest) != 3 || !regexp.MustCompile(`^\{"offset":0,"bytes":\d+,"lines":2,"sha256":"[0-9a-f]{64}"\}\n$`).MatchString(manifest[0]) {
		t.Errorf("manifest: %q", manifest)
	}

	want2 := []archive.Report{{Path: paths[0], Day: today, Frames: 3, Lines: 5, Bytes: int64(len(data))}}
	if diff := cmp.Diff(want2, reports(t, dir)); diff != "" {
		t.Errorf("Verify (-want +got):\n%s", diff)
	}
}

// part is a frame as the files have it.
type part struct {
	offset int
	data   []byte // the compressed frame
	entry  string // its line in the manifest
}

func parts(t testing.TB, path string) (all []part) {
	t.Helper()
	data := readFile(t, path)
	for entry := range strings.Lines(string(readFile(t, manifestOf(path)))) {
		var offset, size int
		if _, err := fmt.Sscanf(entry, `{"offset":%d,"bytes":%d,`, &offset, &size); err != nil {
			t.Fatalf("manifest line %q: %v", entry, err)
		}
		all = append(all, part{offset, data[offset : offset+size], entry})
	}
	return all
}

func TestDayChange(t *testing.T) {
	dir := t.TempDir()
	now := time.Date(2026, 11, 27, 6, 59, 59, 0, time.FixedZone("WIB", 7*3600)) // 23:59:59 UTC
	w := archive.NewWriter(dir, "w", func() time.Time { return now })
	defer w.Close()
	for i, want := range []archive.Day{"2026-11-26", "2026-11-27", "2026-11-27", "2026-11-26"} {
		if day, err := w.Append(bytesOf(fmt.Sprint(i))); err != nil || day != want {
			t.Fatalf("Append %d: %q, %v, want %q", i, day, err, want)
		}
		if now = now.Add(time.Second); i == 2 {
			now = now.Add(-time.Hour) // the clock was set back
		}
	}
	wantLines(t, dir, "2026-11-27", "1", "2")
	got, errs := collect(archive.Read(dir, "2026-11-26"))
	if slices.Sort(got); !slices.Equal(got, []string{"0", "3"}) || len(errs) > 0 {
		t.Errorf("2026-11-26: %v, %v", got, errs)
	}
	if n := len(dataFiles(t, dir, "2026-11-26")); n != 2 {
		t.Errorf("%d files on 2026-11-26, want 2: a file is never opened again", n)
	}
	days, err := archive.Days(dir)
	if diff := cmp.Diff([]archive.Day{"2026-11-26", "2026-11-27"}, days); diff != "" || err != nil {
		t.Errorf("Days: %v\n%s", err, diff)
	}
}

// Two writers of the same name, each used by two goroutines, while a reader reads.
func TestConcurrent(t *testing.T) {
	dir := t.TempDir()
	const appends = 25
	var want []string
	var writers sync.WaitGroup
	for name := range 2 {
		w := newWriter(t, dir, "host:1")
		for routine := range 2 {
			for i := range appends {
				want = append(want, fmt.Sprintf(`{"w":%d,"r":%d,"i":%d}`, name, routine, i))
			}
			mine := want[len(want)-appends:]
			writers.Go(func() {
				for _, line := range mine {
					if _, err := w.Append(bytesOf(line)); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		if _, errs := collect(archive.Read(dir, today)); len(errs) > 0 && !errors.Is(errs[0], fs.ErrNotExist) {
			t.Fatalf("Read while writing: %v", errs)
		}
	}
	got, errs := collect(archive.Read(dir, today))
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" || len(errs) > 0 {
		t.Errorf("errors %v, lines (-want +got):\n%s", errs, diff)
	}
	if n := len(dataFiles(t, dir, today)); n != 2 {
		t.Errorf("%d files, want 2", n)
	}
}

func TestAppendRejects(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, dir, "w")
	for _, test := range []struct {
		lines [][]byte
		want  string
	}{
		{nil, "no lines"},
		{bytesOf("a", "", "c"), "line 2 of 3 is empty"},
		{bytesOf("a", "b\nc"), "line 2 of 2 contains a line end"},
		{bytesOf("a\n"), "line 1 of 1 contains a line end"},
		{slices.Repeat([][]byte{make([]byte, 1<<20)}, 64), "64 lines are more than 67108864 bytes"},
	} {
		if day, err := w.Append(test.lines); err == nil || !strings.Contains(err.Error(), test.want) || day != "" {
			t.Errorf("%q, %v, want %s", day, err, test.want)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("files were created: %v, %v", entries, err)
	}
}

func TestLargestFrame(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := newWriter(t, dir, "w")
	line := bytes.Repeat([]byte("x"), 1<<20-1)
	if _, err := w.Append(slices.Repeat([][]byte{line}, 64)); err != nil {
		t.Fatal(err)
	}
	lines := 0
	for got, err := range archive.Read(dir, today) {
		if err != nil || !bytes.Equal(got, line) {
			t.Fatalf("line %d: %d bytes, %v", lines, len(got), err)
		}
		lines++
	}
	if lines != 64 {
		t.Errorf("%d lines, want 64", lines)
	}
}

// small is an archive with one file.
type small struct {
	dir, path      string // path of the data file
	data, manifest []byte
	frames         [][]string
	ends           []int // of the frames, in data
	entryEnds      []int // of their lines, in manifest
}

func newSmall(t testing.TB) *small {
	s := &small{dir: t.TempDir(), frames: [][]string{
		{`{"id":"INV-1","amount":13000}`, `{"id":"INV-2","amount":25000}`},
		{`{"id":"INV-3","name":"Budi Santoso"}`},
		{`{"id":"INV-4"}`, `{"id":"INV-5"}`, `{"id":"INV-6"}`},
	}}
	w := newWriter(t, s.dir, "host:1")
	for _, lines := range s.frames {
		mustAppend(t, w, lines...)
	}
	s.path = dataFiles(t, s.dir, today)[0]
	s.data, s.manifest = readFile(t, s.path), readFile(t, manifestOf(s.path))
	for _, p := range parts(t, s.path) {
		s.ends = append(s.ends, p.offset+len(p.data))
		s.entryEnds = append(s.entryEnds, len(p.entry))
	}
	for i := 1; i < len(s.entryEnds); i++ {
		s.entryEnds[i] += s.entryEnds[i-1]
	}
	return s
}

func (s *small) write(t testing.TB, data, manifest []byte) {
	t.Helper()
	writeFile(t, s.path, data)
	writeFile(t, manifestOf(s.path), manifest)
}

// upTo returns the lines of the frames that end at or before a position.
func (s *small) upTo(ends []int, position int) (lines []string, frames int) {
	for i, end := range ends {
		if end <= position {
			lines = append(lines, s.frames[i]...)
			frames++
		}
	}
	return lines, frames
}

func TestTruncatedData(t *testing.T) {
	s := newSmall(t)
	for n := range len(s.data) {
		s.write(t, s.data[:n], s.manifest)
		want, frames := s.upTo(s.ends, n)
		got, errs := collect(archive.Read(s.dir, today))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%d bytes, lines (-want +got):\n%s", n, diff)
		}
		if len(errs) != len(s.frames)-frames {
			t.Fatalf("%d bytes: %d frames of %d read, errors %v", n, frames, len(s.frames), errs)
		}
		for _, err := range errs {
			if !errors.Is(err, archive.ErrDamaged) || !strings.Contains(err.Error(), s.path+" at byte ") {
				t.Fatalf("%d bytes: %v", n, err)
			}
		}
	}
}

// After a crash the manifest can end anywhere, and the data anywhere after the last frame that
// the manifest confirms; what was not synced can be zeros.
func TestTruncatedManifest(t *testing.T) {
	s := newSmall(t)
	for n := range len(s.manifest) {
		want, frames := s.upTo(s.entryEnds, n)
		confirmed := 0
		if frames > 0 {
			confirmed = s.ends[frames-1]
		}
		zeros := make([]byte, 20)
		for _, data := range [][]byte{
			s.data,
			s.data[:confirmed],
			s.data[:confirmed+1],
			s.data[:(confirmed+len(s.data))/2],
			slices.Concat(s.data[:confirmed], zeros),
		} {
			lost := 0 // whole frames that are not in the manifest: a crash leaves one at most
			for _, end := range s.ends[frames:] {
				if end <= len(data) && bytes.HasPrefix(s.data, data) {
					lost++
				}
			}
			for _, manifest := range [][]byte{s.manifest[:n], slices.Concat(s.manifest[:n], zeros)} {
				s.write(t, data, manifest)
				wantLines(t, s.dir, today, want...)
				r := reports(t, s.dir)
				if len(r) != 1 || r[0].Frames != frames || r[0].Unconfirmed != int64(len(data)-confirmed) || (len(r[0].Problems) > 0) != (lost > 1) {
					t.Fatalf("manifest of %d bytes, data of %d: %+v", n, len(data), r)
				}
			}
		}
	}
}

func TestFlippedData(t *testing.T) {
	s := newSmall(t)
	for i := range s.data {
		for _, mask := range []byte{0x01, 0x80} {
			data := bytes.Clone(s.data)
			data[i] ^= mask
			s.write(t, data, s.manifest)
			var want []string
			for f, end := range s.ends {
				start := 0
				if f > 0 {
					start = s.ends[f-1]
				}
				if i < start || i >= end {
					want = append(want, s.frames[f]...)
				}
			}
			got, errs := collect(archive.Read(s.dir, today))
			if diff := cmp.Diff(want, got); diff != "" || len(errs) != 1 || !errors.Is(errs[0], archive.ErrDamaged) {
				t.Fatalf("byte %d ^ %x: errors %v, lines (-want +got):\n%s", i, mask, errs, diff)
			}
			if r := reports(t, s.dir); len(r) != 1 || len(r[0].Problems) != 1 || r[0].Frames != 2 || r[0].Unconfirmed != 0 {
				t.Fatalf("byte %d ^ %x: %+v", i, mask, r)
			}
		}
	}
}

func TestFlippedManifest(t *testing.T) {
	s := newSmall(t)
	all := slices.Concat(s.frames...)
	for i := range s.manifest {
		for _, mask := range []byte{1, 16, 32, 128, 255, s.manifest[i] ^ '\n', s.manifest[i] ^ '}', s.manifest[i] ^ '"', s.manifest[i] ^ ' '} {
			if mask == 0 {
				continue
			}
			manifest := bytes.Clone(s.manifest)
			manifest[i] ^= mask
			s.write(t, s.data, manifest)
			got, errs := collect(archive.Read(s.dir, today))
			if len(errs) == 0 || !errors.Is(errs[0], archive.ErrDamaged) {
				t.Fatalf("byte %d ^ %x is not noticed: %v, %q", i, mask, errs, manifest)
			}
			for _, line := range got {
				if !slices.Contains(all, line) {
					t.Fatalf("byte %d ^ %x: line %q was never appended", i, mask, line)
				}
			}
			if len(got) == 0 {
				t.Fatalf("byte %d ^ %x: nothing is read", i, mask)
			}
		}
	}
}

func TestDamagedManifest(t *testing.T) {
	s := newSmall(t)
	entry := func(i int) string { return parts(t, s.path)[i].entry }
	e0, e1, e2 := entry(0), entry(1), entry(2)
	line := func(offset, size, lines any) string {
		return fmt.Sprintf(`{"offset":%v,"bytes":%v,"lines":%v,"sha256":"%064d"}`+"\n", offset, size, lines, 0)
	}
	for _, test := range []struct {
		name, manifest string
		frames         []int
		want           []string // errors
	}{
		{"missing line", e0 + e2, []int{0, 2}, []string{fmt.Sprintf("%s at byte %d: a line for byte %d instead of %d", manifestOf(s.path), len(e0), s.ends[1], s.ends[0])}},
		{"line twice", e0 + e1 + e1 + e2, []int{0, 1, 1, 2}, []string{"a line for byte"}},
		{"empty line", e0 + "\n" + e1 + e2, []int{0, 1, 2}, []string{"malformed line"}},
		{"long line", e0 + strings.Repeat("x", 5000) + "\n" + e1, []int{0, 1}, []string{"malformed line", "malformed line"}},
		{"long end", e0 + e1 + strings.Repeat("x", 5000), []int{0, 1}, []string{"malformed line"}},
		{"unknown member", e0 + strings.Replace(e1, `{"`, `{"x":1,"`, 1), []int{0}, []string{"malformed line"}},
		{"large frame", e0 + line(s.ends[0], 1<<40, 1), []int{0}, []string{"malformed line"}},
		{"end of an int64", e0 + line(int64(math.MaxInt64), 1, 1), []int{0}, []string{"malformed line"}},
		{"negative offset", line(-1, 1, 1) + e1, []int{1}, []string{"malformed line"}},
		{"empty frame", line(0, 0, 1) + e1, []int{1}, []string{"malformed line"}},
		{"no lines", line(0, 10, 0) + e1, []int{1}, []string{"malformed line"}},
		{"wrong number of lines", strings.Replace(e0, `"lines":2`, `"lines":3`, 1) + e1, []int{1}, []string{s.path + " at byte 0: 2 lines instead of 3"}},
		{"offset after the end", line(0, 10, 1) + line(10, 1<<20, 1), nil, []string{"SHA-256", "the file has "}},
	} {
		s.write(t, s.data, []byte(test.manifest))
		var want []string
		for _, i := range test.frames {
			want = append(want, s.frames[i]...)
		}
		got, errs := collect(archive.Read(s.dir, today))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: lines (-want +got):\n%s", test.name, diff)
		}
		if len(errs) < len(test.want) || test.name != "line twice" && len(errs) > len(test.want) {
			t.Errorf("%s: %d errors, want %d: %v", test.name, len(errs), len(test.want), errs)
			continue
		}
		for i, want := range test.want {
			if !errors.Is(errs[i], archive.ErrDamaged) || !strings.Contains(errs[i].Error(), want) {
				t.Errorf("%s: %v, want %s", test.name, errs[i], want)
			}
		}
	}
}

// A frame that the manifest confirms but that is not lines in zstd.
func TestConfirmedFrameIsNotLines(t *testing.T) {
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	s := newSmall(t)
	for _, test := range []struct {
		frame []byte
		want  string
	}{
		{[]byte("not zstd at all"), "magic"},
		{encoder.EncodeAll([]byte("a\nb"), nil), "1 lines instead of 1"},
		{encoder.EncodeAll(make([]byte, 65<<20), nil), "size exceed"},
	} {
		s.write(t, test.frame, fmt.Appendf(nil, `{"offset":0,"bytes":%d,"lines":1,"sha256":"%s"}`+"\n", len(test.frame), sha256Hex(test.frame)))
		got, errs := collect(archive.Read(s.dir, today))
		if len(got) > 0 || len(errs) != 1 || !errors.Is(errs[0], archive.ErrDamaged) || !strings.Contains(errs[0].Error(), test.want) {
			t.Errorf("%q, %v, want %s", got, errs, test.want)
		}
	}
}

func TestMissingFiles(t *testing.T) {
	s := newSmall(t)
	other := newWriter(t, s.dir, "other")
	mustAppend(t, other, `{"id":"other"}`)

	if err := os.Remove(s.path); err != nil {
		t.Fatal(err)
	}
	got, errs := collect(archive.Read(s.dir, today))
	if !slices.Equal(got, []string{`{"id":"other"}`}) || len(errs) != 1 || !errors.Is(errs[0], archive.ErrDamaged) || !strings.Contains(errs[0].Error(), s.path) {
		t.Errorf("data file missing: %q, %v", got, errs)
	}
	if r := reports(t, s.dir); len(r) != 2 || len(r[0].Problems) != 1 || len(r[1].Problems) != 0 {
		t.Errorf("data file missing: %+v", r)
	}
	// What a crash can leave of a new pair of files.
	writeFile(t, manifestOf(s.path), nil)
	wantLines(t, s.dir, today, `{"id":"other"}`)
	if err := os.Remove(manifestOf(s.path)); err != nil {
		t.Fatal(err)
	}
	firstFrame := s.data[:s.ends[0]]
	writeFile(t, s.path, firstFrame)
	wantLines(t, s.dir, today, `{"id":"other"}`)
	if r := reports(t, s.dir); len(r) != 2 || r[0].Unconfirmed != int64(len(firstFrame)) || len(r[0].Problems) > 0 {
		t.Errorf("manifest missing: %+v", r)
	}
}

// TestLostManifest: a manifest that has lost lines is noticed, if more frames are missing in it than
// a crash can leave.
func TestLostManifest(t *testing.T) {
	s := newSmall(t)
	manifest := bytes.SplitAfter(readFile(t, manifestOf(s.path)), []byte("\n"))
	frames := len(manifest) - 1
	if frames < 3 {
		t.Fatalf("%d frames", frames)
	}
	for kept := range frames + 1 {
		writeFile(t, manifestOf(s.path), bytes.Join(manifest[:kept], nil))
		r := reports(t, s.dir)
		if lost := frames - kept; len(r) != 1 || r[0].Frames != kept || (len(r[0].Problems) == 1) != (lost > 1) {
			t.Errorf("%d of %d lines: %+v", kept, frames, r)
		}
	}
}

func TestForeignFiles(t *testing.T) {
	s := newSmall(t)
	dayDir := filepath.Dir(s.path)
	for _, dir := range []string{"lost+found", "2026-13-01", "2026-1-2", "x2026-11-25", string(today) + "/x.manifest"} {
		if err := os.Mkdir(filepath.Join(s.dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(s.dir, "2026-11-25"), []byte("a file"))
	for _, name := range []string{"README", "x.ndjson", "x.zst", "x.ndjson.zst.manifest", ".nfs0001.manifest", "._x.manifest", "x.manifest.bak"} {
		writeFile(t, filepath.Join(dayDir, name), []byte("not a manifest\n"))
	}
	days, err := archive.Days(s.dir)
	if err != nil || !slices.Equal(days, []archive.Day{today}) {
		t.Errorf("Days: %v, %v", days, err)
	}
	wantLines(t, s.dir, today, slices.Concat(s.frames...)...)
	if r := reports(t, s.dir); len(r) != 1 || len(r[0].Problems) > 0 {
		t.Errorf("Verify: %+v", r)
	}
}

func TestReadUnknownDay(t *testing.T) {
	dir := t.TempDir()
	lines, errs := collect(archive.Read(dir, today))
	if len(lines) > 0 || len(errs) != 1 || !errors.Is(errs[0], fs.ErrNotExist) {
		t.Errorf("missing day: %q, %v", lines, errs)
	}
	for _, day := range []archive.Day{"", ".", "../2026-11-26", "2026-11-31", "2026-1-02"} {
		if lines, errs := collect(archive.Read(dir, day)); len(lines) > 0 || len(errs) != 1 || !strings.Contains(errs[0].Error(), "does not have the form") {
			t.Errorf("day %q: %q, %v", day, lines, errs)
		}
	}
	missing := filepath.Join(dir, "missing")
	if _, err := archive.Days(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Days: %v", err)
	}
	for _, err := range archive.Verify(missing) {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Verify: %v", err)
		}
	}
}

func TestReadStops(t *testing.T) {
	s := newSmall(t)
	data := bytes.Clone(s.data)
	data[s.ends[0]-1] ^= 1
	s.write(t, data, s.manifest)
	for stop := 1; stop <= 5; stop++ { // at the error, and at each line
		n := 0
		for _, err := range archive.Read(s.dir, today) {
			if n++; (err != nil) != (n == 1) {
				t.Errorf("%d: %v", n, err)
			}
			if n == stop {
				break
			}
		}
		if n != stop {
			t.Errorf("stopped after %d, want %d", n, stop)
		}
	}
	for _, err := range archive.Verify(s.dir) {
		if err != nil {
			t.Error(err)
		}
		break
	}
}

// Append must fail if a reader would not find the lines under the names of the files.
func TestReadBack(t *testing.T) {
	for name, change := range map[string]func(data, manifest string) error{
		"data file replaced":    func(data, _ string) error { return replaceFile(data) },
		"manifest replaced":     func(_, manifest string) error { return replaceFile(manifest) },
		"data file deleted":     func(data, _ string) error { return os.Remove(data) },
		"manifest deleted":      func(_, manifest string) error { return os.Remove(manifest) },
		"day's directory moved": func(data, _ string) error { return os.Rename(filepath.Dir(data), filepath.Dir(data)+".moved") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			w := newWriter(t, dir, "w")
			mustAppend(t, w, "1")
			path := dataFiles(t, dir, today)[0]
			if err := change(path, manifestOf(path)); err != nil {
				t.Fatal(err)
			}
			if day, err := w.Append(bytesOf("2")); err == nil || day != "" || !strings.Contains(err.Error(), "read back") {
				t.Fatalf("Append: %q, %v", day, err)
			}
			mustAppend(t, w, "2")
			got, _ := collect(archive.Read(dir, today))
			if !slices.Contains(got, "2") {
				t.Errorf("after the second Append: %q", got)
			}
			for _, r := range reports(t, dir) {
				if r.Path != path && (r.Frames != 1 || len(r.Problems) > 0) {
					t.Errorf("new file: %+v", r)
				}
			}
		})
	}
}

// replaceFile replaces a file by another one of the same content, which gets no further writes.
func replaceFile(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return errors.Join(os.Remove(path), os.WriteFile(path, append(content, make([]byte, 1000)...), 0o600)) //nolint:gosec // a file of the test
}

func TestAppendToUnusableDir(t *testing.T) {
	parent := t.TempDir()
	file := filepath.Join(parent, "file")
	writeFile(t, file, nil)
	dayIsFile := filepath.Join(parent, "day")
	if err := os.Mkdir(dayIsFile, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dayIsFile, string(today)), nil)
	for _, dir := range []string{file, filepath.Join(parent, "missing"), dayIsFile, "/proc"} {
		w := newWriter(t, dir, "w")
		if _, err := w.Append(bytesOf("1")); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	// The Writer continues once the directory is usable.
	w := newWriter(t, dayIsFile, "w")
	if _, err := w.Append(bytesOf("1")); err == nil {
		t.Fatal("no error")
	}
	if err := os.Remove(filepath.Join(dayIsFile, string(today))); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, w, "1")
	wantLines(t, dayIsFile, today, "1")
}

func TestFileNames(t *testing.T) {
	for worker, want := range map[string]string{
		"":                        `^-[a-z2-7]{12}\.ndjson\.zst$`,
		"..":                      `^-[a-z2-7]{12}\.`,
		".hidden":                 `^hidden-`,
		"../../etc/x":             `^-..-etc-x-`,
		"a b\x00c\\d\n":           `^a-b-c-d--`,
		"gerät:1":                 `^ger-t-1-`,
		strings.Repeat("x", 1000): `^x{100}-[a-z2-7]{12}\.`,
	} {
		dir := t.TempDir()
		mustAppend(t, newWriter(t, dir, worker), "1")
		paths := dataFiles(t, dir, today)
		if len(paths) != 1 || !regexp.MustCompile(want).MatchString(filepath.Base(paths[0])) {
			t.Errorf("%q: %v", worker, paths)
		}
		wantLines(t, dir, today, "1")
	}
}

func TestFileModes(t *testing.T) {
	s := newSmall(t)
	for path, want := range map[string]fs.FileMode{filepath.Dir(s.path): 0o750, s.path: 0o640, manifestOf(s.path): 0o640} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got&^want != 0 || got&0o600 != 0o600 { // umask may have taken some
			t.Errorf("%s: mode %o, want %o", path, got, want)
		}
	}
}

func TestClose(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, dir, "w")
	for _, line := range []string{"1", "2"} {
		mustAppend(t, w, line)
		if err := errors.Join(w.Close(), w.Close()); err != nil {
			t.Fatal(err)
		}
	}
	got, errs := collect(archive.Read(dir, today))
	if slices.Sort(got); !slices.Equal(got, []string{"1", "2"}) || len(errs) > 0 || len(dataFiles(t, dir, today)) != 2 {
		t.Errorf("%q, %v", got, errs)
	}
}

func TestCheckDir(t *testing.T) {
	dir := t.TempDir()
	if err := archive.CheckDir(dir); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	file := filepath.Join(dir, "file")
	writeFile(t, file, nil)
	missing := filepath.Join(dir, "missing")
	for path, want := range map[string]string{
		missing: "the directory " + missing + " does not exist",
		file:    file + " is not a directory",
		"/proc": "cannot write to the directory /proc: ",
	} {
		if err := archive.CheckDir(path); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
}

func TestDay(t *testing.T) {
	if day := archive.DayOf(time.Date(2026, 1, 1, 6, 59, 0, 0, time.FixedZone("WIB", 7*3600))); day != "2025-12-31" {
		t.Errorf("DayOf: %s", day)
	}
	if day, err := archive.ParseDay("2024-02-29"); err != nil || day != "2024-02-29" {
		t.Errorf("ParseDay: %q, %v", day, err)
	}
	for _, s := range []string{"", "2026-02-29", "2026-2-01", "2026-11-26 ", "26-11-2026", "2026-11-26T00:00:00Z", "+026-11-26", "2026-11-6", "2026-11-026", "2026-11-26.5", "02026-11-26"} {
		if day, err := archive.ParseDay(s); err == nil || day != "" {
			t.Errorf("ParseDay(%q): %q", s, day)
		}
	}
}
