package terminal_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"terbayar/internal/terminal"
)

func TestSafe(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"Terbayar", "Terbayar"},
		{`a\u001b "q" \`, `a\u001b "q" \`},
		{"Café 支付 №5 😀 👨\u200d👩 ශ්\u200dරී", "Café 支付 №5 😀 👨\u200d👩 ශ්\u200dරී"},
		{"no-break\u00a0space", "no-break\u00a0space"},
		{"\x1b]0;title\x07", `\u001b]0;title\u0007`},
		{"a\nb\tc\rd\x00\x7f", `a\u000ab\u0009c\u000dd\u0000\u007f`},
		{"\u009b2J", `\u009b2J`},
		{"\x9b2J", `\x9b2J`},
		{"cut \xe2\x80", `cut \xe2\x80`},
		{"gpj.\u202eexe\u2066\u200e\u061c", `gpj.\u202eexe\u2066\u200e\u061c`},
		{"a\u2028b\u2029c", `a\u2028b\u2029c`},
		{"a\u200bb\ufeffc\u00add", `a\u200bb\ufeffc\u00add`},
		{"\U000e0041", `\udb40\udc41`},
		{"\ufffd", `\ufffd`},
		{"\uf8ff", `\uf8ff`},
	} {
		if got := terminal.Safe(c.in); got != c.want {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
	}
}

func TestJSON(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`{"a":[1,2.50,"x"]}`, `{"a":[1,2.50,"x"]}`},
		{"{\n \"a\" : \"<&>\"\r\n}", `{"a":"<&>"}`},
		{"{\"a\":\"\u009b2J \u202e \x7f \U000e0041 é 😀\"}", `{"a":"\u009b2J \u202e \u007f \udb40\udc41 é 😀"}`},
		{`{"a":"\u001b"}`, `{"a":"\u001b"}`},
		{"\x1b[2J\nno JSON", `"\u001b[2J\nno JSON"`},
		{"{\"a\":\"\x9b\"}", `{"a":"\ufffd"}`},
	} {
		if got := string(terminal.JSON([]byte(c.in))); got != c.want {
			t.Errorf("%q: %s, want %s", c.in, got, c.want)
		}
	}
}

func FuzzTerminal(f *testing.F) {
	for _, seed := range []string{"{\"a\u202e\":\"\u009b\U000e0041\"}", "\x1b[2J", "\x9b", `"\u001b\ud83d\ude00"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		line := string(terminal.JSON([]byte(in)))
		for _, out := range []string{terminal.Safe(in), line} {
			if strings.ContainsFunc(out, func(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Bidi_Control) }) {
				t.Fatalf("%q gave %q", in, out)
			}
		}
		var before, after any
		if err := json.Unmarshal([]byte(line), &after); err != nil {
			t.Fatalf("%q gave %q: %v", in, line, err)
		}
		if json.Unmarshal([]byte(in), &before) == nil && !reflect.DeepEqual(before, after) {
			t.Fatalf("%q gave %q", in, line)
		}
	})
}
