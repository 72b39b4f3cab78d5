package refusals

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/clients"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/retrypolicy"
)

// worker is one worker's Guard, with its log.
type worker struct {
	*Guard
	t   *testing.T
	log bytes.Buffer
	on  []bool // the arguments of OnPaused
}

// fixture is what the workers of a test share.
type fixture struct {
	t        *testing.T
	gateway  payment.Gateway
	redis    redis.UniversalClient
	accepted atomic.Int64
	now      time.Time
}

func newFixture(t *testing.T, client redis.UniversalClient, g payment.Gateway) *fixture {
	return &fixture{t: t, gateway: g, redis: client, now: time.Now()}
}

func (f *fixture) worker(edits ...func(*Options)) *worker {
	w := &worker{t: f.t}
	o := Options{
		Gateway: f.gateway, Limit: 10, Redis: f.redis,
		Accepted: func(context.Context, payment.Gateway) (int64, error) { return f.accepted.Load(), nil },
		Now:      func() time.Time { return f.now },
		Log:      slog.New(slog.NewTextHandler(&w.log, nil)),
		OnPaused: func(on bool) { w.on = append(w.on, on) },
	}
	for _, edit := range edits {
		edit(&o)
	}
	w.Guard = New(o)
	return w
}

// answered returns the decision on an answer, with the built-in policy.
func (w *worker) answered(probe, id, code string, status int, message string) retrypolicy.Decision {
	w.t.Helper()
	d := retrypolicy.Builtin().Decide(w.options.Gateway, code, message, 1, 0)
	return w.adjust(probe, id, clients.Answer{Code: code, HTTPStatus: status, Message: message, At: time.Now()}, d)
}

func (w *worker) adjust(probe, id string, a clients.Answer, d retrypolicy.Decision) retrypolicy.Decision {
	w.t.Helper()
	got := w.Adjust(w.t.Context(), probe, payment.Key{Gateway: w.options.Gateway, TransactionID: id}, a, d)
	if got.Action == retrypolicy.Review && got.Reason == "" {
		w.t.Error("review without a reason")
	}
	return got
}

// refused returns the action when AM refuses a payment with this message.
func (w *worker) refused(id, message string) retrypolicy.Action {
	w.t.Helper()
	return w.answered("", id, "error:true", 200, message).Action
}

// admit calls Admit and returns "open", "wait" or "probe", and the probe's token.
func (w *worker) admit() (result, probe string) {
	w.t.Helper()
	a, err := w.Admit(w.t.Context())
	switch {
	case err != nil:
		w.t.Fatal(err)
	case a.Wait > 0 && (a.Wait > ProbeInterval || !strings.Contains(a.Reason, "paused") || a.Probe != ""):
		w.t.Errorf("%+v", a)
	case a.Wait > 0:
		return "wait", ""
	case a.Probe != "":
		return "probe", a.Probe
	}
	return "open", ""
}

// admits fails the test if admit returns another result.
func (w *worker) admits(want string) (probe string) {
	w.t.Helper()
	got, probe := w.admit()
	if got != want {
		w.t.Fatalf("%s, want %s", got, want)
	}
	return probe
}

// probeIsDue makes the next probe due, by Redis' clock and by the workers'.
func (f *fixture) probeIsDue() {
	f.t.Helper()
	f.now = f.now.Add(ProbeInterval + time.Second)
	if err := f.redis.HSet(f.t.Context(), pauseKey(f.gateway), "probe", "1").Err(); err != nil {
		f.t.Fatal(err)
	}
}

// pause makes the gateway refuse payments until it is paused.
func (f *fixture) pause(w *worker) {
	f.t.Helper()
	for i := range w.options.Limit {
		w.refused(fmt.Sprint("PAUSE-", i), "Order declined")
	}
	if !w.Paused() {
		f.t.Fatal("not paused")
	}
}

