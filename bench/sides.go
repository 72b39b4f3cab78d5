package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hibiken/asynq"

	"terbayar/internal/intake"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/secret"
	"terbayar/internal/tasks"
	"terbayar/internal/testenv"
	"terbayar/internal/testenv/programs"
)

// side is one of the two sides of the comparison.
type side interface {
	// enqueue starts the program that enqueues the payments of a file, in order. With more
	// than one connection at a time it only fills a queue, and is not measured. The settings
	// are Terbayar's only.
	enqueue(e *env, file string, connections int, settings ...string) *process
	// work starts a worker and waits until it is ready. The settings are Terbayar's only.
	work(e *env, concurrency int, settings ...string) *process
	// recorded reports whether the gateway's answers to n payments are in Redis.
	recorded(e *env, n int) bool
	// creator returns a function that enqueues one payment from this process.
	creator(e *env) func(i int)
}

// env is what a measure runs on. The workers' way to Redis may be longer than that of others.
type env struct {
	testenv.TB

	redis       *server
	workerRedis string // address
	gateway     target
	inspector   *asynq.Inspector
}

func newEnv(t testenv.TB, gatewayLatency time.Duration) *env {
	t.Helper()
	r := startRedis(t)
	return &env{
		TB: t, redis: r, workerRedis: r.addr, gateway: startGateway(t, gatewayLatency),
		inspector: asynq.NewInspectorFromRedisClient(r.client),
	}
}

// line returns the input of enqueue.
func line(i int) []byte { return fmt.Appendf(nil, `{"gateway":"amdigipay","payment":%s}`, body(i)) }

func body(i int) []byte {
	return fmt.Appendf(nil, `{"payment_id":33,"expired_date":"2099-05-21 18:23:10","nominal":10000,"admin_fee":3000,`+
		`"transaction_id":"%s","transaction_total":13000,"transaction_name":"testing","transaction_desc":"testing",`+
		`"customer_number":"085925065195","customer_name":"testing","item_details":[{"item_id":"testing","item_price":10000,`+
		`"item_total_price":10000,"item_quantity":1,"item_name":"testing"},{"item_id":"fee","item_price":3000,`+
		`"item_total_price":3000,"item_quantity":1,"item_name":"fee"}]}`, reference(i))
}

func reference(i int) string { return fmt.Sprintf("0030c97b-5ccc-4482-b4af-%012d", i) }

// file writes n payments to a file, one a line.
func (e *env) file(n int) string {
	e.Helper()
	var text bytes.Buffer
	for i := range n {
		text.Write(append(line(i), '\n'))
	}
	path := filepath.Join(e.TempDir(), "payments.ndjson")
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		e.Fatal(err)
	}
	return path
}

// fill enqueues n payments.
func (e *env) fill(s side, n int) {
	e.Helper()
	s.enqueue(e, e.file(n), 16).run()
}

// queues returns asynq's queues.
func (e *env) queues() []string {
	e.Helper()
	queues, err := e.inspector.Queues()
	e.redis.require(err)
	return queues
}

// drained reports whether asynq has neither pending nor active tasks.
func (e *env) drained() bool {
	e.Helper()
	for _, queue := range e.queues() {
		for _, list := range []string{"pending", "active"} {
			n, err := e.redis.client.LLen(e.Context(), "asynq:{"+queue+"}:"+list).Result()
			e.redis.require(err)
			if n > 0 {
				return false
			}
		}
	}
	return true
}

// terbayar is the real programs.
type terbayar struct{}

func (terbayar) enqueue(e *env, file string, _ int, settings ...string) *process {
	return start(e, programs.Path(e, "enqueue"), []string{"create", file},
		append([]string{"REDIS_URL=redis://" + e.redis.addr + "/0", "REDIS_DURABILITY=none"}, settings...)...)
}

// work starts a worker with the settings of a development machine and the usual log. It polls
// once a day, so that nothing is polled meanwhile.
func (terbayar) work(e *env, concurrency int, settings ...string) *process {
	w := start(e, programs.Path(e, "worker"), nil, append([]string{
		"REDIS_URL=redis://" + e.workerRedis + "/0", "REDIS_DURABILITY=none", "WORKER_HTTP_ADDR=127.0.0.1:0",
		"AMDIGIPAY_BASE_URL=" + e.gateway.url, "AMDIGIPAY_USERNAME=" + username, "AMDIGIPAY_PASSWORD=" + password,
		fmt.Sprint("WORKER_CONCURRENCY=", concurrency), "STATUS_POLL_INTERVAL=24h",
	}, settings...)...)
	w.awaitOutput(w.stderr, "worker is ready")
	return w
}

func (terbayar) recorded(e *env, n int) bool {
	return e.count(payment.OnProcessing) >= n && e.drained()
}

// count returns how many payments have a status.
func (e *env) count(status payment.Status) int {
	e.Helper()
	stats, err := ledger.NewReader(e.redis.client, 1).Stats(e.Context(), payment.AMDigiPay)
	e.redis.require(err)
	return int(stats.Counts[status])
}

func (terbayar) creator(e *env) func(int) {
	cipher, err := secret.NewCipher(secret.Text{})
	e.redis.require(err)
	in := &intake.Intake{
		Ledger: testenv.NewLedger(e.redis.client, time.Now), Cipher: cipher,
		Enqueue: tasks.NewEnqueuer(e.redis.client, time.Now).Submit,
	}
	return func(i int) {
		for _, a := range in.Create(e.Context(), []intake.Line{{Number: 1, Text: line(i)}}) {
			if a.Result != intake.Enqueued || a.EnqueueErr != nil {
				e.Fatalf("enqueue: %+v", a)
			}
		}
	}
}
