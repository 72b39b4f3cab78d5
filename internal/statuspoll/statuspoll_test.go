package statuspoll_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/statuspoll"
	"terbayar/internal/testenv"
)

var (
	inv = payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV/1"}
	ord = payment.Key{Gateway: payment.Paydia, TransactionID: "ORD-1"}
)

// keys returns n payments at AM.
func keys(n int) (keys []payment.Key, orders [][]byte) {
	for i := range n {
		id := fmt.Sprintf("INV/%d", i+1)
		keys = append(keys, payment.Key{Gateway: payment.AMDigiPay, TransactionID: id})
		orders = append(orders, testenv.AMOrder(id))
	}
	return keys, orders
}

// wantHistory compares the attempts of a payment, and its status at the end.
func wantHistory(t *testing.T, r *testenv.Env, key payment.Key, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, r.History(key)); diff != "" {
		t.Error(diff)
	}
}

func TestOnProcessingBecomesTerbayar(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	r.Sim.SetCustomer(gatewaysim.AM, "INV/1", gatewaysim.Customer{Behaviour: gatewaysim.Pays, After: 40 * time.Second})
	r.Create(testenv.AMOrder("INV/1"))
	r.Submit(inv)
	r.Poll(payment.AMDigiPay) // nothing is due yet
	if n := r.Sim.Requests(gatewaysim.AMList); n != 0 {
		t.Errorf("%d requests before anything was due", n)
	}
	r.Advance(30 * time.Second)
	r.Poll(payment.AMDigiPay)
	wantHistory(t, r, inv, "submit http:200 > accept", "on_processing")
	r.Advance(30 * time.Second)
	r.Poll(payment.AMDigiPay)
	wantHistory(t, r, inv, "submit http:200 > accept", "lookup http:200 > accept", "paid")
	if got := r.Read(inv); got.GatewayStatus != "Terbayar" || got.QRCode == "" {
		t.Errorf("%+v", got.Payment)
	}
	before := len(r.Sim.Journal())
	r.Advance(time.Hour)
	r.Poll(payment.AMDigiPay)
	if n := len(r.Sim.Journal()) - before; n != 0 {
		t.Errorf("%d requests with nothing open", n)
	}
}

// TestStatusIDs checks every id of docs/gateways.md 1.8, and an unknown one.
func TestStatusIDs(t *testing.T) {
	t.Parallel()
	for id, want := range map[int]payment.Status{
		1: payment.OnProcessing, 2: payment.OnProcessing, 3: payment.Paid, 4: payment.Paid, 5: payment.Cancelled,
		6: payment.Refunded, 13: payment.OnProcessing, 14: payment.Failed, 99: payment.OnProcessing,
	} {
		t.Run(fmt.Sprint(id), func(t *testing.T) {
			t.Parallel()
			r := testenv.New(t, redistest.Mini(t))
			r.Sim.SetCustomer(gatewaysim.AM, "INV/1", gatewaysim.Customer{Behaviour: gatewaysim.Pays, After: time.Second, StatusID: id})
			r.Create(testenv.AMOrder("INV/1"))
			r.Submit(inv)
			r.Advance(30 * time.Second)
			r.Poll(payment.AMDigiPay)
			if got := r.Read(inv).Status; got != want {
				t.Errorf("%s, want %s", got, want)
			}
		})
	}
}

// TestUnknownOutcomeIsFound: a lookup finds a payment whose submit got no answer.
func TestUnknownOutcomeIsFound(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultLostAfter, Operation: gatewaysim.AMCreate})
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultLostAfter, Operation: gatewaysim.PaydiaPayment})
	r.Create(testenv.AMOrder("INV/1"), testenv.PaydiaOrder("ORD-1"))
	r.Submit(inv)
	r.Submit(ord)
	r.Advance(6 * time.Second) // the first lookup is due after 5 s, before the next poll interval
	r.Poll(payment.AMDigiPay)
	r.Poll(payment.Paydia)
	wantHistory(t, r, inv, "submit net:unknown > verify", "lookup http:200 > accept", "on_processing")
	wantHistory(t, r, ord, "submit net:unknown > verify", "lookup 2006400 > accept", "paid")
	a := r.Read(ord).Attempts
	if a[1].ExternalID == "" || a[1].ExternalID == a[0].ExternalID {
		t.Errorf("X-EXTERNAL-IDs %q, %q", a[0].ExternalID, a[1].ExternalID)
	}
	if v := r.Sim.Violations(); len(v) > 0 {
		t.Errorf("violations: %+v", v)
	}
}

