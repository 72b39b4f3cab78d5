package ledger_test

import (
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
)

// askInterval is short enough to wait for it by the clock of a real Redis, and longer than the steps
// of a test on a busy machine.
const askInterval = 2 * time.Second

// asker asks for lookups in a test.
type asker struct {
	*testing.T

	ledger *ledger.Ledger
	clock  *clock
}

func (a asker) ask(want ledger.AskResult) {
	a.Helper()
	if got, err := a.ledger.Ask(a.Context(), inv1, askInterval); err != nil || got != want {
		a.Fatalf("Ask: %q, %v; want %q", got, err, want)
	}
}

// isAsked reports whether a lookup that was asked for is due. No other list may be due.
func (a asker) isAsked() bool {
	a.Helper()
	due, asked, err := a.ledger.Due(a.Context(), payment.Gateways())
	if err != nil || len(due) > 0 {
		a.Fatalf("Due: %v, %v", due, err)
	}
	return slices.Equal(asked, []payment.Gateway{inv1.Gateway})
}

// awaitAsked moves the clock to the end of the interval.
func (a asker) awaitAsked() {
	a.Helper()
	if a.isAsked() {
		a.Fatal("a lookup is due before the end of the interval")
	}
	if redistest.SetTime(a.clock.client, a.clock.t) {
		a.clock.forward(a, askInterval)
	}
	for deadline := time.Now().Add(time.Minute); !a.isAsked(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			a.Fatal("no lookup is due")
		}
	}
}

func (a asker) take() *ledger.Batch {
	a.Helper()
	b, err := a.ledger.TakeDue(a.Context(), ledger.Asked, inv1.Gateway, time.Minute, 10)
	if err != nil || len(b.Records) != 1 || b.Records[0].TransactionID != inv1.TransactionID {
		a.Fatalf("TakeDue: %+v, %v", b, err)
	}
	return b
}

func (a asker) finish(b *ledger.Batch) {
	a.Helper()
	if err := a.ledger.Finish(a.Context(), b, []string{inv1.TransactionID}); err != nil {
		a.Fatal(err)
	}
}

// TestAsk: a payment that is looked up is looked up once more, at most once in the interval, and
// its schedule and record do not change.
func TestAsk(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		t.Parallel()
		l, clock := newLedgerWithPayment(t, client)
		a := asker{t, l, clock}
		a.ask(ledger.NotLookedUp) // queued
		if got, err := l.Ask(t.Context(), payment.Key{Gateway: payment.Paydia, TransactionID: inv1.TransactionID}, askInterval); err != nil || got != ledger.NoRecord {
			t.Errorf("of another gateway: %q, %v", got, err)
		}
		r := claim(t, l, ledger.Claimed)
		save(t, l, r, payment.OnProcessing, ledger.In(time.Hour))
		before := read(t, l)

		a.ask(ledger.AskedNow)
		a.ask(ledger.AskedAlready) // its lookup has not begun: it comes after this request
		if !a.isAsked() {
			t.Error("no lookup is due")
		}
		first := a.take()
		a.ask(ledger.AskedLater) // its lookup has begun, and may not see what this request is about
		a.ask(ledger.AskedAlready)
		a.finish(first) // does not remove the later one
		a.awaitAsked()
		a.finish(a.take())
		a.ask(ledger.AskedLater) // the interval begins with the second lookup
		a.awaitAsked()
		b := a.take()
		if err := l.Release(t.Context(), b, []string{inv1.TransactionID}); err != nil || !a.isAsked() {
			t.Errorf("after Release nothing is due: %v", err)
		}
		a.finish(a.take())

		after := read(t, l)
		if !after.NextAt.Equal(before.NextAt) || after.Status != before.Status {
			t.Errorf("changed from %+v to %+v", before, after)
		}
		if exists, err := client.ZCard(t.Context(), "{terbayar:events}:asked:amdigipay").Result(); err != nil || exists != 0 {
			t.Errorf("%d payments are left: %v", exists, err)
		}
		key := "{terbayar:events}:asked:amdigipay:" + inv1.TransactionID
		if ttl, err := client.PTTL(t.Context(), key).Result(); err != nil || ttl > 2*askInterval || ttl == -1 {
			t.Errorf("%s expires in %v: %v", key, ttl, err)
		}

		rec := read(t, l)
		save(t, l, rec, payment.Paid, ledger.Due{})
		a.ask(ledger.NotLookedUp)
	})
}

// TestAskWhileSubmitting: the lookup comes an interval later, when the submit has its answer.
func TestAskWhileSubmitting(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		t.Parallel()
		l, clock := newLedgerWithPayment(t, client)
		a := asker{t, l, clock}
		r := claim(t, l, ledger.Claimed)
		a.ask(ledger.AskedLater)
		a.ask(ledger.AskedAlready)
		save(t, l, r, payment.OnProcessing, ledger.In(time.Hour))
		a.ask(ledger.AskedAlready)
		a.awaitAsked()
		a.finish(a.take())
	})
}

// TestAskAtOnce: of requests at the same moment one asks for a lookup.
func TestAskAtOnce(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		t.Parallel()
		l, _ := newLedgerWithPayment(t, client)
		save(t, l, claim(t, l, ledger.Claimed), payment.OnProcessing, ledger.In(time.Hour))
		const n = 50
		results := make(chan ledger.AskResult, n)
		for range n {
			go func() {
				result, err := l.Ask(t.Context(), inv1, time.Minute)
				if err != nil {
					t.Error(err)
				}
				results <- result
			}()
		}
		count := map[ledger.AskResult]int{}
		for range n {
			count[<-results]++
		}
		if count[ledger.AskedNow] != 1 || count[ledger.AskedAlready] != n-1 {
			t.Errorf("%v", count)
		}
	})
}

func read(t *testing.T, l *ledger.Ledger) *ledger.Record {
	t.Helper()
	r, err := l.Read(t.Context(), inv1)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
