package webhooks

import (
	"context"
	"encoding/base64"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"terbayar/internal/events"
	"terbayar/internal/payment"
	"terbayar/internal/secret"
)

// newSecret returns a secret; another letter gives another one.
func newSecret(letter string) string {
	return "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat(letter, 32)))
}

// received is a request that a receiver got.
type received struct {
	at     time.Time
	id     string // webhook-id
	header http.Header
	body   string
	event  event
}

// receiver is an HTTP server. Its answer function may be changed at any time.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex
	answer   http.HandlerFunc
	requests []received
	arrived  chan struct{}
}

func newReceiver(t *testing.T, answer http.HandlerFunc) *receiver {
	t.Helper()
	r := &receiver{answer: answer, arrived: make(chan struct{}, 10_000)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		e, ok := parseEvent(map[string]any{events.Field: string(body)})
		if !ok {
			t.Errorf("not an event: %s", body)
		}
		r.mu.Lock()
		r.requests = append(r.requests, received{time.Now(), req.Header.Get("webhook-id"), req.Header, string(body), e})
		answer := r.answer
		r.mu.Unlock()
		r.arrived <- struct{}{}
		answer(w, req)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) setAnswer(answer http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

func (r *receiver) all() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

// await waits for the nth request, and returns all.
func (r *receiver) await(t *testing.T, n int) []received {
	t.Helper()
	eventually(t, func() bool { return len(r.all()) >= n })
	return r.all()
}

func eventually(t *testing.T, is func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	check := time.NewTicker(5 * time.Millisecond)
	defer check.Stop()
	for !is() {
		select {
		case <-check.C:
		case <-deadline:
			t.Fatal("the expected state was not reached")
		}
	}
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// counts records what is measured.
type counts struct {
	mu       sync.Mutex
	outcomes map[string]int // "endpoint outcome"
	disabled map[string]bool
	pending  map[string]int
}

func (c *counts) WebhookTry(endpoint, outcome string, _ time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outcomes[endpoint+" "+outcome]++
}

func (c *counts) WebhookStats(endpoint string, pending int, _ time.Duration, _ int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending[endpoint] = pending
}

func (c *counts) WebhookDisabled(endpoint string, disabled bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.disabled[endpoint] = disabled
}

func (c *counts) get(outcome string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.outcomes[outcome]
}

// env is a Redis with events, and Deliverers.
type env struct {
	*testing.T
	redis   redis.UniversalClient
	streams []string
	counts  *counts
}

func newEnv(t *testing.T, client redis.UniversalClient, streams ...string) *env {
	t.Helper()
	if len(streams) == 0 {
		streams = []string{"terbayar:events"}
	}
	return &env{T: t, redis: client, streams: streams, counts: &counts{outcomes: map[string]int{}, disabled: map[string]bool{}, pending: map[string]int{}}}
}

// endpoint returns an endpoint that has one secret.
func (e *env) endpoint(name, address string) *Endpoint {
	e.Helper()
	u, err := url.Parse(address)
	if err != nil {
		e.Fatal(err)
	}
	endpoint := &Endpoint{Name: name, URL: u}
	if err := endpoint.setSecrets(secret.NewText(newSecret("a"))); err != nil {
		e.Fatal(err)
	}
	return endpoint
}

// fast is a schedule for tests.
var fast = Schedule{time.Millisecond, time.Millisecond, time.Millisecond}

var loopbackAllowed = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// start starts a worker's Deliverer. The function ends it.
func (e *env) start(schedule Schedule, endpoints ...*Endpoint) (d *Deliverer, stop func()) {
	e.Helper()
	d = New(Options{
		Redis: e.redis, Streams: e.streams, Endpoints: endpoints, Schedule: schedule, Allow: loopbackAllowed,
		Now: time.Now, Log: slog.New(slog.DiscardHandler), Metrics: e.counts,
	})
	if err := d.Start(e.Context()); err != nil {
		e.Fatal(err)
	}
	ctx, cancel := context.WithCancel(e.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.Run(ctx)
	}()
	stop = func() {
		cancel()
		<-ended
	}
	e.Cleanup(stop)
	return d, stop
}

// publish writes an event as the ledger does.
func (e *env) publish(d *Deliverer, id string, n int64, s payment.Status) {
	e.Helper()
	body, err := events.Marshal(&payment.Payment{Gateway: payment.Paydia, TransactionID: id, Status: s, Amount: 10_000, UpdatedAt: time.Now()}, n)
	if err != nil {
		e.Fatal(err)
	}
	stream := e.streams[len(id)%len(e.streams)]
	if err := e.redis.XAdd(e.Context(), &redis.XAddArgs{Stream: stream, Values: []any{events.Field, body}}).Err(); err != nil {
		e.Fatal(err)
	}
	if d != nil {
		d.Wake()
	}
}

func (e *env) admin() *Admin { return &Admin{Redis: e.redis, Streams: e.streams} }

// pending returns the deliveries that an operator sees.
func (e *env) pending(endpoint string) (all []Delivery) {
	e.Helper()
	if err := e.admin().Pending(e.Context(), endpoint, func(d Delivery) error {
		all = append(all, d)
		return nil
	}); err != nil {
		e.Fatal(err)
	}
	return all
}

// state returns what an operator sees of an endpoint.
func (e *env) state(endpoint string) EndpointState {
	e.Helper()
	all, err := e.admin().Endpoints(e.Context())
	if err != nil {
		e.Fatal(err)
	}
	for _, s := range all {
		if s.Name == endpoint {
			return s
		}
	}
	e.Fatalf("no endpoint %s in %v", endpoint, all)
	return EndpointState{}
}

// verify checks a request's signature as a receiver does.
func verify(t *testing.T, r received, secretText string) {
	t.Helper()
	wh, err := standardwebhooks.NewWebhook(secretText)
	if err == nil {
		err = wh.Verify([]byte(r.body), r.header)
	}
	if err != nil {
		t.Errorf("signature of %s: %v", r.id, err)
	}
}
