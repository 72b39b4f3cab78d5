package ledger_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
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
	start = time.Date(2036, 5, 21, 10, 0, 0, 0, time.UTC) // far in the future: nothing expires by the clock of a real Redis
	inv1  = payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV/1 é"}
)

func entry(key payment.Key, digest string) ledger.NewPayment {
	return ledger.NewPayment{
		Key: key, Amount: 13000, Order: []byte(`{"transaction_id":"INV-1"}`), Digest: digest,
		EncryptedToken: "v1.encrypted", MerchantID: "M1", ExpiresAt: start.Add(time.Hour),
	}
}

// clock is the clock of a test, for this process and for miniredis.
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

// forward moves the clock forward. It needs miniredis.
func (c *clock) forward(t fataler, d time.Duration) {
	c.t = c.t.Add(d)
	if !redistest.SetTime(c.client, c.t) {
		t.Fatal("the clock of a real Redis cannot be moved")
	}
}

// newLedger returns a ledger of one partition that waits for no acknowledgement.
func newLedger(client redis.UniversalClient, now func() time.Time) *ledger.Ledger {
	return newPartitioned(client, 1, now)
}

// newLedgerWithPayment returns a ledger with one queued payment, inv1.
func newLedgerWithPayment(t *testing.T, client redis.UniversalClient) (*ledger.Ledger, *clock) {
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

const (
	lease   = 20 * time.Second
	timeout = 20 * time.Second // of one try; Redis answers much sooner
)

func claim(t *testing.T, l *ledger.Ledger, want ledger.ClaimResult) *ledger.Record {
	t.Helper()
	return claimFor(t, l, lease, want)
}

func claimFor(t *testing.T, l *ledger.Ledger, lease time.Duration, want ledger.ClaimResult) *ledger.Record {
	t.Helper()
	r, result, err := l.Claim(t.Context(), inv1, ledger.Claim{
		Attempt: payment.Attempt{At: start, Kind: payment.KindSubmit}, Lease: lease, Timeout: timeout,
	})
	if err != nil || result != want {
		t.Fatalf("claim: result %q, error %v; want %q", result, err, want)
	}
	return r
}

// save saves a record with another status.
func save(t *testing.T, l *ledger.Ledger, r *ledger.Record, to payment.Status, due ledger.Due) {
	t.Helper()
	r.Status, r.Due = to, due
	if err := l.Save(t.Context(), r); err != nil {
		t.Fatalf("save %s: %v", to, err)
	}
}

// fataler is a *testing.T or a *rapid.T.
type fataler interface {
	Context() context.Context
	Fatal(args ...any)
}

type event struct {
	ID, Type, Subject, Source, SpecVersion string
	Time                                   time.Time
	Data                                   map[string]any
}

func readEvents(t *testing.T, client redis.UniversalClient) []event {
	t.Helper()
	entries, err := client.XRange(t.Context(), ledger.DefaultStream, "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	return decodeEvents(t, entries)
}

func decodeEvents(t fataler, entries []redis.XMessage) []event {
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
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		l, _ := newLedgerWithPayment(t, client)
		inv2 := payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV-2"}
		sameIDAtPaydia := payment.Key{Gateway: payment.Paydia, TransactionID: inv1.TransactionID}
		var got []string
		for _, r := range l.Create(t.Context(), []ledger.NewPayment{
			entry(inv1, "a"), entry(inv1, "b"), entry(inv2, "a"), entry(inv2, "b"), entry(sameIDAtPaydia, "z"),
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
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		l, _ := newLedgerWithPayment(t, client)
		r := claim(t, l, ledger.Claimed)
		if len(r.Attempts) != 1 || r.Attempts[0].Code != "" || r.Status != payment.Submitting {
			t.Errorf("want one attempt without a code: %+v", r.Payment)
		}
		claim(t, l, ledger.Busy)
		save(t, l, r, payment.OnProcessing, ledger.In(time.Minute))
		claim(t, l, ledger.NotQueued)
		_, result, err := l.Claim(t.Context(), payment.Key{Gateway: payment.Paydia, TransactionID: "?"}, ledger.Claim{Lease: lease, Timeout: timeout})
		if result != ledger.Missing || err != nil {
			t.Errorf("claim of a missing payment: %q, %v", result, err)
		}
	})
}

// expire waits until a lease of 50 ms ends. It moves the clock if it can.
func expire(t *testing.T, c *clock, l *ledger.Ledger) {
	t.Helper()
	if redistest.SetTime(c.client, c.t.Add(50*time.Millisecond)) {
		c.t = c.t.Add(50 * time.Millisecond)
		return
	}
	for {
		_, result, err := l.Claim(t.Context(), inv1, ledger.Claim{Lease: lease, Timeout: timeout})
		if err != nil {
			t.Fatal(err)
		}
		if result == ledger.ClaimExpired {
			return
		}
	}
}

func TestLateWorkerIsFenced(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		l, c := newLedgerWithPayment(t, client)
		first := claimFor(t, l, 50*time.Millisecond, ledger.Claimed)
		tooEarly, err := l.Read(t.Context(), inv1)
		if err != nil {
			t.Fatal(err)
		}
		tooEarly.MarkUnknown("net:unknown")
		if redistest.SetTime(client, c.t) { // on a real Redis the lease may have ended
			if err := l.SaveIfExpired(t.Context(), tooEarly); !errors.Is(err, ledger.ErrFenced) {
				t.Errorf("SaveIfExpired during the lease: %v", err)
			}
		}
		expire(t, c, l)
		second := claim(t, l, ledger.ClaimExpired)
		second.MarkUnknown("net:unknown")
		if err := l.SaveIfExpired(t.Context(), second); err != nil {
			t.Fatal(err)
		}

		first.Status = payment.Rejected
		if err := l.Save(t.Context(), first); !errors.Is(err, ledger.ErrFenced) {
			t.Errorf("save after another worker has saved: %v", err)
		}
		r, err := l.Read(t.Context(), inv1)
		if err != nil || r.Status != payment.Verifying || r.UnknownSince.IsZero() {
			t.Errorf("%v, %v", r, err)
		}
	})
}

