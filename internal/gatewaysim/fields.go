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

// fields reads the members of one JSON object strictly: exact names, strings only as
// strings, numbers only as whole numbers, no duplicate names, valid UTF-8. It collects the
// members that are wrong, in the order of reading.
type fields struct {
	prefix  string // of the names in wrong, e.g. "amount."
	members map[string]jsontext.Value
	unread  map[string]bool
	wrong   *[]wrongField
}

// wrongField is a member that is missing or malformed.
type wrongField struct {
	name    string
	missing bool
}

// readFields parses an object; it returns false if the text is not a JSON object.
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

// member returns a member that must have the kind. If it is absent or null, and not
// optional, it is recorded as missing.
func (f *fields) member(name string, kind jsontext.Kind, optional bool) (jsontext.Value, bool) {
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

// text returns a string that must be present, not empty, and at most limit characters long.
func (f *fields) text(name string, limit int) string {
	s, ok := f.anyText(name, limit, false)
	if ok && s == "" {
		f.missing(name)
	}
	return s
}

// optionalText returns a string that may be absent, null or empty.
func (f *fields) optionalText(name string, limit int) string {
	s, _ := f.anyText(name, limit, true)
	return s
}

func (f *fields) anyText(name string, limit int, optional bool) (string, bool) {
	value, ok := f.member(name, '"', optional)
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

// number returns a whole number that must not be negative.
func (f *fields) number(name string) int64 {
	value, ok := f.member(name, '0', false)
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil || n < 0 {
		f.malformed(name)
	}
	return n
}

// object returns the fields of a member that is an object.
func (f *fields) object(name string) *fields {
	value, ok := f.member(name, '{', false)
	members := map[string]jsontext.Value{}
	if ok {
		_ = json.Unmarshal(value, &members) // cannot fail: the whole text was parsed
	}
	return newFields(f.prefix+name+".", members, f.wrong)
}

// objects returns the fields of each object of a list; the list must not be empty.
func (f *fields) objects(name string) []*fields {
	value, ok := f.member(name, '[', false)
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

// unknown returns the names of the members that were not read, sorted.
func (f *fields) unknown() []string { return slices.Sorted(maps.Keys(f.unread)) }

// asText returns a member's value as text: a string without its quotes, any other value as
// in the JSON. AM's HMAC is computed over such texts.
func (f *fields) asText(name string) string {
	value := f.members[name]
	if value.Kind() == '"' {
		return unquote(value)
	}
	return string(value)
}

func unquote(value jsontext.Value) string {
	var s string
	_ = json.Unmarshal(value, &s) // cannot fail: the whole text was parsed
	return s
}

// referenceIn returns the payment's reference in a request body that is not checked yet, so
// that a fault rule can match it; "" if there is none.
func referenceIn(op Operation, payload []byte) string {
	name := map[Operation]string{
		AMCreate: "transaction_id", PaydiaPayment: "partnerReferenceNo", PaydiaQuery: "originalPartnerReferenceNo",
	}[op]
	if f, ok := readFields(payload); ok && name != "" && f.members[name].Kind() == '"' {
		return f.asText(name)
	}
	return ""
}

// addFieldViolations records a violation for each wrong field.
func (x *exchange) addFieldViolations(wrong []wrongField) {
	for _, w := range wrong {
		if w.missing {
			x.violation("field %s is missing or empty", w.name)
		} else {
			x.violation("field %s is malformed", w.name)
		}
	}
}

// isDigits reports whether s consists of low to high ASCII digits.
func isDigits(s string, low, high int) bool {
	return len(s) >= low && len(s) <= high && strings.Trim(s, "0123456789") == ""
}
