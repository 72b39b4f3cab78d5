package ledger_test

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/durable"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redisconn"
	"terbayar/internal/redistest"
)

func newPartitioned(client redis.UniversalClient, partitions int, now func() time.Time) *ledger.Ledger {
	log := slog.New(slog.DiscardHandler)
	return ledger.New(ledger.Options{
		Redis: client, Stream: ledger.DefaultStream, Partitions: partitions, Now: now, Log: log,
		Writes: durable.NewWriters(durable.Options{Client: client, Mode: durable.None, Now: now, Log: log}, ledger.DurabilityKeys(client, partitions)),
	})
}

// eachKind runs a test on miniredis, on a real Redis and on a Cluster.
func eachKind(t *testing.T, test func(*testing.T, redis.UniversalClient)) {
	t.Helper()
	for name, client := range map[string]func(*testing.T) redis.UniversalClient{
		"miniredis":    func(t *testing.T) redis.UniversalClient { return redistest.Mini(t) },
		"redis-server": func(t *testing.T) redis.UniversalClient { return redistest.Server(t).Client(t) },
		"cluster": func(t *testing.T) redis.UniversalClient {
			client, err := redisconn.Open(redistest.NewCluster(t).URL(), redisconn.Passwords{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = client.Close() })
			return client
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, client(t))
		})
	}
}

// TestPartitions takes a hundred payments through the ledger, spread over twelve partitions.
func TestPartitions(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, client redis.UniversalClient) {
		testPartitions(t, client, newPartitioned(client, 12, time.Now))
	})
}