// TestRelease: a claim that Redis does not acknowledge is released, with its attempt, and
// claims are paused.
func TestRelease(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		c := newClock(client)
		newLedgerWithPayment(t, client)
		// It waits for one replica, and there is none.
		log := slog.New(slog.DiscardHandler)
		writes := durable.NewWriters(durable.Options{
			Client: client, Mode: durable.Trusted, Replicas: 1, Timeout: time.Millisecond, Now: time.Now, Log: log,
		}, ledger.DurabilityKeys(client, 1))
		l := ledger.New(ledger.Options{Redis: client, Writes: writes, Stream: ledger.DefaultStream, Now: c.now, Log: log})
		for _, reason := range []string{"redis did not acknowledge the claim; it was released unsent", "redis did not acknowledge a claim"} {
			r, result, err := l.Claim(t.Context(), inv1, ledger.Claim{Lease: lease, Timeout: timeout})
			later, ok := errors.AsType[*ledger.LaterError](err)
			if !ok || later.Reason != reason || r != nil || result != "" {
				t.Errorf("claim without an acknowledgement: %v, %q, %v; want %q", r, result, err, reason)
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
				t.Errorf("create without an acknowledgement: %+v", created)
			}
		}
	})
}

// TestTooLate: a payment is not claimed after its ExpiresAt or, without one, after the
// QueueTTL.
func TestTooLate(t *testing.T) {
	t.Parallel()
	client := redistest.Mini(t)
	l, c := newLedgerWithPayment(t, client)
	ord := payment.Key{Gateway: payment.Paydia, TransactionID: "ORD-1"}
	e := entry(ord, "a")
	e.ExpiresAt = time.Time{}
	l.Create(t.Context(), []ledger.NewPayment{e})
	try := func(key payment.Key, ttl time.Duration) ledger.ClaimResult {
		t.Helper()
		_, result, err := l.Claim(t.Context(), key, ledger.Claim{Lease: lease, Timeout: timeout, QueueTTL: ttl})
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	c.forward(t, time.Hour)
	if result := try(inv1, 0); result != ledger.TooLate {
		t.Errorf("claim after ExpiresAt: %s", result)
	}
	if result := try(ord, time.Hour); result != ledger.TooLate {
		t.Errorf("claim after QueueTTL: %s", result)
	}
	if result := try(ord, 2*time.Hour); result != ledger.Claimed {
		t.Errorf("claim within QueueTTL: %s", result)
	}
}

// TestBadToken: creating the payment again replaces a token that no worker could decrypt,
// and no other token.
func TestBadToken(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		for _, status := range []payment.Status{payment.Queued, payment.NeedsReview} {
			if err := client.FlushAll(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			l, _ := newLedgerWithPayment(t, client)
			r := claim(t, l, ledger.Claimed)
			r.BadToken, r.NotBefore = true, time.Hour
			save(t, l, r, status, ledger.Due{})
			duplicate := entry(inv1, "a")
			duplicate.EncryptedToken = "v1.another"
			if created := l.Create(t.Context(), []ledger.NewPayment{duplicate})[0]; created.Creation != ledger.Duplicate || created.Status != payment.Queued {
				t.Errorf("%s: %+v", status, created)
			}
			if r := claim(t, l, ledger.Claimed); r.EncryptedToken != "v1.another" {
				t.Errorf("%s: token %q", status, r.EncryptedToken)
			}
			duplicate.EncryptedToken = "v1.third" // the second one is not bad
			l.Create(t.Context(), []ledger.NewPayment{duplicate})
			if r, err := l.Read(t.Context(), inv1); err != nil || r.EncryptedToken != "v1.another" {
				t.Errorf("%s: %+v, %v", status, r, err)
			}
		}
	})
}

