package intake

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/klauspost/compress/gzip"

	"terbayar/internal/payment"
)

// Line is one payment of the input: a JSON object, which is usually on one line.
type Line struct {
	Number int // of its first line in the input, from 1; blank lines count
	Last   int // of its last line
	Text   []byte
	Err    error // why it could not be read; Text is then nil

	// Allowed reports whether the sender may submit the payment with this key. nil: any.
	Allowed func(payment.Key) bool

	// Raw is the input as it was, byte order marks and line breaks included. Only ReadRaw sets it.
	Raw []byte
	// Skipped says that this is no payment, but a part of the input that is not processed: it
	// has only Number, Last and Raw. Only ReadRaw sends such a Line.
	Skipped bool
}

// MaxLine bounds one payment, in bytes. The largest valid one is far smaller.
const MaxLine = 1 << 20

// The errors of a Line. After errArray and errBrokenList the rest of the input is not read: its
// lines may be parts of a larger document.
var (
	ErrTooLong = fmt.Errorf("longer than %d bytes, which no payment is", MaxLine)

	errArray = errors.New("a JSON array: write one payment per line (NDJSON), for example with jq -c '.[]'. " +
		"Nothing from here on was processed")
	errBrokenList = errors.New("this object contains an array of objects with a syntax error: write one payment per line (NDJSON). " +
		"Nothing from here on was processed")
	errNoEnd       = errors.New("broken JSON: the object that begins here has no end")
	errNextPayment = errors.New("broken JSON: the object that begins here has no end before the next payment begins")
)

const gzipMagic = "\x1f\x8b"

// knownFormats are the first bytes of formats that are not UTF-8 text, and the commands that
// convert them.
var knownFormats = []struct{ magic, format, command string }{
	{gzipMagic, "compressed with gzip", "zcat FILE | enqueue create"},
	{"\x28\xb5\x2f\xfd", "compressed with zstd", "zstdcat FILE | enqueue create"},
	{"\xfd7zXZ\x00", "compressed with xz", "xzcat FILE | enqueue create"},
	{"BZh", "compressed with bzip2", "bzcat FILE | enqueue create"},
	{"PK\x03\x04", "a zip archive", "unzip -p FILE | enqueue create"},
	{"\x1f\x9d", "compressed", "zcat FILE | enqueue create"},
	{"\xff\xfe\x00\x00", "UTF-32 text", "iconv -f UTF-32 -t UTF-8 FILE | enqueue create"},
	{"\x00\x00\xfe\xff", "UTF-32 text", "iconv -f UTF-32 -t UTF-8 FILE | enqueue create"},
	{"\xff\xfe", "UTF-16 text", "iconv -f UTF-16 -t UTF-8 FILE | enqueue create"},
	{"\xfe\xff", "UTF-16 text", "iconv -f UTF-16 -t UTF-8 FILE | enqueue create"},
}

// notUTF8 returns an error if an input that begins with this line is not UTF-8 text.
func notUTF8(text []byte) error {
	reject := func(format, command string) error {
		return fmt.Errorf("the input is %s: it must be plain UTF-8 text. Convert it, for example with %s. Nothing was processed", format, command)
	}
	for _, f := range knownFormats {
		if bytes.HasPrefix(text, []byte(f.magic)) {
			return reject(f.format, f.command)
		}
	}
	// JSON begins with ASCII, so a NUL in the first 4 bytes shows an encoding without a byte
	// order mark.
	if head := text[:min(len(text), 4)]; bytes.IndexByte(head, 0) >= 0 {
		from := "UTF-16LE"
		switch {
		case bytes.HasPrefix(head, []byte("\x00\x00")):
			from = "UTF-32BE"
		case bytes.HasSuffix(head, []byte("\x00\x00")):
			from = "UTF-32LE"
		case head[0] == 0:
			from = "UTF-16BE"
		}
		return reject(from+" text, or no text at all", "iconv -f "+from+" -t UTF-8 FILE | enqueue create")
	}
	return nil
}

