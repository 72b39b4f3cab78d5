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

// model is the expected state of one payment.
type model struct {
	status   payment.Status
	revision int // a record that was read at an older one is fenced
	leaseEnd time.Time
	attempts int
	events   []payment.Status
	unknown  bool // the outcome of a submit was unknown
	byUs     bool // it was cancelled by Cancel
}

// readRecord is a record that a worker or the poller has read, at a revision of the model.
type readRecord struct {
	record   *ledger.Record
	revision int
}

// TestModel lets two workers, a poller and an order system change one payment in random order:
// they claim, save in time or too late, let claims expire, save records that are out of date, and
// cancel. After
// every step the record must agree with the model, and at the end the events.
func TestModel(t *testing.T) {
	t.Parallel()
	client := redistest.Mini(t)
	rapid.Check(t, func(t *rapid.T) { checkModel(t, client) })
}

func checkModel(t *rapid.T, client redis.UniversalClient) {
	var (
		ctx     = t.Context()
		c       = newClock(client)
		l       = newLedger(client, c.now)
		key     = payment.Key{Gateway: payment.Paydia, TransactionID: rand.Text()}
		m       = model{status: payment.Queued}
		records = map[string]*readRecord{} // by reader: worker a, worker b, the poller
	)
	if err := client.FlushAll(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	if r := l.Create(ctx, []ledger.NewPayment{entryWithoutExpiry(key)})[0]; r.Creation != ledger.Created || r.Err != nil {
		t.Fatalf("create: %+v", r)
	}
	workers := rapid.SampledFrom([]string{"a", "b"})
	actions := map[string]func(*rapid.T){
		"create again": func(t *rapid.T) {
			if r := l.Create(ctx, []ledger.NewPayment{entryWithoutExpiry(key)})[0]; r.Creation != ledger.Duplicate || r.Status != m.status {
				t.Fatalf("create again: %+v, want a duplicate in %s", r, m.status)
			}
		},
		"move the clock": func(t *rapid.T) {
			c.forward(t, time.Duration(rapid.IntRange(1, 30).Draw(t, "seconds"))*time.Second)
		},
		"claim": func(t *rapid.T) {
			w := workers.Draw(t, "worker")
			r, result, err := l.Claim(ctx, key, ledger.Claim{
				Attempt: payment.Attempt{At: c.now(), Kind: payment.KindSubmit}, Lease: lease, Timeout: timeout,
			})
			if err != nil {
				t.Fatal(err)
			}
			want := ledger.NotQueued
			switch {
			case m.status == payment.Queued:
				want = ledger.Claimed
				m.status, m.leaseEnd = payment.Submitting, c.now().Add(lease)
				m.revision++
				m.attempts++
				records[w] = &readRecord{r, m.revision}
			case m.status == payment.Submitting && m.leaseEnd.After(c.now()):
				want = ledger.Busy
			case m.status == payment.Submitting:
				want = ledger.ClaimExpired
			}
			if result != want {
				t.Fatalf("claim by %s: %s, want %s", w, result, want)
			}
		},
		"read": func(t *rapid.T) { // the poller may save it many steps later
			r, err := l.Read(ctx, key)
			if err != nil {
				t.Fatal(err)
			}
			records["poller"] = &readRecord{r, m.revision}
		},
		"save": func(t *rapid.T) {
			reader := rapid.SampledFrom([]string{"a", "b", "poller"}).Draw(t, "reader")
			read := records[reader]
			if read == nil {
				return
			}
			delete(records, reader)
			from := read.record.Status
			read.record.Status = rapid.SampledFrom(payment.Statuses()).Draw(t, "to")
			read.record.Due = ledger.In(time.Second)
			if read.record.Status == payment.Verifying {
				read.record.MarkUnknown("net:unknown")
			}
			read.record.AddAttempt(payment.Attempt{At: c.now(), Kind: payment.KindLookup})
			err := l.Save(ctx, read.record)
			switch {
			case !payment.CanMove(from, read.record.Status) || read.record.Status == payment.Submitting:
				if !errors.Is(err, ledger.ErrIllegalMove) {
					t.Fatalf("save by %s from %s to %s: %v", reader, from, read.record.Status, err)
				}
			case read.revision != m.revision:
				if !errors.Is(err, ledger.ErrFenced) {
					t.Fatalf("save by %s of an old revision: %v", reader, err)
				}
			case err != nil:
				t.Fatalf("save by %s: %v", reader, err)
			default:
				m.revision++
				m.attempts++
				m.unknown = m.unknown || read.record.Status == payment.Verifying
				if m.status != read.record.Status && read.record.Status.HasEvent() {
					m.events = append(m.events, read.record.Status)
				}
				m.status = read.record.Status
			}
		},
		"cancel": func(t *rapid.T) {
			_, err := l.Cancel(ctx, key)
			switch allowed := m.status == payment.Queued && !m.unknown; {
			case allowed || m.byUs:
				if err != nil {
					t.Fatalf("cancel in %s: %v", m.status, err)
				}
				if allowed {
					m.status, m.byUs = payment.Cancelled, true
					m.revision++
					m.events = append(m.events, payment.Cancelled)
				}
			case !errors.As(err, new(*ledger.NotCancelledError)):
				t.Fatalf("cancel in %s: %v", m.status, err)
			}
		},
		"": func(t *rapid.T) { // runs after every step
			r, err := l.Read(ctx, key)
			if err != nil {
				t.Fatal(err)
			}
			if r.Status != m.status || len(r.Attempts) != m.attempts {
				t.Fatalf("the ledger has %s with %d attempts, want %s with %d", r.Status, len(r.Attempts), m.status, m.attempts)
			}
			if r.Status.Final() && r.EncryptedToken != "" {
				t.Fatalf("%s has a customer token", r.Status)
			}
		},
	}
	t.Repeat(actions)
	entries, err := client.XRange(ctx, ledger.DefaultStream, "-", "+").Result()
	if err != nil || len(entries) != len(m.events) {
		t.Fatalf("%d events, want %v (%v)", len(entries), m.events, err)
	}
	for i, e := range decodeEvents(t, entries) {
		if e.ID != fmt.Sprintf("%s:%d:%s", key, i+1, m.events[i]) || e.Type != "terbayar.payment."+string(m.events[i]) {
			t.Fatalf("event %d is %s %s, want %s", i+1, e.ID, e.Type, m.events[i])
		}
	}
}

// entryWithoutExpiry returns an order that never expires.
func entryWithoutExpiry(key payment.Key) ledger.NewPayment {
	e := entry(key, "a")
	e.ExpiresAt = time.Time{}
	return e
}
