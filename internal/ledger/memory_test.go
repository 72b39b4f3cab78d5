package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
)

// earlier is a payment that was claimed before the one a test is about.
var earlier = payment.Key{Gateway: payment.Paydia, TransactionID: "EARLIER"}

// snapshot notes all that Redis holds. What it returns brings Redis back there,
// as a restart does that loses the last writes: the scripts are gone as well.
func snapshot(t fataler, client redis.UniversalClient) (forget func()) {
	ctx := t.Context()
	check := func(errs ...error) {
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := client.Keys(ctx, "*").Result()
	check(err)
	var restore []func(redis.Pipeliner)
	for _, key := range keys {
		switch kind := client.Type(ctx, key).Val(); kind {
		case "hash":
			fields, err := client.HGetAll(ctx, key).Result()
			check(err)
			restore = append(restore, func(p redis.Pipeliner) { p.HSet(ctx, key, fields) })
		case "zset":
			members, err := client.ZRangeWithScores(ctx, key, 0, -1).Result()
			check(err)
			restore = append(restore, func(p redis.Pipeliner) { p.ZAdd(ctx, key, members...) })
		case "stream":
			entries, err := client.XRange(ctx, key, "-", "+").Result()
			check(err)
			for _, e := range entries {
				restore = append(restore, func(p redis.Pipeliner) { p.XAdd(ctx, &redis.XAddArgs{Stream: key, ID: e.ID, Values: e.Values}) })
			}
		case "string":
			value, err := client.Get(ctx, key).Result()
			check(err)
			restore = append(restore, func(p redis.Pipeliner) { p.Set(ctx, key, value, 0) })
		default:
			t.Fatal("a key of type " + kind)
		}
	}
	return func() {
		_, err := client.TxPipelined(ctx, func(p redis.Pipeliner) error {
			p.FlushAll(ctx)
			for _, again := range restore {
				again(p)
			}
			return nil
		})
		check(err, client.ScriptFlush(ctx).Err())
	}
}

// tick is what every living worker does each second.
func tick(t fataler, l *ledger.Ledger) {
	if _, err := l.Due(t.Context(), payment.Gateways()); err != nil {
		t.Fatal(err)
	}
}

// held wants a claim to be refused because Redis has come back.
func held(t *testing.T, l *ledger.Ledger) time.Duration {
	t.Helper()
	_, verdict, err := l.Claim(t.Context(), inv1, payment.Attempt{At: start, Kind: payment.KindSubmit}, 20*time.Second)
	h, ok := errors.AsType[*ledger.Held](err)
	if !ok {
		t.Fatalf("claim: %q, %v; want it held", verdict, err)
	}
	return h.Wait
}

// whole is everything the ledger has of a payment.
func whole(t *testing.T, l *ledger.Ledger, client redis.UniversalClient) string {
	t.Helper()
	r, err := l.Read(t.Context(), inv1)
	if err != nil {
		t.Fatal(err)
	}
	census, unknown, err := l.Census(t.Context(), inv1.Gateway)
	if err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(census, func(_ payment.Status, n int64) bool { return n == 0 })
	open, err := client.ZRangeWithScores(t.Context(), "{terbayar:events}:open:amdigipay", 0, -1).Result()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%+v\n%+v\n%v %v %v\n%v", r.Payment, r, census, unknown, open, told(t, client))
}

// TestForgottenClaim: Redis forgets a claim, with or without the payment itself,
// while its request is under way. Nobody else gets the payment, and what the
// gateway answers is recorded.
func TestForgottenClaim(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		for _, row := range []struct {
			name   string
			before bool // Redis forgets the payment too
			notice func(*testing.T, *ledger.Ledger)
		}{
			{"and the next tick notices", false, func(t *testing.T, l *ledger.Ledger) { tick(t, l) }},
			{"and a claim notices", false, func(t *testing.T, l *ledger.Ledger) { claim(t, l, ledger.Busy) }},
			{"and the record notices", false, nil},
			{"with the payment", true, func(t *testing.T, l *ledger.Ledger) { tick(t, l) }},
			{"with the payment, and the record notices", true, nil},
		} {
			t.Run(row.name, func(t *testing.T) {
				client.FlushAll(t.Context())
				client.ScriptFlush(t.Context())
				forget := snapshot(t, client)
				l, c := house(t, client)
				for _, r := range l.Create(t.Context(), []ledger.Entry{entry(earlier, "a")}) {
					if r.Err != nil {
						t.Fatal(r.Err)
					}
				}
				if _, verdict, err := l.Claim(t.Context(), earlier, payment.Attempt{At: start}, time.Minute); err != nil || verdict != ledger.Claimed {
					t.Fatal(verdict, err)
				}
				if !row.before {
					forget = snapshot(t, client)
				}
				r := claim(t, l, ledger.Claimed)
				want := whole(t, l, client)
				forget()

				other := ledger.New(client, ledger.DefaultStream, c.now)
				if !row.before {
					if wait := held(t, other); wait != 5*time.Second {
						t.Errorf("held for %s", wait)
					}
				}
				if row.notice != nil {
					row.notice(t, l)
					if diff := cmp.Diff(want, whole(t, l, client)); diff != "" {
						t.Error(diff)
					}
				}
				c.forward(6 * time.Second)
				if row.notice != nil {
					claim(t, other, ledger.Busy)
				}
				move(t, l, r, payment.Paid, time.Time{})
				claim(t, other, ledger.Settled)
				if got := told(t, client); len(got) != 1 || got[0].ID != inv1.String()+":1" {
					t.Errorf("events: %+v", got)
				}
			})
		}
	})
}

