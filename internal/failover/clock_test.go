package failover_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/testenv/programs"
)

// TestPromotedAhead: the clock of the node that is promoted is ten minutes ahead. By its
// clock every claim has expired, while the workers that hold the claims continue for a while:
// nothing may be sent by other workers as well.
func TestPromotedAhead(t *testing.T) {
	slow(t)
	g := redistest.NewReplicated(t, 1, func(nodes []*redistest.Node) { nodes[1].SetClockAhead(t, 10*time.Minute) })
	e := newEnv(t, g.URL(), sendsFor(2*time.Second))
	e.failover = true
	e.Worker()
	e.Worker()
	orders := e.NewOrderSystem()
	var submitting sync.WaitGroup
	submitting.Go(func() { orders.SubmitSlowly(t.Context(), invoices(60), 300*time.Millisecond) })
	defer submitting.Wait()
	e.awaitLoad(10)
	primary := g.Nodes[0]
	if err := g.Failover(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.AwaitPromotion(t, primary)
	g.AwaitReplicas(t, 1)
	submitting.Wait()
	e.requireClean(orders)
}

// buildAheadWorker builds a worker whose clock is ahead, and returns its path.
func buildAheadWorker(t *testing.T, by time.Duration) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	// Only the wall clock is shifted; the monotonic clock stays as it is.
	begin := strings.Index(string(text), "func Now() Time {\n")
	at := strings.Index(string(text[max(begin, 0):]), "\tmono -= startNano\n")
	if begin < 0 || at < 0 {
		t.Fatal("time.Now has changed: this test has to be adapted to it")
	}
	shifted := string(text[:begin+at]) + fmt.Sprintf("\tsec += %d\n", int(by.Seconds())) + string(text[begin+at:])
	dir := t.TempDir()
	ours, overlay := filepath.Join(dir, "time.go"), filepath.Join(dir, "overlay.json")
	for name, content := range map[string]string{ours: shifted, overlay: fmt.Sprintf(`{"Replace":{%q:%q}}`, source, ours)} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(dir, "worker")
	// The first build compiles every package; nice gives the other tests priority.
	build := exec.Command("nice", "go", "build", "-overlay", overlay, "-o", program, "terbayar/cmd/worker")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// TestWorkerAhead: a worker whose clock is ten minutes ahead, and whose login at Paydia is
// refused, runs beside a correct one. It must not expire payments early, must not treat
// running claims as expired, and must not delay for the other worker the payments that it
// cannot look up.
func TestWorkerAhead(t *testing.T) {
	slow(t)
	program := buildAheadWorker(t, 10*time.Minute)
	server := redistest.Server(t)
	e := newEnv(t, server.URL(), sendsFor(2*time.Second), func(cfg *gatewaysim.Config) {
		cfg.Customers = []gatewaysim.CustomerRule{{Customer: gatewaysim.Customer{Behaviour: gatewaysim.Pays, After: 3 * time.Second, UpTo: 5 * time.Second}}}
	})
	e.malformedRequests = true // the timestamps of the worker ahead are wrong
	e.Worker()
	ahead := e.WorkerAt(program, "PAYDIA_CLIENT_SECRET=wrong")
	if now := time.Now().UTC().Add(10 * time.Minute); !ahead.Stderr.Has(now.Format("2006-01-02T15:")) && !ahead.Stderr.Has(now.Add(-time.Minute).Format("2006-01-02T15:")) {
		t.Fatalf("its clock is not ahead: %s", ahead.Stderr.Tail())
	}
	// By the wrong clock these payments have expired when they are submitted.
	payments := programs.NewPayments("INV", 60, 5*time.Minute)
	orders := e.NewOrderSystem()
	orders.SubmitSlowly(t.Context(), payments, 300*time.Millisecond)
	e.requireClean(orders)
	for _, key := range orders.Acknowledged() {
		for _, a := range e.read(key).Attempts {
			if a.Kind == payment.KindSubmit && a.Code == "net:unknown" {
				t.Errorf("%s: a running claim was treated as expired: %+v", key, e.read(key).Attempts)
				break
			}
		}
	}
}

// TestFrozenWorker: a worker is frozen between its claim and its request until the claim has
// expired and other workers have looked the payment up. When it continues it must not send
// the request.
func TestFrozenWorker(t *testing.T) {
	slow(t)
	server := redistest.Server(t)
	e := newEnv(t, server.URL())
	all := invoices(23)
	before, held, after := all[:2], all[2], all[3:]
	orders := e.NewOrderSystem()
	var frozen *programs.Process
	claim := redistest.NewInterceptor(t, server.Addr, true, programs.IsClaim(held.Key), func() { frozen.Freeze() })
	frozen = e.Worker("REDIS_URL=" + claim.URL())
	orders.Submit(t.Context(), before)
	e.AwaitEnd(orders.Submitted(), programs.Timeout) // so the ledger has a lowest possible id for later payments
	orders.Submit(t.Context(), []programs.Payment{held})
	select {
	case <-claim.Done:
	case <-time.After(programs.Timeout):
		t.Fatal("the payment was not claimed")
	}
	e.Worker()
	e.Eventually("the claim has expired and lookups have not found the payment", func() bool {
		return e.read(held.Key).Status == payment.NeedsReview
	})
	frozen.Signal(syscall.SIGCONT)
	orders.Submit(t.Context(), after)
	e.requireClean(orders)
	rows := e.Sim.RowsOf(gatewaysim.Gateway(held.Key.Gateway), held.Key.TransactionID)
	if r := e.read(held.Key); len(rows) > 0 || r.Status != payment.NeedsReview {
		t.Errorf("it sent the request when it continued: %+v, %+v", rows, r)
	}
}
