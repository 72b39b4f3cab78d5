package retrypolicy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/payment"
)

const am, paydia63 = payment.AMDigiPay, payment.Paydia

// TestBuiltinActions checks the built-in policy code by code against docs/gateways.md:
// sections 2.6 (Paydia's page), 3.1 (SNAP in general) and 1.4 (AM). That the policy has a
// rule for every code of that document is checked in internal/clients.
func TestBuiltinActions(t *testing.T) {
	for _, row := range []struct {
		gateway payment.Gateway
		action  Action
		codes   string
	}{
		// The eleven codes of Paydia's Auth Payment page.
		{paydia63, Accept, "2006300"},
		{paydia63, Reject, "4006301 4006302 4036302 4036314 4046308"},
		{paydia63, Review, "4016300"},
		{paydia63, RefreshToken, "4016301"},
		{paydia63, Verify, "4096300 4096301 5006301"},
		// "Expect, though not listed".
		{paydia63, Verify, "2026300 4046318 5006300 5006302 5046300"},
		{paydia63, Reject, "4006300 4016302 4016304 4036305 4036315 4036318 4036323"},
		{paydia63, RefreshToken, "4016303"},
		{paydia63, Retry, "4296300"},
		// SNAP in general, other services.
		{paydia63, Accept, "2007300"},
		{paydia63, Verify, "2027400 4047401 4047414 4047418 4097400 4097401 5007400 5007401 5007402 5047400"},
		{paydia63, Reject, "4007400 4007401 4007402"},
		{paydia63, Review, "4017400"},
		{paydia63, RefreshToken, "4017401 4017403 4017405 4017499"},
		{paydia63, Reject, "4017402 4017404"},
		{paydia63, Reject, "4037400 4037401 4037402 4037403 4037405 4037407 4037408 4037409 4037410 4037411 4037412 4037413"},
		{paydia63, Reject, "4037414 4037415 4037416 4037417 4037418 4037419 4037420 4037421 4037422 4037423"},
		{paydia63, Retry, "4037404 4037406 4297400"},
		{paydia63, Reject, "4047400 4047402 4047403 4047404 4047405 4047406 4047407 4047408 4047409 4047410 4047411"},
		{paydia63, Reject, "4047412 4047413 4047415 4047416 4047417 4047419 4057400 4057401"},
		// Paydia without a code in the body.
		{paydia63, RefreshToken, "http:401"},
		{paydia63, Review, "http:403 http:404 http:405"},
		{paydia63, Retry, "http:429 net:unsent token:undecryptable"},
		{paydia63, Verify, "http:200 http:302 http:400 http:408 http:409 http:422 http:500 http:502 http:503 http:504"},
		{paydia63, Verify, "net:unknown body:unreadable"},
		// Unlisted: never rejected, never sent again.
		{paydia63, Verify, "2006301 2016300 4006303 4036324 4056302 4096302 4296301 5006303 5036300 9999999"},
		{paydia63, Verify, "error:true xxxxxxx 401xx01 200630 20063000 nonsense"},
		{paydia63, Verify, ""},
		// AM.
		{am, Accept, "http:200"},
		{am, Reject, "error:true http:400 http:422"},
		{am, RefreshToken, "http:401"},
		{am, Review, "http:403 http:404 http:405"},
		{am, Retry, "http:429 net:unsent"},
		{am, Verify, "http:301 http:302 http:307 http:408 http:409 http:500 http:502 http:503 http:504 http:599"},
		{am, Verify, "net:unknown body:unreadable"},
		{am, Verify, "http:100 http:201 http:202 http:204 http:402 http:410 http:418 2006300 nonsense"},
	} {
		for _, code := range strings.Fields(row.codes) {
			if d := Builtin().Decide(row.gateway, code, "", 1, 0); d.Action != row.action {
				t.Errorf("%s %s: %s by rule %s, want %s", row.gateway, code, d.Action, d.Rule.Code, row.action)
			}
		}
	}
	if d := Builtin().Decide(paydia63, "", "", 1, 0); d.Action != Verify {
		t.Errorf("no code: %s, want verify", d.Action)
	}
}

