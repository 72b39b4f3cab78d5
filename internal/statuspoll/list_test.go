package statuspoll_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/statuspoll"
	"terbayar/internal/testenv"
)

// spell makes AM write a field of a payment's rows as given; "" leaves it out.
func spell(r *testenv.Env, reference, field, value string) {
	r.Sim.Spell(gatewaysim.Spelling{
		Gateway: gatewaysim.AM, Reference: reference, Fields: map[string]jsontext.Value{field: jsontext.Value(value)},
	})
}

// pays makes the customer of INV/1 pay at AM 10 seconds after the payment was created.
func pays(r *testenv.Env) {
	r.Sim.SetCustomer(gatewaysim.AM, "INV/1", gatewaysim.Customer{Behaviour: gatewaysim.Pays, After: 10 * time.Second})
}

// TestFormsOfFieldsInList: fields of a row are read by value, in any form. A malformed field
// changes nothing, and the next lookup reads a well-formed row.
func TestFormsOfFieldsInList(t *testing.T) {
	t.Parallel()
	const read, ignored = payment.Paid, payment.OnProcessing
	for _, row := range []struct {
		field, value string
		want         payment.Status
	}{
		{"transaction_total", `13000`, read},
		{"transaction_total", `13000.0`, read},
		{"transaction_total", `"13000.00"`, read},
		{"transaction_total", `1.3e4`, read},
		{"transaction_total", `"1.3E+4"`, read},
		{"transaction_total", `null`, read},
		{"transaction_total", ``, read},
		{"status_id", `"3"`, read},
		{"status_id", `3.0`, read},
		{"status_id", `"3.0"`, read},
		{"id", `"3.0"`, read},
		{"id", `3e0`, read},
		{"id", ``, read},

		{"transaction_total", `"Rp 13.000"`, ignored},
		{"transaction_total", `"13.000"`, ignored},
		{"transaction_total", `"13,000.00"`, ignored},
		{"transaction_total", `true`, ignored},
		{"transaction_total", `{}`, ignored},
		{"status_id", `"Terbayar"`, ignored},
		{"status_id", `3.5`, ignored},
		{"status_id", `null`, ignored},
		{"id", `[]`, ignored},
		{"id", `-1`, ignored},
		{"transaction_id", `{}`, ignored},
		{"transaction_id", `null`, ignored},
	} {
		t.Run(row.field+" "+row.value, func(t *testing.T) {
			t.Parallel()
			r := testenv.New(t, redistest.Mini(t))
			pays(r)
			r.Create(testenv.AMOrder("INV/1"))
			r.Submit(inv)
			if got := r.Read(inv).GatewayReference; got != "3" {
				t.Fatalf("AM's id is %q, want 3", got)
			}
			spell(r, "INV/1", row.field, row.value)
			r.Advance(30 * time.Second)
			r.Poll(payment.AMDigiPay)
			if got := r.Read(inv); got.Status != row.want || got.Reason != "" {
				t.Errorf("%s (%s), want %s", got.Status, got.Reason, row.want)
			}
			r.Sim.Spell(gatewaysim.Spelling{Gateway: gatewaysim.AM, Reference: "INV/1"})
			r.Advance(30 * time.Second)
			r.Poll(payment.AMDigiPay)
			if got := r.Read(inv).Status; got != payment.Paid {
				t.Errorf("with a well-formed row: %s", got)
			}
		})
	}
}

