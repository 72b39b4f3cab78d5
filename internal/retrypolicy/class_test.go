package retrypolicy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"terbayar/internal/payment"
)

// safeActions is the table of classes of docs/interface.md, row by row. A code in no row
// has an unknown outcome. The letters are the allowed actions, see actionLetters.
var safeActions = []struct {
	gateway payment.Gateway
	codes   string
	allowed string
}{
	{am, "http:200", "A V R"},
	{am, "error:true", "T L V J R"},
	{am, "net:unsent http:401 http:403 http:404 http:405 http:429", "T L V R"},
	{am, "http:400 http:413 http:415 http:422", "T L V J R"},
	{paydia63, "2006300 2007300 2006400", "A V R"},
	{paydia63, "net:unsent token:undecryptable http:401 http:403 http:404 http:405 http:429", "T L V R"},
	{paydia63, "4016300 4016301 4016303 4016305 4016399 4017300 4296300 4296301 4296399", "T L V R"},
	{paydia63, "http:400 http:413 http:415 http:422 4016302 4016304 4017402 4017404", "T L V J R"},
	{paydia63, "4006300 4006301 4006302 4006400 4056300 4056301", "T L V J R"},
	{paydia63, "4036300 4036301 4036302 4036303 4036304 4036305 4036306 4036307 4036308 4036309 4036310 4036311", "T L V J R"},
	{paydia63, "4036312 4036313 4036314 4036315 4036316 4036317 4036318 4036319 4036320 4036321 4036322 4036323", "T L V J R"},
	{paydia63, "4046300 4046302 4046303 4046304 4046305 4046306 4046307 4046308 4046309 4046310 4046311 4046312", "T L V J R"},
	{paydia63, "4046313 4046315 4046316 4046317 4046319", "T L V J R"},
	// Listed as unknown outcome, or not listed.
	{paydia63, "2026300 2026399 4096300 4096301 4096399 5006300 5006301 5046300 5996399 4046301 4046314 4046318", "V R"},
	{paydia63, "2006301 4006303 4036324 4046320 4056302 3006300 0000000 9999999 4026300 4106300", "V R"},
	{am, "net:unknown body:unreadable http:201 http:202 http:204 http:302 http:402 http:406 http:408 http:409 http:410 http:419 http:500 http:503 http:000", "V R"},
	{paydia63, "net:unknown body:unreadable http:200 http:202 http:302 http:402 http:408 http:409 http:500 http:503", "V R"},
}

var actionLetters = map[Action]string{Accept: "A", Retry: "T", RefreshToken: "L", Verify: "V", Reject: "J", Review: "R"}

// TestActionsAllowedByClass parses an override for every code and action.
func TestActionsAllowedByClass(t *testing.T) {
	for _, row := range safeActions {
		for code := range strings.FieldsSeq(row.codes) {
			for _, action := range actions {
				for _, extra := range []string{"", ", match: x"} {
					_, err := Parse("p.yaml", fmt.Appendf(nil, "gateways: {%s: {rules: [{code: '%s', action: %s%s}]}}", row.gateway, code, action, extra))
					if want := strings.Contains(row.allowed, actionLetters[action]); (err == nil) != want {
						t.Errorf("%s %s %s%s: %v, want allowed: %t", row.gateway, code, action, extra, err, want)
					}
					if err != nil && (!strings.HasPrefix(err.Error(), "p.yaml:1: ") || !strings.Contains(err.Error(), code)) {
						t.Errorf("error %q, want it to name the line and the code", err)
					}
				}
				if strings.HasPrefix(code, "net:") || strings.HasPrefix(code, "body:") || strings.HasPrefix(code, "token:") {
					continue
				}
				_, err := Parse("p.yaml", fmt.Appendf(nil,
					"gateways: {%s: {rules: [{code: '%s', action: %s, vendor_confirms: 'support, 2026-11-02: it is safe'}]}}", row.gateway, code, action))
				if err != nil {
					t.Errorf("%s %s %s with vendor_confirms: %v", row.gateway, code, action, err)
				}
			}
		}
	}
}

// TestBuiltinRulesAreSafe checks the built-in decision for every possible code.
func TestBuiltinRulesAreSafe(t *testing.T) {
	messages := []string{"", "duplicate", "token expired", "invalid signature", "invalid password", "timeout", "X-TIMESTAMP", "anything"}
	for _, g := range payment.Gateways() {
		patterns := []string{"http:xxx", CodeUnsent, CodeUnknown, CodeUnreadable, CodeRefused}
		if g == payment.Paydia {
			patterns = append(patterns[:4], "xxxxxxx")
		}
		for _, pattern := range patterns {
			for code := range codesOf(pattern) {
				allowed := classOf(g, code).allowed
				for _, message := range messages {
					if r := builtinPolicy.rule(g, code, message); !slices.Contains(allowed, r.Action) {
						t.Errorf("%s %s %q: %s by rule %s, not allowed for class %s", g, code, message, r.Action, r.Code, classOf(g, code).name)
					}
					if message == "" && code[0] != '4' && !strings.HasPrefix(code, "http:4") {
						break // no rule with a match matches
					}
				}
			}
		}
	}
	for _, r := range Builtin().Rules() {
		if code, safe, ok := checkSafe(r.Gateway, r.Code, r.Action); !ok {
			t.Errorf("%s %s %s is not safe for %s: want one of %v", r.Gateway, r.Code, r.Action, code, safe)
		}
	}
}

// builtinPolicy saves the test above one policy per code.
var builtinPolicy = Builtin()

