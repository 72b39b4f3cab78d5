package clients

import (
	"bytes"
	"encoding/json"
	"strings"
)

// Scalar is a field of an answer that a gateway may write as a string or as a
// number: both mix them (AM, Create Transaction: transaction_total is a number
// in the request and a string in the response). It holds the string's content,
// the JSON text of anything else, and nothing for null. It never fails, so that
// one odd field does not make a whole answer unreadable.
type Scalar string

// UnmarshalJSON implements json.Unmarshaler.
func (s *Scalar) UnmarshalJSON(b []byte) error {
	var text string
	switch {
	case bytes.Equal(b, []byte("null")):
		*s = ""
	case json.Unmarshal(b, &text) == nil:
		*s = Scalar(text)
	default:
		*s = Scalar(b)
	}
	return nil
}

// Text is a field of an answer that holds something for people or for a machine
// to show, such as a status word or a QR code: a string, or a number as it is
// written. Anything else, such as PHP's false or [] for "nothing", is no text.
type Text string

// UnmarshalJSON implements json.Unmarshaler. It never fails.
func (t *Text) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) != nil && isNumber(b) {
		text = string(b)
	}
	*t = Text(text)
	return nil
}

// Identifier is a field of an answer that names a payment. Names are compared
// letter for letter and never by value: "1001", "01001" and "1001.0" are three.
// The zero value is a field that is missing, null or the empty string.
type Identifier struct {
	Text string
	// Bare: it was written as a number, in plain digits. Services that drop the
	// quotes of what looks like a number drop zeros with them, so that 123 may
	// stand for "0123", too.
	Bare bool
	// Unreadable: there is something, but no name: true, {}, or a number such as
	// 1e3 that may stand for more than one text.
	Unreadable bool
}

// UnmarshalJSON implements json.Unmarshaler. It never fails.
func (i *Identifier) UnmarshalJSON(b []byte) error {
	*i = Identifier{}
	switch {
	case json.Unmarshal(b, &i.Text) == nil: // null, too: it leaves the text empty
	case allDigits(string(b)):
		i.Text, i.Bare = string(b), true
	default:
		i.Text, i.Unreadable = "", true
	}
	return nil
}

// Flag is a field of an answer that says yes or no, read by its value: false,
// "false", 0 and "0" are False, true, "true", 1 and "1" are True. A field that is
// missing, null or the empty string is empty. Anything else is neither.
type Flag string

// What a Flag may be.
const (
	True    Flag = "true"
	False   Flag = "false"
	Unsaid  Flag = ""
	unclear Flag = "unclear"
)

// UnmarshalJSON implements json.Unmarshaler. It never fails.
func (f *Flag) UnmarshalJSON(b []byte) error {
	text := string(b)
	if json.Unmarshal(b, &text) != nil {
		text = string(b)
	}
	number := ParseNumber(text)
	switch {
	case text == "" || string(b) == "null":
		*f = Unsaid
	case strings.EqualFold(text, "true"), number == WholeNumber(1):
		*f = True
	case strings.EqualFold(text, "false"), number == WholeNumber(0):
		*f = False
	default:
		*f = unclear
	}
	return nil
}

func isNumber(b []byte) bool {
	return len(b) > 0 && (b[0] == '-' || b[0] >= '0' && b[0] <= '9')
}

// EncodeJSON writes a request body: compact, with &, < and > as they are, and
// without the newline at the end that an Encoder adds (gateways.md 2.4).
func EncodeJSON(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(buf.Bytes(), "\n"), nil
}
