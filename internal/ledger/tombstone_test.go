package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
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

// archiveDay is a day of the archive.
var archiveDay = time.Date(2036, 6, 1, 0, 0, 0, 0, time.UTC)

// anyAge includes payments of this very moment: Redis' clock is only known to a millisecond or so.
const anyAge = -time.Minute

// retentionEnv is a ledger with payments in all statuses.
type retentionEnv struct {
	*ledger.Ledger
	client redis.UniversalClient
	ahead  time.Duration // of the real time
	late   int           // results that came too late
	log    strings.Builder
}

func newRetentionEnv(t *testing.T, client redis.UniversalClient, partitions int) *retentionEnv {
	t.Helper()
	e := &retentionEnv{client: client}
	log := slog.New(slog.NewTextHandler(&e.log, nil))
	now := func() time.Time { return time.Now().Add(e.ahead) }
	e.Ledger = ledger.New(ledger.Options{
		Redis: client, Stream: ledger.DefaultStream, Partitions: partitions, Now: now, Log: log,
		Writes:       durable.NewWriters(durable.Options{Client: client, Mode: durable.None, Now: now, Log: log}, ledger.DurabilityKeys(client, partitions)),
		OnLateResult: func(payment.Gateway) { e.late++ },
	})
	return e
}

// add creates a payment, as entry does, and takes it to a status.
func (e *retentionEnv) add(t *testing.T, key payment.Key, status payment.Status, due ledger.Due) {
	t.Helper()
	if r := e.Create(t.Context(), []ledger.NewPayment{entry(key, "a")})[0]; r.Err != nil || r.Creation != ledger.Created {
		t.Fatalf("create: %+v", r)
	}
	if status == payment.Queued {
		return
	}
	r, result, err := e.Claim(t.Context(), key, ledger.Claim{
		Attempt: payment.Attempt{At: start, Kind: payment.KindSubmit}, Lease: lease, Timeout: timeout,
	})
	if err != nil || result != ledger.Claimed {
		t.Fatalf("claim: %q, %v", result, err)
	}
	if status == payment.Submitting {
		return
	}
	r.GatewayStatus, r.GatewayReference, r.PaymentLinks, r.Reason = "Word", "883123", "https://pay.example/1", "some reason"
	r.FinishAttempt(payment.Attempt{At: start, Kind: payment.KindSubmit, Code: "http:200", Message: "success é", HTTPStatus: 200, Action: "accept", DurationMS: 12})
	save(t, e.Ledger, r, status, due)
}

// ended returns what ScanEnded finds, by id.
func (e *retentionEnv) ended(t *testing.T, age time.Duration) map[string]*ledger.Record {
	t.Helper()
	found := map[string]*ledger.Record{}
	unreadable, err := e.ScanEnded(t.Context(), age, func(records []*ledger.Record) error {
		for _, r := range records {
			found[r.TransactionID] = r
		}
		return nil
	})
	if err != nil || unreadable != 0 {
		t.Fatalf("scan: %d unreadable, %v", unreadable, err)
	}
	return found
}

func (e *retentionEnv) drop(t *testing.T, want int, records ...*ledger.Record) {
	t.Helper()
	if dropped, err := e.Drop(t.Context(), records, archiveDay); err != nil || dropped != want {
		t.Fatalf("dropped %d of %d, want %d: %v", dropped, len(records), want, err)
	}
}

func (e *retentionEnv) counts(t *testing.T) string {
	t.Helper()
	s, err := e.Stats(t.Context(), payment.AMDigiPay)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d records, %d tombstones", s.Payments(), s.Tombstones)
}

func (e *retentionEnv) creation(t *testing.T, key payment.Key, digest string) string {
	t.Helper()
	r := e.Create(t.Context(), []ledger.NewPayment{entry(key, digest)})[0]
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	return fmt.Sprintf("%s %s", r.Creation, r.Status)
}

func idOf(s payment.Status) payment.Key {
	return payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV/é:" + string(s)}
}

// endStatuses are the statuses in which a payment is over, once nothing looks it up.
var endStatuses = []payment.Status{
	payment.Cancelled, payment.Expired, payment.Failed, payment.NeedsReview, payment.Paid, payment.Refunded, payment.Rejected,
}

