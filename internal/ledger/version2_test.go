package ledger_test

import (
	"errors"
	"maps"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
)

const inv1Key = "{terbayar:events}:payment:amdigipay:INV/1 é"

// writeVersion2 writes inv1 as version 2 did: a hash, and the sets of its status.
func writeVersion2(t *testing.T, client redis.UniversalClient, status payment.Status, edits map[string]string) {
	t.Helper()
	ms := func(at time.Time) string { return strconv.FormatInt(at.UnixMilli(), 10) }
	fields := map[string]string{
		"v": "2", "digest": "a", "request": "REQUEST", "rev": "3", "events": "0", "status": string(status),
		"order": `{"transaction_id":"INV-1"}`, "token": "v1.encrypted", "attempts": "1", "first_claim": ms(start), "lowest_id": "41",
		"created": ms(start.Add(-time.Minute)), "updated": ms(start), "expires": ms(start.Add(time.Hour)),
		"facts": `{"amount":13000,"merchant_id":"M1","gateway_reference":"44","retries":1}`,
		"a:1":   `{"at":"2036-05-21T10:00:00Z","kind":"submit","code":"http:429","message":"slow down","http_status":429,"action":"retry","duration_ms":12}`,
	}
	sets := map[string]float64{"sending": float64(start.UnixMilli()), "queued": float64(start.Add(-time.Minute).UnixMilli())}
	switch status {
	case payment.Queued:
	case payment.Submitting:
		delete(sets, "queued")
	default:
		sets = map[string]float64{"open": float64(start.UnixMilli())}
	}
	maps.Copy(fields, edits)
	if status == payment.Verifying {
		fields["unknown_since"], fields["primary"] = ms(start), "PRIMARY"
		sets["unknown"] = float64(start.UnixMilli())
	}
	pipe := client.TxPipeline()
	pipe.HSet(t.Context(), inv1Key, fields)
	pipe.HSet(t.Context(), "{terbayar:events}:counts:amdigipay", string(status), 1)
	for set, score := range sets {
		pipe.ZAdd(t.Context(), "{terbayar:events}:"+set+":amdigipay", redis.Z{Score: score, Member: inv1.TransactionID})
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestVersion2: records of version 2 are read as they are, and rewritten when they are
// claimed or saved. The rest of the payment's life is as usual.
func TestVersion2(t *testing.T) {
	t.Parallel()
	future := strconv.FormatInt(start.Add(time.Minute).UnixMilli(), 10)
	past := strconv.FormatInt(start.Add(-time.Second).UnixMilli(), 10)
	for _, row := range []struct {
		name   string
		status payment.Status
		edits  map[string]string
		claim  ledger.ClaimResult // "": too early
		kept   bool               // it stays in version 2
	}{
		{"queued", payment.Queued, nil, ledger.Claimed, false},
		{"queued for a retry", payment.Queued, map[string]string{"after": future}, "", false},
		{"claimed", payment.Submitting, map[string]string{"lease": future}, ledger.Busy, true},
		{"claim expired", payment.Submitting, map[string]string{"lease": past}, ledger.ClaimExpired, false},
		{"verifying", payment.Verifying, nil, ledger.NotQueued, false},
		{"paid", payment.Paid, nil, ledger.NotQueued, false},
		{"other version", payment.Queued, map[string]string{"v": "1"}, ledger.OtherVersion, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
				c := newClock(client)
				if row.edits != nil && !redistest.SetTime(client, start) {
					t.Skip("the clock of a real Redis is not that of the leases")
				}
				l := newLedger(client, c.now)
				writeVersion2(t, client, row.status, row.edits)
				_, result, err := l.Claim(t.Context(), inv1, ledger.Claim{
					Attempt: payment.Attempt{At: start, Kind: payment.KindSubmit}, Lease: lease, Timeout: timeout,
				})
				var later *ledger.LaterError
				if result != row.claim || (row.claim == "") != errors.As(err, &later) || err != nil && later == nil {
					t.Errorf("claim: %q, %v", result, err)
				}
				for digest, want := range map[string]ledger.Creation{"a": ledger.Duplicate, "b": ledger.Conflict} {
					created := l.Create(t.Context(), []ledger.NewPayment{entry(inv1, digest)})[0]
					if other := row.claim == ledger.OtherVersion; created.Err == nil == other || !other && created.Creation != want {
						t.Errorf("create %s: %+v", digest, created)
					}
				}
				want := "string"
				if row.kept {
					want = "hash"
				}
				if got := client.Type(t.Context(), inv1Key).Val(); got != want {
					t.Errorf("the record is a %s, want a %s", got, want)
				}
			})
		})
	}
}

