package main

import (
	"slices"
	"sync/atomic"
	"time"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/payment"
	"terbayar/internal/testenv"
)

// states are the states of a payment in which its bytes are measured. Bare asynq has nothing
// left of a task that is done.
var states = []struct{ name, reach string }{
	{"queued", "1600"},
	{"on_processing (bare asynq: done)", "2000"},
	{"final", "500"},
}

func bytesFigures() (all []figure) {
	for _, state := range states {
		all = append(all,
			figure{"used_memory of Redis a payment, " + state.name + " (bytes)", "%.0f", state.reach, false},
			figure{"  MEMORY USAGE of the ledger's keys", "%.0f", "", false},
			figure{"  MEMORY USAGE of the event stream", "%.0f", "", false},
			figure{"  MEMORY USAGE of asynq's keys", "%.0f", "", false})
	}
	return all
}

// redisBytes measures the memory of Redis for n payments in each state.
func redisBytes(t testenv.TB, s side, o options) (values []float64) {
	e := newEnv(t, 0)
	n := o.payments
	var settings []string
	var pay func()
	if s == (terbayar{}) {
		settings, pay = simulateAM(t)
	}
	workUntil := func(what string, condition func() bool, more ...string) {
		w := s.work(e, concurrency, slices.Concat(settings, more)...)
		await(t, what, condition)
		w.stop()
	}
	// One more payment comes first: Redis allocates 250 KB or more when a command or script is
	// used for the first time.
	s.creator(e)(n)
	workUntil("one payment is sent", func() bool { return s.recorded(e, 1) })
	empty := e.redis.memory()
	// measure is called while no worker runs: its connections need memory, too.
	measure := func() {
		per := func(x float64) float64 { return x / float64(n) }
		used, keys := e.redis.memory(), e.redis.keySizes()
		values = append(values, per(used-empty), per(keys.ledger), per(keys.stream), per(keys.asynq))
	}

	e.fill(s, n)
	measure()
	workUntil("all are sent", func() bool { return s.recorded(e, n+1) }, "STATUS_POLL_INTERVAL="+o.poll.String())
	measure()
	if pay == nil {
		return append(values, none, none, none, none)
	}
	pay()
	workUntil("all are paid", func() bool { return e.count(payment.Paid) >= n }, "STATUS_POLL_INTERVAL=1s")
	measure()
	return values
}

// simulateAM starts a gateway that has a list of transactions, and returns the worker's
// settings for it and a function that lets all customers pay.
func simulateAM(t testenv.TB) (settings []string, pay func()) {
	t.Helper()
	const later = time.Hour
	cfg := gatewaysim.DefaultConfig()
	cfg.AM.Duplicates = gatewaysim.DuplicateSecond // it does not search all rows for a duplicate
	cfg.Customers = []gatewaysim.CustomerRule{{Customer: gatewaysim.Customer{Behaviour: gatewaysim.Pays, After: later}}}
	var ahead atomic.Int64 // of the real time
	sim := testenv.Simulators(t, cfg, gatewaysim.ServerOptions{
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	for _, s := range sim.Settings() {
		settings = append(settings, s.Name+"="+s.Value)
	}
	return settings, func() { ahead.Store(int64(later)) }
}