// TestFormsOfAmount: the same for the answer to create-transaction, and for the row of a payment
// of unknown outcome.
func TestFormsOfAmount(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		value          string
		created, found payment.Status
	}{
		{`13000.0`, payment.OnProcessing, payment.OnProcessing},
		{`"Rp 13.000"`, payment.Verifying, payment.Verifying},
		{`13000.5`, payment.NeedsReview, payment.NeedsReview},
		{`0`, payment.NeedsReview, payment.NeedsReview},
		{`-13000`, payment.NeedsReview, payment.NeedsReview},
		{`99`, payment.NeedsReview, payment.NeedsReview},
	} {
		t.Run(row.value, func(t *testing.T) {
			t.Parallel()
			r := testenv.New(t, redistest.Mini(t))
			r.Create(testenv.AMOrder("INV/1"), testenv.AMOrder("INV/2"))
			lost := payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV/2"}
			spell(r, "INV/1", "transaction_total", row.value)
			spell(r, "INV/2", "transaction_total", row.value)
			r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultLostAfter, Operation: gatewaysim.AMCreate, Reference: "INV/2"})
			r.Submit(inv)
			r.Submit(lost)
			if got := r.Read(inv); got.Status != row.created || got.Status == payment.NeedsReview && !strings.Contains(got.Reason, "ordered 13000 rupiah") {
				t.Errorf("created: %s (%s), want %s", got.Status, got.Reason, row.created)
			}
			r.Advance(6 * time.Second)
			r.Poll(payment.AMDigiPay)
			if got := r.Read(lost); got.Status != row.found {
				t.Errorf("found: %s (%s), want %s", got.Status, got.Reason, row.found)
			}
			if row.found != payment.Verifying {
				return
			}
			if a := r.Read(lost).Attempts; len(a) != 2 || a[1].Code != "body:unreadable" || a[1].Action != "verify" {
				t.Errorf("%+v", a)
			}
			r.Sim.Spell(gatewaysim.Spelling{Gateway: gatewaysim.AM, Reference: "INV/1"})
			r.Sim.Spell(gatewaysim.Spelling{Gateway: gatewaysim.AM, Reference: "INV/2"})
			r.Advance(time.Minute)
			r.Poll(payment.AMDigiPay)
			for _, key := range []payment.Key{inv, lost} {
				if got := r.Read(key); got.Status != payment.OnProcessing || got.QRCode == "" {
					t.Errorf("%s, with a well-formed row: %s", key, got.Status)
				}
			}
		})
	}
}

// ask looks up payments at AM with a full scan.
func ask(t *testing.T, r *testenv.Env, wanted ...*ledger.Record) []statuspoll.Finding {
	t.Helper()
	findings, err := r.Poller.Askers[payment.AMDigiPay].Ask(t.Context(), wanted, true)
	if err != nil {
		t.Fatal(err)
	}
	return findings
}

// unknown returns a payment of unknown outcome.
func unknown(id string) *ledger.Record {
	return &ledger.Record{Payment: payment.Payment{Gateway: payment.AMDigiPay, TransactionID: id, Status: payment.Verifying, Amount: 13000}}
}

