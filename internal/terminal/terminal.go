// Package terminal makes text of strangers fit to be shown: what a gateway or an order
// system wrote may hold sequences that move a terminal's cursor, set its title, paste into
// its clipboard, or characters that make a line read otherwise than it is written.
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

// Safe returns the text with everything that is not seen as what it is written as an
// escape, such as \u001b, and so on one line. Letters, signs and spaces of all scripts stay,
// and so do the joiners that Indic and Arabic words and emoji are written with.
func Safe(s string) string {
	if strings.IndexFunc(s, acts) < 0 {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case acts(r):
			escape(&b, r)
		default:
			b.WriteString(s[:size])
		}
		s = s[size:]
	}
	return b.String()
}

// JSON returns a JSON text on one line, equal in value, in which everything that Safe
// escapes is escaped as well: JSON itself lets C1 controls, which some terminals obey, and
// bidirectional overrides stand in texts as they are. What is no JSON becomes the JSON
// text of itself.
func JSON(text []byte) []byte {
	var line bytes.Buffer
	if err := json.Compact(&line, text); err != nil {
		line.Reset()
		quoted, _ := json.Marshal(string(text)) // a string can always be marshalled
		line.Write(quoted)
	}
	if bytes.IndexFunc(line.Bytes(), acts) < 0 {
		return line.Bytes()
	}
	// All that is found now stands in a text: outside of one, JSON has plain ASCII only.
	var b strings.Builder
	for _, r := range line.String() {
		if acts(r) {
			escape(&b, r)
		} else {
			b.WriteRune(r)
		}
	}
	return []byte(b.String())
}

// escape writes a character as JSON does.
func escape(b *strings.Builder, r rune) {
	if r > 0xffff {
		high, low := utf16.EncodeRune(r)
		fmt.Fprintf(b, `\u%04x\u%04x`, high, low)
		return
	}
	fmt.Fprintf(b, `\u%04x`, r)
}

// acts reports whether a character does anything but be seen. The byte that is no UTF-8,
// which ranging over a text shows as U+FFFD, counts: it may be a C1 control to a terminal
// that is set to another encoding.
func acts(r rune) bool {
	switch r {
	case '\u200c', '\u200d': // joiners
		return false
	case utf8.RuneError:
		return true
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Zl, unicode.Zp, unicode.Noncharacter_Code_Point)
}
