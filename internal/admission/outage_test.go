package admission_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/admission"
	"terbayar/internal/clients"
	"terbayar/internal/gatewaysim"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/testenv"
)

// queue runs the tasks of payments by the test environment's clock, as asynq would.
type queue struct {
	*testenv.Env
	t     *testing.T
	tasks map[payment.Key]time.Time // when each task is next run; a task that is done is deleted
}

func newQueue(t *testing.T, o admission.Options, orders ...[]byte) *queue {
	t.Helper()
	q := &queue{Env: testenv.New(t, redistest.Mini(t)), t: t, tasks: make(map[payment.Key]time.Time)}
	q.UseAdmission(o)
	q.Create(orders...)
	return q
}

// stepTime is how far each step advances the clock.
const stepTime = 10 * time.Second

// step runs all tasks and polls that are due, then advances the clock.
func (q *queue) step() {
	q.t.Helper()
	for key, at := range q.tasks {
		if at.After(q.Now()) {
			continue
		}
		if next := q.Submit(key); next.In > 0 {
			q.tasks[key] = q.Now().Add(next.In)
		} else {
			delete(q.tasks, key)
		}
	}
	for _, g := range payment.Gateways() {
		// Poll returns a failed login as an error; Submit does not.
		if err := q.Poller.Poll(q.t.Context(), g); err != nil && !errors.As(err, new(*clients.Error)) {
			q.t.Fatal(err)
		}
	}
	q.Advance(stepTime)
}

// until steps until the condition holds. The breaker's pause passes in real time.
func (q *queue) until(what string, condition func() bool) {
	q.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			q.t.Fatalf("not in time: %s", what)
		}
		q.step()
	}
}

// attempts returns the number of attempts of all the payments.
func (q *queue) attempts(keys []payment.Key) int {
	n := 0
	for _, key := range keys {
		n += len(q.Read(key).Attempts)
	}
	return n
}

// TestOutage checks what happens when a gateway goes down while the worker has an access
// token: once the breaker is open no attempt is spent, the other gateway is not affected, and
// after the outage every payment is accepted or goes to review, none twice.
func TestOutage(t *testing.T) {
	t.Parallel()
	const failures = 5
	for _, fault := range []gatewaysim.Fault{
		gatewaysim.FaultLostBefore, gatewaysim.FaultLostAfter, gatewaysim.Fault500Before, gatewaysim.FaultHTMLAfter,
	} {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			q := newQueue(t, admission.Options{Failures: failures, Pause: 20 * time.Millisecond})
			if err := q.AM.Authenticate(t.Context()); err != nil {
				t.Fatal(err)
			}
			q.Sim.Inject(gatewaysim.FaultRule{Fault: fault, Operation: gatewaysim.Operation(gatewaysim.AM)})
			var am, paydia []payment.Key
			for i := range 20 {
				id := fmt.Sprintf("INV-%d", i)
				am = append(am, payment.Key{Gateway: payment.AMDigiPay, TransactionID: id})
				paydia = append(paydia, payment.Key{Gateway: payment.Paydia, TransactionID: id})
				q.Create(testenv.AMOrder(id), testenv.PaydiaOrder(id))
			}
			for _, key := range slices.Concat(am, paydia) {
				q.tasks[key] = q.Now()
			}

			q.step()
			if n := q.Sim.Requests(gatewaysim.AMCreate); n != failures {
				t.Errorf("%d requests until the breaker opened, want %d", n, failures)
			}
			for _, key := range paydia {
				if diff := cmp.Diff([]string{"submit 2006300 > accept", "paid"}, q.History(key)); diff != "" {
					t.Errorf("the other gateway: %s", diff)
				}
			}
			logins := q.Sim.Requests(gatewaysim.AMLogin)
			q.until("the half-open breaker has allowed three logins", func() bool {
				return q.Sim.Requests(gatewaysim.AMLogin) >= logins+3
			})
			if n := q.attempts(am); n != failures {
				t.Errorf("%d attempts spent, want %d", n, failures)
			}
			if n := q.Sim.Requests(gatewaysim.AMCreate) + q.Sim.Requests(gatewaysim.AMList); n != failures {
				t.Errorf("%d requests without logins, want %d", n, failures)
			}

			q.Sim.ClearFaults()
			ended := func(key payment.Key) bool {
				s := q.Read(key).Status
				return s == payment.OnProcessing || s == payment.NeedsReview
			}
			q.until("every payment has ended", func() bool {
				return !slices.ContainsFunc(am, func(key payment.Key) bool { return !ended(key) })
			})
			lost := 0
			for _, key := range am {
				rows := len(q.Sim.RowsOf(gatewaysim.AM, key.TransactionID))
				status := q.Read(key).Status
				if status == payment.NeedsReview {
					lost++
				}
				if (status == payment.OnProcessing) != (rows == 1) || rows > 1 {
					t.Errorf("%s: %s, %d times at the gateway: %q", key, status, rows, q.History(key))
				}
			}
			if want := map[bool]int{true: failures}[fault == gatewaysim.FaultLostBefore || fault == gatewaysim.Fault500Before]; lost != want {
				t.Errorf("%d payments in review, want %d", lost, want)
			}
			if v := q.Sim.Violations(); len(v) > 0 {
				t.Errorf("violations: %+v", v)
			}
		})
	}
}

