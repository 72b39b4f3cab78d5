package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/durable"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
)

// cancelled cancels inv1 and returns it, with why it cannot be cancelled.
func cancelled(t *testing.T, l *ledger.Ledger) (r *ledger.Record, why string) {
	t.Helper()
	r, err := l.Cancel(t.Context(), inv1)
	if refused, ok := errors.AsType[*ledger.NotCancelledError](err); ok {
		return r, refused.Reason
	}
	if err != nil {
		t.Fatal(err)
	}
	return r, ""
}

// TestCancel cancels a payment in every status, after every kind of attempt.
func TestCancel(t *testing.T) {
	t.Parallel()
	// submit claims inv1 and saves it with another status.
	submit := func(t *testing.T, l *ledger.Ledger, code, action string, to payment.Status) {
		t.Helper()
		r := claim(t, l, ledger.Claimed)
		attempt := r.Attempts[len(r.Attempts)-1]
		attempt.Code, attempt.Action = code, action
		r.FinishAttempt(attempt)
		if to == payment.Verifying {
			r.MarkUnknown(code)
		}
		save(t, l, r, to, ledger.In(time.Hour))
	}
	read := func(t *testing.T, l *ledger.Ledger) *ledger.Record {
		t.Helper()
		r, err := l.Read(t.Context(), inv1)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	retry := func(t *testing.T, l *ledger.Ledger) { submit(t, l, "net:unsent", "retry", payment.Queued) }
	unknown := func(t *testing.T, l *ledger.Ledger) { submit(t, l, "net:unknown", "verify", payment.Verifying) }
	type step = func(*testing.T, *ledger.Ledger)
	for _, c := range []struct {
		name  string
		steps []step
		why   string // part of the reason; empty: it is cancelled
	}{
		{"queued", nil, ""},
		{"queued after a retry", []step{retry}, ""},
		{"queued after three retries", []step{retry, retry, retry}, ""},
		{"queued after a refreshed token", []step{func(t *testing.T, l *ledger.Ledger) {
			submit(t, l, "4017301", "refresh_token", payment.Queued)
		}}, ""},
		{"cancelled before", []step{func(t *testing.T, l *ledger.Ledger) { cancelled(t, l) }}, ""},
		{"queued with a new token", []step{func(t *testing.T, l *ledger.Ledger) {
			r := claim(t, l, ledger.Claimed)
			r.BadToken, r.Reason, r.GatewayStatus = true, "undecryptable", "token:undecryptable"
			save(t, l, r, payment.NeedsReview, ledger.Due{})
			if c := l.Create(t.Context(), []ledger.NewPayment{entry(inv1, "a")})[0]; c.Creation != ledger.Duplicate || c.Status != payment.Queued {
				t.Fatalf("%+v", c)
			}
		}}, ""},
		{"submitting", []step{func(t *testing.T, l *ledger.Ledger) { claim(t, l, ledger.Claimed) }}, "a worker is sending it now"},
		{"submitting after a retry", []step{retry, func(t *testing.T, l *ledger.Ledger) { claim(t, l, ledger.Claimed) }}, "a worker is sending it now"},
		{"submitting, the claim has expired", []step{func(t *testing.T, l *ledger.Ledger) {
			claimFor(t, l, 0, ledger.Claimed)
		}}, "a worker is sending it now, or was lost"},
		{"verifying", []step{unknown}, "the outcome of sending it is unknown"},
		{"verifying after a retry", []step{retry, unknown}, "the outcome of sending it is unknown"},
		{"queued after an unknown outcome", []step{unknown, func(t *testing.T, l *ledger.Ledger) {
			save(t, l, read(t, l), payment.Queued, ledger.Due{})
		}}, "an earlier attempt to send it was unknown"},
		{"queued after an unknown outcome and a retry", []step{unknown, func(t *testing.T, l *ledger.Ledger) {
			save(t, l, read(t, l), payment.Queued, ledger.Due{})
		}, retry}, "an earlier attempt to send it was unknown"},
		{"on_processing", []step{func(t *testing.T, l *ledger.Ledger) {
			submit(t, l, "http:200", "accept", payment.OnProcessing)
		}}, "the gateway has accepted it"},
		{"paid", []step{func(t *testing.T, l *ledger.Ledger) { submit(t, l, "http:200", "accept", payment.Paid) }}, "it is paid already"},
		{"rejected", []step{func(t *testing.T, l *ledger.Ledger) { submit(t, l, "error:true", "reject", payment.Rejected) }}, "it is rejected already"},
		{"failed", []step{func(t *testing.T, l *ledger.Ledger) { submit(t, l, "http:200", "accept", payment.Failed) }}, "it is failed already"},
		{"expired unsent", []step{func(t *testing.T, l *ledger.Ledger) {
			save(t, l, read(t, l), payment.Expired, ledger.Due{})
		}}, "it is expired already"},
		{"expired at the gateway", []step{func(t *testing.T, l *ledger.Ledger) { submit(t, l, "http:200", "accept", payment.Expired) }}, "it is expired already"},
		{"cancelled at the gateway", []step{func(t *testing.T, l *ledger.Ledger) {
			submit(t, l, "http:200", "accept", payment.Cancelled)
		}}, "it was cancelled at the gateway"},
		{"refunded", []step{func(t *testing.T, l *ledger.Ledger) { submit(t, l, "http:200", "accept", payment.Refunded) }}, "it is refunded already"},
		{"needs_review", []step{func(t *testing.T, l *ledger.Ledger) {
			submit(t, l, "http:500", "review", payment.NeedsReview)
		}}, "it is in needs_review"},
		{"tombstone", []step{func(t *testing.T, l *ledger.Ledger) {
			cancelled(t, l)
			if n, err := l.Drop(t.Context(), []*ledger.Record{read(t, l)}, time.Time{}); n != 1 || err != nil {
				t.Fatal(n, err)
			}
		}}, "it is cancelled already"},
	} {
		t.Run(c.name, func(t *testing.T) {
			redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
				l, _ := newLedgerWithPayment(t, client)
				for _, s := range c.steps {
					s(t, l)
				}
				before, eventsBefore := read(t, l), len(readEvents(t, client))
				r, why := cancelled(t, l)
				if (why == "") != (c.why == "") || !strings.Contains(why, c.why) {
					t.Fatalf("why: %q, want %q", why, c.why)
				}
				after := read(t, l)
				if diff := cmp.Diff(after.Payment, r.Payment); diff != "" {
					t.Errorf("in the ledger -, returned +\n%s", diff)
				}
				all := readEvents(t, client)
				if c.why != "" {
					if after.Revision() != before.Revision() || len(all) != eventsBefore {
						t.Errorf("it has changed: %+v", after.Payment)
					}
					return
				}
				if after.Status != payment.Cancelled || after.Reason != ledger.ReasonCancelled || after.GatewayStatus != "" || len(after.Attempts) != len(before.Attempts) ||
					after.EncryptedToken != "" || len(after.Order) > 0 || !after.NextAt.IsZero() {
					t.Errorf("%+v", after)
				}
				last := all[len(all)-1]
				if last.Type != "terbayar.payment.cancelled" || last.Data["status"] != "cancelled" || last.Data["reason"] != ledger.ReasonCancelled {
					t.Errorf("event: %+v", last)
				}
				// Again: the same answer, and nothing new.
				if again, why := cancelled(t, l); why != "" || again.Revision() != after.Revision() || len(readEvents(t, client)) != len(all) {
					t.Errorf("again: %q %+v", why, again)
				}
				if r := l.Create(t.Context(), []ledger.NewPayment{entry(inv1, "a")})[0]; r.Creation != ledger.Duplicate || r.Status != payment.Cancelled {
					t.Errorf("created again: %+v", r)
				}
				claim(t, l, ledger.NotQueued)
				stats, err := l.Stats(t.Context(), inv1.Gateway)
				if err != nil || stats.Counts[payment.Cancelled] != 1 || stats.Payments() != 1 {
					t.Errorf("%+v %v", stats, err)
				}
				keys := client.Keys(t.Context(), "*").Val()
				for _, key := range keys {
					if strings.Contains(key, ":sending:") || strings.Contains(key, ":queued:") || strings.Contains(key, ":open:") {
						t.Errorf("it is still in %s", key)
					}
				}
			})
		})
	}
}