// Read sends the payments of the input to lines, and closes lines at the end. The input is
// NDJSON, one object per line; an object may also span several lines. The error is the
// input's, or the context's.
//
// A line that is a complete JSON value, or that no further line could complete, is sent at
// once. Otherwise lines are joined until the value is complete, and are accepted or rejected
// as a whole: no line inside counts as a payment. The exception is a first line that was cut
// off, which is recognized when a following line is a payment by itself.
func Read(ctx context.Context, r io.Reader, lines chan<- Line) error {
	return (&splitter{in: bufio.NewReaderSize(r, readSize)}).read(ctx, lines)
}

// ReadRaw is Read for a caller that keeps what is not accepted. The Raw of all that it sends,
// one after the other, is the whole input, except for blank lines between payments.
func ReadRaw(ctx context.Context, r io.Reader, lines chan<- Line) error {
	return (&splitter{in: bufio.NewReaderSize(r, readSize), keepRaw: true}).read(ctx, lines)
}

const readSize = 64 << 10

// Gunzip returns the input, decompressed if it is compressed with gzip.
func Gunzip(r io.Reader) io.Reader { return &gunzip{in: bufio.NewReaderSize(r, readSize)} }

// gunzip looks at the input when it is first read: this may wait for standard input.
type gunzip struct {
	in  *bufio.Reader
	zip *gzip.Reader // nil: the input is not compressed
	err error

	looked bool
}

func (g *gunzip) Read(p []byte) (int, error) {
	if !g.looked {
		g.looked = true
		if head, _ := g.in.Peek(len(gzipMagic)); string(head) == gzipMagic {
			g.zip, g.err = gzip.NewReader(g.in)
		}
	}
	if g.zip == nil && g.err == nil {
		return g.in.Read(p)
	}
	n := 0
	if g.err == nil {
		n, g.err = g.zip.Read(p)
	}
	if g.err != nil && !errors.Is(g.err, io.EOF) {
		return n, fmt.Errorf("the gzip data is damaged or cut off: %w", g.err)
	}
	return n, g.err
}

// splitter splits the input into payments.
type splitter struct {
	in     *bufio.Reader
	number int        // of the last line that was read
	unread *inputLine // a line to be returned again by the next call of line

	keepRaw   bool
	raw       []byte           // what was read since the last Line was sent
	lineStart int              // where the last line that was read begins in raw
	send      func(Line) error // sends a Line, or returns the context's error

	started  bool // a line that is not blank was read
	skipping bool // after a broken object: skip lines until one is a payment by itself
	stopped  bool // the rest of the input is not read
}

