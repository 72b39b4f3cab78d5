package gatewaysim

import (
	"encoding/json"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestFaults: the answer with each fault, and whether the payment exists afterwards.
func TestFaults(t *testing.T) {
	const lost = -1 // the connection is closed before the whole answer was sent
	tested := map[Fault]bool{}
	for _, row := range []struct {
		rule               FaultRule
		am, paydia         int // HTTP status
		paydiaCode         any
		amRows, paydiaRows int
	}{
		{FaultRule{Fault: FaultLostBefore}, lost, lost, nil, 0, 0},
		{FaultRule{Fault: FaultLostAfter}, lost, lost, nil, 1, 1},
		{FaultRule{Fault: FaultLateLost}, lost, lost, nil, 1, 1},
		{FaultRule{Fault: FaultLate500}, 500, 500, "5006301", 1, 1},
		{FaultRule{Fault: Fault500Before}, 500, 500, "5006301", 0, 0},
		{FaultRule{Fault: Fault500After}, 500, 500, "5006301", 1, 1},
		{FaultRule{Fault: FaultHTMLBefore}, 500, 500, nil, 0, 0},
		{FaultRule{Fault: FaultHTMLAfter, Status: 200}, 200, 200, nil, 1, 1},
		{FaultRule{Fault: FaultEmpty}, 200, 200, nil, 1, 1},
		{FaultRule{Fault: FaultEmpty, Status: 502}, 502, 502, nil, 1, 1},
		{FaultRule{Fault: FaultCutShort}, lost, lost, nil, 1, 1},
		{FaultRule{Fault: FaultSlow, Delay: time.Millisecond}, 200, 200, "2006300", 1, 1},
		{FaultRule{Fault: FaultTokenLost}, 401, 401, "4016301", 0, 0},
		{FaultRule{Fault: FaultBusy}, 429, 429, "4296300", 0, 0},
		{FaultRule{Fault: FaultRefuse}, 200, 403, "4036314", 0, 0},
		{FaultRule{Fault: FaultPending}, 202, 202, "2026300", 1, 1},
		{FaultRule{Fault: FaultDisagree}, 500, 500, "2006300", 1, 1},
	} {
		tested[row.rule.Fault] = true
		t.Run(string(row.rule.Fault), func(t *testing.T) {
			c := newCaller(t)
			c.create("WARM-UP", nil)
			c.pay("WARM-UP")
			row.rule.Count = 2
			row.rule.Reference = "X"
			c.sim.Inject(row.rule)
			am, paydia := c.create("X", nil), c.pay("X")
			for _, gateway := range []struct {
				name string
				r    reply
				want int
			}{{"am", am, row.am}, {"paydia", paydia, row.paydia}} {
				if gateway.want == lost && gateway.r.err == nil {
					t.Errorf("%s: answered %d %s", gateway.name, gateway.r.status, gateway.r.text)
				}
				if gateway.want != lost && (gateway.r.err != nil || gateway.r.status != gateway.want) {
					t.Errorf("%s: %d %s %v, want %d", gateway.name, gateway.r.status, gateway.r.text, gateway.r.err, gateway.want)
				}
			}
			if got := paydia.at("responseCode"); got != row.paydiaCode {
				t.Errorf("responseCode %v, want %v", got, row.paydiaCode)
			}
			c.wantRows(AM, "X", row.amRows)
			c.wantRows(Paydia, "X", row.paydiaRows)
			c.wantViolations()
			if left := c.sim.ActiveFaults(); len(left) > 0 {
				t.Errorf("still active: %+v", left)
			}
			if got := c.sim.Summary().Faults[row.rule.Fault]; got != 2 {
				t.Errorf("the journal has the fault %d times, want 2", got)
			}
		})
	}
	for _, f := range Faults() {
		if !tested[f] {
			t.Errorf("%s is not tested", f)
		}
	}
}

func TestBusyHasRetryAfter(t *testing.T) {
	c := newCaller(t)
	c.sim.Inject(FaultRule{Fault: FaultBusy, Operation: PaydiaPayment, Delay: 1500 * time.Millisecond})
	if got := c.pay("X").header.Get("Retry-After"); got != "2" {
		t.Errorf("Retry-After %q, want 2", got)
	}
}

func TestRefuseAndErrorCodesCanBeChosen(t *testing.T) {
	c := newCaller(t)
	c.sim.Inject(FaultRule{Fault: FaultRefuse, Operation: PaydiaPayment, Code: "4036305", Count: 1})
	c.sim.Inject(FaultRule{Fault: Fault500After, Operation: PaydiaPayment, Code: "5046300", Count: 1})
	if r := c.pay("X"); r.status != 403 || r.at("responseCode") != "4036305" {
		t.Error(r.text)
	}
	if r := c.pay("X"); r.status != http.StatusGatewayTimeout || r.at("responseCode") != "5046300" {
		t.Error(r.text)
	}
}

func TestLateRowsAppearLater(t *testing.T) {
	c := newCaller(t)
	c.sim.Inject(FaultRule{Fault: FaultLateLost, Count: 2, Reference: "X", Delay: 20 * time.Second})
	c.create("X", nil)
	c.pay("X")
	c.create("NEWER", nil)
	if got := c.statuses(""); len(got) != 1 {
		t.Errorf("at once: %v", got)
	}
	if got := c.query("X").at("responseCode"); got != "4046401" {
		t.Errorf("at once: %v", got)
	}
	c.clock.forward(20 * time.Second)
	if diff := cmp.Diff([]string{"NEWER 3", "X 3"}, c.statuses("")); diff != "" {
		t.Error(diff) // X comes after NEWER: its id is older
	}
	if got := c.query("X").at("latestTransactionStatus"); got != "00" {
		t.Errorf("later: %v", got)
	}
}

func TestResendReplacesLateRow(t *testing.T) {
	c := newCaller(t)
	c.sim.Inject(FaultRule{Fault: FaultLateLost, Count: 2, Reference: "X"})
	c.create("X", nil)
	c.create("X", nil) // the first is not visible yet; this one appears late too
	if r := c.create("X", nil); r.at("error") != false {
		t.Error(r.text)
	}
	c.wantRows(AM, "X", 1)
	c.sim.Inject(FaultRule{Fault: FaultLateLost, Count: 1, Operation: PaydiaPayment})
	c.pay("X")
	if r := c.pay("X"); r.at("responseCode") != "2006300" {
		t.Error(r.text)
	}
	c.wantRows(Paydia, "X", 1)

	second := newCaller(t, func(config *Config) { config.AM.Duplicates = DuplicateSecond })
	second.sim.Inject(FaultRule{Fault: FaultLateLost, Count: 1, Reference: "X"})
	second.create("X", nil)
	second.create("X", nil)
	second.wantRows(AM, "X", 2) // the customer can be charged twice
}

func TestNewTokenAfterTokenLost(t *testing.T) {
	c := newCaller(t)
	c.pay("WARM-UP")
	c.sim.Inject(FaultRule{Fault: FaultTokenLost, Operation: PaydiaPayment, Reference: "X", Count: 1})
	if got := c.pay("X").at("responseCode"); got != "4016301" {
		t.Error(got)
	}
	c.b2bToken = ""
	if got := c.pay("X").at("responseCode"); got != "2006300" {
		t.Error(got)
	}
}

func TestEvenFaultsApplyToTheirShare(t *testing.T) {
	s := New(Config{Seed: 5, Faults: EvenFaults(0.3)}, time.Now)
	kinds := map[Fault]int{}
	affected := 0
	for range 1500 {
		if rule := s.pickFault(AMList, ""); rule != nil {
			affected++
			kinds[rule.Fault]++
		}
	}
	if share := float64(affected) / 1500; math.Abs(share-0.3) > 0.04 {
		t.Errorf("share %.3f, want 0.3", share)
	}
	if len(kinds) != len(Faults())-1 {
		t.Errorf("kinds: %v", kinds)
	}
	if all := New(Config{Faults: EvenFaults(1)}, time.Now); all.pickFault(AMList, "") == nil {
		t.Error("a share of 1: a request without a fault")
	}
}

func TestFaultRulesAreChecked(t *testing.T) {
	for _, row := range []struct {
		rule FaultRule
		want string
	}{
		{FaultRule{Fault: "x"}, "unknown fault"},
		{FaultRule{Fault: FaultSlow, Operation: "x"}, "unknown operation"},
		{FaultRule{Fault: FaultSlow, Probability: 2}, "probability"},
		{FaultRule{Fault: FaultSlow, Count: -1}, "negative"},
		{FaultRule{Fault: FaultEmpty, Status: 99}, "not between 200 and 599"},
		{FaultRule{Fault: FaultRefuse, Operation: PaydiaPayment, Code: "no"}, "seven digits"},
	} {
		if err := row.rule.Check(); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%+v: %v", row.rule, err)
		}
	}
}

