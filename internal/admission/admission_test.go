package admission_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/admission"
	"terbayar/internal/clients"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
)

// account is the login of a gateway, the only part of a client that a gate uses.
type account struct {
	clients.Gateway

	login   func() error // nil: succeeds
	dropped []clients.TokenGeneration
}

func (a *account) Authenticate(context.Context) error {
	if a.login == nil {
		return nil
	}
	return a.login()
}

func (a *account) RenewToken(g clients.TokenGeneration) { a.dropped = append(a.dropped, g) }

// watched is a gate whose states and log lines are kept.
type watched struct {
	*admission.Controller
	account

	t      *testing.T
	states []int
	log    bytes.Buffer
}

func newGate(t *testing.T, edit func(o *admission.Options)) *watched {
	t.Helper()
	w := &watched{t: t}
	o := admission.Options{
		Gateway: payment.Paydia, Failures: 5, Pause: 15 * time.Second, Now: time.Now,
		Log:     slog.New(slog.NewTextHandler(&w.log, nil)),
		OnState: func(state int) { w.states = append(w.states, state) },
	}
	edit(&o)
	w.Controller = admission.New(o)
	return w
}

func unchanged(*admission.Options) {}

func after(failures int) func(o *admission.Options) {
	return func(o *admission.Options) { o.Failures = failures }
}

// enter enters, and fails the test where it may not.
func (w *watched) enter() *admission.Permit {
	w.t.Helper()
	pass, err := w.Allow(w.t.Context(), &w.account)
	if err != nil {
		w.t.Fatal(err)
	}
	return pass
}

// submit makes one request that comes to a code.
func (w *watched) submit(code string) {
	w.t.Helper()
	pass := w.enter()
	defer pass.Release()
	pass.Report(answer(code))
}

// turnedAway tries to enter and returns how long to wait, failing the test where
// it may enter.
func (w *watched) turnedAway(reason string) time.Duration {
	w.t.Helper()
	pass, err := w.Allow(w.t.Context(), &w.account)
	var closed *admission.DeniedError
	if !errors.As(err, &closed) || pass != nil {
		w.t.Fatalf("let in: %v", err)
	}
	if !strings.Contains(err.Error(), reason) || closed.Wait <= 0 {
		w.t.Errorf("%v, wait %s; want %s", err, closed.Wait, reason)
	}
	return closed.Wait
}

func answer(code string) clients.Answer { return clients.Answer{Code: code, At: time.Now()} }

