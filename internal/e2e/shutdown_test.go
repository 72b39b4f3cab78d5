package e2e_test

import (
	"net/http"
	"syscall"
	"testing"
	"time"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/payment"
	"terbayar/internal/testenv/programs"
)

// TestShutdown: SIGTERM under load. The worker finishes and records the requests in flight
// and sends no other; /readyz reports the shutdown meanwhile.
func TestShutdown(t *testing.T) {
	slow(t)
	e := newEnv(t, slowSends(2*time.Second))
	e.Settings["WORKER_CONCURRENCY"] = "10"
	w := e.Worker()
	site := w.URL()
	all := samples(60, "PAY")
	e.create(all, "enqueued")
	e.Eventually("all slots are in use", func() bool { return e.gateway.inFlight() == 20 })

	begun := time.Now()
	w.Signal(syscall.SIGTERM)
	e.Eventually("the worker is no longer ready", func() bool {
		status, _ := e.page(http.MethodGet, site+"/readyz")
		return status == http.StatusServiceUnavailable
	})
	if status, _ := e.page(http.MethodGet, site+"/healthz"); status != http.StatusOK {
		t.Errorf("healthz during shutdown: %d", status)
	}
	if code := w.Exit(); code != 0 {
		t.Fatalf("worker ended with exit code %d\n%s", code, w.Stderr.Tail())
	}
	t.Logf("ended after %s", time.Since(begun).Round(10*time.Millisecond))

	got := map[payment.Status]int{}
	for _, p := range all {
		r := e.read(p.Key)
		got[r.Status]++
		if sent := len(e.Sim.RowsOf(gatewaysim.Gateway(p.Key.Gateway), p.Key.TransactionID)); (sent == 1) == (r.Status == payment.Queued) {
			t.Errorf("sent %d times, and recorded as %s", sent, e.details(p.Key))
		}
		if spent := len(r.Attempts); r.Status == payment.Queued && spent > 0 {
			t.Errorf("the shutdown cost an attempt: %s", e.details(p.Key))
		}
	}
	if got[payment.Submitting] > 0 || got[payment.Verifying] > 0 {
		t.Errorf("not recorded: %v", got)
	}
	if got[payment.Queued] == 0 {
		t.Errorf("the shutdown was too late for this test: %v", got)
	}
	if sent := len(all) - got[payment.Queued]; sent > 20+5 { // some may be sent before the signal arrives
		t.Errorf("%d payments were sent after SIGTERM", sent-20)
	}

	e.Worker()
	e.finish()
}

// TestShutdownWhileRedisHangs: a worker ends within WORKER_SHUTDOWN_TIMEOUT although Redis
// does not answer and requests are in flight.
func TestShutdownWhileRedisHangs(t *testing.T) {
	slow(t)
	e := newEnv(t, slowSends(time.Second))
	e.Settings["WORKER_SHUTDOWN_TIMEOUT"], e.Settings["GATEWAY_TIMEOUT"] = "4s", "2s"
	w := e.Worker()
	all := orReview(samples(40, "PAY"))
	e.create(all, "enqueued")
	e.Eventually("requests are in flight", func() bool { return e.gateway.inFlight() > 0 })
	e.server.Pause(t)
	begun := time.Now()
	w.Signal(syscall.SIGTERM)
	code := w.Exit()
	e.server.Resume(t)
	if took := time.Since(begun); code != 0 || took > 20*time.Second { // room for a busy machine; a worker that waits for Redis takes 29 s
		t.Errorf("ended with %d after %s\n%s", code, took, w.Stderr.Tail())
	}
	e.Worker()
	// Redis may execute a claim after its worker has ended. Then nothing was sent, and the
	// payment goes to review.
	e.finish()
}

// TestShutdownDuringPoll: SIGTERM during sixty lookups of two seconds each. Those in flight
// are answered and recorded, no other begins, and the next worker does the rest.
func TestShutdownDuringPoll(t *testing.T) {
	slow(t)
	e := newEnv(t, func(c *gatewaysim.Config) {
		c.Faults = []gatewaysim.FaultRule{
			{Fault: gatewaysim.FaultPending, Operation: gatewaysim.PaydiaPayment},
			{Fault: gatewaysim.FaultSlow, Operation: gatewaysim.PaydiaQuery, Delay: 2 * time.Second},
		}
	})
	w := e.Worker()
	all := of(samples(120, "PAY"), payment.Paydia)
	e.create(all, "enqueued")
	queries := func() int { return e.Sim.Requests(gatewaysim.PaydiaQuery) }
	e.Eventually("the first have been answered", func() bool { return queries() > 16 })
	w.Signal(syscall.SIGTERM)
	begun, before := time.Now(), queries()
	if code := w.Exit(); code != 0 {
		t.Fatalf("worker ended with exit code %d\n%s", code, w.Stderr.Tail())
	}
	t.Logf("ended after %s, %d lookups", time.Since(begun).Round(10*time.Millisecond), queries())
	if n := queries() - before; n > 16 { // some may begin before the signal arrives
		t.Errorf("%d lookups began after SIGTERM", n)
	}
	recorded := 0
	for _, p := range all {
		r := e.read(p.Key)
		recorded += len(r.Attempts) - 1 // one is the submit
	}
	if recorded != queries() {
		t.Errorf("%d lookups recorded of %d", recorded, queries())
	}
	e.Sim.ClearFaults()
	e.Worker()
	e.finish()
}

// TestRollingUpdate: two workers are replaced one after the other under load, as Kubernetes
// does: the new worker is ready before the old one gets SIGTERM. The worker that has sent a
// request records its answer, so no payment has to be looked up when its claim expires.
func TestRollingUpdate(t *testing.T) {
	slow(t)
	e := newEnv(t, slowSends(time.Second))
	e.Settings["WORKER_CONCURRENCY"] = "10"
	old := []*programs.Process{e.Worker(), e.Worker()}
	all := samples(240, "PAY")
	e.create(all, "enqueued")
	for _, w := range old {
		e.Worker()
		e.Eventually("many requests are in flight", func() bool { return e.gateway.inFlight() >= 20 })
		w.Stop()
		if !w.Stderr.Has(`"transaction_id":"`) {
			t.Error("the worker that ended has sent nothing")
		}
	}
	payments := e.finish()
	for _, p := range payments {
		if sent := submits(p); len(sent) != 1 || sent[0].Action != "accept" {
			t.Errorf("not sent and recorded once: %s", e.details(p.Key()))
		}
	}
}