func TestCancelMissing(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		l := newLedger(client, time.Now)
		if _, err := l.Cancel(t.Context(), inv1); !errors.Is(err, ledger.ErrNotFound) {
			t.Error(err)
		}
	})
}

// TestCancelVersion2: a queued payment of version 2 is cancelled too.
func TestCancelVersion2(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		l := newLedger(client, time.Now)
		writeVersion2(t, client, payment.Queued, nil)
		r, err := l.Cancel(t.Context(), inv1)
		if err != nil || r.Status != payment.Cancelled || time.Since(r.UpdatedAt).Abs() > time.Minute {
			t.Fatal(r, err)
		}
	})
}

// TestCancelAndClaim lets a cancel and two claims meet, many times: either the payment is sent
// or it is cancelled, never both, and what each of them was told is what the ledger has.
func TestCancelAndClaim(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		c := newClock(client)
		ledgers := []*ledger.Ledger{newLedger(client, c.now), newLedger(client, c.now), newLedger(client, c.now)}
		rounds := 500
		if testing.Short() {
			rounds = 100
		}
		sent, withdrawn := 0, 0
		for i := range rounds {
			key := payment.Key{Gateway: payment.Paydia, TransactionID: fmt.Sprint("ORD-", i)}
			if r := ledgers[0].Create(t.Context(), []ledger.NewPayment{entry(key, "a")})[0]; r.Err != nil {
				t.Fatal(r.Err)
			}
			var group sync.WaitGroup
			start := make(chan struct{})
			var results [2]ledger.ClaimResult
			var cancelErr error
			for w := range results {
				group.Go(func() {
					<-start
					for range i % 5 { // a cancel reads before it writes: otherwise the claim would always be first
						_ = client.Ping(t.Context()).Err()
					}
					var err error
					if _, results[w], err = ledgers[w].Claim(t.Context(), key, ledger.Claim{
						Attempt: payment.Attempt{At: c.now(), Kind: payment.KindSubmit}, Lease: lease, Timeout: timeout,
					}); err != nil {
						t.Error(err)
					}
				})
			}
			group.Go(func() {
				<-start
				_, cancelErr = ledgers[2].Cancel(t.Context(), key)
			})
			close(start)
			group.Wait()
			claims := 0
			for _, r := range results {
				if r == ledger.Claimed {
					claims++
				}
			}
			r, err := ledgers[0].Read(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			var refused *ledger.NotCancelledError
			switch {
			case claims == 0 && cancelErr == nil && r.Status == payment.Cancelled && len(r.Attempts) == 0:
				withdrawn++
			case claims == 1 && errors.As(cancelErr, &refused) && r.Status == payment.Submitting && len(r.Attempts) == 1:
				sent++
			default:
				t.Fatalf("claims %v, cancel %v, the ledger has %s", results, cancelErr, r.Status)
			}
		}
		if t.Logf("%d claimed, %d cancelled", sent, withdrawn); sent < rounds/20 || withdrawn < rounds/20 {
			t.Error("they have hardly met")
		}
	})
}

