// Package failover tests Terbayar on a Redis that goes away, fails over, or is a
// Cluster: with real redis-server and redis-sentinel processes, which are killed.
package failover_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/config"
	"terbayar/internal/events"
	"terbayar/internal/gatewaysim"
	"terbayar/internal/intake"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redisconn"
	"terbayar/internal/secret"
	"terbayar/internal/tasks"
	"terbayar/internal/telemetry"
	"terbayar/internal/worker"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil { // the tests wait more than they work
		panic(err)
	}
	code := m.Run()
	removePrograms()
	os.Exit(code)
}

// stage is what stands around the workers of one test: a Redis, both gateways,
// and an order system that hands payments in.
type stage struct {
	*testing.T

	url      string // REDIS_URL
	redis    redis.UniversalClient
	sim      *gatewaysim.Sim
	flags    []string // of every worker
	env      []string // of every program, beside the test's own
	book     *ledger.Ledger
	intake   *intake.Intake
	handedIn []payment.Key
	lines    []intake.Line // the same, as they were handed in

	payloadKey string
	processes  []*process // the workers that are programs of their own

	badRequests bool // are expected: the gateways may find fault with them
}

// policy makes minutes into seconds.
const policy = `gateways:
  amdigipay:
    verify: {settle: 3s, lookups: 2, then: review}
    rules:
      - {code: "net:unknown", action: verify, backoff: {type: constant, base: 1s}, max_attempts: 100}
  paydia:
    verify: {settle: 3s, lookups: 2, then: review}
    rules:
      - {code: "net:unknown", action: verify, backoff: {type: constant, base: 1s}, max_attempts: 100}
`

// newStage sets a stage up around a Redis. Every request that moves money takes
// the gateways half a second, so that some are always under way.
func newStage(t *testing.T, url string, edits ...func(*gatewaysim.Config)) *stage {
	t.Helper()
	private, public, err := gatewaysim.NewKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	cfg := gatewaysim.DefaultConfig()
	cfg.Paydia.PublicKey = public
	for _, op := range []gatewaysim.Operation{gatewaysim.AMCreate, gatewaysim.PaydiaPayment} {
		cfg.Faults = append(cfg.Faults, gatewaysim.FaultRule{Fault: gatewaysim.FaultSlow, Operation: op, Delay: 500 * time.Millisecond})
	}
	for _, edit := range edits {
		edit(&cfg)
	}
	s := &stage{T: t, url: url, sim: gatewaysim.New(cfg, time.Now)}
	site := httptest.NewServer(s.sim.Handler())
	t.Cleanup(site.Close)

	policyFile := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(policyFile, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	payloadKey := secret.NewKey()
	s.payloadKey = payloadKey.Reveal()
	s.flags = []string{
		"--redis-url", url,
		"--amdigipay-base-url", site.URL + "/api", "--amdigipay-username", cfg.AM.Username, "--amdigipay-password", cfg.AM.Password,
		"--paydia-base-url", site.URL + "/snap/v1.0", "--paydia-client-id", cfg.Paydia.ClientID,
		"--paydia-client-secret", cfg.Paydia.ClientSecret, "--paydia-private-key=" + string(private),
		"--payload-keys", payloadKey.Reveal(), "--retry-policy-file", policyFile,
		"--worker-http-addr", "127.0.0.1:0", "--worker-concurrency", "5", "--worker-shutdown-timeout", "10s",
		"--gateway-timeout", "3s", "--status-poll-interval", "1s", "--log-format", "json",
	}
	s.redis = s.connect()
	settings := s.settings()
	writes, closeWrites, err := settings.Redis.OpenDurable(ledger.DurabilityKey, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = closeWrites() })
	watching, stopWatching := context.WithCancel(context.Background())
	t.Cleanup(stopWatching)
	go writes.Watch(watching) // claims go on once Redis acknowledges again
	s.book = ledger.New(ledger.Options{
		Redis: s.redis, Writes: writes, Stream: ledger.DefaultStream, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	sealer, err := secret.NewCipher(payloadKey)
	if err != nil {
		t.Fatal(err)
	}
	s.intake = &intake.Intake{Ledger: s.book, Cipher: sealer, Enqueue: tasks.NewEnqueuer(s.redis, time.Now).Submit}
	return s
}

// connect opens a client as the programs do.
func (s *stage) connect() redis.UniversalClient {
	s.Helper()
	client, err := redisconn.Open(s.url, redisconn.Passwords{})
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { client.Close() })
	return client
}

// settings are a worker's.
func (s *stage) settings(more ...string) worker.Config {
	s.Helper()
	var cfg struct{ worker.Config }
	if _, err := config.Parse("worker", "", &cfg, append(s.flags, more...), io.Discard); err != nil {
		s.Fatal(err)
	}
	return cfg.Config
}

// house is a worker in this process.
type house struct {
	log   *output
	meter *meter
	site  string
}

// worker opens a house, waits until it is ready, and closes it with the test.
func (s *stage) worker() *house {
	s.Helper()
	h := &house{log: &output{}, meter: &meter{}}
	client := s.connect()
	client.AddHook(h.meter)
	log, err := telemetry.NewLogger(h.log, "info", "json")
	if err != nil {
		s.Fatal(err)
	}
	cfg := s.settings()
	writes, closeWrites, err := cfg.Redis.OpenDurable(ledger.DurabilityKey, log)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = closeWrites() })
	built, err := worker.New(cfg, client, writes, log)
	if err != nil {
		s.Fatal(err)
	}
	h.site = "http://" + built.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- built.Run(ctx) }()
	s.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			s.Errorf("the worker ended with %v", err)
		}
		if s.Failed() {
			s.Log(h.log.tail())
		}
	})
	s.eventually("the worker is ready", 10*time.Second, func() bool { return h.log.has("worker is ready") })
	return h
}

