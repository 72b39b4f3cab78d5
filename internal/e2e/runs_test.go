package e2e_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/payment"
	"terbayar/internal/testenv/verify"
)

// TestSmoke is the short test of the programs: one worker, twenty payments.
func TestSmoke(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	w := e.Worker()
	all := samples(20, "PAY", "CANCEL", "REFUSE")
	e.create(all, "enqueued")
	e.create(all, "duplicate")
	payments := e.finish()
	e.checkStatus(payments[0])
	e.checkStatus(payments[1])
	e.noSecrets()
	w.Stop()
}

// TestMainJob: 300 payments of every kind, submitted twice, two workers.
func TestMainJob(t *testing.T) {
	slow(t)
	e := newEnv(t)
	follower := e.Start("enqueue", []string{"events", "--follow"})
	first := e.Worker()
	e.Worker()

	all := samples(300)
	e.create(all, "enqueued")
	e.create(all, "duplicate")
	e.noSecrets() // while payments are in the queues
	payments := e.finish()
	for _, p := range payments[:30] { // every kind at both gateways
		e.checkStatus(p)
	}
	if !first.Stderr.Has(`"transaction_id":"`) {
		t.Error("the log contains no payment")
	}
	e.noSecrets()
	for _, w := range e.Workers() {
		w.Stop()
	}
	stored := e.enqueue("", "events").Stdout
	e.Eventually("the follower has received every event", func() bool { return follower.Stdout.String() == stored })
	follower.Signal(os.Interrupt)
	if code := follower.Exit(); code != 0 {
		t.Errorf("enqueue events --follow ended with %d: %s", code, follower.Stderr.String())
	}
	_, rest, _ := strings.Cut(stored, "\n")
	line, _, _ := strings.Cut(rest, "\n")
	second, err := verify.ParseEvent([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	if from := e.enqueue("", "events", "--from", second.ID).Stdout; from != rest {
		t.Error("events --from ID does not begin there")
	}
}

// TestMisbehavingGateways: three requests in ten meet a fault, or for a while all of them,
// including lookups and logins. No status is wrong, there is no duplicate charge, and no payment
// runs out of attempts.
func TestMisbehavingGateways(t *testing.T) {
	slow(t)
	for _, c := range []struct {
		name  string
		seed  uint64
		share float64
		lasts time.Duration // 0: to the end
	}{
		{"3 in 10, seed 1", 1, 0.3, 0},
		{"3 in 10, seed 2", 2, 0.3, 0},
		{"all for 5 s", 3, 1, 5 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, func(config *gatewaysim.Config) {
				config.Seed = c.seed
				config.AM.Duplicates = gatewaysim.DuplicateSecond // a second request would be a second payment
			})
			e.gatewaysFail = true
			e.Settings["GATEWAY_TIMEOUT"], e.Settings["GATEWAY_BREAKER_PAUSE"] = "2s", "1s"
			e.Worker()
			e.Worker()
			all := orReview(samples(60, "PAY", "NEVER", "CANCEL", "FAIL", "REFUSE"))
			e.create(all[:2], "enqueued")
			e.await(all[:2]) // both workers have logged in: without a login nothing is sent
			e.misbehave(c.share)
			e.create(all[2:], "enqueued")
			e.noSecrets() // while errors are in the queues
			if c.lasts > 0 {
				<-time.After(c.lasts)
				e.Sim.ClearFaults()
			}
			payments := e.finish()
			e.noSecrets()
			// How many payments are in manual review depends on the machine: a submit that times
			// out because the machine is slow is one more fault. That each of them is rightly
			// there does not.
			reviews := 0
			rows := verify.RowsByPayment(e.Sim.Rows())
			for _, p := range payments {
				if p.Status != payment.NeedsReview {
					continue
				}
				reviews++
				if len(rows[p.Key()]) > 0 || !strings.Contains(p.Reason, "the gateway knew no such payment") {
					t.Errorf("should not be in manual review: %s", e.details(p.Key()))
				}
			}
			t.Logf("%d of %d payments are in manual review; faults: %v", reviews, len(all), e.Sim.Summary().Faults)
		})
	}
}

// misbehave makes a share of all requests meet a fault, every fault equally often.
func (e *env) misbehave(share float64) {
	for _, rule := range gatewaysim.EvenFaults(share) {
		switch rule.Fault {
		case gatewaysim.FaultLateLost, gatewaysim.FaultLate500:
			rule.Delay = 2 * time.Second // shorter than the policy's settle
		case gatewaysim.FaultSlow:
			rule.Delay = 3 * time.Second // longer than the gateway timeout
		case gatewaysim.FaultBusy:
			rule.Delay = time.Second
		default:
		}
		e.Sim.Inject(rule)
	}
}

// slowSends delays every answer to a submit, so that many are in flight at once.
func slowSends(delay time.Duration) func(*gatewaysim.Config) {
	return func(c *gatewaysim.Config) {
		c.AM.Duplicates = gatewaysim.DuplicateSecond
		for _, op := range []gatewaysim.Operation{gatewaysim.AMCreate, gatewaysim.PaydiaPayment} {
			c.Faults = append(c.Faults, gatewaysim.FaultRule{Fault: gatewaysim.FaultSlow, Operation: op, Delay: delay})
		}
	}
}

// TestKill: one of two workers is killed under load and replaced. The payments in flight are
// looked up and not sent again.
func TestKill(t *testing.T) {
	slow(t)
	e := newEnv(t, slowSends(2*time.Second))
	e.Settings["WORKER_CONCURRENCY"] = "10"
	victim := e.Worker()
	e.Worker()
	all := samples(120, "PAY", "CANCEL", "FAIL")
	e.create(all, "enqueued")
	// All slots of both workers are in use at both gateways, so no payment is between its
	// dequeue and its claim, where it would have to wait for asynq after the kill.
	e.Eventually("all slots are in use", func() bool { return e.gateway.inFlight() == 40 })
	victim.Kill()
	e.Worker()
	payments := e.finish()
	lookedUp := 0
	for _, p := range payments {
		if p.Attempts[0].Code == "net:unknown" {
			lookedUp++
		}
		if n := len(submits(p)); n != 1 {
			t.Errorf("%d submits: %s", n, e.details(p.Key()))
		}
	}
	if lookedUp == 0 {
		t.Error("no payment had to be looked up: none was in flight at the kill")
	}
	t.Logf("%d payments were in flight at the kill", lookedUp)
}
