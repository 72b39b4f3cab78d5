package e2e_test

import (
	"testing"
	"time"

	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/testenv/programs"
)

// TestKillAtEveryStep kills a worker between any two steps of a payment, and starts another
// worker. The payment is sent at most once, and goes to review if lookups cannot find its
// outcome.
func TestKillAtEveryStep(t *testing.T) {
	slow(t)
	for _, c := range []struct {
		name   string
		step   func(payment.Key) func(command []string) bool // what the worker sends to Redis
		answer bool                                          // kill it before the answer; otherwise before the request
		sent   int                                           // how often the gateway has the payment in the end
		ends   payment.Status
	}{
		{"before the claim", programs.IsClaim, false, 1, payment.Paid},
		{"before the send", programs.IsClaim, true, 0, payment.NeedsReview},
		{"before the record", programs.IsSave, false, 1, payment.Paid},
		{"after the record", programs.IsSave, true, 1, payment.Paid},
		{"before the acknowledgement", programs.IsTaskDone, false, 1, payment.Paid},
		{"after the acknowledgement", programs.IsTaskDone, true, 1, payment.Paid},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			all := samples(2, "PAY")[1:]
			all[0].Ends = c.ends
			var victim *programs.Process
			kill := redistest.NewInterceptor(t, e.server.Addr, c.answer, c.step(all[0].Key), func() { victim.Kill() })
			victim = e.Worker("REDIS_URL="+kill.URL(), "GATEWAY_TIMEOUT=1s")
			e.create(all, "enqueued")
			select {
			case <-kill.Done:
			case <-time.After(programs.Timeout):
				t.Fatalf("the worker has not reached this step\n%s", victim.Stderr.Tail())
			}
			e.continueAfterKill(c.sent)
		})
	}
	t.Run("during the request", func(t *testing.T) {
		t.Parallel()
		e := newEnv(t, slowSends(5*time.Second))
		victim := e.Worker("GATEWAY_TIMEOUT=8s")
		e.create(samples(2, "PAY")[1:], "enqueued")
		e.Eventually("the request is in flight", func() bool { return e.gateway.inFlight() == 1 })
		victim.Kill()
		e.continueAfterKill(1)
	})
}

// continueAfterKill starts another worker, waits until the one payment has ended, and
// verifies it. A payment that was not claimed waits until the ledger enqueues it again.
func (e *env) continueAfterKill(sent int) {
	e.Helper()
	killed := time.Now()
	e.Worker()
	p := e.finish()[0]
	e.Logf("%s after %s", p.Status, time.Since(killed).Round(100*time.Millisecond))
	if rows := e.Sim.Rows(); len(rows) != sent {
		e.Errorf("the gateway has it %d times, want %d", len(rows), sent)
	}
	if len(p.Attempts) > 1 && p.Attempts[1].Kind != payment.KindLookup {
		e.Errorf("it was not looked up when its claim had expired: %s", e.details(p.Key()))
	}
}
