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

// fakeGateway has only a login: the Controller uses nothing else of a client.
type fakeGateway struct {
	clients.Gateway

	login   func() error // nil: succeeds
	renewed []clients.TokenGeneration
}

func (f *fakeGateway) Authenticate(context.Context) error {
	if f.login == nil {
		return nil
	}
	return f.login()
}

func (f *fakeGateway) RenewToken(g clients.TokenGeneration) { f.renewed = append(f.renewed, g) }

// testController is a Controller with its gateway; it records the breaker's states and the
// log.
type testController struct {
	*admission.Controller
	fakeGateway

	t      *testing.T
	states []int
	log    bytes.Buffer
}

func newController(t *testing.T, edit func(o *admission.Options)) *testController {
	t.Helper()
	c := &testController{t: t}
	o := admission.Options{
		Gateway: payment.Paydia, Failures: 5, Pause: 15 * time.Second, Now: time.Now,
		Log:     slog.New(slog.NewTextHandler(&c.log, nil)),
		OnState: func(state int) { c.states = append(c.states, state) },
	}
	edit(&o)
	c.Controller = admission.New(o)
	return c
}

func unchanged(*admission.Options) {}

func after(failures int) func(o *admission.Options) {
	return func(o *admission.Options) { o.Failures = failures }
}

// allow calls Allow, and fails the test if it is denied.
func (c *testController) allow() *admission.Permit {
	c.t.Helper()
	permit, err := c.Allow(c.t.Context(), &c.fakeGateway)
	if err != nil {
		c.t.Fatal(err)
	}
	return permit
}

// submit makes one request and reports an answer with the code.
func (c *testController) submit(code string) {
	c.t.Helper()
	permit := c.allow()
	defer permit.Release()
	permit.Report(answer(code))
}

// denied calls Allow, which has to deny the request for the reason, and returns the wait.
func (c *testController) denied(reason string) time.Duration {
	c.t.Helper()
	permit, err := c.Allow(c.t.Context(), &c.fakeGateway)
	var denied *admission.DeniedError
	if !errors.As(err, &denied) || permit != nil {
		c.t.Fatalf("not denied: %v", err)
	}
	if !strings.Contains(err.Error(), reason) || denied.Wait <= 0 {
		c.t.Errorf("%v, wait %s; want %s", err, denied.Wait, reason)
	}
	return denied.Wait
}

func answer(code string) clients.Answer { return clients.Answer{Code: code, At: time.Now()} }

// TestWhatCounts checks which answers the breaker counts as failures.
func TestWhatCounts(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		code   string
		status int
		counts bool
	}{
		{"net:unsent", 0, true},
		{"net:unknown", 0, true},
		{"net:unknown", 202, true}, // the answer was cut off
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
			c := newController(t, after(1))
			permit := c.allow()
			permit.Report(clients.Answer{Code: row.code, HTTPStatus: row.status, At: time.Now()})
			permit.Release()
			if row.counts {
				c.denied("circuit breaker is open")
			} else {
				c.allow().Release()
			}
		})
	}
}

func TestBreaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newController(t, unchanged)
		for range 4 {
			c.submit("http:500")
		}
		c.submit("4036314") // a refusal of a customer is no failure
		for range 4 {
			c.submit("net:unknown")
		}
		inFlight := []*admission.Permit{c.allow(), c.allow()}
		permit := c.allow()
		permit.Report(clients.Answer{Code: "5006301", At: time.Now(), Token: 7})
		permit.Release()

		wait := c.denied("circuit breaker is open")
		if wait < 15*time.Second || wait > 20*time.Second {
			t.Errorf("open for 15 s: wait %s", wait)
		}
		time.Sleep(10 * time.Second)
		if wait := c.denied("circuit breaker is open"); wait < 5*time.Second || wait > 8*time.Second {
			t.Errorf("5 s left: wait %s", wait)
		}
		if len(c.renewed) != 0 {
			t.Errorf("tokens %v renewed too early", c.renewed)
		}

		time.Sleep(6 * time.Second)
		first := c.allow()
		if diff := cmp.Diff([]clients.TokenGeneration{7}, c.renewed); diff != "" {
			t.Errorf("tokens renewed: %s", diff)
		}
		if wait := c.denied("half-open"); wait < 15*time.Second/4 || wait > 6*time.Second {
			t.Errorf("half-open: wait %s", wait)
		}
		inFlight[0].Report(answer("2006300")) // sent before the breaker opened: does not close it
		c.denied("half-open")
		first.Report(answer("net:unsent"))
		first.Release()
		c.denied("open")

		time.Sleep(16 * time.Second)
		c.submit("2006300")
		inFlight[1].Report(answer("net:unknown"))
		for range 4 {
			c.submit("net:unknown") // the late answer above is not counted as the fifth
		}
		c.allow().Release()

		if diff := cmp.Diff([]int{2, 1, 2, 1, 0}, c.states); diff != "" {
			t.Errorf("states: %s", diff)
		}
		lines := strings.Split(strings.TrimSpace(c.log.String()), "\n")
		if len(lines) != 2 || !strings.Contains(lines[0], "circuit breaker opened") || !strings.Contains(lines[0], "gateway=paydia") ||
			!strings.Contains(lines[0], "code=5006301") || !strings.Contains(lines[1], "circuit breaker closed") {
			t.Errorf("log:\n%s", c.log.String())
		}
	})
}

// TestHalfOpenWithoutResult checks that a request that has no result lets the next request
// test the half-open breaker.
func TestHalfOpenWithoutResult(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]func(c *testController){
		"released without a report": func(c *testController) { c.allow().Release() },
		"nothing was sent, for a reason of our own": func(c *testController) {
			permit := c.allow()
			defer permit.Release()
			permit.Report(clients.Answer{Code: "net:unsent"})
		},
		"panic after Allow": func(c *testController) {
			defer func() { _ = recover() }()
			defer c.allow().Release()
			panic("oh")
		},
		"panic in the login": func(c *testController) {
			defer func() { c.login = nil; _ = recover() }()
			c.login = func() error { panic("oh") }
			c.allow().Release()
		},
		"panic in a lookup": func(c *testController) {
			defer func() { _ = recover() }()
			_, _ = c.Lookup(c.t.Context(), &c.fakeGateway, func() clients.Answer { panic("oh") })
		},
		"lookup cancelled by us": func(c *testController) {
			ctx, cancel := context.WithCancel(c.t.Context())
			_, err := c.Lookup(ctx, &c.fakeGateway, func() clients.Answer { cancel(); return answer("net:unknown") })
			if err != nil {
				c.t.Error(err)
			}
		},
		"login cancelled by us": func(c *testController) {
			ctx, cancel := context.WithCancel(c.t.Context())
			c.login = func() error { cancel(); return &clients.Error{Code: "net:unsent"} }
			if _, err := c.Allow(ctx, &c.fakeGateway); err == nil {
				c.t.Error("allowed")
			}
			c.login = nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newController(t, after(1))
				c.submit("net:unknown")
				time.Sleep(16 * time.Second)
				request(c)
				c.submit("2006300")
				if diff := cmp.Diff([]int{2, 1, 0}, c.states); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestLogin(t *testing.T) {
	t.Parallel()
	fail := func(c *testController) error {
		_, err := c.Allow(c.t.Context(), &c.fakeGateway)
		return err
	}
	t.Run("one failure returned to fifty callers counts once", func(t *testing.T) {
		c := newController(t, after(2))
		failed := error(&clients.Error{Code: "http:502"})
		c.login = func() error { return failed }
		for range 50 {
			if err := fail(c); !errors.Is(err, failed) {
				t.Fatal(err)
			}
		}
		failed = &clients.Error{Code: "http:502"}
		if err := fail(c); !errors.Is(err, failed) {
			t.Error(err)
		}
		c.denied("open")
	})
	t.Run("wrong credentials do not count", func(t *testing.T) {
		c := newController(t, after(1))
		c.login = func() error { return &clients.Error{Code: "4017300", HTTPStatus: 401} }
		for range 3 {
			if err := fail(c); !errors.As(err, new(*clients.Error)) {
				t.Fatal(err)
			}
		}
	})
	t.Run("no lookup without a login", func(t *testing.T) {
		c := newController(t, after(1))
		c.login = func() error { return &clients.Error{Code: "net:unsent"} }
		_, err := c.Lookup(t.Context(), &c.fakeGateway, func() clients.Answer { t.Error("lookup was made"); return clients.Answer{} })
		if !errors.As(err, new(*clients.Error)) {
			t.Error(err)
		}
		c.denied("open")
	})
}

func TestOneRequestCountsOnce(t *testing.T) {
	t.Parallel()
	c := newController(t, after(2))
	permit := c.allow()
	permit.Report(answer("net:unknown"))
	permit.Report(answer("net:unknown"))
	c.allow().Release()
}

// TestHalfOpenAllowsOne makes fifty requests at once to a half-open breaker: one is allowed.
func TestHalfOpenAllowsOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newController(t, after(1))
		c.submit("net:unknown")
		time.Sleep(16 * time.Second)
		var mu sync.Mutex
		var allowed []*admission.Permit
		var group sync.WaitGroup
		for range 50 {
			group.Go(func() {
				permit, err := c.Allow(t.Context(), &fakeGateway{})
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					allowed = append(allowed, permit)
				}
			})
		}
		group.Wait()
		if len(allowed) != 1 {
			t.Errorf("%d of 50 were allowed", len(allowed))
		}
	})
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newController(t, unchanged)
		rest := func(d time.Duration) {
			permit := c.allow()
			defer permit.Release()
			permit.Report(clients.Answer{Code: "4296300", At: time.Now(), RetryAfter: d})
		}
		late := c.allow()
		rest(time.Minute)
		if wait := c.denied("Retry-After"); wait < time.Minute || wait > 76*time.Second {
			t.Errorf("wait %s", wait)
		}
		late.Report(clients.Answer{Code: "http:503", At: time.Now(), RetryAfter: 10 * time.Second}) // shorter
		late.Release()
		time.Sleep(59 * time.Second)
		waits := make(map[time.Duration]bool)
		for range 10 {
			waits[c.denied("Retry-After")] = true
		}
		if len(waits) < 2 {
			t.Error("all waits are equal: no jitter")
		}
		_, err := c.Lookup(t.Context(), &c.fakeGateway, func() clients.Answer { t.Error("lookup was made"); return clients.Answer{} })
		if !errors.As(err, new(*admission.DeniedError)) {
			t.Error(err)
		}
		time.Sleep(time.Second)
		c.allow().Release()
		if len(c.states) != 0 {
			t.Errorf("breaker states: %v, want none", c.states)
		}
	})
}