func TestAdmin(t *testing.T) {
	c := newCaller(t)
	post := func(path, body string, want int) {
		t.Helper()
		if r := c.do("POST", "/admin/"+path, body, nil); r.status != want {
			t.Errorf("%s: %d %s", path, r.status, r.text)
		}
	}
	post("faults", `{"fault":"lost-after","operation":"paydia.auth-payment","reference":"X","count":1,"delay":"2s"}`, 204)
	post("faults", `{"fault":"lost-after","delay":2}`, 400)
	post("faults", `{"fault":"lost-over"}`, 400)
	post("faults", `{"fault":"slow","unknown":true}`, 400)
	post("customers", `{"gateway":"amdigipay","reference":"Y","behaviour":"cancels","after":"1m"}`, 204)
	post("customers", `{"gateway":"x","reference":"Y","behaviour":"cancels"}`, 400)
	post("other-transactions", `{"count":3,"span":"1h","behaviour":"pays"}`, 204)
	post("list-motion", `{"new_rows":1}`, 204)
	want := []FaultRule{{Fault: FaultLostAfter, Operation: PaydiaPayment, Reference: "X", Count: 1, Delay: 2 * time.Second}}
	if diff := cmp.Diff(want, c.sim.ActiveFaults()); diff != "" {
		t.Error(diff)
	}
	if r := c.do("GET", "/admin/faults", "", nil); !strings.Contains(r.text, `"delay": "2s"`) {
		t.Error(r.text)
	}
	c.pay("X")
	c.create("Y", nil)
	c.clock.forward(time.Minute)
	if got := c.statuses(""); got[0] != "Y 5" || len(got) != 4 {
		t.Error(got)
	}
	for _, path := range []string{"journal", "rows", "violations"} {
		var list []any
		r := c.do("GET", "/admin/"+path, "", nil)
		if err := json.Unmarshal([]byte(r.text), &list); err != nil {
			t.Errorf("%s: %v in %s", path, err, r.text)
		}
	}
	sum := c.do("GET", "/admin/summary", "", nil)
	if sum.at("violations") != 0.0 || sum.at("faults.lost-after") != 1.0 || sum.at("rows.paydia") != 1.0 {
		t.Error(sum.text)
	}
	if r := c.do("DELETE", "/admin/faults", "", nil); r.status != 204 {
		t.Error(r.status)
	}
}

