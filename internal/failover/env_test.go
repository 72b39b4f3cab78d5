// Package failover tests the programs on a Redis that is down, fails over, or is a Cluster:
// with real redis-server and redis-sentinel processes, which are killed.
package failover_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/config"
	"terbayar/internal/gatewaysim"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/telemetry"
	"terbayar/internal/testenv/programs"
	"terbayar/internal/testenv/verify"
	"terbayar/internal/worker"
)

func TestMain(m *testing.M) { programs.Main(m) }

// slow skips a test in short mode, and lets it run beside others.
func slow(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts Redis servers and workers; scripts/test --all runs it")
	}
	t.Parallel()
}

// env is the environment of one test.
type env struct {
	*programs.Env

	url      string // REDIS_URL
	consumer *programs.EventConsumer

	failover          bool // a replica is promoted in this test
	malformedRequests bool // are expected
}

// newEnv returns an environment on a Redis. Every request that moves money takes half a
// second, so that some are always in flight. AM accepts a repeated request as a second
// payment, so that a payment that is sent twice is a duplicate charge.
func newEnv(t *testing.T, url string, edits ...func(*gatewaysim.Config)) *env {
	t.Helper()
	return newPartitionedEnv(t, url, 1, edits...)
}

// newPartitionedEnv returns an environment whose ledger has several partitions.
func newPartitionedEnv(t *testing.T, url string, partitions int, edits ...func(*gatewaysim.Config)) *env {
	t.Helper()
	edits = append([]func(*gatewaysim.Config){func(cfg *gatewaysim.Config) {
		cfg.AM.Duplicates = gatewaysim.DuplicateSecond
		for _, op := range []gatewaysim.Operation{gatewaysim.AMCreate, gatewaysim.PaydiaPayment} {
			cfg.Faults = append(cfg.Faults, gatewaysim.FaultRule{Fault: gatewaysim.FaultSlow, Operation: op, Delay: 500 * time.Millisecond})
		}
	}}, edits...)
	e := &env{Env: programs.New(t, url, programs.Options{Simulators: edits, Partitions: partitions}), url: url}
	e.Settings["WORKER_CONCURRENCY"], e.Settings["WORKER_SHUTDOWN_TIMEOUT"], e.Settings["GATEWAY_TIMEOUT"] = "5", "10s", "3s"
	e.consumer = e.NewEventConsumer()
	return e
}

// sendsFor sets how long every request that moves money takes.
func sendsFor(d time.Duration) func(*gatewaysim.Config) {
	return func(cfg *gatewaysim.Config) {
		for i := range cfg.Faults {
			cfg.Faults[i].Delay = d
		}
	}
}

// invoices returns n payments that can be paid for a day.
func invoices(n int) []programs.Payment { return programs.NewPayments("INV", n, 24*time.Hour) }

// verify waits until every payment has ended, and verifies the run.
func (e *env) verify(systems ...*programs.OrderSystem) *verify.Report {
	e.Helper()
	var submitted []verify.Payment
	for _, o := range systems {
		submitted = append(submitted, o.Submitted()...)
		e.Logf("%d payments submitted, %d acknowledged, %d lines submitted again", len(o.Submitted()), len(o.Acknowledged()), o.Retries())
	}
	e.AwaitEnd(submitted, programs.Timeout)
	run := e.Collect(submitted, e.consumer)
	run.SentOnce, run.Failover = true, e.failover
	if e.malformedRequests {
		run.Violations = nil
	}
	reviewed := 0
	for _, r := range run.Records {
		if r.Status == payment.NeedsReview {
			reviewed++
		}
	}
	report := run.Verify()
	e.Logf("%d events in the stream, %d were withdrawn, %d payments in manual review", len(run.Stream), report.WithdrawnEvents, reviewed)
	return report
}

// requireClean verifies the run, and fails the test if anything was found.
func (e *env) requireClean(systems ...*programs.OrderSystem) {
	e.Helper()
	e.RequireClean(e.verify(systems...))
}

