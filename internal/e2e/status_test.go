package e2e_test

import (
	"encoding/json"
	"regexp"
	"strings"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/payment"
)

var digits = regexp.MustCompile(`^[0-9]{1,36}$`)

// checkStatus compares "enqueue status --json" with docs/interface.md and the ledger.
func (e *env) checkStatus(p *payment.Payment) {
	e.Helper()
	r := e.enqueue("", "status", string(p.Gateway), p.TransactionID, "--json")
	if r.Code != 0 || strings.Count(r.Stdout, "\n") != 1 {
		e.Fatalf("enqueue status %s: %d %s%s", p.Key(), r.Code, r.Stdout, r.Stderr)
	}
	got := object(e, []byte(r.Stdout))
	requireMembers(e, got, "gateway", "transaction_id", "status", "gateway_status", "gateway_reference", "amount",
		"created_at", "updated_at", "attempts")
	attempts, _ := got["attempts"].([]any)
	if len(attempts) == 0 {
		e.Errorf("%s has no attempts: %s", p.Key(), r.Stdout)
	}
	for _, a := range attempts {
		attempt, _ := a.(map[string]any)
		requireMembers(e, attempt, "at", "kind", "code", "http_status", "action", "duration_ms")
		if id, _ := attempt["external_id"].(string); (p.Gateway == payment.Paydia) != digits.MatchString(id) {
			e.Errorf("%s: external_id %q", p.Key(), id)
		}
	}
	text, err := json.Marshal(p)
	if err != nil {
		e.Fatal(err)
	}
	want := object(e, text)
	delete(want, "next_at") // it moves with every lookup
	delete(got, "next_at")
	if diff := cmp.Diff(want, got); diff != "" {
		e.Error(diff)
	}
	if human := e.enqueue("", "status", string(p.Gateway), p.TransactionID); human.Code != 0 || !strings.Contains(human.Stdout, string(p.Status)) {
		e.Errorf("enqueue status: %d %s%s", human.Code, human.Stdout, human.Stderr)
	}
}

func requireMembers(e *env, o map[string]any, names ...string) {
	e.Helper()
	for _, name := range names {
		if _, ok := o[name]; !ok {
			e.Errorf("%s is missing in %v", name, o)
		}
	}
}

func object(e *env, text []byte) map[string]any {
	e.Helper()
	var o map[string]any
	if err := json.Unmarshal(text, &o); err != nil {
		e.Fatal(err)
	}
	return o
}