func TestJournal(t *testing.T) {
	c := newCaller(t)
	c.sim.Inject(FaultRule{Fault: FaultLostAfter, Operation: PaydiaPayment, Count: 1})
	c.pay("REF-1")
	c.query("REF-1")
	c.list("?limit=5")
	var got []Entry
	for _, e := range c.sim.Journal() {
		e.At = time.Time{}
		got = append(got, e)
	}
	want := []Entry{
		{Operation: PaydiaToken, Status: 200, Code: "2007300"},
		{Operation: PaydiaPayment, Reference: "REF-1", ExternalID: "1", Fault: FaultLostAfter},
		{Operation: PaydiaQuery, Reference: "REF-1", ExternalID: "2", Status: 200, Code: "2006400"},
		{Operation: AMLogin, Status: 200, Code: "Login success"},
		{Operation: AMList, Query: "limit=5", Status: 200, Code: "success"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if n := c.sim.Requests(PaydiaQuery); n != 1 {
		t.Errorf("%d queries", n)
	}
}

// TestRefusalTexts: a refusal can have any message and any status.
func TestRefusalTexts(t *testing.T) {
	for _, row := range []struct {
		rule   FaultRule
		op     Operation
		status int
		body   string
	}{
		{FaultRule{}, AMCreate, 200, `{"error":true,"message":"Transaction refused","data":null}`},
		{FaultRule{Message: "Invalid signature"}, AMCreate, 200, `{"error":true,"message":"Invalid signature","data":null}`},
		{FaultRule{Message: "Forbidden", Status: 403}, AMCreate, 403, `{"status":"error","message":"Forbidden","data":null}`},
		{FaultRule{Body: `{"error":"token_expired"}`, Status: 400}, AMList, 400, `{"error":"token_expired"}`},
		{FaultRule{Body: `no`}, PaydiaPayment, 200, `no`},
		{FaultRule{Message: "Unauthorized. Token expired", Code: "4016300"}, PaydiaPayment, 401, `{"responseCode":"4016300","responseMessage":"Unauthorized. Token expired"}`},
		{FaultRule{}, PaydiaQuery, 403, `{"responseCode":"4036414","responseMessage":"Insufficient Funds"}`},
	} {
		row.rule.Fault = FaultRefuse
		a := refusal(row.op, row.rule)
		if a.status != row.status || string(a.body) != row.body {
			t.Errorf("%+v: %d %s, want %d %s", row.rule, a.status, a.body, row.status, row.body)
		}
	}
}
