package failover_test

import (
	"errors"
	"testing"
	"time"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
)

// aPayment is one that no worker hears of: it has no task.
var aPayment = payment.Key{Gateway: payment.AMDigiPay, TransactionID: "LEDGER-1"}

// enter writes aPayment down.
func (s *stage) enter() {
	s.Helper()
	created := s.book.Create(s.Context(), []ledger.NewPayment{{Key: aPayment, Amount: 13000, Order: []byte(`{}`), Digest: "d"}})
	if created[0].Err != nil || created[0].Creation != ledger.Created {
		s.Fatalf("%+v", created)
	}
}

// claim claims aPayment.
func (s *stage) claim() (*ledger.Record, ledger.ClaimResult, error) {
	return s.book.Claim(s.Context(), aPayment, ledger.Claim{
		Attempt: payment.Attempt{At: time.Now(), Kind: payment.KindSubmit}, Lease: time.Minute, Timeout: 5 * time.Second,
	})
}

// ledgerWorks takes aPayment through the ledger: created, claimed once, saved
// with its event, fenced, and no longer open.
func ledgerWorks(t *testing.T, url string) {
	s := newStage(t, url)
	s.enter()
	first, verdict, err := s.claim()
	if err != nil || verdict != ledger.Claimed {
		t.Fatalf("claim: %s, %v", verdict, err)
	}
	if _, verdict, err := s.claim(); err != nil || verdict != ledger.Busy {
		t.Errorf("second claim: %s, %v", verdict, err)
	}
	stale, err := s.book.Read(t.Context(), aPayment)
	if err != nil {
		t.Fatal(err)
	}
	a := first.Attempts[0]
	a.Code, a.Action = "200", "accept"
	first.Status, first.GatewayStatus, first.GatewayReference = payment.Paid, "Terbayar", "6"
	first.FinishAttempt(a)
	if err := s.book.Save(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	stale.Status = payment.Rejected
	if err := s.book.Save(t.Context(), stale); !errors.Is(err, ledger.ErrFenced) {
		t.Errorf("a stale record was saved: %v", err)
	}
	if r := s.read(aPayment); r.Status != payment.Paid || len(r.Attempts) != 1 || r.Attempts[0].Code != "200" {
		t.Errorf("%+v", r)
	}
	if events := s.events(); len(events[aPayment.String()]) != 1 || events[aPayment.String()][0] != payment.Paid {
		t.Errorf("events %v", events)
	}
	if open := s.open(); len(open) != 0 {
		t.Errorf("open: %v", open)
	}
}
