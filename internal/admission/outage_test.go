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

// queue runs the tasks of payments by the rig's clock, as asynq would.
type queue struct {
	*testenv.Env
	t     *testing.T
	again map[payment.Key]time.Time // when each task is next run; gone once it is done
}

func newQueue(t *testing.T, o admission.Options, orders ...[]byte) *queue {
	t.Helper()
	q := &queue{Env: testenv.New(t, redistest.Mini(t)), t: t, again: make(map[payment.Key]time.Time)}
	q.UseAdmission(o)
	q.Create(orders...)
	return q
}

// step runs every task and every poll that is due, and moves on by a second.
func (q *queue) step() {
	q.t.Helper()
	for key, at := range q.again {
		if at.After(q.Now()) {
			continue
		}
		if next := q.Submit(key); next.In > 0 {
			q.again[key] = q.Now().Add(next.In)
		} else {
			delete(q.again, key)
		}
	}
	for _, g := range payment.Gateways() {
		// A login that fails is an error of the poll's; that of the submit is not.
		if err := q.Poller.Poll(q.t.Context(), g); err != nil && !errors.As(err, new(*clients.Error)) {
			q.t.Fatal(err)
		}
	}
	q.Advance(time.Second)
}

// until steps until the condition holds. The breaker's pause is real time.
func (q *queue) until(what string, condition func() bool) {
	q.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			q.t.Fatalf("never: %s", what)
		}
		q.step()
	}
}

func (q *queue) attempts(keys []payment.Key) int {
	n := 0
	for _, key := range keys {
		n += len(q.Read(key).Attempts)
	}
	return n
}

// TestOutage: a gateway goes down, with an access token still in hand. Once its
// breaker is open no attempt is spent, the other gateway is unharmed, and when it
// is back everything comes to its end, once.
func TestOutage(t *testing.T) {
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
				q.again[key] = q.Now()
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
			q.until("the breaker has let somebody try, three times", func() bool {
				return q.Sim.Requests(gatewaysim.AMLogin) >= logins+3
			})
			if n := q.attempts(am); n != failures {
				t.Errorf("%d attempts spent, want %d", n, failures)
			}
			if n := q.Sim.Requests(gatewaysim.AMCreate) + q.Sim.Requests(gatewaysim.AMList); n != failures {
				t.Errorf("%d requests that were no logins, want %d", n, failures)
			}

			q.Sim.ClearFaults()
			ended := func(key payment.Key) bool {
				s := q.Read(key).Status
				return s == payment.OnProcessing || s == payment.NeedsReview
			}
			q.until("every payment has come to its end", func() bool {
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
					t.Errorf("%s: %s, and %d times at the gateway: %q", key, status, rows, q.History(key))
				}
			}
			if want := map[bool]int{true: failures}[fault == gatewaysim.FaultLostBefore || fault == gatewaysim.Fault500Before]; lost != want {
				t.Errorf("%d payments before a person, want %d", lost, want)
			}
			if v := q.Sim.Violations(); len(v) > 0 {
				t.Errorf("violations: %+v", v)
			}
		})
	}
}

// TestClosedInTheMiddleOfAPoll: what was found before the gate closed stands, and
// what was not asked about any more counts as no look-up.
func TestClosedInTheMiddleOfAPoll(t *testing.T) {
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
	if asked < 2 || asked > 2+16 { // those already past the gate finish
		t.Errorf("%d queries", asked)
	}
	if n := q.attempts(keys) - len(keys); n != asked {
		t.Errorf("%d look-ups recorded of %d", n, asked)
	}
	q.Advance(time.Minute)
	q.Poll(payment.Paydia) // those who were asked about are due again
	if n := q.Sim.Requests(gatewaysim.PaydiaQuery); n != asked {
		t.Errorf("%d queries with the breaker open", n-asked)
	}
	q.stillDue(payment.Paydia)
	if n := q.attempts(keys) - len(keys); n != asked {
		t.Errorf("%d lookups recorded of %d", n, asked)
	}
}

// stillDue fails the test where a poll that could not ask has put off what is due: another
// worker may be able to.
func (q *queue) stillDue(g payment.Gateway) {
	q.t.Helper()
	if due, err := q.Ledger.Due(q.t.Context(), []payment.Gateway{g}); err != nil || len(due) == 0 {
		q.t.Errorf("put off: %v", err)
	}
}

// TestPauseOfALookUp: polls heed what an earlier one was told.
func TestPauseOfALookUp(t *testing.T) {
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
		t.Errorf("%d requests after the pause", n)
	}
}

// TestRetryAfterStopsEverybody: who asks for a pause is not asked by others.
func TestRetryAfterStopsEverybody(t *testing.T) {
	q := newQueue(t, admission.Options{Failures: 5, Pause: time.Second}, testenv.AMOrder("INV-1"), testenv.AMOrder("INV-2"), testenv.PaydiaOrder("INV-1"))
	one := payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV-1"}
	two := payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV-2"}
	q.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultBusy, Operation: gatewaysim.AMCreate, Delay: time.Minute, Count: 1})
	q.Submit(one)
	before := q.Sim.Requests(gatewaysim.AMCreate)
	next := q.Submit(two)
	if next.In < time.Minute || q.Sim.Requests(gatewaysim.AMCreate) != before {
		t.Errorf("told to come in %s", next.In)
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

// TestPauseOfALogin: a login that is told to wait holds up every request, logins
// included, for as long as it was told and no payment is claimed meanwhile.
func TestPauseOfALogin(t *testing.T) {
	for _, row := range []struct {
		key   payment.Key
		order []byte
		login gatewaysim.Operation
	}{
		{payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV-1"}, testenv.AMOrder("INV-1"), gatewaysim.AMLogin},
		{payment.Key{Gateway: payment.Paydia, TransactionID: "ORD-1"}, testenv.PaydiaOrder("ORD-1"), gatewaysim.PaydiaToken},
	} {
		t.Run(string(row.key.Gateway), func(t *testing.T) {
			q := newQueue(t, admission.Options{Failures: 5, Pause: time.Second}, row.order)
			q.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultBusy, Operation: row.login, Delay: 10 * time.Minute, Count: 1})
			told := q.Now()
			q.again[row.key] = told
			for q.Now().Before(told.Add(9*time.Minute + 59*time.Second)) {
				q.step()
			}
			if n := len(q.Sim.Journal()); n != 1 {
				t.Errorf("%d requests before the pause was over, want the login that was told to wait", n)
			}
			if diff := cmp.Diff([]string{"queued"}, q.History(row.key)); diff != "" {
				t.Error(diff)
			}
			for q.Now().Before(told.Add(15 * time.Minute)) {
				q.step()
			}
			if s := q.Read(row.key).Status; s != payment.OnProcessing && s != payment.Paid {
				t.Errorf("%s after the pause", s)
			}
		})
	}
}

// TestNoRoomNoClaim: a submit beyond the rate limit is not claimed. A look-up
// beyond it, whose poll would end before its turn, is not made and not counted.
func TestNoRoomNoClaim(t *testing.T) {
	q := newQueue(t, admission.Options{Failures: 5, Pause: time.Second, Requests: 1, Per: time.Hour}, testenv.AMOrder("INV-1"), testenv.AMOrder("INV-2"))
	q.Submit(payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV-1"})
	two := payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV-2"}
	if next := q.Submit(two); next.In <= 0 {
		t.Error("not told to come again")
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
		t.Errorf("%d look-ups", n)
	}
}