// TestBreakerOpensDuringPoll checks that lookups made before the breaker opened are recorded,
// and that lookups that were denied are not counted.
func TestBreakerOpensDuringPoll(t *testing.T) {
	t.Parallel()
	q := newQueue(t, admission.Options{Failures: 2, Pause: time.Hour})
	q.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultPending, Operation: gatewaysim.PaydiaPayment})
	var keys []payment.Key
	for i := range 30 {
		id := fmt.Sprintf("ORD-%d", i)
		keys = append(keys, payment.Key{Gateway: payment.Paydia, TransactionID: id})
		q.Create(testenv.PaydiaOrder(id))
		q.Submit(keys[i])
	}
	q.Sim.ClearFaults()
	q.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.Fault500Before, Operation: gatewaysim.PaydiaQuery})
	q.Advance(10 * time.Second)
	q.Poll(payment.Paydia)
	asked := q.Sim.Requests(gatewaysim.PaydiaQuery)
	if asked < 2 || asked > 2+16 { // requests in flight are finished
		t.Errorf("%d queries", asked)
	}
	if n := q.attempts(keys) - len(keys); n != asked {
		t.Errorf("%d lookups recorded, want %d", n, asked)
	}
	q.Advance(time.Minute)
	q.Poll(payment.Paydia) // all payments are due again
	if n := q.Sim.Requests(gatewaysim.PaydiaQuery); n != asked {
		t.Errorf("%d queries while the breaker was open", n-asked)
	}
	q.stillDue(payment.Paydia)
	if n := q.attempts(keys) - len(keys); n != asked {
		t.Errorf("%d lookups recorded, want %d", n, asked)
	}
}

// stillDue fails the test if a poll that was denied has rescheduled the payments that are
// due: another worker may be able to look them up.
func (q *queue) stillDue(g payment.Gateway) {
	q.t.Helper()
	if due, _, err := q.Ledger.Due(q.t.Context(), []payment.Gateway{g}); err != nil || len(due) == 0 {
		q.t.Errorf("not due: %v, %v", due, err)
	}
}

// TestRetryAfterOfLookup checks that polls obey the Retry-After of an earlier poll's lookup.
func TestRetryAfterOfLookup(t *testing.T) {
	t.Parallel()
	q := newQueue(t, admission.Options{Failures: 5, Pause: time.Second}, testenv.AMOrder("INV-1"))
	q.Submit(payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV-1"})
	q.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultBusy, Operation: gatewaysim.AMList, Delay: 10 * time.Minute, Count: 1})
	for range 2 {
		q.Advance(30 * time.Second)
		q.Poll(payment.AMDigiPay)
	}
	if n := q.Sim.Requests(gatewaysim.AMList); n != 1 {
		t.Errorf("%d requests", n)
	}
	q.stillDue(payment.AMDigiPay)
	q.Advance(14 * time.Minute)
	q.Poll(payment.AMDigiPay)
	if n := q.Sim.Requests(gatewaysim.AMList); n != 2 {
		t.Errorf("%d requests after Retry-After", n)
	}
}