func TestNilControllerAllowsAll(t *testing.T) {
	t.Parallel()
	var c *admission.Controller
	failure := &clients.Error{Code: "http:500"}
	for range 10 {
		permit, err := c.Allow(t.Context(), &fakeGateway{})
		if err != nil {
			t.Fatal(err)
		}
		permit.Report(clients.Answer{Code: "http:500", At: time.Now(), RetryAfter: time.Hour})
		permit.Release()
		if a, err := c.Lookup(t.Context(), &fakeGateway{}, func() clients.Answer { return answer("http:500") }); err != nil || a.Code != "http:500" {
			t.Fatal(a, err)
		}
		if _, err := c.Allow(t.Context(), &fakeGateway{login: func() error { return failure }}); !errors.Is(err, failure) {
			t.Fatal(err)
		}
	}
}

func withRateLimit(client redis.UniversalClient, g payment.Gateway, requests int, per time.Duration) func(*admission.Options) {
	return func(o *admission.Options) { o.Gateway, o.Redis, o.Requests, o.Per = g, client, requests, per }
}

// TestOneLimitForAll checks that two workers share a gateway's limit, that lookups count, and
// that the other gateway has a limit of its own.
func TestOneLimitForAll(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		one := newController(t, withRateLimit(client, payment.Paydia, 1, time.Hour))
		two := newController(t, withRateLimit(client, payment.Paydia, 1, time.Hour))
		if a, err := one.Lookup(t.Context(), &one.fakeGateway, func() clients.Answer { return answer("2006400") }); err != nil || a.Code != "2006400" {
			t.Fatal(a, err)
		}
		two.denied("rate limit")
		other := newController(t, withRateLimit(client, payment.AMDigiPay, 1, time.Hour))
		other.submit("http:200")
		other.denied("rate limit")

		keys, err := client.Keys(t.Context(), "*").Result()
		if err != nil || len(keys) != 2 {
			t.Errorf("%v %v", keys, err)
		}
		for _, key := range keys {
			if !ledger.SharesSlot(key) {
				t.Errorf("%s is in another slot than the ledger", key)
			}
		}
	})
}