// changedAfterRead makes a change after the first read of a payment, before its reply is used.
type changedAfterRead struct {
	change func()
}

func (h *changedAfterRead) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *changedAfterRead) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (h *changedAfterRead) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		if h.change != nil && cmds[0].Name() == "get" {
			change := h.change
			h.change = nil
			change()
		}
		return err
	}
}

// TestCancelOfAnOldRead: whatever happens between the read and the write, the decision is made
// again.
func TestCancelOfAnOldRead(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*testing.T, *ledger.Ledger)
		want   payment.Status
	}{
		"claimed": {func(t *testing.T, l *ledger.Ledger) { claim(t, l, ledger.Claimed) }, payment.Submitting},
		"claimed and queued again": {func(t *testing.T, l *ledger.Ledger) {
			save(t, l, claim(t, l, ledger.Claimed), payment.Queued, ledger.Due{})
		}, payment.Cancelled},
		"unknown and queued again": {func(t *testing.T, l *ledger.Ledger) {
			r := claim(t, l, ledger.Claimed)
			r.MarkUnknown("net:unknown")
			save(t, l, r, payment.Verifying, ledger.In(time.Hour))
			r, err := l.Read(t.Context(), inv1)
			if err != nil {
				t.Fatal(err)
			}
			save(t, l, r, payment.Queued, ledger.Due{})
		}, payment.Queued},
		"sent": {func(t *testing.T, l *ledger.Ledger) {
			save(t, l, claim(t, l, ledger.Claimed), payment.OnProcessing, ledger.In(time.Hour))
		}, payment.OnProcessing},
		"cancelled": {func(t *testing.T, l *ledger.Ledger) { cancelled(t, l) }, payment.Cancelled},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Server(t)
			l, clock := newLedgerWithPayment(t, server.Client(t))
			slow := server.Client(t)
			slow.AddHook(&changedAfterRead{change: func() { c.change(t, l) }})
			r, err := newLedger(slow, clock.now).Cancel(t.Context(), inv1)
			var refused *ledger.NotCancelledError
			if r == nil || r.Status != c.want || (err == nil) != (c.want == payment.Cancelled) || err != nil && !errors.As(err, &refused) {
				t.Errorf("%+v %v", r, err)
			}
			if n := len(readEvents(t, slow)); c.want == payment.Cancelled && n != 1 {
				t.Errorf("%d events", n)
			}
		})
	}
}

