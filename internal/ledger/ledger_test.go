package ledger_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
)

var (
	start = time.Date(2026, 5, 21, 10, 0, 0, 0, time.UTC)
	inv1  = payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV/1 é"}
)

// clock is a time that stands still until it is moved.
type clock struct{ t time.Time }

func (c *clock) now() time.Time          { return c.t }
func (c *clock) forward(d time.Duration) { c.t = c.t.Add(d) }

func entry(key payment.Key, digest string) ledger.Entry {
	return ledger.Entry{
		Key: key, Amount: 13000, Order: []byte(`{"transaction_id":"INV-1"}`), Digest: digest,
		SealedToken: "v1.sealed", MerchantID: "M1", ExpiresAt: start.Add(time.Hour),
	}
}

// house is a ledger with one queued payment in it.
func house(t *testing.T, client redis.UniversalClient) (*ledger.Ledger, *clock) {
	t.Helper()
	c := &clock{start}
	l := ledger.New(client, ledger.DefaultStream, c.now)
	for _, r := range l.Create(t.Context(), []ledger.Entry{entry(inv1, "a")}) {
		if r.Err != nil || r.Creation != ledger.Created {
			t.Fatalf("create: %+v", r)
		}
	}
	return l, c
}

func claim(t *testing.T, l *ledger.Ledger, want ledger.Verdict) *ledger.Record {
	t.Helper()
	r, verdict, err := l.Claim(t.Context(), inv1, payment.Attempt{At: start, Kind: payment.KindSubmit}, 20*time.Second)
	if err != nil || verdict != want {
		t.Fatalf("claim: verdict %q, error %v; want %q", verdict, err, want)
	}
	return r
}

// move saves a record with another status, as the code that sends or polls does.
func move(t *testing.T, l *ledger.Ledger, r *ledger.Record, to payment.Status, due time.Time) {
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
		l, _ := house(t, client)
		inv2 := payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV-2"}
		sameIDElsewhere := payment.Key{Gateway: payment.Paydia, TransactionID: inv1.TransactionID}
		var got []string
		for _, r := range l.Create(t.Context(), []ledger.Entry{
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
		l, c := house(t, client)
		r := claim(t, l, ledger.Claimed)
		if len(r.Attempts) != 1 || r.Attempts[0].Code != "" || r.Status != payment.Submitting {
			t.Errorf("the attempt does not stand open: %+v", r.Payment)
		}
		claim(t, l, ledger.Busy)
		c.forward(20 * time.Second)
		if late := claim(t, l, ledger.Lapsed); !late.Lapsed(c.now()) {
			t.Error("a lapsed record does not say so")
		}
		move(t, l, r, payment.OnProcessing, start.Add(time.Minute))
		claim(t, l, ledger.Settled)
		_, verdict, err := l.Claim(t.Context(), payment.Key{Gateway: payment.Paydia, TransactionID: "?"}, payment.Attempt{}, time.Second)
		if verdict != ledger.Missing || err != nil {
			t.Errorf("claim of nothing: %q, %v", verdict, err)
		}
	})
}

func TestLateHolderIsFenced(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		l, c := house(t, client)
		first := claim(t, l, ledger.Claimed)
		c.forward(time.Minute)
		second := claim(t, l, ledger.Lapsed)
		second.Since = c.now()
		move(t, l, second, payment.Verifying, c.now())

		first.Status = payment.Rejected
		if err := l.Save(t.Context(), first); !errors.Is(err, ledger.ErrFenced) {
			t.Errorf("a late holder saved: %v", err)
		}
		r, err := l.Read(t.Context(), inv1)
		if err != nil || r.Status != payment.Verifying {
			t.Errorf("%v, %v", r.Status, err)
		}
	})
}