// TestConclusiveAbsence: absence is conclusive only if total_found is positive and does not
// change during the scan, and there are as many distinct readable rows.
func TestConclusiveAbsence(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name       string
		rows       int
		edit       func(*testenv.Env)
		conclusive bool
	}{
		{"three pages", 25, func(*testenv.Env) {}, true},
		{"one page", 5, func(*testenv.Env) {}, true},
		{"full pages", 20, func(*testenv.Env) {}, true},
		{"an empty list", 0, func(*testenv.Env) {}, false},
		{"no count", 25, func(r *testenv.Env) { spell(r, "", "total_found", ``) }, false},
		{"a count of null", 25, func(r *testenv.Env) { spell(r, "", "total_found", `null`) }, false},
		{"a count of 0", 25, func(r *testenv.Env) { spell(r, "", "total_found", `0`) }, false},
		{"a negative count", 25, func(r *testenv.Env) { spell(r, "", "total_found", `-25`) }, false},
		{"a count that is no number", 25, func(r *testenv.Env) { spell(r, "", "total_found", `"25 rows"`) }, false},
		{"a fraction as count", 25, func(r *testenv.Env) { spell(r, "", "total_found", `25.5`) }, false},
		{"a count in quotes", 25, func(r *testenv.Env) { spell(r, "", "total_found", `"25.0"`) }, true},
		{"a count above the rows", 25, func(r *testenv.Env) { spell(r, "", "total_found", `26`) }, false},
		{"a count below the rows", 25, func(r *testenv.Env) { spell(r, "", "total_found", `1`) }, false},
		{"too few pages", 25, func(r *testenv.Env) { spell(r, "", "total_page", `1`) }, false},
		{"total_page is no number", 25, func(r *testenv.Env) { spell(r, "", "total_page", `"?"`) }, true}, // read until an empty page
		{"a malformed amount", 25, func(r *testenv.Env) { spell(r, "OTHER-9", "transaction_total", `"Rp 1"`) }, false},
		{"a malformed status", 25, func(r *testenv.Env) { spell(r, "OTHER-9", "status_id", `{}`) }, false},
		{"a malformed id", 25, func(r *testenv.Env) { spell(r, "OTHER-9", "id", `false`) }, false},
		{"a malformed transaction_id", 25, func(r *testenv.Env) { spell(r, "OTHER-9", "transaction_id", `1e3`) }, false},
		{"no transaction_id", 25, func(r *testenv.Env) { spell(r, "OTHER-9", "transaction_id", `null`) }, false},
		{"a number of another payment", 25, func(r *testenv.Env) { spell(r, "OTHER-9", "transaction_id", `124`) }, true},
		{"a number that may be ours", 25, func(r *testenv.Env) { spell(r, "OTHER-9", "transaction_id", `123`) }, false},
		{"its own row, malformed", 25, func(r *testenv.Env) {
			spell(r, "OTHER-9", "transaction_id", `"0123"`)
			spell(r, "OTHER-9", "status_id", `{}`)
		}, false},
		{"new rows after every request", 25, func(r *testenv.Env) { r.Sim.SetListMotion(gatewaysim.ListMotion{NewRows: 1}) }, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			r := testenv.New(t, redistest.Mini(t), func(c *gatewaysim.Config) { c.AM.MaxLimit = 10 })
			if row.rows > 0 {
				r.Sim.AddOtherTransactions(row.rows, time.Hour, gatewaysim.Customer{Behaviour: gatewaysim.Pays})
			}
			row.edit(r)
			f := ask(t, r, unknown("0123"))[0]
			if f.Answer.At.IsZero() || f.Conclusive != row.conclusive || f.Answer.Absent != row.conclusive || f.Answer.Receipt != nil {
				t.Errorf("conclusive %t: %+v", f.Conclusive, f.Answer)
			}
			if n := r.Sim.Requests(gatewaysim.AMList); n > 12 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// TestRowsAddedDuringScan: the first pages are read again, and absence is conclusive.
func TestRowsAddedDuringScan(t *testing.T) {
	t.Parallel()
	for _, order := range []gatewaysim.ListOrder{gatewaysim.OrderDesc, gatewaysim.OrderAsc, gatewaysim.OrderScrambled} {
		t.Run(string(order), func(t *testing.T) {
			r := testenv.New(t, redistest.Mini(t), func(c *gatewaysim.Config) { c.AM.ListOrder = order; c.AM.MaxLimit = 10 })
			r.Sim.AddOtherTransactions(25, time.Hour, gatewaysim.Customer{Behaviour: gatewaysim.Pays})
			r.Sim.SetListMotion(gatewaysim.ListMotion{NewRows: 3, Requests: 2})
			f := ask(t, r, unknown("0123"))[0]
			if !f.Conclusive || !f.Answer.Absent {
				t.Errorf("not conclusive after %d requests: %+v", r.Sim.Requests(gatewaysim.AMList), f.Answer)
			}
		})
	}
}

// TestDuplicateRows: a payment that AM has twice is found twice by every lookup, and neither of
// the rows is taken for the payment.
func TestDuplicateRows(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t), func(c *gatewaysim.Config) { c.AM.Duplicates = gatewaysim.DuplicateSecond })
	for i := range 2 {
		other := testenv.New(t, redistest.Mini(t))
		other.Submitter.Gateways[payment.AMDigiPay] = r.AM
		other.Create(testenv.AMOrder("INV/1"))
		other.Submit(inv)
		r.Sim.AddOtherTransactions(5, time.Duration(i), gatewaysim.Customer{Behaviour: gatewaysim.Pays})
	}
	for _, status := range []payment.Status{payment.Verifying, payment.NeedsReview} {
		record := unknown("INV/1")
		record.Status = status
		missing := unknown("INV/2") // so that the scan goes on
		if status == payment.NeedsReview {
			missing = unknown("OTHER-1")
		}
		f := ask(t, r, record, missing)[0]
		if f.Duplicate == "" || f.Answer.Receipt == nil || f.Answer.Receipt.Reference != "" {
			t.Errorf("%s: %q, %+v", status, f.Duplicate, f.Answer.Receipt)
		}
	}
	// A row with a malformed id is not a second payment.
	r.Sim.AddOtherTransactions(1, 0, gatewaysim.Customer{Behaviour: gatewaysim.Pays})
	for i, value := range []string{`"INV/3"`, `"INV/3"`} {
		spell(r, fmt.Sprintf("OTHER-%d", 2+i), "transaction_id", value)
	}
	r.Sim.Spell(gatewaysim.Spelling{Gateway: gatewaysim.AM, Reference: "OTHER-2", Fields: map[string]jsontext.Value{
		"transaction_id": jsontext.Value(`"INV/3"`), "id": jsontext.Value(`{}`),
	}})
	if f := ask(t, r, unknown("INV/3"), unknown("INV/4"))[0]; f.Duplicate != "" || f.Answer.Receipt == nil {
		t.Errorf("%+v", f)
	}
}