// TestVersion2Content: a record has the same content before and after it is rewritten.
func TestVersion2Content(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		c := newClock(client)
		l := newLedger(client, c.now)
		writeVersion2(t, client, payment.Verifying, map[string]string{"events": "2"})
		before, err := l.Read(t.Context(), inv1)
		if err != nil {
			t.Fatal(err)
		}
		want := payment.Payment{
			Gateway: payment.AMDigiPay, TransactionID: inv1.TransactionID, Status: payment.Verifying, GatewayReference: "44", Amount: 13000,
			CreatedAt: start.Add(-time.Minute), UpdatedAt: start, NextAt: start,
			Attempts: []payment.Attempt{{
				At: start, Kind: payment.KindSubmit, Code: "http:429", Message: "slow down", HTTPStatus: 429, Action: "retry", DurationMS: 12,
			}},
		}
		if diff := cmp.Diff(want, before.Payment); diff != "" {
			t.Error(diff)
		}
		if got := client.Type(t.Context(), inv1Key).Val(); got != "hash" {
			t.Errorf("reading has made it a %s", got)
		}
		for _, created := range l.Create(t.Context(), []ledger.NewPayment{entry(inv1, "a")}) { // rewrites it
			if created.Creation != ledger.Duplicate || created.Status != payment.Verifying || created.Err != nil {
				t.Errorf("create: %+v", created)
			}
		}
		after, err := l.Read(t.Context(), inv1)
		if err != nil || client.Type(t.Context(), inv1Key).Val() != "string" {
			t.Fatal(err, "it was not rewritten")
		}
		if diff := cmp.Diff(before.Payment, after.Payment); diff != "" {
			t.Error(diff)
		}
		for name, values := range map[string][2]any{
			"order": {string(before.Order), string(after.Order)}, "token": {before.EncryptedToken, after.EncryptedToken},
			"merchant": {before.MerchantID, after.MerchantID}, "expires": {before.ExpiresAt, after.ExpiresAt},
			"first claim": {before.FirstClaim, after.FirstClaim}, "lowest id": {before.LowestID, after.LowestID},
			"unknown since": {before.UnknownSince, after.UnknownSince}, "retries": {before.Retries, after.Retries},
		} {
			if values[0] != values[1] || values[0] == any(time.Time{}) {
				t.Errorf("%s was %v and is %v", name, values[0], values[1])
			}
		}

		// The record that was read in version 2 can still be saved: it has not changed since.
		before.GatewayStatus = "Terbayar"
		save(t, l, before, payment.Paid, ledger.Due{})
		events := readEvents(t, client)
		if len(events) != 1 || events[0].ID != "amdigipay:INV/1 é:3:paid" {
			t.Errorf("events %+v", events)
		}
		stats, err := l.Stats(t.Context(), payment.AMDigiPay)
		if diff := cmp.Diff(map[payment.Status]int64{payment.Queued: 0, payment.Submitting: 0, payment.Verifying: 0, payment.Paid: 1}, stats.Counts); diff != "" || err != nil {
			t.Error(err, diff)
		}
	})
}

// TestVersion2Save: a record that was read in version 2 is rewritten by its save, also in a
// batch. If its worker has changed it meanwhile, the save is fenced.
func TestVersion2Save(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		c := newClock(client)
		l := newLedger(client, c.now)
		writeVersion2(t, client, payment.OnProcessing, nil)
		read := func() *ledger.Record {
			taken, err := l.TakeDue(t.Context(), ledger.Open, payment.AMDigiPay, 0, 10)
			if err != nil || taken.Err != nil {
				t.Fatal(err, taken.Err)
			}
			if len(taken.Records) == 0 { // a real Redis' clock is behind: read it directly
				r, err := l.Read(t.Context(), inv1)
				if err != nil {
					t.Fatal(err)
				}
				return r
			}
			return taken.Records[0]
		}
		late := read()
		client.HSet(t.Context(), inv1Key, "rev", "4", "request", "ANOTHER")
		late.Status = payment.Failed
		if err := l.SaveAll(t.Context(), []*ledger.Record{late})[0]; !errors.Is(err, ledger.ErrFenced) {
			t.Errorf("save after a change: %v", err)
		}
		r := read()
		r.Status = payment.Paid
		if err := l.SaveAll(t.Context(), []*ledger.Record{r})[0]; err != nil {
			t.Error(err)
		}
		if r, err := l.Read(t.Context(), inv1); err != nil || r.Status != payment.Paid || len(r.Attempts) != 1 || r.Order != nil || r.EncryptedToken != "" {
			t.Errorf("%+v, %v", r, err)
		}
	})
}
