package submit_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/clients"
	"terbayar/internal/gatewaysim"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/secret"
	"terbayar/internal/submit"
	"terbayar/internal/testenv"
)

var (
	inv = payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV/1"}
	ord = payment.Key{Gateway: payment.Paydia, TransactionID: "ORD-1"}
)

// TestEveryAnswer checks, for each way a gateway can behave, the attempts and status after one
// submit, when the payment is next processed, and how often the gateway has it.
func TestEveryAnswer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		key     payment.Key
		fault   gatewaysim.FaultRule
		history []string
		rows    int
	}{
		{"AM", inv, gatewaysim.FaultRule{}, []string{"submit http:200 > accept", "on_processing"}, 1},
		{"AM", inv, gatewaysim.FaultRule{Fault: gatewaysim.FaultLostBefore}, []string{"submit net:unknown > verify", "verifying"}, 0},
		{"AM", inv, gatewaysim.FaultRule{Fault: gatewaysim.FaultLostAfter}, []string{"submit net:unknown > verify", "verifying"}, 1},
		{"AM", inv, gatewaysim.FaultRule{Fault: gatewaysim.FaultCutShort}, []string{"submit net:unknown > verify", "verifying"}, 1},
		{"AM", inv, gatewaysim.FaultRule{Fault: gatewaysim.FaultSlow, Delay: 2 * testenv.Timeout}, []string{"submit net:unknown > verify", "verifying"}, 1},
		{"AM", inv, gatewaysim.FaultRule{Fault: gatewaysim.Fault500Before}, []string{"submit http:500 > verify", "verifying"}, 0},
		{"AM", inv, gatewaysim.FaultRule{Fault: gatewaysim.Fault500After}, []string{"submit http:500 > verify", "verifying"}, 1},
		{"AM", inv, gatewaysim.FaultRule{Fault: gatewaysim.FaultHTMLAfter}, []string{"submit http:500 > verify", "verifying"}, 1},
		{"AM", inv, gatewaysim.FaultRule{Fault: gatewaysim.FaultHTMLAfter, Status: 200}, []string{"submit body:unreadable > verify", "verifying"}, 1},
		{"AM", inv, gatewaysim.FaultRule{Fault: gatewaysim.FaultEmpty}, []string{"submit body:unreadable > verify", "verifying"}, 1},
		{"AM", inv, gatewaysim.FaultRule{Fault: gatewaysim.FaultPending}, []string{"submit body:unreadable > verify", "verifying"}, 1},
		{"AM", inv, gatewaysim.FaultRule{Fault: gatewaysim.FaultDisagree}, []string{"submit http:500 > verify", "verifying"}, 1},
		{"AM", inv, gatewaysim.FaultRule{Fault: gatewaysim.FaultBusy}, []string{"submit http:429 > retry", "queued"}, 0},
		{"AM", inv, gatewaysim.FaultRule{Fault: gatewaysim.FaultRefuse}, []string{"submit error:true > reject", "rejected"}, 0},
		{"AM", inv, gatewaysim.FaultRule{Fault: gatewaysim.FaultTokenLost}, []string{"submit http:401 > refresh_token", "queued"}, 0},
		{"Paydia", ord, gatewaysim.FaultRule{}, []string{"submit 2006300 > accept", "paid"}, 1},
		{"Paydia", ord, gatewaysim.FaultRule{Fault: gatewaysim.FaultLostAfter}, []string{"submit net:unknown > verify", "verifying"}, 1},
		{"Paydia", ord, gatewaysim.FaultRule{Fault: gatewaysim.Fault500After}, []string{"submit 5006301 > verify", "verifying"}, 1},
		{"Paydia", ord, gatewaysim.FaultRule{Fault: gatewaysim.FaultHTMLBefore, Status: 502}, []string{"submit http:502 > verify", "verifying"}, 0},
		{"Paydia", ord, gatewaysim.FaultRule{Fault: gatewaysim.FaultPending}, []string{"submit 2026300 > verify", "verifying"}, 1},
		{"Paydia", ord, gatewaysim.FaultRule{Fault: gatewaysim.FaultDisagree}, []string{"submit http:500 > verify", "verifying"}, 1},
		{"Paydia", ord, gatewaysim.FaultRule{Fault: gatewaysim.FaultBusy}, []string{"submit 4296300 > retry", "queued"}, 0},
		{"Paydia", ord, gatewaysim.FaultRule{Fault: gatewaysim.FaultRefuse}, []string{"submit 4036314 > reject", "rejected"}, 0},
		{"Paydia", ord, gatewaysim.FaultRule{Fault: gatewaysim.FaultRefuse, Code: "4016300"}, []string{"submit 4016300 > review", "needs_review"}, 0},
		{"Paydia", ord, gatewaysim.FaultRule{Fault: gatewaysim.FaultRefuse, Code: "4999999"}, []string{"submit 4999999 > verify", "verifying"}, 0},
		{"Paydia", ord, gatewaysim.FaultRule{Fault: gatewaysim.FaultTokenLost}, []string{"submit 4016301 > refresh_token", "queued"}, 0},
	} {
		t.Run(c.name+" "+string(c.fault.Fault)+c.fault.Code, func(t *testing.T) {
			t.Parallel()
			r := testenv.New(t, redistest.Mini(t))
			c.fault.Reference = c.key.TransactionID
			if c.fault.Fault != "" {
				r.Sim.Inject(c.fault)
			}
			r.Create(testenv.AMOrder(inv.TransactionID), testenv.PaydiaOrder(ord.TransactionID))
			next := r.Submit(c.key)
			if diff := cmp.Diff(c.history, r.History(c.key)); diff != "" {
				t.Error(diff)
			}
			if rows := r.Sim.RowsOf(gatewaysim.Gateway(c.key.Gateway), c.key.TransactionID); len(rows) != c.rows {
				t.Errorf("the gateway has it %d times, want %d", len(rows), c.rows)
			}
			record := r.Read(c.key)
			if (next.In > 0) != (record.Status == payment.Queued) {
				t.Errorf("%s: next try in %s", record.Status, next.In)
			}
			checkNextAt(t, r, record, next)
			if record.Status.Final() && record.EncryptedToken != "" {
				t.Error("a final payment still has its customer token")
			}
			if record.Status == payment.NeedsReview && record.Reason == "" {
				t.Error("needs_review without a reason")
			}
			if v := r.Sim.Violations(); len(v) > 0 {
				t.Errorf("violations: %+v", v)
			}
			// A repeated task sends nothing, unless the payment is queued again.
			sent := func() int { return r.Sim.Requests(gatewaysim.AMCreate) + r.Sim.Requests(gatewaysim.PaydiaPayment) } // without logins
			before := sent()
			if record.Status != payment.Queued {
				r.Submit(c.key)
				if n := sent() - before; n != 0 {
					t.Errorf("a repeated task made %d requests", n)
				}
			}
		})
	}
}

