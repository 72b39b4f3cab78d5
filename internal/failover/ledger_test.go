package failover_test

import (
	"errors"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/testenv/verify"
)

// withoutTask is a payment without a task, so no worker processes it.
var withoutTask = payment.Key{Gateway: payment.AMDigiPay, TransactionID: "LEDGER-1"}

// createWithoutTask creates the record of the payment withoutTask.
func (e *env) createWithoutTask(l *ledger.Ledger) {
	e.Helper()
	created := l.Create(e.Context(), []ledger.NewPayment{{Key: withoutTask, Amount: 13000, Order: []byte(`{}`), Digest: "d"}})
	if created[0].Err != nil || created[0].Creation != ledger.Created {
		e.Fatalf("%+v", created)
	}
}

// claim claims the payment withoutTask.
func (e *env) claim(l *ledger.Ledger) (*ledger.Record, ledger.ClaimResult, error) {
	e.Helper()
	return l.Claim(e.Context(), withoutTask, ledger.Claim{
		Attempt: payment.Attempt{At: time.Now(), Kind: payment.KindSubmit}, Lease: time.Minute, Timeout: 5 * time.Second,
	})
}

// checkLedger creates, claims and saves a payment. A second claim and a save of a stale record
// are rejected, there is one event, and in the end the payment is no longer due.
func (e *env) checkLedger() {
	e.Helper()
	l := e.openLedger()
	e.createWithoutTask(l)
	first, result, err := e.claim(l)
	if err != nil || result != ledger.Claimed {
		e.Fatalf("claim: %s, %v", result, err)
	}
	if _, result, err := e.claim(l); err != nil || result != ledger.Busy {
		e.Errorf("second claim: %s, %v", result, err)
	}
	stale, err := l.Read(e.Context(), withoutTask)
	if err != nil {
		e.Fatal(err)
	}
	a := first.Attempts[0]
	a.Code, a.Action = "200", "accept"
	first.Status, first.GatewayStatus, first.GatewayReference = payment.Paid, "Terbayar", "6"
	first.FinishAttempt(a)
	if err := l.Save(e.Context(), first); err != nil {
		e.Fatal(err)
	}
	stale.Status = payment.Rejected
	if err := l.Save(e.Context(), stale); !errors.Is(err, ledger.ErrFenced) {
		e.Errorf("a stale record was saved: %v", err)
	}
	if r := e.read(withoutTask); r.Status != payment.Paid || len(r.Attempts) != 1 || r.Attempts[0].Code != "200" {
		e.Errorf("%+v", r)
	}
	events := slices.DeleteFunc(e.Stream(), func(event verify.Event) bool { return event.Key() != withoutTask })
	if len(events) != 1 || events[0].Payment.Status != payment.Paid {
		e.Errorf("events %+v", events)
	}
	for _, set := range []string{"open", "sending"} {
		if err := e.Redis.ZScore(e.Context(), "{terbayar:events}:"+set+":amdigipay", withoutTask.TransactionID).Err(); !errors.Is(err, redis.Nil) {
			e.Errorf("it is still in the set %s: %v", set, err)
		}
	}
}
