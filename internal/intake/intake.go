// Package intake takes payments in: reads them line by line, checks them, writes
// them into the ledger and only then puts their tasks into the queue. A payment
// that stands in the ledger without a task is found by the poll; a task without
// a payment could never be.
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

// Result is what became of one payment handed in.
type Result string

// The results of interface.md, "enqueue create".
const (
	Enqueued  Result = "enqueued"
	Duplicate Result = "duplicate" // same id, same content: nothing done
	Conflict  Result = "conflict"  // same id, other content: nothing done
	Invalid   Result = "invalid"
	Failed    Result = "failed" // not known to be durable: it may be recorded, and will then be sent
)

// Answer is the answer to one line.
type Answer struct {
	Line          int             `json:"line"`
	Gateway       payment.Gateway `json:"gateway"`
	TransactionID string          `json:"transaction_id"`
	Result        Result          `json:"result"`
	Status        payment.Status  `json:"status,omitempty"` // of a Conflict: where the first one stands
	Error         string          `json:"error,omitempty"`
	// Errors is every wrong field of an Invalid.
	Errors []order.FieldError `json:"errors,omitempty"`

	// Cause is the error behind a Failed, for the exit code.
	Cause error `json:"-"`
	// Taskless is why an Enqueued has no task yet. The workers' poll makes up for it.
	Taskless error `json:"-"`
}

// ErrUnreachable says that Redis could not be reached.
var ErrUnreachable = errors.New("redis cannot be reached")

// Intake takes payments in. Its fields are set once, before its first use.
type Intake struct {
	Ledger   *ledger.Ledger
	Cipher   *secret.Cipher
	Defaults order.Defaults
	// Enqueue puts a payment's task into the queue; one that is there already stays
	// the only one.
	Enqueue func(ctx context.Context, key payment.Key, amount payment.Rupiah) error
	// Now tells which dates have passed; nil: time.Now.
	Now func() time.Time
}

const (
	// Batch is how many lines are best handed in at once.
	Batch = 256
	// enqueuers is how many tasks are put into the queue side by side; asynq has
	// no batch of its own.
	enqueuers = 16
)

// again is what an order system must know of a Failed.
const again = "not known to be recorded: it may be, and will then be sent. Submit the identical content again " +
	"under the same id, never under a new one"

// Create takes lines in and answers each, in order. Lines of one call are
// written in their order: of two with the same id the first one counts.
func (in *Intake) Create(ctx context.Context, lines []Line) []Answer {
	answers := make([]Answer, len(lines))
	var entries, late []ledger.NewPayment
	var at, lateAt []int // entries[i] answers line at[i]
	for i, line := range lines {
		answers[i].Line = line.Number
		entry, err := in.entry(line, &answers[i])
		switch {
		case err == nil:
			entries, at = append(entries, entry), append(at, i)
		case errors.Is(err, order.ErrLate):
			late, lateAt = append(late, entry), append(lateAt, i)
		}
	}
	// A task that cannot be queued fails nobody: what is recorded is sent. The others
	// are not tried any more then, so that a queue that hangs holds nothing up.
	group, tasks := errgroup.WithContext(ctx)
	group.SetLimit(enqueuers)
	for i, created := range in.Ledger.Create(ctx, entries) {
		answer, entry := &answers[at[i]], entries[i]
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
		// A duplicate that is still queued may have lost its task when an earlier run
		// was cut off between the two steps.
		group.Go(func() error {
			answer.Taskless = in.Enqueue(tasks, entry.Key, entry.Amount)
			return answer.Taskless
		})
	}
	_ = group.Wait() // each answer carries its own error
	var away error   // one that cannot be asked for is enough
	for i, entry := range late {
		if answer := &answers[lateAt[i]]; away != nil {
			answer.fail(away)
		} else {
			away = in.submittedLate(ctx, entry, answer)
		}
	}
	return answers
}

// submittedLate answers for a payment whose date has passed. It is invalid, unless it was
// taken when there was time: an order system that submits again what it is not sure of,
// however long after, must not hear that it was refused, or it orders anew what may be
// paid already. The error is the ledger's.
func (in *Intake) submittedLate(ctx context.Context, entry ledger.NewPayment, answer *Answer) error {
	record, err := in.Ledger.Read(ctx, entry.Key)
	switch {
	case errors.Is(err, ledger.ErrNotFound): // invalid it is
	case err != nil:
		answer.fail(err)
		return err
	case order.Digest(record.Order) == entry.Digest:
		// It exists, so this creates nothing; but the answer has to be durable.
		if again := in.Ledger.Create(ctx, []ledger.NewPayment{entry})[0]; again.Err != nil {
			answer.fail(again.Err)
			return again.Err
		}
		answer.Result, answer.Error, answer.Errors = Duplicate, "", nil
	default:
		answer.conflict(record.Status)
	}
	return nil
}

// entry checks a line and makes of it what the ledger takes. What is wrong goes into the
// answer too; with order.ErrLate there is an entry all the same.
func (in *Intake) entry(line Line, answer *Answer) (ledger.NewPayment, error) {
	if line.Err != nil {
		return ledger.NewPayment{}, answer.invalid(line.Err)
	}
	now := time.Now
	if in.Now != nil {
		now = in.Now
	}
	o, refused := order.Parse(line.Text, now(), in.Defaults)
	if o != nil {
		answer.Gateway, answer.TransactionID = o.Gateway, o.Key().TransactionID
	}
	if refused != nil {
		_ = answer.invalid(refused)
		if !errors.Is(refused, order.ErrLate) {
			return ledger.NewPayment{}, refused
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
	if !o.CustomerToken.Empty() && refused == nil {
		if entry.EncryptedToken, err = in.Cipher.Encrypt(o.CustomerToken, entry.Key.String()); err != nil {
			answer.Result, answer.Cause = Failed, secret.ErrNoKey
			answer.Error = "not recorded: customer_token cannot be sealed, PAYLOAD_KEYS is not set. Submit the identical content again under the same id"
			return ledger.NewPayment{}, err
		}
	}
	return entry, refused
}

// invalid notes what is wrong with a line, and returns it.
func (a *Answer) invalid(err error) error {
	a.Result, a.Error = Invalid, err.Error()
	if faults, ok := errors.AsType[order.FieldErrors](err); ok {
		a.Errors = faults
	} else {
		a.Errors = []order.FieldError{{Detail: a.Error}}
	}
	return err
}

// conflict says that the id already exists with other content.
func (a *Answer) conflict(first payment.Status) {
	a.Result, a.Status, a.Error, a.Errors = Conflict, first, "this id already exists with other content: nothing was done", nil
}

// fail notes what Redis, or the way to it, had against a payment.
func (a *Answer) fail(err error) {
	a.Result, a.Cause, a.Errors = Failed, err, nil
	answered := errors.As(err, new(redis.Error)) || errors.Is(err, durable.ErrNotAcknowledged) || errors.Is(err, durable.ErrUnfit)
	if !answered && !errors.Is(err, context.Canceled) {
		a.Cause = fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	a.Error = again + ": " + err.Error()
}