// checkNextAt checks when the ledger has scheduled a payment after a submit by the built-in
// policy.
func checkNextAt(t *testing.T, r *testenv.Env, record *ledger.Record, next submit.Next) {
	t.Helper()
	wait := record.NextAt.Sub(r.Now())
	var ok bool
	switch record.Status {
	case payment.Queued:
		ok = (wait - next.In).Abs() <= time.Millisecond // Redis has milliseconds
	case payment.Verifying: // the first step of the backoff, with jitter
		ok = wait > 0 && wait <= time.Minute
	case payment.OnProcessing: // the next multiple of PollInterval
		ok = wait > 0 && wait <= r.Submitter.PollInterval && record.NextAt.Truncate(r.Submitter.PollInterval).Equal(record.NextAt)
	default:
		ok = record.NextAt.IsZero()
	}
	if !ok {
		t.Errorf("%s: scheduled for %s, that is in %s", record.Status, record.NextAt, wait)
	}
}

// TestRefreshToken checks that after a refused access token the payment is sent again with
// the same reference and a new X-EXTERNAL-ID.
func TestRefreshToken(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultTokenLost, Operation: gatewaysim.PaydiaPayment, Count: 1})
	r.Create(testenv.PaydiaOrder("ORD-1"))
	r.Advance(r.Submit(ord).In)
	r.Submit(ord)
	if diff := cmp.Diff([]string{"submit 4016301 > refresh_token", "submit 2006300 > accept", "paid"}, r.History(ord)); diff != "" {
		t.Error(diff)
	}
	a := r.Read(ord).Attempts
	if a[0].ExternalID == a[1].ExternalID || a[0].ExternalID == "" {
		t.Errorf("X-EXTERNAL-IDs %q and %q", a[0].ExternalID, a[1].ExternalID)
	}
}