// TestTombstones: payments that are over become tombstones, in every status. A payment in
// another status, one that is looked up, and one that is not old enough do not. The same id
// submitted again is a duplicate or a conflict as before.
func TestTombstones(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, client redis.UniversalClient) {
		e := newRetentionEnv(t, client, 12)
		for _, s := range payment.Statuses() {
			due := ledger.Due{}
			if s == payment.Verifying || s == payment.OnProcessing {
				due = ledger.In(time.Hour)
			}
			e.add(t, idOf(s), s, due)
		}
		lookedUp := payment.Key{Gateway: payment.AMDigiPay, TransactionID: "looked-up"}
		e.add(t, lookedUp, payment.Expired, ledger.In(time.Hour))

		if found := e.ended(t, time.Hour); len(found) != 0 {
			t.Errorf("over for an hour: %v", slices.Collect(maps.Keys(found)))
		}
		found := e.ended(t, anyAge)
		var want []string
		for _, s := range endStatuses {
			want = append(want, idOf(s).TransactionID)
		}
		if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, want) {
			t.Fatalf("found %q, want %q", got, want)
		}
		before := map[payment.Status]*ledger.Record{}
		for _, s := range endStatuses {
			before[s], _ = e.Read(t.Context(), idOf(s))
		}
		records := slices.Collect(maps.Values(found))
		e.drop(t, len(want), records...)
		e.drop(t, len(want), records...) // the reply was lost
		if got, want := e.counts(t), "5 records, 7 tombstones"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if found := e.ended(t, anyAge); len(found) != 0 {
			t.Errorf("still there: %v", found)
		}
		for _, s := range endStatuses {
			full := before[s].Payment
			left := payment.Payment{
				Gateway: full.Gateway, TransactionID: full.TransactionID, Status: s, Amount: full.Amount,
				GatewayReference: full.GatewayReference, CreatedAt: full.CreatedAt, UpdatedAt: full.UpdatedAt, Attempts: []payment.Attempt{},
			}
			r, err := e.Read(t.Context(), idOf(s))
			if err != nil || !r.Tombstone || !r.ArchivedOn.Equal(archiveDay) {
				t.Fatalf("%s: %+v, %v", s, r, err)
			}
			if diff := cmp.Diff(left, r.Payment); diff != "" {
				t.Errorf("%s: %s", s, diff)
			}
			if got, want := e.creation(t, idOf(s), "a"), "duplicate "+string(s); got != want {
				t.Errorf("%s, want %s", got, want)
			}
			if got, want := e.creation(t, idOf(s), "b"), "conflict "+string(s); got != want {
				t.Errorf("%s, want %s", got, want)
			}
			if r, result, err := e.Claim(t.Context(), idOf(s), ledger.Claim{Lease: lease, Timeout: timeout}); result != ledger.NotQueued || err != nil || r.Status != s {
				t.Errorf("claim: %+v, %q, %v", r, result, err)
			}
		}
		if got, want := e.counts(t), "5 records, 7 tombstones"; got != want {
			t.Errorf("%s, want %s: a tombstone was created again", got, want)
		}
		if r, err := e.Read(t.Context(), lookedUp); err != nil || r.Tombstone {
			t.Errorf("a payment that is looked up: %+v, %v", r, err)
		}
	})
}

// TestTombstoneIsSmall: Redis stores a hash with a value of more than 64 bytes as a table, at twice
// the memory. A tombstone with the longest reference of a gateway must not be longer.
func TestTombstoneIsSmall(t *testing.T) {
	t.Parallel()
	client := redistest.Server(t).Client(t)
	for _, reference := range []string{
		"c407177ce0842a3fc0f1b11d06c3a9620f48b71cf7ed255b1f2edc3de175798a", // an example of Paydia's documentation
		"883123", "88312", "AB", "", "ref-1",
	} {
		e := newRetentionEnv(t, client, 1)
		key := payment.Key{Gateway: payment.Paydia, TransactionID: "b57d8895-790b-4da3-a9e7-0387176de9bf"}
		client.FlushAll(t.Context())
		e.add(t, key, payment.Paid, ledger.Due{})
		r := e.ended(t, anyAge)[key.TransactionID]
		r.GatewayReference, r.Amount, r.CreatedAt = reference, 99_999_999, r.UpdatedAt.Add(-48*time.Hour)
		e.drop(t, 1, r)
		got, err := e.Read(t.Context(), key)
		if err != nil || !got.Tombstone || got.GatewayReference != reference || got.Amount != r.Amount || !got.CreatedAt.Equal(r.CreatedAt) || !got.ArchivedOn.Equal(archiveDay) {
			t.Errorf("%q: %+v, %v", reference, got, err)
		}
		keys := client.Keys(t.Context(), "*:tombstones:*").Val()
		if len(keys) != 1 || client.ObjectEncoding(t.Context(), keys[0]).Val() == "hashtable" {
			t.Errorf("%q: %v is stored as a hash table", reference, keys)
		}
	}
}