// TestWhatCounts: which answers open a breaker.
func TestWhatCounts(t *testing.T) {
	for _, row := range []struct {
		code   string
		status int
		counts bool
	}{
		{"net:unsent", 0, true},
		{"net:unknown", 0, true},
		{"net:unknown", 202, true}, // broke off in the middle of it
		{"body:unreadable", 200, true},
		{"body:unreadable", 202, false},
		{"http:500", 500, true},
		{"http:503", 503, true},
		{"http:599", 599, true},
		{"5006300", 500, true},
		{"5006301", 500, true},
		{"5006402", 500, true},
		{"5046300", 504, true},
		{"2006300", 200, false},
		{"2026300", 202, false},
		{"http:200", 200, false},
		{"http:302", 302, false},
		{"error:true", 200, false},
		{"http:400", 400, false},
		{"http:401", 401, false},
		{"http:403", 403, false},
		{"http:408", 408, false},
		{"http:422", 422, false},
		{"http:429", 429, false},
		{"4016301", 401, false},
		{"4036314", 403, false},
		{"4046401", 404, false},
		{"4096301", 409, false},
		{"4296300", 429, false},
	} {
		t.Run(row.code, func(t *testing.T) {
			g := newGate(t, after(1))
			pass := g.enter()
			pass.Report(clients.Answer{Code: row.code, HTTPStatus: row.status, At: time.Now()})
			pass.Release()
			if row.counts {
				g.turnedAway("circuit breaker is open")
			} else {
				g.enter().Release()
			}
		})
	}
}

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, unchanged)
		for range 4 {
			g.submit("http:500")
		}
		g.submit("4036314") // a customer without money: the gateway is well
		for range 4 {
			g.submit("net:unknown")
		}
		inFlight := []*admission.Permit{g.enter(), g.enter()}
		pass := g.enter()
		pass.Report(clients.Answer{Code: "5006301", At: time.Now(), Token: 7})
		pass.Release()

		wait := g.turnedAway("circuit breaker is open")
		if wait < 15*time.Second || wait > 20*time.Second {
			t.Errorf("open for 15 s: wait %s", wait)
		}
		time.Sleep(10 * time.Second)
		if wait := g.turnedAway("circuit breaker is open"); wait < 5*time.Second || wait > 8*time.Second {
			t.Errorf("5 s left: wait %s", wait)
		}
		if len(g.dropped) != 0 {
			t.Errorf("tokens %v dropped too early", g.dropped)
		}

		time.Sleep(6 * time.Second)
		first := g.enter()
		if diff := cmp.Diff([]clients.TokenGeneration{7}, g.dropped); diff != "" {
			t.Errorf("tokens dropped: %s", diff)
		}
		if wait := g.turnedAway("half-open"); wait < 15*time.Second/4 || wait > 6*time.Second {
			t.Errorf("half-open: wait %s", wait)
		}
		inFlight[0].Report(answer("2006300")) // sent before it opened: no proof that the gateway is back
		g.turnedAway("half-open")
		first.Report(answer("net:unsent"))
		first.Release()
		g.turnedAway("open")

		time.Sleep(16 * time.Second)
		g.submit("2006300")
		inFlight[1].Report(answer("net:unknown"))
		for range 4 {
			g.submit("net:unknown") // the late one of before does not count as the fifth
		}
		g.enter().Release()

		if diff := cmp.Diff([]int{2, 1, 2, 1, 0}, g.states); diff != "" {
			t.Errorf("states: %s", diff)
		}
		lines := strings.Split(strings.TrimSpace(g.log.String()), "\n")
		if len(lines) != 2 || !strings.Contains(lines[0], "circuit breaker opens") || !strings.Contains(lines[0], "gateway=paydia") ||
			!strings.Contains(lines[0], "code=5006301") || !strings.Contains(lines[1], "circuit breaker closes") {
			t.Errorf("log:\n%s", g.log.String())
		}
	})
}

// TestProbeThatTellsNothing: whoever tries the half-open breaker and comes back
// without an answer leaves it to the next.
func TestProbeThatTellsNothing(t *testing.T) {
	for name, probe := range map[string]func(g *watched){
		"left without a word": func(g *watched) { g.enter().Release() },
		"nothing was sent for a reason of our own": func(g *watched) {
			pass := g.enter()
			defer pass.Release()
			pass.Report(clients.Answer{Code: "net:unsent"})
		},
		"panic after the gate": func(g *watched) {
			defer func() { _ = recover() }()
			defer g.enter().Release()
			panic("oh")
		},
		"panic at the login": func(g *watched) {
			defer func() { g.login = nil; _ = recover() }()
			g.login = func() error { panic("oh") }
			g.enter().Release()
		},
		"panic in a look-up": func(g *watched) {
			defer func() { _ = recover() }()
			_, _ = g.Lookup(g.t.Context(), &g.account, func() clients.Answer { panic("oh") })
		},
		"look-up broken off by us": func(g *watched) {
			ctx, cancel := context.WithCancel(g.t.Context())
			_, err := g.Lookup(ctx, &g.account, func() clients.Answer { cancel(); return answer("net:unknown") })
			if err != nil {
				g.t.Error(err)
			}
		},
		"login broken off by us": func(g *watched) {
			ctx, cancel := context.WithCancel(g.t.Context())
			g.login = func() error { cancel(); return &clients.Error{Code: "net:unsent"} }
			if _, err := g.Allow(ctx, &g.account); err == nil {
				g.t.Error("entered")
			}
			g.login = nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, after(1))
				g.submit("net:unknown")
				time.Sleep(16 * time.Second)
				probe(g)
				g.submit("2006300")
				if diff := cmp.Diff([]int{2, 1, 0}, g.states); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestLogin(t *testing.T) {
	fail := func(g *watched) error {
		_, err := g.Allow(g.t.Context(), &g.account)
		return err
	}
	t.Run("one failure told to fifty is one", func(t *testing.T) {
		g := newGate(t, after(2))
		failed := error(&clients.Error{Code: "http:502"})
		g.login = func() error { return failed }
		for range 50 {
			if err := fail(g); !errors.Is(err, failed) {
				t.Fatal(err)
			}
		}
		failed = &clients.Error{Code: "http:502"}
		if err := fail(g); !errors.Is(err, failed) {
			t.Error(err)
		}
		g.turnedAway("open")
	})
	t.Run("wrong credentials do not count", func(t *testing.T) {
		g := newGate(t, after(1))
		g.login = func() error { return &clients.Error{Code: "4017300", HTTPStatus: 401} }
		for range 3 {
			if err := fail(g); !errors.As(err, new(*clients.Error)) {
				t.Fatal(err)
			}
		}
	})
	t.Run("no look-up without one", func(t *testing.T) {
		g := newGate(t, after(1))
		g.login = func() error { return &clients.Error{Code: "net:unsent"} }
		_, err := g.Lookup(t.Context(), &g.account, func() clients.Answer { t.Error("asked"); return clients.Answer{} })
		if !errors.As(err, new(*clients.Error)) {
			t.Error(err)
		}
		g.turnedAway("open")
	})
}

func TestOneRequestCountsOnce(t *testing.T) {
	g := newGate(t, after(2))
	pass := g.enter()
	pass.Report(answer("net:unknown"))
	pass.Report(answer("net:unknown"))
	g.enter().Release()
}

// TestManyAtOnce: of many who come to a half-open breaker one gets through.
func TestManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, after(1))
		g.submit("net:unknown")
		time.Sleep(16 * time.Second)
		var mu sync.Mutex
		var in []*admission.Permit
		var group sync.WaitGroup
		for range 50 {
			group.Go(func() {
				pass, err := g.Allow(t.Context(), &account{})
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					in = append(in, pass)
				}
			})
		}
		group.Wait()
		if len(in) != 1 {
			t.Errorf("%d of 50 were let in", len(in))
		}
	})
}

