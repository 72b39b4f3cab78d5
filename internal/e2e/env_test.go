// Package e2e runs the programs as a user does: worker and enqueue, built from the checkout
// and configured by their environment, a real redis-server, and both simulated gateways.
package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/testenv"
	"terbayar/internal/testenv/programs"
	"terbayar/internal/testenv/verify"
)

func TestMain(m *testing.M) { programs.Main(m) }

// slow skips a test in short mode, and lets it run beside others.
func slow(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a Redis server and workers; scripts/test --all runs it")
	}
	t.Parallel()
}

// env is the environment of one test.
type env struct {
	*programs.Env

	t        *testing.T
	server   *redistest.Process
	gateway  *observer
	consumer *programs.EventConsumer
	printed  strings.Builder // by enqueue

	submitted    []programs.Payment
	gatewaysFail bool // payments may be sent again
}

// newEnv returns an environment. The edits change how the gateways behave.
func newEnv(t *testing.T, edits ...func(*gatewaysim.Config)) *env {
	t.Helper()
	e := &env{t: t, server: redistest.Server(t), gateway: &observer{secrets: map[string]bool{}}}
	e.Env = programs.New(t, e.server.URL(), programs.Options{
		Simulators: append([]func(*gatewaysim.Config){programs.UseKinds, nameCustomer}, edits...),
		Middleware: e.gateway.middleware,
	})
	e.Settings["LOG_LEVEL"] = "debug"
	e.consumer = e.NewEventConsumer()
	// Duplicate charges and malformed requests are reported even if the test ends before finish.
	t.Cleanup(func() {
		run := verify.Run{Payments: e.payments(), Rows: e.Sim.Rows(), Journal: e.Sim.Journal(), Violations: e.Sim.Violations()}
		for _, f := range run.Verify().Findings {
			if f.Kind == verify.DuplicateCharge || f.Kind == verify.MalformedRequest {
				t.Error(f)
			}
		}
	})
	return e
}

// nameCustomer makes AM's refusals contain the customer's name.
func nameCustomer(c *gatewaysim.Config) { c.Refusals[0].Code = "Saldo Nyonya Rahasia tidak cukup" }

// payments returns what was submitted.
func (e *env) payments() []verify.Payment {
	var all []verify.Payment
	for _, p := range e.submitted {
		all = append(all, p.Payment)
	}
	return all
}

var (
	titles = []string{"Kopi & roti", "<b>murah</b>", "Café é", `the "best" 'one'`, "支付订单 № 5", `a\b/c`, "😀 👨\u200d👩 = 100%"}
	tails  = []string{"", "/a b", " é", "支付", `"q'`, "#?%&+", "{x}:y"}
)

// samples returns n payments of the kinds with these prefixes, or of every kind. Their ids
// and titles contain what an encoding could get wrong.
func samples(n int, prefixes ...string) []programs.Payment {
	return programs.NewMix(n, programs.KindsWith(prefixes...), func(i int, o *testenv.Order) {
		o.Key.TransactionID += tails[i%len(tails)]
		o.Title = titles[i%len(titles)]
		o.Method = []int64{33, 37, 22}[i%3]
		o.Number, o.Name = fmt.Sprintf("+62-811-%05d", i), "Nyonya Rahasia "+o.Title
		o.Email = fmt.Sprintf("n%d@customer.example", i)
		o.EscapeHTML = i%4 < 2
		if o.Key.Gateway == payment.Paydia {
			o.Token = fmt.Sprint(tokenMark, i)
		}
	})
}

// orReview allows manual review of the payments.
func orReview(all []programs.Payment) []programs.Payment {
	for i := range all {
		all[i].MayNeedReview = true
	}
	return all
}

// answer is a line of the output of "enqueue create" (docs/interface.md).
type answer struct {
	Line          int    `json:"line"`
	Gateway       string `json:"gateway"`
	TransactionID string `json:"transaction_id"`
	Result        string `json:"result"`
	Status        string `json:"status,omitempty"` // of a conflict
	Error         string `json:"error,omitempty"`
	Errors        []struct {
		Field  string `json:"field"`
		Detail string `json:"detail"`
	} `json:"errors,omitempty"`
}

// create submits payments and requires a result for all of them.
func (e *env) create(all []programs.Payment, want string) {
	e.Helper()
	r := e.enqueue(programs.Input(all), "create")
	if r.Code != 0 || r.Stderr != "" {
		e.Fatalf("enqueue create ended with exit code %d: %s%s", r.Code, r.Stderr, r.Stdout)
	}
	var expected []answer
	for i, p := range all {
		expected = append(expected, answer{Line: i + 1, Gateway: string(p.Key.Gateway), TransactionID: p.Key.TransactionID, Result: want})
		if !slices.ContainsFunc(e.submitted, func(s programs.Payment) bool { return s.Key == p.Key }) {
			p.Acknowledged = true
			e.submitted = append(e.submitted, p)
		}
	}
	if diff := cmp.Diff(expected, lines[answer](e, r.Stdout)); diff != "" {
		e.Fatal(diff)
	}
}

