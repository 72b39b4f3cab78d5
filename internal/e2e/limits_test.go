package e2e_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/payment"
)

// TestLimits: attempts, or the time for them, run out. The payment needs review, and its
// status, its event and the log contain the reason.
func TestLimits(t *testing.T) {
	slow(t)
	e := newEnv(t, func(c *gatewaysim.Config) {
		c.Faults = []gatewaysim.FaultRule{
			{Fault: gatewaysim.FaultBusy, Operation: gatewaysim.AMCreate, Delay: time.Second},
			{Fault: gatewaysim.FaultLostAfter, Operation: gatewaysim.PaydiaPayment},
			{Fault: gatewaysim.FaultHTMLBefore, Operation: gatewaysim.PaydiaQuery, Status: 404},
		}
	})
	e.Settings["RETRY_POLICY_FILE"] = e.File("limits.yaml", `gateways:
  amdigipay:
    rules:
      - {code: "http:429", action: retry, backoff: {type: constant, base: 100ms}, max_attempts: 2}
  paydia:
    rules:
      - {code: "net:unknown", action: verify, backoff: {type: constant, base: 500ms}, max_elapsed: 2s}
`)
	w := e.Worker()
	e.gatewaysFail = true
	all := samples(2, "PAY")
	for i := range all {
		all[i].Ends = payment.NeedsReview
	}
	e.create(all, "enqueued")
	reviewed := e.finish()
	logged := map[string]string{} // reasons by transaction id, of the errors
	for line := range strings.Lines(w.Stderr.String()) {
		var entry struct {
			Level, Status, Reason string
			ID                    string `json:"transaction_id"`
		}
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Level == "ERROR" && entry.Status == "needs_review" {
			logged[entry.ID] = entry.Reason
		}
	}
	for _, p := range reviewed {
		want := map[payment.Gateway]string{payment.AMDigiPay: "given up after 2 submits", payment.Paydia: "lookups over"}[p.Gateway]
		if !strings.Contains(p.Reason, want) || logged[p.TransactionID] != p.Reason {
			t.Errorf("reason %q, in the log %q; want %q", p.Reason, logged[p.TransactionID], want)
		}
		status := e.enqueue("", "status", string(p.Gateway), p.TransactionID)
		words := strings.Join(strings.Fields(status.Stdout), " ") // the table breaks lines
		if !strings.Contains(words, p.Reason) {
			t.Errorf("%q is not in %s", p.Reason, status.Stdout)
		}
	}
}

// TestContradictingTimeouts: a worker rejects settings with which a submit may take longer
// than its task.
func TestContradictingTimeouts(t *testing.T) {
	slow(t)
	e := newEnv(t)
	r := e.Run("worker", nil, "", "GATEWAY_TIMEOUT=3m", "WORKER_SHUTDOWN_TIMEOUT=4m")
	const want = "GATEWAY_TIMEOUT: 3m0s is too long: to log in, to send and to record may take 6m18s, and a task has 5m0s"
	if r.Code != 2 || !strings.Contains(r.Stderr, want) {
		t.Errorf("%d %s, want %s", r.Code, r.Stderr, want)
	}
}
