package intake_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/intake"
)

func TestRead(t *testing.T) {
	long := strings.Repeat("x", 1<<20+1)
	for _, c := range []struct {
		name, in string
		want     []string
	}{
		{"nothing", "", nil},
		{"one object", `{"a":1}`, []string{`1 {"a":1}`}},
		{"one object over lines", "{\n \"a\":\n 1}\n", []string{"1 {\n \"a\":\n 1}"}},
		{"NDJSON, blank lines counted", "{\"a\":1}\n\n \n{\"b\":2}\r\n", []string{`1 {"a":1}`, `4 {"b":2}`}},
		{"broken first line", "{\"a\":\n{\"b\":2}\n", []string{`1 {"a":`, `2 {"b":2}`}},
		{"broken line", "{\"a\":1}\n{\"b\n{\"c\":3}", []string{`1 {"a":1}`, `2 {"b`, `3 {"c":3}`}},
		{"byte order mark", "\ufeff{\"a\":1}", []string{`1 {"a":1}`}},
		{"too long", "{\"a\":1}\n" + long + "\n{\"c\":3}", []string{`1 {"a":1}`, "2 longer than 1048576 bytes", `3 {"c":3}`}},
		{"too long at the end", "{\"a\":1}\n" + long, []string{`1 {"a":1}`, "2 longer than 1048576 bytes"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			lines := make(chan intake.Line)
			done := make(chan error, 1)
			go func() { done <- intake.Read(strings.NewReader(c.in), lines) }()
			var got []string
			for l := range lines {
				text := strings.TrimSpace(string(l.Text))
				if l.Err != nil {
					text = l.Err.Error()
				}
				got = append(got, fmt.Sprint(l.Number, " ", text))
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