func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, unchanged)
		rest := func(d time.Duration) {
			pass := g.enter()
			defer pass.Release()
			pass.Report(clients.Answer{Code: "4296300", At: time.Now(), RetryAfter: d})
		}
		late := g.enter()
		rest(time.Minute)
		if wait := g.turnedAway("left alone"); wait < time.Minute || wait > 76*time.Second {
			t.Errorf("wait %s", wait)
		}
		late.Report(clients.Answer{Code: "http:503", At: time.Now(), RetryAfter: 10 * time.Second}) // asks for less
		late.Release()
		time.Sleep(59 * time.Second)
		waits := make(map[time.Duration]bool)
		for range 10 {
			waits[g.turnedAway("left alone")] = true
		}
		if len(waits) < 2 {
			t.Error("everybody is told to come back at the same moment")
		}
		_, err := g.Lookup(t.Context(), &g.account, func() clients.Answer { t.Error("asked"); return clients.Answer{} })
		if !errors.As(err, new(*admission.DeniedError)) {
			t.Error(err)
		}
		time.Sleep(time.Second)
		g.enter().Release()
		if len(g.states) != 0 {
			t.Errorf("the breaker took part: %v", g.states)
		}
	})
}

func TestNilGateIsOpen(t *testing.T) {
	var g *admission.Controller
	failure := &clients.Error{Code: "http:500"}
	for range 10 {
		pass, err := g.Allow(t.Context(), &account{})
		if err != nil {
			t.Fatal(err)
		}
		pass.Report(clients.Answer{Code: "http:500", At: time.Now(), RetryAfter: time.Hour})
		pass.Release()
		if a, err := g.Lookup(t.Context(), &account{}, func() clients.Answer { return answer("http:500") }); err != nil || a.Code != "http:500" {
			t.Fatal(a, err)
		}
		if _, err := g.Allow(t.Context(), &account{login: func() error { return failure }}); !errors.Is(err, failure) {
			t.Fatal(err)
		}
	}
}

func reasonRateLimit(client redis.UniversalClient, g payment.Gateway, requests int, per time.Duration) func(*admission.Options) {
	return func(o *admission.Options) { o.Gateway, o.Redis, o.Requests, o.Per = g, client, requests, per }
}

// TestOneLimitForAll: two workers share a gateway's limit, look-ups take part in
// it, and the other gateway has its own.
func TestOneLimitForAll(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		one := newGate(t, reasonRateLimit(client, payment.Paydia, 1, time.Hour))
		two := newGate(t, reasonRateLimit(client, payment.Paydia, 1, time.Hour))
		if a, err := one.Lookup(t.Context(), &one.account, func() clients.Answer { return answer("2006400") }); err != nil || a.Code != "2006400" {
			t.Fatal(a, err)
		}
		two.turnedAway("rate limit")
		other := newGate(t, reasonRateLimit(client, payment.AMDigiPay, 1, time.Hour))
		other.submit("http:200")
		other.turnedAway("rate limit")

		keys, err := client.Keys(t.Context(), "*").Result()
		if err != nil || len(keys) != 2 {
			t.Errorf("%v %v", keys, err)
		}
		for _, key := range keys {
			if !ledger.SharesSlot(key) {
				t.Errorf("%s lies in another slot than the ledger", key)
			}
		}
	})
}