// TestAbsenceNeedsLookupsAndTime: "no such payment" is confirmed only after three lookups
// and two minutes.
func TestAbsenceNeedsLookupsAndTime(t *testing.T) {
	t.Parallel()
	for _, key := range []payment.Key{inv, ord} {
		t.Run(string(key.Gateway), func(t *testing.T) {
			r := testenv.New(t, redistest.Mini(t))
			r.Sim.AddOtherTransactions(3, time.Hour, gatewaysim.Customer{Behaviour: gatewaysim.Pays}) // absence from an empty list is not conclusive
			r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultLostBefore, Reference: key.TransactionID, Count: 1})
			r.Create(testenv.AMOrder("INV/1"), testenv.PaydiaOrder("ORD-1"))
			r.Submit(key)
			lookups := 0
			for r.Read(key).Status == payment.Verifying && lookups < 20 {
				r.Advance(time.Second)
				before := len(r.Attempts)
				r.Poll(key.Gateway)
				lookups += len(r.Attempts) - before
				if end := r.Now().Sub(testenv.Start); r.Read(key).Status != payment.Verifying && end < 2*time.Minute {
					t.Errorf("confirmed after %s, want 2m at least", end)
				}
			}
			got := r.Read(key)
			if got.Status != payment.NeedsReview || got.Reason == "" || lookups != 5 {
				t.Errorf("%s after %d lookups: %s", got.Status, lookups, got.Reason)
			}
			last := got.Attempts[len(got.Attempts)-1]
			if last.Action != "review" || got.Attempts[1].Action != "verify" {
				t.Errorf("%+v", got.Attempts)
			}
		})
	}
}

// TestLateCommitIsFound: the gateway processes the request an hour late, when the payment is
// already in needs_review.
func TestLateCommitIsFound(t *testing.T) {
	t.Parallel()
	for _, key := range []payment.Key{inv, ord} {
		t.Run(string(key.Gateway), func(t *testing.T) {
			r := testenv.New(t, redistest.Mini(t))
			r.Sim.AddOtherTransactions(3, time.Hour, gatewaysim.Customer{Behaviour: gatewaysim.Pays}) // absence from an empty list is not conclusive
			r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultLateLost, Reference: key.TransactionID, Count: 1, Delay: time.Hour})
			r.Sim.SetCustomer(gatewaysim.AM, "INV/1", gatewaysim.Customer{Behaviour: gatewaysim.Pays})
			r.Create(testenv.AMOrder("INV/1"), testenv.PaydiaOrder("ORD-1"))
			r.Submit(key)
			for range 10 {
				r.Advance(time.Minute)
				r.Poll(key.Gateway)
			}
			if s := r.Read(key).Status; s != payment.NeedsReview {
				t.Fatalf("%s, want needs_review", s)
			}
			r.Advance(time.Hour)
			r.Poll(key.Gateway)
			if got := r.Read(key); got.Status != payment.Paid || got.Reason != "" {
				t.Errorf("%s (%s), want paid", got.Status, got.Reason)
			}
			if n := len(r.Sim.RowsOf(gatewaysim.Gateway(key.Gateway), key.TransactionID)); n != 1 {
				t.Errorf("the gateway has it %d times, want once", n)
			}
		})
	}
}

// TestLookupsEndWithLateWindow: a payment in review is no longer looked up after LateWindow.
func TestLookupsEndWithLateWindow(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultLostBefore, Operation: gatewaysim.PaydiaPayment, Count: 1})
	r.Create(testenv.PaydiaOrder("ORD-1"))
	r.Submit(ord)
	for range 10 {
		r.Advance(time.Minute)
		r.Poll(payment.Paydia)
	}
	r.Advance(8 * 24 * time.Hour)
	r.Poll(payment.Paydia)
	before := len(r.Sim.Journal())
	r.Advance(24 * time.Hour)
	r.Poll(payment.Paydia)
	if n := len(r.Sim.Journal()) - before; n != 0 {
		t.Errorf("%d requests after LateWindow", n)
	}
	if s := r.Read(ord).Status; s != payment.NeedsReview {
		t.Errorf("%s, want needs_review", s)
	}
}

// TestThenRetry: with "then: retry" a payment that the gateway does not have is sent again,
// but at most three times.
func TestThenRetry(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	r.SetPolicy(`gateways: {paydia: {verify: {settle: 10s, lookups: 2, then: retry, vendor_confirms: "the simulator, at any time"}}}`)
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultLostBefore, Operation: gatewaysim.PaydiaPayment})
	r.Create(testenv.PaydiaOrder("ORD-1"))
	for sends := 1; sends <= 3; sends++ {
		r.Submit(ord)
		for r.Read(ord).Status == payment.Verifying {
			r.Advance(time.Second)
			r.Poll(payment.Paydia)
		}
		if queue := r.Queue(); (len(queue) == 1 && queue[0] == ord) != (sends < 3) {
			t.Errorf("after submit %d the queue is %v", sends, queue)
		}
	}
	if got := r.Read(ord); got.Status != payment.NeedsReview || r.Sim.Requests(gatewaysim.PaydiaPayment) != 3 {
		t.Errorf("%s after %d submits", got.Status, r.Sim.Requests(gatewaysim.PaydiaPayment))
	}
}

