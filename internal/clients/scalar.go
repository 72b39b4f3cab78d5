package clients

import (
	"bytes"
	"encoding/json"

	"terbayar/internal/payment"
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

// Rupiah reads the scalar as an amount the way Receipt tells it: 0 when there is
// none, -1 when it is not a positive amount of whole rupiah.
func (s Scalar) Rupiah() payment.Rupiah {
	if s == "" {
		return 0
	}
	for _, parse := range []func(string) (payment.Rupiah, error){payment.ParseRupiah, payment.ParseDecimal} {
		if r, err := parse(string(s)); err == nil && r.Valid() {
			return r
		}
	}
	return -1
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
