package ledger_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/durable"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
)

var (
	start = time.Date(2036, 5, 21, 10, 0, 0, 0, time.UTC) // by a real Redis' clock nothing has expired
	inv1  = payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV/1 é"}
)

func entry(key payment.Key, digest string) ledger.NewPayment {
	return ledger.NewPayment{
		Key: key, Amount: 13000, Order: []byte(`{"transaction_id":"INV-1"}`), Digest: digest,
		EncryptedToken: "v1.sealed", MerchantID: "M1", ExpiresAt: start.Add(time.Hour),
	}
}

// clock is the time of a test: this process' clock and, where that is miniredis, Redis'.
type clock struct {
	t      time.Time
	client redis.UniversalClient
}

func newClock(client redis.UniversalClient) *clock {
	c := &clock{t: start, client: client}
	redistest.SetTime(client, start)
	return c
}

func (c *clock) now() time.Time { return c.t }

// forward moves the time; a real Redis' cannot be moved.
func (c *clock) forward(t fataler, d time.Duration) {
	c.t = c.t.Add(d)
	if !redistest.SetTime(c.client, c.t) {
		t.Fatal("a real Redis has the real time")
	}
}

// newLedger is a ledger on a Redis that acknowledges by answering.
func newLedger(client redis.UniversalClient, now func() time.Time) *ledger.Ledger {
	log := slog.New(slog.DiscardHandler)
	return ledger.New(ledger.Options{
		Redis: client, Stream: ledger.DefaultStream, Now: now, Log: log,
		Writes: durable.New(durable.Options{Client: client, Mode: durable.None, Key: ledger.DurabilityKey, Now: now, Log: log}),
	})
}

// withOne is a ledger with one queued payment in it.
func withOne(t *testing.T, client redis.UniversalClient) (*ledger.Ledger, *clock) {
	t.Helper()
	c := newClock(client)
	l := newLedger(client, c.now)
	for _, r := range l.Create(t.Context(), []ledger.NewPayment{entry(inv1, "a")}) {
		if r.Err != nil || r.Creation != ledger.Created {
			t.Fatalf("create: %+v", r)
		}
	}
	return l, c
}

const lease = 20 * time.Second

func claim(t *testing.T, l *ledger.Ledger, want ledger.ClaimResult) *ledger.Record {
	t.Helper()
	return claimFor(t, l, lease, want)
}

func claimFor(t *testing.T, l *ledger.Ledger, lease time.Duration, want ledger.ClaimResult) *ledger.Record {
	t.Helper()
	r, verdict, err := l.Claim(t.Context(), inv1, ledger.Claim{
		Attempt: payment.Attempt{At: start, Kind: payment.KindSubmit}, Lease: lease, Timeout: 5 * time.Second,
	})
	if err != nil || verdict != want {
		t.Fatalf("claim: verdict %q, error %v; want %q", verdict, err, want)
	}
	return r
}

// move saves a record with another status, as the code that sends or polls does.
func move(t *testing.T, l *ledger.Ledger, r *ledger.Record, to payment.Status, due ledger.Due) {
	t.Helper()
	r.Status, r.Due = to, due
	if err := l.Save(t.Context(), r); err != nil {
		t.Fatalf("save %s: %v", to, err)
	}
}

// fataler is a *testing.T, or a *rapid.T.
type fataler interface {
	Context() context.Context
	Fatal(args ...any)
}

type event struct {
	ID, Type, Subject, Source, SpecVersion string
	Time                                   time.Time
	Data                                   map[string]any
}