// TestDropIsFenced: a payment that has changed since it was archived keeps its record; one that
// is looked up again, too.
func TestDropIsFenced(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		e := newRetentionEnv(t, client, 1)
		key := idOf(payment.Expired)
		e.add(t, key, payment.Expired, ledger.Due{})
		read := e.ended(t, anyAge)[key.TransactionID]
		other, _ := e.Read(t.Context(), key)
		save(t, e.Ledger, other, payment.Paid, ledger.Due{})
		e.drop(t, 0, read)
		if r, err := e.Read(t.Context(), key); err != nil || r.Tombstone || r.Status != payment.Paid {
			t.Errorf("%+v, %v", r, err)
		}
		read = e.ended(t, anyAge)[key.TransactionID]
		client.ZAdd(t.Context(), "{terbayar:events}:open:amdigipay", redis.Z{Score: 1, Member: key.TransactionID})
		e.drop(t, 0, read)
		if got, want := e.counts(t), "1 records, 0 tombstones"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

// TestLateResult: the result of a lookup that began before the record was dropped is not
// recorded, but logged and counted.
func TestLateResult(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		e := newRetentionEnv(t, client, 1)
		key := idOf(payment.Expired)
		e.add(t, key, payment.Expired, ledger.Due{})
		late, _ := e.Read(t.Context(), key)
		for _, r := range e.ended(t, anyAge) {
			e.drop(t, 1, r)
		}
		late.Status = payment.Paid
		if err := e.SaveAll(t.Context(), []*ledger.Record{late})[0]; !errors.Is(err, ledger.ErrFenced) {
			t.Errorf("save: %v", err)
		}
		if err := e.Save(t.Context(), late); !errors.Is(err, ledger.ErrFenced) {
			t.Errorf("save: %v", err)
		}
		if e.late != 2 || strings.Count(e.log.String(), `transaction_id=INV/é:expired recorded=expired late=paid`) != 2 {
			t.Errorf("%d late results, log %s", e.late, e.log.String())
		}
		missing := *late
		missing.TransactionID = "never existed"
		if err := e.Save(t.Context(), &missing); !errors.Is(err, ledger.ErrNotFound) || e.late != 2 {
			t.Errorf("save of a missing payment: %v, %d late results", err, e.late)
		}
	})
}

// TestTombstoneOfVersion2: a record of version 2 becomes a tombstone, too.
func TestTombstoneOfVersion2(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		e := newRetentionEnv(t, client, 1)
		e.add(t, idOf(payment.Queued), payment.Queued, ledger.Due{}) // and with it Redis' clock is known
		long := fmt.Sprint(time.Now().Add(-time.Hour).UnixMilli())
		writeVersion2(t, client, payment.Paid, map[string]string{"updated": long, "created": long, "digest": strings.Repeat("ab", 32)})
		client.Del(t.Context(), "{terbayar:events}:open:amdigipay")
		e.drop(t, 1, e.ended(t, time.Minute)[inv1.TransactionID])
		writeVersion2(t, client, payment.Queued, nil) // a program of version 2 creates it again
		if r, result, err := e.Claim(t.Context(), inv1, ledger.Claim{Lease: lease, Timeout: timeout}); !errors.Is(err, ledger.ErrCreatedAgain) {
			t.Errorf("claim: %+v, %q, %v", r, result, err)
		}
		if r := e.Create(t.Context(), []ledger.NewPayment{entry(inv1, strings.Repeat("ab", 32))})[0]; !errors.Is(r.Err, ledger.ErrCreatedAgain) {
			t.Errorf("create: %+v", r)
		}
		client.Del(t.Context(), inv1Key)
		for digest, want := range map[string]string{strings.Repeat("ab", 32): "duplicate paid", strings.Repeat("cd", 32): "conflict paid"} {
			if got := e.creation(t, inv1, digest); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		}
	})
}

// TestScanStops: an error of the caller, such as a full archive, ends the scan; nothing else is
// dropped.
func TestScanStops(t *testing.T) {
	t.Parallel()
	e := newRetentionEnv(t, redistest.Mini(t), 1)
	e.add(t, idOf(payment.Paid), payment.Paid, ledger.Due{})
	full := errors.New("full")
	if _, err := e.ScanEnded(t.Context(), anyAge, func([]*ledger.Record) error { return full }); !errors.Is(err, full) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.ScanEnded(ctx, anyAge, func([]*ledger.Record) error { return nil }); err == nil {
		t.Error("the scan did not notice that its context has ended")
	}
}