func TestSaveWritesEvents(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		l, c := newLedgerWithPayment(t, client)
		r := claim(t, l, ledger.Claimed)
		r.GatewayReference, r.GatewayStatus, r.QRCode = "6", "On processing", "000201"
		r.FinishAttempt(payment.Attempt{At: start, Kind: payment.KindSubmit, Code: "http:200", HTTPStatus: 200, Action: "accept", DurationMS: 12})
		save(t, l, r, payment.OnProcessing, ledger.In(0))

		r, err := l.Read(t.Context(), inv1)
		if err != nil {
			t.Fatal(err)
		}
		r.AddAttempt(payment.Attempt{At: c.now(), Kind: payment.KindLookup, Code: "http:200"})
		r.GatewayStatus = "Terbayar"
		save(t, l, r, payment.Paid, ledger.Due{})

		// The same status again writes no event. A final status does not change.
		r, err = l.Read(t.Context(), inv1)
		if err != nil {
			t.Fatal(err)
		}
		save(t, l, r, payment.Paid, ledger.Due{})
		r, _ = l.Read(t.Context(), inv1)
		r.Status = payment.Failed
		if err := l.Save(t.Context(), r); !errors.Is(err, ledger.ErrIllegalMove) {
			t.Errorf("from paid to failed: %v", err)
		}

		var got []string
		for _, e := range readEvents(t, client) {
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

// TestRepeatedScripts: if a script runs twice for one request, as after a lost reply, its
// second reply is the same and it changes nothing.
func TestRepeatedScripts(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		client.AddHook(twice{})
		l, _ := newLedgerWithPayment(t, client)
		r := claim(t, l, ledger.Claimed)
		save(t, l, r, payment.OnProcessing, ledger.In(0))
		r, err := l.Read(t.Context(), inv1)
		if err != nil {
			t.Fatal(err)
		}
		for i, err := range l.SaveAll(t.Context(), []*ledger.Record{r}) {
			if err != nil {
				t.Errorf("%d: %v", i, err)
			}
		}
		if n := len(readEvents(t, client)); n != 1 {
			t.Errorf("%d events, want 1", n)
		}
		if r, _ = l.Read(t.Context(), inv1); len(r.Attempts) != 1 {
			t.Errorf("%d attempts, want 1", len(r.Attempts))
		}
	})
}