// read sends all payments.
func (s *splitter) read(ctx context.Context, lines chan<- Line) error {
	defer close(lines)
	s.send = func(l Line) error {
		select {
		case lines <- l:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for {
		line, err := s.next()
		if err == nil {
			line.Raw = s.takeRaw()
			err = s.send(line)
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("line %d: %w", s.number+1, err)
		}
	}
}

// takeRaw returns the raw input since the last Line, without a line that will be read again.
func (s *splitter) takeRaw() []byte {
	end := len(s.raw)
	if s.unread != nil {
		end = s.lineStart
	}
	raw := s.raw[:end:end]
	s.raw, s.lineStart = slices.Clone(s.raw[end:]), 0
	return raw
}

// skipRaw sends the raw input since the last Line: it is not processed.
func (s *splitter) skipRaw() error {
	if len(s.raw) == 0 {
		return nil
	}
	l := Line{Number: s.number, Last: s.number, Raw: s.raw, Skipped: true}
	s.raw, s.lineStart = nil, 0
	return s.send(l)
}

// skipRest sends the rest of the input, which is not processed.
func (s *splitter) skipRest() error {
	for {
		if _, err := s.readLine(); err != nil {
			return err
		}
		if err := s.skipRaw(); err != nil {
			return err
		}
	}
}

// inputLine is one line of the input.
type inputLine struct {
	bytes   []byte
	number  int
	tooLong bool // bytes is only the beginning
}

func (l inputLine) blank() bool { return len(bytes.TrimSpace(l.bytes)) == 0 }

// line reads the next line.
func (s *splitter) line() (inputLine, error) {
	if s.unread != nil {
		l := *s.unread
		s.unread = nil
		return l, nil
	}
	l, err := s.readLine()
	if err != nil {
		return inputLine{}, err
	}
	if !s.started && !l.blank() {
		s.started = true
		if err := notUTF8(l.bytes); err != nil {
			s.stopped = true
			return l, err
		}
	}
	// Files that were joined with cat have byte order marks in any line.
	l.bytes = bytes.TrimPrefix(l.bytes, []byte("\ufeff"))
	return l, nil
}

// readLine reads up to the next line break. Of a line that is too long it returns only the
// beginning. A line that a read error cuts off is not returned.
func (s *splitter) readLine() (inputLine, error) {
	l := inputLine{number: s.number + 1}
	s.lineStart = len(s.raw)
	for {
		part, err := s.in.ReadSlice('\n')
		space := MaxLine - len(l.bytes)
		l.tooLong = l.tooLong || len(part) > space
		l.bytes = append(l.bytes, part[:min(len(part), space)]...)
		if s.keepRaw {
			s.raw = append(s.raw, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull) && l.tooLong && s.keepRaw: // it may not fit into memory
			if err := s.skipRaw(); err != nil {
				return inputLine{}, err
			}
			continue
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(l.bytes) > 0:
		case err != nil:
			return inputLine{}, err
		}
		s.number++
		return l, nil
	}
}

// next returns the next payment, or a Line with the error where a payment should be.
func (s *splitter) next() (Line, error) {
	for !s.stopped {
		l, err := s.line()
		switch {
		case s.stopped:
			return Line{Number: l.number, Last: l.number, Err: err}, nil
		case err != nil:
			return Line{}, err
		case s.skipping && !isPayment(l.bytes):
			if err := s.skipRaw(); err != nil {
				return Line{}, err
			}
			continue
		case l.blank():
			s.raw = s.raw[:s.lineStart]
			continue
		}
		s.skipping = false
		if !l.tooLong && jsontext.Value(l.bytes).IsValid(lenient...) {
			return Line{Number: l.number, Last: l.number, Text: l.bytes}, nil
		}
		return s.join(l)
	}
	if s.keepRaw {
		return Line{}, s.skipRest()
	}
	return Line{}, io.EOF
}

// lenient accepts mistakes that do not affect where a value ends. order.Parse reports them.
var lenient = []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}

// join reads a value that is not complete in its first line, up to its end or to the line
// where it cannot go on.
func (s *splitter) join(first inputLine) (Line, error) {
	v := &multiLine{splitter: s, line: first}
	v.dec = jsontext.NewDecoder(v, lenient...)
	err := v.readTokens()
	line := Line{Number: first.number, Last: v.line.number}
	severalLines := line.Last > line.Number
	broken := func(what string) {
		line.Err = fmt.Errorf("broken JSON: the object that begins here %s in line %d; "+
			"reading continues at the next line that is a payment by itself", what, v.line.number)
		s.skipping = true
	}
	switch {
	case v.err != nil && !errors.Is(v.err, io.EOF) && !slices.Contains([]error{ErrTooLong, errArray, errNextPayment}, v.err):
		return Line{}, v.err // the input's error
	case errors.Is(v.err, errNextPayment): // the first line was cut off
		line.Last, line.Err = s.unread.number-1, errNextPayment
	case errors.Is(v.err, errArray), err != nil && v.inArray() && v.inObjectList():
		line.Err, s.stopped = errArray, true
	case err != nil && v.inObjectList() && (severalLines || !errors.Is(v.err, io.EOF)):
		line.Err, s.stopped = errBrokenList, true
	case v.err != nil && errors.Is(v.err, ErrTooLong), first.tooLong:
		line.Err, s.skipping = ErrTooLong, severalLines
	case !severalLines: // order.Parse reports what is wrong with it
		line.Text = first.bytes
	case errors.Is(v.err, io.EOF):
		line.Err = errNoEnd
	case err != nil:
		broken("has a syntax error")
	case len(bytes.TrimSpace(v.all[v.dec.InputOffset():])) > 0:
		broken("is followed by other text")
	default:
		line.Text = v.all
	}
	return line, nil
}

// multiLine is a value that spans several lines. Its decoder reads from it; it reads the next
// line when the decoder needs more.
type multiLine struct {
	*splitter

	dec  *jsontext.Decoder
	line inputLine // the last line that was read
	all  []byte    // all lines
	sent int       // how many bytes of all the decoder has
	err  error     // why no further line is read

	lastToken jsontext.Kind
	atLineEnd bool // the decoder asked for another line after lastToken
}

// readTokens reads tokens up to the end of the value.
func (v *multiLine) readTokens() error {
	for {
		token, err := v.dec.ReadToken()
		if err != nil {
			return err
		}
		if v.dec.StackDepth() == 0 {
			return nil
		}
		v.lastToken, v.atLineEnd = token.Kind(), false
	}
}

// Read implements io.Reader for the decoder.
func (v *multiLine) Read(p []byte) (int, error) {
	if v.all == nil {
		v.all = v.line.bytes
	}
	if v.sent == len(v.all) && v.err == nil {
		v.err = v.appendLine()
	}
	if v.err != nil {
		return 0, v.err
	}
	n := copy(p, v.all[v.sent:])
	v.sent += n
	return n, nil
}

// appendLine appends the next line, or returns why it does not belong to the value.
func (v *multiLine) appendLine() error {
	v.atLineEnd = true
	switch {
	case v.inArray():
		return errArray
	case v.line.tooLong:
		return ErrTooLong
	}
	next, err := v.splitter.line()
	switch {
	case err != nil:
		return err
	case isPayment(next.bytes) && !v.inObjectList():
		v.unread = &next
		return errNextPayment
	case next.tooLong || len(v.all)+len(next.bytes) > MaxLine:
		v.line = next
		return ErrTooLong
	}
	v.line = next
	v.all = append(v.all, next.bytes...)
	return nil
}

// inArray reports whether the value is an array.
func (v *multiLine) inArray() bool {
	if v.dec.StackDepth() == 0 {
		return false
	}
	kind, _ := v.dec.StackIndex(1)
	return kind == '['
}

// inObjectList reports whether the decoder is in an array whose objects could be payments:
// one that holds objects, or is empty so far, and is not a payment's item_details.
func (v *multiLine) inObjectList() bool {
	depth := v.dec.StackDepth()
	for i := 1; i <= depth; i++ {
		kind, length := v.dec.StackIndex(i)
		if kind != '[' {
			continue
		}
		if i == 3 && strings.HasPrefix(string(v.dec.StackPointer())+"/", "/payment/item_details/") {
			return false
		}
		switch {
		case i < depth: // in one of its objects
			return true
		case length == 0: // empty so far: objects can only follow in the next line
			return v.atLineEnd
		default:
			return v.lastToken == '}' || v.lastToken == ']'
		}
	}
	return false
}

// isPayment reports whether a line is a payment by itself: an object with the member
// "gateway", which no part of a payment has.
func isPayment(text []byte) bool {
	if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) || !jsontext.Value(text).IsValid(lenient...) {
		return false
	}
	dec := jsontext.NewDecoder(bytes.NewReader(text), lenient...)
	_, err := dec.ReadToken()
	for err == nil && dec.PeekKind() == '"' {
		var name jsontext.Token
		if name, err = dec.ReadToken(); err == nil && name.String() == "gateway" {
			return true
		}
		err = dec.SkipValue()
	}
	return false
}