// TestUnreadableRecordStays: a record that cannot become a tombstone is left out, and is no
// obstacle for the others.
func TestUnreadableRecordStays(t *testing.T) {
	t.Parallel()
	client := redistest.Mini(t)
	e := newRetentionEnv(t, client, 1)
	e.add(t, idOf(payment.Paid), payment.Paid, ledger.Due{})
	e.add(t, inv1, payment.Paid, ledger.Due{})
	words := strings.Split(client.Get(t.Context(), inv1Key).Val(), " ")
	words[11] = "short" // the digest
	client.Set(t.Context(), inv1Key, strings.Join(words, " "), 0)
	var found []string
	unreadable, err := e.ScanEnded(t.Context(), anyAge, func(records []*ledger.Record) error {
		for _, r := range records {
			found = append(found, r.TransactionID)
		}
		return nil
	})
	if err != nil || unreadable != 1 || !slices.Equal(found, []string{idOf(payment.Paid).TransactionID}) {
		t.Errorf("%d unreadable, found %q, %v", unreadable, found, err)
	}
}

// TestUnreadableTombstone: what cannot be read is neither a duplicate nor a new payment.
func TestUnreadableTombstone(t *testing.T) {
	t.Parallel()
	client := redistest.Mini(t)
	e := newRetentionEnv(t, client, 1)
	key := idOf(payment.Paid)
	e.add(t, key, payment.Paid, ledger.Due{})
	e.drop(t, 1, e.ended(t, anyAge)[key.TransactionID])
	hashes, err := client.Keys(t.Context(), "*:tombstones:*").Result()
	if err != nil || len(hashes) != 1 {
		t.Fatal(hashes, err)
	}
	good := client.HGet(t.Context(), hashes[0], key.TransactionID).Val()
	for text, want := range map[string]error{"Z" + good[1:]: ledger.ErrOtherVersion, good[:10]: ledger.ErrDamaged, good[:18]: ledger.ErrDamaged, "": ledger.ErrDamaged} {
		client.HSet(t.Context(), hashes[0], key.TransactionID, text)
		if _, err := e.Read(t.Context(), key); !errors.Is(err, want) {
			t.Errorf("read %q: %v", text, err)
		}
		if r := e.Create(t.Context(), []ledger.NewPayment{entry(key, "a")})[0]; !errors.Is(r.Err, want) {
			t.Errorf("create %q: %+v", text, r)
		}
	}
}

// TestArchiveLine: the line of the archive has everything of a payment that is over, and nothing
// of its customer.
func TestArchiveLine(t *testing.T) {
	t.Parallel()
	e := newRetentionEnv(t, redistest.Mini(t), 1)
	for _, s := range endStatuses {
		e.add(t, idOf(s), s, ledger.Due{})
		r := e.ended(t, anyAge)[idOf(s).TransactionID]
		line, err := r.ArchiveLine()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(line), "INV-1") || strings.Contains(string(line), "encrypted") {
			t.Errorf("it contains the order or the token: %s", line)
		}
		for _, of := range endStatuses {
			if strings.HasPrefix(string(line), string(ledger.ArchiveLinePrefix(idOf(of)))) != (of == s) {
				t.Errorf("prefix of %s: %s", of, line)
			}
		}
		back, err := ledger.ParseArchiveLine(line)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r.Payment, back.Payment); diff != "" {
			t.Error(diff)
		}
		again, err := back.ArchiveLine()
		if err != nil || string(again) != string(line) {
			t.Errorf("%s, was %s, %v", again, line, err)
		}
	}
	for _, line := range []string{
		``, `{}`, `[1]`,
		`{"gateway":"amdigipay","transaction_id":"1","status":"queued","digest":"12345678901234567890"}`,
		`{"gateway":"amdigipay","transaction_id":"1","status":"paid","digest":"1"}`,
		`{"gateway":"other","transaction_id":"1","status":"paid","digest":"12345678901234567890"}`,
	} {
		if r, err := ledger.ParseArchiveLine([]byte(line)); err == nil {
			t.Errorf("%s: %+v", line, r)
		}
	}
}

