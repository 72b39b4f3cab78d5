package ledger_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
)

// model is what one payment's record must be, in the simplest terms: who may
// still write, where it stands, and what was told of it.
type model struct {
	status   payment.Status
	version  int // counts every change; a record read at an older one is fenced
	leaseEnd time.Time
	attempts int
	events   []payment.Status
}

// hand is a record somebody holds, with the version of the model it was read at.
type hand struct {
	record  *ledger.Record
	version int
}

// TestModel plays two workers and a poller against one payment, in any order:
// claims, answers in time and too late, claims that expire, lookups, and fences that are
// too old. After every step the ledger is what the model says.
func TestModel(t *testing.T) {
	client := redistest.Mini(t)
	rapid.Check(t, func(t *rapid.T) { play(t, client) })
}

func play(t *rapid.T, client redis.UniversalClient) {
	var (
		ctx   = t.Context()
		c     = newClock(client)
		l     = newLedger(client, c.now)
		key   = payment.Key{Gateway: payment.Paydia, TransactionID: rand.Text()}
		m     = model{status: payment.Queued}
		hands = map[string]*hand{} // what worker a, worker b and the poller hold
	)
	if err := client.FlushAll(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	if r := l.Create(ctx, []ledger.NewPayment{lasting(key)})[0]; r.Creation != ledger.Created || r.Err != nil {
		t.Fatalf("create: %+v", r)
	}
	who := rapid.SampledFrom([]string{"a", "b"})
	actions := map[string]func(*rapid.T){
		"create again": func(t *rapid.T) {
			if r := l.Create(ctx, []ledger.NewPayment{lasting(key)})[0]; r.Creation != ledger.Duplicate || r.Status != m.status {
				t.Fatalf("create again: %+v, want a duplicate in %s", r, m.status)
			}
		},
		"time passes": func(t *rapid.T) {
			c.forward(t, time.Duration(rapid.IntRange(1, 30).Draw(t, "seconds"))*time.Second)
		},
		"claim": func(t *rapid.T) {
			w := who.Draw(t, "worker")
			r, verdict, err := l.Claim(ctx, key, ledger.Claim{
				Attempt: payment.Attempt{At: c.now(), Kind: payment.KindSubmit}, Lease: lease, Timeout: time.Second,
			})
			if err != nil {
				t.Fatal(err)
			}
			want := ledger.NotQueued
			switch {
			case m.status == payment.Queued:
				want = ledger.Claimed
				m.status, m.leaseEnd = payment.Submitting, c.now().Add(lease)
				m.version++
				m.attempts++
				hands[w] = &hand{r, m.version}
			case m.status == payment.Submitting && m.leaseEnd.After(c.now()):
				want = ledger.Busy
			case m.status == payment.Submitting:
				want = ledger.ClaimExpired
			}
			if verdict != want {
				t.Fatalf("claim by %s: %s, want %s", w, verdict, want)
			}
		},
		"read": func(t *rapid.T) { // as the poller does, who may save much later
			r, err := l.Read(ctx, key)
			if err != nil {
				t.Fatal(err)
			}
			hands["poller"] = &hand{r, m.version}
		},
		"save": func(t *rapid.T) {
			w := rapid.SampledFrom([]string{"a", "b", "poller"}).Draw(t, "who")
			h := hands[w]
			if h == nil {
				return
			}
			delete(hands, w)
			from := h.record.Status
			h.record.Status = rapid.SampledFrom(payment.Statuses()).Draw(t, "to")
			h.record.Due = ledger.In(time.Second)
			if h.record.Status == payment.Verifying {
				h.record.Unknown("net:unknown")
			}
			h.record.AddAttempt(payment.Attempt{At: c.now(), Kind: payment.KindLookup})
			err := l.Save(ctx, h.record)
			switch {
			case !payment.CanMove(from, h.record.Status) || h.record.Status == payment.Submitting:
				if !errors.Is(err, ledger.ErrIllegalMove) {
					t.Fatalf("%s moved it from %s to %s: %v", w, from, h.record.Status, err)
				}
			case h.version != m.version:
				if !errors.Is(err, ledger.ErrFenced) {
					t.Fatalf("%s wrote over a newer change: %v", w, err)
				}
			case err != nil:
				t.Fatalf("%s: %v", w, err)
			default:
				m.version++
				m.attempts++
				if m.status != h.record.Status && h.record.Status.HasEvent() {
					m.events = append(m.events, h.record.Status)
				}
				m.status = h.record.Status
			}
		},
		"": func(t *rapid.T) { // after every step
			r, err := l.Read(ctx, key)
			if err != nil {
				t.Fatal(err)
			}
			if r.Status != m.status || len(r.Attempts) != m.attempts {
				t.Fatalf("the ledger has %s with %d attempts, want %s with %d", r.Status, len(r.Attempts), m.status, m.attempts)
			}
			if r.Status.Final() && r.EncryptedToken != "" {
				t.Fatalf("final %s keeps the customer token", r.Status)
			}
			entries, err := client.XRange(ctx, ledger.DefaultStream, "-", "+").Result()
			if err != nil || len(entries) != len(m.events) {
				t.Fatalf("%d events, want %v (%v)", len(entries), m.events, err)
			}
			for i, e := range events(t, entries) {
				if e.ID != fmt.Sprintf("%s:%d:%s", key, i+1, m.events[i]) || e.Type != "terbayar.payment."+string(m.events[i]) {
					t.Fatalf("event %d is %s %s, want %s", i+1, e.ID, e.Type, m.events[i])
				}
			}
		},
	}
	t.Repeat(actions)
}

// lasting is an order that does not expire while it is played with.
func lasting(key payment.Key) ledger.NewPayment {
	e := entry(key, "a")
	e.ExpiresAt = time.Time{}
	return e
}