// TestSlots checks that submits that exceed the rate limit get slots one after another.
func TestSlots(t *testing.T) {
	t.Parallel()
	client, now := redistest.Mini(t), time.Now()
	c := newController(t, func(o *admission.Options) {
		withRateLimit(client, payment.Paydia, 6, time.Minute)(o)
		o.Now = func() time.Time { return now }
	})
	c.submit("2006300")
	last := c.denied("rate limit")
	for range 20 {
		wait := c.denied("rate limit")
		if wait-last != 10*time.Second {
			t.Errorf("slot %s after the one before", wait-last)
		}
		last = wait
	}
	far := newController(t, withRateLimit(client, payment.AMDigiPay, 2, time.Hour))
	far.submit("http:200")
	if wait := far.denied("rate limit"); wait < 2*time.Minute || wait > 5*time.Minute {
		t.Errorf("a slot half an hour away: wait %s", wait)
	}
}

// TestLookupWaits checks that a lookup waits for the rate limit, but not if its context would
// end before.
func TestLookupWaits(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		quick := newController(t, withRateLimit(client, payment.Paydia, 120, time.Minute)) // two at once, then one every 0.5 s
		quick.submit("2006300")
		quick.submit("2006300")
		made := false
		if _, err := quick.Lookup(t.Context(), &quick.fakeGateway, func() clients.Answer { made = true; return answer("2006400") }); err != nil || !made {
			t.Error(made, err)
		}

		slow := newController(t, withRateLimit(client, payment.AMDigiPay, 1, time.Hour))
		slow.submit("http:200")
		never := func() clients.Answer { t.Error("lookup was made"); return clients.Answer{} }
		soon, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var denied *admission.DeniedError
		if _, err := slow.Lookup(soon, &slow.fakeGateway, never); !errors.As(err, &denied) || denied.Wait < time.Minute {
			t.Error(err)
		}
		waiting, stop := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, stop)
		if _, err := slow.Lookup(waiting, &slow.fakeGateway, never); err == nil {
			t.Error("no error")
		}
	})
}

// TestStop checks that Stop denies new and waiting requests, and that a request in flight
// continues.
func TestStop(t *testing.T) {
	t.Parallel()
	c := newController(t, withRateLimit(redistest.Mini(t), payment.AMDigiPay, 1, time.Hour))
	checkDenied := func(err error) {
		t.Helper()
		if d, ok := errors.AsType[*admission.DeniedError](err); !ok || d.Wait > time.Second {
			t.Error(err)
		}
	}
	permit, err := c.Allow(t.Context(), &c.fakeGateway)
	if err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error)
	go func() {
		_, err := c.Lookup(t.Context(), &c.fakeGateway, func() clients.Answer { t.Error("lookup was made"); return answer("http:200") })
		waiting <- err
	}()
	c.Stop()
	c.Stop()
	checkDenied(<-waiting)
	_, err = c.Allow(t.Context(), &c.fakeGateway)
	checkDenied(err)
	permit.Report(answer("http:200"))
	permit.Release()
}

// TestRedisDown checks that without Redis no request is allowed, because the rate limit is
// unknown, and that the breaker does not count this.
func TestRedisDown(t *testing.T) {
	t.Parallel()
	client := redistest.Mini(t)
	client.Close()
	c := newController(t, withRateLimit(client, payment.Paydia, 1, time.Second))
	for range 10 {
		permit, err := c.Allow(t.Context(), &c.fakeGateway)
		if err == nil || permit != nil || errors.As(err, new(*admission.DeniedError)) {
			t.Errorf("%v, %v", permit, err)
		}
		if _, err := c.Lookup(t.Context(), &c.fakeGateway, func() clients.Answer { t.Error("lookup was made"); return clients.Answer{} }); err == nil {
			t.Error("no error")
		}
	}
	if len(c.states) != 0 {
		t.Errorf("breaker states: %v, want none", c.states)
	}
}
