// Package testenv wires, for tests, everything between the queue and the gateways:
// ledger, submitter, poller, both clients, and both simulated gateways behind
// real sockets, all on one clock that only the test moves. No program imports it.
package testenv

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"sync"
	"testing"
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

// Start is when every rig's clock starts: 10:00 in Jakarta. It lies in the future, so
// that by a real Redis' clock no order has expired.
var Start = time.Date(2036, 5, 21, 3, 0, 0, 0, time.UTC)

// Timeout is the gateway time-out of a rig's clients. It runs on the real clock.
const Timeout = 2 * time.Second

// Times are the timeouts around a rig's submits.
var Times = submit.Times{Send: 10 * time.Second, Lease: 20 * time.Second}

// Env is the wiring. Replace parts before using it.
type Env struct {
	t         testing.TB
	clock     *clock
	Redis     redis.UniversalClient
	Sim       *gatewaysim.Sim
	Ledger    *ledger.Ledger
	AM        *amdigipay.Client
	Paydia    *paydia.Client
	Policy    *retrypolicy.Policy
	Submitter *submit.Submitter
	Poller    *statuspoll.Poller
	Intake    *intake.Intake

	mu       sync.Mutex
	queue    []payment.Key     // what was enqueued, in order
	Attempts []payment.Attempt // what OnAttempt was told
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

// New builds a rig on the given Redis. The edits change how the gateways behave.
func New(t testing.TB, client redis.UniversalClient, edits ...func(*gatewaysim.Config)) *Env {
	t.Helper()
	r := &Env{t: t, clock: &clock{t: Start}, Redis: client, Policy: retrypolicy.Builtin()}
	redistest.SetTime(client, Start)
	private, public, err := gatewaysim.NewKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	cfg := gatewaysim.DefaultConfig()
	cfg.Paydia.PublicKey = public
	cfg.Customers = []gatewaysim.CustomerRule{{Customer: gatewaysim.Customer{Behaviour: gatewaysim.NeverPays}, Gateway: gatewaysim.AM}}
	for _, edit := range edits {
		edit(&cfg)
	}
	r.Sim = gatewaysim.New(cfg, r.Now)
	server := httptest.NewServer(r.Sim.Handler())
	t.Cleanup(server.Close)

	r.AM, err = amdigipay.New(amdigipay.Options{
		BaseURL: server.URL + "/api", Username: cfg.AM.Username, Password: secret.NewText(cfg.AM.Password),
		Timeout: Timeout, Now: r.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Paydia, err = paydia.New(paydia.Options{
		BaseURL: server.URL + "/snap/v1.0", ClientID: cfg.Paydia.ClientID,
		ClientSecret: secret.NewText(cfg.Paydia.ClientSecret), PrivateKey: secret.NewText(string(private)),
		SendEmptyReference: cfg.Paydia.RequireReferenceNo, Timeout: Timeout, Now: r.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := secret.NewCipher(secret.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	r.Ledger = NewLedger(client, r.Now)
	r.Intake = &intake.Intake{Ledger: r.Ledger, Cipher: sealer, Enqueue: r.enqueue, Now: r.Now}
	r.Submitter = &submit.Submitter{
		Ledger: r.Ledger, Policy: r.Policy, Cipher: sealer, Times: Times, PollInterval: 30 * time.Second, Now: r.Now,
		Gateways:  map[payment.Gateway]clients.Gateway{payment.AMDigiPay: r.AM, payment.Paydia: r.Paydia},
		OnLogin:   func(payment.Gateway, error) {},
		OnExpired: func(*ledger.Record) {},
		OnAttempt: r.onAttempt,
	}
	r.Poller = &statuspoll.Poller{
		Ledger: r.Ledger, Submitter: r.Submitter, Policy: r.Policy, Requeue: r.requeue,
		Askers: map[payment.Gateway]statuspoll.Asker{
			payment.AMDigiPay: &statuspoll.ListAsker{Client: r.AM, Policy: r.Policy, Limit: 100},
			payment.Paydia:    &statuspoll.QueryAsker{Client: r.Paydia, Policy: r.Policy, Cipher: sealer, Concurrency: 16, Now: r.Now},
		},
		Interval: 30 * time.Second, FullScan: time.Hour, ExpiryGrace: time.Minute, LateWindow: 7 * 24 * time.Hour,
		Now: r.Now, OnAttempt: r.onAttempt, OnUnreadable: func(payment.Gateway, []string, error) {},
	}
	return r
}

// NewLedger makes a ledger on a Redis that acknowledges by answering.
func NewLedger(client redis.UniversalClient, now func() time.Time) *ledger.Ledger {
	discard := slog.New(slog.DiscardHandler)
	return ledger.New(ledger.Options{
		Redis: client, Stream: ledger.DefaultStream, Now: now, Log: discard,
		Writes: durable.New(durable.Options{Client: client, Mode: durable.None, Key: ledger.DurabilityKey, Now: now, Log: discard}),
	})
}

// UseAdmission puts a gate before each gateway, as the worker does; without it both may
// always be asked. What the options leave out is the rig's.
func (r *Env) UseAdmission(o admission.Options) {
	o.Redis, o.Now, o.Log, o.OnState = r.Redis, r.Now, slog.New(slog.DiscardHandler), func(int) {}
	r.Submitter.Admission = make(map[payment.Gateway]*admission.Controller)
	for _, g := range payment.Gateways() {
		o.Gateway = g
		o.Refusals = refusals.New(refusals.Options{
			Gateway: g, Limit: 10, Probe: time.Millisecond, Redis: r.Redis, Accepted: r.Ledger.Accepted, Now: r.Now, Log: o.Log,
		})
		r.Submitter.Admission[g] = admission.New(o)
		switch asker := r.Poller.Askers[g].(type) {
		case *statuspoll.ListAsker:
			asker.Admission = r.Submitter.Admission[g]
		case *statuspoll.QueryAsker:
			asker.Admission = r.Submitter.Admission[g]
		}
	}
}

// SetPolicy puts another policy in force everywhere.
func (r *Env) SetPolicy(yaml string) {
	r.t.Helper()
	policy, err := retrypolicy.Parse("policy.yaml", []byte(yaml))
	if err != nil {
		r.t.Fatal(err)
	}
	*r.Policy = *policy
}

// Now is the rig's clock.
func (r *Env) Now() time.Time { return r.clock.now() }

// Advance moves the clock.
func (r *Env) Advance(d time.Duration) {
	r.clock.mu.Lock()
	defer r.clock.mu.Unlock()
	r.clock.t = r.clock.t.Add(d)
	redistest.SetTime(r.Redis, r.clock.t)
}

func (r *Env) enqueue(_ context.Context, key payment.Key, _ payment.Rupiah) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue = append(r.queue, key)
	return nil
}

func (r *Env) onAttempt(_ *ledger.Record, a payment.Attempt, _ error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Attempts = append(r.Attempts, a)
}

func (r *Env) requeue(ctx context.Context, payments []*payment.Payment) error {
	for _, p := range payments {
		_ = r.enqueue(ctx, p.Key(), p.Amount) // it cannot fail
	}
	return nil
}

// Queue returns what was enqueued since it was last asked.
func (r *Env) Queue() []payment.Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	queue := r.queue
	r.queue = nil
	return queue
}

// AMOrder is a payment of 13000 rupiah that can be paid for a day.
func AMOrder(id string) []byte {
	return fmt.Appendf(nil, `{"gateway":"amdigipay","payment":{"payment_id":33,"expired_date":"2036-05-22 10:00:00",`+
		`"nominal":10000,"admin_fee":3000,"transaction_id":%q,"transaction_total":13000,"transaction_name":"a/b & <c> é \"q\" 支付",`+
		`"transaction_desc":"testing","customer_number":"085925065195","customer_name":"testing","item_details":[`+
		`{"item_id":"testing","item_price":10000,"item_total_price":10000,"item_quantity":1,"item_name":"testing"},`+
		`{"item_id":"fee","item_price":3000,"item_total_price":3000,"item_quantity":1,"item_name":"fee"}]}}`, id)
}

// PaydiaOrder is a payment of 10000 rupiah.
func PaydiaOrder(id string) []byte {
	return fmt.Appendf(nil, `{"gateway":"paydia","customer_token":"eyJ.customer.%s","payment":{"partnerReferenceNo":%q,`+
		`"merchantId":"240327001000000","amount":{"value":"10000.00","currency":"IDR"},"title":"a/b & <c> é \"q\" 支付"}}`, id, id)
}

// Create hands payments in and empties the queue of them.
func (r *Env) Create(orders ...[]byte) {
	r.t.Helper()
	lines := make([]intake.Line, len(orders))
	for i, o := range orders {
		lines[i] = intake.Line{Number: i + 1, Text: o}
	}
	for _, a := range r.Intake.Create(r.t.Context(), lines) {
		if a.Result != intake.Enqueued {
			r.t.Fatalf("take: %+v", a)
		}
	}
	r.Queue()
}

// Submit submits a payment once.
func (r *Env) Submit(key payment.Key) submit.Next {
	r.t.Helper()
	next, err := r.Submitter.Submit(r.t.Context(), key)
	if err != nil {
		r.t.Fatalf("submit %s: %v", key, err)
	}
	return next
}

// Poll polls a gateway once.
func (r *Env) Poll(g payment.Gateway) {
	r.t.Helper()
	if err := r.Poller.Poll(r.t.Context(), g); err != nil {
		r.t.Fatalf("poll %s: %v", g, err)
	}
}

// Read reads a payment.
func (r *Env) Read(key payment.Key) *ledger.Record {
	r.t.Helper()
	record, err := r.Ledger.Read(r.t.Context(), key)
	if err != nil {
		r.t.Fatal(err)
	}
	return record
}

// History tells a payment's attempts, "kind code > action" each, and its status.
func (r *Env) History(key payment.Key) []string {
	r.t.Helper()
	record := r.Read(key)
	var story []string
	for _, a := range record.Attempts {
		story = append(story, fmt.Sprintf("%s %s > %s", a.Kind, a.Code, a.Action))
	}
	return append(story, string(record.Status))
}
