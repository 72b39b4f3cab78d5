package clients

import (
	"encoding/json"
	"testing"
)

func TestScalar(t *testing.T) {
	for _, row := range []struct {
		json string
		want Scalar
	}{
		{`"13000"`, "13000"},
		{`13000.00`, "13000.00"},
		{`null`, ""},
		{`""`, ""},
		{`true`, "true"},
		{`{"a":1}`, `{"a":1}`},
		{`"caf\u00e9 & <b>"`, "café & <b>"},
	} {
		if got := read[Scalar](t, row.json); got != row.want {
			t.Errorf("%s: %q, want %q", row.json, got, row.want)
		}
	}
}

func TestText(t *testing.T) {
	for _, row := range []struct {
		json string
		want Text
	}{
		{`"Terbayar"`, "Terbayar"},
		{`8808000000000012345`, "8808000000000012345"},
		{`null`, ""},
		{`""`, ""},
		{`false`, ""},
		{`true`, ""},
		{`[]`, ""},
		{`{"url":"x"}`, ""},
	} {
		if got := read[Text](t, row.json); got != row.want {
			t.Errorf("%s: %q, want %q", row.json, got, row.want)
		}
	}
}

func TestIdentifier(t *testing.T) {
	for _, row := range []struct {
		json string
		want Identifier
	}{
		{`"INV-1"`, Identifier{Text: "INV-1"}},
		{`"1e3"`, Identifier{Text: "1e3"}},
		{`"01001"`, Identifier{Text: "01001"}},
		{`1001`, Identifier{Text: "1001", Unquoted: true}},
		{`null`, Identifier{}},
		{`""`, Identifier{}},
		{`1e3`, Identifier{Unreadable: true}},
		{`1001.0`, Identifier{Unreadable: true}},
		{`-1`, Identifier{Unreadable: true}},
		{`true`, Identifier{Unreadable: true}},
		{`{}`, Identifier{Unreadable: true}},
		{`["INV-1"]`, Identifier{Unreadable: true}},
	} {
		if got := read[Identifier](t, row.json); got != row.want {
			t.Errorf("%s: %+v, want %+v", row.json, got, row.want)
		}
	}
}

func TestFlag(t *testing.T) {
	for _, row := range []struct {
		want Flag
		json []string
	}{
		{False, []string{`false`, `"false"`, `"False"`, `0`, `"0"`, `0.0`, `-0`}},
		{True, []string{`true`, `"true"`, `"TRUE"`, `1`, `"1"`, `1.0`, `1e0`}},
		{Unset, []string{`null`, `""`}},
		{invalid, []string{`2`, `-1`, `"no"`, `"none"`, `[]`, `{}`, `["true"]`, `" "`, `"null"`, `"invalid"`}},
	} {
		for _, text := range row.json {
			if got := read[Flag](t, text); got != row.want {
				t.Errorf("%s: %q, want %q", text, got, row.want)
			}
		}
	}
}

// read decodes a member of an object as a T.
func read[T any](t *testing.T, raw string) T {
	t.Helper()
	var got struct{ V T }
	if err := json.Unmarshal([]byte(`{"v":`+raw+`}`), &got); err != nil {
		t.Errorf("%s: %v", raw, err)
	}
	return got.V
}

func TestEncodeJSON(t *testing.T) {
	got, err := EncodeJSON(map[string]string{"title": "a/b & <c> é"})
	if want := `{"title":"a/b & <c> é"}`; err != nil || string(got) != want {
		t.Errorf("%s (%v), want %s", got, err, want)
	}
}
