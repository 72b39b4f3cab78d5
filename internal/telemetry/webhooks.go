package telemetry

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// webhookMetrics are the metrics of webhooks. The label endpoint is a name of the settings.
type webhookMetrics struct {
	tries    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	pending  *prometheus.GaugeVec
	oldest   *prometheus.GaugeVec
	givenUp  *prometheus.GaugeVec
	disabled *prometheus.GaugeVec
}

func newWebhookMetrics() webhookMetrics {
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"endpoint"})
	}
	return webhookMetrics{
		tries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "terbayar_webhook_tries_total", Help: "Tries of this worker to deliver an event to an endpoint, by outcome: delivered, failed (it is tried again), gave_up, skipped (the endpoint no longer selects the event).",
		}, []string{"endpoint", "outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "terbayar_webhook_duration_seconds", Help: "Time of a try until the endpoint has answered, or the try has failed.",
			Buckets: []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 15},
		}, []string{"endpoint"}),
		pending:  gauge("terbayar_webhook_pending_payments", "Payments with events that are not delivered to an endpoint."),
		oldest:   gauge("terbayar_webhook_oldest_pending_seconds", "Age of the oldest event that is neither delivered to an endpoint nor given up; 0 when there is none."),
		givenUp:  gauge("terbayar_webhook_given_up", "Events whose last try has failed, and that are still in the stream."),
		disabled: gauge("terbayar_webhook_disabled", "1 while an endpoint is disabled because it answered 410 or every try has failed for five days; else 0."),
	}
}

// WebhookTry implements webhooks.Metrics.
func (m *Metrics) WebhookTry(endpoint, outcome string, took time.Duration) {
	m.webhooks.tries.WithLabelValues(endpoint, outcome).Inc()
	m.webhooks.duration.WithLabelValues(endpoint).Observe(took.Seconds())
}

// WebhookStats implements webhooks.Metrics.
func (m *Metrics) WebhookStats(endpoint string, pending int, oldest time.Duration, givenUp int) {
	m.webhooks.pending.WithLabelValues(endpoint).Set(float64(pending))
	m.webhooks.oldest.WithLabelValues(endpoint).Set(oldest.Seconds())
	m.webhooks.givenUp.WithLabelValues(endpoint).Set(float64(givenUp))
}

// WebhookDisabled implements webhooks.Metrics.
func (m *Metrics) WebhookDisabled(endpoint string, disabled bool) {
	m.webhooks.disabled.WithLabelValues(endpoint).Set(gauge(disabled))
}