func testPartitions(t *testing.T, client redis.UniversalClient, l *ledger.Ledger) {
	const n, unknown = 100, 10
	ctx := t.Context()
	g := payment.AMDigiPay
	var entries []ledger.NewPayment
	var ids []string
	for i := range n {
		ids = append(ids, fmt.Sprintf("INV-%03d", i))
		entries = append(entries, entry(payment.Key{Gateway: g, TransactionID: ids[i]}, "a"))
	}
	for i, created := range l.Create(ctx, append(entries, entries[7])) {
		want := ledger.Created
		if i == n {
			want = ledger.Duplicate
		}
		if created.Err != nil || created.Creation != want {
			t.Fatalf("%d: %+v", i, created)
		}
	}
	stats := func(want map[payment.Status]int64) {
		t.Helper()
		got, err := l.Stats(ctx, g)
		if diff := cmp.Diff(want, got.Counts); diff != "" || err != nil {
			t.Error(err, diff)
		}
	}
	stats(map[payment.Status]int64{payment.Queued: n, payment.Submitting: 0, payment.Verifying: 0})
	if tokens, err := l.EncryptedTokens(ctx, g, n); err != nil || len(tokens) != n {
		t.Errorf("%d customer tokens, %v", len(tokens), err)
	}

	for i, id := range ids {
		r, result, err := l.Claim(ctx, payment.Key{Gateway: g, TransactionID: id}, ledger.Claim{Lease: lease, Timeout: timeout})
		if err != nil || result != ledger.Claimed {
			t.Fatalf("%s: %s, %v", id, result, err)
		}
		r.Status, r.Due = payment.OnProcessing, ledger.In(0)
		if i < unknown {
			r.MarkUnknown("net:unknown")
		}
		if err := l.Save(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	stats(map[payment.Status]int64{payment.Queued: 0, payment.Submitting: 0, payment.Verifying: unknown, payment.OnProcessing: n - unknown})
	if accepted, err := l.Accepted(ctx, g); err != nil || accepted != n-unknown {
		t.Errorf("accepted %d, %v", accepted, err)
	}
	if due, _, err := l.Due(ctx, payment.Gateways()); err != nil || !slices.Equal(due, []payment.Gateway{g}) {
		t.Errorf("due: %v, %v", due, err)
	}

	// Several rounds take all of them, each once.
	var taken []string
	var batch *ledger.Batch
	for len(taken) < n {
		var err error
		if batch, err = l.TakeDue(ctx, ledger.Open, g, time.Hour, 60); err != nil || batch.Err != nil || batch.Len() == 0 || batch.Len() > 60 {
			t.Fatalf("took %d of %d: %v, %v", batch.Len(), n-len(taken), err, batch.Err)
		}
		for _, r := range batch.Records {
			taken = append(taken, r.TransactionID)
		}
		if err := l.Hide(ctx, batch, time.Hour); err != nil {
			t.Error(err)
		}
	}
	slices.Sort(taken)
	if diff := cmp.Diff(ids, taken); diff != "" {
		t.Error(diff)
	}
	records, err := l.UnknownOutcomes(ctx, batch)
	if err != nil || len(records) != unknown {
		t.Errorf("%d unknown outcomes, %v", len(records), err)
	}
	var released []string
	for _, r := range batch.Records {
		released = append(released, r.TransactionID)
	}
	if err := l.Release(ctx, batch, released); err != nil {
		t.Error(err)
	}
	again, err := l.TakeDue(ctx, ledger.Open, g, time.Hour, 10*n)
	if err != nil || again.Len() != len(released) {
		t.Errorf("took %d, %v, want the %d that were released", again.Len(), err, len(released))
	}

	// With a limit below the number of partitions, every partition gets its turn too.
	if err := l.Release(ctx, again, released); err != nil {
		t.Error(err)
	}
	for left := len(released); left > 0; left -= again.Len() {
		if again, err = l.TakeDue(ctx, ledger.Open, g, time.Hour, 4); err != nil || again.Len() == 0 {
			t.Fatalf("took none of %d, %v", left, err)
		}
	}

	// The payments are in all partitions, each with its event.
	events := 0
	for i := range 12 {
		length, err := client.XLen(ctx, ledger.StreamName(ledger.DefaultStream, i)).Result()
		if err != nil || length == 0 {
			t.Errorf("partition %d has %d events, %v", i, length, err)
		}
		events += int(length)
	}
	if events != n-unknown {
		t.Errorf("%d events", events)
	}
}

func TestStreamName(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name      string
		partition int
		want      string
	}{
		{"terbayar:events", 0, "terbayar:events"},
		{"terbayar:events", 3, "terbayar:events:3"},
		{"{terbayar:events}:mine", 0, "{terbayar:events}:mine"},
		{"{terbayar:events}:mine", 3, "{terbayar:events:3}:mine"},
		{"mine", 11, "mine:11"},
	} {
		if got := ledger.StreamName(row.name, row.partition); got != row.want {
			t.Errorf("%s, %d: %s, want %s", row.name, row.partition, got, row.want)
		}
	}
}

// TestCheckPartitions: the number is written down at the first use, and another one is
// refused, before anything is created. A ledger that is older than the number has one.
func TestCheckPartitions(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		now := newClock(client).now
		requireError := func(err error, have, want int) {
			t.Helper()
			var other *ledger.PartitionsError
			if !errors.As(err, &other) || *other != (ledger.PartitionsError{Have: have, Want: want}) {
				t.Errorf("%v, want the error that it has %d, not %d", err, have, want)
			}
		}
		twelve, one := newPartitioned(client, 12, now), newPartitioned(client, 1, now)
		if err := twelve.CheckPartitions(t.Context()); err != nil {
			t.Error(err)
		}
		if err := twelve.ReadPartitions(t.Context()); err != nil {
			t.Error(err)
		}
		requireError(one.ReadPartitions(t.Context()), 12, 1)
		created := one.Create(t.Context(), []ledger.NewPayment{entry(inv1, "a")})[0]
		requireError(created.Err, 12, 1)
		if _, err := one.Read(t.Context(), inv1); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("it was created: %v", err)
		}

		client.FlushAll(t.Context())
		client.ZAdd(t.Context(), "{terbayar:events}:queued:paydia", redis.Z{Member: "ORD-1"}) // an older ledger
		requireError(newPartitioned(client, 2, now).CheckPartitions(t.Context()), 1, 2)
		if err := one.CheckPartitions(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
