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
)

// Line is one payment as it came in: a JSON object. Most often it is one line, which gave
// it its name.
type Line struct {
	Number int // of the line it begins in, counted from 1, blank lines too
	Last   int // of the line it ends in
	Text   []byte
	Err    error // why it could not be read
}

// maxLine bounds one payment. The largest that passes the checks is far smaller.
const maxLine = 1 << 20

// Why something is no payment, in words that say what to do. What follows a refusal of
// the rest is not read: it could be parts of something larger, and to take parts of that
// would be to guess.
var (
	ErrTooLong = fmt.Errorf("longer than %d bytes, which no payment is", maxLine)

	errArray = errors.New("a JSON array: write one payment a line (NDJSON), for example with jq -c '.[]'. " +
		"Nothing from here on was taken")
	errListed = errors.New("this object holds a list, and breaks inside it: write one payment a line (NDJSON). " +
		"Nothing from here on was taken")
	errEnds    = errors.New("broken JSON: the object that begins here has no end")
	errFollows = errors.New("broken JSON: the object that begins here has no end before the next payment begins")
)

// packed are the first bytes of what is not read as it is, and what to do about it.
var packed = []struct{ magic, what, do string }{
	{"\x1f\x8b", "compressed with gzip", "zcat FILE | enqueue create"},
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

// unreadable says why an input that begins with this line is no text that we read; nil
// when it may be.
func unreadable(text []byte) error {
	refuse := func(what, do string) error {
		return fmt.Errorf("the input is %s: hand it in as plain UTF-8 text, for example with %s. Nothing of it was taken", what, do)
	}
	for _, p := range packed {
		if bytes.HasPrefix(text, []byte(p.magic)) {
			return refuse(p.what, p.do)
		}
	}
	// JSON begins with ASCII. A NUL beside it tells the other encodings without a mark.
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
		return refuse(from+" text, or no text at all", "iconv -f "+from+" -t UTF-8 FILE | enqueue create")
	}
	return nil
}

