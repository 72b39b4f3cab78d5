package telemetry

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"terbayar/internal/payment"
	"terbayar/internal/retrypolicy"
	"terbayar/internal/version"
)

// Metrics are the worker's metrics, in a registry of their own. No label takes
// its values from outside without a bound: neither ids nor codes become series.
type Metrics struct {
	registry     *prometheus.Registry
	attempts     *prometheus.CounterVec
	polls        *prometheus.CounterVec
	latency      *prometheus.HistogramVec
	breakers     *prometheus.GaugeVec
	unreadable   *prometheus.CounterVec
	paused       *prometheus.GaugeVec
	loginFailed  *prometheus.GaugeVec
	clockSkew    prometheus.Gauge
	durability   *prometheus.GaugeVec
	claimsPaused prometheus.Gauge

	primaryChanges prometheus.Gauge
	scrapeErrors   prometheus.Counter
}

// NewMetrics makes the metrics: those the worker counts, and those read at every
// scrape from asynq's queues, the ledger, the Go runtime and the process. What
// cannot be read is left out of that scrape, and counted in
// terbayar_scrape_errors_total. A scrape is answered at once, whatever Redis does.
// Nothing is asked of Redis before the first one.
func NewMetrics(inspector *asynq.Inspector, ledger LedgerStats, redis Redis) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "terbayar_attempts_total", Help: "Attempts at a gateway, by what was answered and what followed.",
		}, []string{"gateway", "kind", "code_class", "action"}),
		polls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "terbayar_polls_total", Help: "Status polls; the requests they made are those of the look-ups' operations.",
		}, []string{"gateway"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "terbayar_gateway_request_duration_seconds",
			Help: "Time from a request to the head of its answer, or to its failure (status_class error).",
			// AM takes 5 to 7 s to create a payment (gateways.md 1.4).
			Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 7.5, 10, 15, 30},
		}, []string{"gateway", "operation", "status_class"}),
		breakers: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "terbayar_gateway_breaker_state", Help: "Circuit breaker before a gateway in this worker: 0 closed, 1 half-open, 2 open.",
		}, []string{"gateway"}),
		unreadable: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "terbayar_unreadable_records_total", Help: "Times that a record that cannot be read, or is of another version, was met and put off.",
		}, []string{"gateway"}),
		paused: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "terbayar_gateway_paused", Help: "1 while a gateway is paused because it refuses one payment after the other in the same words; else 0.",
		}, []string{"gateway"}),
		loginFailed: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "terbayar_gateway_login_failed", Help: "1 while this worker cannot log in to a gateway; else 0.",
		}, []string{"gateway"}),
		clockSkew: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "terbayar_clock_skew_seconds", Help: "How far this worker's clock is ahead of that of Redis; negative: behind.",
		}),
		durability: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "terbayar_redis_durability", Help: "1 for the value of REDIS_DURABILITY that this worker runs with.",
		}, []string{"mode"}),
		primaryChanges: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "terbayar_redis_primary_changes", Help: "How often this worker has met another primary of Redis, or one that was restarted, since its start.",
		}),
		claimsPaused: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "terbayar_claims_paused", Help: "1 while this worker claims nothing because Redis does not acknowledge writes; else 0.",
		}),
		scrapeErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "terbayar_scrape_errors_total", Help: "Things that a scrape could not read and left out: a gateway's payments, or the queues.",
		}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "terbayar_build_info", Help: "Which build this is; always 1.",
		ConstLabels: prometheus.Labels{"version": version.Release, "commit": version.Commit(), "goversion": version.Go()},
	})
	build.Set(1)
	m.registry.MustRegister(
		build, m.attempts, m.polls, m.latency, m.breakers, m.unreadable, m.paused, m.loginFailed, m.clockSkew, m.durability, m.claimsPaused, m.primaryChanges, m.scrapeErrors,
		&redisCollector{redis}, newLedgerCollector(ledger, redis, m.scrapeErrors), newQueueCollector(inspector, redis, m.scrapeErrors),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	for _, g := range payment.Gateways() {
		m.polls.WithLabelValues(string(g))
		m.breakers.WithLabelValues(string(g))
		m.unreadable.WithLabelValues(string(g))
		m.paused.WithLabelValues(string(g))
		m.loginFailed.WithLabelValues(string(g))
	}
	return m
}

