package clients

import (
	"strconv"
	"strings"
)

// Number is a numeric field of an answer, read by its value: 13000, "13000", 13000.0,
// "13000.00" and 1.3e4 are the same Number, and == compares values. Both gateways mix these
// forms (AM, Create Transaction: transaction_total is a number in the request and a string
// in the response). Number uses no floats, so nothing is rounded. The zero value is a field
// that is missing, null or the empty string.
//
// A number that is formatted for people ("13,000.00", "Rp 13.000") is unreadable, and so is
// "13.000" as a string: in Indonesian format that is thirteen thousand, in JSON thirteen.
type Number struct {
	text       string // the value in its canonical form: "13000", "-0.5", "1e400"
	unreadable bool
}

const (
	// maxNumber is the maximum length of a number in characters. No gateway sends longer
	// ones, and the limit bounds the cost of parsing.
	maxNumber = 64
	// maxExponent is the largest exponent; a larger one is reduced to it. It exceeds
	// maxNumber by far, so the digits cannot make a difference.
	maxExponent = 1_000_000_000
	// maxPlain is the maximum number of digits in the canonical form without an exponent.
	maxPlain = 40
)

// WholeNumber returns an integer as a Number.
func WholeNumber(n int64) Number { return ParseNumber(strconv.FormatInt(n, 10)) }

// ParseNumber parses a text. It never fails: see Unreadable.
func ParseNumber(text string) Number {
	text = strings.Trim(text, " \t\r\n")
	if grouped(text) {
		return Number{unreadable: true}
	}
	return parseNumber(text)
}

// UnmarshalJSON implements json.Unmarshaler. It never fails, so that one malformed field
// does not make the whole answer unreadable.
func (n *Number) UnmarshalJSON(b []byte) error {
	text, ok := unquote(b)
	switch {
	case ok && text == "":
		*n = Number{}
	case ok:
		*n = ParseNumber(text)
	default: // in a JSON number a point is always a decimal point
		*n = parseNumber(string(b))
	}
	return nil
}

// Present reports whether the field has a value, readable or not.
func (n Number) Present() bool { return n != Number{} }

// Unreadable reports whether the field has a value that is not clearly a number.
func (n Number) Unreadable() bool { return n.unreadable }

// String returns the value in its canonical form, fewer than 80 characters; "" if missing or
// unreadable.
func (n Number) String() string { return n.text }

// Int returns the value if it is a whole number that fits into an int64.
func (n Number) Int() (int64, bool) {
	i, err := strconv.ParseInt(n.text, 10, 64)
	return i, err == nil
}

// Digits returns a whole number that is not negative in digits; "" for any other value.
func (n Number) Digits() string {
	if strings.Trim(n.text, "0123456789") != "" {
		return ""
	}
	return n.text
}

// Float returns the approximate value; 0 if there is none or it is too large. Do not use it
// for money.
func (n Number) Float() float64 {
	f, err := strconv.ParseFloat(n.text, 64)
	if err != nil {
		return 0
	}
	return f
}

// grouped reports whether the point in a text may separate thousands: one to three digits,
// a point, three digits.
func grouped(text string) bool {
	whole, fraction, ok := strings.Cut(strings.TrimLeft(text, "+-"), ".")
	return ok && len(whole) <= 3 && len(fraction) == 3 && strings.Trim(whole+fraction, "0123456789") == ""
}

// parseNumber parses [sign] digits [. digits] [e [sign] digits]. Every JSON number has this
// form.
func parseNumber(text string) Number {
	if len(text) > maxNumber {
		return Number{unreadable: true}
	}
	unsigned, negative := strings.CutPrefix(text, "-")
	if !negative {
		unsigned = strings.TrimPrefix(unsigned, "+")
	}
	mantissa, exponentText, hasExponent := unsigned, "", false
	if i := strings.IndexAny(unsigned, "eE"); i >= 0 {
		mantissa, exponentText, hasExponent = unsigned[:i], unsigned[i+1:], true
	}
	whole, fraction, hasPoint := strings.Cut(mantissa, ".")
	exponent, ok := parseExponent(exponentText, hasExponent)
	if !ok || !allDigits(whole) || hasPoint && !allDigits(fraction) {
		return Number{unreadable: true}
	}
	digits := strings.TrimLeft(whole+fraction, "0")
	significant := strings.TrimRight(digits, "0")
	if significant == "" {
		return Number{text: "0"}
	}
	exponent += len(digits) - len(significant) - len(fraction)
	text = canonical(significant, exponent)
	if negative {
		text = "-" + text
	}
	return Number{text: text}
}

// parseExponent parses the exponent after an e, and reduces it to maxExponent. Without an e
// the exponent is 0.
func parseExponent(text string, present bool) (n int, ok bool) {
	if !present {
		return 0, true
	}
	digits, negative := strings.CutPrefix(text, "-")
	if !negative {
		digits = strings.TrimPrefix(digits, "+")
	}
	if !allDigits(digits) {
		return 0, false
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n > maxExponent { // only digits: an error means too large
		n = maxExponent
	}
	if negative {
		n = -n
	}
	return n, true
}

// canonical returns digits times ten to the exponent in canonical form. The digits neither
// begin nor end with a zero.
func canonical(digits string, exponent int) string {
	point := len(digits) + exponent // number of digits before the point
	switch {
	case exponent >= 0 && point <= maxPlain:
		return digits + strings.Repeat("0", exponent)
	case point > 0 && exponent < 0 && len(digits) <= maxPlain:
		return digits[:point] + "." + digits[point:]
	case point <= 0 && exponent >= -maxPlain:
		return "0." + strings.Repeat("0", -point) + digits
	}
	return digits + "e" + strconv.Itoa(exponent)
}

func allDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
