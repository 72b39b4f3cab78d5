package statuspoll_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/admission"
	"terbayar/internal/gatewaysim"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/statuspoll"
	"terbayar/internal/testenv"
)

const askInterval = 10 * time.Second

// askFor asks for a lookup as a callback does.
func askFor(t *testing.T, r *testenv.Env, key payment.Key, want ledger.AskResult) {
	t.Helper()
	if got, err := r.Ledger.Ask(t.Context(), key, askInterval); err != nil || got != want {
		t.Fatalf("Ask: %q, %v; want %q", got, err, want)
	}
}

func lookUpAsked(t *testing.T, r *testenv.Env, g payment.Gateway) {
	t.Helper()
	if err := r.Poller.LookUpAsked(t.Context(), g); err != nil {
		t.Fatal(err)
	}
}

// asked returns the gateways with a lookup that was asked for and is due.
func asked(t *testing.T, r *testenv.Env) []payment.Gateway {
	t.Helper()
	_, asked, err := r.Ledger.Due(t.Context(), payment.Gateways())
	if err != nil {
		t.Fatal(err)
	}
	return asked
}

// TestAskedIsFoundAtOnce: long before the next poll.
func TestAskedIsFoundAtOnce(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	r.Poller.Interval, r.Submitter.PollInterval = 10*time.Minute, 10*time.Minute
	r.Create(testenv.AMOrder("INV/1"))
	r.Submit(inv)
	due := r.Read(inv).NextAt
	askFor(t, r, inv, ledger.AskedNow)
	lookUpAsked(t, r, inv.Gateway)
	wantHistory(t, r, inv, "submit http:200 > accept", "on_processing")
	if got := r.Read(inv).NextAt; !got.Equal(due) {
		t.Errorf("next at %s, want %s as before", got, due)
	}
	r.Sim.SetCustomer(gatewaysim.AM, "INV/1", gatewaysim.Customer{Behaviour: gatewaysim.Pays})
	askFor(t, r, inv, ledger.AskedLater)
	lookUpAsked(t, r, inv.Gateway)
	r.Advance(askInterval)
	if diff := cmp.Diff([]payment.Gateway{inv.Gateway}, asked(t, r)); diff != "" {
		t.Error(diff)
	}
	lookUpAsked(t, r, inv.Gateway)
	wantHistory(t, r, inv, "submit http:200 > accept", "lookup http:200 > accept", "paid")
	askFor(t, r, inv, ledger.NotLookedUp)
	if asked(t, r) != nil {
		t.Error("something is left to look up")
	}
}

// TestForgedCallbacksGainNothing: payments of unknown outcome, for which a callback every ten
// seconds asks for a lookup, have the same history at the same times as without: no attempt is
// used up, "no such payment" is confirmed no sooner, and the scheduled lookups are not moved.
func TestForgedCallbacksGainNothing(t *testing.T) {
	t.Parallel()
	type step struct {
		At      time.Duration
		History []string
	}
	const length = 20 * time.Minute
	run := func(t *testing.T, key payment.Key, fault gatewaysim.Fault, forged bool) (steps []step, requests int) {
		r := testenv.New(t, redistest.Mini(t))
		r.SetPolicy(`gateways:
  amdigipay: {rules: [{code: "net:unknown", action: verify, backoff: {type: exponential, base: 5s, cap: 10m, jitter: 0%}, max_attempts: 12}]}
  paydia: {rules: [{code: "net:unknown", action: verify, backoff: {type: exponential, base: 5s, cap: 10m, jitter: 0%}, max_attempts: 12}]}
`)
		r.Sim.AddOtherTransactions(5, time.Hour, gatewaysim.Customer{Behaviour: gatewaysim.Pays})
		r.Sim.Inject(gatewaysim.FaultRule{Fault: fault, Operation: gatewaysim.AMCreate, Count: 1})
		r.Sim.Inject(gatewaysim.FaultRule{Fault: fault, Operation: gatewaysim.PaydiaPayment, Count: 1})
		r.Create(testenv.AMOrder(inv.TransactionID), testenv.PaydiaOrder(ord.TransactionID))
		r.Submit(key)
		last := ""
		for at := time.Duration(0); at < length; at += 2 * time.Second {
			if due, _, err := r.Ledger.Due(t.Context(), payment.Gateways()); err != nil {
				t.Fatal(err)
			} else if slices.Contains(due, key.Gateway) {
				r.Poll(key.Gateway)
			}
			if forged {
				if _, err := r.Ledger.Ask(t.Context(), key, askInterval); err != nil {
					t.Fatal(err)
				}
				lookUpAsked(t, r, key.Gateway)
			}
			if h := r.History(key); cmp.Diff(last, h[len(h)-1]) != "" || len(steps) > 0 && len(h) != len(steps[len(steps)-1].History) {
				steps, last = append(steps, step{at, h}), h[len(h)-1]
			}
			r.Advance(2 * time.Second)
		}
		return steps, r.Sim.Requests(gatewaysim.AMList) + r.Sim.Requests(gatewaysim.PaydiaQuery)
	}
	for _, key := range []payment.Key{inv, ord} {
		t.Run(string(key.Gateway), func(t *testing.T) {
			t.Parallel()
			without, before := run(t, key, gatewaysim.FaultLostBefore, false)
			with, after := run(t, key, gatewaysim.FaultLostBefore, true)
			if diff := cmp.Diff(without, with); diff != "" {
				t.Errorf("without callbacks -, with +\n%s", diff)
			}
			if end := without[len(without)-1].History; len(end) < 5 || end[len(end)-1] != "needs_review" {
				t.Errorf("the payment did not reach review: %v", end)
			}
			// One request per ten seconds at Paydia, some pages at AM.
			if after <= before || after-before > 3*int(length/askInterval) {
				t.Errorf("%d requests without callbacks, %d with", before, after)
			}
			t.Logf("%d requests without callbacks, %d with", before, after)
		})
	}
}

