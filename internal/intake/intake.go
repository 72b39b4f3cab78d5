// Package intake accepts payments: it reads them line by line, checks them, records them in
// the ledger, and only then enqueues their tasks. If the process crashes between the last
// two steps, the workers' poll finds the payment and enqueues its task; the other order
// could leave a task without a payment.
package intake

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/durable"
	"terbayar/internal/ledger"
	"terbayar/internal/order"
	"terbayar/internal/payment"
	"terbayar/internal/secret"
)

// Result is the result of one submitted payment.
type Result string

// The results of docs/interface.md, "A payment, as order systems write it".
const (
	Enqueued  Result = "enqueued"
	Duplicate Result = "duplicate" // same id, same content: nothing done
	Conflict  Result = "conflict"  // same id, other content: nothing done
	Invalid   Result = "invalid"
	Failed    Result = "failed" // not known to be durable: it may be recorded, and is then sent
)

// Answer is the answer to one Line.
type Answer struct {
	Line          int             `json:"line"`
	Last          int             `json:"-"` // Last of its Line
	Gateway       payment.Gateway `json:"gateway"`
	TransactionID string          `json:"transaction_id"`
	Result        Result          `json:"result"`
	Status        payment.Status  `json:"status,omitempty"` // of a Conflict: the status of the recorded payment
	Error         string          `json:"error,omitempty"`
	// Errors lists all field errors of an Invalid.
	Errors []order.FieldError `json:"errors,omitempty"`

	// Current is the status of the payment now, of an Enqueued or a Duplicate.
	Current payment.Status `json:"-"`
	// Cause is the error of a Failed, on which the exit code depends, or ErrNotAllowed.
	Cause error `json:"-"`
	// EnqueueErr is why the task of a recorded payment could not be enqueued. The workers'
	// poll enqueues it later.
	EnqueueErr error `json:"-"`
}

// ErrUnreachable says that Redis could not be reached.
var ErrUnreachable = errors.New("redis cannot be reached")

// ErrNotAllowed says that the sender may not submit the payment, see Line.Allowed.
var ErrNotAllowed = errors.New("its id or gateway is outside the scope of this API key")

// Intake accepts payments. Set its fields before the first use and do not change them later.
type Intake struct {
	Ledger   *ledger.Ledger
	Cipher   *secret.Cipher
	Defaults order.Defaults
	// Enqueue enqueues the tasks of payments and returns one error per payment. It does nothing
	// for a payment whose task is already in the queue.
	Enqueue func(ctx context.Context, payments []*payment.Payment) []error
	// Now returns the current time, to find expired dates; nil: time.Now.
	Now func() time.Time
}

// Batch is the recommended number of lines per Create.
const Batch = 256

// RetryAdvice is the error text of a Failed.
const RetryAdvice = "not known to be recorded: it may be, and will then be sent. Submit the identical content again " +
	"under the same id, never under a new one"

// checkedBatch are lines that were checked.
type checkedBatch struct {
	answers []Answer
	entries []*entry // of the lines that are to be recorded, or are too late
}

// entry is the ledger's entry of one line.
type entry struct {
	ledger.NewPayment

	answer *Answer
	late   bool // its expired_date has passed
}

// recordedBatch are lines whose payments are recorded.
type recordedBatch struct {
	answers     []Answer
	queued      []*payment.Payment // those that need a task
	queuedOf    []*Answer          // their answers
	unreachable bool               // Redis could not be reached
}

// Create records the payments of the lines, in order, and enqueues their tasks. It returns
// one answer per line, in order. Of two lines with the same id the first is recorded.
func (in *Intake) Create(ctx context.Context, lines []Line) []Answer {
	recorded := in.record(ctx, in.check(lines))
	in.enqueue(ctx, recorded)
	return recorded.answers
}

