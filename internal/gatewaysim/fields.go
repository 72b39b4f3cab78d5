package gatewaysim

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// fields reads one JSON object strictly: members by their exact names, texts as
// texts, numbers as whole numbers, nothing given twice, valid UTF-8. What is
// wrong is collected, in the order of reading.
type fields struct {
	prefix  string // of the names in wrong, e.g. "amount."
	members map[string]jsontext.Value
	unread  map[string]bool
	wrong   *[]wrongField
}

// wrongField is a member that is missing, or not of the form it must have.
type wrongField struct {
	name    string
	missing bool
}

// readFields opens an object; false when the text is not one.
func readFields(text []byte) (*fields, bool) {
	members := map[string]jsontext.Value{}
	if err := json.Unmarshal(text, &members); err != nil || members == nil {
		return nil, false
	}
	return newFields("", members, &[]wrongField{}), true
}

func newFields(prefix string, members map[string]jsontext.Value, wrong *[]wrongField) *fields {
	f := &fields{prefix: prefix, members: members, unread: map[string]bool{}, wrong: wrong}
	for name := range members {
		f.unread[name] = true
	}
	return f
}

func (f *fields) missing(name string) {
	*f.wrong = append(*f.wrong, wrongField{f.prefix + name, true})
}

func (f *fields) malformed(name string) {
	*f.wrong = append(*f.wrong, wrongField{f.prefix + name, false})
}

// take reads a member of a kind of JSON value. An absent or null member is
// missing, unless it may be.
func (f *fields) take(name string, kind jsontext.Kind, optional bool) (jsontext.Value, bool) {
	delete(f.unread, name)
	value, ok := f.members[name]
	switch {
	case !ok || value.Kind() == 'n':
		if !optional {
			f.missing(name)
		}
		return nil, false
	case value.Kind() != kind:
		f.malformed(name)
		return nil, false
	}
	return value, true
}

// text reads a text of at most limit characters that must not be empty.
func (f *fields) text(name string, limit int) string {
	s, ok := f.anyText(name, limit, false)
	if ok && s == "" {
		f.missing(name)
	}
	return s
}

// optionalText reads a text that may be absent, null or empty.
func (f *fields) optionalText(name string, limit int) string {
	s, _ := f.anyText(name, limit, true)
	return s
}

func (f *fields) anyText(name string, limit int, optional bool) (string, bool) {
	value, ok := f.take(name, '"', optional)
	if !ok {
		return "", false
	}
	s := unquote(value)
	if utf8.RuneCountInString(s) > limit {
		f.malformed(name)
		return s, false
	}
	return s, true
}

// whole reads a whole number that is not negative.
func (f *fields) whole(name string) int64 {
	value, ok := f.take(name, '0', false)
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil || n < 0 {
		f.malformed(name)
	}
	return n
}

// object reads a member that is an object itself.
func (f *fields) object(name string) *fields {
	value, ok := f.take(name, '{', false)
	members := map[string]jsontext.Value{}
	if ok {
		_ = json.Unmarshal(value, &members) // it is part of a text that was valid
	}
	return newFields(f.prefix+name+".", members, f.wrong)
}

// objects reads a member that is a list of objects, of which there must be one
// at least.
func (f *fields) objects(name string) []*fields {
	value, ok := f.take(name, '[', false)
	if !ok {
		return nil
	}
	var list []map[string]jsontext.Value
	if err := json.Unmarshal(value, &list); err != nil || len(list) == 0 {
		f.malformed(name)
		return nil
	}
	all := make([]*fields, len(list))
	for i, members := range list {
		all[i] = newFields(f.prefix+name+"."+strconv.Itoa(i)+".", members, f.wrong)
	}
	return all
}

// strangers are the members that nobody read, by name.
func (f *fields) strangers() []string { return slices.Sorted(maps.Keys(f.unread)) }

// plain is a member's value as text, whatever its kind: what goes into an HMAC
// over fields.
func (f *fields) plain(name string) string {
	value := f.members[name]
	if value.Kind() == '"' {
		return unquote(value)
	}
	return string(value)
}

func unquote(value jsontext.Value) string {
	var s string
	_ = json.Unmarshal(value, &s) // it is part of a text that was valid
	return s
}

// referenceIn finds the payment that a request names, before anything is
// checked, so that a fault can be aimed at it.
func referenceIn(op Operation, payload []byte) string {
	name := map[Operation]string{
		AMCreate: "transaction_id", PaydiaPayment: "partnerReferenceNo", PaydiaQuery: "originalPartnerReferenceNo",
	}[op]
	if f, ok := readFields(payload); ok && name != "" && f.members[name].Kind() == '"' {
		return f.plain(name)
	}
	return ""
}

// noteWrong keeps what is wrong with a body as violations.
func (x *exchange) noteWrong(wrong []wrongField) {
	for _, w := range wrong {
		if w.missing {
			x.violation("field %s is missing or empty", w.name)
		} else {
			x.violation("field %s is malformed", w.name)
		}
	}
}

// isDigits reports whether s is between low and high ASCII digits.
func isDigits(s string, low, high int) bool {
	return len(s) >= low && len(s) <= high && strings.Trim(s, "0123456789") == ""
}
