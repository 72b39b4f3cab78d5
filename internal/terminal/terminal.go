// Package terminal makes untrusted text safe for a terminal. Text of a gateway or an order
// system may contain escape sequences that move the cursor, set the title or write to the
// clipboard, and characters that change the order in which a line is displayed.
package terminal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Safe returns the text on one line, with control, format and other invisible characters
// replaced by escapes such as \u001b. Letters, symbols and spaces of all scripts are kept, and
// so are the joiners of Indic and Arabic scripts and of emoji.
func Safe(s string) string {
	if strings.IndexFunc(s, isUnsafe) < 0 {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case isUnsafe(r):
			escape(&b, r)
		default:
			b.WriteString(s[:size])
		}
		s = s[size:]
	}
	return b.String()
}

// JSON returns a JSON text of equal value on one line, in which the characters that Safe
// escapes are escaped. JSON itself allows C1 controls, which some terminals obey, and
// bidirectional overrides in strings. Text that is not JSON becomes a JSON string.
func JSON(text []byte) []byte {
	var line bytes.Buffer
	if err := json.Compact(&line, text); err != nil {
		line.Reset()
		quoted, _ := json.Marshal(string(text)) // a string can always be marshalled
		line.Write(quoted)
	}
	if bytes.IndexFunc(line.Bytes(), isUnsafe) < 0 {
		return line.Bytes()
	}
	// Such characters can only be in strings: the rest of a JSON text is ASCII.
	var b strings.Builder
	for _, r := range line.String() {
		if isUnsafe(r) {
			escape(&b, r)
		} else {
			b.WriteRune(r)
		}
	}
	return []byte(b.String())
}

// escape writes a character as a JSON escape.
func escape(b *strings.Builder, r rune) {
	if r > 0xffff {
		high, low := utf16.EncodeRune(r)
		fmt.Fprintf(b, `\u%04x\u%04x`, high, low)
		return
	}
	fmt.Fprintf(b, `\u%04x`, r)
}

// isUnsafe reports whether a character may change how a terminal displays text. U+FFFD is
// unsafe: a range loop returns it for a byte that is not UTF-8, which may be a C1 control in
// a terminal with another encoding.
func isUnsafe(r rune) bool {
	switch r {
	case '\u200c', '\u200d': // joiners
		return false
	case utf8.RuneError:
		return true
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Zl, unicode.Zp, unicode.Noncharacter_Code_Point)
}
