package telemetry

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"terbayar/internal/payment"
	"terbayar/internal/version"
)

// census is a ledger that tells what the function says.
type census func(g payment.Gateway) (map[payment.Status]int64, time.Time, error)

func (c census) Census(_ context.Context, g payment.Gateway) (map[payment.Status]int64, time.Time, error) {
	return c(g)
}

func empty(payment.Gateway) (map[payment.Status]int64, time.Time, error) {
	return nil, time.Time{}, nil
}

// newMetrics has the queues of an empty Redis.
func newMetrics(t *testing.T, c census) *Metrics {
	t.Helper()
	return NewMetrics(inspector(t, miniredis.RunT(t).Addr()), c)
}

func inspector(t *testing.T, addr string) *asynq.Inspector {
	t.Helper()
	i := asynq.NewInspector(asynq.RedisClientOpt{Addr: addr})
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	})
	return i
}

func TestLint(t *testing.T) {
	m := newMetrics(t, empty)
	m.Attempt(payment.Paydia, payment.Attempt{Kind: payment.KindSubmit, Code: "2006300", Action: "accept"})
	m.latency.WithLabelValues("paydia", "auth-payment", "2xx").Observe(1)
	problems, err := testutil.GatherAndLint(m.registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestCounters(t *testing.T) {
	m := newMetrics(t, empty)
	for _, code := range []string{"5006301", "http:503", "5046300"} {
		m.Attempt(payment.Paydia, payment.Attempt{Kind: payment.KindSubmit, Code: code, Action: "verify"})
	}
	m.Attempt(payment.AMDigiPay, payment.Attempt{Kind: payment.KindLookup, Code: "http:200", Action: "accept"})
	m.Poll(payment.AMDigiPay)
	m.Poll(payment.AMDigiPay)
	m.Breaker(payment.Paydia, 2)
	m.Paused(payment.AMDigiPay, true)
	m.LoginFailed(payment.Paydia, true)
	for _, want := range []string{
		`terbayar_attempts_total{action="verify",code_class="5xx",gateway="paydia",kind="submit"} 3`,
		`terbayar_attempts_total{action="accept",code_class="2xx",gateway="amdigipay",kind="lookup"} 1`,
		`terbayar_polls_total{gateway="amdigipay"} 2`,
		`terbayar_polls_total{gateway="paydia"} 0`,
		`terbayar_gateway_breaker_state{gateway="amdigipay"} 0`,
		`terbayar_gateway_breaker_state{gateway="paydia"} 2`,
		`terbayar_gateway_paused{gateway="amdigipay"} 1`,
		`terbayar_gateway_paused{gateway="paydia"} 0`,
		`terbayar_gateway_login_failed{gateway="amdigipay"} 0`,
		`terbayar_gateway_login_failed{gateway="paydia"} 1`,
		`terbayar_scrape_errors_total 0`,
		`terbayar_build_info{commit="` + version.Commit() + `",goversion="` + runtime.Version() + `",version="` + version.Release + `"} 1`,
	} {
		if page := scrape(t, m); !strings.Contains(page, want+"\n") {
			t.Errorf("no %s in\n%s", want, ours(page))
		}
	}
	if page := scrape(t, m); !strings.Contains(page, "go_goroutines") || !strings.Contains(page, "process_cpu_seconds_total") {
		t.Error("no runtime metrics")
	}
}

func TestCodeClass(t *testing.T) {
	for code, want := range map[string]string{
		"2006300": "2xx", "4016301": "4xx", "http:302": "3xx", "http:100": "1xx", "http:599": "5xx",
		"error:true": "error:true", "net:unsent": "net:unsent", "net:unknown": "net:unknown", "body:unreadable": "body:unreadable",
		"": "other", "200": "other", "20063": "other", "http:999": "other", "9006300": "other", "INV-1": "other", "20063001": "other",
	} {
		if got := codeClass(code); got != want {
			t.Errorf("%q: %s, want %s", code, got, want)
		}
	}
}

func TestOperation(t *testing.T) {
	for path, want := range map[string]string{
		"/api/login":                                "login",
		"/api/payment/transaction":                  "create-transaction",
		"/api/payment/list-transaction":             "list-transaction",
		"/api/payment/detail-transaction/1234":      "detail-transaction",
		"/snap/v1.0/access-token/b2b":               "access-token",
		"/snap/v1.0/auth/payment":                   "auth-payment",
		"/snap/v1.0/auth/query":                     "payment-query",
		"/auth/query":                               "payment-query",
		"/api/payment/detail-transaction/1234/more": "other",
		"/api/payment/transaction/INV-1":            "other",
		"/":                                         "other",
		"":                                          "other",
		"/snap/v1.0/auth/capture":                   "other",
	} {
		if got := operation(path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

func TestTransport(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/login" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	m := newMetrics(t, empty)
	client := &http.Client{Transport: m.Transport(payment.AMDigiPay, http.DefaultTransport)}
	send := func(path string) error {
		res, err := client.Get(server.URL + path)
		if err == nil {
			res.Body.Close()
		}
		return err
	}
	for _, path := range []string{"/api/login", "/api/payment/transaction", "/api/payment/detail-transaction/1", "/api/payment/detail-transaction/2"} {
		if err := send(path); err != nil {
			t.Fatal(err)
		}
	}
	server.Close()
	if send("/api/login") == nil {
		t.Fatal("a closed server answered")
	}
	page := scrape(t, m)
	const name = "terbayar_gateway_request_duration_seconds_count"
	for _, want := range []string{
		name + `{gateway="amdigipay",operation="login",status_class="4xx"} 1`,
		name + `{gateway="amdigipay",operation="login",status_class="error"} 1`,
		name + `{gateway="amdigipay",operation="create-transaction",status_class="2xx"} 1`,
		name + `{gateway="amdigipay",operation="detail-transaction",status_class="2xx"} 2`,
	} {
		if !strings.Contains(page, want+"\n") {
			t.Errorf("no %s in\n%s", want, ours(page))
		}
	}
}

func TestCensus(t *testing.T) {
	begun := time.Now()
	m := newMetrics(t, func(g payment.Gateway) (map[payment.Status]int64, time.Time, error) {
		if g == payment.Paydia {
			return nil, time.Time{}, errors.New("Redis is away")
		}
		return map[payment.Status]int64{payment.Verifying: 2, payment.Paid: 7}, begun.Add(-90 * time.Second), nil
	})
	page := scrape(t, m)
	for _, want := range []string{
		`terbayar_payments{gateway="amdigipay",status="paid"} 7`,
		`terbayar_payments{gateway="amdigipay",status="verifying"} 2`,
		`terbayar_payments{gateway="amdigipay",status="needs_review"} 0`,
		`terbayar_polls_total{gateway="paydia"} 0`,
	} {
		if !strings.Contains(page, want+"\n") {
			t.Errorf("no %s in\n%s", want, ours(page))
		}
	}
	_, rest, _ := strings.Cut(page, `terbayar_oldest_unknown_age_seconds{gateway="amdigipay"} `)
	word, _, _ := strings.Cut(rest, "\n")
	if age, err := strconv.ParseFloat(word, 64); err != nil || age < 90 || age > 90+time.Since(begun).Seconds() {
		t.Errorf("age %q: %v", word, err)
	}
	if strings.Contains(page, `terbayar_payments{gateway="paydia"`) || strings.Contains(page, `terbayar_oldest_unknown_age_seconds{gateway="paydia"`) {
		t.Errorf("a census that failed is shown:\n%s", ours(page))
	}
	if got := testutil.ToFloat64(m.scrapeErrors); got != 1 {
		t.Errorf("%v scrape errors, want 1", got)
	}
}

// The age of nothing is 0, and a clock that was set back makes no negative age.
func TestOldestUnknownIsNeverNegative(t *testing.T) {
	m := newMetrics(t, func(g payment.Gateway) (map[payment.Status]int64, time.Time, error) {
		if g == payment.Paydia {
			return nil, time.Time{}, nil
		}
		return nil, time.Now().Add(time.Hour), nil
	})
	page := scrape(t, m)
	for _, g := range payment.Gateways() {
		if want := `terbayar_oldest_unknown_age_seconds{gateway="` + string(g) + `"} 0`; !strings.Contains(page, want+"\n") {
			t.Errorf("no %s in\n%s", want, ours(page))
		}
	}
}

// The names are those that asynqmon expects.
func TestQueues(t *testing.T) {
	addr := miniredis.RunT(t).Addr()
	client := asynq.NewClient(asynq.RedisClientOpt{Addr: addr})
	if _, err := client.Enqueue(asynq.NewTask("t", nil), asynq.Queue("paydia")); err != nil {
		t.Fatal(err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	m := NewMetrics(inspector(t, addr), census(empty))
	for range 2 { // twice: nothing is used up or registered by a scrape
		page := scrape(t, m)
		for _, want := range []string{
			`asynq_tasks_enqueued_total{queue="paydia",state="pending"} 1`,
			`asynq_queue_size{queue="paydia"} 1`,
			`terbayar_scrape_errors_total 0`,
		} {
			if !strings.Contains(page, want+"\n") {
				t.Errorf("no %s in\n%s", want, page)
			}
		}
	}
}

// Redis that refuses, and Redis that takes the connection and says nothing: the
// page comes, in time, without the queues.
func TestQueuesWithoutRedis(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{silent.Addr().String(), closed.Addr().String()} {
		m := NewMetrics(inspector(t, addr), census(empty))
		begun := time.Now()
		page := scrape(t, m)
		if d := time.Since(begun); d > 2*scrapeTimeout {
			t.Errorf("took %s", d)
		}
		if strings.Contains(page, "asynq_queue_size") || !strings.Contains(page, "terbayar_payments{") {
			t.Error(page)
		}
		if got := testutil.ToFloat64(m.scrapeErrors); got != 1 {
			t.Errorf("%v scrape errors, want 1", got)
		}
	}
}

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	server := httptest.NewServer(m.Handler())
	defer server.Close()
	res, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatal(res.Status, err)
	}
	return string(body)
}

// ours is the part of a page that is about payments.
func ours(page string) string {
	var lines []string
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "terbayar_") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}