// TestRejectedResubmitIsVerified: the first submit has an unknown outcome, the second is
// rejected. The payment is not rejected, because the first may still be processed.
func TestRejectedResubmitIsVerified(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	r.SetPolicy(`gateways: {paydia: {verify: {settle: 10s, lookups: 2, then: retry, vendor_confirms: "the simulator, at any time"}}}`)
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultLateLost, Operation: gatewaysim.PaydiaPayment, Count: 1, Delay: time.Minute})
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultRefuse, Operation: gatewaysim.PaydiaPayment, Count: 1})
	r.Create(testenv.PaydiaOrder("ORD-1"))
	r.Submit(ord)
	for r.Read(ord).Status == payment.Verifying {
		r.Advance(time.Second)
		r.Poll(payment.Paydia)
	}
	r.Submit(ord) // rejected
	if s := r.Read(ord).Status; s != payment.Verifying {
		t.Fatalf("%s after a rejected second submit, want verifying", s)
	}
	r.Advance(time.Minute)
	r.Poll(payment.Paydia)
	if s := r.Read(ord).Status; s != payment.Paid {
		t.Errorf("%s, want paid: the gateway processed the first submit", s)
	}
}

// TestResubmitInReviewIsLookedUp: the first submit has an unknown outcome, the second sends
// the payment to review. Lookups still find that the first one was processed.
func TestResubmitInReviewIsLookedUp(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	r.SetPolicy(`gateways: {paydia: {verify: {settle: 10s, lookups: 2, then: retry, vendor_confirms: "the simulator, at any time"}}}`)
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultLateLost, Operation: gatewaysim.PaydiaPayment, Count: 1, Delay: time.Hour})
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultRefuse, Operation: gatewaysim.PaydiaPayment, Count: 1, Code: "4016300"})
	r.Create(testenv.PaydiaOrder("ORD-1"))
	r.Submit(ord)
	for r.Read(ord).Status == payment.Verifying {
		r.Advance(time.Second)
		r.Poll(payment.Paydia)
	}
	r.Submit(ord)
	if s := r.Read(ord).Status; s != payment.NeedsReview {
		t.Fatalf("%s, want needs_review", s)
	}
	for range 8 {
		r.Advance(10 * time.Minute)
		r.Poll(payment.Paydia)
	}
	if s := r.Read(ord).Status; s != payment.Paid {
		t.Errorf("%s, want paid", s)
	}
}

// TestErrorsChangeNothing: an open payment stays open after any failed lookup.
func TestErrorsChangeNothing(t *testing.T) {
	t.Parallel()
	for _, fault := range []gatewaysim.Fault{
		gatewaysim.FaultLostBefore, gatewaysim.Fault500Before, gatewaysim.FaultHTMLBefore, gatewaysim.FaultEmpty,
		gatewaysim.FaultCutShort, gatewaysim.FaultBusy, gatewaysim.FaultRefuse, gatewaysim.FaultDisagree,
	} {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			r := testenv.New(t, redistest.Mini(t))
			r.Create(testenv.AMOrder("INV/1"))
			r.Submit(inv)
			r.Sim.Inject(gatewaysim.FaultRule{Fault: fault, Operation: gatewaysim.AMList})
			r.Advance(30 * time.Second)
			r.Poll(payment.AMDigiPay)
			wantHistory(t, r, inv, "submit http:200 > accept", "on_processing")
			if r.Sim.Requests(gatewaysim.AMList) == 0 {
				t.Error("no lookup")
			}
		})
	}
}

// TestEveryPaymentIsReached: a failed login cuts every poll short. The payments that a poll
// did not reach come first in the next one.
func TestEveryPaymentIsReached(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	r.SetPolicy(`gateways: {paydia: {rules: [{code: "net:unknown", action: verify, backoff: {type: constant, base: 1s, jitter: 0%}}]}}`)
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultLostAfter, Operation: gatewaysim.PaydiaPayment})
	var keys []payment.Key
	for i := range 48 {
		key := payment.Key{Gateway: payment.Paydia, TransactionID: fmt.Sprintf("ORD-%d", i)}
		r.Create(testenv.PaydiaOrder(key.TransactionID))
		r.Submit(key)
		keys = append(keys, key)
	}
	waiting := func() (some []payment.Key) {
		for _, key := range keys {
			if len(r.Read(key).Attempts) == 1 {
				some = append(some, key)
			}
		}
		return some
	}
	// Three polls would be enough. Which of the sixteen requests in flight get an answer is
	// random, so allow more.
	for polls := 0; len(waiting()) > 0; polls++ {
		if polls == 12 {
			t.Fatalf("not looked up in %d polls: %v", polls, waiting())
		}
		r.Advance(6 * time.Minute) // longer than the longest pause between logins
		r.Sim.ClearFaults()
		if err := r.Paydia.Authenticate(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.Fault500Before, Operation: gatewaysim.PaydiaQuery, Count: 16})
		r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultTokenLost, Operation: gatewaysim.PaydiaQuery})
		r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.Fault500Before, Operation: gatewaysim.PaydiaToken})
		r.Poll(payment.Paydia)
	}
}

