package telemetry

import (
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"terbayar/internal/payment"
	"terbayar/internal/retrypolicy"
	"terbayar/internal/version"
)

// Metrics are the worker's metrics, in their own registry. The number of series is bounded:
// neither ids nor codes are labels.
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
	eventsKept   prometheus.Gauge
	groupLags    *prometheus.GaugeVec
	idleGroups   *prometheus.GaugeVec
	dropped      *prometheus.CounterVec
	lateResults  *prometheus.CounterVec
	archiveFails prometheus.Gauge
	webhooks     webhookMetrics

	primaryChanges atomic.Int64
	scrapeErrors   prometheus.Counter
}

// NewMetrics creates the metrics: those that the worker counts, and those that are read at
// every scrape from asynq's queues, the ledger, the Go runtime and the process. Values that
// cannot be read are missing in that scrape, and terbayar_scrape_errors_total counts them. A
// scrape does not wait for a Redis that hangs. Redis is first read at the first scrape.
func NewMetrics(inspector *asynq.Inspector, ledger LedgerStats, redis RedisHealth) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		webhooks: newWebhookMetrics(),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "terbayar_attempts_total", Help: "Recorded requests to a gateway, by the class of their code and the retry policy's action.",
		}, []string{"gateway", "kind", "code_class", "action"}),
		polls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "terbayar_polls_total", Help: "Polls of a gateway for the status of its open payments.",
		}, []string{"gateway"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "terbayar_gateway_request_duration_seconds",
			Help: "Time from a request to the headers of its answer, or to its failure (status_class error).",
			// AM takes 5 to 7 s to create a payment (docs/gateways.md 1.4).
			Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 7.5, 10, 15, 30},
		}, []string{"gateway", "operation", "status_class"}),
		breakers: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "terbayar_gateway_circuit_breaker_state", Help: "This worker's circuit breaker of a gateway: 0 closed, 1 half-open, 2 open.",
		}, []string{"gateway"}),
		unreadable: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "terbayar_unreadable_records_total", Help: "How often a poll skipped a record that is damaged or written by another version.",
		}, []string{"gateway"}),
		paused: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "terbayar_gateway_paused", Help: "1 while a gateway is paused because it refused many payments in a row with the same code and message; else 0.",
		}, []string{"gateway"}),
		loginFailed: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "terbayar_gateway_login_failed", Help: "1 while this worker cannot log in to a gateway; else 0.",
		}, []string{"gateway"}),
		clockSkew: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "terbayar_clock_skew_seconds", Help: "How far this worker's clock is ahead of Redis' clock; negative: behind.",
		}),
		durability: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "terbayar_redis_durability", Help: "1 for the value of REDIS_DURABILITY in force.",
		}, []string{"mode"}),
		claimsPaused: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "terbayar_claims_paused", Help: "1 while this worker claims no payments because Redis does not acknowledge writes; else 0.",
		}),
		eventsKept: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "terbayar_events_retention_seconds", Help: "EVENTS_RETENTION; 0: events are not deleted.",
		}),
		groupLags: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "terbayar_events_group_lag_seconds", Help: "Age of the oldest event that a consumer group has not acknowledged, or has not been given; 0 when there is none.",
		}, []string{"group"}),
		idleGroups: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "terbayar_events_group_idle", Help: "1 if a consumer group has unread events and none are kept for it, because its consumers have been idle for EVENTS_RETENTION or it has none; else 0.",
		}, []string{"group"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "terbayar_payments_archived_total", Help: "Payments whose records this worker has archived and replaced by tombstones.",
		}, []string{"gateway"}),
		lateResults: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "terbayar_late_results_total", Help: "Answers of a gateway that were not recorded because only the payment's tombstone was left.",
		}, []string{"gateway"}),
		archiveFails: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "terbayar_archive_failed", Help: "1 if the latest scan for payments to archive has failed; else 0.",
		}),
		scrapeErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "terbayar_scrape_errors_total", Help: "How often a scrape could not read a gateway's payments, or the queues, and left them out.",
		}),
	}
	primaryChanges := prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "terbayar_redis_primary_changes_total", Help: "How often the primary of Redis has changed or was restarted since this worker's start.",
	}, func() float64 { return float64(m.primaryChanges.Load()) })
	m.registry.MustRegister(
		buildInfo(), m.attempts, m.polls, m.latency, m.breakers, m.unreadable, m.paused, m.loginFailed, m.clockSkew, m.durability, m.claimsPaused, m.eventsKept, m.groupLags, m.idleGroups, m.dropped, m.lateResults, m.archiveFails, primaryChanges, m.scrapeErrors,
		m.webhooks.tries, m.webhooks.duration, m.webhooks.pending, m.webhooks.oldest, m.webhooks.givenUp, m.webhooks.disabled,
		&redisCollector{redis}, newLedgerCollector(ledger, redis, m.scrapeErrors), newQueueCollector(inspector, redis, m.scrapeErrors),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	for _, g := range payment.Gateways() {
		m.polls.WithLabelValues(string(g))
		m.breakers.WithLabelValues(string(g))
		m.unreadable.WithLabelValues(string(g))
		m.paused.WithLabelValues(string(g))
		m.loginFailed.WithLabelValues(string(g))
		m.dropped.WithLabelValues(string(g))
		m.lateResults.WithLabelValues(string(g))
	}
	return m
}

