package e2e_test

import (
	"strings"
	"testing"
	"time"

	"terbayar/internal/payment"
	"terbayar/internal/testenv/programs"
)

// TestInteractive: the payment of a customer who waits is sent while a long batch is being sent.
func TestInteractive(t *testing.T) {
	slow(t)
	e := newEnv(t, slowSends(100*time.Millisecond))
	const n = 600
	batch := programs.NewPayments("BATCH", n, time.Hour)
	e.submitted = append(e.submitted, batch...)
	if r := e.enqueue(programs.Input(batch), "create"); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	e.Worker("WORKER_CONCURRENCY=6") // 10 s for the batch
	e.Eventually("the batch is being sent", func() bool { return len(e.Sim.Rows()) >= 20 })
	sent := len(e.Sim.Rows())
	waiting := programs.NewPayments("CUSTOMER", 2, time.Hour)
	e.submitted = append(e.submitted, waiting...)
	input := strings.ReplaceAll(programs.Input(waiting), `{"gateway"`, `{"priority":"interactive","gateway"`)
	if r := e.enqueue(input, "create"); r.Code != 0 || strings.Count(input, "interactive") != 2 {
		t.Fatalf("%+v\n%s", r, input)
	}
	e.Eventually("the customers' payments were sent", func() bool {
		for _, p := range waiting {
			if s := e.read(p.Key).Status; s == payment.Queued || s == payment.Submitting {
				return false
			}
		}
		return true
	})
	if now := len(e.Sim.Rows()); now > n*2/3 {
		t.Errorf("the gateway had %d payments before, and %d of %d when it had those of the customers", sent, now, n+2)
	} else {
		t.Logf("the gateway had %d payments before, and %d with those of the customers", sent, now)
	}
	e.finish()
}
