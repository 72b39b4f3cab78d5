package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"golang.org/x/sync/errgroup"

	"terbayar/internal/config"
	"terbayar/internal/durable"
	"terbayar/internal/intake"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/secret"
	"terbayar/internal/tasks"
	"terbayar/internal/testenv"
	"terbayar/internal/worker"
)

// round contains the figures of one drained queue, per payment or per second.
type round struct {
	roundTrips   float64
	idle         float64
	drained      float64
	enqueued     float64
	memoryQueued float64
	memoryDone   float64
	ledgerKeys   float64
	eventStream  float64
}

const (
	username    = "BENCH"
	concurrency = 50
	enqueuers   = 16 // tasks enqueued in parallel, as intake does
	idleTime    = 3 * time.Second
)

// line returns the input of enqueue; body is its member "payment".
func line(i int) []byte { return fmt.Appendf(nil, `{"gateway":"amdigipay","payment":%s}`, body(i)) }

func body(i int) []byte {
	return fmt.Appendf(nil, `{"payment_id":33,"expired_date":"2099-05-21 18:23:10","nominal":10000,"admin_fee":3000,`+
		`"transaction_id":"%s","transaction_total":13000,"transaction_name":"testing","transaction_desc":"testing",`+
		`"customer_number":"085925065195","customer_name":"testing","item_details":[{"item_id":"testing","item_price":10000,`+
		`"item_total_price":10000,"item_quantity":1,"item_name":"testing"},{"item_id":"fee","item_price":3000,`+
		`"item_total_price":3000,"item_quantity":1,"item_name":"fee"}]}`, reference(i))
}

func reference(i int) string { return fmt.Sprintf("0030c97b-5ccc-4482-b4af-%012d", i) }

// gateway simulates AM as cheaply as possible: it accepts every payment at once and checks
// nothing.
type gateway struct {
	url      string
	first    atomic.Int64 // when it received the first payment, Unix nanoseconds
	received atomic.Int64
}