func told(t *testing.T, client redis.UniversalClient) []event {
	t.Helper()
	entries, err := client.XRange(t.Context(), ledger.DefaultStream, "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	return events(t, entries)
}

func events(t fataler, entries []redis.XMessage) []event {
	var all []event
	for _, e := range entries {
		var ev event
		if err := json.Unmarshal([]byte(e.Values["event"].(string)), &ev); err != nil {
			t.Fatal(err)
		}
		all = append(all, ev)
	}
	return all
}

func TestCreateOnce(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		l, _ := withOne(t, client)
		inv2 := payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV-2"}
		sameIDElsewhere := payment.Key{Gateway: payment.Paydia, TransactionID: inv1.TransactionID}
		var got []string
		for _, r := range l.Create(t.Context(), []ledger.NewPayment{
			entry(inv1, "a"), entry(inv1, "b"), entry(inv2, "a"), entry(inv2, "b"), entry(sameIDElsewhere, "z"),
		}) {
			got = append(got, fmt.Sprint(r.Creation, " ", r.Status, " ", r.Err))
		}
		want := []string{
			"duplicate queued <nil>", "conflict queued <nil>",
			"created queued <nil>", "conflict queued <nil>", "created queued <nil>",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestClaimIsExclusive(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		l, _ := withOne(t, client)
		r := claim(t, l, ledger.Claimed)
		if len(r.Attempts) != 1 || r.Attempts[0].Code != "" || r.Status != payment.Submitting {
			t.Errorf("the attempt is not open: %+v", r.Payment)
		}
		claim(t, l, ledger.Busy)
		move(t, l, r, payment.OnProcessing, ledger.In(time.Minute))
		claim(t, l, ledger.NotQueued)
		_, verdict, err := l.Claim(t.Context(), payment.Key{Gateway: payment.Paydia, TransactionID: "?"}, ledger.Claim{Lease: lease, Timeout: time.Second})
		if verdict != ledger.Missing || err != nil {
			t.Errorf("claim of nothing: %q, %v", verdict, err)
		}
	})
}

// expire lets a lease of 50 ms end, by whichever clock the Redis has.
func expire(t *testing.T, c *clock, l *ledger.Ledger) {
	t.Helper()
	if redistest.SetTime(c.client, c.t.Add(50*time.Millisecond)) {
		c.t = c.t.Add(50 * time.Millisecond)
		return
	}
	for { // real time passes
		_, verdict, err := l.Claim(t.Context(), inv1, ledger.Claim{Lease: lease, Timeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if verdict == ledger.ClaimExpired {
			return
		}
	}
}

func TestLateHolderIsFenced(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		l, c := withOne(t, client)
		first := claimFor(t, l, 50*time.Millisecond, ledger.Claimed)
		early, err := l.Read(t.Context(), inv1)
		if err != nil {
			t.Fatal(err)
		}
		early.Unknown("net:unknown")
		if redistest.SetTime(client, c.t) { // on a real Redis the lease may be over by now
			if err := l.SaveIfExpired(t.Context(), early); !errors.Is(err, ledger.ErrFenced) {
				t.Errorf("a running claim was ended: %v", err)
			}
		}
		expire(t, c, l)
		second := claim(t, l, ledger.ClaimExpired)
		second.Unknown("net:unknown")
		if err := l.SaveIfExpired(t.Context(), second); err != nil {
			t.Fatal(err)
		}

		first.Status = payment.Rejected
		if err := l.Save(t.Context(), first); !errors.Is(err, ledger.ErrFenced) {
			t.Errorf("a late holder saved: %v", err)
		}
		r, err := l.Read(t.Context(), inv1)
		if err != nil || r.Status != payment.Verifying || r.UnknownSince.IsZero() {
			t.Errorf("%v, %v", r, err)
		}
	})
}

// TestRelease: a claim that is given back has never been; a payment that somebody else
// has is not given back.
func TestRelease(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		c := newClock(client)
		withOne(t, client)
		// A writer that never gets an acknowledgement: nobody replicates this Redis.
		log := slog.New(slog.DiscardHandler)
		writes := durable.New(durable.Options{
			Client: client, Mode: durable.Trusted, Replicas: 1, Timeout: time.Millisecond,
			Key: ledger.DurabilityKey, Now: time.Now, Log: log,
		})
		l := ledger.New(ledger.Options{Redis: client, Writes: writes, Stream: ledger.DefaultStream, Now: c.now, Log: log})
		for _, why := range []string{"redis does not acknowledge the claim: it was released unsent", "redis has not acknowledged a claim"} {
			r, verdict, err := l.Claim(t.Context(), inv1, ledger.Claim{Lease: lease, Timeout: time.Second})
			later, ok := errors.AsType[*ledger.LaterError](err)
			if !ok || later.Reason != why || r != nil || verdict != "" {
				t.Errorf("claimed without an acknowledgement: %v, %q, %v", r, verdict, err)
			}
		}
		r, err := l.Read(t.Context(), inv1)
		if err != nil || r.Status != payment.Queued || len(r.Attempts) != 0 {
			t.Errorf("%+v, %v: want it queued without an attempt", r, err)
		}
		acknowledged := newLedger(client, c.now)
		if r := claim(t, acknowledged, ledger.Claimed); len(r.Attempts) != 1 {
			t.Errorf("%d attempts, want 1", len(r.Attempts))
		}
		for _, created := range l.Create(t.Context(), []ledger.NewPayment{entry(inv1, "a"), entry(payment.Key{Gateway: payment.Paydia, TransactionID: "2"}, "b")}) {
			if !errors.Is(created.Err, ledger.ErrNotDurable) {
				t.Errorf("answered without an acknowledgement: %+v", created)
			}
		}
	})
}