// Handler is the page /metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// Attempt counts a finished attempt.
func (m *Metrics) Attempt(g payment.Gateway, a payment.Attempt) {
	m.attempts.WithLabelValues(string(g), string(a.Kind), codeClass(a.Code), a.Action).Inc()
}

// Poll counts a status poll.
func (m *Metrics) Poll(g payment.Gateway) { m.polls.WithLabelValues(string(g)).Inc() }

// Unreadable counts records that cannot be read.
func (m *Metrics) Unreadable(g payment.Gateway, n int) {
	m.unreadable.WithLabelValues(string(g)).Add(float64(n))
}

// Breaker tells the state of a gateway's circuit breaker: 0 closed, 1 half-open,
// 2 open.
func (m *Metrics) Breaker(g payment.Gateway, state int) {
	m.breakers.WithLabelValues(string(g)).Set(float64(state))
}

// Paused tells whether a gateway is paused because of refusals in a row.
func (m *Metrics) Paused(g payment.Gateway, paused bool) {
	m.paused.WithLabelValues(string(g)).Set(truth(paused))
}

// LoginFailed tells whether the latest login to a gateway has failed.
func (m *Metrics) LoginFailed(g payment.Gateway, failed bool) {
	m.loginFailed.WithLabelValues(string(g)).Set(truth(failed))
}

// ClockSkew tells how far this worker's clock is ahead of that of Redis.
func (m *Metrics) ClockSkew(ahead time.Duration) { m.clockSkew.Set(ahead.Seconds()) }

// Durability tells the value of REDIS_DURABILITY that is in force.
func (m *Metrics) Durability(mode string) {
	m.durability.Reset()
	m.durability.WithLabelValues(mode).Set(1)
}

// PrimaryChanges tells how often another primary of Redis was met since the start.
func (m *Metrics) PrimaryChanges(n int) { m.primaryChanges.Set(float64(n)) }

// ClaimsPaused tells whether claims are paused because Redis does not acknowledge
// writes.
func (m *Metrics) ClaimsPaused(paused bool) { m.claimsPaused.Set(truth(paused)) }

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// statusCode is http:NNN, or SNAP's seven digits, which begin with the HTTP status.
var statusCode = regexp.MustCompile(`^(?:http:([1-5])[0-9]{2}|([1-5])[0-9]{6})$`)

// codeClass is one of the eleven classes of the retry policy's codes.
func codeClass(code string) string {
	if m := statusCode.FindStringSubmatch(code); m != nil {
		return m[1] + m[2] + "xx"
	}
	switch code {
	case retrypolicy.CodeRefused, retrypolicy.CodeUnsent, retrypolicy.CodeUnknown, retrypolicy.CodeUnreadable, retrypolicy.CodeUndecryptable:
		return code
	default:
		return "other"
	}
}

// Transport measures the requests to a gateway that pass through it to next.
func (m *Metrics) Transport(g payment.Gateway, next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		begun := time.Now()
		res, err := next.RoundTrip(r)
		class := "error"
		if err == nil {
			class = strconv.Itoa(res.StatusCode/100) + "xx"
		}
		m.latency.WithLabelValues(string(g), operation(r.URL.Path), class).Observe(time.Since(begun).Seconds())
		return res, err
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// operations names the operations by how their paths end; * is any one element.
var operations = []struct{ ending, name string }{
	{"/login", "login"},
	{"/payment/transaction", "create-transaction"},
	{"/payment/list-transaction", "list-transaction"},
	{"/payment/detail-transaction/*", "detail-transaction"},
	{"/access-token/b2b", "access-token"},
	{"/auth/payment", "auth-payment"},
	{"/auth/query", "payment-query"},
}

func operation(path string) string {
	last := strings.LastIndexByte(path, '/')
	for _, o := range operations {
		parent, wild := strings.CutSuffix(o.ending, "/*")
		if strings.HasSuffix(path, o.ending) || wild && last > 0 && strings.HasSuffix(path[:last], parent) {
			return o.name
		}
	}
	return "other"
}