// TestMaxAttempts checks that a payment goes to review after max_attempts.
func TestMaxAttempts(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	r.SetPolicy(`gateways: {amdigipay: {rules: [{code: "http:429", action: retry, max_attempts: 3}]}}`)
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultBusy, Operation: gatewaysim.AMCreate})
	r.Create(testenv.AMOrder("INV/1"))
	for range 3 {
		r.Advance(r.Submit(inv).In)
	}
	want := []string{"submit http:429 > retry", "submit http:429 > retry", "submit http:429 > review", "needs_review"}
	if diff := cmp.Diff(want, r.History(inv)); diff != "" {
		t.Error(diff)
	}
	if reason := r.Read(inv).Reason; reason == "" {
		t.Error("no reason")
	}
}

// TestBackoff checks that a task that runs before the end of the backoff sends nothing, spends
// no attempt, and gets the remaining time.
func TestBackoff(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	r.SetPolicy(`gateways: {amdigipay: {rules: [{code: "http:429", action: retry, backoff: {type: constant, base: 8s, jitter: 0%}}]}}`)
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultBusy, Operation: gatewaysim.AMCreate, Count: 1})
	r.Create(testenv.AMOrder("INV/1"))
	backoff := r.Submit(inv).In
	r.Advance(backoff / 4)
	rest := r.Submit(inv).In
	if n := r.Sim.Requests(gatewaysim.AMCreate); n != 1 || (rest-backoff*3/4).Abs() > time.Millisecond {
		t.Errorf("%d requests, %s of %s left", n, rest, backoff)
	}
	r.Advance(rest)
	r.Submit(inv)
	if diff := cmp.Diff([]string{"submit http:429 > retry", "submit http:200 > accept", "on_processing"}, r.History(inv)); diff != "" {
		t.Error(diff)
	}
}

// TestExpiredClaim checks that a payment whose claim has expired becomes verifying.
func TestExpiredClaim(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	r.Create(testenv.AMOrder("INV/1"))
	if _, result, err := r.Ledger.Claim(t.Context(), inv, ledger.Claim{
		Attempt: payment.Attempt{At: r.Now(), Kind: payment.KindSubmit}, Lease: testenv.Times.Lease, Timeout: time.Second,
	}); result != ledger.Claimed {
		t.Fatal(result, err)
	}
	r.Advance(testenv.Times.Lease - time.Second)
	if next := r.Submit(inv); next.In != 0 || r.Read(inv).Status != payment.Submitting {
		t.Errorf("%+v, %s", next, r.Read(inv).Status)
	}
	r.Advance(time.Second)
	if next := r.Submit(inv); next.In != 0 || r.Read(inv).Status != payment.Verifying {
		t.Errorf("%+v, %s", next, r.Read(inv).Status)
	}
}

// frozen is a gateway whose worker is frozen between the claim and the request.
type frozen struct {
	clients.Gateway

	freeze func()
}

func (f frozen) Submit(ctx context.Context, s clients.Submission) clients.Answer {
	f.freeze()
	return f.Gateway.Submit(ctx, s)
}