// TestBuiltinSchedules checks the delays after each attempt, without jitter.
func TestBuiltinSchedules(t *testing.T) {
	for _, row := range []struct {
		name     string
		schedule Schedule
		want     string
	}{
		{"verify: lookups", lookups, "5s 10s 20s 40s 1m20s 2m40s 5m20s 10m*17 (24)"},
		{"retry: rate limited", rateLimited, "2s 4s 8s 16s 32s 1m4s 2m*94 (100)"},
		{"retry: unsent", unsent, "1s 2s 4s 8s 16s 32s 1m4s 2m8s 4m16s 5m*91 (100)"},
		{"retry: undecryptable", undecryptable, "5s 10s 20s 40s 1m20s 2m40s 5m20s 10m*53 (60)"},
		{"retry: quota", quota, "1m 2m 4m 8m 16m 30m*5 (10)"},
		{"refresh_token", newToken, "1s 2s 4s 8s 16s 32s 1m*2 (8)"},
		{"none", none, " (0)"},
	} {
		if got := row.schedule.delays(); got != row.want {
			t.Errorf("%s:\n got %s\nwant %s", row.name, got, row.want)
		}
	}
}

// delays lists the delays of the schedule without jitter, runs of equal delays shortened.
func (s Schedule) delays() string {
	s.Backoff.Jitter = 0
	var words []string
	for n := 1; n <= s.MaxAttempts; {
		d, run := s.Backoff.Delay(n), 1
		for n+run <= s.MaxAttempts && s.Backoff.Delay(n+run) == d {
			run++
		}
		word := short(d)
		if run > 1 {
			word += fmt.Sprintf("*%d", run)
		}
		words = append(words, word)
		n += run
	}
	return fmt.Sprintf("%s (%d)", strings.Join(words, " "), s.MaxAttempts)
}

func TestDelay(t *testing.T) {
	for _, row := range []struct {
		backoff Backoff
		want    string
	}{
		{Backoff{Constant, 3 * time.Second, 3 * time.Second, 0}, "3s*6 (6)"},
		{Backoff{Exponential, 3 * time.Second, time.Minute, 0}, "3s 6s 12s 24s 48s 1m (6)"},
		{Backoff{Fibonacci, 3 * time.Second, 20 * time.Second, 0}, "3s 6s 9s 15s 20s*2 (6)"},
	} {
		if got := (Schedule{Backoff: row.backoff, MaxAttempts: 6}).delays(); got != row.want {
			t.Errorf("%s: %s, want %s", row.backoff, got, row.want)
		}
	}
}

func TestJitterStaysWithinItsPercent(t *testing.T) {
	b := Backoff{Exponential, 5 * time.Second, 10 * time.Minute, 10}
	seen := make(map[time.Duration]bool)
	for range 500 {
		d := b.Delay(2)
		if d < 9*time.Second || d > 11*time.Second {
			t.Fatalf("%s is not 10s +/-10%%", d)
		}
		seen[d] = true
	}
	if len(seen) < 2 {
		t.Error("no jitter at all")
	}
}

func TestAttemptsRunOut(t *testing.T) {
	for _, row := range []struct {
		gateway payment.Gateway
		code    string
		attempt int
		want    string // action and reason
	}{
		{paydia63, "4016301", 7, "refresh_token: "},
		{paydia63, "4016301", 8, "review: 4016301 (invalid token (B2B)): given up after 8 submits in 0s"},
		{paydia63, "4296300", 99, "retry: "},
		{paydia63, "4296300", 100, "review: 4296300 (too many requests): given up after 100 submits in 0s"},
		{am, "net:unsent", 99, "retry: "},
		{am, "net:unsent", 100, "review: net:unsent (failed before the first byte was sent): given up after 100 submits in 0s"},
		// The other actions do not depend on the number of submits.
		{paydia63, "2006300", 500, "accept: "},
		{paydia63, "5006301", 500, "verify: "},
		{paydia63, "4036314", 500, "reject: "},
		{paydia63, "4016300", 1, "review: 4016300: unauthorized: signature or client settings"},
	} {
		d := Builtin().Decide(row.gateway, row.code, "", row.attempt, 0)
		if got := fmt.Sprintf("%s: %s", d.Action, d.Reason); got != row.want {
			t.Errorf("%s, attempt %d:\n got %s\nwant %s", row.code, row.attempt, got, row.want)
		}
		if d := Builtin().Decide(row.gateway, row.code, "not \"now\"", row.attempt, 0); d.Reason != "" && !strings.HasSuffix(d.Reason, `: "not \"now\""`) {
			t.Errorf("%s: the reason %s lacks the gateway's message", row.code, d.Reason)
		}
		if want := strings.Contains(row.want, "given up"); d.Exhausted != want {
			t.Errorf("%s, attempt %d: exhausted is %t", row.code, row.attempt, d.Exhausted)
		}
	}
}