// twice runs every script twice and returns the second reply.
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
	t.Parallel()
	client := redistest.Mini(t)
	l, c := newLedgerWithPayment(t, client)
	ctx := t.Context()
	due := func() []payment.Gateway {
		t.Helper()
		g, _, err := l.Due(ctx, payment.Gateways())
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	take := func(list ledger.DueList, want int) *ledger.Batch {
		t.Helper()
		taken, err := l.TakeDue(ctx, list, payment.AMDigiPay, 30*time.Second, 10)
		if err != nil || taken.Err != nil || len(taken.Records) != want || taken.Len() != want {
			t.Fatalf("TakeDue: %d payments, %v, %v; want %d", taken.Len(), err, taken.Err, want)
		}
		return taken
	}
	if g := due(); g != nil {
		t.Errorf("due too early: %v", g)
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
	c.forward(t, time.Second) // the visibility timeout ends
	taken = take(ledger.Sending, 1)
	if err := l.Release(ctx, taken, []string{inv1.TransactionID}); err != nil {
		t.Fatal(err)
	}
	taken = take(ledger.Sending, 1)
	if err := l.Reschedule(ctx, taken, []string{inv1.TransactionID}, ledger.In(5*time.Second)); err != nil {
		t.Fatal(err)
	}
	take(ledger.Sending, 0)
	stats, err := l.Stats(ctx, payment.AMDigiPay)
	want := ledger.Stats{Counts: map[payment.Status]int64{payment.Queued: 1, payment.Submitting: 0, payment.Verifying: 0}, OldestQueued: ledger.TaskGrace + time.Minute}
	if diff := cmp.Diff(want, stats); diff != "" || err != nil {
		t.Error(err, diff)
	}

	r := claim(t, l, ledger.Claimed)
	r.MarkUnknown("net:unknown")
	save(t, l, r, payment.Verifying, ledger.In(5*time.Second))
	c.forward(t, 5*time.Second)
	taken = take(ledger.Open, 1)
	unknown, err := l.UnknownOutcomes(ctx, taken)
	if err != nil || len(unknown) != 1 || unknown[0].UnknownCode != "net:unknown" || unknown[0].Amount != 13000 {
		t.Errorf("unknown: %+v, %v", unknown, err)
	}
	if age := taken.Records[0].Now(c.now()).Sub(taken.Records[0].UnknownSince); age != 5*time.Second {
		t.Errorf("unknown for %s, want 5s", age)
	}
	stats, err = l.Stats(ctx, payment.AMDigiPay)
	want = ledger.Stats{Counts: map[payment.Status]int64{payment.Queued: 0, payment.Submitting: 0, payment.Verifying: 1}, OldestUnknown: 5 * time.Second}
	if diff := cmp.Diff(want, stats); diff != "" || err != nil {
		t.Error(err, diff)
	}
	r, _ = l.Read(ctx, inv1)
	save(t, l, r, payment.Paid, ledger.Due{})
	if err := l.Reschedule(ctx, taken, []string{inv1.TransactionID}, ledger.In(0)); err != nil {
		t.Error(err)
	}
	if g := due(); g != nil {
		t.Errorf("Reschedule made a final payment due: %v", g)
	}
}

// TestGrid: OnGrid rounds the due time up to a multiple of the interval.
func TestGrid(t *testing.T) {
	t.Parallel()
	client := redistest.Mini(t)
	l, c := newLedgerWithPayment(t, client)
	c.forward(t, 7*time.Second)
	save(t, l, claim(t, l, ledger.Claimed), payment.OnProcessing, ledger.OnGrid(30*time.Second))
	r, err := l.Read(t.Context(), inv1)
	if want := start.Add(30 * time.Second); err != nil || !r.NextAt.Equal(want) {
		t.Errorf("next at %v (%v), want %v", r.NextAt, err, want)
	}
}

// TestNotBefore: a payment that is queued for a retry cannot be claimed before its time.
func TestNotBefore(t *testing.T) {
	t.Parallel()
	client := redistest.Mini(t)
	l, c := newLedgerWithPayment(t, client)
	r := claim(t, l, ledger.Claimed)
	r.NotBefore = time.Minute
	save(t, l, r, payment.Queued, ledger.Due{})
	c.forward(t, 50*time.Second)
	_, _, err := l.Claim(t.Context(), inv1, ledger.Claim{Lease: lease, Timeout: timeout})
	if later, ok := errors.AsType[*ledger.LaterError](err); !ok || later.Wait != 10*time.Second {
		t.Errorf("claim before NotBefore: %v", err)
	}
	if r, err := l.Read(t.Context(), inv1); err != nil || !r.NextAt.Equal(start.Add(time.Minute)) {
		t.Errorf("next at %v, %v", r.NextAt, err)
	}
	c.forward(t, 10*time.Second)
	claim(t, l, ledger.Claimed)
}

// TestUnreadable: a record that is of another version or damaged is not changed.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		old, replacement string // in the record
		err              error
		claim            ledger.ClaimResult // "": an error
	}{
		{"3 queued", "4 queued", ledger.ErrOtherVersion, ledger.OtherVersion},
		{"3 queued 1", "3 queued x", ledger.ErrDamaged, ""},
		{" -\n", "\n", ledger.ErrDamaged, ""},
		{`{"amount"`, `{`, ledger.ErrDamaged, ""},
		{"1 ", "99999999999999999999 ", ledger.ErrDamaged, ""},
		{"\n", " ", ledger.ErrDamaged, ""},
	} {
		t.Run(row.replacement, func(t *testing.T) {
			client := redistest.Mini(t)
			l, c := newLedgerWithPayment(t, client)
			keys, err := client.Keys(t.Context(), "*:payment:*").Result()
			if err != nil || len(keys) != 1 {
				t.Fatal(keys, err)
			}
			before := strings.Replace(client.Get(t.Context(), keys[0]).Val(), row.old, row.replacement, 1)
			client.Set(t.Context(), keys[0], before, 0)
			if _, err := l.Read(t.Context(), inv1); !errors.Is(err, row.err) {
				t.Errorf("read: %v", err)
			}
			c.forward(t, ledger.TaskGrace)
			taken, err := l.TakeDue(t.Context(), ledger.Sending, payment.AMDigiPay, time.Second, 10)
			if err != nil || !errors.Is(taken.Err, row.err) || len(taken.Records) != 0 || len(taken.Unreadable) != 1 {
				t.Errorf("take: %+v, %v", taken, err)
			}
			if after := client.Get(t.Context(), keys[0]).Val(); after != before {
				t.Errorf("%q was %q", after, before)
			}
			_, result, err := l.Claim(t.Context(), inv1, ledger.Claim{Lease: lease, Timeout: timeout})
			if result != row.claim || (err == nil) != (row.claim != "") {
				t.Errorf("claim: %q, %v", result, err)
			}
		})
	}
}