// TestTooLateToSend: an order with a date, and one without that waits too long.
func TestTooLateToSend(t *testing.T) {
	client := redistest.Mini(t)
	l, c := withOne(t, client)
	ord := payment.Key{Gateway: payment.Paydia, TransactionID: "ORD-1"}
	e := entry(ord, "a")
	e.ExpiresAt = time.Time{}
	l.Create(t.Context(), []ledger.NewPayment{e})
	try := func(key payment.Key, ttl time.Duration) ledger.ClaimResult {
		t.Helper()
		_, verdict, err := l.Claim(t.Context(), key, ledger.Claim{Lease: lease, Timeout: time.Second, QueueTTL: ttl})
		if err != nil {
			t.Fatal(err)
		}
		return verdict
	}
	c.forward(t, time.Hour)
	if v := try(inv1, 0); v != ledger.TooLate {
		t.Errorf("sent after its date: %s", v)
	}
	if v := try(ord, time.Hour); v != ledger.TooLate {
		t.Errorf("sent after the queue's TTL: %s", v)
	}
	if v := try(ord, 2*time.Hour); v != ledger.Claimed {
		t.Errorf("not sent within the queue's TTL: %s", v)
	}
}

// TestBadToken: a payment whose token no worker can decrypt is sent with the token of
// the same order, submitted again.
func TestBadToken(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		for _, status := range []payment.Status{payment.Queued, payment.NeedsReview} {
			if err := client.FlushAll(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			l, _ := withOne(t, client)
			r := claim(t, l, ledger.Claimed)
			r.BadToken, r.NotBefore = true, time.Hour
			move(t, l, r, status, ledger.Due{})
			again := entry(inv1, "a")
			again.EncryptedToken = "v1.another"
			if created := l.Create(t.Context(), []ledger.NewPayment{again})[0]; created.Creation != ledger.Duplicate || created.Status != payment.Queued {
				t.Errorf("%s: %+v", status, created)
			}
			if r := claim(t, l, ledger.Claimed); r.EncryptedToken != "v1.another" {
				t.Errorf("%s: token %q", status, r.EncryptedToken)
			}
			again.EncryptedToken = "v1.third" // nothing is wrong with the second
			l.Create(t.Context(), []ledger.NewPayment{again})
			if r, err := l.Read(t.Context(), inv1); err != nil || r.EncryptedToken != "v1.another" {
				t.Errorf("%s: %+v, %v", status, r, err)
			}
		}
	})
}

func TestChangeAndEventAreOne(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		l, c := withOne(t, client)
		r := claim(t, l, ledger.Claimed)
		r.GatewayReference, r.GatewayStatus, r.QRCode = "6", "On processing", "000201"
		r.FinishAttempt(payment.Attempt{At: start, Kind: payment.KindSubmit, Code: "http:200", HTTPStatus: 200, Action: "accept", DurationMS: 12})
		move(t, l, r, payment.OnProcessing, ledger.In(0))

		r, err := l.Read(t.Context(), inv1)
		if err != nil {
			t.Fatal(err)
		}
		r.AddAttempt(payment.Attempt{At: c.now(), Kind: payment.KindLookup, Code: "http:200"})
		r.GatewayStatus = "Terbayar"
		move(t, l, r, payment.Paid, ledger.Due{})

		// The same status again is no event; a final status never moves again.
		r, err = l.Read(t.Context(), inv1)
		if err != nil {
			t.Fatal(err)
		}
		move(t, l, r, payment.Paid, ledger.Due{})
		r, _ = l.Read(t.Context(), inv1)
		r.Status = payment.Failed
		if err := l.Save(t.Context(), r); !errors.Is(err, ledger.ErrIllegalMove) {
			t.Errorf("paid became failed: %v", err)
		}

		var got []string
		for _, e := range told(t, client) {
			got = append(got, fmt.Sprint(e.ID, " ", e.Type, " ", e.Source, " ", e.Subject, " ", e.Data["gateway_status"], " ", e.Data["amount"], " ", e.Data["attempts"]))
		}
		want := []string{
			"amdigipay:INV/1 é:1:on_processing terbayar.payment.on_processing terbayar/amdigipay INV/1 é On processing 13000 <nil>",
			"amdigipay:INV/1 é:2:paid terbayar.payment.paid terbayar/amdigipay INV/1 é Terbayar 13000 <nil>",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		r, _ = l.Read(t.Context(), inv1)
		if len(r.Attempts) != 2 || r.Attempts[0].Code != "http:200" || r.EncryptedToken != "" {
			t.Errorf("attempts %+v, token %q", r.Attempts, r.EncryptedToken)
		}
	})
}

