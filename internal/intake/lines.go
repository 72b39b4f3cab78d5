package intake

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Line is one payment as it came in: a JSON object.
type Line struct {
	Number int // counted from 1, blank lines too
	Text   []byte
	Err    error // why it could not be read
}

// maxLine bounds one payment. The largest that passes the checks is far smaller.
const maxLine = 1 << 20

// ErrTooLong says that a line is longer than any payment.
var ErrTooLong = fmt.Errorf("longer than %d bytes", maxLine)

// Read sends the payments of the input to lines, and closes it: one JSON object
// (over as many lines as it likes), or one object a line (NDJSON). The error is
// the input's own.
func Read(r io.Reader, lines chan<- Line) error {
	defer close(lines)
	in := bufio.NewReaderSize(r, 64<<10)
	for number := 1; ; number++ {
		text, err := readLine(in)
		if number == 1 {
			text = bytes.TrimPrefix(text, []byte("\ufeff"))
			if startsObject(text) {
				text = withRest(text, in)
			}
		}
		switch {
		case errors.Is(err, ErrTooLong):
			lines <- Line{Number: number, Err: ErrTooLong}
		case len(bytes.TrimSpace(text)) > 0:
			lines <- Line{Number: number, Text: text}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, ErrTooLong) {
			return fmt.Errorf("line %d: %w", number, err)
		}
	}
}

// readLine reads up to the next line break. Of a line that is too long nothing
// is kept; the next call reads the next line.
func readLine(in *bufio.Reader) ([]byte, error) {
	var text []byte
	tooLong := false
	for {
		part, err := in.ReadSlice('\n')
		if len(text)+len(part) > maxLine {
			text, tooLong = nil, true
		}
		if !tooLong {
			text = append(text, part...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if tooLong {
			err = errors.Join(ErrTooLong, err)
		}
		return text, err
	}
}

// startsObject reports whether the text is the beginning of an object that goes
// on in the next line.
func startsObject(text []byte) bool {
	text = bytes.TrimSpace(text)
	return bytes.HasPrefix(text, []byte("{")) && !json.Valid(text)
}

// withRest appends the rest of the input to its first line, if together they are
// one object. If not, the input is many lines of which the first is broken, and
// nothing is consumed.
func withRest(first []byte, in *bufio.Reader) []byte {
	rest, err := in.Peek(in.Size())
	if !errors.Is(err, io.EOF) { // too large for one payment, or still growing
		return first
	}
	if whole := append(bytes.Clone(first), rest...); json.Valid(whole) {
		_, _ = in.Discard(len(rest)) // cannot fail: it was peeked
		return whole
	}
	return first
}