// TestStreak checks that over two workers the first two refused payments are rejected, all
// others go to review, and the tenth pauses the gateway.
func TestStreak(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		f := newFixture(t, client, payment.AMDigiPay)
		one, two := f.worker(), f.worker()
		var got []string
		for i := range 5 {
			got = append(got, string(one.refused(fmt.Sprint("INV-", i), fmt.Sprintf("Order  declined for INV-%d (12%d)", i, i))))
			got = append(got, string(two.refused(fmt.Sprint("ORD-", i), fmt.Sprintf("order DECLINED for ORD-%d\n(9)", i))))
		}
		if diff := cmp.Diff("reject reject review review review review review review review review", strings.Join(got, " ")); diff != "" {
			t.Error(diff)
		}
		if one.Paused() {
			t.Error("paused before Refresh, although the other worker counted the tenth")
		}
		if err := one.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, w := range []*worker{one, two} {
			w.admits("wait")
			if diff := cmp.Diff([]bool{true}, w.on); diff != "" {
				t.Error(diff)
			}
			if lines := strings.Split(strings.TrimSpace(w.log.String()), "\n"); len(lines) != 1 || !strings.Contains(lines[0], "level=ERROR") || !strings.Contains(lines[0], "gateway=amdigipay") {
				t.Errorf("log:\n%s", w.log.String())
			}
		}
		// Every key is in the ledger's slot and has a time to live.
		keys, err := client.Keys(t.Context(), "*").Result()
		if err != nil || len(keys) != 2 {
			t.Errorf("%v %v", keys, err)
		}
		for _, key := range keys {
			if ttl := client.PTTL(t.Context(), key).Val(); !ledger.SharesSlot(key) || ttl <= 0 || ttl > streakTTL {
				t.Errorf("%s: time to live %s", key, ttl)
			}
		}
	})
}

// TestWhatEndsAStreak checks what may happen between the second and the third refusal of a
// streak without ending it.
func TestWhatEndsAStreak(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		for _, row := range []struct {
			name    string
			between func(f *fixture, w *worker)
			next    retrypolicy.Action // of the third refusal
		}{
			{"nothing", func(*fixture, *worker) {}, retrypolicy.Review},
			{"a success, of any worker", func(f *fixture, _ *worker) { f.accepted.Add(1) }, retrypolicy.Reject},
			{"a success that the policy wants looked up", func(_ *fixture, w *worker) {
				w.adjust("", "P", clients.Answer{Code: "http:200", HTTPStatus: 200, Receipt: &clients.Receipt{}},
					retrypolicy.Decision{Action: retrypolicy.Verify, Rule: retrypolicy.Rule{Action: retrypolicy.Verify}})
			}, retrypolicy.Reject},
			{"a server error", func(_ *fixture, w *worker) { w.answered("", "P", "http:500", 500, "") }, retrypolicy.Review},
			{"no answer", func(_ *fixture, w *worker) { w.answered("", "P", "net:unknown", 0, "") }, retrypolicy.Review},
			{"a refusal with another message", func(_ *fixture, w *worker) { w.refused("P", "Nominal too low") }, retrypolicy.Review},
			{"a refusal that a rule with match rejects", func(_ *fixture, w *worker) {
				if d := w.matched("", "P"); d.Action != retrypolicy.Reject {
					w.t.Error(d)
				}
			}, retrypolicy.Review},
			{"the same payment", func(_ *fixture, w *worker) { w.refused("INV-1", "Order declined") }, retrypolicy.Review},
		} {
			t.Run(row.name, func(t *testing.T) {
				if err := client.FlushAll(t.Context()).Err(); err != nil {
					t.Fatal(err)
				}
				f := newFixture(t, client, payment.AMDigiPay)
				w := f.worker()
				for i := range 2 {
					if got := w.refused(fmt.Sprint("INV-", i), "Order declined"); got != retrypolicy.Reject {
						t.Errorf("refusal %d: %s", i, got)
					}
				}
				row.between(f, w)
				if got := w.refused("INV-9", "Order declined"); got != row.next {
					t.Errorf("%s, want %s", got, row.next)
				}
			})
		}
	})
}