// TestRepeatedScripts plays the reply that never arrived: go-redis sends the
// script again, and the second run must answer as the first.
func TestRepeatedScripts(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		client.AddHook(twice{})
		l, _ := withOne(t, client)
		r := claim(t, l, ledger.Claimed)
		move(t, l, r, payment.OnProcessing, ledger.In(0))
		r, err := l.Read(t.Context(), inv1)
		if err != nil {
			t.Fatal(err)
		}
		for i, err := range l.SaveAll(t.Context(), []*ledger.Record{r}) {
			if err != nil {
				t.Errorf("%d: %v", i, err)
			}
		}
		if n := len(told(t, client)); n != 1 {
			t.Errorf("%d events, want 1", n)
		}
		if r, _ = l.Read(t.Context(), inv1); len(r.Attempts) != 1 {
			t.Errorf("%d attempts, want 1", len(r.Attempts))
		}
	})
}

// twice runs every script twice and keeps the second answer.
type twice struct{}

func (twice) DialHook(next redis.DialHook) redis.DialHook { return next }

func (twice) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if name := cmd.Name(); name == "evalsha" || name == "eval" {
			if err := next(ctx, cmd); err != nil {
				return err
			}
		}
		return next(ctx, cmd)
	}
}

func (twice) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if err := next(ctx, cmds); err != nil {
			return err
		}
		return next(ctx, cmds)
	}
}