func TestChangeAndEventAreOne(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		l, c := house(t, client)
		r := claim(t, l, ledger.Claimed)
		r.GatewayReference, r.GatewayStatus, r.QRCode = "6", "On processing", "000201"
		r.Close(payment.Attempt{At: start, Kind: payment.KindSubmit, Code: "http:200", HTTPStatus: 200, Action: "accept", DurationMS: 12})
		move(t, l, r, payment.OnProcessing, c.now())

		c.forward(time.Minute)
		r, err := l.Read(t.Context(), inv1)
		if err != nil {
			t.Fatal(err)
		}
		r.Append(payment.Attempt{At: c.now(), Kind: payment.KindLookup, Code: "http:200"})
		r.GatewayStatus = "Terbayar"
		move(t, l, r, payment.Paid, time.Time{})

		// The same status again is no event; a final status never moves again.
		r, err = l.Read(t.Context(), inv1)
		if err != nil {
			t.Fatal(err)
		}
		move(t, l, r, payment.Paid, time.Time{})
		r, _ = l.Read(t.Context(), inv1)
		r.Status = payment.Failed
		if err := l.Save(t.Context(), r); !errors.Is(err, ledger.ErrIllegal) {
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
		if len(r.Attempts) != 2 || r.Attempts[0].Code != "http:200" || r.SealedToken != "" {
			t.Errorf("attempts %+v, token %q", r.Attempts, r.SealedToken)
		}
	})
}

// TestRepeatedScripts plays the reply that never arrived: go-redis sends the
// script again, and the second run must answer as the first.
func TestRepeatedScripts(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		client.AddHook(twice{})
		l, c := house(t, client)
		r := claim(t, l, ledger.Claimed)
		move(t, l, r, payment.OnProcessing, c.now())
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

func TestOpenSet(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		l, c := house(t, client)
		ctx := t.Context()
		both := payment.Gateways()
		due := func() []payment.Gateway {
			t.Helper()
			g, err := l.Due(ctx, both)
			if err != nil {
				t.Fatal(err)
			}
			return g
		}
		take := func() int {
			t.Helper()
			r, err := l.Take(ctx, payment.AMDigiPay, c.t.Add(30*time.Second), 10)
			if err != nil {
				t.Fatal(err)
			}
			return len(r)
		}
		if g := due(); g != nil {
			t.Errorf("due before its time: %v", g)
		}
		c.forward(time.Minute)
		if diff := cmp.Diff([]payment.Gateway{payment.AMDigiPay}, due()); diff != "" {
			t.Error(diff)
		}
		if n := take(); n != 1 {
			t.Errorf("took %d, want 1", n)
		}
		if n := take(); n != 0 {
			t.Errorf("took %d of what is taken already", n)
		}
		c.forward(30 * time.Second) // the taker died
		if n := take(); n != 1 {
			t.Errorf("took %d after the taker died, want 1", n)
		}
		r := claim(t, l, ledger.Claimed)
		r.Since = c.now()
		r.Doubt = "net:unknown"
		move(t, l, r, payment.Verifying, c.now().Add(5*time.Second))
		unknown, err := l.Unknown(ctx, payment.AMDigiPay)
		if err != nil || len(unknown) != 1 || unknown[0].Doubt != "net:unknown" || unknown[0].Amount != 13000 {
			t.Errorf("unknown: %+v, %v", unknown, err)
		}
		c.forward(time.Second)
		census, err := l.Census(ctx, payment.AMDigiPay)
		if err != nil || census.OldestUnknown != time.Second {
			t.Errorf("oldest %v, %v", census.OldestUnknown, err)
		}
		if diff := cmp.Diff(map[payment.Status]int64{payment.Queued: 0, payment.Submitting: 0, payment.Verifying: 1}, census.Counts); diff != "" {
			t.Error(diff)
		}
		r, _ = l.Read(ctx, inv1)
		move(t, l, r, payment.Paid, time.Time{})
		if err := l.Postpone(ctx, payment.AMDigiPay, []string{inv1.TransactionID}, start); err != nil {
			t.Error(err)
		}
		if g := due(); g != nil {
			t.Errorf("postponing brought a final payment back: %v", g)
		}
	})
}

func TestNewerRecordIsLeftAlone(t *testing.T) {
	client := redistest.Mini(t)
	l, c := house(t, client)
	keys, err := client.Keys(t.Context(), "*:payment:*").Result()
	if err != nil || len(keys) != 1 {
		t.Fatal(keys, err)
	}
	client.HSet(t.Context(), keys[0], "v", "3")
	if _, err := l.Read(t.Context(), inv1); !errors.Is(err, ledger.ErrNewer) {
		t.Errorf("read: %v", err)
	}
	c.forward(time.Hour)
	if r, err := l.Take(t.Context(), payment.AMDigiPay, c.t.Add(time.Second), 10); !errors.Is(err, ledger.ErrNewer) || len(r) != 0 {
		t.Errorf("take: %v, %v", r, err)
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
