package clients

import (
	"encoding/json"
	"strconv"
	"strings"
)

// Number is a field of an answer that means a number, read by its value: 13000,
// "13000", 13000.0, "13000.00" and 1.3e4 are the same Number, and == compares
// values. Both gateways mix the forms (AM, Create Transaction: transaction_total
// is a number in the request and a string in the response). There are no floats
// in it, so nothing is rounded. The zero value is a field that is missing, null
// or the empty string.
//
// What is written for people ("13,000.00", "Rp 13.000") is unreadable, and so is
// "13.000" in quotes: in Indonesia that is thirteen thousand, in JSON thirteen.
type Number struct {
	text       string // the value in its one spelling: "13000", "-0.5", "1e400"
	unreadable bool
}

const (
	// maxNumber is how many characters a number may have. No gateway writes
	// longer ones, and the bound keeps a hostile one cheap.
	maxNumber = 64
	// maxExponent is where an exponent is cut off. It is so much more than
	// maxNumber that the digits before it cannot make up for what was cut.
	maxExponent = 1_000_000_000
	// maxPlain is how many digits are written out before a Number's spelling
	// has an exponent.
	maxPlain = 40
)

// WholeNumber is an integer as a Number.
func WholeNumber(n int64) Number { return ParseNumber(strconv.FormatInt(n, 10)) }

// ParseNumber reads a text as a Number. It never fails: see Unreadable.
func ParseNumber(text string) Number {
	text = strings.Trim(text, " \t\r\n")
	if grouped(text) {
		return Number{unreadable: true}
	}
	return parseNumber(text)
}

// UnmarshalJSON implements json.Unmarshaler. It never fails, so that one odd
// field does not make a whole answer unreadable.
func (n *Number) UnmarshalJSON(b []byte) error {
	var text string
	switch {
	case string(b) == "null", string(b) == `""`:
		*n = Number{}
	case json.Unmarshal(b, &text) == nil:
		*n = ParseNumber(text)
	default: // in a JSON number a point is a point
		*n = parseNumber(string(b))
	}
	return nil
}

// Present reports whether the field has anything in it, readable or not.
func (n Number) Present() bool { return n != Number{} }

// Unreadable reports whether there is something in the field that is not plainly
// a number. It agrees with nothing, and contradicts nothing.
func (n Number) Unreadable() bool { return n.unreadable }

// String is the value in its one spelling, fewer than 80 characters of digits,
// sign, point and exponent; empty when there is none.
func (n Number) String() string { return n.text }

// Int is the value where it is a whole number that fits.
func (n Number) Int() (int64, bool) {
	i, err := strconv.ParseInt(n.text, 10, 64)
	return i, err == nil
}

// Digits is a whole number that is not negative, in digits; empty for every other.
func (n Number) Digits() string {
	if strings.Trim(n.text, "0123456789") != "" {
		return ""
	}
	return n.text
}

// Float is roughly the value, for what is not money. It is 0 where there is none,
// and where it is too large.
func (n Number) Float() float64 {
	f, err := strconv.ParseFloat(n.text, 64)
	if err != nil {
		return 0
	}
	return f
}

// grouped reports whether a text may group thousands with its point: one to three
// digits, a point, three digits.
func grouped(text string) bool {
	whole, fraction, ok := strings.Cut(strings.TrimLeft(text, "+-"), ".")
	return ok && len(whole) <= 3 && len(fraction) == 3 && strings.Trim(whole+fraction, "0123456789") == ""
}

// parseNumber reads [sign] digits [. digits] [e [sign] digits], which takes in
// every JSON number.
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
	spelling := spell(significant, exponent)
	if negative {
		spelling = "-" + spelling
	}
	return Number{text: spelling}
}

// parseExponent reads what stands behind an e, cut off at maxExponent.
func parseExponent(text string, there bool) (n int, ok bool) {
	if !there {
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
	if err != nil || n > maxExponent { // digits alone: it can only be too large
		n = maxExponent
	}
	if negative {
		n = -n
	}
	return n, true
}

// spell writes digits times ten to the exponent, always in the same way. The
// digits neither begin nor end with a zero.
func spell(digits string, exponent int) string {
	point := len(digits) + exponent // how many digits stand before the point
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
