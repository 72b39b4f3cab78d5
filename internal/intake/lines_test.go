package intake_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"terbayar/internal/intake"
)

// read returns the lines of an input: "NUMBER TEXT", or "NUMBER ! ERROR".
func read(t *testing.T, r io.Reader) ([]string, []intake.Line) {
	t.Helper()
	lines := make(chan intake.Line)
	done := make(chan error, 1)
	go func() { done <- intake.Read(t.Context(), r, lines) }()
	var got []string
	var all []intake.Line
	for l := range lines {
		all = append(all, l)
		text := strings.TrimSpace(string(l.Text))
		if l.Err != nil {
			text = "! " + l.Err.Error()
		}
		got = append(got, fmt.Sprint(l.Number, " ", text))
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	return got, all
}

const (
	p1 = `{"gateway":"paydia","n":1}`
	p2 = `{"gateway":"paydia","n":2}`
	p3 = `{"n":3,"gateway":"paydia"}`
)

func TestRead(t *testing.T) {
	long := strings.Repeat("x", 1<<20+1)
	pretty := "{\n  \"gateway\": \"paydia\",\n\n  \"payment\": {\n    \"items\": [\n      {\n        \"a\": 1\n      }\n    ]\n  }\n}\n"
	large := "{\n" + strings.Repeat(" \"gateway\": [1, 2, 3],\n", 40_000) + "\"x\": 1\n}\n"
	whole := func(number int, text string) string { return fmt.Sprint(number, " ", strings.TrimSpace(text)) }
	const (
		array   = " ! a JSON array: write one payment per line (NDJSON), for example with jq -c '.[]'. Nothing from here on was processed"
		listed  = " ! this object contains an array of objects with a syntax error: write one payment per line (NDJSON). Nothing from here on was processed"
		follows = " ! broken JSON: the object that begins here has no end before the next payment begins"
		ends    = " ! broken JSON: the object that begins here has no end"
		tooLong = " ! longer than 1048576 bytes, which no payment is"
		resumes = "; reading continues at the next line that is a payment by itself"
	)
	for _, c := range []struct {
		name, in string
		want     []string
	}{
		{"nothing", "", nil},
		{"blank lines", "\n \r\n\t\n", nil},
		{"a byte order mark and nothing", "\ufeff\n", nil},
		{"one object", p1, []string{whole(1, p1)}},
		{"NDJSON, blank lines counted", p1 + "\n\n \n" + p2 + "\r\n", []string{whole(1, p1), whole(4, p2)}},
		{"byte order mark", "\ufeff" + p1, []string{whole(1, p1)}},
		{"byte order marks of two files", "\ufeff" + p1 + "\n\ufeff" + p2, []string{whole(1, p1), whole(2, p2)}},
		{"no line break at the end", p1 + "\n" + p2, []string{whole(1, p1), whole(2, p2)}},

		{"one object over lines", pretty, []string{whole(1, pretty)}},
		{"after blank lines", "\n\n" + pretty, []string{whole(3, pretty)}},
		{"after a byte order mark", "\ufeff\n\ufeff" + pretty, []string{whole(2, pretty)}},
		{"with CR LF", strings.ReplaceAll(pretty, "\n", "\r\n"), []string{whole(1, strings.ReplaceAll(pretty, "\n", "\r\n"))}},
		{"as large as allowed", large, []string{whole(1, large)}},
		{"two over lines", pretty + "\n" + pretty, []string{whole(1, pretty), whole(13, pretty)}},
		{"over lines among NDJSON", p1 + "\n" + pretty + p2, []string{whole(1, p1), whole(2, pretty), whole(13, p2)}},
		{"one with invalid UTF-8", "{\n\"a\": \"\xff\"\n}\n" + p2, []string{"1 {\n\"a\": \"\xff\"\n}", whole(4, p2)}},

		{"broken line", p1 + "\n{\"b\n" + p2, []string{whole(1, p1), `2 {"b`, whole(3, p2)}},
		{"no JSON", p1 + "\nhello\n" + p2, []string{whole(1, p1), `2 hello`, whole(3, p2)}},
		{"first line cut off in a string", `{"gateway":"pay` + "\n" + p1, []string{`1 {"gateway":"pay`, whole(2, p1)}},
		{"first line cut off after a colon", `{"gateway":` + "\n" + p1 + "\n" + p2, []string{"1" + follows, whole(2, p1), whole(3, p2)}},
		{"first line cut off after a comma", `{"gateway":"x",` + "\n\n" + p1, []string{"1" + follows, whole(3, p1)}},
		{"first line cut off after a brace", `{` + "\n" + p1 + "\n" + p2, []string{"1" + follows, whole(2, p1), whole(3, p2)}},
		{"line cut off before an item", p1 + "\n" + `{"gateway":"x","payment":{"item_details":[` + "\n" + p2, []string{whole(1, p1), "2" + follows, whole(3, p2)}},
		{"line cut off after an item", `{"payment":{"item_details":[{"a":1},` + "\n" + p2, []string{"1" + follows, whole(2, p2)}},
		{"line cut off in a list of numbers", `{"a":[1,2` + "\n" + p1 + "\n" + p2, []string{"1" + follows, whole(2, p1), whole(3, p2)}},
		{"last line cut off", p1 + "\n" + `{"gateway":`, []string{whole(1, p1), `2 {"gateway":`}},
		{"two cut off", "{\"a\":\n{\"b\":\n" + p1, []string{"1" + follows, whole(3, p1)}},
		{"garbage after a cut line", "{\"a\":1,\nhello\nhello\n" + p1, []string{"1 ! broken JSON: the object that begins here has a syntax error in line 2" + resumes, whole(4, p1)}},
		{
			"broken over lines", "{\n  \"a\": 1\n  \"b\": {\n    \"c\": 1\n  }\n}\n" + p1 + "\n{\n" + p2,
			[]string{"1 ! broken JSON: the object that begins here has a syntax error in line 3" + resumes, whole(7, p1), "8" + follows, whole(9, p2)},
		},
		{"no end over lines", "{\n  \"a\": 1,\n", []string{"1" + ends}},
		{"other text after the end", "{\n \"a\": 1\n} x\n" + p1, []string{"1 ! broken JSON: the object that begins here is followed by other text in line 3" + resumes, whole(4, p1)}},
		{"two on a line", p1 + p2 + "\n" + p3, []string{whole(1, p1+p2), whole(2, p3)}},
		{"commas between lines", p1 + ",\n" + p2 + "\n", []string{whole(1, p1+","), whole(2, p2)}},
		{"two on a line over lines", "{\n\"a\": 1\n}{\n\"b\": 2\n}\n" + p3, []string{"1 ! broken JSON: the object that begins here is followed by other text in line 3" + resumes, whole(6, p3)}},

		{"array over lines", "[\n" + p1 + ",\n" + p2 + "\n]\n", []string{"1" + array}},
		{"array over lines, indented, after blank lines", "\n\n [\n  " + p1 + ",\n  " + p2 + "\n ]\n", []string{"3" + array}},
		{"array that begins with a payment", "[" + p1 + ",\n" + p2 + "\n]\n", []string{"1" + array}},
		{"array that begins with a broken one", `[{"gateway":01},` + "\n" + p1 + ",\n" + p2 + "\n]\n", []string{"1" + array}},
		{"array without commas", "[\n" + p1 + "\n" + p2 + "\n]\n", []string{"1" + array}},
		{"array after payments", p1 + "\n[\n" + p2 + "\n]\n" + p3, []string{whole(1, p1), "2" + array}},
		{"array on a line", "[" + p1 + "," + p2 + "]\n" + p3, []string{whole(1, "["+p1+","+p2+"]"), whole(2, p3)}},
		{"array too long for a line", "[" + p1 + "," + long + "\n" + p3, []string{"1" + array}},
		{"a log line", "[INFO] begins\n[2026-11-26 10:00] x\n" + p1, []string{"1 [INFO] begins", "2 [2026-11-26 10:00] x", whole(3, p1)}},
		{"array of arrays over lines", "[\n[\n" + p1 + "\n]]", []string{"1" + array}},

		{"a list in an object", "{\"payments\":[\n" + p1 + ",\n" + p2 + "\n]}\n" + p3, []string{whole(1, "{\"payments\":[\n"+p1+",\n"+p2+"\n]}"), whole(5, p3)}},
		{"without commas", "{\"payments\":[\n" + p1 + "\n" + p2 + "\n]}\n" + p3, []string{"1" + listed}},
		{"without an end", "{\"payments\":[\n" + p1 + ",\n" + p2 + "\n", []string{"1" + listed}},
		{"deeper", "{\"data\":{\"payments\":[\n" + p1 + ",\n" + p2 + ",\n]}}\n" + p3, []string{"1" + listed}},
		{"broken in its first object", "{\"payments\":[{\"n\":01},\n" + p2 + "\n]}\n" + p3, []string{"1" + listed}},
		{"too long", "{\"payments\":[\n" + strings.Repeat(p1+",\n", 50_000) + p2 + "\n]}\n", []string{"1" + listed}},

		{"too long a line", p1 + "\n" + long + "\n" + p2, []string{whole(1, p1), "2" + tooLong, whole(3, p2)}},
		{"too long a last line", p1 + "\n" + long, []string{whole(1, p1), "2" + tooLong}},
		{"too long, an object", `{"gateway":"` + long + "\"}\n" + p2, []string{"1" + tooLong, whole(2, p2)}},
		{"too long over lines", large[:len(large)-2] + strings.Repeat(",\"x\":1\n", 50_000) + "}\n" + p2, []string{"1" + tooLong, whole(40_002+50_002, p2)}},
		{"too long a blank line", strings.Repeat(" ", 1<<20+1) + "\n" + p2, []string{whole(2, p2)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for name, r := range map[string]io.Reader{
				"": strings.NewReader(c.in), "half": iotest.HalfReader(strings.NewReader(c.in)), "byte": iotest.OneByteReader(strings.NewReader(c.in)),
			} {
				if name != "" && len(c.in) > 1<<16 {
					continue // slow
				}
				if got, _ := read(t, r); !cmp.Equal(c.want, got) {
					t.Errorf("%s %.3000s", name, cmp.Diff(c.want, got))
				}
			}
			checkReadRaw(t, []byte(c.in))
		})
	}
}

// TestReadNotUTF8 checks that input that is not UTF-8 text is rejected as a whole, with advice.
func TestReadNotUTF8(t *testing.T) {
	wide := func(order string, width int, mark bool) string {
		text := p1 + "\r\n" + p2 + "\r\n"
		if mark {
			text = "\ufeff" + text
		}
		var b []byte
		for _, unit := range utf16.Encode([]rune(text)) {
			cell := make([]byte, width)
			if order == "LE" {
				cell[0], cell[1] = byte(unit), byte(unit>>8)
			} else {
				cell[width-1], cell[width-2] = byte(unit), byte(unit>>8)
			}
			b = append(b, cell...)
		}
		return string(b)
	}
	for _, c := range []struct{ name, in, want string }{
		{"gzip", "\x1f\x8b\x08\x00\n" + p1, "compressed with gzip: it must be plain UTF-8 text. Convert it, for example with zcat"},
		{"zstd", "\x28\xb5\x2f\xfd\x04\n" + p1, "zstdcat"},
		{"xz", "\xfd7zXZ\x00\n" + p1, "xzcat"},
		{"bzip2", "BZh91AY\n" + p1, "bzcat"},
		{"zip", "PK\x03\x04\n" + p1, "unzip -p"},
		{"UTF-16LE with a mark", wide("LE", 2, true), "iconv -f UTF-16 -t UTF-8"},
		{"UTF-16BE with a mark", wide("BE", 2, true), "iconv -f UTF-16 -t UTF-8"},
		{"UTF-16LE", wide("LE", 2, false), "iconv -f UTF-16LE -t UTF-8"},
		{"UTF-16BE", wide("BE", 2, false), "iconv -f UTF-16BE -t UTF-8"},
		{"UTF-32LE with a mark", wide("LE", 4, true), "iconv -f UTF-32 -t UTF-8"},
		{"UTF-32BE with a mark", wide("BE", 4, true), "iconv -f UTF-32 -t UTF-8"},
		{"UTF-32LE", wide("LE", 4, false), "iconv -f UTF-32LE -t UTF-8"},
		{"UTF-32BE", wide("BE", 4, false), "iconv -f UTF-32BE -t UTF-8"},
		{"UTF-16LE after an empty line", "\n\x00" + wide("LE", 2, false), "iconv -f"},
	} {
		got, all := read(t, strings.NewReader(c.in))
		if len(got) != 1 || all[0].Err == nil || !strings.Contains(got[0], c.want) || !strings.Contains(got[0], "Nothing was processed") {
			t.Errorf("%s: %q", c.name, got)
		}
		checkReadRaw(t, []byte(c.in))
	}
}

// compress returns the text in gzip format.
func compress(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestGunzip checks that compressed input, of several joined files too, is decompressed and any
// other is not changed.
func TestGunzip(t *testing.T) {
	one, two := compress(t, p1+"\n"), compress(t, p2+"\n")
	for _, c := range []struct{ name, in, want string }{
		{"nothing", "", ""},
		{"one byte", "\x1f", "\x1f"},
		{"plain", p1, p1},
		{"gzip", one, p1 + "\n"},
		{"joined", one + two, p1 + "\n" + p2 + "\n"},
		{"gzip of gzip", compress(t, one), one},
	} {
		got, err := io.ReadAll(intake.Gunzip(iotest.OneByteReader(strings.NewReader(c.in))))
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
	for _, cut := range []int{2, 9, len(one) - 1, len(one) + 3} {
		lines := make(chan intake.Line, 10)
		err := intake.Read(t.Context(), intake.Gunzip(strings.NewReader((one + two)[:cut])), lines)
		if err == nil || !strings.Contains(err.Error(), "the gzip data is damaged or cut off") {
			t.Errorf("%d bytes: %v", cut, err)
		}
	}
}

// TestReadRawLongLines checks that a line or a rest that is too long is sent in parts: it may not
// fit into memory.
func TestReadRawLongLines(t *testing.T) {
	const long = 5 << 20
	for _, in := range []string{
		p1 + "\n" + strings.Repeat("x", long) + "\n" + p2, "[\n" + strings.Repeat("x", long), "[\n" + strings.Repeat(p1+",\n", long/len(p1)), "PK\x03\x04" + strings.Repeat("x", long),
	} {
		lines := make(chan intake.Line)
		go func() { _ = intake.ReadRaw(t.Context(), strings.NewReader(in), lines) }()
		for l := range lines {
			if len(l.Raw) > 2<<20 {
				t.Errorf("%.20q: %d bytes at once", in, len(l.Raw))
			}
		}
		checkReadRaw(t, []byte(in))
	}
}

// TestReadStreams checks that each line is sent as soon as no later input can change it.
func TestReadStreams(t *testing.T) {
	in, out := io.Pipe()
	lines := make(chan intake.Line, 1)
	done := make(chan error, 1)
	go func() { done <- intake.Read(t.Context(), in, lines) }()
	for i, c := range []struct {
		write string
		want  []string
	}{
		{"hello\n", []string{"hello"}},
		{"{\"gateway\":\n", nil},
		{p1 + "\n", []string{"! broken", p1}},
		{"{\"gateway\":\"pay\n", []string{`{"gateway":"pay`}},
		{p2 + "\n", []string{p2}},
		{"{\n", nil},
		{"\"a\":1\n", nil},
		{"}\n", []string{"{\n\"a\":1\n}"}},
		{"{\n", nil},
		{"x\n", []string{"! broken"}},
		{p3 + "\n", []string{p3}},
		{"[\n", []string{"! a JSON array"}},
	} {
		if _, err := io.WriteString(out, c.write); err != nil {
			t.Fatal(err)
		}
		for _, want := range c.want {
			select {
			case l := <-lines:
				text := strings.TrimSpace(string(l.Text))
				if l.Err != nil {
					text = "! " + l.Err.Error()
				}
				if !strings.HasPrefix(text, want) {
					t.Errorf("%d: %q, want %q", i, text, want)
				}
			case <-time.After(time.Minute):
				t.Fatalf("%d: %q: nothing was received", i, c.write)
			}
		}
	}
	if err := <-done; err != nil { // the array is rejected without waiting for its end
		t.Error(err)
	}
}

// TestReadErrors checks that a read error is returned, and that the line it cuts off is not
// sent.
func TestReadErrors(t *testing.T) {
	broken := errors.New("read error")
	for _, rest := range []string{p2[:10], p2, "{\n\"a\":1\n"} {
		lines := make(chan intake.Line, 10)
		err := intake.Read(t.Context(), io.MultiReader(strings.NewReader(p1+"\n"+rest), iotest.ErrReader(broken)), lines)
		if !errors.Is(err, broken) || len(lines) != 1 {
			t.Errorf("%q: %v, %d lines", rest, err, len(lines))
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := intake.Read(ctx, strings.NewReader(p1), make(chan intake.Line)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// checkReadRaw checks that ReadRaw sends what Read sends, and every byte of the input once, except
// for blank lines.
func checkReadRaw(t testing.TB, in []byte) {
	var raw []byte
	var got []string
	for _, r := range []struct {
		read func(context.Context, io.Reader, chan<- intake.Line) error
		line func(intake.Line)
	}{
		{intake.Read, func(l intake.Line) { got = append(got, fmt.Sprint(l.Number, l.Last, string(l.Text), l.Err)) }},
		{intake.ReadRaw, func(l intake.Line) {
			raw = append(raw, l.Raw...)
			switch sent := fmt.Sprint(l.Number, l.Last, string(l.Text), l.Err); {
			case l.Skipped && (l.Text != nil || l.Err != nil):
				t.Errorf("skipped, and a payment: %s", sent)
			case l.Skipped:
			case len(got) == 0 || sent != got[0]:
				t.Errorf("ReadRaw sends %.200s, Read %.200q", sent, got[:min(len(got), 1)])
			default:
				got = got[1:]
			}
		}},
	} {
		lines := make(chan intake.Line)
		go func() { _ = r.read(context.Background(), bytes.NewReader(in), lines) }()
		for l := range lines {
			r.line(l)
		}
	}
	if len(got) > 0 {
		t.Errorf("ReadRaw does not send %.200q", got)
	}
	notBlank := func(text []byte) string {
		var b strings.Builder
		for line := range bytes.Lines(text) {
			if len(bytes.TrimSpace(bytes.TrimPrefix(line, []byte("\ufeff")))) > 0 {
				b.Write(line)
			}
		}
		return b.String()
	}
	if want, got := notBlank(in), notBlank(raw); want != got {
		t.Errorf("raw input of %d bytes, want %d: %.200q, want %.200q", len(got), len(want), got, want)
	}
}

// checkRead checks that each line that is a payment by itself is sent once, in order, unless
// it is inside an object that is sent as a whole, or inside an array or a rest of the input
// that is rejected as a whole.
func checkRead(t testing.TB, in []byte) {
	lines := make(chan intake.Line)
	done := make(chan error, 1)
	go func() { done <- intake.Read(context.Background(), bytes.NewReader(in), lines) }()
	var all []intake.Line
	sent := map[int]bool{}
	last := 0
	for l := range lines {
		if l.Number <= last || l.Last < l.Number || (l.Err == nil) == (l.Text == nil) {
			t.Errorf("%+v after line %d", l, last)
		}
		all, last, sent[l.Number] = append(all, l), l.Last, true
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	texts := bytes.Split(in, []byte("\n"))
	answered := func(n int) bool {
		for _, l := range all {
			if n < l.Number {
				continue
			}
			rest := l.Err != nil && strings.Contains(l.Err.Error(), "Nothing")
			listed := bytes.Contains(bytes.Join(texts[l.Number-1:n-1], nil), []byte("["))
			if rest || n <= l.Last && (l.Err == nil || listed) {
				return true
			}
		}
		return sent[n]
	}
	for i, text := range texts {
		var p map[string]json.RawMessage
		text = bytes.TrimPrefix(text, []byte("\ufeff"))
		if json.Unmarshal(text, &p) == nil && p["gateway"] != nil && !answered(i+1) {
			t.Errorf("line %d is lost: %q gave %+v", i+1, in, all)
		}
	}
}

// TestReadAnyLines runs checkRead on random sequences of payments and pieces of JSON.
func TestReadAnyLines(t *testing.T) {
	pieces := []string{
		p1, p2, p3, p1 + ",", "[", "[" + p1 + ",", "]", "{", "}", "},", `"a":1,`, `"a":1`, `{"a":`, `{"a":[`, `"a":[`, `]}`, `],`, `{"a":[1,`, "1", "1,", "hello",
		`{"gateway":"x","payment":{"item_details":[`, `{"payment":{"item_details":[{"a":1},`, `{"gateway":"x`, `{"payments":[` + p1, "", " ", "\ufeff", "[INFO]",
	}
	rapid.Check(t, func(r *rapid.T) {
		in := strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 0, 12).Draw(r, "lines"), "\n")
		checkRead(t, []byte(in))
		checkReadRaw(t, []byte(in))
		if t.Failed() {
			r.FailNow()
		}
	})
}

func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		p1 + "\n" + p2, "{\n" + p1 + "\n" + p2, "{\"a\":\n" + p1 + "\n" + p2, "[\n" + p1 + ",\n" + p2 + "]", "{\"a\":[\n" + p1 + "\n]}\n" + p2,
		"\ufeff" + p1 + "\r\n\r\n" + p2 + p3, "{\"payment\":{\"item_details\":[\n" + p1, "{\"a\":[1,\n" + p1, "{\n\"a\":1\n}\n" + p1, "\x1f\x8b\n" + p1, "\x00\n" + p1,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) { checkRead(t, in); checkReadRaw(t, in) })
}
