package clients

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"terbayar/internal/retrypolicy"
)

const (
	maxMessage   = 150      // runes of a message that are kept
	maxSpoken    = 64 << 10 // bytes: a longer body is a list or a page, not a word to us
	maxPlainText = 1 << 10  // bytes of a body that is a sentence and no JSON
	veil         = "***"
)

// hidden is what must not be shown of a gateway's words, beside what looks like a
// number, an address or a key.
type hidden struct {
	secrets []string // wherever they stand
	names   []string // where they stand as words: of customers, and our user names
}

// message is what a gateway says in the body of an answer, fit to be kept and
// shown: in one line, cut, and without anything secret or of the customer's. It is
// empty where the gateway says nothing, as a web page does.
func (h hidden) message(body []byte) string {
	text := oneLine(spoken(body))
	if text == "" {
		return ""
	}
	text = h.mask(text) // before the cut: half a secret would not be known again
	if utf8.RuneCountInString(text) > maxMessage {
		text = strings.TrimSpace(string([]rune(text)[:maxMessage-3])) + "..."
	}
	return text
}

// spoken takes the words out of a body: AM's message, or its error where that is a
// word (token_expired); Laravel's errors of a validation, by field; SNAP's
// responseMessage; OAuth's error_description. What does not begin like JSON or
// HTML and is short is a sentence.
func spoken(body []byte) string {
	if len(body) > maxSpoken || !utf8.Valid(body) {
		return ""
	}
	var value any
	if json.Unmarshal(body, &value) != nil {
		if text := strings.TrimSpace(string(body)); len(text) <= maxPlainText && !strings.ContainsAny(text, "<>{}[]") {
			return text
		}
		return ""
	}
	var words []string
	switch v := value.(type) {
	case string:
		words = []string{v}
	case map[string]any:
		words = wordsOf(v, fieldsWithWords)
		if data, ok := v["data"].(map[string]any); ok {
			words = append(words, wordsOf(data, fieldsWithWords[:fieldsOfData])...)
		}
	}
	var said []string
	for _, w := range words {
		if w != "" && !slices.ContainsFunc(said, func(s string) bool { return strings.Contains(s, w) }) {
			said = append(said, w)
		}
	}
	return strings.Join(said, "; ")
}

// fieldsWithWords are the fields in which gateways, frameworks and proxies say
// what is wrong, without case, _ and -.
var fieldsWithWords = []string{
	"responsemessage", "message", "msg", "errormessage", "pesan", "error", "errors", "errordescription",
	"errorcode", "code", "detail", "details", "description", "reason", "statusmessage", "title", "status",
}

// fieldsOfData is how many of them count within data too, where the others are a
// payment's own.
const fieldsOfData = 8

// verdicts are no words: whether it went well, the fields say by being there.
var verdicts = []string{"true", "false", "error", "success", "failed", "fail", "ok", "null"}

func wordsOf(object map[string]any, fields []string) (words []string) {
	plain := make(map[string]any, len(object))
	for _, name := range slices.Sorted(maps.Keys(object)) {
		plain[strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(name))] = object[name]
	}
	for _, name := range fields {
		for _, w := range leaves(plain[name], 0) {
			if name != "message" && slices.Contains(verdicts, strings.ToLower(w)) || !strings.ContainsFunc(w, unicode.IsLetter) {
				continue
			}
			words = append(words, w)
		}
	}
	return words
}

// maxDepth is how deep the words of one field may be buried.
const maxDepth = 4

// leaves are the texts within a field, each with the names of the fields that it
// is about: {"signature":["is invalid"]} says so in the name alone.
func leaves(value any, depth int) (texts []string) {
	if depth > maxDepth {
		return nil
	}
	switch v := value.(type) {
	case string:
		texts = []string{strings.TrimSpace(v)}
	case []any:
		for _, each := range v {
			texts = append(texts, leaves(each, depth+1)...)
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			for _, text := range leaves(v[name], depth+1) {
				if !slices.Contains(fieldsWithWords, strings.ToLower(name)) {
					text = name + ": " + text
				}
				texts = append(texts, text)
			}
		}
	}
	return texts
}

// oneLine makes every run of white space one space, and drops what cannot be seen:
// it could hide a secret from the masks, and acts on terminals.
func oneLine(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case unicode.IsSpace(r):
			b.WriteByte(' ')
		case !unicode.IsPrint(r), unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector), r == utf8.RuneError:
		default:
			b.WriteRune(r)
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// minSecret is how long a text must be to be looked for as a secret: what is
// shorter stands in every other word.
const minSecret = 4

