package e2e_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/payment"
)

// TestLimits: attempts, or the time for them, run out. The payment is in needs_review,
// and why is said in words, in its status, in its event and in an error of the log.
func TestLimits(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(c *gatewaysim.Config) {
		c.Faults = []gatewaysim.FaultRule{
			{Fault: gatewaysim.FaultBusy, Operation: gatewaysim.AMCreate, Delay: time.Second},
			{Fault: gatewaysim.FaultLostAfter, Operation: gatewaysim.PaydiaPayment},
			{Fault: gatewaysim.FaultHTMLBefore, Operation: gatewaysim.PaydiaQuery, Status: 404},
		}
	})
	s.env["RETRY_POLICY_FILE"] = s.file("limits.yaml", `gateways:
  amdigipay:
    rules:
      - {code: "http:429", action: retry, backoff: {type: constant, base: 100ms}, max_attempts: 2}
  paydia:
    rules:
      - {code: "net:unknown", action: verify, backoff: {type: constant, base: 500ms}, max_elapsed: 2s}
`)
	w := s.worker()
	all := samples(t, 2, "PAY")
	s.create(all, "enqueued")
	held := s.await(all, 40*time.Second, func(_ sample, at *payment.Payment, _ []gatewaysim.Row) bool {
		return at.Status == payment.NeedsReview
	})
	s.checkEvents(held)
	logged := map[string]string{} // reasons by transaction id, of the errors
	for line := range strings.Lines(w.stderr.String()) {
		var e struct {
			Level, Msg, Status, Reason string
			ID                         string `json:"transaction_id"`
		}
		if json.Unmarshal([]byte(line), &e) == nil && e.Level == "ERROR" && (e.Msg == "submit needs review" || e.Msg == "lookup needs review") && e.Status == "needs_review" {
			logged[e.ID] = e.Reason
		}
	}
	for _, p := range held {
		want := map[payment.Gateway]string{payment.AMDigiPay: "given up after 2 submits", payment.Paydia: "lookups over"}[p.Gateway]
		if !strings.Contains(p.Reason, want) || logged[p.TransactionID] != p.Reason {
			t.Errorf("reason %q, in the log %q; want %q", p.Reason, logged[p.TransactionID], want)
		}
		status := s.enqueue("", "status", string(p.Gateway), p.TransactionID)
		words := strings.Join(strings.Fields(status.stdout), " ") // the table breaks lines
		if !strings.Contains(words, p.Reason) {
			t.Errorf("%q is not in %s", p.Reason, status.stdout)
		}
	}
}

// TestTimeoutsThatContradict: what a submit may take does not fit into its task.
func TestTimeoutsThatContradict(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	r := s.run("worker", nil, "", "GATEWAY_TIMEOUT=3m", "WORKER_SHUTDOWN_TIMEOUT=4m")
	const want = "GATEWAY_TIMEOUT: 3m0s is too long: to log in, to send and to record may take 6m18s, and a task has 5m0s"
	if r.code != 2 || !strings.Contains(r.stderr, want) {
		t.Errorf("%d %s, want %s", r.code, r.stderr, want)
	}
}
