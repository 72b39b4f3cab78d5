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
	"terbayar/internal/testenv"
)

var (
	inv = payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV/1"}
	ord = payment.Key{Gateway: payment.Paydia, TransactionID: "ORD-1"}
)

// TestEveryAnswer: what each way a gateway can behave makes of one submit, and
// how often the payment exists there afterwards.
func TestEveryAnswer(t *testing.T) {
	for _, c := range []struct {
		name   string
		key    payment.Key
		fault  gatewaysim.FaultRule
		story  []string
		exists int
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
			if diff := cmp.Diff(c.story, r.History(c.key)); diff != "" {
				t.Error(diff)
			}
			if rows := r.Sim.RowsOf(gatewaysim.Gateway(c.key.Gateway), c.key.TransactionID); len(rows) != c.exists {
				t.Errorf("the gateway has it %d times, want %d", len(rows), c.exists)
			}
			record := r.Read(c.key)
			if (next.In > 0) != (record.Status == payment.Queued) {
				t.Errorf("in %s, to come again in %s", record.Status, next.In)
			}
			if record.Status.Final() && record.EncryptedToken != "" {
				t.Error("a final payment keeps its customer token")
			}
			if record.Status == payment.NeedsReview && record.Reason == "" {
				t.Error("in needs_review without a reason")
			}
			if v := r.Sim.Violations(); len(v) > 0 {
				t.Errorf("violations: %+v", v)
			}
			// A task that comes again sends nothing, unless it was asked to.
			sent := func() int { return r.Sim.Requests(gatewaysim.AMCreate) + r.Sim.Requests(gatewaysim.PaydiaPayment) } // it may log in
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

func TestFreshTokenIsTakenAndTheSameReferenceSent(t *testing.T) {
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

func TestAttemptsRunOut(t *testing.T) {
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

// TestBackOffBindsEverybody: a payment that is to be sent again has its time. Whoever
// comes before, by whatever task, is told how long to wait, and spends nothing.
func TestBackOffBindsEverybody(t *testing.T) {
	r := testenv.New(t, redistest.Mini(t))
	r.SetPolicy(`gateways: {amdigipay: {rules: [{code: "http:429", action: retry, backoff: {type: constant, base: 8s, jitter: 0%}}]}}`)
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultBusy, Operation: gatewaysim.AMCreate, Count: 1})
	r.Create(testenv.AMOrder("INV/1"))
	whole := r.Submit(inv).In
	r.Advance(whole / 4)
	rest := r.Submit(inv).In
	if n := r.Sim.Requests(gatewaysim.AMCreate); n != 1 || (rest-whole*3/4).Abs() > time.Millisecond {
		t.Errorf("%d requests, %s of %s left", n, rest, whole)
	}
	r.Advance(rest)
	r.Submit(inv)
	if diff := cmp.Diff([]string{"submit http:429 > retry", "submit http:200 > accept", "on_processing"}, r.History(inv)); diff != "" {
		t.Error(diff)
	}
}

// TestExpiredClaim: whoever meets a claim whose holder is gone puts the payment up for
// looking up.
func TestExpiredClaim(t *testing.T) {
	r := testenv.New(t, redistest.Mini(t))
	r.Create(testenv.AMOrder("INV/1"))
	if _, verdict, err := r.Ledger.Claim(t.Context(), inv, ledger.Claim{
		Attempt: payment.Attempt{At: r.Now(), Kind: payment.KindSubmit}, Lease: testenv.Times.Lease, Timeout: time.Second,
	}); verdict != ledger.Claimed {
		t.Fatal(verdict, err)
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

// frozen is a gateway whose worker is frozen between the claim and the first byte.
type frozen struct {
	clients.Gateway

	freeze func()
}

func (f frozen) Submit(ctx context.Context, s clients.Submission) clients.Answer {
	f.freeze()
	return f.Gateway.Submit(ctx, s)
}

// TestRightToSendIsABudget: a worker that was frozen after its claim sends nothing any
// more, however its clock stood meanwhile; the payment is sent again.
func TestRightToSendIsABudget(t *testing.T) {
	for _, row := range []struct {
		frozen time.Duration
		sent   int
		story  []string
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
			if diff := cmp.Diff(row.story, r.History(inv)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestNotSentInTime: what has expired in the queue is not sent, and the order system
// hears of it.
func TestNotSentInTime(t *testing.T) {
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

// TestTimeRunsOut: a rule may also say for how long.
func TestTimeRunsOut(t *testing.T) {
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

// TestNoLoginNoAttempt: a gateway that cannot be logged in to costs nothing.
func TestNoLoginNoAttempt(t *testing.T) {
	r := testenv.New(t, redistest.Mini(t))
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.Fault500Before, Operation: gatewaysim.AMLogin, Count: 1})
	r.Create(testenv.AMOrder("INV/1"))
	if next := r.Submit(inv); next.In <= 0 {
		t.Error("does not ask to come again")
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

// TestContradictionGoesToAPerson: the gateway has the id, with another amount.
func TestContradictionGoesToAPerson(t *testing.T) {
	r := testenv.New(t, redistest.Mini(t), func(c *gatewaysim.Config) { c.AM.Duplicates = gatewaysim.DuplicateSame })
	r.Create(testenv.AMOrder("INV/1"))
	r.Submit(inv)
	// The same id again, in a ledger that knows nothing of the first.
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

// TestLateAnswerIsAdopted: the claim lapsed while the request was under way, and
// a poll has put the payment up for looking up; then the answer comes.
func TestLateAnswerIsAdopted(t *testing.T) {
	r := testenv.New(t, redistest.Mini(t))
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultSlow, Operation: gatewaysim.AMCreate, Delay: testenv.Timeout / 2})
	r.Create(testenv.AMOrder("INV/1"))
	var sending sync.WaitGroup
	sending.Go(func() { r.Submit(inv) })
	for r.Sim.Requests(gatewaysim.AMCreate) == 0 {
		time.Sleep(time.Millisecond) // until the request has arrived
	}
	r.Advance(testenv.Times.Lease + time.Second)
	if err := r.Submitter.ExpireClaim(t.Context(), inv); err != nil {
		t.Fatal(err)
	}
	if s := r.Read(inv).Status; s != payment.Verifying {
		t.Errorf("abandoned: %s", s)
	}
	sending.Wait()
	if s := r.Read(inv).Status; s != payment.OnProcessing {
		t.Errorf("the late answer was thrown away: %s", s)
	}
}

// TestManyWorkersOneRequest: however many deliver the same task at once, one
// request leaves.
func TestManyWorkersOneRequest(t *testing.T) {
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
	r := testenv.New(t, redistest.Mini(t))
	if _, err := r.Submitter.Submit(t.Context(), inv); !errors.Is(err, ledger.ErrNotFound) {
		t.Error(err)
	}
}

func replace(t *testing.T, s, old, replacement string) string {
	t.Helper()
	if !strings.Contains(s, old) {
		t.Fatalf("%s is not there", old)
	}
	return strings.ReplaceAll(s, old, replacement)
}

// TestUndecryptable: a customer token that no key decrypts is no network fault. Nothing
// is sent; another worker may have the key, for hours; then a person must look.
func TestUndecryptable(t *testing.T) {
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
