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
)

// TestPromotedAhead: the node that is promoted has a clock that is ten minutes ahead.
// Every claim would be over there, by its clock: their holders go on for a while, and
// nothing may be sent by others as well.
func TestPromotedAhead(t *testing.T) {
	t.Parallel()
	g := redistest.NewReplicated(t, 1, func(nodes []*redistest.Node) { nodes[1].SetClockAhead(t, 10*time.Minute) })
	s := newStage(t, g.URL(), repeatable, slowly(2*time.Second))
	heard := s.listen()
	s.startReady()
	s.startReady()
	shop := s.newShop("INV", g.URL())
	var open sync.WaitGroup
	open.Go(func() { shop.sell(t.Context(), 60, 300*time.Millisecond) })
	defer open.Wait()
	s.eventually("the load is on", 20*time.Second, func() bool { return s.sent() >= 10 })
	primary := g.Nodes[0]
	if err := g.Failover(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.AwaitPromotion(t, primary)
	g.AwaitReplicas(t, 1)
	open.Wait()
	f := s.find(heard, 90*time.Second, shop)
	f.clean(t)
}

// slowly lets every request that moves money take so long.
func slowly(d time.Duration) func(*gatewaysim.Config) {
	return func(cfg *gatewaysim.Config) {
		for i := range cfg.Faults {
			cfg.Faults[i].Delay = d
		}
	}
}

// aheadWorker builds a worker whose clock is ahead, and returns where it is.
func aheadWorker(t *testing.T, by time.Duration) string {
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
	// Only the reading on the wall is shifted: what was measured stays as long as it was.
	begin := strings.Index(string(text), "func Now() Time {\n")
	at := strings.Index(string(text[max(begin, 0):]), "\tmono -= startNano\n")
	if begin < 0 || at < 0 {
		t.Fatal("time.Now is not written as it was")
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
	// Every package is compiled anew, which takes minutes where others want the cores too.
	build := exec.Command("nice", "go", "build", "-overlay", overlay, "-o", program, "terbayar/cmd/worker")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// TestWorkerAhead: a worker whose clock is ten minutes ahead runs beside one that is
// well, and cannot log in to Paydia. It must neither expire payments early nor take
// running claims for dead, nor put off for others what it cannot ask about.
func TestWorkerAhead(t *testing.T) {
	t.Parallel()
	if os.Getenv("SLOW_TESTS") == "" {
		t.Skip("every package is compiled anew for it: SLOW_TESTS=1 runs it, as CI does")
	}
	program := aheadWorker(t, 10*time.Minute)
	server := redistest.Server(t)
	s := newStage(t, server.URL(), repeatable, slowly(2*time.Second), func(cfg *gatewaysim.Config) {
		cfg.Customers = []gatewaysim.CustomerRule{{Customer: gatewaysim.Customer{Behaviour: gatewaysim.Pays, After: 3 * time.Second, UpTo: 5 * time.Second}}}
	})
	s.badRequests = true // their time-stamps are ten minutes off
	heard := s.listen()
	s.startReady("--expiry-grace", "1s")
	ahead := s.startProgram(program, "--expiry-grace", "1s", "--paydia-client-secret", "wrong")
	s.eventually("the worker that is ahead is ready", 15*time.Second, func() bool { return ahead.log.has("worker is ready") })
	if !ahead.log.has(time.Now().UTC().Add(10*time.Minute).Format("2006-01-02T15:")) && !ahead.log.has(time.Now().UTC().Add(9*time.Minute).Format("2006-01-02T15:")) {
		t.Fatalf("its clock is not ahead: %s", ahead.log.tail())
	}
	// Some of the payments end in five minutes: by the wrong clock they are over.
	shop := s.newShop("INV", server.URL())
	shop.expires = 5 * time.Minute
	shop.sell(t.Context(), 60, 300*time.Millisecond)
	f := s.find(heard, 40*time.Second, shop)
	f.clean(t)
	for _, key := range shop.takenNow() {
		r := s.read(key)
		for _, a := range r.Attempts {
			if a.Kind == payment.KindSubmit && a.Code == "net:unknown" {
				t.Errorf("%s: a claim that was running was taken for dead: %+v", key, r.Attempts)
				break
			}
		}
	}
}

// TestFrozenWorker: a worker stands still between its claim and its request for longer
// than the claim lasts. When it goes on, its request must not leave: others have taken
// the payment for one of unknown outcome.
func TestFrozenWorker(t *testing.T) {
	t.Parallel()
	server := redistest.Server(t)
	s := newStage(t, server.URL(), repeatable)
	heard := s.listen()
	shop := s.newShop("INV", server.URL())
	var frozen *process
	between := newInterceptor(t, server.Addr, `"kind":"submit","code":""`, func() { s.freeze(frozen) })
	frozen = s.startReady("--redis-url", "redis://"+between.addr+"/0")
	shop.sell(t.Context(), 2, time.Millisecond)
	// By then Redis knows the scripts, and nothing else is on its way to it.
	s.eventually("both are paid", 20*time.Second, func() bool {
		n := 0
		for _, key := range shop.takenNow() {
			if s.read(key).Status == payment.Paid {
				n++
			}
		}
		return n == 2
	})
	between.arm()
	shop.sell(t.Context(), 1, time.Millisecond)
	select {
	case <-between.done:
	case <-time.After(20 * time.Second):
		t.Fatal("no claim came by")
	}
	held, _ := namedOrder("INV", 3, time.Hour)
	s.startReady()
	// The claim is over, it was looked up often enough, and a person is asked.
	s.eventually("nobody waits for the frozen worker any more", 40*time.Second, func() bool {
		return s.read(held).Status == payment.NeedsReview
	})
	s.signal(frozen, syscall.SIGCONT)
	shop.sell(t.Context(), 20, time.Millisecond)
	f := s.find(heard, 40*time.Second, shop)
	f.clean(t)
	if rows := s.sim.RowsOf(gatewaysim.Gateway(held.Gateway), held.TransactionID); len(rows) > 0 || s.read(held).Status != payment.NeedsReview {
		t.Errorf("its request left when it went on: %+v, %+v", rows, s.read(held))
	}
}