// CreateAll is Create for many batches. It checks a batch while Redis records the batch before,
// and enqueues the tasks of the one before that. After a batch for which Redis cannot be
// reached it records no other. Otherwise every batch that it has read is answered, also when
// the context ends.
func (in *Intake) CreateAll(ctx context.Context, batches iter.Seq[[]Line]) iter.Seq[[]Answer] {
	return func(yield func([]Answer) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		ended := make(chan struct{}) // nobody receives any more
		defer close(ended)
		checked, recorded, enqueued := make(chan checkedBatch), make(chan recordedBatch), make(chan []Answer)
		go func() {
			defer close(checked)
			for lines := range batches {
				if !send(checked, in.check(lines), ended) {
					return
				}
			}
		}()
		go func() {
			defer close(recorded)
			for b := range checked {
				if r := in.record(ctx, b); !send(recorded, r, ended) || r.unreachable {
					return
				}
			}
		}()
		go func() {
			defer close(enqueued)
			for r := range recorded {
				in.enqueue(ctx, r)
				if !send(enqueued, r.answers, ended) {
					return
				}
			}
		}()
		for answers := range enqueued {
			if !yield(answers) {
				return
			}
		}
	}
}

// send sends a value unless the other end has ended.
func send[T any](to chan<- T, value T, ended <-chan struct{}) bool {
	select {
	case to <- value:
		return true
	case <-ended:
		return false
	}
}

// check checks the lines, on all cores.
func (in *Intake) check(lines []Line) checkedBatch {
	answers := make([]Answer, len(lines))
	entries := make([]*entry, len(lines)) // nil: the answer is known
	var next atomic.Int64
	var cores sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(lines)) {
		cores.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(lines)); i = next.Add(1) - 1 {
				answers[i].Line, answers[i].Last = lines[i].Number, lines[i].Last
				entries[i] = in.entry(lines[i], &answers[i])
			}
		})
	}
	cores.Wait()
	return checkedBatch{answers, slices.DeleteFunc(entries, func(e *entry) bool { return e == nil })}
}

// record records the payments of a batch.
func (in *Intake) record(ctx context.Context, b checkedBatch) recordedBatch {
	r := recordedBatch{answers: b.answers}
	var inTime []*entry
	var payments []ledger.NewPayment
	for _, e := range b.entries {
		if !e.late {
			inTime, payments = append(inTime, e), append(payments, e.NewPayment)
		}
	}
	for i, created := range in.Ledger.Create(ctx, payments) {
		e := inTime[i]
		switch {
		case created.Err != nil:
			e.answer.fail(created.Err)
			continue
		case created.Creation == ledger.Conflict:
			e.answer.conflict(created.Status)
			continue
		case created.Creation == ledger.Duplicate:
			e.answer.Result = Duplicate
		default:
			e.answer.Result = Enqueued
		}
		e.answer.Current = created.Status
		if created.Status == payment.Queued {
			// This includes a duplicate that is still queued: an earlier run may have crashed
			// after recording it, before enqueuing its task.
			r.queued = append(r.queued, &payment.Payment{Gateway: e.Key.Gateway, TransactionID: e.Key.TransactionID, Amount: e.Amount, Priority: e.Priority})
			r.queuedOf = append(r.queuedOf, e.answer)
		}
	}
	var redisErr error
	for _, e := range b.entries {
		switch {
		case !e.late:
		case redisErr != nil: // do not wait for another timeout
			e.answer.fail(redisErr)
		default:
			redisErr = in.submittedLate(ctx, e.NewPayment, e.answer)
		}
	}
	r.unreachable = slices.ContainsFunc(b.answers, func(a Answer) bool { return errors.Is(a.Cause, ErrUnreachable) })
	return r
}

// enqueue enqueues the tasks of recorded payments. If a task cannot be enqueued, its answer is
// still enqueued or duplicate: the payment is recorded, and will be sent.
func (in *Intake) enqueue(ctx context.Context, r recordedBatch) {
	if len(r.queued) == 0 {
		return
	}
	for i, err := range in.Enqueue(ctx, r.queued) {
		r.queuedOf[i].EnqueueErr = err
	}
}