// matched returns the decision on a refusal that a rule with match rejects.
func (w *worker) matched(probe, id string) retrypolicy.Decision {
	w.t.Helper()
	rule := retrypolicy.Rule{Code: "error:true", Match: "(?i)limit", Action: retrypolicy.Reject}
	return w.adjust(probe, id, clients.Answer{Code: "error:true", HTTPStatus: 200, Message: "limit"}, retrypolicy.Decision{Action: retrypolicy.Reject, Rule: rule})
}

// TestTheSamePaymentCountsOnce refuses one payment 20 times.
func TestTheSamePaymentCountsOnce(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		w := newFixture(t, client, payment.AMDigiPay).worker()
		for range 20 {
			if got := w.refused("INV-1", "Order declined"); got != retrypolicy.Reject {
				t.Fatal(got)
			}
		}
	})
}

// TestWhatCounts checks which of Paydia's codes count as refusals of us.
func TestWhatCounts(t *testing.T) {
	t.Parallel()
	client := redistest.Mini(t)
	for _, row := range []struct {
		code   string
		status int
		counts bool
	}{
		{"4006301", 400, true},
		{"4036300", 403, true},
		{"4036301", 403, true},
		{"4036302", 403, false},
		{"4036314", 403, false},
		{"4036323", 403, false},
		{"4046308", 404, true},
		{"4016302", 401, true}, // a wrong PAYDIA_CUSTOMER_TOKEN_PREFIX looks like that
		{"4016300", 401, true},
		{"4016301", 401, true},
		{"http:401", 401, true},
		{"http:403", 403, true},
		{"4296300", 429, false},
		{"4036304", 403, false},
		{"4096301", 409, false},
		{"5006301", 500, false},
		{"net:unsent", 0, false},
		{"body:unreadable", 200, false},
		{"4999999", 499, false},
	} {
		if err := client.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		w := newFixture(t, client, payment.Paydia).worker()
		before := retrypolicy.Builtin().Decide(payment.Paydia, row.code, "", 1, 0).Action
		for i := range 10 {
			d := w.answered("", fmt.Sprint("ORD-", i), row.code, row.status, "Words")
			want := before
			if before == retrypolicy.Reject && row.counts && i >= 2 {
				want = retrypolicy.Review
			}
			if d.Action != want {
				t.Errorf("%s, refusal %d: %s, want %s", row.code, i+1, d.Action, want)
			}
		}
		if w.Paused() != row.counts {
			t.Errorf("%s: paused %v", row.code, w.Paused())
		}
	}
}