// TestAskedFindsUnknownOutcome: a callback ends an unknown outcome before its next lookup.
func TestAskedFindsUnknownOutcome(t *testing.T) {
	t.Parallel()
	for _, key := range []payment.Key{inv, ord} {
		t.Run(string(key.Gateway), func(t *testing.T) {
			t.Parallel()
			r := testenv.New(t, redistest.Mini(t))
			r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultLostAfter, Operation: gatewaysim.AMCreate})
			r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultLostAfter, Operation: gatewaysim.PaydiaPayment})
			r.Create(testenv.AMOrder(inv.TransactionID), testenv.PaydiaOrder(ord.TransactionID))
			r.Submit(key)
			askFor(t, r, key, ledger.AskedNow)
			lookUpAsked(t, r, key.Gateway)
			if h := r.History(key); len(h) != 3 || h[2] != "on_processing" && h[2] != "paid" {
				t.Error(h)
			}
		})
	}
}

// TestAskedAfterExpiry: an expired payment, and a lookup that changes nothing does not move the next
// one.
func TestAskedAfterExpiry(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	r.Create(testenv.AMOrder("INV/1"))
	r.Submit(inv)
	r.Advance(48 * time.Hour)
	r.Poll(inv.Gateway)
	before := r.Read(inv)
	if before.Status != payment.Expired || before.NextAt.IsZero() {
		t.Fatalf("%+v", before.Payment)
	}
	r.Advance(time.Minute)
	askFor(t, r, inv, ledger.AskedNow)
	lookUpAsked(t, r, inv.Gateway)
	if got := r.Read(inv); !got.NextAt.Equal(before.NextAt) || got.Status != payment.Expired {
		t.Errorf("next at %s, want %s", got.NextAt, before.NextAt)
	}
	r.Sim.SetCustomer(gatewaysim.AM, "INV/1", gatewaysim.Customer{Behaviour: gatewaysim.PaysLate})
	r.Advance(askInterval)
	askFor(t, r, inv, ledger.AskedNow)
	lookUpAsked(t, r, inv.Gateway)
	if got := r.Read(inv); got.Status != payment.Paid {
		t.Errorf("%s", got.Status)
	}
}

// TestAskedGatewayUnavailable: while the gateway cannot be asked, the payments stay in the list, and
// admission is obeyed.
func TestAskedGatewayUnavailable(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	r.UseAdmission(admission.Options{Failures: 1, Pause: time.Hour})
	keys, orders := keys(3)
	r.Create(orders...)
	for _, key := range keys {
		r.Submit(key)
		askFor(t, r, key, ledger.AskedNow)
	}
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.Fault500Before, Operation: gatewaysim.AMList})
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.Fault500Before, Operation: gatewaysim.AMDetail})
	lookUpAsked(t, r, inv.Gateway) // opens the breaker
	for _, key := range keys {
		r.Advance(askInterval)
		if _, err := r.Ledger.Ask(t.Context(), key, askInterval); err != nil {
			t.Fatal(err)
		}
	}
	before := r.Sim.Requests(gatewaysim.AMList)
	lookUpAsked(t, r, inv.Gateway)
	if n := r.Sim.Requests(gatewaysim.AMList) - before; n != 0 {
		t.Errorf("%d requests while the breaker is open", n)
	}
	if asked(t, r) == nil {
		t.Error("the payments are lost")
	}
	for _, key := range keys {
		wantHistory(t, r, key, "submit http:200 > accept", "on_processing")
	}
}

// TestTickerLooksUp: LookUp runs once at a time for each gateway, and Run waits for it.
func TestTickerLooksUp(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	r.Create(testenv.AMOrder("INV/1"))
	r.Submit(inv)
	askFor(t, r, inv, ledger.AskedNow)
	calls := make(chan payment.Gateway, 1)
	var running atomic.Int32
	ticker := &statuspoll.Ticker{
		Ledger: r.Ledger, Gateways: payment.Gateways(), Every: time.Millisecond, Now: r.Now,
		LookUp: func(ctx context.Context, g payment.Gateway) error {
			if running.Add(1) > 1 {
				t.Error("a second call at the same time")
			}
			defer running.Add(-1)
			select {
			case calls <- g:
			default:
			}
			<-ctx.Done()
			return ctx.Err()
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); ticker.Run(ctx) }()
	if g := <-calls; g != inv.Gateway {
		t.Error(g)
	}
	for range 20 { // ticks
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-done
	if running.Load() != 0 {
		t.Error("Run has not waited for LookUp")
	}
}