// submittedLate answers a payment whose expired_date has passed. It is invalid, unless the
// ledger already has it: an order system that is unsure whether a payment was recorded
// submits it again, at any later time. If the answer were invalid, the order system would
// create a new order for a payment that may already be paid. The returned error is the ledger's.
func (in *Intake) submittedLate(ctx context.Context, entry ledger.NewPayment, answer *Answer) error {
	record, err := in.Ledger.Read(ctx, entry.Key)
	switch {
	case errors.Is(err, ledger.ErrNotFound): // the answer remains invalid
	case err != nil:
		answer.fail(err)
		return err
	case record.HasDigest(entry.Digest):
		// It exists, so this creates nothing; it only makes sure that the record is durable.
		if created := in.Ledger.Create(ctx, []ledger.NewPayment{entry})[0]; created.Err != nil {
			answer.fail(created.Err)
			return created.Err
		}
		answer.Result, answer.Error, answer.Errors, answer.Current = Duplicate, "", nil, record.Status
	default:
		answer.conflict(record.Status)
	}
	return nil
}

// entry checks a line and returns its entry, or nil if it cannot be recorded: the answer then
// says why. The answer of an entry that is late is Invalid for now.
func (in *Intake) entry(line Line, answer *Answer) *entry {
	if line.Err != nil {
		answer.invalid(line.Err)
		return nil
	}
	now := time.Now
	if in.Now != nil {
		now = in.Now
	}
	o, parseErr := order.Parse(line.Text, now(), in.Defaults)
	if o != nil {
		answer.Gateway, answer.TransactionID = o.Gateway, o.Key().TransactionID
	}
	late := errors.Is(parseErr, order.ErrLate)
	if (parseErr == nil || late) && line.Allowed != nil && !line.Allowed(o.Key()) {
		answer.invalid(ErrNotAllowed)
		answer.Cause = ErrNotAllowed
		return nil
	}
	if parseErr != nil {
		answer.invalid(parseErr)
		if !late {
			return nil
		}
	}
	content, err := o.Content()
	if err != nil {
		answer.invalid(err)
		return nil
	}
	e := &entry{answer: answer, late: late, NewPayment: ledger.NewPayment{
		Key: o.Key(), Amount: o.Amount(), Priority: o.Priority, Order: content, Digest: order.Digest(content),
		ExpiresAt: o.ExpiresAt(),
	}}
	if o.Paydia != nil {
		e.MerchantID = o.Paydia.MerchantID
	}
	if !o.CustomerToken.Empty() && !late {
		if e.EncryptedToken, err = in.Cipher.Encrypt(o.CustomerToken, e.Key.String()); err != nil {
			answer.Result, answer.Cause = Failed, secret.ErrNoKey
			answer.Error = "not recorded: customer_token cannot be encrypted, PAYLOAD_KEYS is not set. Submit the identical content again under the same id"
			return nil
		}
	}
	return e
}

// invalid sets the answer to Invalid.
func (a *Answer) invalid(err error) {
	a.Result, a.Error = Invalid, err.Error()
	if fields, ok := errors.AsType[order.FieldErrors](err); ok {
		a.Errors = fields
	} else {
		a.Errors = []order.FieldError{{Detail: a.Error}}
	}
}

// conflict sets the answer to Conflict; status is that of the recorded payment.
func (a *Answer) conflict(status payment.Status) {
	a.Result, a.Status, a.Error, a.Errors = Conflict, status, "this id already exists with other content: nothing was done", nil
}

// fail sets the answer to Failed.
func (a *Answer) fail(err error) {
	a.Result, a.Cause, a.Errors = Failed, err, nil
	answered := errors.As(err, new(redis.Error)) || errors.Is(err, durable.ErrNotAcknowledged) || errors.Is(err, durable.ErrUnfit)
	if !answered && !errors.Is(err, context.Canceled) {
		a.Cause = fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	a.Error = RetryAdvice + ": " + err.Error()
}