// Read sends the payments of the input to lines, and closes it. The input is NDJSON, one
// object a line, or holds objects that go over several lines. The error is the input's
// own, or the context's when that ends first.
//
// Nothing waits for more than it needs: a line that is a JSON value is sent at once, and
// so is one that cannot become a value by going on. Only a line that may go on is joined
// by the next one. It is taken whole or refused whole: no line within it counts as a
// payment, except where it turns out to be a line that was cut off, because the line
// behind it is a payment of its own.
func Read(ctx context.Context, r io.Reader, lines chan<- Line) error {
	defer close(lines)
	s := &splitter{in: bufio.NewReaderSize(r, 64<<10)}
	for {
		line, err := s.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", s.number+1, err)
		}
		select {
		case lines <- line:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// splitter cuts the input into payments.
type splitter struct {
	in     *bufio.Reader
	number int   // of the line read last
	held   *text // a line that was read and is the next one again

	begun    bool // something was read
	skipping bool // behind a broken object of several lines: up to the next payment
	stopped  bool // nothing more is read
}

// text is one line of the input.
type text struct {
	bytes   []byte
	number  int
	tooLong bool // only its beginning is there
}

func (t text) blank() bool { return len(bytes.TrimSpace(t.bytes)) == 0 }

// line reads the next line.
func (s *splitter) line() (text, error) {
	if s.held != nil {
		held := *s.held
		s.held = nil
		return held, nil
	}
	t, err := s.readLine()
	if err != nil {
		return text{}, err
	}
	if !s.begun && !t.blank() {
		s.begun = true
		if err := unreadable(t.bytes); err != nil {
			s.stopped = true
			return t, err
		}
	}
	// Files joined by cat have their byte order marks anywhere.
	t.bytes = bytes.TrimPrefix(t.bytes, []byte("\ufeff"))
	return t, nil
}

// readLine reads up to the next line break. Of a line that is too long only the beginning
// is kept. A line that is cut off by an error is none.
func (s *splitter) readLine() (text, error) {
	t := text{number: s.number + 1}
	for {
		part, err := s.in.ReadSlice('\n')
		room := maxLine - len(t.bytes)
		t.tooLong = t.tooLong || len(part) > room
		t.bytes = append(t.bytes, part[:min(len(part), room)]...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(t.bytes) > 0:
		case err != nil:
			return text{}, err
		}
		s.number++
		return t, nil
	}
}

// next is the next payment, or what stands where one should.
func (s *splitter) next() (Line, error) {
	for !s.stopped {
		t, err := s.line()
		switch {
		case s.stopped:
			return Line{Number: t.number, Last: t.number, Err: err}, nil
		case err != nil:
			return Line{}, err
		case t.blank(), s.skipping && !isPayment(t.bytes):
			continue
		}
		s.skipping = false
		if !t.tooLong && jsontext.Value(t.bytes).IsValid(lenient...) {
			return Line{Number: t.number, Last: t.number, Text: t.bytes}, nil
		}
		return s.join(t)
	}
	return Line{}, io.EOF
}

// lenient lets pass what is no matter of where a value ends: order.Parse tells it.
var lenient = []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}

// join reads a value that does not end in its first line, as far as it goes.
func (s *splitter) join(first text) (Line, error) {
	o := &open{splitter: s, line: first}
	o.dec = jsontext.NewDecoder(o, lenient...)
	err := o.read()
	line := Line{Number: first.number, Last: o.line.number}
	over := line.Last > line.Number
	breaks := func(what string) {
		line.Err = fmt.Errorf("broken JSON: the object that begins here %s in line %d; "+
			"what follows is read from the next line on that is a payment by itself", what, o.line.number)
		s.skipping = true
	}
	switch {
	case o.err != nil && !errors.Is(o.err, io.EOF) && !slices.Contains([]error{ErrTooLong, errArray, errFollows}, o.err):
		return Line{}, o.err // the input's
	case errors.Is(o.err, errFollows):
		line.Last, line.Err = s.held.number-1, errFollows
	case errors.Is(o.err, errArray), err != nil && o.topArray() && o.holdsObjects():
		line.Err, s.stopped = errArray, true
	case err != nil && o.holdsObjects() && (over || !errors.Is(o.err, io.EOF)):
		line.Err, s.stopped = errListed, true
	case o.err != nil && errors.Is(o.err, ErrTooLong), first.tooLong:
		line.Err, s.skipping = ErrTooLong, over
	case !over: // whatever is wrong with the line, order.Parse tells it
		line.Text = first.bytes
	case errors.Is(o.err, io.EOF):
		line.Err = errEnds
	case err != nil:
		breaks("breaks")
	case len(bytes.TrimSpace(o.all[o.dec.InputOffset():])) > 0:
		breaks("ends, and something else begins,")
	default:
		line.Text = o.all
	}
	return line, nil
}

// open is a value that is being read, line by line as the decoder wants more.
type open struct {
	*splitter

	dec  *jsontext.Decoder
	line text   // the line read last
	all  []byte // what was read
	sent int    // how much of it the decoder has
	err  error  // why there is no more

	last    jsontext.Kind // of the token read last
	waiting bool          // a line was wanted, and no token was read since
}

// read reads tokens up to the end of the value.
func (o *open) read() error {
	for {
		token, err := o.dec.ReadToken()
		if err != nil {
			return err
		}
		if o.dec.StackDepth() == 0 {
			return nil
		}
		o.last, o.waiting = token.Kind(), false
	}
}

// Read implements io.Reader for the decoder.
func (o *open) Read(p []byte) (int, error) {
	if o.all == nil {
		o.all = o.line.bytes
	}
	if o.sent == len(o.all) && o.err == nil {
		o.err = o.more()
	}
	if o.err != nil {
		return 0, o.err
	}
	n := copy(p, o.all[o.sent:])
	o.sent += n
	return n, nil
}

// more adds the next line, unless there is a reason not to.
func (o *open) more() error {
	o.waiting = true
	switch {
	case o.topArray():
		return errArray
	case o.line.tooLong:
		return ErrTooLong
	}
	next, err := o.splitter.line()
	switch {
	case err != nil:
		return err
	case isPayment(next.bytes) && !o.holdsObjects():
		o.held = &next
		return errFollows
	case next.tooLong || len(o.all)+len(next.bytes) > maxLine:
		o.line = next
		return ErrTooLong
	}
	o.line = next
	o.all = append(o.all, next.bytes...)
	return nil
}

// topArray reports whether what is being read is an array.
func (o *open) topArray() bool {
	if o.dec.StackDepth() == 0 {
		return false
	}
	kind, _ := o.dec.StackIndex(1)
	return kind == '['
}

// holdsObjects reports whether the place that was read last is in a list of objects, or
// of nothing yet, that is not a payment's own: the objects in it could be payments.
func (o *open) holdsObjects() bool {
	depth := o.dec.StackDepth()
	for i := 1; i <= depth; i++ {
		kind, length := o.dec.StackIndex(i)
		if kind != '[' {
			continue
		}
		if i == 3 && strings.HasPrefix(string(o.dec.StackPointer())+"/", "/payment/item_details/") {
			return false
		}
		switch {
		case i < depth: // in one of its objects
			return true
		case length == 0: // objects may begin in the next line; what begins in this one broke it
			return o.waiting
		default:
			return o.last == '}' || o.last == ']'
		}
	}
	return false
}

// isPayment reports whether a line is a payment by itself: an object with a gateway, which
// no part of a payment has.
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