// TestOrderIsDeleted: the order, which has the customer's data, is kept while the payment may
// be sent, and no longer.
func TestOrderIsDeleted(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		for status, kept := range map[payment.Status]bool{
			payment.Queued: true, payment.Verifying: true, payment.NeedsReview: true,
			payment.OnProcessing: false, payment.Paid: false, payment.Rejected: false, payment.Expired: false,
			payment.Failed: false, payment.Cancelled: false, payment.Refunded: false,
		} {
			if err := client.FlushAll(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			l, _ := newLedgerWithPayment(t, client)
			r := claim(t, l, ledger.Claimed)
			want := string(r.Order)
			if !strings.Contains(want, "transaction_id") {
				t.Fatalf("the claim has the order %q", want)
			}
			from := payment.OnProcessing // every status can be reached from this one, or from submitting
			if payment.CanMove(r.Status, status) {
				from = r.Status
			} else {
				save(t, l, r, from, ledger.In(0))
				r, _ = l.Read(t.Context(), inv1)
			}
			save(t, l, r, status, ledger.In(0))
			if r, err := l.Read(t.Context(), inv1); err != nil || kept && string(r.Order) != want || !kept && r.Order != nil {
				t.Errorf("%s from %s: order %q, %v", status, from, r.Order, err)
			}
		}
	})
}

// TestStoredTexts: records that were written by an earlier build of this version are read. The
// dictionaries of the compression are part of the format.
func TestStoredTexts(t *testing.T) {
	t.Parallel()
	client := redistest.Mini(t)
	l := newLedger(client, newClock(client).now)
	for name, want := range map[string]string{
		"queued": `{Gateway:amdigipay TransactionID:INV/1 é Status:queued GatewayStatus: GatewayReference: Amount:13000 CreatedAt:2036-05-21 10:00:00 +0000 UTC UpdatedAt:2036-05-21 10:00:00 +0000 UTC Reason: PaymentLinks: PaymentCode: QRCode: NextAt:2036-05-21 10:01:00 +0000 UTC Attempts:[{At:2036-05-21 10:00:00 +0000 UTC Kind:submit Code:http:429 Message:slow down HTTPStatus:429 Action:retry DurationMS:12 ExternalID:}] Priority:} ` +
			fmt.Sprintf(order, "INV/1 é"),
		"on_processing": `{Gateway:amdigipay TransactionID:INV/1 é Status:on_processing GatewayStatus:On processing GatewayReference:883123 Amount:13000 CreatedAt:2036-05-21 10:00:00 +0000 UTC UpdatedAt:2036-05-21 10:01:00 +0000 UTC Reason: PaymentLinks: PaymentCode: QRCode:00020101021226670016COM.NOBUBANK.WWW01189360050300000842770214080500006791870303UKE51440014ID.CO.QRIS.WWW0215ID2021084466451 NextAt:0001-01-01 00:00:00 +0000 UTC Attempts:[{At:2036-05-21 10:00:00 +0000 UTC Kind:submit Code:http:429 Message:slow down HTTPStatus:429 Action:retry DurationMS:12 ExternalID:} {At:2036-05-21 10:01:00 +0000 UTC Kind:submit Code:http:200 Message:success HTTPStatus:200 Action:accept DurationMS:212 ExternalID:}] Priority:} `,
	} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		client.Set(t.Context(), inv1Key, text, 0)
		r, err := l.Read(t.Context(), inv1)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := fmt.Sprintf("%+v %s", r.Payment, r.Order); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestSharesSlot(t *testing.T) {
	t.Parallel()
	for stream, want := range map[string]bool{
		"terbayar:events": true, "{terbayar:events}:v2": true, "other": false, "{x}terbayar:events": false, "a{terbayar:events}b": true,
	} {
		if got := ledger.SharesSlot(stream); got != want {
			t.Errorf("%s: %v", stream, got)
		}
	}
}