// TestSendBudget checks that a worker that was frozen for longer than Times.Send after its
// claim does not send the request, and that the payment is queued again.
func TestSendBudget(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		frozen  time.Duration
		sent    int
		history []string
	}{
		{testenv.Times.Send - time.Second, 1, []string{"submit http:200 > accept", "on_processing"}},
		{testenv.Times.Send + time.Second, 0, []string{"submit net:unsent > retry", "queued"}},
	} {
		t.Run(row.frozen.String(), func(t *testing.T) {
			r := testenv.New(t, redistest.Mini(t))
			r.Submitter.Gateways[payment.AMDigiPay] = frozen{r.AM, func() { r.Advance(row.frozen) }}
			r.Create(testenv.AMOrder("INV/1"))
			r.Submit(inv)
			if n := r.Sim.Requests(gatewaysim.AMCreate); n != row.sent {
				t.Errorf("%d requests, want %d", n, row.sent)
			}
			if diff := cmp.Diff(row.history, r.History(inv)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestNotSentInTime checks that a payment that has expired in the queue is not sent, and that
// an event reports it.
func TestNotSentInTime(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	r.Create(testenv.AMOrder("INV/1"))
	r.Advance(24 * time.Hour)
	r.Submit(inv)
	if diff := cmp.Diff([]string{"expired"}, r.History(inv)); diff != "" {
		t.Error(diff)
	}
	if n := r.Sim.Requests(gatewaysim.AMCreate); n != 0 {
		t.Errorf("%d requests", n)
	}
	if n := r.Redis.XLen(t.Context(), ledger.DefaultStream).Val(); n != 1 {
		t.Errorf("%d events", n)
	}
}

// TestMaxElapsed checks that a payment goes to review after max_elapsed.
func TestMaxElapsed(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	r.SetPolicy(`gateways: {amdigipay: {rules: [{code: "http:429", action: retry, max_elapsed: 90s}]}}`)
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultBusy, Operation: gatewaysim.AMCreate})
	r.Create(testenv.AMOrder("INV/1"))
	for range 4 {
		r.Submit(inv)
		r.Advance(30 * time.Second)
	}
	want := []string{"submit http:429 > retry", "submit http:429 > retry", "submit http:429 > retry", "submit http:429 > review", "needs_review"}
	if diff := cmp.Diff(want, r.History(inv)); diff != "" {
		t.Error(diff)
	}
	if reason := r.Read(inv).Reason; reason != `http:429 (too many requests): given up after 4 submits in 1m30s: "Too Many Attempts."` {
		t.Errorf("%q", reason)
	}
}

// TestNoLoginNoAttempt checks that a failed login spends no attempt.
func TestNoLoginNoAttempt(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.Fault500Before, Operation: gatewaysim.AMLogin, Count: 1})
	r.Create(testenv.AMOrder("INV/1"))
	if next := r.Submit(inv); next.In <= 0 {
		t.Error("no next try")
	}
	if diff := cmp.Diff([]string{"queued"}, r.History(inv)); diff != "" {
		t.Error(diff)
	}
	r.Advance(time.Minute)
	r.Submit(inv)
	if diff := cmp.Diff([]string{"submit http:200 > accept", "on_processing"}, r.History(inv)); diff != "" {
		t.Error(diff)
	}
}

// TestContradiction checks that a payment goes to review if the gateway has its id with
// another amount.
func TestContradiction(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t), func(c *gatewaysim.Config) { c.AM.Duplicates = gatewaysim.DuplicateSame })
	r.Create(testenv.AMOrder("INV/1"))
	r.Submit(inv)
	// The same id again, from another ledger.
	other := testenv.New(t, redistest.Mini(t))
	other.Submitter.Gateways[payment.AMDigiPay] = r.AM
	cheaper := testenv.AMOrder("INV/1")
	for _, edit := range [][2]string{{`"nominal":10000`, `"nominal":20000`}, {`13000`, `23000`}, {`"item_price":10000,"item_total_price":10000`, `"item_price":20000,"item_total_price":20000`}} {
		cheaper = []byte(replace(t, string(cheaper), edit[0], edit[1]))
	}
	other.Create(cheaper)
	other.Submit(inv)
	record := other.Read(inv)
	if record.Status != payment.NeedsReview || record.Reason != "ordered 23000 rupiah, the gateway has 13000" {
		t.Errorf("%s: %s", record.Status, record.Reason)
	}
}

