// Package intake accepts payments: it reads them line by line, checks them, records them in
// the ledger, and only then enqueues their tasks. If the process crashes between the last
// two steps, the workers' poll finds the payment and enqueues its task; the other order
// could leave a task without a payment.
package intake

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

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
	Gateway       payment.Gateway `json:"gateway"`
	TransactionID string          `json:"transaction_id"`
	Result        Result          `json:"result"`
	Status        payment.Status  `json:"status,omitempty"` // of a Conflict: the status of the recorded payment
	Error         string          `json:"error,omitempty"`
	// Errors lists all field errors of an Invalid.
	Errors []order.FieldError `json:"errors,omitempty"`

	// Cause is the error of a Failed. The exit code depends on it.
	Cause error `json:"-"`
	// EnqueueErr is why the task of a recorded payment could not be enqueued. The workers'
	// poll enqueues it later.
	EnqueueErr error `json:"-"`
}

// ErrUnreachable says that Redis could not be reached.
var ErrUnreachable = errors.New("redis cannot be reached")

// Intake accepts payments. Set its fields before the first use and do not change them later.
type Intake struct {
	Ledger   *ledger.Ledger
	Cipher   *secret.Cipher
	Defaults order.Defaults
	// Enqueue enqueues a payment's task. It does nothing if the queue already has that task.
	Enqueue func(ctx context.Context, key payment.Key, amount payment.Rupiah) error
	// Now returns the current time, to find expired dates; nil: time.Now.
	Now func() time.Time
}

const (
	// Batch is the recommended number of lines per Create.
	Batch = 256
	// enqueuers is how many tasks are enqueued concurrently; asynq has no batch call.
	enqueuers = 16
)

// retryAdvice is the error text of a Failed.
const retryAdvice = "not known to be recorded: it may be, and will then be sent. Submit the identical content again " +
	"under the same id, never under a new one"

// Create records the payments of the lines, in order, and enqueues their tasks. It returns
// one answer per line, in order. Of two lines with the same id the first is recorded.
func (in *Intake) Create(ctx context.Context, lines []Line) []Answer {
	answers := make([]Answer, len(lines))
	var entries, late []ledger.NewPayment
	var index, lateIndex []int // entries[i] is of lines[index[i]], late[i] of lines[lateIndex[i]]
	for i, line := range lines {
		answers[i].Line = line.Number
		entry, err := in.entry(line, &answers[i])
		switch {
		case err == nil:
			entries, index = append(entries, entry), append(index, i)
		case errors.Is(err, order.ErrLate):
			late, lateIndex = append(late, entry), append(lateIndex, i)
		}
	}
	// If a task cannot be enqueued, its answer is still enqueued or duplicate: the payment is recorded, and will be
	// sent. The first error cancels the enqueuing of all others, so that a queue that does
	// not respond delays Create only once.
	group, enqueueCtx := errgroup.WithContext(ctx)
	group.SetLimit(enqueuers)
	for i, created := range in.Ledger.Create(ctx, entries) {
		answer, entry := &answers[index[i]], entries[i]
		switch {
		case created.Err != nil:
			answer.fail(created.Err)
			continue
		case created.Creation == ledger.Conflict:
			answer.conflict(created.Status)
			continue
		case created.Creation == ledger.Duplicate:
			answer.Result = Duplicate
		default:
			answer.Result = Enqueued
		}
		if created.Status != payment.Queued {
			continue
		}
		// This includes a duplicate that is still queued: an earlier run may have crashed
		// after recording it, before enqueuing its task.
		group.Go(func() error {
			answer.EnqueueErr = in.Enqueue(enqueueCtx, entry.Key, entry.Amount)
			return answer.EnqueueErr
		})
	}
	_ = group.Wait() // each answer has its own error
	var redisErr error
	for i, entry := range late {
		if answer := &answers[lateIndex[i]]; redisErr != nil { // do not wait for another timeout
			answer.fail(redisErr)
		} else {
			redisErr = in.submittedLate(ctx, entry, answer)
		}
	}
	return answers
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
	case order.Digest(record.Order) == entry.Digest:
		// It exists, so this creates nothing; it only makes sure that the record is durable.
		if created := in.Ledger.Create(ctx, []ledger.NewPayment{entry})[0]; created.Err != nil {
			answer.fail(created.Err)
			return created.Err
		}
		answer.Result, answer.Error, answer.Errors = Duplicate, "", nil
	default:
		answer.conflict(record.Status)
	}
	return nil
}

// entry checks a line and returns the ledger's entry for it. It writes errors into the
// answer too. With order.ErrLate the entry is valid nevertheless.
func (in *Intake) entry(line Line, answer *Answer) (ledger.NewPayment, error) {
	if line.Err != nil {
		return ledger.NewPayment{}, answer.invalid(line.Err)
	}
	now := time.Now
	if in.Now != nil {
		now = in.Now
	}
	o, parseErr := order.Parse(line.Text, now(), in.Defaults)
	if o != nil {
		answer.Gateway, answer.TransactionID = o.Gateway, o.Key().TransactionID
	}
	if parseErr != nil {
		_ = answer.invalid(parseErr)
		if !errors.Is(parseErr, order.ErrLate) {
			return ledger.NewPayment{}, parseErr
		}
	}
	content, err := o.Content()
	if err != nil {
		return ledger.NewPayment{}, answer.invalid(err)
	}
	entry := ledger.NewPayment{
		Key: o.Key(), Amount: o.Amount(), Order: content, Digest: order.Digest(content),
		ExpiresAt: o.ExpiresAt(),
	}
	if o.Paydia != nil {
		entry.MerchantID = o.Paydia.MerchantID
	}
	if !o.CustomerToken.Empty() && parseErr == nil {
		if entry.EncryptedToken, err = in.Cipher.Encrypt(o.CustomerToken, entry.Key.String()); err != nil {
			answer.Result, answer.Cause = Failed, secret.ErrNoKey
			answer.Error = "not recorded: customer_token cannot be encrypted, PAYLOAD_KEYS is not set. Submit the identical content again under the same id"
			return ledger.NewPayment{}, err
		}
	}
	return entry, parseErr
}

// invalid sets the answer to Invalid and returns err.
func (a *Answer) invalid(err error) error {
	a.Result, a.Error = Invalid, err.Error()
	if fields, ok := errors.AsType[order.FieldErrors](err); ok {
		a.Errors = fields
	} else {
		a.Errors = []order.FieldError{{Detail: a.Error}}
	}
	return err
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
	a.Error = retryAdvice + ": " + err.Error()
}