// TestForgottenRecord: Redis forgets what came of a payment in the last ten
// seconds, and whose claim it was. All is put back, and the event is told again as
// it was told before.
func TestForgottenRecord(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		l, c := house(t, client)
		var returned []string
		l.OnReturn = func(forgotten int, hold time.Duration) { returned = append(returned, fmt.Sprint(forgotten, " ", hold)) }
		r := claim(t, l, ledger.Claimed)
		r.Since = c.t
		move(t, l, r, payment.Confirming, c.t)
		forget := snapshot(t, client)
		r, err := l.Read(t.Context(), inv1)
		if err != nil {
			t.Fatal(err)
		}
		move(t, l, r, payment.Queued, c.t) // "resubmit"
		r = claim(t, l, ledger.Claimed)
		c.forward(5 * time.Second)
		move(t, l, r, payment.Queued, c.t) // "retry"
		r = claim(t, l, ledger.Claimed)
		want := whole(t, l, client)
		forget()
		tick(t, l)
		if diff := cmp.Diff(want, whole(t, l, client)); diff != "" {
			t.Error(diff)
		}
		c.forward(5 * time.Second)
		r.GatewayStatus = "2006300"
		move(t, l, r, payment.OnProcessing, c.t.Add(time.Minute))
		if r, err = l.Read(t.Context(), inv1); err != nil {
			t.Fatal(err)
		}
		r.Status, r.Due = payment.Paid, time.Time{} // as a poll records it
		for _, err := range l.SaveAll(t.Context(), []*ledger.Record{r}) {
			if err != nil {
				t.Fatal(err)
			}
		}
		want = whole(t, l, client)
		forget()
		tick(t, l)
		if diff := cmp.Diff(want, whole(t, l, client)); diff != "" {
			t.Error(diff)
		}
		client.ScriptFlush(t.Context()) // a restart that loses nothing
		tick(t, l)
		tick(t, l)
		if diff := cmp.Diff(want, whole(t, l, client)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"2 5s", "2 5s", "0 5s"}, returned); diff != "" {
			t.Error(diff)
		}
	})
}

// TestVigil: who has to wait when Redis comes back, and who has not.
func TestVigil(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		l, c := house(t, client)
		move(t, l, claim(t, l, ledger.Claimed), payment.Queued, c.t) // the very first claim waits for nobody

		client.ScriptFlush(t.Context())
		held(t, l)
		c.forward(3 * time.Second)
		if wait := held(t, l); wait != 2*time.Second {
			t.Errorf("%s left after 3 s", wait)
		}
		late := ledger.New(client, ledger.DefaultStream, c.now)
		held(t, late) // it cannot know since when
		client.ScriptFlush(t.Context())
		if wait := held(t, l); wait != 5*time.Second {
			t.Errorf("%s left after one more restart", wait)
		}
		c.forward(5 * time.Second)
		tick(t, l) // the vigil is over, for everybody
		move(t, l, claim(t, l, ledger.Claimed), payment.Queued, c.t)
		claim(t, ledger.New(client, ledger.DefaultStream, c.now), ledger.Claimed)
	})
}

// TestClaimThatArrived: a claim that Redis wrote down before it went away, and
// whose answer was lost, is its caller's all the same.
func TestClaimThatArrived(t *testing.T) {
	server := redistest.Server(t, "--appendfsync", "always")
	client := server.Client(t)
	l, _ := house(t, client)
	tick(t, l)
	client.AddHook(loseOne{done: new(bool), restart: func() {
		server.Kill()
		server.Start(t)
	}})
	claim(t, l, ledger.Claimed)
	if r, err := l.Read(t.Context(), inv1); err != nil || len(r.Attempts) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

// loseOne loses the answer to one script: Redis restarts, and the client asks once
// more.
type loseOne struct {
	restart func()
	done    *bool
}

func (loseOne) DialHook(next redis.DialHook) redis.DialHook { return next }

func (l loseOne) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if cmd.Name() != "evalsha" || *l.done {
			return err
		}
		*l.done = true
		l.restart()
		cmd.SetErr(nil)
		return next(ctx, cmd)
	}
}

func (loseOne) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
