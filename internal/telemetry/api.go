package telemetry

import (
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"terbayar/internal/payment"
)

// API are the metrics of enqueue serve, in their own registry. Labels are routes, methods,
// statuses and names of keys.
type API struct {
	registry     *prometheus.Registry
	requests     *prometheus.CounterVec
	duration     *prometheus.HistogramVec
	keyUsed      *prometheus.GaugeVec
	waiting      prometheus.Gauge
	reloadFailed *prometheus.GaugeVec
	certificate  prometheus.Gauge
	limited      *prometheus.CounterVec
	callbacks    *prometheus.CounterVec

	mu    sync.Mutex
	names []string // of the keys
}

// NewAPI creates the metrics.
func NewAPI(redis RedisHealth) *API {
	a := &API{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "terbayar_api_requests_total", Help: "Requests to the HTTP API, by route, method and HTTP status.",
		}, []string{"route", "method", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "terbayar_api_request_duration_seconds",
			Help:    "Time to answer a request to the HTTP API, without batches, event streams and requests that waited.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"route", "method"}),
		keyUsed: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "terbayar_api_key_last_used_timestamp_seconds", Help: "When a key with this name was last used here; 0: not since the start.",
		}, []string{"name"}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "terbayar_api_waiting_requests", Help: "Requests that wait for a change, event streams included.",
		}),
		reloadFailed: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "terbayar_api_reload_failed", Help: "1 while a changed file (keys, certificate) is unreadable or wrong, and its former content in force; else 0.",
		}, []string{"file"}),
		certificate: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "terbayar_api_certificate_expiry_timestamp_seconds", Help: "When the TLS certificate in force expires; 0: no TLS.",
		}),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "terbayar_api_rate_limited_total", Help: "Requests that SERVE_RATE_LIMIT refused, by the name of their key.",
		}, []string{"name"}),
		callbacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "terbayar_callbacks_total", Help: "Callbacks of a gateway with the right secret, by what was done.",
		}, []string{"gateway", "outcome"}),
	}
	a.registry.MustRegister(
		buildInfo(), a.requests, a.duration, a.keyUsed, a.waiting, a.reloadFailed, a.certificate, a.limited, a.callbacks, &redisCollector{redis},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return a
}

// Handler returns the handler of /metrics.
func (a *API) Handler() http.Handler {
	return promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// Request counts an answered request. timed says that its duration is that of the server.
func (a *API) Request(route, method string, status int, took time.Duration, timed bool) {
	if !slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete}, method) {
		method = "other"
	}
	a.requests.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
	if timed {
		a.duration.WithLabelValues(route, method).Observe(took.Seconds())
	}
}

// Keys sets the names of the keys in force.
func (a *API) Keys(names []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, name := range a.names {
		if !slices.Contains(names, name) {
			a.keyUsed.DeleteLabelValues(name)
			a.limited.DeleteLabelValues(name)
		}
	}
	for _, name := range names {
		a.keyUsed.WithLabelValues(name)
		a.limited.WithLabelValues(name)
	}
	a.names = names
}

// KeyUsed records that a key was used.
func (a *API) KeyUsed(name string, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if slices.Contains(a.names, name) { // else it has just been removed
		a.keyUsed.WithLabelValues(name).Set(float64(at.Unix()))
	}
}

// RateLimited counts a request that the rate limit of its key refused.
func (a *API) RateLimited(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if slices.Contains(a.names, name) { // else it has just been removed
		a.limited.WithLabelValues(name).Inc()
	}
}

// Callbacks sets the outcomes of callbacks, which are then shown as 0.
func (a *API) Callbacks(outcomes []string) {
	for _, g := range payment.Gateways() {
		for _, outcome := range outcomes {
			a.callbacks.WithLabelValues(string(g), outcome)
		}
	}
}

// Callback counts a callback.
func (a *API) Callback(g payment.Gateway, outcome string) {
	a.callbacks.WithLabelValues(string(g), outcome).Inc()
}

// Waiting adds to the number of requests that wait.
func (a *API) Waiting(n int) { a.waiting.Add(float64(n)) }

// ReloadFailed sets whether a changed file could not be applied.
func (a *API) ReloadFailed(file string, failed bool) {
	a.reloadFailed.WithLabelValues(file).Set(gauge(failed))
}

// CertificateExpires sets when the TLS certificate in force expires.
func (a *API) CertificateExpires(at time.Time) { a.certificate.Set(float64(at.Unix())) }
