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
	text, ok := unquote(b)
	if !ok {
		text = string(b)
	}
	*s = Scalar(text)
	return nil
}

// Text is a field of an answer that is only displayed, such as a status word or a QR code: a
// string, or the JSON text of a number. Anything else is "": PHP services write false or []
// for a missing value.
type Text string

// UnmarshalJSON implements json.Unmarshaler. It never fails.
func (t *Text) UnmarshalJSON(b []byte) error {
	text, ok := unquote(b)
	if !ok && isNumber(b) {
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
	text, ok := unquote(b)
	switch {
	case ok:
		*i = Identifier{Text: text}
	case allDigits(string(b)):
		*i = Identifier{Text: string(b), Unquoted: true}
	default:
		*i = Identifier{Unreadable: true}
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

var zero, one = WholeNumber(0), WholeNumber(1)

// UnmarshalJSON implements json.Unmarshaler. It never fails.
func (f *Flag) UnmarshalJSON(b []byte) error {
	text, ok := unquote(b)
	if !ok {
		text = string(b)
	}
	switch {
	case text == "":
		*f = Unset
	case strings.EqualFold(text, "true"), ParseNumber(text) == one:
		*f = True
	case strings.EqualFold(text, "false"), ParseNumber(text) == zero:
		*f = False
	default:
		*f = invalid
	}
	return nil
}

// unquote returns the content of a JSON string, and "" for null; ok is false for any other
// value.
func unquote(b []byte) (text string, ok bool) {
	if len(b) == 0 || b[0] != '"' && b[0] != 'n' {
		return "", false // as json.Unmarshal would find out, with more effort
	}
	if n := len(b) - 1; n > 0 && b[n] == '"' && isPlain(b[1:n]) {
		return string(b[1:n]), true
	}
	if json.Unmarshal(b, &text) != nil {
		return "", false
	}
	return text, true
}

// isPlain reports whether a JSON string has this content and nothing to unescape or replace.
func isPlain(content []byte) bool {
	for _, c := range content {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
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