func TestDelayOfDecisions(t *testing.T) {
	for _, row := range []struct {
		code     string
		attempt  int
		min, max time.Duration
	}{
		{"4296300", 1, 1600 * time.Millisecond, 2400 * time.Millisecond},
		{"4296300", 3, 6400 * time.Millisecond, 9600 * time.Millisecond},
		{"4036304", 1, 48 * time.Second, 72 * time.Second},
		{"5006301", 7, 4500 * time.Millisecond, 5500 * time.Millisecond}, // until the first lookup
		{"4016301", 1, 800 * time.Millisecond, 1200 * time.Millisecond},
		{"2006300", 1, 0, 0},
		{"4036314", 1, 0, 0},
		{"4016300", 1, 0, 0},
		{"4296300", 100, 0, 0},
	} {
		if d := Builtin().Decide(paydia63, row.code, "", row.attempt, 0); d.Delay < row.min || d.Delay > row.max {
			t.Errorf("%s, attempt %d: %s, want %s to %s", row.code, row.attempt, d.Delay, row.min, row.max)
		}
	}
}

func TestLookupSchedule(t *testing.T) {
	p, err := Parse("p.yaml", []byte(`
gateways:
  paydia:
    rules:
      - {code: "5006301", action: verify, backoff: {type: constant, base: 7s, jitter: 0%}, max_attempts: 3}
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		code     string
		lookups  int
		min, max time.Duration
		want     bool
	}{
		{"5006301", 0, 7 * time.Second, 7 * time.Second, false},
		{"5006301", 2, 7 * time.Second, 7 * time.Second, false},
		{"5006301", 3, 0, 0, true},
		{"net:unknown", 1, 9 * time.Second, 11 * time.Second, false},
		{"net:unknown", 24, 0, 0, true},
		{"", 0, 4500 * time.Millisecond, 5500 * time.Millisecond, false},        // the worker died before it knew the code
		{"4296300", 0, 4500 * time.Millisecond, 5500 * time.Millisecond, false}, // not a verify rule
	} {
		d, exhausted := p.LookupSchedule(paydia63, row.code, row.lookups, 0)
		if d < row.min || d > row.max || exhausted != row.want {
			t.Errorf("%q after %d lookups: delay %s, exhausted %t", row.code, row.lookups, d, exhausted)
		}
	}
}

func TestPrecedence(t *testing.T) {
	p, err := Parse("p.yaml", []byte(`
gateways:
  paydia:
    rules:
      - {code: "4xxxx0x", action: verify}
      - {code: "401xx0x", action: retry}
      - {code: "4016xxx", action: review}
      - {code: "40963xx", action: review}
      - {code: "http:5xx", action: review}
      - {code: "4006300", match: "(?i)teapot", action: review}
      - {code: "4006300", match: "(?i)pot", action: reject}
      - {code: "400xx00", match: "(?i)coffee", action: retry}
      - {code: "401xx00", match: "(?i)session", action: verify}
  amdigipay:
    rules:
      - {code: "error:true", action: reject, vendor_confirms: "AM support, 2026-11-02, in general"}
      - {code: "http:4xx", action: verify}
      - {code: "http:400", match: "(?i)signature", action: reject}
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		gateway       payment.Gateway
		code, message string
		want          string // action, and the rule's code
	}{
		{paydia63, "4016301", "", "retry 401xx0x"},    // three x each: the first listed; before the exact built-in rule
		{paydia63, "4016311", "", "review 4016xxx"},   // only one matches
		{paydia63, "4036302", "", "verify 4xxxx0x"},   // before the exact built-in rule
		{paydia63, "4096301", "", "review 40963xx"},   // before both
		{paydia63, "4096401", "", "verify 4xxxx0x"},   //
		{paydia63, "5046300", "", "verify 504xx00"},   // no override matches
		{paydia63, "http:503", "", "review http:5xx"}, //
		{paydia63, "5106399", "", "verify unlisted"},
		// Rules with a match come before rules without one. Among them: overrides before
		// built-in rules, then the most exact code, then the first listed.
		{paydia63, "4006300", "", "verify 4xxxx0x"},
		{paydia63, "4006300", "Teapot", "review 4006300"},
		{paydia63, "4006300", "pot", "reject 4006300"},
		{paydia63, "4006300", "coffee pot", "reject 4006300"},
		{paydia63, "4006300", "coffee", "retry 400xx00"},
		{paydia63, "4006300", "token expired", "refresh_token 400xx00"},
		{paydia63, "4016300", "Session expired", "verify 401xx00"},
		{paydia63, "4016300", "Token expired", "refresh_token 401xx00"},
		{paydia63, "4016300", "Unauthorized. Signature", "retry 401xx0x"},
		{paydia63, "4016300", "Unauthorized", "retry 401xx0x"},
		// An override for error:true without a match leaves the built-in rules with a match
		// in force: otherwise our own wrong settings would reject orders.
		{am, "error:true", "saldo tidak cukup", "reject error:true"},
		{am, "error:true", "Invalid signature", "review error:true"},
		{am, "error:true", "duplicate", "verify error:true"},
		{am, "http:400", "nominal", "verify http:4xx"},
		{am, "http:400", "Invalid signature", "reject http:400"}, // decided by the override's match
		{am, "http:422", "Invalid signature", "review http:422"},
		{am, "http:401", "", "verify http:4xx"},
	} {
		d := p.Decide(row.gateway, row.code, row.message, 1, 0)
		if got := fmt.Sprintf("%s %s", d.Action, d.Rule.Code); got != row.want {
			t.Errorf("%s %q: %s, want %s", row.code, row.message, got, row.want)
		}
	}
	if d := p.Decide(am, "http:503", "", 1, 0); d.Action != Verify {
		t.Errorf("an override of one gateway changed the other: %s", d.Action)
	}
}

// TestNewLogin: after which answers the access token is dropped.
func TestNewLogin(t *testing.T) {
	for _, row := range []struct {
		gateway       payment.Gateway
		code, message string
		want          bool
	}{
		{am, "http:401", "", true},
		{am, "http:403", "", true}, // review, but the next payment uses a new token
		{am, "http:401", "merchant inactive", true},
		{am, "error:true", "Token expired", true},
		{am, "http:500", "Token has expired", true},
		{am, "body:unreadable", "Unauthenticated.", true},
		{am, "http:500", "", false},
		{am, "error:true", "Saldo tidak cukup", false},
		{am, "http:200", "Token expired", false},
		{am, "net:unknown", "", false},
		{am, "http:429", "", false},
		{paydia63, "4016400", "", true},
		{paydia63, "4016401", "", true},
		{paydia63, "4016402", "Token invalid", false}, // the customer's
		{paydia63, "4036310", "Token limit: token invalid", false},
		{paydia63, "4006300", "Bad Request. Token expired", true},
		{paydia63, "2006300", "", false},
	} {
		if d := Builtin().Decide(row.gateway, row.code, row.message, 1, 0); d.NewLogin != row.want {
			t.Errorf("%s %q: %t", row.code, row.message, d.NewLogin)
		}
	}
}

// TestEveryBuiltinRuleDecides: no built-in rule is a duplicate or hidden by another rule.
func TestEveryBuiltinRuleDecides(t *testing.T) {
	messages := map[string]string{
		"repeated": "duplicate", "token": "token expired", "unauthorized": "Unauthorized", "settings": "invalid signature",
		"credentials": "invalid password", "trouble": "timeout", "already": "sudah", "headers": "X-TIMESTAMP",
	}
	for _, r := range Builtin().Rules() {
		code := strings.ReplaceAll(r.Code, "x", "9")
		message := messages[matchName(r)]
		if got := Builtin().Decide(r.Gateway, code, message, 1, 0).Rule; got.Code != r.Code || got.Match != r.Match {
			t.Errorf("%s %s %q is decided by %s %s", r.Gateway, code, message, got.Code, got.Match)
		}
		if !codePatterns[r.Gateway].MatchString(r.Code) {
			t.Errorf("%s %s is not a code that a policy file may name", r.Gateway, r.Code)
		}
		if r.Meaning == "" || r.Source != BuiltIn {
			t.Errorf("%s %s: meaning %q, source %q", r.Gateway, r.Code, r.Meaning, r.Source)
		}
	}
}

func TestBuiltinVerification(t *testing.T) {
	want := Verification{Settle: 2 * time.Minute, Lookups: 3, Then: Review, Source: BuiltIn}
	for _, g := range payment.Gateways() {
		if diff := cmp.Diff(want, Builtin().Verify(g)); diff != "" {
			t.Errorf("%s: %s", g, diff)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	p := Builtin()
	for _, code := range []string{"2006300", "5006301", "4296300", "body:unreadable"} {
		b.Run(code, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Decide(paydia63, code, "", 3, 0)
			}
		})
	}
}
