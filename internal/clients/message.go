package clients

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"terbayar/internal/retrypolicy"
)

const (
	maxMessage   = 150      // runes of a message
	maxErrorBody = 64 << 10 // bytes: a longer body is a list or a web page without a message
	maxPlainText = 1 << 10  // bytes of a body that is plain text
	mask         = "***"
)

// redactor redacts gateway messages: its secrets and names, and everything that looks like a
// number, an e-mail address or a key.
type redactor struct {
	secrets []string // redacted anywhere
	names   []string // redacted as whole words: customer data, our user names
}

// message returns the gateway's message in the body of an answer: redacted, cut, on one line.
// It is "" if the body has none, like a web page.
func (r redactor) message(body []byte) string {
	text := oneLine(messageText(body))
	if text == "" {
		return ""
	}
	text = r.redact(text) // before the cut, which could leave a part of a secret
	if utf8.RuneCountInString(text) > maxMessage {
		text = strings.TrimSpace(string([]rune(text)[:maxMessage-3])) + "..."
	}
	return text
}

// messageText returns the message texts in a body, joined: AM's message, or its error if that
// is a text (token_expired); the errors by field of a failed Laravel validation; SNAP's
// responseMessage; OAuth's error_description. A short body that is neither JSON nor HTML is
// itself the message.
func messageText(body []byte) string {
	if len(body) > maxErrorBody || !utf8.Valid(body) {
		return ""
	}
	var m messageReader
	if jsonv2.Unmarshal(body, &m, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) != nil {
		if text := strings.TrimSpace(string(body)); len(text) <= maxPlainText && !strings.ContainsAny(text, "<>{}[]") {
			return text
		}
		return ""
	}
	var distinct []string
	for _, t := range m.texts() {
		if t != "" && !slices.ContainsFunc(distinct, func(earlier string) bool { return strings.Contains(earlier, t) }) {
			distinct = append(distinct, t)
		}
	}
	return strings.Join(distinct, "; ")
}

// messageFields are the fields in which gateways, frameworks and proxies describe an error,
// in lower case without _ and -.
var messageFields = []string{
	"responsemessage", "message", "msg", "errormessage", "pesan", "error", "errors", "errordescription",
	"errorcode", "code", "detail", "details", "description", "reason", "statusmessage", "title", "status",
}

// messageFieldsOfData is how many of them, from the first, are also read in data. The others
// are fields of the payment there.
const messageFieldsOfData = 8

// outcomeWords are values of these fields that describe no error. In the field message they
// are kept.
var outcomeWords = []string{"true", "false", "error", "success", "failed", "fail", "ok", "null"}

// messageReader reads the texts in the messageFields of an answer. It skips all other fields,
// which are most of an answer.
type messageReader struct {
	text      string // of an answer that is only a string
	top, data []messageField
}

// messageField is one of the messageFields in an answer.
type messageField struct {
	number int    // in messageFields
	name   string // as the gateway spells it
	texts  []string
}

// UnmarshalJSONFrom implements jsonv2.UnmarshalerFrom.
func (m *messageReader) UnmarshalJSONFrom(dec *jsontext.Decoder) (err error) {
	switch dec.PeekKind() {
	case '"':
		m.text, err = readString(dec)
		return err
	case '{':
		m.top, err = readFields(dec, messageFields, &m.data)
		return err
	default:
		return dec.SkipValue()
	}
}

// readFields reads the given fields of an object. If data is not nil, it receives the fields of
// the object in the field data.
func readFields(dec *jsontext.Decoder, fields []string, data *[]messageField) (found []messageField, err error) {
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	for dec.PeekKind() == '"' {
		name, err := readName(dec)
		if err != nil {
			return nil, err
		}
		number := fieldNumber(name, fields)
		switch {
		case number >= 0:
			f := messageField{number: number, name: string(name)}
			f.texts, err = readTexts(dec)
			found = putField(found, f)
		case data != nil && string(name) == "data":
			if *data = nil; dec.PeekKind() == '{' {
				*data, err = readFields(dec, fields[:messageFieldsOfData], nil)
			} else {
				err = dec.SkipValue()
			}
		default:
			err = dec.SkipValue()
		}
		if err != nil {
			return nil, err
		}
	}
	_, err = dec.ReadToken()
	return found, err
}

// readName reads the name of a field. It is valid until the next read.
func readName(dec *jsontext.Decoder) ([]byte, error) {
	quoted, err := dec.ReadValue()
	switch {
	case err != nil:
		return nil, err
	case bytes.IndexByte(quoted, '\\') >= 0:
		name, _ := jsontext.AppendUnquote(nil, quoted) // an unpaired surrogate becomes U+FFFD
		return name, nil
	default:
		return quoted[1 : len(quoted)-1], nil
	}
}

