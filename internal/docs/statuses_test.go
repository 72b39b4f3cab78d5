package docs

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"terbayar/internal/events"
	"terbayar/internal/payment"
	"terbayar/internal/retrypolicy"
)

// TestStatuses compares the statuses with the documents.
func TestStatuses(t *testing.T) {
	var want []string
	for _, s := range payment.Statuses() {
		want = append(want, string(s))
	}
	want = sorted(want)
	paragraph, _, _ := strings.Cut(section(t, read(t, "docs/interface.md"), "Payment status"), "\n\n`enqueue status")
	var got []string
	for _, word := range code(paragraph) {
		if word != "expired_date" { // a field of the order
			got = append(got, word)
		}
	}
	if got = sorted(got); !slices.Equal(got, want) {
		t.Errorf("docs/interface.md:\n got %v\nwant %v", got, want)
	}
	got = nil
	for _, row := range table(t, read(t, "docs/states.md"), `status \| event`) {
		name := code(row[0])[0]
		got = append(got, name)
		if event := strings.HasPrefix(row[1], "yes"); event != payment.Status(name).HasEvent() {
			t.Errorf("docs/states.md: %s has an event: %t", name, event)
		}
	}
	if got = sorted(got); !slices.Equal(got, want) {
		t.Errorf("docs/states.md:\n got %v\nwant %v", got, want)
	}
}

// TestActions compares the actions of the retry policy with the documents.
func TestActions(t *testing.T) {
	want := sorted(constants(t, "internal/retrypolicy", "Action", ""))
	for _, name := range []string{"docs/interface.md", "docs/retry-policy.md"} {
		var got []string
		for _, row := range table(t, read(t, name), `action \|`) {
			got = append(got, code(row[0])...)
		}
		if got = sorted(got); !slices.Equal(got, want) {
			t.Errorf("%s:\n got %v\nwant %v", name, got, want)
		}
	}
}

// TestClasses tries every action of the tables of classes, for every code in them, in a
// policy file.
func TestClasses(t *testing.T) {
	actions := constants(t, "internal/retrypolicy", "Action", "")
	known := map[string][]string{}
	allowed := func(g payment.Gateway, code string) []string {
		if all, ok := known[string(g)+code]; ok {
			return all
		}
		var all []string
		for _, action := range actions {
			if _, err := retrypolicy.Parse("p.yaml", fmt.Appendf(nil, "gateways: {%s: {rules: [{code: '%s', action: %s}]}}", g, code, action)); err == nil {
				all = append(all, action)
			}
		}
		known[string(g)+code] = sorted(all)
		return known[string(g)+code]
	}
	sevenDigits, prefix := regexp.MustCompile(`^[0-9x]{7}$`), regexp.MustCompile("(AM|Paydia|but|except|and)? ?`([^`]+)`")
	for _, name := range []string{"docs/interface.md", "docs/retry-policy.md"} {
		listed := map[string]bool{}
		compared := 0
		for _, row := range table(t, read(t, name), `class \| codes`) {
			want := sorted(code(row[2]))
			if strings.HasPrefix(row[2], "all but") {
				want = slices.DeleteFunc(sorted(actions), func(a string) bool { return slices.Contains(want, a) })
			}
			for _, m := range prefix.FindAllStringSubmatch(row[1], -1) {
				if slices.Contains([]string{"but", "except", "and"}, m[1]) {
					continue // an exception: the code is in another class
				}
				gateways := payment.Gateways()
				switch {
				case m[1] == "Paydia" || sevenDigits.MatchString(m[2]) || strings.HasPrefix(m[2], "token:"):
					gateways = []payment.Gateway{payment.Paydia}
				case m[1] == "AM" || m[2] == retrypolicy.CodeRefused:
					gateways = []payment.Gateway{payment.AMDigiPay}
				}
				for i, each := range strings.Fields(m[2]) {
					if i > 0 {
						each = "http:" + each
					}
					for _, g := range gateways {
						listed[string(g)+each] = true
						compared++
						if got := allowed(g, each); !slices.Equal(got, want) {
							t.Errorf("%s: %s %s allows %v, the code %v", name, g, each, want, got)
						}
					}
				}
			}
		}
		// A bare HTTP status that is not listed is of unknown outcome.
		for _, status := range []int{101, 200, 201, 202, 204, 301, 302, 307, 400, 401, 402, 403, 404, 405, 406, 408, 409, 410, 413, 415, 419, 422, 425, 429, 451, 499, 500, 502, 503, 504, 599} {
			each := retrypolicy.HTTPCode(status)
			for _, g := range payment.Gateways() {
				if got := allowed(g, each); !listed[string(g)+each] && !slices.Equal(got, []string{"review", "verify"}) {
					t.Errorf("%s: %s %s allows %v", name, g, each, got)
				}
			}
		}
		if compared < 30 {
			t.Errorf("%s: %d codes compared", name, compared)
		}
	}
}