// TestRetryAfterOfSubmit checks that one payment's Retry-After delays the gateway's other
// payments, and not the other gateway's.
func TestRetryAfterOfSubmit(t *testing.T) {
	t.Parallel()
	q := newQueue(t, admission.Options{Failures: 5, Pause: time.Second}, testenv.AMOrder("INV-1"), testenv.AMOrder("INV-2"), testenv.PaydiaOrder("INV-1"))
	one := payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV-1"}
	two := payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV-2"}
	q.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultBusy, Operation: gatewaysim.AMCreate, Delay: time.Minute, Count: 1})
	q.Submit(one)
	before := q.Sim.Requests(gatewaysim.AMCreate)
	next := q.Submit(two)
	if next.In < time.Minute || q.Sim.Requests(gatewaysim.AMCreate) != before {
		t.Errorf("next try in %s, %d requests", next.In, q.Sim.Requests(gatewaysim.AMCreate))
	}
	if diff := cmp.Diff([]string{"queued"}, q.History(two)); diff != "" {
		t.Error(diff)
	}
	q.Submit(payment.Key{Gateway: payment.Paydia, TransactionID: "INV-1"})
	if n := q.Sim.Requests(gatewaysim.PaydiaPayment); n != 1 {
		t.Errorf("%d requests to the other gateway", n)
	}
	q.Advance(next.In)
	q.Submit(two)
	if diff := cmp.Diff([]string{"submit http:200 > accept", "on_processing"}, q.History(two)); diff != "" {
		t.Error(diff)
	}
}

// TestRetryAfterOfLogin checks that a login's Retry-After delays all requests, logins too, and
// that no payment is claimed meanwhile.
func TestRetryAfterOfLogin(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		key   payment.Key
		order []byte
		login gatewaysim.Operation
	}{
		{payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV-1"}, testenv.AMOrder("INV-1"), gatewaysim.AMLogin},
		{payment.Key{Gateway: payment.Paydia, TransactionID: "ORD-1"}, testenv.PaydiaOrder("ORD-1"), gatewaysim.PaydiaToken},
	} {
		t.Run(string(row.key.Gateway), func(t *testing.T) {
			t.Parallel()
			q := newQueue(t, admission.Options{Failures: 5, Pause: time.Second}, row.order)
			q.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultBusy, Operation: row.login, Delay: 10 * time.Minute, Count: 1})
			start := q.Now()
			q.tasks[row.key] = start
			for q.Now().Before(start.Add(9*time.Minute + 59*time.Second)) {
				q.step()
			}
			if n := len(q.Sim.Journal()); n != 1 {
				t.Errorf("%d requests before the end of Retry-After, want only the login", n)
			}
			if diff := cmp.Diff([]string{"queued"}, q.History(row.key)); diff != "" {
				t.Error(diff)
			}
			for q.Now().Before(start.Add(15 * time.Minute)) {
				q.step()
			}
			if s := q.Read(row.key).Status; s != payment.OnProcessing && s != payment.Paid {
				t.Errorf("%s after Retry-After", s)
			}
		})
	}
}

// TestRateLimit checks that a submit that exceeds the rate limit is not claimed, and that a
// lookup that would have to wait longer than its poll is neither made nor counted.
func TestRateLimit(t *testing.T) {
	t.Parallel()
	q := newQueue(t, admission.Options{Failures: 5, Pause: time.Second, Requests: 1, Per: time.Hour}, testenv.AMOrder("INV-1"), testenv.AMOrder("INV-2"))
	q.Submit(payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV-1"})
	two := payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV-2"}
	if next := q.Submit(two); next.In <= 0 {
		t.Error("no next try")
	}
	if diff := cmp.Diff([]string{"queued"}, q.History(two)); diff != "" {
		t.Error(diff)
	}
	q.Advance(30 * time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	if err := q.Poller.Poll(ctx, payment.AMDigiPay); err != nil {
		t.Error(err)
	}
	if n := q.Sim.Requests(gatewaysim.AMList); n != 0 {
		t.Errorf("%d lookups", n)
	}
}