// TestMaxAttempts: a payment goes to review when its lookups are used up.
func TestMaxAttempts(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	r.SetPolicy(`gateways: {paydia: {rules: [{code: "net:unknown", action: verify, max_attempts: 4, backoff: {type: constant, base: 7s, jitter: 0%}}]}}`)
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultLostAfter, Operation: gatewaysim.PaydiaPayment})
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.Fault500Before, Operation: gatewaysim.PaydiaQuery})
	r.Create(testenv.PaydiaOrder("ORD-1"))
	r.Submit(ord)
	for range 60 {
		r.Advance(time.Second)
		r.Poll(payment.Paydia)
	}
	got := r.Read(ord)
	var at []time.Duration
	for _, a := range got.Attempts[1:] {
		at = append(at, a.At.Sub(got.Attempts[0].End()).Round(time.Second))
	}
	if diff := cmp.Diff([]time.Duration{7 * time.Second, 14 * time.Second, 21 * time.Second, 28 * time.Second}, at); diff != "" {
		t.Error(diff)
	}
	if got.Status != payment.NeedsReview || got.Reason == "" {
		t.Errorf("%s: %s", got.Status, got.Reason)
	}
}

// TestMaxElapsed: a payment goes to review when the time for its lookups is used up.
func TestMaxElapsed(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	r.SetPolicy(`gateways: {paydia: {rules: [{code: "net:unknown", action: verify, max_elapsed: 1m}]}}`)
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultLostAfter, Operation: gatewaysim.PaydiaPayment})
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.Fault500Before, Operation: gatewaysim.PaydiaQuery})
	r.Create(testenv.PaydiaOrder("ORD-1"))
	r.Submit(ord)
	for r.Read(ord).Status == payment.Verifying && r.Now().Before(testenv.Start.Add(time.Hour)) {
		r.Advance(time.Second)
		r.Poll(payment.Paydia)
	}
	if got, after := r.Read(ord), r.Now().Sub(testenv.Start); got.Status != payment.NeedsReview || after < time.Minute || after > 2*time.Minute {
		t.Errorf("%s after %s: %s", got.Status, after, got.Reason)
	}
}

// TestExpiryAndLatePayment: an unpaid payment expires, and becomes paid if the customer pays
// late.
func TestExpiryAndLatePayment(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	r.Sim.SetCustomer(gatewaysim.AM, "INV/1", gatewaysim.Customer{Behaviour: gatewaysim.PaysLate, After: time.Hour})
	r.Create(testenv.AMOrder("INV/1"), testenv.AMOrder("INV/2")) // expires in a day
	never := payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV/2"}
	r.Submit(inv)
	r.Submit(never)
	r.Advance(24*time.Hour + 30*time.Second) // within the grace time
	r.Poll(payment.AMDigiPay)
	if s := r.Read(inv).Status; s != payment.OnProcessing {
		t.Errorf("%s within the grace time", s)
	}
	r.Advance(time.Minute)
	r.Poll(payment.AMDigiPay)
	if s := r.Read(inv).Status; s != payment.Expired {
		t.Errorf("%s, want expired", s)
	}
	r.Advance(time.Hour)
	r.Poll(payment.AMDigiPay)
	wantHistory(t, r, inv, "submit http:200 > accept", "lookup http:200 > accept", "lookup http:200 > accept", "paid")
	if s := r.Read(never).Status; s != payment.Expired {
		t.Errorf("%s, want expired", s)
	}
	r.Advance(8 * 24 * time.Hour)
	r.Poll(payment.AMDigiPay)
	before := len(r.Sim.Journal())
	r.Advance(time.Hour)
	r.Poll(payment.AMDigiPay)
	if n := len(r.Sim.Journal()) - before; n != 0 {
		t.Errorf("%d requests after LateWindow", n)
	}
}

// TestExpiredClaimIsLookedUp: a worker was killed after it claimed a payment. When the claim
// has expired, the poll looks the payment up.
func TestExpiredClaimIsLookedUp(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	r.Create(testenv.PaydiaOrder("ORD-1"))
	_, result, err := r.Ledger.Claim(t.Context(), ord,
		ledger.Claim{
			Attempt: payment.Attempt{At: r.Now(), Kind: payment.KindSubmit, ExternalID: "1"}, Lease: testenv.Times.Lease, Timeout: time.Second,
		})
	if err != nil || result != ledger.Claimed {
		t.Fatal(result, err)
	}
	r.Advance(testenv.Times.Lease)
	due, _, err := r.Ledger.Due(t.Context(), payment.Gateways())
	if err != nil || !slices.Contains(due, payment.Paydia) {
		t.Fatalf("due: %v, %v", due, err)
	}
	r.Poll(payment.Paydia)
	// It is looked up at once, because the request ended long before the claim.
	wantHistory(t, r, ord, "submit net:unknown > verify", "lookup 4046401 > verify", "verifying")
	if a := r.Read(ord).Attempts[0]; a.ExternalID != "1" || a.DurationMS != testenv.Times.Lease.Milliseconds() {
		t.Errorf("%+v", a)
	}
}