// fieldNumber returns which of the fields a name is, in any case and with _ and -; -1 if it is
// none.
func fieldNumber(name []byte, fields []string) int {
	var plain [16]byte // the longest has 16 characters
	n := 0
	for _, c := range name {
		if c == '_' || c == '-' {
			continue
		}
		if n == len(plain) {
			return -1
		}
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		plain[n] = c
		n++
	}
	return slices.Index(fields, string(plain[:n]))
}

// putField adds a field. Of two spellings of one name, the last in alphabetical order counts.
func putField(fields []messageField, f messageField) []messageField {
	for i, other := range fields {
		if other.number == f.number {
			if f.name >= other.name {
				fields[i] = f
			}
			return fields
		}
	}
	return append(fields, f)
}

func readString(dec *jsontext.Decoder) (string, error) {
	token, err := dec.ReadToken()
	if err != nil {
		return "", err
	}
	return token.String(), nil
}

// readTexts reads a value and returns the texts in it, see leaves.
func readTexts(dec *jsontext.Decoder) ([]string, error) {
	switch dec.PeekKind() {
	case '"':
		text, err := readString(dec)
		return []string{strings.TrimSpace(text)}, err
	case '{', '[':
		raw, err := dec.ReadValue()
		if err != nil {
			return nil, err
		}
		var value any
		err = json.Unmarshal(raw, &value)
		return leaves(value, 0), err
	default:
		return nil, dec.SkipValue()
	}
}

// texts returns the texts that were read, in the order of messageFields.
func (m *messageReader) texts() (texts []string) {
	if m.text != "" {
		return []string{m.text}
	}
	for _, object := range [][]messageField{m.top, m.data} {
		slices.SortFunc(object, func(a, b messageField) int { return a.number - b.number })
		for _, f := range object {
			for _, t := range f.texts {
				if messageFields[f.number] != "message" && slices.Contains(outcomeWords, strings.ToLower(t)) || !strings.ContainsFunc(t, unicode.IsLetter) {
					continue
				}
				texts = append(texts, t)
			}
		}
	}
	return texts
}

// maxDepth is the maximum nesting of the texts in one field.
const maxDepth = 4

// leaves returns the texts in a value, each after the names of the fields around it:
// {"signature":["is invalid"]} gives "signature: is invalid".
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
				if !slices.Contains(messageFields, strings.ToLower(name)) {
					text = name + ": " + text
				}
				texts = append(texts, text)
			}
		}
	}
	return texts
}

// oneLine replaces every run of white space with one space and drops invisible characters:
// they could hide a secret from redaction, or control a terminal.
func oneLine(text string) string {
	if isOneLine(text) {
		return text
	}
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

// isOneLine reports whether a text is of ASCII characters that oneLine keeps, which nearly every
// text is.
func isOneLine(text string) bool {
	space := true // so that the first character must not be one
	for i := range len(text) {
		c := text[i]
		if c < ' ' || c > '~' || c == ' ' && space {
			return false
		}
		space = c == ' '
	}
	return !space || text == ""
}

// minSecret is the minimum length of a secret that is redacted. A shorter one would occur in
// ordinary words.
const minSecret = 4

// redact replaces everything to redact with mask.
func (r redactor) redact(text string) string {
	secrets := slices.Clone(r.secrets)
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) }) // longest first: one may contain another
	for _, s := range secrets {
		if s = oneLine(s); len(s) >= minSecret {
			text = replace(text, s, func(_, _ rune) bool { return true })
		}
	}
	for _, name := range r.names {
		name = oneLine(name)
		parts := strings.Fields(name)
		if len(parts) > 1 {
			text = replace(text, name, wholeWord)
		}
		for _, part := range parts {
			if utf8.RuneCountInString(part) > 2 && !retrypolicy.IsMatchWord(part) {
				text = replace(text, part, wholeWord)
			}
		}
	}
	for _, p := range patterns {
		if p.possible(text) {
			text = p.pattern.ReplaceAllStringFunc(text, p.replacement)
		}
	}
	return text
}

// replace replaces a part of a text with mask, ignoring case, where the characters before and
// after it allow that.
func replace(text, part string, allowed func(before, after rune) bool) string {
	// Nearly always the part does not occur. Most secrets are longer than a message.
	if utf8.RuneCountInString(part) > utf8.RuneCountInString(text) || !strings.Contains(strings.ToLower(text), strings.ToLower(part)) {
		return text
	}
	var out strings.Builder
	done := 0
	for _, at := range regexp.MustCompile("(?i)"+regexp.QuoteMeta(part)).FindAllStringIndex(text, -1) {
		before, _ := utf8.DecodeLastRuneInString(text[:at[0]])
		after, _ := utf8.DecodeRuneInString(text[at[1]:])
		if allowed(before, after) {
			out.WriteString(text[done:at[0]])
			out.WriteString(mask)
			done = at[1]
		}
	}
	out.WriteString(text[done:])
	return out.String()
}

