package order

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-playground/validator/v10"

	"terbayar/internal/payment"
)

// field is a field of a struct that is parsed from JSON.
type field struct {
	name       string // in JSON
	optional   bool   // the conditions do not apply to an empty value
	conditions []condition
}

// structFields are the fields of all structs that are parsed from JSON, in order. The tags are
// read once: it would take longer than to parse a payment.
var structFields = map[reflect.Type][]field{}

func init() {
	for _, t := range []reflect.Type{
		reflect.TypeFor[envelope](), reflect.TypeFor[AMDigiPay](), reflect.TypeFor[Item](), reflect.TypeFor[Paydia](), reflect.TypeFor[Amount](),
	} {
		for i := range t.NumField() {
			structFields[t] = append(structFields[t], newField(t.Field(i)))
		}
	}
}

// newField returns a field. Its tag "validate" lists its conditions.
func newField(of reflect.StructField) field {
	var f field
	f.name, _, _ = strings.Cut(of.Tag.Get("json"), ",")
	for tag := range strings.SplitSeq(of.Tag.Get("validate"), ",") {
		switch tag {
		case "":
		case "omitempty":
			f.optional = true
		default:
			f.conditions = append(f.conditions, newCondition(tag, of.Type.Kind()))
		}
	}
	return f
}

// problem returns what is wrong with the field's value, or "": the first condition that does not
// hold.
func (f *field) problem(v reflect.Value) string {
	if f.optional && v.IsZero() {
		return ""
	}
	for _, condition := range f.conditions {
		if problem := condition(v); problem != "" {
			return problem
		}
	}
	return ""
}

// condition returns what is wrong with a value, or "".
type condition func(reflect.Value) string

// newCondition returns a condition of a validate tag, for fields of a kind. A tag may have a
// parameter: "max=255".
func newCondition(tag string, kind reflect.Kind) condition {
	name, param, _ := strings.Cut(tag, "=")
	limit, err := strconv.ParseInt(param, 10, 64)
	switch {
	case name == "id":
		return ofString(idProblem)
	case name == "text":
		return ofString(textProblem)
	case name == "date":
		return ofString(dateProblem)
	case name == "rupiah":
		return ofString(amountProblem)
	case name == "email":
		return ofString(emailProblem)
	case name == "eq":
		return require(func(v reflect.Value) bool { return v.String() == param }, "must be "+param)
	case name == "required":
		return require(func(v reflect.Value) bool { return v.Len() > 0 }, "is missing or empty")
	case err != nil: // the other conditions need a number
	case name == "min" && kind == reflect.Slice:
		return require(func(v reflect.Value) bool { return int64(v.Len()) >= limit }, "must not be empty")
	case name == "max" && kind == reflect.Slice:
		return require(func(v reflect.Value) bool { return int64(v.Len()) <= limit }, "has more than "+param+" entries")
	case name == "max":
		return require(func(v reflect.Value) bool { return int64(utf8.RuneCountInString(v.String())) <= limit }, "is longer than "+param+" characters")
	case name == "gt":
		return require(func(v reflect.Value) bool { return v.Int() > limit }, "is required and must be greater than "+param)
	case name == "gte":
		return require(func(v reflect.Value) bool { return v.Int() >= limit }, "must be at least "+param)
	case name == "lte":
		return require(func(v reflect.Value) bool { return v.Int() <= limit }, "must be at most "+param)
	}
	panic(fmt.Sprintf("order: malformed condition %q", tag))
}

// ofString returns a condition for strings.
func ofString(problem func(string) string) condition {
	return func(v reflect.Value) string { return problem(v.String()) }
}

// require returns a condition with one text for all values that are not ok.
func require(ok func(reflect.Value) bool, problem string) condition {
	return func(v reflect.Value) string {
		if ok(v) {
			return ""
		}
		return problem
	}
}

// dateProblem requires the form of AM's example, "2026-05-21 18:23:10". Go's parser accepts
// more (fractions of a second, a one-digit hour), so the date is formatted again and
// compared.
func dateProblem(s string) string {
	t, err := time.ParseInLocation(time.DateTime, s, payment.Jakarta)
	if err != nil || string(t.AppendFormat(make([]byte, 0, 32), time.DateTime)) != s {
		return "must be a date of the form YYYY-MM-DD HH:mm:ss (Jakarta time)"
	}
	return ""
}

// amountProblem requires the form of SNAP's example, "10000.00".
func amountProblem(s string) string {
	if amount, err := payment.ParseDecimal(s); err != nil || !amount.Valid() || amount.Decimal() != s {
		return "must be a whole amount of rupiah with two decimals, such as 10000.00"
	}
	return ""
}

var emails = validator.New()

// emailProblem returns what is wrong with an e-mail address, or "".
func emailProblem(s string) string {
	if !plainEmail(s) && emails.Var(s, "email") != nil {
		return "must be an e-mail address"
	}
	return ""
}

// plainEmail reports whether s is an e-mail address of the most common form: words of ASCII
// letters, digits and inner hyphens, separated by periods and one @. The validator would need a
// fifth of Parse's time for it.
func plainEmail(s string) bool {
	local, domain, _ := strings.Cut(s, "@")
	for word := range strings.SplitSeq(local, ".") {
		if !plainWord(word) {
			return false
		}
	}
	words, last := 0, ""
	for last = range strings.SplitSeq(domain, ".") {
		if !plainWord(last) {
			return false
		}
		words++
	}
	return words > 1 && letter(last[0]) && letter(last[len(last)-1])
}

// plainWord reports whether s is a word of a plainEmail.
func plainWord(s string) bool {
	for i := range len(s) {
		if !letter(s[i]) && (s[i] < '0' || s[i] > '9') && (s[i] != '-' || i == 0 || i == len(s)-1) {
			return false
		}
	}
	return s != ""
}

func letter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
