package ledger_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/events"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
)

// fill creates n payments of each gateway in each status, in the order of their ids.
func fill(t *testing.T, l *ledger.Ledger, c *clock, n int) {
	t.Helper()
	for i := range n {
		c.t = c.t.Add(time.Millisecond)
		redistest.SetTime(c.client, c.t)
		for _, s := range payment.Statuses() {
			for _, g := range payment.Gateways() {
				key := payment.Key{Gateway: g, TransactionID: fmt.Sprintf("%s-%03d", s, i)}
				if r := l.Create(t.Context(), []ledger.NewPayment{entryWithoutExpiry(key)})[0]; r.Err != nil {
					t.Fatal(r.Err)
				}
				if s == payment.Queued {
					continue
				}
				r, result, err := l.Claim(t.Context(), key, ledger.Claim{
					Attempt: payment.Attempt{At: c.now(), Kind: payment.KindSubmit}, Lease: lease, Timeout: timeout,
				})
				if err != nil || result != ledger.Claimed {
					t.Fatal(result, err)
				}
				if s == payment.Submitting {
					continue
				}
				r.Due = ledger.In(time.Hour)
				if s == payment.Verifying {
					r.MarkUnknown("net:unknown")
				}
				r.Status = s
				if err := l.Save(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// listAll reads all pages of a list.
func listAll(t *testing.T, l *ledger.Ledger, client redis.UniversalClient, partitions int, q ledger.ListQuery) (ids, incomplete []string) {
	t.Helper()
	q.Streams = events.NewStreams(client, ledger.StreamNames(ledger.DefaultStream, partitions))
	for range 10_000 {
		page, err := l.List(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Records) > q.Limit {
			t.Fatalf("%d payments, the limit is %d", len(page.Records), q.Limit)
		}
		for _, r := range page.Records {
			ids = append(ids, r.Key().String())
		}
		incomplete = append(incomplete, page.Incomplete...)
		if q.After = page.Next; q.After == "" {
			return ids, incomplete
		}
	}
	t.Fatal("the list does not end")
	return nil, nil
}

// TestList lists payments of every status, on pages of every size, from one partition and from several.
func TestList(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		for _, partitions := range []int{1, 5} {
			if err := client.FlushAll(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			c := newClock(client)
			l := newPartitioned(client, partitions, c.now)
			const n = 7
			fill(t, l, c, n)
			for _, limit := range []int{1, 3, 1000} {
				var all []string
				for _, s := range payment.Statuses() {
					ids, incomplete := listAll(t, l, client, partitions, ledger.ListQuery{Status: s, Limit: limit})
					var want []string
					for i := range n {
						for _, g := range payment.Gateways() {
							want = append(want, fmt.Sprintf("%s:%s-%03d", g, s, i))
						}
					}
					got := slices.Clone(ids)
					slices.Sort(got)
					slices.Sort(want)
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("%d partitions, limit %d: %s: want -, got +\n%s", partitions, limit, s, diff)
					}
					for _, g := range payment.Gateways() { // oldest first
						var numbers []string
						for _, id := range ids {
							if strings.HasPrefix(id, string(g)) {
								numbers = append(numbers, id)
							}
						}
						if !slices.IsSorted(numbers) {
							t.Errorf("%s: %v", s, numbers)
						}
					}
					for _, text := range incomplete {
						if !strings.Contains(text, "their events are deleted") { // miniredis does not know that it has deleted none
							t.Errorf("%s: %s", s, text)
						}
					}
					all = append(all, got...)
				}
				ids, _ := listAll(t, l, client, partitions, ledger.ListQuery{Limit: limit})
				slices.Sort(ids)
				slices.Sort(all)
				if diff := cmp.Diff(all, ids); diff != "" {
					t.Errorf("all statuses: want -, got +\n%s", diff)
				}
			}
			ids, _ := listAll(t, l, client, partitions, ledger.ListQuery{
				Gateway: payment.Paydia, Status: payment.Paid, Limit: 2,
				Includes: func(k payment.Key) bool {
					return strings.HasSuffix(k.TransactionID, "3") || strings.HasSuffix(k.TransactionID, "5")
				},
			})
			if diff := cmp.Diff([]string{"paydia:paid-003", "paydia:paid-005"}, ids); diff != "" {
				t.Error(diff)
			}
		}
	})
}

// TestListMoves: a payment that has moved on is in the list of its new status only.
func TestListMoves(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		l, _ := newLedgerWithPayment(t, client)
		where := func() (found []payment.Status) {
			for _, s := range payment.Statuses() {
				ids, _ := listAll(t, l, client, 1, ledger.ListQuery{Status: s, Limit: 10})
				for range ids {
					found = append(found, s)
				}
			}
			return found
		}
		check := func(want payment.Status) {
			t.Helper()
			if got := where(); !slices.Equal(got, []payment.Status{want}) {
				t.Errorf("it is in %v, want %s", got, want)
			}
		}
		next := func(to payment.Status) {
			t.Helper()
			r, err := l.Read(t.Context(), inv1)
			if err != nil {
				t.Fatal(err)
			}
			if to == payment.Verifying {
				r.MarkUnknown("net:unknown")
			}
			save(t, l, r, to, ledger.In(time.Hour))
			check(to)
		}
		check(payment.Queued)
		claim(t, l, ledger.Claimed)
		check(payment.Submitting)
		for _, to := range []payment.Status{payment.Verifying, payment.NeedsReview, payment.OnProcessing, payment.NeedsReview, payment.Expired, payment.NeedsReview, payment.Paid} {
			next(to)
		}
		if n := client.Exists(t.Context(), "{terbayar:events}:needs_review:amdigipay", "{terbayar:events}:on_processing:amdigipay").Val(); n != 0 {
			t.Errorf("%d sets are left", n)
		}
	})
}

// TestListSince: since is compared with the time of the last change.
func TestListSince(t *testing.T) {
	client := redistest.Mini(t)
	c := newClock(client)
	l := newLedger(client, c.now)
	fill(t, l, c, 1)
	c.forward(t, time.Hour)
	middle := c.now()
	for _, s := range payment.Statuses() {
		for _, since := range []time.Time{start, middle} {
			ids, _ := listAll(t, l, client, 1, ledger.ListQuery{Status: s, Since: since, Limit: 10})
			if want := map[bool]int{true: 2, false: 0}[since.Equal(start)]; len(ids) != want {
				t.Errorf("%s since %s: %v", s, since, ids)
			}
		}
	}
}

// TestListIncomplete: what is missing is said.
func TestListIncomplete(t *testing.T) {
	server := redistest.Server(t)
	client := server.Client(t)
	c := newClock(client)
	l := newLedger(client, c.now)
	fill(t, l, c, 2)
	if _, incomplete := listAll(t, l, client, 1, ledger.ListQuery{Limit: 100}); len(incomplete) > 0 {
		t.Error(incomplete)
	}
	// An older version knows no sets.
	client.Del(t.Context(), "{terbayar:events}:needs_review:amdigipay")
	client.ZAdd(t.Context(), "{terbayar:events}:on_processing:amdigipay", redis.Z{Score: 1, Member: "paid-000"})
	for status, want := range map[payment.Status]int{payment.NeedsReview: 2, payment.OnProcessing: 4} {
		ids, incomplete := listAll(t, l, client, 1, ledger.ListQuery{Status: status, Limit: 100})
		if len(ids) != want || len(incomplete) != 1 || !strings.Contains(incomplete[0], "an older version wrote them") {
			t.Error(status, ids, incomplete)
		}
	}
	if n, err := l.Relist(t.Context()); n != 8 || err != nil {
		t.Error(n, err)
	}
	for _, status := range []payment.Status{payment.NeedsReview, payment.OnProcessing} {
		if ids, incomplete := listAll(t, l, client, 1, ledger.ListQuery{Status: status, Limit: 100}); len(ids) != 4 || len(incomplete) != 0 {
			t.Error(status, ids, incomplete)
		}
	}
	if n := client.ZCard(t.Context(), "{terbayar:events}:on_processing:amdigipay").Val(); n != 2 {
		t.Error("paid-000 is still in the set", n)
	}
	client.XTrimMaxLen(t.Context(), ledger.DefaultStream, 3)
	ids, incomplete := listAll(t, l, client, 1, ledger.ListQuery{Status: payment.Paid, Limit: 100})
	if len(incomplete) != 1 || !strings.Contains(incomplete[0], "their events are deleted") || len(ids) == 4 {
		t.Error(ids, incomplete)
	}
	if ids, incomplete := listAll(t, l, client, 1, ledger.ListQuery{Status: payment.NeedsReview, Limit: 100}); len(ids) != 4 || len(incomplete) != 0 {
		t.Error(ids, incomplete)
	}
	if _, err := l.List(t.Context(), ledger.ListQuery{Status: payment.Paid, Limit: 1, After: "x", Streams: events.NewStreams(client, []string{ledger.DefaultStream})}); !errors.Is(err, ledger.ErrCursor) {
		t.Error(err)
	}
}
