package clients_test

import (
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"terbayar/internal/clients"
)

func readNumber(t testing.TB, raw string) clients.Number {
	t.Helper()
	var got struct{ V clients.Number }
	if err := json.Unmarshal([]byte(`{"v":`+raw+`}`), &got); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return got.V
}

func TestNumber(t *testing.T) {
	const unreadable, none = "unreadable", ""
	for _, row := range []struct{ json, want string }{
		{`13000`, "13000"},
		{`"13000"`, "13000"},
		{`13000.0`, "13000"},
		{`"13000.00"`, "13000"},
		{`1.3e4`, "13000"},
		{`"1.3E+4"`, "13000"},
		{`1300000e-2`, "13000"},
		{`"0013000"`, "13000"},
		{`"+13000"`, "13000"},
		{`" 13000 "`, "13000"},
		{`"13000.000"`, "13000"}, // five digits are not a group
		{`13000.5`, "13000.5"},
		{`"13000.50"`, "13000.5"},
		{`0`, "0"},
		{`-0.0`, "0"},
		{`0e999999999999999999999`, "0"},
		{`-1`, "-1"},
		{`13.000`, "13"}, // a JSON number has no groups
		{`13.125`, "13.125"},
		{`0.005`, "0.005"},
		{`99999999999999999999`, "99999999999999999999"},
		{`1e1000000`, "1e1000000"},
		{`10e1000000`, "1e1000001"},
		{`-1.5e-400`, "-15e-401"},
		{`1e-99999999999999999999`, "1e-1000000000"},

		{`null`, none},
		{`""`, none},
		{`" "`, unreadable},
		{`"13.000"`, unreadable}, // thirteen thousand or thirteen
		{`"-1.000"`, unreadable},
		{`"13.000.000"`, unreadable},
		{`"13,000"`, unreadable},
		{`"13,000.00"`, unreadable},
		{`"13.000,00"`, unreadable},
		{`"Rp 13.000"`, unreadable},
		{`"13000,-"`, unreadable},
		{`"13 000"`, unreadable},
		{`"1_000"`, unreadable},
		{`"0x10"`, unreadable},
		{`"Inf"`, unreadable},
		{`"NaN"`, unreadable},
		{`".5"`, unreadable},
		{`"5."`, unreadable},
		{`"1e"`, unreadable},
		{`"--1"`, unreadable},
		{`"１３"`, unreadable},
		{`true`, unreadable},
		{`false`, unreadable},
		{`{}`, unreadable},
		{`{"value":1}`, unreadable},
		{`[]`, unreadable},
		{`[13000]`, unreadable},
		{`1` + strings.Repeat("0", 64), unreadable}, // too long
	} {
		n := readNumber(t, row.json)
		got := n.String()
		if n.Unreadable() {
			got = unreadable + got
		}
		if got != row.want || n.Present() != (row.want != none) {
			t.Errorf("%s: %q, present %t; want %q", row.json, got, n.Present(), row.want)
		}
	}
}

func TestNumberAs(t *testing.T) {
	for _, row := range []struct {
		json   string
		int    int64
		whole  bool
		digits string
		float  float64
	}{
		{`"3.0"`, 3, true, "3", 3},
		{`-7`, -7, true, "", -7},
		{`0`, 0, true, "0", 0},
		{`9223372036854775807`, 1<<63 - 1, true, "9223372036854775807", 1 << 63},
		{`9223372036854775808`, 1<<63 - 1, false, "9223372036854775808", 1 << 63},
		{`3599.5`, 0, false, "", 3599.5},
		{`1e400`, 0, false, "", 0},
		{`"x"`, 0, false, "", 0},
		{`null`, 0, false, "", 0},
	} {
		n := readNumber(t, row.json)
		i, whole := n.Int()
		if whole != row.whole || whole && i != row.int || n.Digits() != row.digits || n.Float() != row.float {
			t.Errorf("%s: %d, %t, %q, %v", row.json, i, whole, n.Digits(), n.Float())
		}
	}
	if clients.WholeNumber(-13000) != readNumber(t, `"-1.3e4"`) {
		t.Error("equal values are different Numbers")
	}
}

// FuzzNumber: a number is read by its value or not at all, and its canonical form is read as
// the same number.
func FuzzNumber(f *testing.F) {
	for _, text := range []string{"13000", "1.3e4", "-0.50", "13.000", "1e1000000", "0e9", "00.100e-3", "1e-99999999999", "Rp 1", "", "1e+", "9.99e37"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		quoted, err := json.Marshal(text)
		if err != nil {
			return
		}
		n := readNumber(t, string(quoted))
		if len(n.String()) > 80 || n.Unreadable() && n.String() != "" || n.Present() != (text != "") {
			t.Errorf("%q: %+v", text, n)
		}
		if json.Valid([]byte(text)) && strings.Trim(text, "-+.eE0123456789") == "" && text != "" {
			if bare := readNumber(t, text); !n.Unreadable() && bare != n {
				t.Errorf("%s is %v, as a string %v", text, bare, n)
			} else {
				n = bare
			}
		}
		if n.Unreadable() || !n.Present() {
			return
		}
		if second := readNumber(t, n.String()); second != n {
			t.Errorf("%q is %s in canonical form, which is read as %s", text, n, second)
		}
		text = strings.Trim(text, " \t\r\n")
		if i := strings.IndexAny(text, "eE"); i >= 0 && len(text)-i > 5 {
			return // too large for big.Rat
		}
		want, ok := new(big.Rat).SetString(text)
		got, gotOK := new(big.Rat).SetString(n.String())
		if !ok || !gotOK || want.Cmp(got) != 0 {
			t.Errorf("%q is read as %s", text, n)
		}
	})
}
