package telemetry

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/hibiken/asynq/x/metrics"
	"github.com/prometheus/client_golang/prometheus"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redishealth"
)

// LedgerStats is what the ledger tells at every scrape: how many payments of a gateway
// are in which status, and how old the oldest queued and unknown ones are.
type LedgerStats interface {
	Stats(ctx context.Context, g payment.Gateway) (ledger.Stats, error)
}

// Redis is what the background watch tells at every scrape, at once.
type Redis interface {
	State() redishealth.State
}

const (
	// scrapePatience is how long a scrape waits for what it asks of Redis. A Redis
	// that does not answer must not cost the page.
	scrapePatience = 250 * time.Millisecond
	// scrapeTimeout is how long a question to Redis may take all the same, for the
	// next scrape.
	scrapeTimeout = 2 * time.Second
	// scrapeAge is how old an answer may be that a scrape shows while Redis is slow.
	scrapeAge = time.Minute
)

// answer is the latest answer to a question to Redis. It is asked in the
// background, one at a time, and whoever wants the answer waits for it only
// briefly.
type answer[T any] struct {
	ask func(ctx context.Context) (T, error)

	mu    sync.Mutex
	asked chan struct{} // closed when the question under way is answered; nil: none is
	value T
	err   error
	at    time.Time // of value; zero: there is none
}

// get asks, and returns the answer, or a recent one where it does not come in
// time.
func (a *answer[T]) get() (T, error) {
	a.mu.Lock()
	if a.asked == nil {
		a.asked = make(chan struct{})
		go a.refresh(a.asked)
	}
	asked := a.asked
	a.mu.Unlock()
	late := time.NewTimer(scrapePatience)
	defer late.Stop()
	select {
	case <-asked:
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.value, a.err
	case <-late.C:
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.at.IsZero() || time.Since(a.at) > scrapeAge {
			return a.value, errLate
		}
		return a.value, nil
	}
}

var errLate = errors.New("no answer yet")

func (a *answer[T]) refresh(asked chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	value, err := a.ask(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err = err; err == nil {
		a.value, a.at = value, time.Now()
	}
	a.asked = nil
	close(asked)
}

var (
	redisUpDesc = prometheus.NewDesc("terbayar_redis_up",
		"1 while Redis answers; else 0.", nil, nil)
	redisWritableDesc = prometheus.NewDesc("terbayar_redis_writable",
		"1 while Redis takes writes; 0 when it is full, cannot write to its disk, or does not answer.", nil, nil)
	redisMemoryDesc = prometheus.NewDesc("terbayar_redis_memory_used_ratio",
		"Used part of maxmemory, of the fullest primary; left out where there is no limit, or it is not told.", nil, nil)
)

// redisCollector shows how Redis was a moment ago. It asks nothing.
type redisCollector struct{ redis Redis }

func (c *redisCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- redisUpDesc
	ch <- redisWritableDesc
	ch <- redisMemoryDesc
}

func (c *redisCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.redis.State()
	ch <- prometheus.MustNewConstMetric(redisUpDesc, prometheus.GaugeValue, truth(s.Up))
	ch <- prometheus.MustNewConstMetric(redisWritableDesc, prometheus.GaugeValue, truth(s.Writable))
	if ratio, known := s.MemoryRatio(); known {
		ch <- prometheus.MustNewConstMetric(redisMemoryDesc, prometheus.GaugeValue, ratio)
	}
}

var (
	paymentsDesc = prometheus.NewDesc("terbayar_payments",
		"Payments in the ledger by status.", []string{"gateway", "status"}, nil)
	oldestUnknownDesc = prometheus.NewDesc("terbayar_oldest_unknown_age_seconds",
		"Age of the oldest submit whose outcome is unknown; 0 when there is none.", []string{"gateway"}, nil)
	oldestQueuedDesc = prometheus.NewDesc("terbayar_oldest_queued_age_seconds",
		"Age of the oldest payment that waits to be sent, those that wait for a retry included; 0 when there is none.", []string{"gateway"}, nil)
)

// ledgerCollector takes a census at every scrape. A gateway whose census fails, or
// a Redis that is down, is left out of that scrape.
type ledgerCollector struct {
	redis   Redis
	answers map[payment.Gateway]*answer[ledger.Stats]
	errors  prometheus.Counter
}

func newLedgerCollector(census LedgerStats, redis Redis, errors prometheus.Counter) *ledgerCollector {
	c := &ledgerCollector{redis: redis, answers: map[payment.Gateway]*answer[ledger.Stats]{}, errors: errors}
	for _, g := range payment.Gateways() {
		c.answers[g] = &answer[ledger.Stats]{ask: func(ctx context.Context) (ledger.Stats, error) { return census.Stats(ctx, g) }}
	}
	return c
}

func (c *ledgerCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- paymentsDesc
	ch <- oldestUnknownDesc
	ch <- oldestQueuedDesc
}

func (c *ledgerCollector) Collect(ch chan<- prometheus.Metric) {
	if !c.redis.State().Up {
		c.errors.Add(float64(len(c.answers)))
		return
	}
	var group sync.WaitGroup
	for g, answer := range c.answers {
		group.Go(func() {
			census, err := answer.get()
			if err != nil {
				c.errors.Inc()
				return
			}
			for _, s := range payment.Statuses() {
				ch <- prometheus.MustNewConstMetric(paymentsDesc, prometheus.GaugeValue, float64(census.Counts[s]), string(g), string(s))
			}
			ch <- prometheus.MustNewConstMetric(oldestUnknownDesc, prometheus.GaugeValue, max(0, census.OldestUnknown.Seconds()), string(g))
			ch <- prometheus.MustNewConstMetric(oldestQueuedDesc, prometheus.GaugeValue, max(0, census.OldestQueued.Seconds()), string(g))
		})
	}
	group.Wait()
}

// queueCollector is asynq's own collector of queue metrics, with what it lacks:
// an answer to a Redis that is down or does not answer. It leaves the queues out
// then.
type queueCollector struct {
	redis  Redis
	answer *answer[[]prometheus.Metric]
	errors prometheus.Counter
}

func newQueueCollector(inspector *asynq.Inspector, redis Redis, errors prometheus.Counter) *queueCollector {
	return &queueCollector{redis: redis, errors: errors, answer: &answer[[]prometheus.Metric]{
		// The inspector takes no context; this ends with Redis' own time-outs.
		ask: func(context.Context) ([]prometheus.Metric, error) { return queueMetrics(inspector) },
	}}
}

// Describe tells nothing: asynq's would ask Redis for it at start-up.
func (c *queueCollector) Describe(chan<- *prometheus.Desc) {}

func (c *queueCollector) Collect(ch chan<- prometheus.Metric) {
	if !c.redis.State().Up {
		c.errors.Inc()
		return
	}
	all, err := c.answer.get()
	if err != nil {
		c.errors.Inc()
		return
	}
	for _, m := range all {
		ch <- m
	}
}

func queueMetrics(inspector *asynq.Inspector) ([]prometheus.Metric, error) {
	if _, err := inspector.Queues(); err != nil { // asynq's collector would only print it
		return nil, err
	}
	ch := make(chan prometheus.Metric)
	go func() {
		metrics.NewQueueMetricsCollector(inspector).Collect(ch)
		close(ch)
	}()
	var all []prometheus.Metric
	for m := range ch {
		all = append(all, m)
	}
	return all, nil
}
