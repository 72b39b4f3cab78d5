package docs

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/events"
	"terbayar/internal/intake"
	"terbayar/internal/order"
	"terbayar/internal/payment"
)

// tableFields returns the rows of a section's table by the names in their first cell.
func tableFields(text string) (names []string, rows map[string]string) {
	rows = map[string]string{}
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		first, rest, _ := strings.Cut(line[2:], " |")
		for _, name := range code(first) {
			names = append(names, name)
			rows[name] = rest
		}
	}
	return names, rows
}

// jsonFields returns the JSON names of a struct with their validation tags. Nested
// structs have the name of the field before a dot, slices of structs also "[]".
func jsonFields(typ reflect.Type, prefix string) (names []string, rules map[string]string) {
	rules = map[string]string{}
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		inner, path := f.Type, prefix+name
		if inner.Kind() == reflect.Slice && inner.Elem().Kind() == reflect.Struct {
			names, rules[path] = append(names, path), f.Tag.Get("validate")
			inner, path = inner.Elem(), path+"[]"
		}
		switch {
		case inner.PkgPath() != "" && inner.Kind() == reflect.Struct && inner.Name() != "Time":
			more, moreRules := jsonFields(inner, path+".")
			names = append(names, more...)
			for k, v := range moreRules {
				rules[k] = v
			}
		case inner == f.Type:
			names, rules[path] = append(names, path), f.Tag.Get("validate")
		}
	}
	return names, rules
}

// TestPaymentFields compares the tables of docs/payments.md with the fields and limits of the
// types that read and write them.
func TestPaymentFields(t *testing.T) {
	doc := read(t, "docs/payments.md")
	limit := regexp.MustCompile(`\bmax=(\d+)`)
	for heading, typ := range map[string]reflect.Type{
		"AM Digital Payment": reflect.TypeFor[order.AMDigiPay](),
		"Paydia":             reflect.TypeFor[order.Paydia](),
	} {
		want, rules := jsonFields(typ, "")
		got, rows := tableFields(section(t, doc, heading))
		if diff := cmp.Diff(sorted(want), sorted(got)); diff != "" {
			t.Errorf("%s: code -, document +\n%s", heading, diff)
		}
		for name, rule := range rules {
			optional := strings.Contains(rule, "omitempty")
			if row := rows[name]; optional != strings.Contains(row, "| no |") {
				t.Errorf("%s: %s is %q in code, %q in the document", heading, name, rule, row)
			}
			if m := limit.FindStringSubmatch(rule); m != nil && !strings.Contains(rows[name], m[1]) {
				t.Errorf("%s: the document does not name the limit %s of %s", heading, m[1], name)
			}
		}
	}

	status, _ := jsonFields(reflect.TypeFor[payment.Payment](), "")
	status = append(status, "archived_on") // enqueue status adds it
	event, _ := jsonFields(reflect.TypeFor[events.Event](), "")
	event = append(slices.DeleteFunc(event, func(name string) bool { return strings.HasPrefix(name, "data.") }), "data")
	answer, _ := jsonFields(reflect.TypeFor[intake.Answer](), "")
	answer = slices.DeleteFunc(answer, func(name string) bool { return strings.HasPrefix(name, "errors[].") })
	for heading, want := range map[string][]string{"Status": status, "Result events": event, "Answers": answer} {
		got, _ := tableFields(section(t, doc, heading))
		if diff := cmp.Diff(sorted(want), sorted(got)); diff != "" {
			t.Errorf("%s: code -, document +\n%s", heading, diff)
		}
	}
}

// TestPaymentExamples reads every example payment in the documents as "enqueue create" does.
func TestPaymentExamples(t *testing.T) {
	for _, file := range []string{"docs/payments.md", "README.md"} {
		n := 0
		for line := range strings.Lines(read(t, file)) {
			if !strings.HasPrefix(line, `{"gateway":`) {
				continue
			}
			n++
			_, err := order.Parse([]byte(line), beforeExamples, order.Defaults{MerchantID: "240327001000000"})
			if err != nil {
				t.Errorf("%s: %v in %s", file, err, line)
			}
		}
		if n < 2 {
			t.Errorf("%s has %d examples, want one for each gateway at least", file, n)
		}
	}
}

// beforeExamples is before every expired_date in the examples.
var beforeExamples = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
