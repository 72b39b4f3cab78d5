package e2e_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"

	"terbayar/internal/testenv/programs"
)

// get requests a page of a worker and requires a status.
func (e *env) get(want int, w *programs.Process, path string, edits ...func(*http.Request)) string {
	e.Helper()
	status, body := e.page(http.MethodGet, w.URL()+path, edits...)
	if status != want {
		e.Errorf("%s: %d, want %d: %.200s", path, status, want, body)
	}
	return body
}

// checkPendingTasks checks what the web UI shows of pending tasks, and that it is read-only.
func (e *env) checkPendingTasks(w *programs.Process, waiting []programs.Payment) {
	e.Helper()
	const list = "/monitoring/api/queues/amdigipay/pending_tasks"
	var page struct {
		Tasks []struct {
			ID      string `json:"id"`
			Payload string `json:"payload"`
		} `json:"tasks"`
	}
	if err := json.Unmarshal([]byte(e.get(http.StatusOK, w, list+"?size=1000")), &page); err != nil {
		e.Fatal(err)
	}
	want, got := map[string]any{}, map[string]any{}
	for _, p := range waiting {
		want[p.Key.TransactionID] = map[string]any{
			"gateway": "amdigipay", "transaction_id": p.Key.TransactionID, "amount": float64(p.Amount), "attempt": 0.0,
		}
	}
	for _, task := range page.Tasks {
		payload := object(e, []byte(task.Payload))
		id, _ := payload["transaction_id"].(string)
		got[id] = payload
	}
	if diff := cmp.Diff(want, got); diff != "" {
		e.Error(diff)
	}
	for _, c := range []struct{ method, path string }{
		{http.MethodDelete, list + "/" + url.PathEscape(page.Tasks[0].ID)},
		{http.MethodDelete, list + ":delete_all"},
		{http.MethodPost, list + ":archive_all"},
		{http.MethodPost, "/monitoring/api/queues/amdigipay:pause"},
		{http.MethodDelete, "/monitoring/api/queues/amdigipay"},
		{http.MethodPost, "/monitoring/api/queues/amdigipay/active_tasks:cancel_all"},
	} {
		if status, body := e.page(c.method, w.URL()+c.path); status != http.StatusMethodNotAllowed {
			e.Errorf("%s %s: %d %s", c.method, c.path, status, body)
		}
	}
}

// TestPages checks the worker's HTTP server.
func TestPages(t *testing.T) {
	slow(t)
	e := newEnv(t)
	w := e.Worker()
	e.create(samples(4, "PAY"), "enqueued")
	e.Eventually("the metrics contain everything", func() bool {
		metrics := e.get(http.StatusOK, w, "/metrics")
		for _, name := range []string{
			`asynq_queue_size{queue="amdigipay"}`, `asynq_tasks_enqueued_total{queue="paydia",state="pending"}`,
			`terbayar_payments{gateway="paydia",status="paid"} 2`, `terbayar_payments{gateway="amdigipay",status="paid"} 2`,
			`terbayar_attempts_total{action="accept",code_class="2xx",gateway="amdigipay",kind="submit"} 2`,
			`terbayar_gateway_request_duration_seconds_count{gateway="paydia",operation="auth-payment",status_class="2xx"} 2`,
			`terbayar_oldest_unknown_age_seconds{gateway="amdigipay"} 0`,
		} {
			if !strings.Contains(metrics, name) {
				return false
			}
		}
		return true
	})

	forwarded := func(r *http.Request) { r.Header.Set("X-Forwarded-For", "203.0.113.7") }
	foreignHost := func(r *http.Request) { r.Host = "evil.example" }
	siti := func(r *http.Request) { r.SetBasicAuth("siti", "correct horse") }
	wrongPassword := func(r *http.Request) { r.SetBasicAuth("siti", "battery staple") }
	if body := e.get(http.StatusOK, w, "/monitoring/"); !strings.Contains(body, "<html") {
		t.Errorf("no page: %.200s", body)
	}
	e.get(http.StatusForbidden, w, "/monitoring/", forwarded)
	e.get(http.StatusForbidden, w, "/monitoring/", foreignHost)
	e.get(http.StatusForbidden, w, "/monitoring/api/queues", foreignHost)
	e.get(http.StatusForbidden, w, "/monitoring/", func(r *http.Request) { r.Header.Set("Forwarded", "for=203.0.113.7") })

	hash, err := bcrypt.GenerateFromPassword([]byte("correct horse"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	guarded := e.Worker("MONITORING_USERS=budi:" + string(hash) + ",siti:" + string(hash))
	e.get(http.StatusUnauthorized, guarded, "/monitoring/")
	e.get(http.StatusUnauthorized, guarded, "/monitoring/api/queues", wrongPassword)
	e.get(http.StatusOK, guarded, "/monitoring/", siti)
	e.get(http.StatusOK, guarded, "/monitoring/api/queues", siti, forwarded)
	e.get(http.StatusOK, guarded, "/metrics")
	guarded.Stop()

	e.get(http.StatusOK, w, "/healthz")
	e.get(http.StatusOK, w, "/readyz")
	ready := func(want int) func() bool {
		return func() bool {
			status, _ := e.page(http.MethodGet, w.URL()+"/readyz")
			return status == want
		}
	}
	e.server.Kill()
	e.Eventually("not ready without Redis", ready(http.StatusServiceUnavailable))
	e.get(http.StatusOK, w, "/healthz")
	e.get(http.StatusOK, w, "/metrics")
	e.server.Start(t)
	e.Eventually("ready again", ready(http.StatusOK))
	more := samples(6, "PAY")[4:]
	e.create(more, "enqueued")
	e.await(more)
	w.Stop()
}
