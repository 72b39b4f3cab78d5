package telemetry

import (
	"context"
	"time"

	"github.com/hibiken/asynq"
	"github.com/hibiken/asynq/x/metrics"
	"github.com/prometheus/client_golang/prometheus"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
)

// Census is what the ledger tells at every scrape.
type Census interface {
	Census(ctx context.Context, g payment.Gateway) (ledger.Census, error)
}

// scrapeTimeout is far below Prometheus' own 10 s: a Redis that does not answer
// must not cost the whole page.
const scrapeTimeout = 2 * time.Second

var (
	paymentsDesc = prometheus.NewDesc("terbayar_payments",
		"Payments in the ledger by where they stand.", []string{"gateway", "status"}, nil)
	oldestUnknownDesc = prometheus.NewDesc("terbayar_oldest_unknown_age_seconds",
		"Age of the oldest submit whose outcome is unknown; 0 when there is none.", []string{"gateway"}, nil)
	oldestQueuedDesc = prometheus.NewDesc("terbayar_oldest_queued_age_seconds",
		"Age of the oldest payment that is queued, whether its task waits, is scheduled or is lost; 0 when there is none.", []string{"gateway"}, nil)
)

// ledgerCollector takes a census at every scrape. A gateway whose census fails is
// left out of that scrape.
type ledgerCollector struct {
	census Census
	errors prometheus.Counter
}

func (c *ledgerCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- paymentsDesc
	ch <- oldestUnknownDesc
	ch <- oldestQueuedDesc
}

func (c *ledgerCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	for _, g := range payment.Gateways() {
		census, err := c.census.Census(ctx, g)
		if err != nil {
			c.errors.Inc()
			continue
		}
		for _, s := range payment.Statuses() {
			ch <- prometheus.MustNewConstMetric(paymentsDesc, prometheus.GaugeValue, float64(census.Counts[s]), string(g), string(s))
		}
		ch <- prometheus.MustNewConstMetric(oldestUnknownDesc, prometheus.GaugeValue, census.OldestUnknown.Seconds(), string(g))
		ch <- prometheus.MustNewConstMetric(oldestQueuedDesc, prometheus.GaugeValue, census.OldestQueued.Seconds(), string(g))
	}
}

// queueCollector is asynq's own collector of queue metrics, with what it lacks:
// an answer to a Redis that is away or does not answer. It leaves the queues out
// then.
type queueCollector struct {
	inspector *asynq.Inspector
	errors    prometheus.Counter
}

// Describe tells nothing: asynq's would ask Redis for it at start-up.
func (c *queueCollector) Describe(chan<- *prometheus.Desc) {}

func (c *queueCollector) Collect(ch chan<- prometheus.Metric) {
	found := make(chan []prometheus.Metric, 1)
	go func() { // the inspector takes no context; this ends with Redis' own time-outs
		if all, err := c.read(); err == nil {
			found <- all
		} else {
			close(found)
		}
	}()
	select {
	case all, ok := <-found:
		if !ok {
			c.errors.Inc()
		}
		for _, m := range all {
			ch <- m
		}
	case <-time.After(scrapeTimeout):
		c.errors.Inc()
	}
}

func (c *queueCollector) read() ([]prometheus.Metric, error) {
	if _, err := c.inspector.Queues(); err != nil { // asynq's collector would only print it
		return nil, err
	}
	ch := make(chan prometheus.Metric)
	go func() {
		metrics.NewQueueMetricsCollector(c.inspector).Collect(ch)
		close(ch)
	}()
	var all []prometheus.Metric
	for m := range ch {
		all = append(all, m)
	}
	return all, nil
}
