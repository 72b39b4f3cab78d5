package e2e_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/testenv/programs"
)

// cancel runs enqueue cancel.
func (e *env) cancel(key payment.Key) programs.Result {
	e.Helper()
	return e.enqueue("", "cancel", string(key.Gateway), key.TransactionID)
}

// TestCancel cancels one of two payments before a worker starts.
func TestCancel(t *testing.T) {
	slow(t)
	e := newEnv(t)
	all := samples(2, "PAY")
	e.create(all, "enqueued")
	withdrawn := all[0].Key
	if r := e.enqueue("", "cancel", string(withdrawn.Gateway), withdrawn.TransactionID, "--json"); r.Code != 0 || r.Stderr != "" ||
		object(e, []byte(r.Stdout))["status"] != "cancelled" {
		t.Fatalf("%+v", r)
	}
	if r := e.cancel(withdrawn); r.Code != 0 || r.Stdout != withdrawn.String()+" is cancelled\n" {
		t.Errorf("again: %+v", r)
	}
	if r := e.enqueue(string(all[0].Line), "create"); r.Code != 0 || !strings.Contains(r.Stdout, `"result":"duplicate"`) {
		t.Errorf("created again: %+v", r)
	}
	e.submitted[0].Ends = payment.Cancelled
	e.Worker()
	records := e.finish()
	if len(records[0].Attempts) != 0 || len(e.Sim.Rows()) != 1 {
		t.Errorf("it was sent: %s", e.details(withdrawn))
	}
	r := e.enqueue("", "cancel", string(all[1].Key.Gateway), all[1].Key.TransactionID, "--json")
	if r.Code != 1 || !strings.Contains(r.Stderr, "it cannot be cancelled: it is paid already") || object(e, []byte(r.Stdout))["status"] != "paid" {
		t.Errorf("%+v", r)
	}
}

// TestCancelAfterKill kills a worker around its claim. Only before the claim a payment can be
// cancelled; then another worker does not send it. After the claim it never can.
func TestCancelAfterKill(t *testing.T) {
	slow(t)
	for _, claimed := range []bool{false, true} {
		t.Run(fmt.Sprintf("claimed %t", claimed), func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			all := samples(2, "PAY")[1:]
			key := all[0].Key
			all[0].Ends = payment.Cancelled
			if claimed {
				all[0].Ends = payment.NeedsReview
			}
			var victim *programs.Process
			kill := redistest.NewInterceptor(t, e.server.Addr, claimed, programs.IsClaim(key), func() { victim.Kill() })
			victim = e.Worker("REDIS_URL="+kill.URL(), "GATEWAY_TIMEOUT=1s")
			e.create(all, "enqueued")
			select {
			case <-kill.Done:
			case <-time.After(programs.Timeout):
				t.Fatalf("the worker has not reached this step\n%s", victim.Stderr.Tail())
			}
			r := e.cancel(key)
			if claimed != (r.Code == 1) || claimed != strings.Contains(r.Stderr, "a worker is sending it now, or was lost") {
				t.Errorf("%+v", r)
			}
			e.continueAfterKill(0)
			if r := e.cancel(key); claimed != (r.Code == 1) {
				t.Errorf("in the end: %+v", r)
			}
		})
	}
}

// TestCancelWhileWorkersSend cancels payments while two workers send them: what was answered as
// cancelled is not at a gateway, and everything else is.
func TestCancelWhileWorkersSend(t *testing.T) {
	slow(t)
	e := newEnv(t, slowSends(300*time.Millisecond))
	all := samples(40, "PAY")
	e.StartWorker("WORKER_CONCURRENCY=2")
	e.StartWorker("WORKER_CONCURRENCY=2")
	e.create(all, "enqueued")
	codes := make([]int, len(all))
	var group sync.WaitGroup
	next := make(chan int)
	for range 8 {
		group.Go(func() {
			for i := range next {
				r := e.Run("enqueue", []string{"cancel", string(all[i].Key.Gateway), all[i].Key.TransactionID}, "")
				codes[i] = r.Code
				if r.Code > 1 || r.Code == 1 && !strings.Contains(r.Stderr, "it cannot be cancelled") {
					t.Errorf("%+v", r)
				}
			}
		})
	}
	for i := range all {
		next <- len(all) - 1 - i // the last ones first: the workers begin with the others
	}
	close(next)
	group.Wait()
	n := 0
	for i, code := range codes {
		if code == 0 {
			e.submitted[i].Ends = payment.Cancelled
			n++
		}
	}
	e.finish()
	t.Logf("%d of %d cancelled", n, len(all))
	if n == 0 || n == len(all) {
		t.Error("the workers were too fast, or too slow")
	}
	if len(e.Sim.Rows()) != len(all)-n {
		t.Errorf("%d at the gateways, %d cancelled", len(e.Sim.Rows()), n)
	}
}
