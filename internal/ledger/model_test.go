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

	heldUntil time.Time // nothing is claimed before
}

// hand is a record somebody holds, with the version of the model it was read at.
type hand struct {
	record  *ledger.Record
	version int
}

// TestModel plays two workers and a poller against one payment, in any order:
// claims, answers in time and too late, claims that lapse, look-ups, expired
// fences, and a Redis that forgets up to ten seconds. After every step the ledger is
// what the model says.
func TestModel(t *testing.T) {
	t.Run("miniredis", func(t *testing.T) {
		client := redistest.Mini(t)
		rapid.Check(t, func(t *rapid.T) { play(t, client, false) })
	})
	t.Run("redis-server", func(t *testing.T) {
		client := forgetful(t)
		rapid.Check(t, func(t *rapid.T) { play(t, client, true) })
	})
}

func play(t *rapid.T, client redis.UniversalClient, forgets bool) {
	var (
		ctx     = t.Context()
		c       = &clock{start}
		l       = ledger.New(client, ledger.DefaultStream, c.now) // the poller's
		ledgers = map[string]*ledger.Ledger{
			"a": ledger.New(client, ledger.DefaultStream, c.now), "b": ledger.New(client, ledger.DefaultStream, c.now), "poller": l,
		}
		key   = payment.Key{Gateway: payment.Paydia, TransactionID: rand.Text()}
		lease = 20 * time.Second
		m     = model{status: payment.Queued}
		hands = map[string]*hand{} // what worker a, worker b and the poller hold

		forget     func() // brings Redis back to where it stood
		forgetUpTo time.Time
	)
	if err := errors.Join(client.FlushAll(ctx).Err(), client.ScriptFlush(ctx).Err()); err != nil {
		t.Fatal(err)
	}
	ticks := func() { // the poller's first: what it remembers builds on the others' claims
		for _, w := range []string{"poller", "a", "b"} {
			tick(t, ledgers[w])
		}
	}
	ticks()
	if r := l.Create(ctx, []ledger.Entry{entry(key, "a")})[0]; r.Creation != ledger.Created || r.Err != nil {
		t.Fatalf("create: %+v", r)
	}
	who := rapid.SampledFrom([]string{"a", "b"})
	actions := map[string]func(*rapid.T){
		"create again": func(t *rapid.T) {
			if r := l.Create(ctx, []ledger.Entry{entry(key, "a")})[0]; r.Creation != ledger.Duplicate || r.Status != m.status {
				t.Fatalf("create again: %+v, want a duplicate in %s", r, m.status)
			}
		},
		"time passes": func(t *rapid.T) {
			c.forward(time.Duration(rapid.IntRange(1, 30).Draw(t, "seconds")) * time.Second)
		},
		"claim": func(t *rapid.T) {
			w := who.Draw(t, "worker")
			r, verdict, err := ledgers[w].Claim(ctx, key, payment.Attempt{At: c.now(), Kind: payment.KindSubmit}, lease)
			if held, ok := errors.AsType[*ledger.Held](err); ok {
				if m.status != payment.Queued || held.Wait != m.heldUntil.Sub(c.now()) {
					t.Fatalf("claim by %s: held for %s", w, held.Wait)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := ledger.Settled
			switch {
			case m.status == payment.Queued && m.heldUntil.After(c.now()):
				t.Fatalf("claimed by %s, too early", w)
			case m.status == payment.Queued:
				want = ledger.Claimed
				m.status, m.leaseEnd = payment.Submitting, c.now().Add(lease)
				m.version++
				m.attempts++
				hands[w] = &hand{r, m.version}
			case m.status == payment.Submitting && m.leaseEnd.After(c.now()):
				want = ledger.Busy
			case m.status == payment.Submitting:
				want = ledger.Lapsed
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
			h.record.Due, h.record.Since = c.now().Add(time.Second), c.now()
			h.record.Append(payment.Attempt{At: c.now(), Kind: payment.KindLookup})
			err := ledgers[w].Save(ctx, h.record)
			switch {
			case !payment.CanMove(from, h.record.Status) || h.record.Status == payment.Submitting:
				if !errors.Is(err, ledger.ErrIllegal) {
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
				if m.status != h.record.Status && h.record.Status.Public() {
					m.events = append(m.events, h.record.Status)
				}
				m.status = h.record.Status
			}
		},
		"redis stands here": func(*rapid.T) {
			forget, forgetUpTo = snapshot(t, client), c.now().Add(10*time.Second)
		},
		"redis forgets": func(t *rapid.T) {
			if forget == nil || c.now().After(forgetUpTo) {
				return
			}
			forget()
			m.heldUntil = c.now().Add(6 * time.Second)
			if rapid.Bool().Draw(t, "claim before it is noticed") {
				w := who.Draw(t, "worker")
				if r, verdict, err := ledgers[w].Claim(ctx, key, payment.Attempt{At: c.now()}, lease); verdict == ledger.Claimed {
					t.Fatalf("%s claimed from a Redis that has forgotten: %+v, %v", w, r, err)
				}
			}
			ticks()
			ticks()
		},
		"": func(t *rapid.T) { // after every step
			r, err := l.Read(ctx, key)
			if err != nil {
				t.Fatal(err)
			}
			if r.Status != m.status || len(r.Attempts) != m.attempts {
				t.Fatalf("the ledger has %s with %d attempts, want %s with %d", r.Status, len(r.Attempts), m.status, m.attempts)
			}
			if r.Status.Final() && r.SealedToken != "" {
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
	if !forgets {
		delete(actions, "redis forgets")
	}
	t.Repeat(actions)
}
