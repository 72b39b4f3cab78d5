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
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"golang.org/x/sync/errgroup"

	"terbayar/internal/config"
	"terbayar/internal/intake"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/secret"
	"terbayar/internal/tasks"
	"terbayar/internal/worker"
)

// round is what one drain measured, per payment or per second.
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
	enqueuers   = 16 // tasks put into the queue side by side, as intake does
	idleTime    = 3 * time.Second
)

// line is a payment as an order system writes it; body is AM's part of it.
func line(i int) []byte { return fmt.Appendf(nil, `{"gateway":"amdigipay","payment":%s}`, body(i)) }

func body(i int) []byte {
	return fmt.Appendf(nil, `{"payment_id":33,"expired_date":"2099-05-21 18:23:10","nominal":10000,"admin_fee":3000,`+
		`"transaction_id":"%s","transaction_total":13000,"transaction_name":"testing","transaction_desc":"testing",`+
		`"customer_number":"085925065195","customer_name":"testing","item_details":[{"item_id":"testing","item_price":10000,`+
		`"item_total_price":10000,"item_quantity":1,"item_name":"testing"},{"item_id":"fee","item_price":3000,`+
		`"item_total_price":3000,"item_quantity":1,"item_name":"fee"}]}`, reference(i))
}

func reference(i int) string { return fmt.Sprintf("0030c97b-5ccc-4482-b4af-%012d", i) }

// target is the least that a gateway can be: it echoes what create-transaction
// was given, at once.
type target struct {
	url   string
	first atomic.Int64 // when the first payment came, Unix nanoseconds
	came  atomic.Int64
}

func startTarget() (*target, func(), error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	t := &target{url: "http://" + listener.Addr().String()}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"error":false,"message":"Login success","data":{"access_token":"t","token_type":"bearer","expires_in":3600}}`)
	})
	mux.HandleFunc("POST /payment/transaction", t.create)
	site := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = site.Serve(listener) }() // ends with Close
	return t, func() { _ = site.Close() }, nil
}

func (t *target) create(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		TransactionID string `json:"transaction_id"`
	}
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	t.first.CompareAndSwap(0, time.Now().UnixNano())
	_, _ = fmt.Fprintf(w, `{"error":false,"message":"success","data":{"id":%d,"payment_id":33,"payment_name":"QRIS","status_id":2,`+
		`"status":"On processing","transaction_id":%q,"transaction_total":"13000","payment_links":null,"payment_code":null,`+
		`"qr_code":"00020101021226670016COM.NOBUBANK.WWW01189360050300000842770214080500006791870303UKE51440014ID.CO.QRIS.WWW0215ID2021084466451"}}`,
		t.came.Add(1), asked.TransactionID)
}

// side is one of the two that are measured.
type side struct {
	server  *server
	target  *target
	n       int
	enqueue func(context.Context) error
	start   func(context.Context) (stop func(), err error) // starts the workers
	done    func(context.Context) (bool, error)            // everything is recorded, by Redis' account
}

// measure enqueues, drains and idles.
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
	r.drained = float64(s.n) / ended.Sub(time.Unix(0, s.target.first.Load())).Seconds()

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

// await waits until everything is done. Redis is asked only once all payments
// have come, so that the asking does not count.
func (s side) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for {
		if s.target.came.Load() >= int64(s.n) {
			if ok, err := s.done(ctx); ok || err != nil {
				return err
			}
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("drain: %d of %d payments came: %w", s.target.came.Load(), s.n, ctx.Err())
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

func newSide(ctx context.Context, n int) (s side, stop func(), err error) {
	redisServer, err := startRedis(ctx)
	if err != nil {
		return s, nil, err
	}
	gateway, stopTarget, err := startTarget()
	if err != nil {
		redisServer.stop()
		return s, nil, err
	}
	return side{server: redisServer, target: gateway, n: n}, func() {
		stopTarget()
		redisServer.stop()
	}, nil
}

// measureTerbayar takes payments in as "enqueue create" does, and runs the whole
// worker.
func measureTerbayar(ctx context.Context, n int) (round, error) {
	s, stop, err := newSide(ctx, n)
	if err != nil {
		return round{}, err
	}
	defer stop()
	book := newLedger(s.server.Client, time.Now)
	s.enqueue = func(ctx context.Context) error {
		sealer, err := secret.NewCipher(secret.Text{})
		if err != nil {
			return err
		}
		taker := &intake.Intake{Ledger: book, Cipher: sealer, Enqueue: tasks.NewEnqueuer(s.server, time.Now).Submit}
		for first := 0; first < n; first += intake.Batch {
			var lines []intake.Line
			for i := first; i < min(first+intake.Batch, n); i++ {
				lines = append(lines, intake.Line{Number: i + 1, Text: line(i)})
			}
			for _, a := range taker.Create(ctx, lines) {
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
			"--amdigipay-base-url", s.target.url, "--amdigipay-username", username, "--amdigipay-password", "x",
			"--worker-http-addr", "127.0.0.1:0", "--redis-durability", "none", "--worker-concurrency", fmt.Sprint(concurrency),
			"--status-poll-interval", "24h", // nothing is polled meanwhile
		}, io.Discard); err != nil {
			return nil, err
		}
		house, err := worker.New(cfg.Config, s.server, newWriter(s.server.Client, time.Now), slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))
		if err != nil {
			return nil, err
		}
		working, cancel := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- house.Run(working) }()
		return func() {
			cancel()
			_ = <-ended // it has drained what it was there for
		}, nil
	}
	s.done = func(ctx context.Context) (bool, error) {
		census, err := book.Stats(ctx, payment.AMDigiPay)
		if err != nil || census.Counts[payment.OnProcessing] < int64(n) {
			return false, err
		}
		return s.drained(ctx)
	}
	return s.measure(ctx)
}

// measureBare is asynq with the same settings and a handler that does nothing but
// the same signed POST.
func measureBare(ctx context.Context, n int) (round, error) {
	s, stop, err := newSide(ctx, n)
	if err != nil {
		return round{}, err
	}
	defer stop()
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
			return s.target.post(ctx, sender, task.Payload())
		}))
		return workers.Shutdown, err
	}
	s.done = s.drained
	return s.measure(ctx)
}

// post is a create-transaction as it would be written in an afternoon.
func (t *target) post(ctx context.Context, sender *http.Client, payload []byte) error {
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
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url+"/payment/transaction", bytes.NewReader(text))
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