// meter counts what a client asks of Redis, answered or not, and the connections
// it tries to make.
type meter struct{ calls, dials atomic.Int64 }

func (m *meter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		m.calls.Add(1)
		return next(ctx, cmd)
	}
}

func (m *meter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		m.calls.Add(1)
		return next(ctx, cmds)
	}
}

func (m *meter) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		m.dials.Add(1)
		return next(ctx, network, addr)
	}
}

// output gathers what is written while it is read.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// tail is the end of a long log.
func (o *output) tail() string {
	text := o.String()
	return text[max(0, len(text)-5000):]
}

func (o *output) has(text string) bool { return strings.Contains(o.String(), text) }
func (o *output) lines() int           { return strings.Count(o.String(), "\n") }

// eventually polls for a condition, and gives up at the deadline.
func (s *stage) eventually(what string, within time.Duration, condition func() bool) {
	s.Helper()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(within); !condition(); <-look.C {
		if time.Now().After(deadline) {
			s.Fatalf("not within %s: %s", within, what)
		}
	}
}

// order is a payment as an order system writes it, every other one AM's.
func order(n int) (payment.Key, []byte) {
	return namedOrder("INV", n, 24*time.Hour)
}

// namedOrder is one of those whose ids begin with a name.
func namedOrder(name string, n int, expires time.Duration) (payment.Key, []byte) {
	id := fmt.Sprintf("%s-%d", name, n)
	if n%2 == 0 {
		return payment.Key{Gateway: payment.Paydia, TransactionID: id}, fmt.Appendf(nil,
			`{"gateway":"paydia","customer_token":"eyJ.%s","payment":{"partnerReferenceNo":%q,`+
				`"merchantId":"240327001000000","amount":{"value":"10000.00","currency":"IDR"},"title":"Kopi"}}`, id, id)
	}
	until := time.Now().Add(expires).In(payment.Jakarta).Format(time.DateTime)
	return payment.Key{Gateway: payment.AMDigiPay, TransactionID: id}, fmt.Appendf(nil,
		`{"gateway":"amdigipay","payment":{"payment_id":33,"expired_date":%q,"nominal":13000,"admin_fee":0,`+
			`"transaction_id":%q,"transaction_total":13000,"transaction_name":"Kopi","transaction_desc":"Kopi",`+
			`"customer_number":"0800","customer_name":"Budi","item_details":[`+
			`{"item_id":"1","item_price":13000,"item_total_price":13000,"item_quantity":1,"item_name":"Kopi"}]}}`, until, id)
}

// handIn hands n payments in, ten at once and then for a while none, and again
// what Redis would not take: as whoever runs "enqueue create" does. It returns how
// often that was.
func (s *stage) handIn(ctx context.Context, n int, pause time.Duration) (again int) {
	s.Helper()
	pace := time.NewTicker(pause)
	defer pace.Stop()
	for ; n > 0; <-pace.C {
		var lines []intake.Line
		for range min(n, 10) {
			key, text := order(len(s.handedIn) + 1)
			s.handedIn = append(s.handedIn, key)
			line := intake.Line{Number: len(s.handedIn), Text: text}
			s.lines = append(s.lines, line)
			lines = append(lines, line)
		}
		n -= len(lines)
		for len(lines) > 0 && ctx.Err() == nil {
			var failed []intake.Line
			for i, a := range s.intake.Create(ctx, lines) {
				switch a.Result {
				case intake.Enqueued, intake.Duplicate:
				case intake.Failed:
					failed = append(failed, lines[i])
					again++
				default:
					s.Errorf("%+v", a)
				}
			}
			lines = failed
		}
	}
	return again
}