// TestProbe checks what each result of a probe does to the pause and to the streak.
func TestProbe(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		for _, row := range []struct {
			name   string
			probe  func(f *fixture, w *worker, probe string) retrypolicy.Action
			action retrypolicy.Action
			next   string // admission after the probe
			goesOn bool   // the streak continues: the next refusal of its kind pauses the gateway
		}{
			{"the same refusal", func(_ *fixture, w *worker, p string) retrypolicy.Action {
				return w.answered(p, "P", "error:true", 200, "order declined").Action
			}, retrypolicy.Review, "wait", true},
			{"accepted", func(f *fixture, w *worker, p string) retrypolicy.Action {
				d := w.adjust(p, "P", clients.Answer{Code: "http:200", HTTPStatus: 200, Receipt: &clients.Receipt{}}, retrypolicy.Decision{Action: retrypolicy.Accept})
				f.accepted.Add(1) // as the ledger does when the payment is saved
				return d.Action
			}, retrypolicy.Accept, "open", false},
			{"another refusal", func(_ *fixture, w *worker, p string) retrypolicy.Action {
				return w.answered(p, "P", "error:true", 200, "Nominal too low").Action
			}, retrypolicy.Reject, "open", true},
			{"a refusal that a rule with match rejects", func(_ *fixture, w *worker, p string) retrypolicy.Action {
				return w.matched(p, "P").Action
			}, retrypolicy.Reject, "open", true},
			{"no answer", func(_ *fixture, w *worker, p string) retrypolicy.Action {
				return w.answered(p, "P", "net:unknown", 0, "").Action
			}, retrypolicy.Verify, "wait", true},
			{"a server error", func(_ *fixture, w *worker, p string) retrypolicy.Action {
				return w.answered(p, "P", "http:500", 500, "").Action
			}, retrypolicy.Verify, "wait", true},
			{"not sent", func(_ *fixture, w *worker, p string) retrypolicy.Action {
				w.Release(w.t.Context(), p)
				return ""
			}, "", "probe", true},
		} {
			t.Run(row.name, func(t *testing.T) {
				if err := client.FlushAll(t.Context()).Err(); err != nil {
					t.Fatal(err)
				}
				f := newFixture(t, client, payment.AMDigiPay)
				one, two := f.worker(), f.worker()
				f.pause(one)
				if err := two.Refresh(t.Context()); err != nil {
					t.Fatal(err)
				}
				one.admits("wait")
				two.admits("wait")
				f.probeIsDue()
				probe := one.admits("probe")
				one.admits("wait")
				two.admits("wait") // one probe over all workers
				if got := row.probe(f, one, probe); got != row.action {
					t.Errorf("%s, want %s", got, row.action)
				}
				one.admits(row.next)
				if row.next == "open" {
					if err := two.Refresh(t.Context()); err != nil {
						t.Fatal(err)
					}
					two.admits("open")
					if diff := cmp.Diff([]bool{true, false}, one.on); diff != "" {
						t.Error(diff)
					}
				}
				want := retrypolicy.Reject
				if row.goesOn {
					want = retrypolicy.Review
				}
				if got := one.refused("INV-99", "Order declined"); got != want || one.Paused() != row.goesOn {
					t.Errorf("the next refusal: %s, paused %v", got, one.Paused())
				}
			})
		}
	})
}

// TestLateAnswersDoNotResume checks that answers to requests sent before the pause do not end
// it.
func TestLateAnswersDoNotResume(t *testing.T) {
	t.Parallel()
	f := newFixture(t, redistest.Mini(t), payment.AMDigiPay)
	w := f.worker()
	f.pause(w)
	w.refused("LATE-1", "Nominal too low")
	w.matched("", "LATE-2")
	if !w.Paused() {
		t.Error("no longer paused")
	}
	w.admits("wait")
}

// TestManyInFlight refuses fifty payments at once: no more than two are rejected.
func TestManyInFlight(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		f := newFixture(t, client, payment.AMDigiPay)
		workers := []*worker{f.worker(), f.worker()}
		var mu sync.Mutex
		got := map[retrypolicy.Action]int{}
		var group sync.WaitGroup
		for i := range 50 {
			group.Go(func() {
				action := workers[i%2].refused(fmt.Sprint("INV-", i), "Order declined")
				mu.Lock()
				defer mu.Unlock()
				got[action]++
			})
		}
		group.Wait()
		if diff := cmp.Diff(map[retrypolicy.Action]int{retrypolicy.Reject: 2, retrypolicy.Review: 48}, got); diff != "" {
			t.Error(diff)
		}
	})
}

// TestReviewsAndTokensCount checks that reviews and refused access tokens pause the gateway
// too, and that their decisions are not adjusted.
func TestReviewsAndTokensCount(t *testing.T) {
	t.Parallel()
	client := redistest.Mini(t)
	for _, row := range []struct {
		code    string
		status  int
		message string
		want    retrypolicy.Action
	}{
		{"error:true", 200, "Invalid signature", retrypolicy.Review},
		{"http:400", 400, "token_expired", retrypolicy.RefreshToken},
		{"http:401", 401, "Unauthenticated.", retrypolicy.RefreshToken},
		{"http:403", 403, "", retrypolicy.Review},
	} {
		if err := client.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		w := newFixture(t, client, payment.AMDigiPay).worker()
		for i := range 10 {
			if w.Paused() {
				t.Errorf("%s: paused after %d", row.code, i)
			}
			if d := w.answered("", fmt.Sprint("INV-", i), row.code, row.status, row.message); d.Action != row.want {
				t.Errorf("%s: %s, want %s", row.code, d.Action, row.want)
			}
		}
		if !w.Paused() {
			t.Errorf("%s: not paused", row.code)
		}
	}
}

