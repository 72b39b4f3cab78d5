package telemetry

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/hibiken/asynq/x/metrics"
	"github.com/prometheus/client_golang/prometheus"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redishealth"
)

// LedgerStats counts, at every scrape, the payments of a gateway by status, and returns the
// ages of its oldest queued payment and its oldest unknown outcome.
type LedgerStats interface {
	Stats(ctx context.Context, g payment.Gateway) (ledger.Stats, error)
}

// RedisHealth returns the state of Redis as last probed in the background, without waiting.
type RedisHealth interface {
	State() redishealth.State
}

const (
	// scrapeTimeout is how long a scrape waits for Redis.
	scrapeTimeout = 250 * time.Millisecond
	// readTimeout is how long a read from Redis may go on, for the next scrape.
	readTimeout = 2 * time.Second
	// maxAge is how old a value may be that a scrape shows while Redis is slow.
	maxAge = time.Minute
)

// cached is a value that is read from Redis in the background, one read at a time. A scrape
// waits for a read only briefly.
type cached[T any] struct {
	read func(ctx context.Context) (T, error)

	mu      sync.Mutex
	reading chan struct{} // closed at the end of the read in flight; nil when there is none
	value   T
	err     error     // of the latest read
	at      time.Time // when value was read; zero: never
}

// get starts a read, unless one is in flight, and returns its value. If the read takes too
// long, get returns the latest value that is not older than maxAge.
func (c *cached[T]) get() (T, error) {
	c.mu.Lock()
	if c.reading == nil {
		c.reading = make(chan struct{})
		go c.refresh(c.reading)
	}
	reading := c.reading
	c.mu.Unlock()
	timeout := time.NewTimer(scrapeTimeout)
	defer timeout.Stop()
	select {
	case <-reading:
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.value, c.err
	case <-timeout.C:
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.at.IsZero() || time.Since(c.at) > maxAge {
			return c.value, errTimeout
		}
		return c.value, nil
	}
}

var errTimeout = errors.New("redis does not answer in time")