// TestClassDoesNotDependOnService justifies that codesOf yields the codes of one service.
func TestClassDoesNotDependOnService(t *testing.T) {
	for range 2000 {
		digits := fmt.Sprintf("%07d", rand.N(10_000_000))
		other := digits[:3] + "63" + digits[5:]
		if a, b := classOf(paydia63, digits), classOf(paydia63, other); a.name != b.name {
			t.Errorf("%s is %s, %s is %s", digits, a.name, other, b.name)
		}
	}
}

// TestActionsAllowedForPatterns: an action is allowed for a pattern if it is allowed for
// every code that matches the pattern.
func TestActionsAllowedForPatterns(t *testing.T) {
	for _, row := range []struct {
		gateway payment.Gateway
		pattern string
		allowed string
	}{
		{paydia63, "xxxxxxx", "V R"},
		{paydia63, "2xxxxxx", "V R"},
		{paydia63, "200xx00", "A V R"},
		{paydia63, "20063xx", "V R"},
		{paydia63, "2x06300", "V R"},
		{paydia63, "4xxxxxx", "V R"},
		{paydia63, "401xxxx", "T L V R"},
		{paydia63, "401xx0x", "T L V R"},
		{paydia63, "401xx02", "T L V J R"},
		{paydia63, "403xx1x", "T L V J R"},
		{paydia63, "403xx2x", "V R"}, // 24 to 29 are not listed
		{paydia63, "403xxxx", "V R"},
		{paydia63, "404xx0x", "V R"},
		{paydia63, "404630x", "V R"},
		{paydia63, "405xx0x", "V R"},
		{paydia63, "429xxxx", "T L V R"},
		{paydia63, "4x96300", "V R"},
		{paydia63, "5xxxx0x", "V R"},
		{paydia63, "http:4xx", "V R"},
		{paydia63, "http:40x", "V R"},
		{am, "http:xxx", "V R"},
		{am, "http:2xx", "V R"},
		{am, "http:20x", "V R"},
		{am, "http:x00", "V R"},
		{am, "http:4xx", "V R"},
		{am, "http:42x", "V R"},
		{am, "error:true", "T L V J R"},
	} {
		_, safe, _ := checkSafe(row.gateway, row.pattern, Review)
		for _, action := range actions {
			if got := slices.Contains(safe, action); got != strings.Contains(row.allowed, actionLetters[action]) {
				t.Errorf("%s %s: %s allowed: %t, want only %s", row.gateway, row.pattern, action, got, row.allowed)
			}
		}
	}
}

func TestCheck(t *testing.T) {
	for _, row := range []struct {
		verify string
		want   string
	}{
		{`settle: 1ns, lookups: 1, then: review`, ""}, // review sends nothing
		{`settle: 30s, lookups: 2, then: retry, vendor_confirms: "Paydia, 2026-11-02, by mail"`, ""},
		{`then: retry, vendor_confirms: "Paydia, 2026-11-02, by mail"`, ""},
		{
			`settle: 29s, then: retry, vendor_confirms: "Paydia, 2026-11-02, by mail"`,
			"p.yaml:1: gateways.paydia.verify.settle: 29s is too short for then: retry (GATEWAY_TIMEOUT is 15s: want at least twice that, 30s)",
		},
		{
			`settle: 1ns, lookups: 2, then: retry, vendor_confirms: "Paydia, 2026-11-02, by mail"`,
			"p.yaml:1: gateways.paydia.verify.settle: 1ns is too short for then: retry (GATEWAY_TIMEOUT is 15s: want at least twice that, 30s)",
		},
	} {
		p, err := Parse("p.yaml", fmt.Appendf(nil, "gateways: {paydia: {verify: {%s}}}", row.verify))
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := p.Check(15 * time.Second); err != nil {
			got = err.Error()
		}
		if got != row.want {
			t.Errorf("%s:\n got %s\nwant %s", row.verify, got, row.want)
		}
	}
	if err := Builtin().Check(time.Minute); err != nil {
		t.Error(err)
	}
}

func TestVendorConfirmed(t *testing.T) {
	p, err := Parse("p.yaml", []byte(`
gateways:
  paydia:
    verify: {then: retry, vendor_confirms: "Paydia support, 2026-11-02, no request is processed after 60 s"}
    rules:
      - {code: "403xx2x", action: reject, vendor_confirms: "Paydia support, 2026-11-03, none of these is processed"}
      - {code: "http:409", match: "(?i)busy", action: retry, vendor_confirms: "Paydia support, 2026-11-03, ticket 4711"}
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range p.VendorConfirmed() {
		got = append(got, c.String())
	}
	want := []string{
		`paydia http:409 with match "(?i)busy": retry (p.yaml:7), the vendor confirms: Paydia support, 2026-11-03, ticket 4711`,
		`paydia 403xx2x: reject (p.yaml:6), the vendor confirms: Paydia support, 2026-11-03, none of these is processed`,
		`paydia verify, then: retry (p.yaml:4), the vendor confirms: Paydia support, 2026-11-02, no request is processed after 60 s`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	var out strings.Builder
	if err := WriteTable(&out, p); err != nil {
		t.Fatal(err)
	}
	for _, line := range append(want, "(?i)busy") {
		if !strings.Contains(out.String(), line) {
			t.Errorf("not in the table: %s", line)
		}
	}
	if d := p.Decide(paydia63, "4036325", "", 1, 0); d.Action != Reject {
		t.Errorf("%s, want reject", d.Action)
	}
	if got := Builtin().VendorConfirmed(); got != nil {
		t.Errorf("built in: %v", got)
	}
}