// requirePaid fails the test if more than a tenth of the payments are not paid. A payment is
// not paid if Redis lost its claim.
func (e *env) requirePaid(o *programs.OrderSystem) {
	e.Helper()
	var unpaid []payment.Key
	for _, p := range o.Submitted() {
		if e.read(p.Key).Status != payment.Paid {
			unpaid = append(unpaid, p.Key)
		}
	}
	if len(unpaid) > len(o.Submitted())/10 {
		e.Errorf("%d of %d payments are not paid: %v", len(unpaid), len(o.Submitted()), unpaid)
	}
}

// awaitLoad waits until n requests that move money were sent.
func (e *env) awaitLoad(n int) {
	e.Helper()
	e.Eventually(fmt.Sprintf("%d requests were sent", n), func() bool { return e.Sent() >= n })
}

// awaitSends waits until more payments are sent than now.
func (e *env) awaitSends() {
	e.Helper()
	sent := e.Sent()
	e.Eventually("payments are sent again", func() bool { return e.Sent() > sent })
}

// read reads a payment.
func (e *env) read(key payment.Key) *ledger.Record {
	e.Helper()
	r, err := e.Ledger.Read(e.Context(), key)
	if err != nil {
		e.Fatal(err)
	}
	return r
}

// config returns the settings of a worker in this process; each edit is NAME=value.
func (e *env) config(edits ...string) worker.Config {
	e.Helper()
	settings := maps.Clone(e.Settings)
	for _, edit := range edits {
		name, value, _ := strings.Cut(edit, "=")
		settings[name] = value
	}
	var args []string
	for name, value := range settings {
		if value != "" {
			args = append(args, gatewaysim.Setting{Name: name, Value: value}.Flag())
		}
	}
	var cfg struct{ worker.Config }
	if _, err := config.Parse("worker", "", &cfg, args, io.Discard); err != nil {
		e.Fatal(err)
	}
	return cfg.Config
}

// localWorker is a worker in this process, whose calls to Redis are counted.
type localWorker struct {
	url   string // of its HTTP server
	log   *programs.Output
	redis *callCounter
}

// startLocalWorker starts a worker in this process, waits until it is ready, and stops it
// when the test ends.
func (e *env) startLocalWorker() *localWorker {
	e.Helper()
	w := &localWorker{log: &programs.Output{}, redis: &callCounter{}}
	client := e.Connect(e.url)
	client.AddHook(w.redis)
	log, err := telemetry.NewLogger(w.log, "info", "json")
	if err != nil {
		e.Fatal(err)
	}
	cfg := e.config()
	writes, closeWrites, err := cfg.Redis.OpenDurable(ledger.DurabilityKeys(e.Redis, 1), log)
	if err != nil {
		e.Fatal(err)
	}
	e.Cleanup(func() { _ = closeWrites() })
	built, err := worker.New(cfg, client, writes, log)
	if err != nil {
		e.Fatal(err)
	}
	w.url = "http://" + built.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- built.Run(ctx) }()
	e.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			e.Errorf("the worker ended with %v", err)
		}
		if e.Failed() {
			e.Logf("%s", w.log.Tail())
		}
	})
	e.Eventually("the worker is ready", func() bool { return e.Status(w.url+"/readyz") == http.StatusOK })
	return w
}

// openLedger returns a ledger that writes as the programs do.
func (e *env) openLedger() *ledger.Ledger {
	e.Helper()
	log := slog.New(slog.DiscardHandler)
	cfg := e.config()
	writes, closeWrites, err := cfg.Redis.OpenDurable(ledger.DurabilityKeys(e.Redis, 1), log)
	if err != nil {
		e.Fatal(err)
	}
	e.Cleanup(func() { _ = closeWrites() })
	ctx, cancel := context.WithCancel(context.Background())
	e.Cleanup(cancel)
	go writes.Watch(ctx) // ends the pause of claims when Redis acknowledges writes again
	return ledger.New(ledger.Options{Redis: e.Redis, Writes: writes, Stream: ledger.DefaultStream, Now: time.Now, Log: log})
}

// callCounter counts the calls of a Redis client, answered or not, and the connections that
// it tries to open.
type callCounter struct{ calls, dials atomic.Int64 }

func (c *callCounter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.calls.Add(1)
		return next(ctx, cmd)
	}
}

func (c *callCounter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.calls.Add(1)
		return next(ctx, cmds)
	}
}

func (c *callCounter) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c.dials.Add(1)
		return next(ctx, network, addr)
	}
}
