package programs

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"terbayar/internal/payment"
	"terbayar/internal/testenv"
	"terbayar/internal/testenv/verify"
)

// Payment is a payment that an order system submits.
type Payment struct {
	verify.Payment

	Line []byte // the input of enqueue, without a newline
}

// NewPayment returns the payment of an order.
func NewPayment(o testenv.Order, ends payment.Status) Payment {
	return Payment{verify.Payment{Key: o.Key, Amount: o.Amount, Ends: ends}, o.Line()}
}

// NewPayments returns n payments of customers who pay, alternately to Paydia and AM. Their
// ids are NAME-1, NAME-2 and so on. Those to AM can be paid until they expire.
func NewPayments(name string, n int, expires time.Duration) []Payment {
	all := make([]Payment, n)
	for i := range all {
		key := payment.Key{Gateway: payment.AMDigiPay, TransactionID: fmt.Sprintf("%s-%d", name, i+1)}
		if i%2 == 1 {
			key.Gateway = payment.Paydia
		}
		o := testenv.NewOrder(key)
		o.Expires = time.Now().Add(expires)
		all[i] = NewPayment(o, payment.Paid)
		all[i].MayNeedReview = true
	}
	return all
}

// Input returns the payments as the input of enqueue.
func Input(payments []Payment) string {
	var text bytes.Buffer
	for _, p := range payments {
		text.Write(p.Line)
		text.WriteByte('\n')
	}
	return text.String()
}

// OrderSystem submits payments with "enqueue create". It submits what failed again, with the
// identical content, and remembers what was acknowledged.
type OrderSystem struct {
	env   *Env
	edits []string // of the environment of enqueue

	Program string // "enqueue", or the path of another version of it

	mu       sync.Mutex
	payments []Payment
	index    map[payment.Key]int // in payments
	retries  int                 // lines that were submitted again
}

// NewOrderSystem returns an order system. The edits are those of Start.
func (e *Env) NewOrderSystem(edits ...string) *OrderSystem {
	return &OrderSystem{env: e, edits: edits, index: map[payment.Key]int{}, Program: "enqueue"}
}

// Submit submits payments, and submits again what failed until all are acknowledged or the
// context ends. It returns how many are not acknowledged.
func (o *OrderSystem) Submit(ctx context.Context, payments []Payment) int {
	o.mu.Lock()
	for _, p := range payments {
		if _, known := o.index[p.Key]; !known {
			o.index[p.Key] = len(o.payments)
			o.payments = append(o.payments, p)
		}
	}
	o.mu.Unlock()
	retry := time.NewTicker(100 * time.Millisecond)
	defer retry.Stop()
	left := slices.Clone(payments)
	for {
		if left = o.create(ctx, left); len(left) == 0 || ctx.Err() != nil {
			return len(left)
		}
		o.mu.Lock()
		o.retries += len(left)
		o.mu.Unlock()
		select {
		case <-retry.C:
		case <-ctx.Done():
		}
	}
}

// SubmitSlowly submits payments in batches of ten with a pause after each, until all are
// acknowledged or the context ends.
func (o *OrderSystem) SubmitSlowly(ctx context.Context, payments []Payment, pause time.Duration) {
	pace := time.NewTicker(pause)
	defer pace.Stop()
	for batch := range slices.Chunk(payments, 10) {
		o.Submit(ctx, batch)
		select {
		case <-pace.C:
		case <-ctx.Done():
			return
		}
	}
}

// answer is a line of the output of "enqueue create".
type answer struct {
	Gateway       payment.Gateway `json:"gateway"`
	TransactionID string          `json:"transaction_id"`
	Result        string          `json:"result"`
	Error         string          `json:"error"`
}

// create runs "enqueue create" once and returns the payments that it has not acknowledged.
func (o *OrderSystem) create(ctx context.Context, batch []Payment) (left []Payment) {
	r := o.env.run(ctx, o.Program, []string{"create"}, Input(batch), o.edits...)
	if r.Code == 2 {
		o.env.Errorf("enqueue create: exit code %d: %s", r.Code, r.Stderr)
		return nil
	}
	acknowledged := map[payment.Key]bool{}
	o.mu.Lock()
	defer o.mu.Unlock()
	for dec := json.NewDecoder(bytes.NewReader([]byte(r.Stdout))); dec.More(); {
		var a answer
		if err := dec.Decode(&a); err != nil {
			if r.Code >= 0 {
				o.env.Errorf("enqueue create printed %v: %s", err, r.Stdout)
			}
			break // it was killed while it wrote a line
		}
		key := payment.Key{Gateway: a.Gateway, TransactionID: a.TransactionID}
		i, known := o.index[key]
		switch {
		case known && (a.Result == "enqueued" || a.Result == "duplicate"):
			p := &o.payments[i]
			p.AcceptedTwice = p.AcceptedTwice || p.Acknowledged && a.Result == "enqueued"
			p.Acknowledged = true
			acknowledged[key] = true
		case known && a.Result == "failed": // it is submitted again
		default:
			o.env.Errorf("enqueue create answers %+v", a)
			acknowledged[key] = true // do not try again
		}
	}
	return slices.DeleteFunc(slices.Clone(batch), func(p Payment) bool { return acknowledged[p.Key] })
}

// Resubmit submits everything that was acknowledged once more: if the ledger has lost a
// payment, the verifier finds that it was accepted twice.
func (o *OrderSystem) Resubmit(ctx context.Context) {
	o.mu.Lock()
	all := slices.DeleteFunc(slices.Clone(o.payments), func(p Payment) bool { return !p.Acknowledged })
	o.mu.Unlock()
	o.Submit(ctx, all)
}

// Submitted returns the payments that were submitted, with what was acknowledged.
func (o *OrderSystem) Submitted() []verify.Payment {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := make([]verify.Payment, len(o.payments))
	for i, p := range o.payments {
		all[i] = p.Payment
	}
	return all
}

// Acknowledged returns the keys of the payments that were acknowledged.
func (o *OrderSystem) Acknowledged() (keys []payment.Key) {
	for _, p := range o.Submitted() {
		if p.Acknowledged {
			keys = append(keys, p.Key)
		}
	}
	return keys
}

// Forget removes a payment from what was submitted.
func (o *OrderSystem) Forget(key payment.Key) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.payments = slices.DeleteFunc(o.payments, func(p Payment) bool { return p.Key == key })
	clear(o.index)
	for i, p := range o.payments {
		o.index[p.Key] = i
	}
}

// Retries returns how many lines were submitted again.
func (o *OrderSystem) Retries() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.retries
}
