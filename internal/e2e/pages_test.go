package e2e_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"
)

// get asks a worker for a page and demands a status.
func (s *stage) get(want int, w *process, path string, edits ...func(*http.Request)) string {
	s.Helper()
	status, body := s.page(http.MethodGet, s.site(w)+path, edits...)
	if status != want {
		s.Errorf("%s: %d, want %d: %.200s", path, status, want, body)
	}
	return body
}

// checkWaiting holds the web UI's list of waiting tasks to what it may show, and
// to being for reading only.
func (s *stage) checkWaiting(w *process, waiting []sample) {
	s.Helper()
	const list = "/monitoring/api/queues/amdigipay/pending_tasks"
	var page struct {
		Tasks []struct {
			ID      string `json:"id"`
			Payload string `json:"payload"`
		} `json:"tasks"`
	}
	if err := json.Unmarshal([]byte(s.get(http.StatusOK, w, list+"?size=1000")), &page); err != nil {
		s.Fatal(err)
	}
	want, got := map[string]any{}, map[string]any{}
	for _, p := range waiting {
		want[p.key.TransactionID] = map[string]any{
			"gateway": "amdigipay", "transaction_id": p.key.TransactionID, "amount": float64(p.amount), "attempt": 0.0,
		}
	}
	for _, task := range page.Tasks {
		payload := object(s, []byte(task.Payload))
		id, _ := payload["transaction_id"].(string)
		got[id] = payload
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.Error(diff)
	}
	for _, c := range []struct{ method, path string }{
		{http.MethodDelete, list + "/" + url.PathEscape(page.Tasks[0].ID)},
		{http.MethodDelete, list + ":delete_all"},
		{http.MethodPost, list + ":archive_all"},
		{http.MethodPost, "/monitoring/api/queues/amdigipay:pause"},
		{http.MethodDelete, "/monitoring/api/queues/amdigipay"},
		{http.MethodPost, "/monitoring/api/queues/amdigipay/active_tasks:cancel_all"},
	} {
		if status, body := s.page(c.method, s.site(w)+c.path); status != http.StatusMethodNotAllowed {
			s.Errorf("%s %s: %d %s", c.method, c.path, status, body)
		}
	}
}

// TestPages is the worker's HTTP side.
func TestPages(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	w := s.worker()
	s.create(samples(t, 4, "PAY"), "enqueued")
	s.eventually("a page of metrics with everything on it", 15*time.Second, func() bool {
		metrics := s.get(http.StatusOK, w, "/metrics")
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
	foreign := func(r *http.Request) { r.Host = "evil.example" }
	siti := func(r *http.Request) { r.SetBasicAuth("siti", "correct horse") }
	stranger := func(r *http.Request) { r.SetBasicAuth("siti", "battery staple") }
	if body := s.get(http.StatusOK, w, "/monitoring/"); !strings.Contains(body, "<html") {
		t.Errorf("no page: %.200s", body)
	}
	s.get(http.StatusForbidden, w, "/monitoring/", forwarded)
	s.get(http.StatusForbidden, w, "/monitoring/", foreign)
	s.get(http.StatusForbidden, w, "/monitoring/api/queues", foreign)
	s.get(http.StatusForbidden, w, "/monitoring/", func(r *http.Request) { r.Header.Set("Forwarded", "for=203.0.113.7") })

	hash, err := bcrypt.GenerateFromPassword([]byte("correct horse"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	guarded := s.worker("MONITORING_USERS=budi:" + string(hash) + ",siti:" + string(hash))
	s.get(http.StatusUnauthorized, guarded, "/monitoring/")
	s.get(http.StatusUnauthorized, guarded, "/monitoring/api/queues", stranger)
	s.get(http.StatusOK, guarded, "/monitoring/", siti)
	s.get(http.StatusOK, guarded, "/monitoring/api/queues", siti, forwarded)
	s.get(http.StatusOK, guarded, "/metrics")
	s.stop(guarded)

	s.get(http.StatusOK, w, "/healthz")
	s.get(http.StatusOK, w, "/readyz")
	ready := func(want int) func() bool {
		return func() bool {
			status, _ := s.page(http.MethodGet, s.site(w)+"/readyz")
			return status == want
		}
	}
	s.server.Kill()
	s.eventually("not ready without Redis", 5*time.Second, ready(http.StatusServiceUnavailable))
	s.get(http.StatusOK, w, "/healthz")
	s.get(http.StatusOK, w, "/metrics")
	s.server.Start(t)
	s.eventually("ready again", 10*time.Second, ready(http.StatusOK))
	more := samples(t, 6, "PAY")[4:]
	s.create(more, "enqueued")
	s.await(more, 30*time.Second, sample.ended)
	s.stop(w)
}