// delayed is a gateway whose answers are held back until release is closed.
type delayed struct {
	clients.Gateway

	answered chan struct{} // closed when the gateway has answered
	release  chan struct{}
}

func (d delayed) Submit(ctx context.Context, s clients.Submission) clients.Answer {
	answer := d.Gateway.Submit(ctx, s)
	close(d.answered)
	<-d.release
	return answer
}

// TestLateAnswer checks that an answer is recorded that arrives after the claim has expired
// and the payment has become verifying.
func TestLateAnswer(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	gateway := delayed{r.AM, make(chan struct{}), make(chan struct{})}
	r.Submitter.Gateways[payment.AMDigiPay] = gateway
	r.Create(testenv.AMOrder("INV/1"))
	var sending sync.WaitGroup
	sending.Go(func() {
		if _, err := r.Submitter.Submit(t.Context(), inv); err != nil {
			t.Error(err)
		}
	})
	select {
	case <-gateway.answered:
	case <-time.After(time.Minute):
		t.Fatal("the gateway was not asked")
	}
	r.Advance(testenv.Times.Lease + time.Second)
	if err := r.Submitter.ExpireClaim(t.Context(), inv); err != nil {
		t.Error(err)
	}
	if s := r.Read(inv).Status; s != payment.Verifying {
		t.Errorf("after the claim has expired: %s", s)
	}
	close(gateway.release)
	sending.Wait()
	if s := r.Read(inv).Status; s != payment.OnProcessing {
		t.Errorf("after the late answer: %s", s)
	}
}

// TestManyWorkersOneRequest checks that one request is made when the same task runs 30 times
// at once.
func TestManyWorkersOneRequest(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		r := testenv.New(t, client, func(c *gatewaysim.Config) { c.AM.Duplicates = gatewaysim.DuplicateSecond })
		r.Create(testenv.AMOrder("INV/1"))
		var group sync.WaitGroup
		for range 30 {
			group.Go(func() {
				if _, err := r.Submitter.Submit(t.Context(), inv); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if n := r.Sim.Requests(gatewaysim.AMCreate); n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}

func TestTaskWithoutAPayment(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	if _, err := r.Submitter.Submit(t.Context(), inv); !errors.Is(err, ledger.ErrNotFound) {
		t.Error(err)
	}
}

func replace(t *testing.T, s, old, replacement string) string {
	t.Helper()
	if !strings.Contains(s, old) {
		t.Fatalf("the text does not contain %s", old)
	}
	return strings.ReplaceAll(s, old, replacement)
}

// TestUndecryptable checks that a payment whose customer token cannot be decrypted is not
// sent but retried, because another worker may have the key, and finally goes to review.
func TestUndecryptable(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	r.Create(testenv.PaydiaOrder("ORD-1"))
	other, err := secret.NewCipher(secret.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	right := r.Submitter.Cipher
	r.Submitter.Cipher = other
	next := r.Submit(ord)
	if next.In <= 0 || next.Reason != "token:undecryptable" {
		t.Errorf("%+v", next)
	}
	for next.In > 0 {
		r.Advance(next.In)
		next = r.Submit(ord)
	}
	record := r.Read(ord)
	want := slices.Repeat([]string{"submit token:undecryptable > retry"}, 59)
	want = append(want, "submit token:undecryptable > review", "needs_review")
	if diff := cmp.Diff(want, r.History(ord)); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(record.Reason, "no key of PAYLOAD_KEYS decrypts the customer token") {
		t.Errorf("reason %q", record.Reason)
	}
	if n := r.Sim.Requests(gatewaysim.PaydiaPayment); n != 0 {
		t.Errorf("%d requests", n)
	}

	r.Create(testenv.PaydiaOrder("ORD-2"))
	key := payment.Key{Gateway: payment.Paydia, TransactionID: "ORD-2"}
	r.Advance(r.Submit(key).In)
	r.Submitter.Cipher = right
	r.Submit(key)
	if diff := cmp.Diff([]string{"submit token:undecryptable > retry", "submit 2006300 > accept", "paid"}, r.History(key)); diff != "" {
		t.Error(diff)
	}
}