func TestDue(t *testing.T) {
	client := redistest.Mini(t)
	l, c := withOne(t, client)
	ctx := t.Context()
	due := func() []payment.Gateway {
		t.Helper()
		g, err := l.Due(ctx, payment.Gateways())
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	take := func(q ledger.DueList, want int) *ledger.Batch {
		t.Helper()
		taken, err := l.TakeDue(ctx, q, payment.AMDigiPay, 30*time.Second, 10)
		if err != nil || taken.Err != nil || len(taken.Records) != want || taken.Len() != want {
			t.Fatalf("took %d, %v, %v; want %d", taken.Len(), err, taken.Err, want)
		}
		return taken
	}
	if g := due(); g != nil {
		t.Errorf("due before its time: %v", g)
	}
	c.forward(t, ledger.TaskGrace)
	if diff := cmp.Diff([]payment.Gateway{payment.AMDigiPay}, due()); diff != "" {
		t.Error(diff)
	}
	take(ledger.Open, 0)
	taken := take(ledger.Sending, 1)
	take(ledger.Sending, 0)
	if err := l.Hide(ctx, taken, time.Minute); err != nil {
		t.Fatal(err)
	}
	c.forward(t, 59*time.Second)
	take(ledger.Sending, 0)
	c.forward(t, time.Second) // the taker died
	taken = take(ledger.Sending, 1)
	if err := l.Release(ctx, taken, []string{inv1.TransactionID}); err != nil { // could not see to it
		t.Fatal(err)
	}
	taken = take(ledger.Sending, 1)
	if err := l.Reschedule(ctx, taken, []string{inv1.TransactionID}, ledger.In(5*time.Second)); err != nil {
		t.Fatal(err)
	}
	take(ledger.Sending, 0)
	census, err := l.Stats(ctx, payment.AMDigiPay)
	want := ledger.Stats{Counts: map[payment.Status]int64{payment.Queued: 1}, OldestQueued: ledger.TaskGrace + time.Minute}
	if diff := cmp.Diff(want, census); diff != "" || err != nil {
		t.Error(err, diff)
	}

	r := claim(t, l, ledger.Claimed)
	r.Unknown("net:unknown")
	move(t, l, r, payment.Verifying, ledger.In(5*time.Second))
	c.forward(t, 5*time.Second)
	taken = take(ledger.Open, 1)
	unknown, err := l.Unknown(ctx, taken)
	if err != nil || len(unknown) != 1 || unknown[0].UnknownCode != "net:unknown" || unknown[0].Amount != 13000 {
		t.Errorf("unknown: %+v, %v", unknown, err)
	}
	if age := taken.Records[0].Now(c.now()).Sub(taken.Records[0].UnknownSince); age != 5*time.Second {
		t.Errorf("unknown for %s, want 5s", age)
	}
	census, err = l.Stats(ctx, payment.AMDigiPay)
	want = ledger.Stats{Counts: map[payment.Status]int64{payment.Queued: 0, payment.Submitting: 0, payment.Verifying: 1}, OldestUnknown: 5 * time.Second}
	if diff := cmp.Diff(want, census); diff != "" || err != nil {
		t.Error(err, diff)
	}
	r, _ = l.Read(ctx, inv1)
	move(t, l, r, payment.Paid, ledger.Due{})
	if err := l.Reschedule(ctx, taken, []string{inv1.TransactionID}, ledger.In(0)); err != nil {
		t.Error(err)
	}
	if g := due(); g != nil {
		t.Errorf("rescheduling brought a final payment back: %v", g)
	}
}

// TestGrid: what is due on the grid is due together.
func TestGrid(t *testing.T) {
	client := redistest.Mini(t)
	l, c := withOne(t, client)
	c.forward(t, 7*time.Second)
	move(t, l, claim(t, l, ledger.Claimed), payment.OnProcessing, ledger.OnGrid(30*time.Second))
	r, err := l.Read(t.Context(), inv1)
	if want := start.Add(30 * time.Second); err != nil || !r.NextAt.Equal(want) {
		t.Errorf("next at %v (%v), want %v", r.NextAt, err, want)
	}
}

// TestNotBefore: a payment that is to be sent again waits, whichever task comes first.
func TestNotBefore(t *testing.T) {
	client := redistest.Mini(t)
	l, c := withOne(t, client)
	r := claim(t, l, ledger.Claimed)
	r.NotBefore = time.Minute
	move(t, l, r, payment.Queued, ledger.Due{})
	c.forward(t, 50*time.Second)
	_, _, err := l.Claim(t.Context(), inv1, ledger.Claim{Lease: lease, Timeout: time.Second})
	if later, ok := errors.AsType[*ledger.LaterError](err); !ok || later.Wait != 10*time.Second {
		t.Errorf("claimed before its time: %v", err)
	}
	if r, err := l.Read(t.Context(), inv1); err != nil || !r.NextAt.Equal(start.Add(time.Minute)) {
		t.Errorf("next at %v, %v", r.NextAt, err)
	}
	c.forward(t, 10*time.Second)
	claim(t, l, ledger.Claimed)
}

// TestOtherVersion: a record of another version, or one that is damaged, is left alone.
func TestOtherVersion(t *testing.T) {
	for _, row := range []struct {
		field, value string
		err          error
	}{
		{"v", "3", ledger.ErrOtherVersion},
		{"v", "1", ledger.ErrOtherVersion},
		{"facts", "{", ledger.ErrDamaged},
		{"attempts", "9999999999999999999", ledger.ErrDamaged},
		{"updated", "-1", ledger.ErrDamaged},
	} {
		t.Run(row.field+" "+row.value, func(t *testing.T) {
			client := redistest.Mini(t)
			l, c := withOne(t, client)
			keys, err := client.Keys(t.Context(), "*:payment:*").Result()
			if err != nil || len(keys) != 1 {
				t.Fatal(keys, err)
			}
			client.HSet(t.Context(), keys[0], row.field, row.value)
			before := client.HGetAll(t.Context(), keys[0]).Val()
			if _, err := l.Read(t.Context(), inv1); !errors.Is(err, row.err) {
				t.Errorf("read: %v", err)
			}
			if row.field == "v" {
				_, verdict, err := l.Claim(t.Context(), inv1, ledger.Claim{Lease: lease, Timeout: time.Second})
				if verdict != ledger.OtherVersion || err != nil {
					t.Errorf("claim: %q, %v", verdict, err)
				}
			}
			c.forward(t, ledger.TaskGrace)
			taken, err := l.TakeDue(t.Context(), ledger.Sending, payment.AMDigiPay, time.Second, 10)
			if err != nil || !errors.Is(taken.Err, row.err) || len(taken.Records) != 0 || len(taken.Unreadable) != 1 {
				t.Errorf("take: %+v, %v", taken, err)
			}
			if diff := cmp.Diff(before, client.HGetAll(t.Context(), keys[0]).Val()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSharesSlot(t *testing.T) {
	for stream, want := range map[string]bool{
		"terbayar:events": true, "{terbayar:events}:v2": true, "other": false, "{x}terbayar:events": false, "a{terbayar:events}b": true,
	} {
		if got := ledger.SharesSlot(stream); got != want {
			t.Errorf("%s: %v", stream, got)
		}
	}
}
