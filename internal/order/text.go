package order

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Ids and texts have different rules.
//
// An id distinguishes payments. Two ids that look the same, or that a gateway makes equal by
// trimming or normalizing them, would be two payments here and one at the gateway, or the
// payment could not be found there again. So an id consists of visible characters and plain
// spaces between them, in Unicode's composed form (NFC). Similar letters of different
// alphabets (Latin and Cyrillic A) are accepted: one system does not mix them, but it may
// store an é in two ways.
//
// A text is a name, a title or a description. It may contain all characters of people's
// names and product titles, such as emoji and the joiners of Arabic and Indic scripts, but
// no line break, no other invisible character, and none that changes the reading direction:
// it is shown on screens and receipts and in logs.

// idProblem returns what is wrong with an id, or "".
func idProblem(s string) string {
	ascii := printableASCII(s) // as most are
	if !ascii {
		for i, r := range s {
			switch {
			case r == utf8.RuneError:
				return fmt.Sprintf("contains the replacement character U+FFFD at character %d: a character was lost", position(s, i))
			case !unicode.IsPrint(r) || invisible(r):
				return fmt.Sprintf("contains an invisible or control character, or a space other than U+0020 (%U at character %d)", r, position(s, i))
			}
		}
	}
	switch {
	case s != strings.TrimSpace(s):
		return "must not begin or end with a space: a gateway may trim it"
	case !ascii && !norm.NFC.IsNormalString(s):
		return "must be in Unicode's composed form (NFC): the same letters in another form would be another payment"
	}
	return ""
}

// textProblem returns what is wrong with a text, or "".
func textProblem(s string) string {
	if s != "" && strings.TrimSpace(s) == "" {
		return "must not be only white space" // a gateway that trims it finds it empty
	}
	if printableASCII(s) {
		return ""
	}
	runes := []rune(s)
	for i, r := range runes {
		if !unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Zl, unicode.Zp) && !invisible(r) {
			continue // also unassigned code points: they may be new emoji
		}
		if !joins(runes, i) {
			return fmt.Sprintf("contains an invisible or control character (%U at character %d)", r, i+1)
		}
	}
	return ""
}

// printableASCII reports whether a text consists of the visible characters of ASCII and spaces.
// They need no check with Unicode's tables.
func printableASCII(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// position returns the number of the character at a byte offset, from 1.
func position(s string, offset int) int { return utf8.RuneCountInString(s[:offset]) + 1 }

// blanks are invisible characters that Unicode categorizes as letters, marks or symbols.
var blanks = map[rune]bool{
	'\u2800':     true, // BRAILLE PATTERN BLANK
	'\ufffc':     true, // OBJECT REPLACEMENT CHARACTER
	'\U00013441': true, // EGYPTIAN HIEROGLYPH FULL BLANK
	'\U00013442': true, // EGYPTIAN HIEROGLYPH HALF BLANK
	'\U00016fe4': true, // KHITAN SMALL SCRIPT FILLER
	'\U0001d159': true, // MUSICAL SYMBOL NULL NOTEHEAD
}

// invisible reports whether a character is invisible although unicode.IsPrint may say
// otherwise: fillers, variation selectors, tags and noncharacters.
func invisible(r rune) bool {
	return unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector, unicode.Noncharacter_Code_Point) ||
		blanks[r]
}

const (
	nonJoiner = '\u200c' // ZWNJ
	joiner    = '\u200d' // ZWJ
	emojiForm = '\ufe0f' // VS16: shows the symbol before it as an emoji
	keycap    = '\u20e3' // shows the digit before it as a key
)

// joinerScripts are the scripts whose words contain joiners, e.g. Persian names.
var joinerScripts = []*unicode.RangeTable{
	unicode.Arabic, unicode.Syriac, unicode.Nko, unicode.Mongolian,
	unicode.Devanagari, unicode.Bengali, unicode.Gurmukhi, unicode.Gujarati, unicode.Oriya, unicode.Tamil,
	unicode.Telugu, unicode.Kannada, unicode.Malayalam, unicode.Sinhala,
	unicode.Balinese, unicode.Javanese, unicode.Sundanese, unicode.Khmer, unicode.Myanmar, unicode.Tibetan,
}

// joins reports whether the invisible character runes[i] has its proper use: a joiner after
// a letter of joinerScripts, a joiner between two emoji, or the selector that shows the
// symbol before it as an emoji. In any other place it would only hide.
func joins(runes []rune, i int) bool {
	if i == 0 {
		return false
	}
	before, after := runes[i-1], rune(0)
	if i+1 < len(runes) {
		after = runes[i+1]
	}
	switch runes[i] {
	case nonJoiner:
		return unicode.In(before, joinerScripts...)
	case joiner:
		return unicode.In(before, joinerScripts...) || (unicode.IsSymbol(before) || before == emojiForm) && unicode.IsSymbol(after)
	case emojiForm:
		return unicode.IsSymbol(before) || after == keycap
	}
	return false
}