// wholeWord reports whether the characters around a part are no letters or digits.
func wholeWord(before, after rune) bool {
	inWord := func(r rune) bool { return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r)) }
	return !inWord(before) && !inWord(after)
}

// patterns describe secrets and customer data that are redacted in every message. Most messages
// are short and plain, so that no pattern is possible; checking that costs much less than to
// search for it.
var patterns = []struct {
	pattern     *regexp.Regexp
	possible    func(text string) bool
	replacement func(string) string
}{
	{regexp.MustCompile(`[^\s<>"',;:=(]+@[^\s<>"',;:)]+`), has("@"), redactAll},           // e-mail addresses
	{regexp.MustCompile(`eyJ[A-Za-z0-9_-]*(\.[A-Za-z0-9_-]*){0,2}`), has("J"), redactAll}, // JWTs
	{regexp.MustCompile(`(?i)(bearer|basic) +[A-Za-z0-9+/_=.~-]*[0-9+/_=.~-][A-Za-z0-9+/_=.~-]*`), has("0123456789+/_=.~-"), redactAll},
	{regexp.MustCompile(`(?i)(password|sandi|secret|signature|sign|key|pin|otp|cvv)["']? *[=:] *["']?[^\s"',;]*\p{Nd}[^\s"',;]*`), has("=:"), redactValue},
	{regexp.MustCompile(`[A-Za-z0-9+/_=-]{20,}`), func(text string) bool { return len(text) >= 20 }, redactKeys},
	{regexp.MustCompile(`[+(]*\p{Nd}([ ().,*/xX•-]*\p{Nd}){5,}`), hasDigit, redactNumber}, // phones, cards, accounts
}

// has returns a function that reports whether a text contains one of the characters.
func has(characters string) func(string) bool {
	return func(text string) bool { return strings.ContainsAny(text, characters) }
}

func hasDigit(text string) bool { return strings.ContainsFunc(text, unicode.IsDigit) }

func redactAll(string) string { return mask }

// redactValue redacts a value and keeps its name.
func redactValue(text string) string {
	at := strings.IndexAny(text, "=:")
	return text[:at+1] + " " + mask
}

// redactKeys redacts the parts of a long run that are not words: keys, signatures, tokens. It
// keeps a run such as transaction_id_4711_already_exists.
func redactKeys(run string) string {
	parts := strings.FieldsFunc(run, func(r rune) bool { return r == '_' || r == '-' })
	if !slices.ContainsFunc(parts, func(part string) bool { return len(part) > 5 && !isWord(part) }) {
		return run
	}
	for i, part := range parts {
		if !isWord(part) {
			parts[i] = mask
		}
	}
	return strings.Join(slices.Compact(parts), "_")
}

// isWord reports whether a part of a run may be a word, or several words in camel case.
func isWord(part string) bool {
	capitals, small := 0, false
	for _, r := range part {
		if !unicode.IsLetter(r) {
			return false
		}
		if unicode.IsUpper(r) && small {
			capitals++
		}
		small = unicode.IsLower(r)
	}
	return capitals <= len(part)/5
}

// thousands matches an amount with separators, in Indonesian or English format, up to 99
// million.
var thousands = regexp.MustCompile(`^[1-9][0-9]?([.,][0-9]{3}){1,2}([.,][0-9]{2})?$|^[1-9][0-9]{2}[.,][0-9]{3}([.,][0-9]{2})?$`)

// redactNumber redacts a number unless it is clearly an amount.
func redactNumber(number string) string {
	if thousands.MatchString(number) {
		return number
	}
	return mask
}

// redactor returns the redactor for the answer to a request. It redacts the secrets of the
// sender, those in the headers of the request, and its customer data.
func (s *Sender) redactor(r Request) redactor {
	red := redactor{secrets: make([]string, 0, len(s.secrets)+len(r.Header)), names: slices.Concat(s.names, r.Redact)}
	red.secrets = append(red.secrets, s.secrets...)
	for name, values := range r.Header {
		if name == "Accept" || name == "Content-Type" {
			continue
		}
		for _, value := range values {
			if value = strings.TrimPrefix(value, "Bearer "); len(value) > 5 { // longer than CHANNEL-ID, which is no secret
				red.secrets = append(red.secrets, value)
			}
		}
	}
	return red
}

// quoted returns a message as the end of an error text.
func quoted(message string) string {
	if message == "" {
		return ""
	}
	return fmt.Sprintf(" (message %q)", message)
}