// mask hides what must not be shown.
func (h hidden) mask(text string) string {
	secrets := slices.Clone(h.secrets)
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) }) // one may hold another
	for _, s := range secrets {
		if s = oneLine(s); len(s) >= minSecret {
			text = replace(text, s, func(_, _ rune) bool { return true })
		}
	}
	for _, name := range h.names {
		name = oneLine(name)
		parts := strings.Fields(name)
		if len(parts) > 1 {
			text = replace(text, name, betweenWords)
		}
		for _, part := range parts {
			if utf8.RuneCountInString(part) > 2 && !retrypolicy.InVocabulary(part) {
				text = replace(text, part, betweenWords)
			}
		}
	}
	for _, p := range patterns {
		text = p.like.ReplaceAllStringFunc(text, p.veil)
	}
	return text
}

// replace hides a text, whatever its case, where what stands before and behind it
// allows.
func replace(text, hide string, allows func(before, behind rune) bool) string {
	if !strings.Contains(strings.ToLower(text), strings.ToLower(hide)) { // nearly always
		return text
	}
	var out strings.Builder
	done := 0
	for _, at := range regexp.MustCompile("(?i)"+regexp.QuoteMeta(hide)).FindAllStringIndex(text, -1) {
		before, _ := utf8.DecodeLastRuneInString(text[:at[0]])
		behind, _ := utf8.DecodeRuneInString(text[at[1]:])
		if allows(before, behind) {
			out.WriteString(text[done:at[0]])
			out.WriteString(veil)
			done = at[1]
		}
	}
	out.WriteString(text[done:])
	return out.String()
}

func betweenWords(before, behind rune) bool {
	inWord := func(r rune) bool { return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r)) }
	return !inWord(before) && !inWord(behind)
}

// patterns are the looks of what is hidden whoever it belongs to.
var patterns = []struct {
	like *regexp.Regexp
	veil func(string) string
}{
	{regexp.MustCompile(`[^\s<>"',;:=(]+@[^\s<>"',;:)]+`), always},           // e-mail addresses
	{regexp.MustCompile(`eyJ[A-Za-z0-9_-]*(\.[A-Za-z0-9_-]*){0,2}`), always}, // JWTs
	{regexp.MustCompile(`(?i)(bearer|basic) +[A-Za-z0-9+/_=.~-]*[0-9+/_=.~-][A-Za-z0-9+/_=.~-]*`), always},
	{regexp.MustCompile(`(?i)(password|sandi|secret|signature|sign|key|pin|otp|cvv)["']? *[=:] *["']?[^\s"',;]*\p{Nd}[^\s"',;]*`), afterSign},
	{regexp.MustCompile(`[A-Za-z0-9+/_=-]{20,}`), random},
	{regexp.MustCompile(`[+(]*\p{Nd}([ ().,*/xX•-]*\p{Nd}){5,}`), numbers}, // phones, cards, accounts
}

func always(string) string { return veil }

// afterSign hides a value and leaves its name.
func afterSign(text string) string {
	at := strings.IndexAny(text, "=:")
	return text[:at+1] + " " + veil
}

// random hides the parts of a long run that no language has: keys, signatures,
// tokens. Those that are words stay: transaction_id_4711_already_exists.
func random(run string) string {
	parts := strings.FieldsFunc(run, func(r rune) bool { return r == '_' || r == '-' })
	if !slices.ContainsFunc(parts, func(part string) bool { return len(part) > 5 && !isWord(part) }) {
		return run
	}
	for i, part := range parts {
		if !isWord(part) {
			parts[i] = veil
		}
	}
	return strings.Join(slices.Compact(parts), "_")
}

// isWord reports whether a part of a run may be a word, or several in camel case.
func isWord(part string) bool {
	humps, small := 0, false
	for _, r := range part {
		if !unicode.IsLetter(r) {
			return false
		}
		if unicode.IsUpper(r) && small {
			humps++
		}
		small = unicode.IsLower(r)
	}
	return humps <= len(part)/5
}

// thousands is an amount as Indonesia and others write it, up to 99 million.
var thousands = regexp.MustCompile(`^[1-9][0-9]?([.,][0-9]{3}){1,2}([.,][0-9]{2})?$|^[1-9][0-9]{2}[.,][0-9]{3}([.,][0-9]{2})?$`)

// numbers hides a number, unless it is plainly an amount.
func numbers(number string) string {
	if thousands.MatchString(number) {
		return number
	}
	return veil
}

// hide is what must not be shown of the answer to a request: the sender's own
// secrets, and whatever the request's headers and the request itself name.
func (s *Sender) hide(r Request) hidden {
	h := hidden{secrets: slices.Clone(s.secrets), names: append(slices.Clone(s.names), r.Redact...)}
	for name, values := range r.Header {
		if name == "Accept" || name == "Content-Type" {
			continue
		}
		for _, value := range values {
			if value = strings.TrimPrefix(value, "Bearer "); len(value) > 5 { // CHANNEL-ID is no secret
				h.secrets = append(h.secrets, value)
			}
		}
	}
	return h
}

// quoted is a message within an error.
func quoted(message string) string {
	if message == "" {
		return ""
	}
	return fmt.Sprintf(" (it says %q)", message)
}
