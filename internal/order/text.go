package order

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// An id is what tells one payment from another: here, at the gateway and on a person's
// screen. Two ids that look the same, or that a gateway makes the same by trimming or
// composing them, are two charges for one order here and one payment there, which by the
// longer id is never found again. So an id is letters, digits, marks, signs and single
// spaces inside it, and nothing that cannot be seen, in Unicode's composed form (NFC).
// Letters of different alphabets that look alike (Latin and Cyrillic A) are not told
// apart: whoever writes ids has one keyboard, but may have two ways of storing an é.
//
// A text (a name, a title, a description) identifies nothing. It may hold any letter and
// sign that people's names and shops' titles hold, emoji and the joiners of Arabic and
// Indic scripts included, but nothing that is not seen or that makes it read otherwise
// than it is written, and no line break: it ends up on screens, receipts and in logs.

// idFault says what is wrong with an id; "" when nothing is.
func idFault(s string) string {
	for i, r := range s {
		switch {
		case r == utf8.RuneError:
			return fmt.Sprintf("has U+FFFD at character %d, which stands for a character that was lost", position(s, i))
		case !unicode.IsPrint(r) || unseen(r):
			return fmt.Sprintf("has an invisible or control character, or a space other than the plain one (%U at character %d)", r, position(s, i))
		}
	}
	switch {
	case s != strings.TrimSpace(s):
		return "has a space at an end, which a gateway may cut off"
	case !norm.NFC.IsNormalString(s):
		return "is not in Unicode's composed form (NFC): the same letters could make another payment"
	}
	return ""
}

// textFault says what is wrong with a name, a title or a description; "" when nothing is.
func textFault(s string) string {
	if s != "" && strings.TrimSpace(s) == "" {
		return "is nothing but white space" // a gateway that trims it finds it empty
	}
	runes := []rune(s)
	for i, r := range runes {
		if !unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Zl, unicode.Zp) && !unseen(r) {
			continue // what this version of Unicode does not know may be a new emoji
		}
		if !connects(runes, i) {
			return fmt.Sprintf("has an invisible or control character (%U at character %d)", r, i+1)
		}
	}
	return ""
}

func position(s string, offset int) int { return utf8.RuneCountInString(s[:offset]) + 1 }

// blanks are characters that Unicode counts as letters, marks or signs and that are not
// seen all the same.
var blanks = map[rune]bool{
	'\u2800':     true, // BRAILLE PATTERN BLANK
	'\ufffc':     true, // OBJECT REPLACEMENT CHARACTER
	'\U00013441': true, // EGYPTIAN HIEROGLYPH FULL BLANK
	'\U00013442': true, // EGYPTIAN HIEROGLYPH HALF BLANK
	'\U00016fe4': true, // KHITAN SMALL SCRIPT FILLER
	'\U0001d159': true, // MUSICAL SYMBOL NULL NOTEHEAD
}

// unseen reports whether a character leaves no mark although its category does not say
// so: fillers, variation selectors, tags, and code points that are none.
func unseen(r rune) bool {
	return unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector, unicode.Noncharacter_Code_Point) ||
		blanks[r]
}

const (
	nonJoiner = '\u200c' // ZWNJ
	joiner    = '\u200d' // ZWJ
	emojiForm = '\ufe0f' // VS16: the sign before it is shown in colour
	keycap    = '\u20e3' // around the digit before it
)

// joining are the scripts whose words are written with joiners: Persian names, Sinhala's
// Sri, Javanese and Balinese.
var joining = []*unicode.RangeTable{
	unicode.Arabic, unicode.Syriac, unicode.Nko, unicode.Mongolian,
	unicode.Devanagari, unicode.Bengali, unicode.Gurmukhi, unicode.Gujarati, unicode.Oriya, unicode.Tamil,
	unicode.Telugu, unicode.Kannada, unicode.Malayalam, unicode.Sinhala,
	unicode.Balinese, unicode.Javanese, unicode.Sundanese, unicode.Khmer, unicode.Myanmar, unicode.Tibetan,
}

// connects reports whether an invisible character does what it is there for: a joiner
// behind a letter of a script that has them, a joiner between two emoji, the selector
// that makes an emoji of the sign before it. Anywhere else it only hides.
func connects(runes []rune, i int) bool {
	if i == 0 {
		return false
	}
	before, behind := runes[i-1], rune(0)
	if i+1 < len(runes) {
		behind = runes[i+1]
	}
	switch runes[i] {
	case nonJoiner:
		return unicode.In(before, joining...)
	case joiner:
		return unicode.In(before, joining...) || (unicode.IsSymbol(before) || before == emojiForm) && unicode.IsSymbol(behind)
	case emojiForm:
		return unicode.IsSymbol(before) || behind == keycap
	}
	return false
}