// TestRestore restores a payment of the archive, of which there are two states, over everything
// that the ledger may have.
func TestRestore(t *testing.T) {
	t.Parallel()
	const tombstone = true
	key := idOf(payment.Expired)
	for _, row := range []struct {
		name        string
		has         func(t *testing.T, e *retentionEnv, old, later *ledger.Record) // the ledger is empty before it
		asTombstone bool
		want        [2]ledger.Restored // of the old state, then of the later one
		status      payment.Status
		counts      string
	}{
		{"nothing", nil, false, [2]ledger.Restored{ledger.RestoredNow, ledger.RestoredNow}, payment.Paid, "1 records, 0 tombstones"},
		{"nothing, as tombstones", nil, tombstone, [2]ledger.Restored{ledger.RestoredNow, ledger.RestoredNow}, payment.Paid, "0 records, 1 tombstones"},
		{"the later record", func(t *testing.T, e *retentionEnv, _, later *ledger.Record) {
			restore(t, e, later, time.Time{}, ledger.RestoredNow)
		}, false, [2]ledger.Restored{ledger.Exists, ledger.Exists}, payment.Paid, "1 records, 0 tombstones"},
		{"the later record, as tombstones", func(t *testing.T, e *retentionEnv, _, later *ledger.Record) {
			restore(t, e, later, time.Time{}, ledger.RestoredNow)
		}, tombstone, [2]ledger.Restored{ledger.Exists, ledger.Exists}, payment.Paid, "1 records, 0 tombstones"},
		{"the later tombstone", func(t *testing.T, e *retentionEnv, _, later *ledger.Record) {
			restore(t, e, later, archiveDay, ledger.RestoredNow)
		}, false, [2]ledger.Restored{ledger.Exists, ledger.RestoredNow}, payment.Paid, "1 records, 0 tombstones"},
		{"the later tombstone, as tombstones", func(t *testing.T, e *retentionEnv, _, later *ledger.Record) {
			restore(t, e, later, archiveDay, ledger.RestoredNow)
		}, tombstone, [2]ledger.Restored{ledger.Exists, ledger.Exists}, payment.Paid, "0 records, 1 tombstones"},
		{"another order, queued", func(t *testing.T, e *retentionEnv, _, _ *ledger.Record) {
			if got := e.creation(t, key, "other"); got != "created queued" {
				t.Fatal(got)
			}
		}, false, [2]ledger.Restored{ledger.Differs, ledger.Differs}, payment.Queued, "1 records, 0 tombstones"},
		{"the same order again, queued", func(t *testing.T, e *retentionEnv, _, _ *ledger.Record) {
			if got := e.creation(t, key, "a"); got != "created queued" {
				t.Fatal(got)
			}
		}, false, [2]ledger.Restored{ledger.Exists, ledger.Exists}, payment.Queued, "1 records, 0 tombstones"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
				e := newRetentionEnv(t, client, 1)
				e.add(t, key, payment.Expired, ledger.Due{})
				old := throughArchive(t, e.ended(t, anyAge)[key.TransactionID])
				r, _ := e.Read(t.Context(), key)
				r.AddAttempt(payment.Attempt{At: start.Add(time.Hour), Kind: payment.KindLookup, Code: "http:200", Action: "accept"})
				e.ahead = time.Second // so that the time of its change is a later one
				save(t, e.Ledger, r, payment.Paid, ledger.Due{})
				later := throughArchive(t, e.ended(t, anyAge)[key.TransactionID])
				before, _ := e.Read(t.Context(), key)
				client.FlushAll(t.Context())

				e = newRetentionEnv(t, client, 1)
				if row.has != nil {
					row.has(t, e, old, later)
				}
				var on time.Time
				if row.asTombstone {
					on = archiveDay
				}
				restore(t, e, old, on, row.want[0])
				restore(t, e, later, on, row.want[1])
				restore(t, e, later, on, restoredAgain(row.want[1]))
				after, err := e.Read(t.Context(), key)
				if err != nil || after.Status != row.status {
					t.Fatalf("%+v, %v", after, err)
				}
				if row.status == payment.Paid && !after.Tombstone {
					if diff := cmp.Diff(before.Payment, after.Payment); diff != "" {
						t.Error(diff)
					}
				}
				if got := e.counts(t); got != row.counts {
					t.Errorf("%s, want %s", got, row.counts)
				}
				if row.status == payment.Paid {
					if got := e.creation(t, key, "a") + ", " + e.creation(t, key, "b"); got != "duplicate paid, conflict paid" {
						t.Error(got)
					}
				}
			})
		})
	}
}

// restoredAgain returns the result of restoring the same state once more.
func restoredAgain(first ledger.Restored) ledger.Restored {
	if first == ledger.RestoredNow {
		return ledger.Exists
	}
	return first
}

func throughArchive(t *testing.T, r *ledger.Record) *ledger.Record {
	t.Helper()
	line, err := r.ArchiveLine()
	if err == nil {
		r, err = ledger.ParseArchiveLine(line)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func restore(t *testing.T, e *retentionEnv, r *ledger.Record, archivedOn time.Time, want ledger.Restored) {
	t.Helper()
	results, err := e.Restore(t.Context(), []*ledger.Record{r}, archivedOn)
	if err != nil || results[0] != want {
		t.Fatalf("restore: %v, %v; want %s", results, err, want)
	}
}