// TestSmallLimit checks that the payment that reaches a limit of 1 goes to review.
// TestRevokedToken: the gateway revokes an access token that has worked, and refuses
// everything in flight. Refusals of new tokens that have never worked count.
func TestRevokedToken(t *testing.T) {
	f := newFixture(t, redistest.Mini(t), payment.AMDigiPay)
	w := f.worker()
	refuse := func(id string, token clients.TokenGeneration) {
		t.Helper()
		d := retrypolicy.Builtin().Decide(f.gateway, "http:401", "Unauthenticated.", 1, 0)
		w.adjust("", id, clients.Answer{Code: "http:401", HTTPStatus: 401, Message: "Unauthenticated.", Token: token, At: time.Now()}, d)
	}
	d := retrypolicy.Builtin().Decide(f.gateway, "http:200", "", 1, 0)
	w.adjust("", "INV-0", clients.Answer{Code: "http:200", HTTPStatus: 200, Token: 2, At: time.Now()}, d)
	f.accepted.Add(1)
	for i := range 50 {
		refuse(fmt.Sprintf("INV-%d", i+1), clients.TokenGeneration(1+i%2))
	}
	w.admits("open")
	for i := range 9 {
		refuse(fmt.Sprintf("INV-%d", i+1), 3)
	}
	w.admits("open")
	refuse("INV-10", 3)
	w.admits("wait")
}

func TestSmallLimit(t *testing.T) {
	t.Parallel()
	w := newFixture(t, redistest.Mini(t), payment.AMDigiPay).worker(func(o *Options) { o.Limit = 1 })
	if got := w.refused("INV-1", "Order declined"); got != retrypolicy.Review || !w.Paused() {
		t.Error(got, w.Paused())
	}
}

// TestWithoutRedis checks that a refused payment goes to review while Redis is down.
func TestWithoutRedis(t *testing.T) {
	t.Parallel()
	client := redistest.Mini(t)
	w := newFixture(t, client, payment.AMDigiPay).worker()
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	d := w.answered("", "INV-1", "error:true", 200, "Order declined")
	if d.Action != retrypolicy.Review || !strings.Contains(d.Reason, "Redis") {
		t.Errorf("%+v", d)
	}
	w.admits("open") // the claim will fail
	if w.Refresh(t.Context()) == nil {
		t.Error("no error")
	}
}

// TestCustomersWithoutRedis checks that a refusal of a customer needs no Redis.
func TestCustomersWithoutRedis(t *testing.T) {
	t.Parallel()
	client := redistest.Mini(t)
	w := newFixture(t, client, payment.Paydia).worker()
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if d := w.answered("", "ORD-1", "4036314", 403, "Insufficient Funds"); d.Action != retrypolicy.Reject {
		t.Errorf("%+v", d)
	}
}

func TestNormalize(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ message, id, want string }{
		{"Invalid signature", "", "invalid signature"},
		{"  INVALID\tSignature. ", "", "invalid signature"},
		{"Invalid signature INV-1001", "INV-1001", "invalid signature"},
		{"invalid signature inv-x", "INV-X", "invalid signature"},
		{"Error 42: limit 10,000", "", "error limit"},
		{"hash 23f7cef3b8ed222 differs", "", "hash differs"},
		{"0030c97b-5ccc-4482-b4af-9ffdb4a039b1: no", "", "no"},
		{"Tanda tangan ٣ salah", "", "tanda tangan salah"},
		{"", "", ""},
		{"***", "", ""},
	} {
		if got := normalize(row.message, row.id); got != row.want {
			t.Errorf("%q: %q, want %q", row.message, got, row.want)
		}
	}
	if kindOf("a", "b", "") == kindOf("ab", "", "") {
		t.Error("kindOf does not separate code and message")
	}
}