// TestLostTaskIsRequeued: the payment is in the ledger, but its task is lost.
func TestLostTaskIsRequeued(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	r.Create(testenv.AMOrder("INV/1"))
	r.Advance(ledger.TaskGrace)
	r.Poll(payment.AMDigiPay)
	if diff := cmp.Diff([]payment.Key{inv}, r.Queue()); diff != "" {
		t.Error(diff)
	}
	r.Poll(payment.AMDigiPay)
	if queue := r.Queue(); queue != nil {
		t.Errorf("requeued again at once: %v", queue)
	}
}

// pageLimit makes AM return at most n rows per page. Small pages keep the tests fast.
func pageLimit(n int) func(*gatewaysim.Config) {
	return func(c *gatewaysim.Config) { c.AM.MaxLimit = n }
}

// TestOneScanForAllPayments: a poll reads the list once for all payments, and no further
// than necessary.
func TestOneScanForAllPayments(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t), pageLimit(25))
	r.Sim.AddOtherTransactions(125, time.Hour, gatewaysim.Customer{Behaviour: gatewaysim.Pays})
	all, orders := keys(50)
	for i := range 5 {
		r.Sim.SetCustomer(gatewaysim.AM, all[i*10].TransactionID, gatewaysim.Customer{Behaviour: gatewaysim.Pays, After: 45 * time.Second})
	}
	r.Create(orders...)
	for _, key := range all {
		r.Submit(key)
	}
	requests := func() int {
		before := r.Sim.Requests(gatewaysim.AMList)
		r.Advance(30 * time.Second)
		r.Poll(payment.AMDigiPay)
		return r.Sim.Requests(gatewaysim.AMList) - before
	}
	if n := requests(); n != 2 {
		t.Errorf("50 open: %d requests, want 2", n)
	}
	if n := requests(); n > 10 {
		t.Errorf("5 newly paid: %d requests, want at most 10", n)
	}
	for i := range 5 {
		if s := r.Read(all[i*10]).Status; s != payment.Paid {
			t.Errorf("%s: %s, want paid", all[i*10], s)
		}
	}
	if n := requests(); n != 2 {
		t.Errorf("45 open: %d requests, want 2", n)
	}
}

// TestOldPaymentIsAskedByDetail: there are many newer rows in the list. Without
// detail-transaction the payment costs a list scan and is still found.
func TestOldPaymentIsAskedByDetail(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		detail bool
		most   int
	}{{"detail", true, 4}, {"no detail", false, 40}} {
		t.Run(c.name, func(t *testing.T) {
			r := testenv.New(t, redistest.Mini(t), pageLimit(10))
			r.Sim.SetCustomer(gatewaysim.AM, "INV/1", gatewaysim.Customer{Behaviour: gatewaysim.Pays, After: 10 * time.Second})
			r.Create(testenv.AMOrder("INV/1"))
			r.Submit(inv)
			r.Sim.AddOtherTransactions(300, time.Second, gatewaysim.Customer{Behaviour: gatewaysim.Pays})
			if !c.detail {
				r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultHTMLBefore, Operation: gatewaysim.AMDetail, Status: 404})
			}
			before := len(r.Sim.Journal())
			r.Advance(30 * time.Second)
			r.Poll(payment.AMDigiPay)
			if n := len(r.Sim.Journal()) - before; n > c.most {
				t.Errorf("%d requests, want at most %d", n, c.most)
			}
			if s := r.Read(inv).Status; s != payment.Paid {
				t.Errorf("%s, want paid", s)
			}
		})
	}
}

// TestOneScanAfterOutage: one list scan looks up many payments of unknown outcome. The gateway
// has three quarters of them.
func TestOneScanAfterOutage(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t), pageLimit(10))
	r.Sim.AddOtherTransactions(30, time.Hour, gatewaysim.Customer{Behaviour: gatewaysim.Pays})
	all, orders := keys(10)
	for i, key := range all {
		fault := gatewaysim.FaultLostAfter
		if i%4 == 0 {
			fault = gatewaysim.FaultLostBefore
		}
		r.Sim.Inject(gatewaysim.FaultRule{Fault: fault, Operation: gatewaysim.AMCreate, Reference: key.TransactionID, Count: 1})
	}
	r.Create(orders...)
	for i, key := range all {
		r.Submit(key)
		r.Advance(time.Duration(i%3) * 10 * time.Millisecond)
	}
	r.Advance(10 * time.Second)
	r.Poll(payment.AMDigiPay)
	if n := r.Sim.Requests(gatewaysim.AMList); n > 4 { // 37 rows
		t.Errorf("%d requests, the list has 4 pages", n)
	}
	for i, key := range all {
		want := payment.OnProcessing
		if i%4 == 0 {
			want = payment.Verifying
		}
		if got := r.Read(key).Status; got != want {
			t.Errorf("%s: %s, want %s", key, got, want)
		}
	}
}