// TestResults compares the results of enqueue create with the documents.
func TestResults(t *testing.T) {
	want := sorted(constants(t, "internal/intake", "Result", ""))
	_, text, _ := strings.Cut(read(t, "docs/interface.md"), "`result` is ")
	text, _, _ = strings.Cut(text, "Exit code")
	for _, result := range want {
		if !slices.Contains(code(text), result) {
			t.Errorf("docs/interface.md has no result %s", result)
		}
	}
	var readme []string
	for _, row := range table(t, read(t, "README.md"), `result \|`) {
		readme = append(readme, code(row[0])[0])
	}
	if got := sorted(readme); !slices.Equal(got, want) {
		t.Errorf("README.md:\n got %v\nwant %v", got, want)
	}
}

// jsonNames lists the JSON names of a struct's fields.
func jsonNames(value any) []string {
	var names []string
	for _, f := range reflect.VisibleFields(reflect.TypeOf(value)) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "-" { // it is not in the JSON
			names = append(names, name)
		}
	}
	return sorted(names)
}

// TestStatusFields compares the object of "enqueue status --json" with docs/interface.md.
func TestStatusFields(t *testing.T) {
	_, text, _ := strings.Cut(section(t, read(t, "docs/interface.md"), "Payment status"), "`enqueue status --json`: ")
	text, _, _ = strings.Cut(text, "Unknown payment")
	fields := sorted(append(jsonNames(payment.Payment{}), jsonNames(payment.Attempt{})...))
	others := append(constants(t, "internal/payment", "Kind", ""), "id", "referenceNo") // the gateways' own fields
	others = append(others, notBuilt(t)...)
	for _, name := range fields {
		if name != "reason" && !slices.Contains(code(text), name) { // reason: in "Operators"
			t.Errorf("docs/interface.md does not mention %s", name)
		}
	}
	for _, name := range code(text) {
		if !slices.Contains(fields, name) && !slices.Contains(others, name) {
			t.Errorf("a status has no %s", name)
		}
	}
}

// TestEventFields compares a result event with docs/interface.md.
func TestEventFields(t *testing.T) {
	p := payment.Payment{Gateway: payment.AMDigiPay, TransactionID: "INV-1", Status: payment.Paid, Amount: 1, UpdatedAt: time.Now()}
	text, err := events.Marshal(&p, 1)
	if err != nil {
		t.Fatal(err)
	}
	var event map[string]any
	if err := json.Unmarshal(text, &event); err != nil {
		t.Fatal(err)
	}
	documented := code(section(t, read(t, "docs/interface.md"), "Result events"))
	for name := range event {
		if name != "specversion" && name != "datacontenttype" && !slices.Contains(documented, name) { // those are CloudEvents' own
			t.Errorf("docs/interface.md does not mention %s", name)
		}
	}
	for name, want := range map[string]string{"source": "terbayar/<gateway>", "type": "terbayar.payment.<status>", "id": "<gateway>:<transaction_id>:<n>:<status>"} {
		form := strings.NewReplacer("<gateway>", "amdigipay", "<status>", "paid", "<transaction_id>", "INV-1", "<n>", "1").Replace(want)
		if event[name] != form || !slices.Contains(documented, want) {
			t.Errorf("%s is %v, want %s", name, event[name], want)
		}
	}
}