func startGateway(t testenv.TB) *gateway {
	t.Helper()
	g := &gateway{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"error":false,"message":"Login success","data":{"access_token":"t","token_type":"bearer","expires_in":3600}}`)
	})
	mux.HandleFunc("POST /payment/transaction", g.create)
	site := httptest.NewServer(mux)
	t.Cleanup(site.Close)
	g.url = site.URL
	return g
}

func (g *gateway) create(w http.ResponseWriter, r *http.Request) {
	var order struct {
		TransactionID string `json:"transaction_id"`
	}
	if err := json.NewDecoder(r.Body).Decode(&order); err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	g.first.CompareAndSwap(0, time.Now().UnixNano())
	_, _ = fmt.Fprintf(w, `{"error":false,"message":"success","data":{"id":%d,"payment_id":33,"payment_name":"QRIS","status_id":2,`+
		`"status":"On processing","transaction_id":%q,"transaction_total":"13000","payment_links":null,"payment_code":null,`+
		`"qr_code":"00020101021226670016COM.NOBUBANK.WWW01189360050300000842770214080500006791870303UKE51440014ID.CO.QRIS.WWW0215ID2021084466451"}}`,
		g.received.Add(1), order.TransactionID)
}

// side is one of the two sides of the comparison.
type side struct {
	server  *server
	gateway *gateway
	n       int
	enqueue func(context.Context) error
	start   func(context.Context) (stop func(), err error) // starts the workers
	done    func(context.Context) (bool, error)            // whether everything is recorded in Redis
}

// measure enqueues the payments, drains the queue, and then idles.
func (s side) measure(ctx context.Context) (r round, err error) {
	per := func(x float64) float64 { return x / float64(s.n) }
	empty, err := s.server.memory(ctx)
	if err != nil {
		return r, err
	}
	begun := time.Now()
	if err := s.enqueue(ctx); err != nil {
		return r, err
	}
	r.enqueued = float64(s.n) / time.Since(begun).Seconds()
	queued, err := s.server.memory(ctx)
	if err != nil {
		return r, err
	}
	r.memoryQueued = per(queued - empty)

	before, err := s.server.reads(ctx)
	if err != nil {
		return r, err
	}
	started := time.Now()
	stop, err := s.start(ctx)
	if err != nil {
		return r, err
	}
	defer stop()
	if err := s.await(ctx); err != nil {
		return r, err
	}
	ended := time.Now()
	after, err := s.server.reads(ctx)
	if err != nil {
		return r, err
	}
	r.drained = float64(s.n) / ended.Sub(time.Unix(0, s.gateway.first.Load())).Seconds()

	select {
	case <-time.After(idleTime):
	case <-ctx.Done():
		return r, ctx.Err()
	}
	idle, err := s.server.reads(ctx)
	if err != nil {
		return r, err
	}
	r.idle = (idle - after) / idleTime.Seconds()
	r.roundTrips = per(after - before - r.idle*ended.Sub(started).Seconds())

	full, err := s.server.memory(ctx)
	if err != nil {
		return r, err
	}
	r.memoryDone = per(full - empty)
	ledgerKeys, err := s.server.memoryOf(ctx, "{"+ledger.DefaultStream+"}*")
	if err != nil {
		return r, err
	}
	stream, err := s.server.memoryOf(ctx, ledger.DefaultStream)
	r.ledgerKeys, r.eventStream = per(ledgerKeys), per(stream)
	return r, err
}

// await waits until everything is done. It reads from Redis only when the gateway has received
// all payments, to add few round trips.
func (s side) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		if s.gateway.received.Load() >= int64(s.n) {
			if ok, err := s.done(ctx); ok || err != nil {
				return err
			}
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("drain: the gateway has received %d of %d payments: %w", s.gateway.received.Load(), s.n, ctx.Err())
		}
	}
}

// drained reports whether asynq has neither pending nor active tasks.
func (s side) drained(ctx context.Context) (bool, error) {
	queue := "asynq:{" + tasks.SubmitQueue(payment.AMDigiPay) + "}:"
	pending, err := s.server.LLen(ctx, queue+"pending").Result()
	if err != nil {
		return false, err
	}
	active, err := s.server.LLen(ctx, queue+"active").Result()
	return pending+active == 0, err
}

// measureTerbayar creates payments as "enqueue create" does, and runs the whole worker.
func measureTerbayar(t testenv.TB, n int) (round, error) {
	s := side{server: startRedis(t), gateway: startGateway(t), n: n}
	records := testenv.NewLedger(s.server.Client, time.Now)
	s.enqueue = func(ctx context.Context) error {
		cipher, err := secret.NewCipher(secret.Text{})
		if err != nil {
			return err
		}
		in := &intake.Intake{Ledger: records, Cipher: cipher, Enqueue: tasks.NewEnqueuer(s.server, time.Now).Submit}
		for first := 0; first < n; first += intake.Batch {
			var lines []intake.Line
			for i := first; i < min(first+intake.Batch, n); i++ {
				lines = append(lines, intake.Line{Number: i + 1, Text: line(i)})
			}
			for _, a := range in.Create(ctx, lines) {
				if a.Result != intake.Enqueued {
					return fmt.Errorf("enqueue: %+v", a)
				}
			}
		}
		return nil
	}
	s.start = func(context.Context) (func(), error) {
		var cfg struct{ worker.Config }
		if _, err := config.Parse("bench", "", &cfg, []string{
			"--amdigipay-base-url", s.gateway.url, "--amdigipay-username", username, "--amdigipay-password", "x",
			"--worker-http-addr", "127.0.0.1:0", "--redis-durability", "none", "--worker-concurrency", fmt.Sprint(concurrency),
			"--status-poll-interval", "24h", // nothing is polled meanwhile
		}, io.Discard); err != nil {
			return nil, err
		}
		log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
		writes := durable.New(durable.Options{Client: s.server.Client, Mode: durable.None, Key: ledger.DurabilityKey, Now: time.Now, Log: log})
		w, err := worker.New(cfg.Config, s.server, writes, log)
		if err != nil {
			return nil, err
		}
		working, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(working) }()
		return func() {
			cancel()
			_ = <-ended // the figures are complete
		}, nil
	}
	s.done = func(ctx context.Context) (bool, error) {
		stats, err := records.Stats(ctx, payment.AMDigiPay)
		if err != nil || stats.Counts[payment.OnProcessing] < int64(n) {
			return false, err
		}
		return s.drained(ctx)
	}
	return s.measure(t.Context())
}

// measureBare runs asynq with the same settings and a handler that only sends the same signed
// POST.
func measureBare(t testenv.TB, n int) (round, error) {
	s := side{server: startRedis(t), gateway: startGateway(t), n: n}
	queue := tasks.SubmitQueue(payment.AMDigiPay)
	s.enqueue = func(ctx context.Context) error {
		client := asynq.NewClientFromRedisClient(s.server)
		var group errgroup.Group
		group.SetLimit(enqueuers)
		for i := range n {
			group.Go(func() error {
				_, err := client.EnqueueContext(ctx, asynq.NewTask("post", line(i)),
					asynq.TaskID(reference(i)), asynq.Queue(queue), asynq.Timeout(tasks.SubmitTimeout))
				return err
			})
		}
		return group.Wait()
	}
	sender := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: 15 * time.Second}
	s.start = func(context.Context) (func(), error) {
		workers := asynq.NewServerFromRedisClient(s.server, asynq.Config{
			Concurrency: concurrency, Queues: map[string]int{queue: 1}, LogLevel: asynq.FatalLevel,
			TaskCheckInterval: 200 * time.Millisecond, DelayedTaskCheckInterval: time.Second,
		})
		err := workers.Start(asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
			return s.gateway.post(ctx, sender, task.Payload())
		}))
		return workers.Shutdown, err
	}
	s.done = s.drained
	return s.measure(t.Context())
}

// post sends a create-transaction request, with as little code as possible.
func (g *gateway) post(ctx context.Context, sender *http.Client, payload []byte) error {
	var order struct {
		Payment map[string]any `json:"payment"`
	}
	if err := json.Unmarshal(payload, &order); err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(username + order.Payment["transaction_id"].(string)))
	order.Payment["username"], order.Payment["signature"] = username, hex.EncodeToString(sum[:])
	text, err := json.Marshal(order.Payment)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, g.url+"/payment/transaction", bytes.NewReader(text))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer t")
	res, err := sender.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var answer struct {
		Error bool `json:"error"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || answer.Error {
		return fmt.Errorf("refused: %w", err)
	}
	_, err = io.Copy(io.Discard, res.Body)
	return err
}
