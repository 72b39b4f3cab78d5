package statuspoll_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/clients"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/retrypolicy"
	"terbayar/internal/statuspoll"
	"terbayar/internal/testenv"
)

// longAsker needs a long time for every lookup, and finds nothing.
type longAsker struct {
	takes time.Duration
	asked atomic.Int32 // number of payments
}

func (*longAsker) Shared() bool { return false }

func (*longAsker) RoundSize() int { return 10 }

func (*longAsker) Ready(context.Context) error { return nil }

func (a *longAsker) Ask(_ context.Context, wanted []*ledger.Record, _ bool) ([]statuspoll.Finding, error) {
	a.asked.Add(int32(len(wanted)))
	findings := make([]statuspoll.Finding, len(wanted))
	for i := range findings {
		findings[i].Answer = clients.Answer{Code: "4046401", At: time.Now(), Absent: true}
	}
	time.Sleep(a.takes)
	return findings, nil
}

// TestBatchStaysHiddenDuringLookup: a lookup takes a minute. Meanwhile its payments are not due
// for another poll; afterwards they are due again as the finding says.
func TestBatchStaysHiddenDuringLookup(t *testing.T) {
	mini := miniredis.RunT(t)
	synctest.Test(t, func(t *testing.T) {
		client := redis.NewClient(&redis.Options{Addr: mini.Addr()})
		defer client.Close()
		mini.SetTime(time.Now())
		book := testenv.NewLedger(client, time.Now)
		asker := &longAsker{takes: time.Minute}
		poller := &statuspoll.Poller{
			Ledger: book, Askers: map[payment.Gateway]statuspoll.Asker{payment.Paydia: asker},
			Policy: retrypolicy.Builtin(), Interval: 30 * time.Second, FullScan: time.Hour, Now: time.Now,
			OnAttempt: func(*ledger.Record, payment.Attempt, error) {},
		}
		book.Create(t.Context(), []ledger.NewPayment{{Key: ord, Amount: 10000, Order: []byte(`{}`), Digest: "d"}})
		r, result, err := book.Claim(t.Context(), ord, ledger.Claim{
			Attempt: payment.Attempt{At: time.Now(), Kind: payment.KindSubmit}, Lease: time.Minute, Timeout: time.Second,
		})
		if err != nil || result != ledger.Claimed {
			t.Fatal(result, err)
		}
		r.MarkUnknown(retrypolicy.CodeUnknown)
		r.Due = ledger.In(0)
		if err := book.Save(t.Context(), r); err != nil {
			t.Fatal(err)
		}

		polled := make(chan error, 1)
		go func() { polled <- poller.Poll(t.Context(), payment.Paydia) }()
		begun := time.Now()
		for range 58 { // every second, like the ticker of every replica
			time.Sleep(time.Second)
			mini.SetTime(time.Now())
			due, _, err := book.Due(t.Context(), []payment.Gateway{payment.Paydia})
			if err != nil {
				t.Fatal(err)
			}
			if len(due) > 0 {
				t.Errorf("due for another poller after %s", time.Since(begun))
				break
			}
		}
		if err := <-polled; err != nil {
			t.Fatal(err)
		}
		if r, err = book.Read(t.Context(), ord); err != nil || len(r.Attempts) != 2 || asker.asked.Load() != 1 {
			t.Errorf("%+v, %v: looked up %d times, want once", r, err, asker.asked.Load())
		}
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
			mini.SetTime(time.Now())
			if due, _, err := book.Due(t.Context(), []payment.Gateway{payment.Paydia}); err != nil || time.Now().After(deadline) {
				t.Fatalf("never due again: %v", err)
			} else if len(due) > 0 {
				break
			}
		}
	})
}