func (c *cached[T]) refresh(done chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	value, err := c.read(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err = err; err == nil {
		c.value, c.at = value, time.Now()
	}
	c.reading = nil
	close(done)
}

var (
	redisUpDesc = prometheus.NewDesc("terbayar_redis_up",
		"1 while Redis answers; else 0.", nil, nil)
	redisWritableDesc = prometheus.NewDesc("terbayar_redis_writable",
		"1 while Redis accepts writes; 0 when its memory is full, it cannot write to its disk, or it does not answer.", nil, nil)
	redisMemoryDesc = prometheus.NewDesc("terbayar_redis_memory_used_ratio",
		"Used part of maxmemory, or without it of the machine's memory, of the fullest primary; missing if Redis does not report it.", nil, nil)
)

// redisCollector shows the state of Redis as last probed.
type redisCollector struct{ redis RedisHealth }

func (c *redisCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- redisUpDesc
	ch <- redisWritableDesc
	ch <- redisMemoryDesc
}

func (c *redisCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.redis.State()
	ch <- prometheus.MustNewConstMetric(redisUpDesc, prometheus.GaugeValue, gauge(s.Up))
	ch <- prometheus.MustNewConstMetric(redisWritableDesc, prometheus.GaugeValue, gauge(s.Writable))
	if ratio, known := s.MemoryRatio(); known {
		ch <- prometheus.MustNewConstMetric(redisMemoryDesc, prometheus.GaugeValue, ratio)
	}
}

var (
	paymentsDesc = prometheus.NewDesc("terbayar_payments",
		"Payments in the ledger by status.", []string{"gateway", "status"}, nil)
	oldestUnknownDesc = prometheus.NewDesc("terbayar_oldest_unknown_age_seconds",
		"Time since the oldest submit whose outcome is unknown; 0 when there is none.", []string{"gateway"}, nil)
	oldestQueuedDesc = prometheus.NewDesc("terbayar_oldest_queued_age_seconds",
		"Age of the oldest queued payment, including those that wait for a retry; 0 when there is none.", []string{"gateway"}, nil)
	tombstonesDesc = prometheus.NewDesc("terbayar_tombstones",
		"Payments whose records were deleted after RETENTION, and of which only tombstones are left.", []string{"gateway"}, nil)
	paymentsLeftDesc = prometheus.NewDesc("terbayar_redis_payments_left",
		"Estimate of how many more payments fit into the memory of Redis; missing if Redis does not report its memory.", nil, nil)
)

// ledgerCollector reads the ledger's counts at every scrape. A gateway whose counts cannot be
// read is missing in that scrape; while Redis is down, both are.
type ledgerCollector struct {
	redis  RedisHealth
	stats  map[payment.Gateway]*cached[ledger.Stats]
	errors prometheus.Counter
}

func newLedgerCollector(source LedgerStats, redis RedisHealth, errors prometheus.Counter) *ledgerCollector {
	c := &ledgerCollector{redis: redis, stats: map[payment.Gateway]*cached[ledger.Stats]{}, errors: errors}
	for _, g := range payment.Gateways() {
		c.stats[g] = &cached[ledger.Stats]{read: func(ctx context.Context) (ledger.Stats, error) { return source.Stats(ctx, g) }}
	}
	return c
}

func (c *ledgerCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- paymentsDesc
	ch <- oldestUnknownDesc
	ch <- oldestQueuedDesc
	ch <- tombstonesDesc
	ch <- paymentsLeftDesc
}

func (c *ledgerCollector) Collect(ch chan<- prometheus.Metric) {
	state := c.redis.State()
	if !state.Up {
		c.errors.Add(float64(len(c.stats)))
		return
	}
	var group sync.WaitGroup
	var payments, tombstones, unread atomic.Int64 // of all gateways; gateways that could not be read
	for g, cached := range c.stats {
		group.Go(func() {
			stats, err := cached.get()
			if err != nil {
				c.errors.Inc()
				unread.Add(1)
				return
			}
			payments.Add(stats.Payments())
			tombstones.Add(stats.Tombstones)
			ch <- prometheus.MustNewConstMetric(tombstonesDesc, prometheus.GaugeValue, float64(stats.Tombstones), string(g))
			for _, s := range payment.Statuses() {
				ch <- prometheus.MustNewConstMetric(paymentsDesc, prometheus.GaugeValue, float64(stats.Counts[s]), string(g), string(s))
			}
			ch <- prometheus.MustNewConstMetric(oldestUnknownDesc, prometheus.GaugeValue, max(0, stats.OldestUnknown.Seconds()), string(g))
			ch <- prometheus.MustNewConstMetric(oldestQueuedDesc, prometheus.GaugeValue, max(0, stats.OldestQueued.Seconds()), string(g))
		})
	}
	group.Wait()
	if left, known := state.PaymentsLeft(payments.Load(), tombstones.Load()); known && unread.Load() == 0 {
		ch <- prometheus.MustNewConstMetric(paymentsLeftDesc, prometheus.GaugeValue, float64(left))
	}
}

// queueCollector shows the metrics of asynq's own collector. While Redis is down or hangs, it
// leaves them out; asynq's collector would wait.
type queueCollector struct {
	redis   RedisHealth
	metrics *cached[[]prometheus.Metric]
	errors  prometheus.Counter
}

func newQueueCollector(inspector *asynq.Inspector, redis RedisHealth, errors prometheus.Counter) *queueCollector {
	return &queueCollector{redis: redis, errors: errors, metrics: &cached[[]prometheus.Metric]{
		// The inspector takes no context; the Redis client's timeouts end the read.
		read: func(context.Context) ([]prometheus.Metric, error) { return queueMetrics(inspector) },
	}}
}

// Describe sends nothing: asynq's Describe would ask Redis, at the worker's start.
func (c *queueCollector) Describe(chan<- *prometheus.Desc) {}

func (c *queueCollector) Collect(ch chan<- prometheus.Metric) {
	if !c.redis.State().Up {
		c.errors.Inc()
		return
	}
	all, err := c.metrics.get()
	if err != nil {
		c.errors.Inc()
		return
	}
	for _, m := range all {
		ch <- m
	}
}

func queueMetrics(inspector *asynq.Inspector) ([]prometheus.Metric, error) {
	if _, err := inspector.Queues(); err != nil { // asynq's collector would only print this error
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
