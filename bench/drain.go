package main

import (
	"time"

	"terbayar/internal/testenv"
)

// concurrency is the number of submits in flight, the default of WORKER_CONCURRENCY.
const concurrency = 50

// cost is what one drain took, per payment or per second.
type cost struct {
	rate                   float64
	redis, worker, gateway float64 // CPU time, microseconds
	roundTrips             float64
	fileBytes              float64 // of the append-only file, from queued to recorded
}

// total are figures that grow during a drain.
type total struct{ redis, worker, gateway, reads, fileBytes float64 }

func (e *env) total(w *process) total {
	return total{e.redis.cpu(), w.cpu(), e.gateway.cpu(), e.redis.reads(), e.redis.info("persistence", "aof_current_size")}
}

// drain drains n payments that are in the queue. The worker starts on a paused queue: what it
// costs to start a process is not measured. The time begins with the first payment at the
// gateway and ends when all answers are recorded in Redis.
func (e *env) drain(s side, n, concurrency int, settings ...string) cost {
	e.Helper()
	queues := e.queues()
	for _, queue := range queues {
		e.redis.require(e.inspector.PauseQueue(queue))
	}
	w := s.work(e, concurrency, settings...)
	before := e.total(w)
	for _, queue := range queues {
		e.redis.require(e.inspector.UnpauseQueue(queue))
	}
	first := e.gateway.await(n).First
	await(e, "all answers are recorded", func() bool { return s.recorded(e, n) })
	seconds := time.Since(first).Seconds()
	after := e.total(w)
	w.stop()

	per := func(x float64) float64 { return x / float64(n) }
	return cost{
		rate:  float64(n) / seconds,
		redis: per(after.redis-before.redis) * 1e6, worker: per(after.worker-before.worker) * 1e6, gateway: per(after.gateway-before.gateway) * 1e6,
		roundTrips: per(after.reads - before.reads), fileBytes: per(after.fileBytes - before.fileBytes),
	}
}

func rateFigures(name, reach string) []figure {
	return []figure{{name, "%.0f", reach, true}}
}

func costFigures(name, reach string) []figure {
	return append(rateFigures(name, reach),
		figure{"  CPU a payment, Redis (µs)", "%.0f", "90", false},
		figure{"  CPU a payment, worker (µs)", "%.0f", "180", false},
		figure{"  CPU a payment, gateway (µs)", "%.0f", "", false},
		figure{"  round trips to Redis a payment", "%.2f", "", false},
		figure{"  append-only file a payment, queued to on_processing (bytes)", "%.0f", "", false})
}

func everysec(t testenv.TB, s side, o options) []float64 {
	e := newEnv(t, 0)
	e.fill(s, o.payments)
	c := e.drain(s, o.payments, concurrency)
	return []float64{c.rate, c.redis, c.worker, c.gateway, c.roundTrips, c.fileBytes}
}

// always and distance drain fewer payments than the others, because they take longer.

func always(t testenv.TB, s side, o options) []float64 {
	e := newEnv(t, 0)
	e.fill(s, o.payments/2)
	e.redis.fsyncAlways()
	return []float64{e.drain(s, o.payments/2, concurrency, "REDIS_DURABILITY=auto").rate}
}

func distance(t testenv.TB, s side, o options) []float64 {
	e := newEnv(t, 0)
	e.fill(s, o.payments/2)
	e.workerRedis = startProxy(t, e.redis.addr, time.Millisecond)
	return []float64{e.drain(s, o.payments/2, concurrency).rate}
}

const (
	slowGateway     = 50 * time.Millisecond
	highConcurrency = 200
)

func latencyFigures() []figure {
	return []figure{
		{"drain, 50 ms latency of the gateway, concurrency 200 (payments/s)", "%.0f", "", true},
		{"  of concurrency / latency (4000/s)", "%.2f", "0.95", false},
	}
}

func latency(t testenv.TB, s side, o options) []float64 {
	e := newEnv(t, slowGateway)
	e.fill(s, o.payments)
	rate := e.drain(s, o.payments, highConcurrency).rate
	return []float64{rate, rate * slowGateway.Seconds() / highConcurrency}
}