// TestCancelNotAcknowledged: without an acknowledgement a cancel is no success, and neither is
// its repetition; once Redis acknowledges, the repetition is one, with one event altogether.
func TestCancelNotAcknowledged(t *testing.T) {
	server := redistest.Server(t)
	client := server.Client(t)
	l, clock := newLedgerWithPayment(t, client)
	unacknowledged := func(replicas int) *ledger.Ledger {
		log := slog.New(slog.DiscardHandler)
		return ledger.New(ledger.Options{
			Redis: client, Stream: ledger.DefaultStream, Now: clock.now, Log: log,
			Writes: durable.NewWriters(durable.Options{
				Client: client, Mode: durable.Auto, Replicas: replicas, Timeout: 50 * time.Millisecond, Now: clock.now, Log: log,
			}, ledger.DurabilityKeys(client, 1)),
		})
	}
	for range 2 {
		if _, err := unacknowledged(1).Cancel(t.Context(), inv1); !errors.Is(err, ledger.ErrNotDurable) {
			t.Fatal(err)
		}
	}
	claim(t, l, ledger.NotQueued)
	if r, err := unacknowledged(0).Cancel(t.Context(), inv1); err != nil || r.Status != payment.Cancelled || time.Since(r.UpdatedAt).Abs() > time.Minute {
		t.Fatal(r, err)
	}
	if all := readEvents(t, client); len(all) != 1 {
		t.Errorf("%+v", all)
	}
	server.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := l.Cancel(ctx, inv1); err == nil || errors.Is(err, ledger.ErrNotFound) {
		t.Error(err)
	}
	// It survives the loss of the node's memory.
	server.Start(t)
	if r, why := cancelled(t, l); why != "" || r.Status != payment.Cancelled || len(readEvents(t, client)) != 1 {
		t.Error(r, why)
	}
}
