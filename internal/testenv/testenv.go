// Package testenv is the test environment in one process: ledger, submitter, poller, both
// gateway clients, and both simulated gateways behind real sockets, all on a clock that only
// the test moves. testenv/programs is the environment of the real programs.
package testenv

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/admission"
	"terbayar/internal/clients"
	"terbayar/internal/clients/amdigipay"
	"terbayar/internal/clients/paydia"
	"terbayar/internal/durable"
	"terbayar/internal/gatewaysim"
	"terbayar/internal/intake"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/refusals"
	"terbayar/internal/retrypolicy"
	"terbayar/internal/secret"
	"terbayar/internal/statuspoll"
	"terbayar/internal/submit"
)

// Start is the time at which the clock of every Env starts: 10:00 in Jakarta. It is in the
// future, so that no order has expired by the clock of a real Redis.
var Start = time.Date(2036, 5, 21, 3, 0, 0, 0, time.UTC)

// Timeout is the gateway timeout of the clients. It runs on the real clock.
const Timeout = 2 * time.Second

// Times are the timeouts of the submitter.
var Times = submit.Times{Send: 10 * time.Second, Lease: 20 * time.Second}

// TB is implemented by testing.TB and, for programs, by ProgramTB.
type TB = redistest.TB

// Env is a test environment. Parts of it may be replaced before it is used.
type Env struct {
	t         TB
	clock     *clock
	Redis     redis.UniversalClient
	Sim       *gatewaysim.Server
	Ledger    *ledger.Ledger
	AM        *amdigipay.Client
	Paydia    *paydia.Client
	Policy    *retrypolicy.Policy
	Submitter *submit.Submitter
	Poller    *statuspoll.Poller
	Intake    *intake.Intake

	mu       sync.Mutex
	queue    []payment.Key     // the payments enqueued since the last call of Queue, in order
	Attempts []payment.Attempt // the attempts reported to OnAttempt
}

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