// TestOnlyConfirmingLookupIsFullScan: AM never received the payment, and has many older rows.
// The lookups read only the rows that are new since the submit, except the last one, which
// can confirm the absence.
func TestOnlyConfirmingLookupIsFullScan(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		order gatewaysim.ListOrder
		want  []int // requests of each lookup
	}{
		{gatewaysim.OrderDesc, []int{1, 1, 1, 1, 31}},
		{gatewaysim.OrderAsc, []int{31, 31, 31, 31, 31}}, // the list is not ordered as documented
	} {
		t.Run(string(c.order), func(t *testing.T) {
			r := testenv.New(t, redistest.Mini(t), pageLimit(10), func(cfg *gatewaysim.Config) { cfg.AM.ListOrder = c.order })
			r.Sim.AddOtherTransactions(300, time.Hour, gatewaysim.Customer{Behaviour: gatewaysim.Pays})
			r.Create(testenv.AMOrder("INV/0"), testenv.AMOrder("INV/1"))
			r.Submit(payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV/0"})
			r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultLostBefore, Operation: gatewaysim.AMCreate})
			r.Submit(inv)
			var requests []int
			for r.Read(inv).Status == payment.Verifying && r.Now().Before(testenv.Start.Add(time.Hour)) {
				r.Advance(5 * time.Second)
				before, lookups := r.Sim.Requests(gatewaysim.AMList), len(r.Attempts)
				r.Poll(payment.AMDigiPay)
				if len(r.Attempts) > lookups {
					requests = append(requests, r.Sim.Requests(gatewaysim.AMList)-before)
				}
			}
			if s := r.Read(inv).Status; s != payment.NeedsReview {
				t.Errorf("%s, want needs_review", s)
			}
			for i := range c.want {
				if i >= len(requests) || requests[i] > c.want[i]+2 { // a lookup of INV/0 may be part of it
					t.Fatalf("requests %v, want about %v", requests, c.want)
				}
			}
		})
	}
}

// TestShortcutIsNotConclusive: AM's new ids are lower than an id seen before, so a scan with
// shortcuts misses the payment. The payment must not be taken for absent.
func TestShortcutIsNotConclusive(t *testing.T) {
	t.Parallel()
	client := redistest.Mini(t)
	r := testenv.New(t, client)
	if err := client.HSet(t.Context(), "{"+ledger.DefaultStream+"}:counts:amdigipay", "highest", 1_000_000).Err(); err != nil {
		t.Fatal(err)
	}
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultLostAfter, Operation: gatewaysim.AMCreate})
	r.Create(testenv.AMOrder("INV/1"))
	r.Submit(inv)
	r.Sim.AddOtherTransactions(300, time.Second, gatewaysim.Customer{Behaviour: gatewaysim.Pays})
	for range 10 {
		r.Advance(time.Minute)
		r.Poll(payment.AMDigiPay)
	}
	if got := r.Read(inv); got.Status != payment.OnProcessing {
		t.Errorf("%s: %s", got.Status, got.Reason)
	}
	if a := r.Read(inv).Attempts; len(a) < 3 || a[1].Action != "verify" {
		t.Errorf("no lookup missed it: %+v", a)
	}
}

// TestRequestsPerPoll counts the requests of a poll with 2000 older rows and 10 rows per page:
// with 20 open payments, and after an outage that left 100 payments of unknown outcome.
func TestRequestsPerPoll(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t), pageLimit(10))
	r.Sim.AddOtherTransactions(2000, 24*time.Hour, gatewaysim.Customer{Behaviour: gatewaysim.Pays})
	all, orders := keys(20)
	for i := range 5 {
		r.Sim.SetCustomer(gatewaysim.AM, all[i*4].TransactionID, gatewaysim.Customer{Behaviour: gatewaysim.Pays, After: 45 * time.Second})
	}
	r.Create(orders...)
	for _, key := range all {
		r.Submit(key)
	}
	requests := func(forward time.Duration) int {
		before := len(r.Sim.Journal())
		r.Advance(forward)
		r.Poll(payment.AMDigiPay)
		return len(r.Sim.Journal()) - before
	}
	if n := requests(30 * time.Second); n > 2 {
		t.Errorf("20 open: %d requests, want at most 2", n)
	}
	if n := requests(30 * time.Second); n > 10 {
		t.Errorf("5 newly paid: %d requests, want at most 10", n)
	}
	var lost [][]byte
	var unknown []payment.Key
	for i := range 100 {
		id := fmt.Sprintf("LOST-%d", i)
		lost = append(lost, testenv.AMOrder(id))
		unknown = append(unknown, payment.Key{Gateway: payment.AMDigiPay, TransactionID: id})
	}
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultLostAfter, Operation: gatewaysim.AMCreate})
	r.Create(lost...)
	for _, key := range unknown {
		r.Submit(key)
	}
	if n := requests(6 * time.Second); n > 12 {
		t.Errorf("100 unknown: %d requests, want at most 12, as their rows are on 12 pages", n)
	}
	for _, key := range unknown {
		if s := r.Read(key).Status; s != payment.OnProcessing {
			t.Fatalf("%s: %s, want on_processing", key, s)
		}
	}
}