func buildInfo() prometheus.Gauge {
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "terbayar_build_info", Help: "Version, commit and Go version of this build; always 1.",
		ConstLabels: prometheus.Labels{"version": version.Release, "commit": version.Commit(), "goversion": version.Go()},
	})
	build.Set(1)
	return build
}

// Handler returns the handler of /metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// Attempt counts a recorded request to a gateway.
func (m *Metrics) Attempt(g payment.Gateway, a payment.Attempt) {
	m.attempts.WithLabelValues(string(g), string(a.Kind), codeClass(a.Code), a.Action).Inc()
}

// Poll counts a poll.
func (m *Metrics) Poll(g payment.Gateway) { m.polls.WithLabelValues(string(g)).Inc() }

// Unreadable counts records that a poll skipped.
func (m *Metrics) Unreadable(g payment.Gateway, n int) {
	m.unreadable.WithLabelValues(string(g)).Add(float64(n))
}

// Breaker sets the state of a gateway's circuit breaker: 0 closed, 1 half-open, 2 open.
func (m *Metrics) Breaker(g payment.Gateway, state int) {
	m.breakers.WithLabelValues(string(g)).Set(float64(state))
}

// Paused sets whether a gateway is paused because of refusals in a row.
func (m *Metrics) Paused(g payment.Gateway, paused bool) {
	m.paused.WithLabelValues(string(g)).Set(gauge(paused))
}

// LoginFailed sets whether the latest login to a gateway failed.
func (m *Metrics) LoginFailed(g payment.Gateway, failed bool) {
	m.loginFailed.WithLabelValues(string(g)).Set(gauge(failed))
}

// ClockSkew sets how far this worker's clock is ahead of Redis' clock.
func (m *Metrics) ClockSkew(ahead time.Duration) { m.clockSkew.Set(ahead.Seconds()) }

// Durability sets the value of REDIS_DURABILITY in force.
func (m *Metrics) Durability(mode string) {
	m.durability.Reset()
	m.durability.WithLabelValues(mode).Set(1)
}

// PrimaryChanges sets how often the primary of Redis has changed since the worker's start.
func (m *Metrics) PrimaryChanges(n int) { m.primaryChanges.Store(int64(n)) }

// ClaimsPaused sets whether claims are paused because Redis does not acknowledge writes.
func (m *Metrics) ClaimsPaused(paused bool) { m.claimsPaused.Set(gauge(paused)) }

// EventsRetention sets EVENTS_RETENTION; 0: events are not deleted.
func (m *Metrics) EventsRetention(d time.Duration) { m.eventsKept.Set(d.Seconds()) }

// ForgetGroups removes all consumer groups: those that no longer exist must disappear.
func (m *Metrics) ForgetGroups() {
	m.groupLags.Reset()
	m.idleGroups.Reset()
}

// Group sets the age of the oldest unread event of a consumer group, and whether no events are
// kept for it. The name is cleaned, because a label must be UTF-8 and a group's name need not be.
func (m *Metrics) Group(name string, lag time.Duration, idle bool) {
	name = strings.ToValidUTF8(name, "?")
	m.groupLags.WithLabelValues(name).Set(lag.Seconds())
	m.idleGroups.WithLabelValues(name).Set(gauge(idle))
}

// Archived counts payments whose records were replaced by tombstones.
func (m *Metrics) Archived(g payment.Gateway, n int) {
	m.dropped.WithLabelValues(string(g)).Add(float64(n))
}

// LateResult counts an answer that was not recorded because only a tombstone was left.
func (m *Metrics) LateResult(g payment.Gateway) { m.lateResults.WithLabelValues(string(g)).Inc() }

// ArchiveFailed sets whether the latest scan for payments to archive has failed.
func (m *Metrics) ArchiveFailed(failed bool) { m.archiveFails.Set(gauge(failed)) }

// gauge returns 1 for true and 0 for false.
func gauge(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// codeClass returns one of eleven classes of the retry policy's codes. Those of http:NNN, and of
// SNAP's seven digits, which begin with the HTTP status, are 1xx to 5xx.
func codeClass(code string) string {
	status, isHTTP := strings.CutPrefix(code, "http:")
	if isHTTP && len(status) == 3 || !isHTTP && len(status) == 7 {
		if '1' <= status[0] && status[0] <= '5' && strings.Trim(status, "0123456789") == "" {
			return status[:1] + "xx"
		}
	}
	switch code {
	case retrypolicy.CodeRefused, retrypolicy.CodeUnsent, retrypolicy.CodeUnknown, retrypolicy.CodeUnreadable, retrypolicy.CodeUndecryptable:
		return code
	default:
		return "other"
	}
}

// Transport returns a transport that measures the requests to a gateway and sends them with
// next.
func (m *Metrics) Transport(g payment.Gateway, next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		start := time.Now()
		res, err := next.RoundTrip(r)
		class := "error"
		if err == nil {
			class = strconv.Itoa(res.StatusCode/100) + "xx"
		}
		m.latency.WithLabelValues(string(g), operation(r.URL.Path), class).Observe(time.Since(start).Seconds())
		return res, err
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// operations are the names of the operations by the end of their paths; * is any one element.
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
		parent, wildcard := strings.CutSuffix(o.ending, "/*")
		if strings.HasSuffix(path, o.ending) || wildcard && last > 0 && strings.HasSuffix(path[:last], parent) {
			return o.name
		}
	}
	return "other"
}
