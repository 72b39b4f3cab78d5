package retrypolicy

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/payment"
)

// example is the policy file in docs/interface.md.
const example = `gateways:
  paydia:
    verify: {settle: 2m, lookups: 3, then: review}
    rules:
      - code: "5006301"          # exact, or x for any digit: "5xxxx0x"
        action: verify
        backoff: {type: exponential, base: 5s, cap: 10m, jitter: 10%}
        max_attempts: 12
  amdigipay:
    rules:
      - code: "http:500"
        action: verify
`

func TestExample(t *testing.T) {
	path := filepath.Join(t.TempDir(), "retry-policy.yaml")
	if err := os.WriteFile(path, []byte(example), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	want := []Rule{
		{
			Gateway: am, Code: "http:500", Action: Verify, Schedule: lookups,
			Meaning: "server error: may have been processed", Source: path + ":11",
		},
		{
			Gateway: paydia63, Code: "5006301", Action: Verify,
			Schedule: Schedule{Backoff: Backoff{Exponential, 5 * time.Second, 10 * time.Minute, 10}, MaxAttempts: 12},
			Meaning:  "internal server error: may have been processed", Source: path + ":5",
		},
	}
	var got []Rule
	for _, r := range p.Rules() {
		if r.Source != BuiltIn {
			got = append(got, r)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Verification{2 * time.Minute, 3, Review, path + ":3", ""}, p.Verify(paydia63)); diff != "" {
		t.Error(diff)
	}
	// The override of 5006301 replaces a built-in rule. That of http:500 is added before
	// http:5xx, which stays.
	if got, want := len(p.Rules()), len(Builtin().Rules())+1; got != want {
		t.Errorf("%d rules, want %d", got, want)
	}
}

// TestInherited parses overrides that leave out parts of the schedule.
func TestInherited(t *testing.T) {
	for _, row := range []struct {
		rule string
		want string
	}{
		{`action: retry`, "exponential 2s..2m +/-20%, 100"},
		{`action: verify`, "exponential 5s..10m +/-10%, 24"},
		{`action: refresh_token`, "exponential 1s..1m +/-20%, 8"},
		{`action: review`, "at once, 0"},
		{`action: retry, max_attempts: 3`, "exponential 2s..2m +/-20%, 3"},
		{`action: retry, backoff: {base: 5m}`, "exponential 5m..5m +/-20%, 100"},
		{`action: retry, backoff: {cap: 3s, jitter: 0%}`, "exponential 2s..3s, 100"},
		{`action: verify, backoff: {type: constant, base: 1m}`, "constant 1m +/-10%, 24"},
		{`action: verify, backoff: {type: fibonacci, base: 1500ms, cap: 1h, jitter: 100%}`, "fibonacci 1.5s..1h +/-100%, 24"},
		{`action: refresh_token, backoff: {base: 1s}, max_attempts: 4`, "exponential 1s..1m +/-20%, 4"},
	} {
		p, err := Parse("p.yaml", []byte("gateways: {paydia: {rules: [{code: 4036304, "+row.rule+"}]}}"))
		if err != nil {
			t.Errorf("%s: %v", row.rule, err)
			continue
		}
		r := p.rule(paydia63, "4036304", "")
		if got := r.Backoff.String() + ", " + strconv.Itoa(r.MaxAttempts); got != row.want {
			t.Errorf("%s: %s, want %s", row.rule, got, row.want)
		}
	}
}

func TestVerifyOverride(t *testing.T) {
	p, err := Parse("p.yaml", []byte(`gateways: {amdigipay: {verify: {then: retry, lookups: 5, vendor_confirms: "AM support, 2026-11-02,  by mail"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Verification{2 * time.Minute, 5, Retry, "p.yaml:1", "AM support, 2026-11-02, by mail"}, p.Verify(am)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Builtin().Verify(paydia63), p.Verify(paydia63)); diff != "" {
		t.Error(diff)
	}
}

func TestEmptyDocuments(t *testing.T) {
	for _, doc := range []string{"", "# nothing yet\n", "---\n", "gateways: {}\n", "null"} {
		p, err := Parse("p.yaml", []byte(doc))
		if err != nil {
			t.Errorf("%q: %v", doc, err)
			continue
		}
		if diff := cmp.Diff(Builtin().Rules(), p.Rules()); diff != "" {
			t.Errorf("%q: %s", doc, diff)
		}
	}
}

// TestParseErrors: every error names the file, the line, the path of the field and the value.
func TestParseErrors(t *testing.T) {
	const paydia = "gateways:\n  paydia:\n    rules:\n      - "
	for _, row := range []struct{ doc, want string }{
		{paydia + "code: '4006301'\n        action: verfiy", `p.yaml:5: gateways.paydia.rules[0].action: unknown action "verfiy" (want accept, retry, refresh_token, verify, reject, review)`},
		{paydia + "code: '40063'\n        action: review", `p.yaml:4: gateways.paydia.rules[0].code: malformed code "40063" (want 7 digits or http:NNN, both with x for any digit, net:unsent, net:unknown, body:unreadable or token:undecryptable)`},
		{paydia + "{code: '400630X', action: review}", `p.yaml:4: gateways.paydia.rules[0].code: malformed code "400630X" (want 7 digits`},
		{paydia + "{code: 'error:true', action: review}", `p.yaml:4: gateways.paydia.rules[0].code: malformed code "error:true"`},
		{paydia + "{code: 'net:odd', action: review}", `p.yaml:4: gateways.paydia.rules[0].code: malformed code "net:odd"`},
		{"gateways: {amdigipay: {rules: [{code: 4006301, action: review}]}}", `p.yaml:1: gateways.amdigipay.rules[0].code: malformed code "4006301" (want http:NNN with x`},
		{paydia + "{code: '4006301', action: review}\n      - {code: '4006301', action: retry}", `p.yaml:5: gateways.paydia.rules[1].code: duplicate rule for "4006301" (the first: p.yaml:4)`},
		{paydia + "{action: review}", `p.yaml:4: gateways.paydia.rules[0]: code is missing`},
		{paydia + "{code: '4006301'}", `p.yaml:4: gateways.paydia.rules[0]: action is missing`},
		{paydia + "{code: '4006301', action: review, bakcoff: 3}", `p.yaml:4: gateways.paydia.rules[0]: unknown key "bakcoff" (want code, match, action, backoff, max_attempts, max_elapsed, vendor_confirms)`},
		{paydia + "{code: '4006301', action: review, action: review}", `p.yaml:4: gateways.paydia.rules[0]: duplicate key "action"`},
		{paydia + "{code: [1], action: review}", `p.yaml:4: gateways.paydia.rules[0].code: want a single value`},
		{paydia + "just text", `p.yaml:4: gateways.paydia.rules[0]: want a mapping with code, match, action`},
		{paydia + "{code: '4006301', action: retry, max_attempts: -1}", `p.yaml:4: gateways.paydia.rules[0].max_attempts: "-1" is not a whole number from 1 to 10000`},
		{paydia + "{code: '4006301', action: retry, max_attempts: 0}", `p.yaml:4: gateways.paydia.rules[0].max_attempts: "0" is not a whole number`},
		{paydia + "{code: '4006301', action: retry, max_attempts: many}", `p.yaml:4: gateways.paydia.rules[0].max_attempts: "many" is not a whole number`},
		{paydia + "{code: '4006301', action: retry, max_elapsed: soon}", `p.yaml:4: gateways.paydia.rules[0].max_elapsed: "soon" is not a positive duration`},
		{paydia + "{code: '2006300', action: accept, max_elapsed: 1h}", `p.yaml:4: gateways.paydia.rules[0].max_elapsed: not allowed for action accept, which is not repeated`},
		{paydia + "{code: '4006301', action: review, max_attempts: 3}", `p.yaml:4: gateways.paydia.rules[0].max_attempts: not allowed for action review, which is not repeated`},
		{paydia + "{code: '2006300', action: accept, backoff: {base: 3s}}", `p.yaml:4: gateways.paydia.rules[0].backoff: not allowed for action accept, which is not repeated`},
		{paydia + "{code: '4006301', action: retry, backoff: 3s}", `p.yaml:4: gateways.paydia.rules[0].backoff: want a mapping with type, base, cap, jitter`},
		{paydia + "{code: '4006301', action: retry, backoff: {typ: constant}}", `p.yaml:4: gateways.paydia.rules[0].backoff: unknown key "typ"`},
		{paydia + "{code: '4006301', action: retry, backoff: {type: linear}}", `p.yaml:4: gateways.paydia.rules[0].backoff.type: unknown type "linear" (want constant, exponential, fibonacci)`},
		{paydia + "{code: '4006301', action: retry, backoff: {base: fast}}", `p.yaml:4: gateways.paydia.rules[0].backoff.base: "fast" is not a positive duration (want e.g. 5s, 10m)`},
		{paydia + "{code: '4006301', action: retry, backoff: {base: 5}}", `p.yaml:4: gateways.paydia.rules[0].backoff.base: "5" is not a positive duration`},
		{paydia + "{code: '4006301', action: retry, backoff: {base: 0s}}", `p.yaml:4: gateways.paydia.rules[0].backoff.base: "0s" is not a positive duration`},
		{paydia + "{code: '4006301', action: retry, backoff: {cap: -1s}}", `p.yaml:4: gateways.paydia.rules[0].backoff.cap: "-1s" is not a positive duration`},
		{paydia + "{code: '4006301', action: retry, backoff: {base: 5m, cap: 10s}}", `p.yaml:4: gateways.paydia.rules[0].backoff.cap: 10s is less than the base 5m`},
		{paydia + "{code: '4006301', action: retry, backoff: {jitter: 10}}", `p.yaml:4: gateways.paydia.rules[0].backoff.jitter: "10" is not a percentage (want 0% to 100%)`},
		{paydia + "{code: '4006301', action: retry, backoff: {jitter: 101%}}", `p.yaml:4: gateways.paydia.rules[0].backoff.jitter: "101%" is not a percentage`},
		{paydia + "{code: '4006301', action: retry, backoff: {jitter: -1%}}", `p.yaml:4: gateways.paydia.rules[0].backoff.jitter: "-1%" is not a percentage`},
		{"gateways: {paydia: {rules: {}}}", `p.yaml:1: gateways.paydia.rules: want a list of rules`},
		{"gateways: {paydia: {rulez: []}}", `p.yaml:1: gateways.paydia: unknown key "rulez" (want verify, rules)`},
		{"gateways:\n  dana: {}", `p.yaml:2: gateways: unknown key "dana" (want amdigipay, paydia)`},
		{"gateways: 3", `p.yaml:1: gateways: want a mapping with amdigipay, paydia`},
		{"gatways: {}", `p.yaml:1: unknown key "gatways" (want gateways)`},
		{"[]", `p.yaml:1: want a mapping with gateways`},
		{"gateways: {paydia: {verify: {settle: soon}}}", `p.yaml:1: gateways.paydia.verify.settle: "soon" is not a positive duration`},
		{"gateways: {paydia: {verify: {lookups: 0}}}", `p.yaml:1: gateways.paydia.verify.lookups: "0" is not a whole number from 1 to 10000`},
		{"gateways: {paydia: {verify: {then: reject}}}", `p.yaml:1: gateways.paydia.verify.then: unknown action "reject" (want retry, review)`},
		{"gateways: {paydia: {verify: {after: 3}}}", `p.yaml:1: gateways.paydia.verify: unknown key "after" (want settle, lookups, then, vendor_confirms)`},
		{paydia + "{code: 'http:400', match: '(', action: review}", `p.yaml:4: gateways.paydia.rules[0].match: "(" is not a regular expression: missing closing )`},
		{paydia + "{code: 'http:400', match: '', action: review}", `p.yaml:4: gateways.paydia.rules[0].match: is empty`},
		{paydia + "{code: 'http:400', match: \"a\\eb\", action: review}", `p.yaml:4: gateways.paydia.rules[0].match: "a\x1bb" has unprintable characters`},
		{paydia + "{code: 'http:400', match: [a], action: review}", `p.yaml:4: gateways.paydia.rules[0].match: want a single value`},
		{paydia + "{code: 'http:400', match: a, action: review}\n      - {code: 'http:400', match: a, action: verify}", `p.yaml:5: gateways.paydia.rules[1].code: duplicate rule for "http:400" with match "a" (the first: p.yaml:4)`},
		{paydia + "{code: '2006300', action: reject, vendor_confirms: yes}", `p.yaml:4: gateways.paydia.rules[0].vendor_confirms: "yes" does not name who confirmed it, when, and what they said (want "<who, when, what they said>")`},
		{paydia + "{code: '2006300', action: reject, vendor_confirms: ' '}", `p.yaml:4: gateways.paydia.rules[0].vendor_confirms: " " does not name`},
		{paydia + "{code: '2006300', action: reject, vendor_confirms: '<who, when, what they said>'}", `p.yaml:4: gateways.paydia.rules[0].vendor_confirms: "<who, when`},
		{paydia + "{code: '2006300', action: reject, vendor_confirms: '2026 11 02'}", `p.yaml:4: gateways.paydia.rules[0].vendor_confirms: "2026 11 02" does not name`},
		{paydia + "{code: 'net:unknown', action: retry, vendor_confirms: 'Paydia support, 2026-11-02'}", `p.yaml:4: gateways.paydia.rules[0].vendor_confirms: not allowed for net:unknown`},
		{paydia + "{code: 'body:unreadable', action: verify, vendor_confirms: 'Paydia support, 2026-11-02'}", `p.yaml:4: gateways.paydia.rules[0].vendor_confirms: not allowed for body:unreadable`},
		{paydia + "code: net:unknown\n        action: retry", `p.yaml:5: gateways.paydia.rules[0].action: retry is not safe for net:unknown (outcome unknown): allowed for "net:unknown": verify, review`},
		{paydia + "{code: '2006300', action: reject}", `p.yaml:4: gateways.paydia.rules[0].action: reject is not safe for 2006300 (success): allowed for "2006300": accept, verify, review, or vendor_confirms: "<who, when, what they said>"`},
		{paydia + "{code: xxxxxxx, action: retry}", `p.yaml:4: gateways.paydia.rules[0].action: retry is not safe for 0006300, which "xxxxxxx" covers (outcome unknown): allowed for "xxxxxxx": verify, review, or`},
		{paydia + "{code: 401xxxx, action: reject}", `p.yaml:4: gateways.paydia.rules[0].action: reject is not safe for 4016300, which "401xxxx" covers (refusal of ourselves): allowed for "401xxxx": retry, refresh_token, verify, review, or`},
		{"gateways: {amdigipay: {rules: [{code: 'error:true', match: a, action: accept}]}}", `p.yaml:1: gateways.amdigipay.rules[0].action: accept is not safe for error:true (refusal of the order): allowed for "error:true": retry, refresh_token, verify, reject, review, or`},
		{"gateways: {amdigipay: {rules: [{code: 'http:xxx', action: retry}]}}", `p.yaml:1: gateways.amdigipay.rules[0].action: retry is not safe for http:000, which "http:xxx" covers (outcome unknown)`},
		{"gateways: {amdigipay: {rules: [{code: 'http:20x', action: accept}]}}", `p.yaml:1: gateways.amdigipay.rules[0].action: accept is not safe for http:201, which`},
		{"gateways: {amdigipay: {verify: {settle: 1ns, lookups: 1, then: retry}}}", `p.yaml:1: gateways.amdigipay.verify.lookups: 1 is too few for then: retry (want at least 2)`},
		{"gateways: {paydia: {verify: {settle: 10m, lookups: 9, then: retry}}}", `p.yaml:1: gateways.paydia.verify.then: retry sends a money-moving request again: it needs settle of at least two GATEWAY_TIMEOUTs, lookups of at least 2, and vendor_confirms`},
		{"gateways: {paydia: {verify: {then: retry, vendor_confirms: ''}}}", `p.yaml:1: gateways.paydia.verify.vendor_confirms: "" does not name`},
		{"gateways: {}\n---\ngateways: {}", `p.yaml:2: a second YAML document (want one)`},
		{"gateways: {}\nother", `p.yaml:`},
		{"\x00", `p.yaml: yaml: control characters are not allowed`},
	} {
		_, err := Parse("p.yaml", []byte(row.doc))
		if err == nil || !strings.HasPrefix(err.Error(), row.want) {
			t.Errorf("%s\n got %v\nwant %s", row.doc, err, row.want)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("more than one line: %q", err)
		}
	}
}

func TestLoad(t *testing.T) {
	if p, err := Load(""); err != nil || !cmp.Equal(p.Rules(), Builtin().Rules()) {
		t.Errorf("no file: %v", err)
	}
	if _, err := Load("/no/such/policy.yaml"); err == nil || !strings.Contains(err.Error(), "/no/such/policy.yaml") {
		t.Errorf("missing file: %v", err)
	}
}

func TestWriteTable(t *testing.T) {
	p, err := Parse("retry-policy.yaml", []byte(example))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := WriteTable(&out, p); err != nil {
		t.Fatal(err)
	}
	lines := make(map[string]bool)
	for line := range strings.Lines(out.String()) {
		lines[strings.Join(strings.Fields(line), " ")] = true
	}
	for _, want := range []string{
		"| GATEWAY | CODE | MATCH | ACTION | BACKOFF | MAX ATTEMPTS | SOURCE | MEANING |",
		"| amdigipay | http:200 | | accept | | | built-in | success |",
		"| amdigipay | http:500 | | verify | exponential 5s..10m +/-10% | 24 | retry-policy.yaml:11 | server error: may have been processed |",
		"| paydia | 5006301 | | verify | exponential 5s..10m +/-10% | 12 | retry-policy.yaml:5 | internal server error: may have been processed |",
		"| paydia | 4016301 | | refresh_token | exponential 1s..1m +/-20% | 8 | built-in | invalid token (B2B) |",
		"| paydia | net:unsent | | retry | exponential 1s..5m +/-20% | 100 | built-in | failed before the first byte was sent |",
		"| amdigipay | 2m | 3 | review | built-in |",
		"| paydia | 2m | 3 | review | retry-policy.yaml:3 |",
		"| amdigipay | error:true | <token> | refresh_token | exponential 1s..1m +/-20% | 8 | built-in | access token expired or invalid, by the message |",
		"row: verify (exponential 5s..10m +/-10%, max attempts 24), because the payment may have",
	} {
		if !lines[want] {
			t.Errorf("missing line %s in\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Error("the table has colours, want plain text")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte("gateways: {paydia: {verify: {settle: 1s, then: retry}}}"))
	f.Add([]byte("gateways: &g {paydia: &p {rules: [{code: http:5xx, action: review}]}, amdigipay: *p}"))
	f.Add([]byte(`gateways: {amdigipay: {rules: [{code: "error:true", match: "(?i)limit|[a-z]+", action: reject}, {code: http:2xx, action: retry, vendor_confirms: "AM, 2026-11-02, by mail"}]}}`))
	f.Add([]byte("gateways: {paydia: {rules: [{code: 403xxxx, action: retry, backoff: {type: fibonacci, base: 2562047h, cap: 2562047h, jitter: 100%}, max_attempts: 10000}]}}"))
	f.Add([]byte("gateways: *g"))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		p, err := Parse("p.yaml", doc)
		if err != nil {
			if strings.Contains(err.Error(), "\n") || !strings.HasPrefix(err.Error(), "p.yaml:") {
				t.Errorf("error %q, want one line that names the file", err)
			}
			return
		}
		// Every policy that parses decides without a panic and is safe.
		for _, g := range payment.Gateways() {
			for _, code := range []string{"2006300", "5006301", "http:500", CodeUnsent, CodeRefused} {
				if d := p.Decide(g, code, "", 3, 0); d.Action == "" || d.Delay < 0 {
					t.Errorf("%s: %+v", code, d)
				}
			}
			for _, r := range p.Rules() {
				if _, _, ok := checkSafe(r.Gateway, r.Code, r.Action); !ok && r.VendorConfirms == "" {
					t.Errorf("unsafe: %+v", r)
				}
			}
			if c := p.Verify(g); c.Then == Retry && (c.Lookups < 2 || c.VendorConfirms == "") || c.Lookups < 1 || c.Settle <= 0 || (c.Then != Retry && c.Then != Review) {
				t.Errorf("%+v", c)
			}
		}
	})
}