// TestOpenRowsOfOthers: transactions that are never paid stay open at AM forever. A poll does
// not read hundreds of pages of such rows.
func TestOpenRowsOfOthers(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t), pageLimit(10))
	r.Sim.SetCustomer(gatewaysim.AM, "INV/1", gatewaysim.Customer{Behaviour: gatewaysim.Pays, After: 45 * time.Second})
	r.Create(testenv.AMOrder("INV/1"))
	r.Submit(inv)
	r.Sim.AddOtherTransactions(2000, 0, gatewaysim.Customer{Behaviour: gatewaysim.NeverPays})
	for _, want := range []payment.Status{payment.OnProcessing, payment.Paid} {
		before := len(r.Sim.Journal())
		r.Advance(30 * time.Second)
		r.Poll(payment.AMDigiPay)
		if n := len(r.Sim.Journal()) - before; n > 2 || r.Read(inv).Status != want {
			t.Errorf("%d requests, %s; want at most 2, %s", n, r.Read(inv).Status, want)
		}
	}
}

// TestListChangesDuringScan: rows are added and removed between two pages. A payment that AM
// has must not be taken for absent, in any order of the list.
func TestListChangesDuringScan(t *testing.T) {
	t.Parallel()
	for _, order := range []gatewaysim.ListOrder{gatewaysim.OrderDesc, gatewaysim.OrderAsc, gatewaysim.OrderScrambled} {
		t.Run(string(order), func(t *testing.T) {
			t.Parallel()
			r := testenv.New(t, redistest.Mini(t), func(c *gatewaysim.Config) { c.AM.ListOrder = order; c.AM.MaxLimit = 10 })
			r.Sim.AddOtherTransactions(80, time.Hour, gatewaysim.Customer{Behaviour: gatewaysim.NeverPays})
			r.Sim.SetListMotion(gatewaysim.ListMotion{NewRows: 7, PaidRows: 5})
			all, orders := keys(20)
			for i, key := range all {
				switch i % 4 {
				case 0:
					r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultLostAfter, Operation: gatewaysim.AMCreate, Reference: key.TransactionID, Count: 1})
				case 1:
					r.Sim.SetCustomer(gatewaysim.AM, key.TransactionID, gatewaysim.Customer{Behaviour: gatewaysim.Pays, After: time.Minute})
				}
			}
			r.Create(orders...)
			for _, key := range all {
				r.Submit(key)
			}
			for range 6 {
				r.Advance(30 * time.Second)
				r.Poll(payment.AMDigiPay)
			}
			for i, key := range all {
				want := payment.OnProcessing
				if i%4 == 1 {
					want = payment.Paid
				}
				if got := r.Read(key); got.Status != want {
					t.Errorf("%s: %s (%s), want %s", key, got.Status, got.Reason, want)
				}
			}
		})
	}
}

// TestLongQueue: payments that wait in a long queue are requeued with a few round trips for
// all of them. A payment that is claimed meanwhile is due when its claim expires.
func TestLongQueue(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	_, orders := keys(300)
	r.Create(orders...)
	r.Advance(ledger.TaskGrace)
	requeue := r.Poller.Requeue
	r.Poller.Requeue = func(ctx context.Context, payments []*payment.Payment) error {
		if _, result, err := r.Ledger.Claim(ctx, inv, ledger.Claim{Attempt: payment.Attempt{Kind: payment.KindSubmit}, Lease: time.Second, Timeout: time.Second}); result != ledger.Claimed {
			t.Error(result, err)
		}
		return requeue(ctx, payments)
	}
	trips := redistest.CountRoundTrips(r.Redis)
	r.Poll(payment.AMDigiPay)
	// TakeDue, the records, the claim and Reschedule; the connection, and the first load of
	// each script.
	if n := len(r.Queue()); n != 300 || trips.N() > 15 {
		t.Errorf("%d requeued, %d round trips", n, trips.N())
	}
	r.Poller.Requeue = requeue
	r.Advance(time.Second)
	r.Poll(payment.AMDigiPay)
	wantHistory(t, r, inv, "submit net:unknown > verify", "lookup http:200 > verify", "verifying")
	r.Advance(ledger.TaskGrace)
	r.Poll(payment.AMDigiPay)
	if n := len(r.Queue()); n != 299 {
		t.Errorf("%d requeued", n)
	}
}

// lateAsker calls late before it returns its findings.
type lateAsker struct {
	statuspoll.Asker
	late func()
}