// enqueue runs enqueue and remembers what it printed.
func (e *env) enqueue(stdin string, args ...string) programs.Result {
	e.Helper()
	r := e.Run("enqueue", args, stdin)
	e.printed.WriteString(r.Stdout + r.Stderr)
	return r
}

// await waits until payments have ended, and returns them.
func (e *env) await(some []programs.Payment) []*payment.Payment {
	e.Helper()
	var open []verify.Payment
	for _, p := range some {
		open = append(open, p.Payment)
	}
	if n := e.AwaitEnd(open, programs.Timeout); n > 0 {
		e.RequireClean(e.collect().Verify())
		e.Fatalf("%d of %d payments have not ended within %s", n, len(some), programs.Timeout)
	}
	records := make([]*payment.Payment, len(some))
	for i, p := range some {
		records[i] = e.read(p.Key)
	}
	return records
}

// finish waits until everything that was submitted has ended, verifies the run, and returns
// the payments. It reads the stream with "enqueue events".
func (e *env) finish() []*payment.Payment {
	e.Helper()
	records := e.await(e.submitted)
	run := e.collect()
	r := e.enqueue("", "events")
	if r.Code != 0 {
		e.Fatalf("enqueue events: %+v", r)
	}
	run.Stream = nil
	for line := range strings.Lines(r.Stdout) {
		event, err := verify.ParseEvent([]byte(line))
		if err != nil {
			e.Fatal(err)
		}
		run.Stream = append(run.Stream, event)
	}
	e.RequireClean(run.Verify())
	return records
}

func (e *env) collect() *verify.Run {
	e.Helper()
	run := e.Collect(e.payments(), e.consumer)
	run.SentOnce = !e.gatewaysFail
	return run
}

// read reads a payment.
func (e *env) read(key payment.Key) *payment.Payment {
	e.Helper()
	r, err := e.Ledger.Read(e.Context(), key)
	if err != nil {
		e.Fatal(err)
	}
	return &r.Payment
}

// details returns everything that is known about a payment.
func (e *env) details(key payment.Key) string {
	e.Helper()
	return key.String() + "\n" + e.collect().Verify().Details(key)
}

// submits returns a payment's attempts to send it.
func submits(p *payment.Payment) []payment.Attempt {
	return slices.DeleteFunc(slices.Clone(p.Attempts), func(a payment.Attempt) bool { return a.Kind != payment.KindSubmit })
}

// of returns the payments to one gateway.
func of(all []programs.Payment, g payment.Gateway) []programs.Payment {
	return slices.DeleteFunc(slices.Clone(all), func(p programs.Payment) bool { return p.Key.Gateway != g })
}

// lines decodes a text with one JSON value in each line. Unknown members fail the test.
func lines[T any](e *env, text string) []T {
	e.Helper()
	var all []T
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	for {
		var value T
		switch err := dec.Decode(&value); {
		case errors.Is(err, io.EOF):
			if n := strings.Count(text, "\n"); n != len(all) {
				e.Errorf("%d values in %d lines", len(all), n)
			}
			return all
		case err != nil:
			e.Fatalf("%v in %s", err, text)
		}
		all = append(all, value)
	}
}

// page requests a page; the edits change the request. Status 0 means no answer.
func (e *env) page(method, url string, edits ...func(*http.Request)) (status int, body string) {
	e.Helper()
	r, err := http.NewRequestWithContext(e.Context(), method, url, http.NoBody)
	if err != nil {
		e.Fatal(err)
	}
	for _, edit := range edits {
		edit(r)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(res.Body); err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, text.String()
}

// observer is a middleware around the gateways. It remembers the secrets that it sees, and
// counts the requests in flight.
type observer struct {
	mu      sync.Mutex
	secrets map[string]bool
	moving  int // number of requests that move money and have not been answered
}

func (o *observer) middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		moving := 0
		if strings.HasSuffix(r.URL.Path, "/payment/transaction") || strings.HasSuffix(r.URL.Path, "/auth/payment") {
			moving = 1
		}
		o.mu.Lock()
		for _, name := range []string{"Authorization", "Authorization-Customer", "X-Signature"} {
			if value := strings.TrimPrefix(r.Header.Get(name), "Bearer "); value != "" {
				o.secrets[value] = true
			}
		}
		o.moving += moving
		o.mu.Unlock()
		defer func() { // a fault that loses the connection panics
			o.mu.Lock()
			defer o.mu.Unlock()
			o.moving -= moving
		}()
		next.ServeHTTP(w, r)
	})
}

// inFlight returns the number of requests that move money and have not been answered.
func (o *observer) inFlight() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.moving
}