// nothingLost hands everything in again: Redis has it all.
func (s *stage) nothingLost() {
	s.Helper()
	for _, a := range s.intake.Create(s.Context(), s.lines) {
		if a.Result != intake.Duplicate {
			s.Errorf("%+v", a)
		}
	}
}

// sent counts the requests that moved money.
func (s *stage) sent() int {
	return s.sim.Requests(gatewaysim.AMCreate) + s.sim.Requests(gatewaysim.PaydiaPayment)
}

// endsWell waits until all payments are paid and judges how they came there. A few
// may still stand open: when Redis goes away between executing a dequeue and
// answering it, that task is nobody's until the ledger brings it back.
func (s *stage) endsWell(within time.Duration) {
	s.Helper()
	begun := time.Now()
	unpaid := s.handedIn
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for ; len(unpaid) > 0 && time.Since(begun) < within; <-look.C {
		unpaid = slices.DeleteFunc(slices.Clone(unpaid), func(key payment.Key) bool { return s.read(key).Status == payment.Paid })
	}
	s.Logf("%d of %d paid after %s", len(s.handedIn)-len(unpaid), len(s.handedIn), time.Since(begun).Round(100*time.Millisecond))
	if len(unpaid) > len(s.handedIn)/10 {
		s.Errorf("%d payments are not paid", len(unpaid))
	}
	open := s.open()
	for _, key := range unpaid {
		if !open[key] {
			s.Errorf("nobody will come back for %+v", s.read(key).Payment)
		}
	}
	s.judge()
}

// read reads a payment.
func (s *stage) read(key payment.Key) *ledger.Record {
	s.Helper()
	r, err := s.book.Read(s.Context(), key)
	if err != nil {
		s.Fatal(err)
	}
	return r
}

// open are all payments that will be due one day.
func (s *stage) open() map[payment.Key]bool {
	s.Helper()
	open := map[payment.Key]bool{}
	for _, g := range payment.Gateways() {
		for _, set := range []string{"open", "sending"} {
			ids, err := s.redis.ZRange(s.Context(), "{terbayar:events}:"+set+":"+string(g), 0, -1).Result()
			if err != nil {
				s.Fatal(err)
			}
			for _, id := range ids {
				open[payment.Key{Gateway: g, TransactionID: id}] = true
			}
		}
	}
	return open
}

// judge demands that nothing happened twice, neither at a gateway nor in the
// stream of events, and that ledger, gateway and events agree.
func (s *stage) judge() {
	s.Helper()
	if sum := s.sim.Summary(); len(sum.Duplicates) > 0 || sum.Violations > 0 {
		s.Errorf("doubles %v, violations %+v", sum.Duplicates, s.sim.Violations())
	}
	events := s.events()
	for _, key := range s.handedIn {
		status, told := s.read(key).Status, events[key.String()]
		if status.HasEvent() && (len(told) == 0 || told[len(told)-1] != status) {
			s.Errorf("%s is %s, and its events say %v", key, status, told)
		}
		if rows := s.sim.RowsOf(gatewaysim.Gateway(key.Gateway), key.TransactionID); status == payment.Paid && len(rows) != 1 {
			s.Errorf("%s is paid, and the gateway has it %d times", key, len(rows))
		}
	}
}

// events reads the statuses that the stream tells of each payment, and demands
// that they are numbered from 1, without a gap and without a repeat.
func (s *stage) events() map[string][]payment.Status {
	s.Helper()
	all := map[string][]payment.Status{}
	err := events.NewStream(s.redis, ledger.DefaultStream).Each(s.Context(), "", false, func(text []byte) error {
		var e struct {
			ID   string          `json:"id"`
			Data payment.Payment `json:"data"`
		}
		if err := json.Unmarshal(text, &e); err != nil {
			return err
		}
		key := payment.Key{Gateway: e.Data.Gateway, TransactionID: e.Data.TransactionID}.String()
		all[key] = append(all[key], e.Data.Status)
		if want := fmt.Sprintf("%s:%d:%s", key, len(all[key]), e.Data.Status); e.ID != want {
			s.Errorf("event %s, want %s", e.ID, want)
		}
		return nil
	})
	if err != nil {
		s.Fatal(err)
	}
	return all
}