// New returns an environment on a Redis. The edits change how the gateways behave.
func New(t TB, client redis.UniversalClient, edits ...func(*gatewaysim.Config)) *Env {
	t.Helper()
	e := &Env{t: t, clock: &clock{t: Start}, Redis: client, Policy: retrypolicy.Builtin()}
	redistest.SetTime(client, Start)
	cfg := gatewaysim.DefaultConfig()
	cfg.Customers = []gatewaysim.CustomerRule{{Customer: gatewaysim.Customer{Behaviour: gatewaysim.NeverPays}, Gateway: gatewaysim.AM}}
	for _, edit := range edits {
		edit(&cfg)
	}
	e.Sim = Simulators(t, cfg, gatewaysim.ServerOptions{Now: e.Now})
	var err error
	e.AM, err = amdigipay.New(amdigipay.Options{
		BaseURL: e.Sim.URL + "/api", Username: cfg.AM.Username, Password: secret.NewText(cfg.AM.Password),
		Timeout: Timeout, Now: e.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	e.Paydia, err = paydia.New(paydia.Options{
		BaseURL: e.Sim.URL + "/snap/v1.0", ClientID: cfg.Paydia.ClientID,
		ClientSecret: secret.NewText(cfg.Paydia.ClientSecret), PrivateKey: secret.NewText(string(e.Sim.PrivateKey)),
		SendEmptyReference: cfg.Paydia.RequireReferenceNo, Timeout: Timeout, Now: e.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	cipher, err := secret.NewCipher(secret.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	e.Ledger = NewLedger(client, e.Now)
	e.Intake = &intake.Intake{Ledger: e.Ledger, Cipher: cipher, Enqueue: e.enqueue, Now: e.Now}
	e.Submitter = &submit.Submitter{
		Ledger: e.Ledger, Policy: e.Policy, Cipher: cipher, Times: Times, PollInterval: 30 * time.Second, Now: e.Now,
		Gateways:  map[payment.Gateway]clients.Gateway{payment.AMDigiPay: e.AM, payment.Paydia: e.Paydia},
		OnLogin:   func(payment.Gateway, error) {},
		OnExpired: func(*ledger.Record) {},
		OnAttempt: e.onAttempt,
	}
	e.Poller = &statuspoll.Poller{
		Ledger: e.Ledger, Submitter: e.Submitter, Policy: e.Policy, Requeue: e.requeue,
		Askers: map[payment.Gateway]statuspoll.Asker{
			payment.AMDigiPay: &statuspoll.ListAsker{Client: e.AM, Policy: e.Policy, Limit: 100},
			payment.Paydia:    &statuspoll.QueryAsker{Client: e.Paydia, Policy: e.Policy, Cipher: cipher, Concurrency: 16, Now: e.Now},
		},
		Interval: 30 * time.Second, FullScan: time.Hour, ExpiryGrace: time.Minute, LateWindow: 7 * 24 * time.Hour,
		Now: e.Now, OnAttempt: e.onAttempt, OnUnreadable: func(payment.Gateway, []string, error) {},
	}
	return e
}

// privateKey is Paydia's private key of all simulators of this process: generating one takes
// up to a second.
var privateKey = sync.OnceValues(func() ([]byte, error) {
	private, _, err := gatewaysim.NewKeyPair()
	return private, err
})

// Simulators starts both simulated gateways and stops them when the test ends.
func Simulators(t TB, config gatewaysim.Config, o gatewaysim.ServerOptions) *gatewaysim.Server {
	t.Helper()
	var err error
	if o.PrivateKey, err = privateKey(); err != nil {
		t.Fatal(err)
	}
	s, err := gatewaysim.NewServer(config, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // a failure has no effect on the test
	return s
}

// NewLedger returns a ledger that does not wait for an fsync or a replica (durable.None).
func NewLedger(client redis.UniversalClient, now func() time.Time) *ledger.Ledger {
	discard := slog.New(slog.DiscardHandler)
	return ledger.New(ledger.Options{
		Redis: client, Stream: ledger.DefaultStream, Now: now, Log: discard,
		Writes: durable.NewWriters(durable.Options{Client: client, Mode: durable.None, Now: now, Log: discard}, ledger.DurabilityKeys(client, 1)),
	})
}

// UseAdmission puts an admission controller in front of each gateway, as the worker does.
// Without it every request is allowed.
func (e *Env) UseAdmission(o admission.Options) {
	o.Redis, o.Now, o.Log, o.OnState = e.Redis, e.Now, slog.New(slog.DiscardHandler), func(int) {}
	e.Submitter.Admission = make(map[payment.Gateway]*admission.Controller)
	for _, g := range payment.Gateways() {
		o.Gateway = g
		o.Refusals = refusals.New(refusals.Options{
			Gateway: g, Limit: 10, Probe: time.Millisecond, Redis: e.Redis, Accepted: e.Ledger.Accepted, Now: e.Now, Log: o.Log,
		})
		e.Submitter.Admission[g] = admission.New(o)
		switch asker := e.Poller.Askers[g].(type) {
		case *statuspoll.ListAsker:
			asker.Admission = e.Submitter.Admission[g]
		case *statuspoll.QueryAsker:
			asker.Admission = e.Submitter.Admission[g]
		}
	}
}

// SetPolicy replaces the retry policy everywhere.
func (e *Env) SetPolicy(yaml string) {
	e.t.Helper()
	policy, err := retrypolicy.Parse("policy.yaml", []byte(yaml))
	if err != nil {
		e.t.Fatal(err)
	}
	*e.Policy = *policy
}

// Now returns the time of the environment's clock.
func (e *Env) Now() time.Time { return e.clock.now() }

// Advance moves the clock.
func (e *Env) Advance(d time.Duration) {
	e.clock.mu.Lock()
	defer e.clock.mu.Unlock()
	e.clock.t = e.clock.t.Add(d)
	redistest.SetTime(e.Redis, e.clock.t)
}

func (e *Env) enqueue(_ context.Context, payments []*payment.Payment) []error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range payments {
		e.queue = append(e.queue, p.Key())
	}
	return make([]error, len(payments))
}

func (e *Env) onAttempt(_ *ledger.Record, a payment.Attempt, _ error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.Attempts = append(e.Attempts, a)
}

func (e *Env) requeue(ctx context.Context, payments []*payment.Payment) error {
	e.enqueue(ctx, payments)
	return nil
}

// Queue returns the payments that were enqueued since the last call.
func (e *Env) Queue() []payment.Key {
	e.mu.Lock()
	defer e.mu.Unlock()
	queue := e.queue
	e.queue = nil
	return queue
}

// Create submits payments and takes them out of the queue.
func (e *Env) Create(orders ...[]byte) {
	e.t.Helper()
	lines := make([]intake.Line, len(orders))
	for i, o := range orders {
		lines[i] = intake.Line{Number: i + 1, Text: o}
	}
	for _, a := range e.Intake.Create(e.t.Context(), lines) {
		if a.Result != intake.Enqueued {
			e.t.Fatalf("create: %+v", a)
		}
	}
	e.Queue()
}

// Submit sends a payment to its gateway once.
func (e *Env) Submit(key payment.Key) submit.Next {
	e.t.Helper()
	next, err := e.Submitter.Submit(e.t.Context(), key)
	if err != nil {
		e.t.Fatalf("submit %s: %v", key, err)
	}
	return next
}

// Poll polls a gateway once.
func (e *Env) Poll(g payment.Gateway) {
	e.t.Helper()
	if err := e.Poller.Poll(e.t.Context(), g); err != nil {
		e.t.Fatalf("poll %s: %v", g, err)
	}
}

// Read reads a payment.
func (e *Env) Read(key payment.Key) *ledger.Record {
	e.t.Helper()
	record, err := e.Ledger.Read(e.t.Context(), key)
	if err != nil {
		e.t.Fatal(err)
	}
	return record
}

// History returns a payment's attempts, each as "kind code > action", and then its status.
func (e *Env) History(key payment.Key) []string {
	e.t.Helper()
	record := e.Read(key)
	var history []string
	for _, a := range record.Attempts {
		history = append(history, fmt.Sprintf("%s %s > %s", a.Kind, a.Code, a.Action))
	}
	return append(history, string(record.Status))
}
