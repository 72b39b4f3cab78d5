package clients

import (
	"bytes"
	"encoding/json"
	"strings"
)

// Scalar is a field of an answer that a gateway may write as a string or as a number. It
// holds the content of a string, the JSON text of anything else, and "" for null.
type Scalar string

// UnmarshalJSON implements json.Unmarshaler. It never fails, so that one malformed field
// does not make the whole answer unreadable.
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

// Text is a field of an answer that is only displayed, such as a status word or a QR code: a
// string, or the JSON text of a number. Anything else is "": PHP services write false or []
// for a missing value.
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

// Identifier is a field of an answer that identifies a payment. Identifiers are compared as
// text and never by value: "1001", "01001" and "1001.0" are different. The zero value is a
// field that is missing, null or the empty string.
type Identifier struct {
	Text string
	// Unquoted: the field is a JSON number of plain digits. A service that writes a text
	// of digits as a number loses its leading zeros, so 123 may also mean "0123".
	Unquoted bool
	// Unreadable: the field has a value that identifies nothing: true, {}, or a number
	// such as 1e3, which may mean more than one text.
	Unreadable bool
}

// UnmarshalJSON implements json.Unmarshaler. It never fails.
func (i *Identifier) UnmarshalJSON(b []byte) error {
	*i = Identifier{}
	switch {
	case json.Unmarshal(b, &i.Text) == nil: // null too, which leaves the text empty
	case allDigits(string(b)):
		i.Text, i.Unquoted = string(b), true
	default:
		i.Text, i.Unreadable = "", true
	}
	return nil
}

// Flag is a boolean field of an answer, read by its value: false, "false", 0 and "0" are
// False, true, "true", 1 and "1" are True. A field that is missing, null or the empty string
// is Unset. Any other value is invalid.
type Flag string

// The values of a Flag.
const (
	True    Flag = "true"
	False   Flag = "false"
	Unset   Flag = ""
	invalid Flag = "invalid"
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
		*f = Unset
	case strings.EqualFold(text, "true"), number == WholeNumber(1):
		*f = True
	case strings.EqualFold(text, "false"), number == WholeNumber(0):
		*f = False
	default:
		*f = invalid
	}
	return nil
}

func isNumber(b []byte) bool {
	return len(b) > 0 && (b[0] == '-' || b[0] >= '0' && b[0] <= '9')
}

// EncodeJSON returns a request body: compact, with &, < and > not escaped, and without the
// final newline that an Encoder adds (docs/gateways.md 2.4).
func EncodeJSON(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(buf.Bytes(), "\n"), nil
}
