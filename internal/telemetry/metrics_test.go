package telemetry

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redishealth"
	"terbayar/internal/version"
)

// statsFunc is a ledger that returns the function's counts.
type statsFunc func(g payment.Gateway) (ledger.Stats, error)

func (f statsFunc) Stats(_ context.Context, g payment.Gateway) (ledger.Stats, error) { return f(g) }

func empty(payment.Gateway) (ledger.Stats, error) { return ledger.Stats{}, nil }

// fit is a Redis that answers and accepts writes.
var fit = health{Up: true, Writable: true}

// health is a constant state of Redis.
type health redishealth.State

func (h health) State() redishealth.State { return redishealth.State(h) }

// newMetrics returns the metrics of the counts and of an empty Redis.
func newMetrics(t *testing.T, stats statsFunc) *Metrics {
	t.Helper()
	return NewMetrics(inspector(t, miniredis.RunT(t).Addr()), stats, fit)
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
	m.ClockSkew(-1500 * time.Millisecond)
	m.Durability("none")
	m.Durability("auto")
	m.ClaimsPaused(true)
	m.PrimaryChanges(2)
	m.PrimaryChanges(3)
	for _, want := range []string{
		`terbayar_attempts_total{action="verify",code_class="5xx",gateway="paydia",kind="submit"} 3`,
		`terbayar_attempts_total{action="accept",code_class="2xx",gateway="amdigipay",kind="lookup"} 1`,
		`terbayar_polls_total{gateway="amdigipay"} 2`,
		`terbayar_polls_total{gateway="paydia"} 0`,
		`terbayar_gateway_circuit_breaker_state{gateway="amdigipay"} 0`,
		`terbayar_gateway_circuit_breaker_state{gateway="paydia"} 2`,
		`terbayar_gateway_paused{gateway="amdigipay"} 1`,
		`terbayar_gateway_paused{gateway="paydia"} 0`,
		`terbayar_gateway_login_failed{gateway="amdigipay"} 0`,
		`terbayar_gateway_login_failed{gateway="paydia"} 1`,
		`terbayar_clock_skew_seconds -1.5`,
		`terbayar_redis_durability{mode="auto"} 1`,
		`terbayar_claims_paused 1`,
		`terbayar_redis_primary_changes_total 3`,
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
		"error:true": "error:true", "net:unsent": "net:unsent", "net:unknown": "net:unknown", "body:unreadable": "body:unreadable", "token:undecryptable": "token:undecryptable",
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

func TestLedgerStats(t *testing.T) {
	m := newMetrics(t, func(g payment.Gateway) (ledger.Stats, error) {
		if g == payment.Paydia {
			return ledger.Stats{}, errors.New("Redis is down")
		}
		return ledger.Stats{
			Counts:        map[payment.Status]int64{payment.Verifying: 2, payment.Paid: 7},
			OldestUnknown: 90 * time.Second, OldestQueued: -time.Hour, // a clock was set back
		}, nil
	})
	page := scrape(t, m)
	for _, want := range []string{
		`terbayar_payments{gateway="amdigipay",status="paid"} 7`,
		`terbayar_payments{gateway="amdigipay",status="verifying"} 2`,
		`terbayar_payments{gateway="amdigipay",status="needs_review"} 0`,
		`terbayar_oldest_unknown_age_seconds{gateway="amdigipay"} 90`,
		`terbayar_oldest_queued_age_seconds{gateway="amdigipay"} 0`,
		`terbayar_polls_total{gateway="paydia"} 0`,
	} {
		if !strings.Contains(page, want+"\n") {
			t.Errorf("no %s in\n%s", want, ours(page))
		}
	}
	for _, name := range []string{"terbayar_payments", "terbayar_oldest_unknown_age_seconds", "terbayar_oldest_queued_age_seconds"} {
		if strings.Contains(page, name+`{gateway="paydia"`) {
			t.Errorf("values of a gateway that cannot be read:\n%s", ours(page))
		}
	}
	if got := testutil.ToFloat64(m.scrapeErrors); got != 1 {
		t.Errorf("%v scrape errors, want 1", got)
	}
}

// TestRedis: the page shows the state of Redis. A Redis that is down is not read.
func TestRedis(t *testing.T) {
	for _, row := range []struct {
		redis  health
		want   string
		read   bool
		errors float64
	}{
		{fit, "terbayar_redis_up 1\nterbayar_redis_writable 1\n", true, 0},
		{health{Up: true, Writable: true, UsedMemory: 50, MaxMemory: 200}, "terbayar_redis_memory_used_ratio 0.25\nterbayar_redis_payments_left 0\nterbayar_redis_up 1\nterbayar_redis_writable 1\n", true, 0},
		{health{Up: true, Full: true, UsedMemory: 300, MaxMemory: 200}, "terbayar_redis_memory_used_ratio 1.5\nterbayar_redis_payments_left 0\nterbayar_redis_up 1\nterbayar_redis_writable 0\n", true, 0},
		{health{}, "terbayar_redis_up 0\nterbayar_redis_writable 0\n", false, 3},
	} {
		var read atomic.Bool
		m := NewMetrics(inspector(t, miniredis.RunT(t).Addr()), statsFunc(func(payment.Gateway) (ledger.Stats, error) {
			read.Store(true)
			return ledger.Stats{}, nil
		}), row.redis)
		page := scrape(t, m)
		var got strings.Builder
		for line := range strings.Lines(page) {
			if strings.HasPrefix(line, "terbayar_redis_") && !strings.HasPrefix(line, "terbayar_redis_primary_changes") {
				got.WriteString(line)
			}
		}
		if got.String() != row.want || read.Load() != row.read || strings.Contains(page, "terbayar_payments{") != row.read {
			t.Errorf("%+v: read %v\n%s", row.redis, read.Load(), ours(page))
		}
		if n := testutil.ToFloat64(m.scrapeErrors); n != row.errors {
			t.Errorf("%+v: %v scrape errors, want %v", row.redis, n, row.errors)
		}
	}
}

// TestPaymentsLeft: the payments of all gateways and statuses count. There is no estimate if
// those of a gateway cannot be read.
func TestPaymentsLeft(t *testing.T) {
	state := health{Up: true, Writable: true, UsedMemory: 2_000_000, MaxMemory: 8_000_000}
	for _, row := range []struct {
		err  error
		want string
	}{
		{nil, "terbayar_redis_payments_left 6000\n"},
		{errors.New("no answer"), ""},
	} {
		m := NewMetrics(inspector(t, miniredis.RunT(t).Addr()), statsFunc(func(g payment.Gateway) (ledger.Stats, error) {
			if g == payment.Paydia {
				return ledger.Stats{Counts: map[payment.Status]int64{payment.Queued: 500, payment.Paid: 500}}, row.err
			}
			return ledger.Stats{Counts: map[payment.Status]int64{payment.Paid: 1000}}, nil
		}), state)
		if page := scrape(t, m); !strings.Contains(page, row.want) || strings.Contains(page, "terbayar_redis_payments_left ") != (row.want != "") {
			t.Errorf("%v: want %q\n%s", row.err, row.want, ours(page))
		}
	}
}

// TestGroups: a group that no longer exists disappears, and a name that is not UTF-8 is
// cleaned.
func TestGroups(t *testing.T) {
	m := newMetrics(t, empty)
	m.EventsRetention(36 * time.Hour)
	m.Group("old", time.Second, true)
	m.ForgetGroups()
	m.Group("books", 90*time.Minute, true)
	m.Group("bad\xff", 0, false)
	page := scrape(t, m)
	for _, want := range []string{
		`terbayar_events_retention_seconds 129600`,
		`terbayar_events_group_lag_seconds{group="books"} 5400`,
		`terbayar_events_group_lag_seconds{group="bad?"} 0`,
		`terbayar_events_group_idle{group="books"} 1`,
		`terbayar_events_group_idle{group="bad?"} 0`,
	} {
		if !strings.Contains(page, want+"\n") {
			t.Errorf("no %s in\n%s", want, ours(page))
		}
	}
	if strings.Contains(page, `group="old"`) {
		t.Errorf("a group that is gone:\n%s", ours(page))
	}
}

// maxScrape is the limit for a scrape while Redis hangs: 20 times scrapeTimeout, for a busy
// machine. Without scrapeTimeout it would take more than 10 s.
const maxScrape = 20 * scrapeTimeout

// TestSlowRedis: a scrape waits only briefly, shows the latest value if it is recent, and
// starts no second read.
func TestSlowRedis(t *testing.T) {
	var reads atomic.Int64
	answers := make(chan ledger.Stats)
	m := newMetrics(t, func(g payment.Gateway) (ledger.Stats, error) {
		if g == payment.Paydia {
			return ledger.Stats{}, nil
		}
		reads.Add(1)
		return <-answers, nil
	})
	show := func(want string) {
		t.Helper()
		start := time.Now()
		page := scrape(t, m)
		if d := time.Since(start); d > maxScrape {
			t.Errorf("took %s", d)
		}
		if !strings.Contains(page, `terbayar_payments{gateway="paydia",status="paid"} 0`) || strings.Contains(page, `gateway="amdigipay",status="paid"`) != (want != "") || !strings.Contains(page, want) {
			t.Errorf("no %q in\n%s", want, ours(page))
		}
	}
	show("")
	show("")
	if n := reads.Load(); n != 1 {
		t.Errorf("%d reads", n)
	}
	answers <- ledger.Stats{Counts: map[payment.Status]int64{payment.Paid: 7}}
	for reads.Load() == 1 { // the value may not be stored yet
		show(`terbayar_payments{gateway="amdigipay",status="paid"} 7`)
	}
	show(`terbayar_payments{gateway="amdigipay",status="paid"} 7`)
	close(answers)
}

// TestQueues: the metrics of the queues have the names that asynqmon expects.
func TestQueues(t *testing.T) {
	addr := miniredis.RunT(t).Addr()
	client := asynq.NewClient(asynq.RedisClientOpt{Addr: addr})
	if _, err := client.Enqueue(asynq.NewTask("t", nil), asynq.Queue("paydia")); err != nil {
		t.Fatal(err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	m := NewMetrics(inspector(t, addr), statsFunc(empty), fit)
	for range 2 { // a scrape changes nothing
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

// TestQueuesWithoutRedis: if Redis refuses connections, or accepts them and never answers, a
// scrape is answered in time, without the queues.
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
		m := NewMetrics(inspector(t, addr), statsFunc(empty), fit)
		start := time.Now()
		page := scrape(t, m)
		if d := time.Since(start); d > maxScrape {
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

// ours returns the lines of Terbayar's own metrics.
func ours(page string) string {
	var lines []string
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "terbayar_") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}