func (a lateAsker) Ask(ctx context.Context, wanted []*ledger.Record, fullScan bool) ([]statuspoll.Finding, error) {
	defer a.late()
	return a.Asker.Ask(ctx, wanted, fullScan)
}

// TestSettleEndsWithAnswer: settle is compared with the time of the gateway's answer, not with
// the time when it is recorded.
func TestSettleEndsWithAnswer(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	r.SetPolicy(`gateways: {paydia: {verify: {settle: 1m, lookups: 1, then: review}}}`)
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultLostBefore, Operation: gatewaysim.PaydiaPayment})
	r.Create(testenv.PaydiaOrder("ORD-1"))
	r.Submit(ord)
	r.Advance(30 * time.Second)
	asker := r.Poller.Askers[payment.Paydia]
	r.Poller.Askers[payment.Paydia] = lateAsker{asker, func() { r.Advance(time.Hour) }}
	r.Poll(payment.Paydia)
	wantHistory(t, r, ord, "submit net:unknown > verify", "lookup 4046401 > verify", "verifying")
	r.Advance(time.Hour)
	r.Poll(payment.Paydia)
	wantHistory(t, r, ord, "submit net:unknown > verify", "lookup 4046401 > verify", "lookup 4046401 > review", "needs_review")
}

// TestPrimaryChanged: after a failover the count and the time of "no such payment" restart,
// because times by the clock of the old primary cannot be compared with the new one's.
func TestPrimaryChanged(t *testing.T) {
	t.Parallel()
	client := redistest.Server(t, "--enable-debug-command", "yes").Client(t)
	r := testenv.New(t, client)
	r.SetPolicy(`gateways: {paydia: {verify: {settle: 1ms, lookups: 2, then: review}, rules: [
		{code: "net:unknown", action: verify, backoff: {type: constant, base: 1ms, jitter: 0%}, max_attempts: 100}]}}`)
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultLostBefore, Operation: gatewaysim.PaydiaPayment})
	r.Create(testenv.PaydiaOrder("ORD-1"))
	r.Submit(ord)
	lookUp := func() {
		t.Helper()
		deadline := time.Now().Add(20 * time.Second)
		for before := len(r.Read(ord).Attempts); len(r.Read(ord).Attempts) == before; {
			if r.Poll(payment.Paydia); time.Now().After(deadline) {
				t.Fatal("not looked up in time")
			}
		}
	}
	lookUp()
	if err := client.Do(t.Context(), "DEBUG", "CHANGE-REPL-ID").Err(); err != nil {
		t.Fatal(err)
	}
	before := r.Read(ord)
	lookUp()
	got := r.Read(ord)
	if got.NotFound != 1 || !got.UnknownSince.After(before.UnknownSince) {
		t.Errorf("not found %d times since %v, want 1, after %v", got.NotFound, got.UnknownSince, before.UnknownSince)
	}
	lookUp()
	wantHistory(t, r, ord, "submit net:unknown > verify", "lookup 4046401 > verify", "lookup 4046401 > verify",
		"lookup 4046401 > review", "needs_review")
}

// TestTwiceAtTheGateway: another system has sent the same transaction id, so the payment goes
// to review.
func TestTwiceAtTheGateway(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t), func(c *gatewaysim.Config) { c.AM.Duplicates = gatewaysim.DuplicateSecond })
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultLostAfter, Operation: gatewaysim.AMCreate})
	r.Create(testenv.AMOrder("INV/1"), testenv.AMOrder("INV/2"))
	r.Submit(inv)
	other := testenv.New(t, redistest.Mini(t))
	other.Submitter.Gateways[payment.AMDigiPay] = r.AM
	other.Create(testenv.AMOrder("INV/1"))
	other.Submit(inv)
	r.Advance(6 * time.Second)
	r.Poll(payment.AMDigiPay)
	if got := r.Read(inv); got.Status != payment.NeedsReview || got.Reason == "" {
		t.Errorf("%s: %s", got.Status, got.Reason)
	}
}

// TestTicker: a poll is enqueued for the gateway with a due payment only, with the time of the
// tick.
func TestTicker(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	r.Create(testenv.PaydiaOrder("ORD-1"))
	r.Advance(ledger.TaskGrace)
	polled := make(chan string)
	ticker := &statuspoll.Ticker{
		Ledger: r.Ledger, Gateways: payment.Gateways(), Every: 10 * time.Millisecond, Now: r.Now,
		Enqueue: func(_ context.Context, g payment.Gateway, tick time.Time) error {
			polled <- fmt.Sprint(g, " ", tick.Format(time.RFC3339))
			return nil
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); ticker.Run(ctx) }()
	want := "paydia " + testenv.Start.Add(ledger.TaskGrace).Format(time.RFC3339)
	for range 2 {
		if got := <-polled; got != want {
			t.Error(got)
		}
	}
	cancel()
	select {
	case <-polled: // one may be in progress
		<-done
	case <-done:
	}
}