// TestTurns: those who find no room come back one behind the other.
func TestTurns(t *testing.T) {
	client, now := redistest.Mini(t), time.Now()
	g := newGate(t, func(o *admission.Options) {
		reasonRateLimit(client, payment.Paydia, 6, time.Minute)(o)
		o.Now = func() time.Time { return now }
	})
	g.submit("2006300")
	last := g.turnedAway("rate limit")
	for range 20 {
		wait := g.turnedAway("rate limit")
		if wait-last != 10*time.Second {
			t.Errorf("%s behind the one before", wait-last)
		}
		last = wait
	}
	far := newGate(t, reasonRateLimit(client, payment.AMDigiPay, 2, time.Hour))
	far.submit("http:200")
	if wait := far.turnedAway("rate limit"); wait < 2*time.Minute || wait > 5*time.Minute {
		t.Errorf("a turn half an hour away: wait %s", wait)
	}
}

// TestLookUpWaitsForItsTurn: and does not where its context would end before.
func TestLookUpWaitsForItsTurn(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		quick := newGate(t, reasonRateLimit(client, payment.Paydia, 600, time.Minute)) // ten at once
		for {
			pass, err := quick.Allow(t.Context(), &quick.account)
			if err != nil {
				break
			}
			pass.Release()
		}
		asked := false
		if _, err := quick.Lookup(t.Context(), &quick.account, func() clients.Answer { asked = true; return answer("2006400") }); err != nil || !asked {
			t.Error(asked, err)
		}

		slow := newGate(t, reasonRateLimit(client, payment.AMDigiPay, 1, time.Hour))
		slow.submit("http:200")
		never := func() clients.Answer { t.Error("asked"); return clients.Answer{} }
		soon, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var closed *admission.DeniedError
		if _, err := slow.Lookup(soon, &slow.account, never); !errors.As(err, &closed) || closed.Wait < time.Minute {
			t.Error(err)
		}
		waiting, stop := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, stop)
		if _, err := slow.Lookup(waiting, &slow.account, never); err == nil {
			t.Error("no error")
		}
	})
}

// TestShut: when the worker ends no request begins, not even one that has been waiting
// for its turn; one that is under way goes on.
func TestShut(t *testing.T) {
	g := newGate(t, reasonRateLimit(redistest.Mini(t), payment.AMDigiPay, 1, time.Hour))
	turnedAway := func(err error) {
		t.Helper()
		if c, ok := errors.AsType[*admission.DeniedError](err); !ok || c.Wait > time.Second {
			t.Error(err)
		}
	}
	pass, err := g.Allow(t.Context(), &g.account)
	if err != nil {
		t.Fatal(err)
	}
	waited := make(chan error)
	go func() {
		_, err := g.Lookup(t.Context(), &g.account, func() clients.Answer { t.Error("asked"); return answer("http:200") })
		waited <- err
	}()
	g.Stop()
	g.Stop()
	turnedAway(<-waited)
	_, err = g.Allow(t.Context(), &g.account)
	turnedAway(err)
	pass.Report(answer("http:200"))
	pass.Release()
}

// TestRedisAway: without Redis nobody knows whether there is room, so there is
// none; and that says nothing about the gateway.
func TestRedisAway(t *testing.T) {
	client := redistest.Mini(t)
	client.Close()
	g := newGate(t, reasonRateLimit(client, payment.Paydia, 1, time.Second))
	for range 10 {
		pass, err := g.Allow(t.Context(), &g.account)
		if err == nil || pass != nil || errors.As(err, new(*admission.DeniedError)) {
			t.Errorf("%v, %v", pass, err)
		}
		if _, err := g.Lookup(t.Context(), &g.account, func() clients.Answer { t.Error("asked"); return clients.Answer{} }); err == nil {
			t.Error("no error")
		}
	}
	if len(g.states) != 0 {
		t.Errorf("the breaker took part: %v", g.states)
	}
}
