// Package intake takes payments in: reads them line by line, checks them, writes
// them into the ledger and only then puts their tasks into the queue. A payment
// that stands in the ledger without a task is found by the poll; a task without
// a payment could never be.
package intake

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

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
	Failed    Result = "failed" // Redis would not take it
)

// Answer is the answer to one line.
type Answer struct {
	Line          int             `json:"line"`
	Gateway       payment.Gateway `json:"gateway"`
	TransactionID string          `json:"transaction_id"`
	Result        Result          `json:"result"`
	Error         string          `json:"error,omitempty"`

	// Cause is the error behind a Failed, for the exit code.
	Cause error `json:"-"`
}

// ErrUnreachable says that Redis could not be reached.
var ErrUnreachable = errors.New("redis cannot be reached")

// Intake takes payments in. Its fields are set once, before its first use.
type Intake struct {
	Ledger   *ledger.Ledger
	Sealer   *secret.Sealer
	Defaults order.Defaults
	// Enqueue puts a payment's task into the queue; one that is there already stays
	// the only one.
	Enqueue func(ctx context.Context, key payment.Key, amount payment.Rupiah) error
}

const (
	// Batch is how many lines are best handed in at once.
	Batch = 256
	// enqueuers is how many tasks are put into the queue side by side; asynq has
	// no batch of its own.
	enqueuers = 16
)

// Create takes lines in and answers each, in order. Lines of one call are
// written in their order: of two with the same id the first one counts.
func (in *Intake) Create(ctx context.Context, lines []Line) []Answer {
	answers := make([]Answer, len(lines))
	var entries []ledger.Entry
	var at []int // entries[i] answers line at[i]
	for i, line := range lines {
		answers[i].Line = line.Number
		entry, err := in.entry(line, &answers[i])
		if err != nil {
			continue
		}
		entries, at = append(entries, entry), append(at, i)
	}
	var group errgroup.Group
	group.SetLimit(enqueuers)
	for i, created := range in.Ledger.Create(ctx, entries) {
		answer, entry := &answers[at[i]], entries[i]
		switch {
		case created.Err != nil:
			answer.fail(created.Err)
			continue
		case created.Creation == ledger.Conflict:
			answer.Result, answer.Error = Conflict, "this id stands there with other content"
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
			if err := in.Enqueue(ctx, entry.Key, entry.Amount); err != nil {
				answer.fail(fmt.Errorf("recorded, but its task is not queued (handing it in again helps): %w", err))
			}
			return nil
		})
	}
	_ = group.Wait() // each answer carries its own error
	return answers
}

// entry checks a line and makes of it what the ledger takes. What is wrong goes
// into the answer too.
func (in *Intake) entry(line Line, answer *Answer) (ledger.Entry, error) {
	invalid := func(err error) (ledger.Entry, error) {
		answer.Result, answer.Error = Invalid, err.Error()
		return ledger.Entry{}, err
	}
	if line.Err != nil {
		return invalid(line.Err)
	}
	o, err := order.Parse(line.Text, in.Defaults)
	if o != nil {
		answer.Gateway, answer.TransactionID = o.Gateway, o.Key().TransactionID
	}
	if err != nil {
		return invalid(err)
	}
	content, err := o.Content()
	if err != nil {
		return invalid(err)
	}
	entry := ledger.Entry{
		Key: o.Key(), Amount: o.Amount(), Order: content, Digest: order.Digest(content),
		ExpiresAt: o.ExpiresAt(),
	}
	if o.Paydia != nil {
		entry.MerchantID = o.Paydia.MerchantID
	}
	if !o.CustomerToken.Empty() {
		if entry.SealedToken, err = in.Sealer.Seal(o.CustomerToken, entry.Key.String()); err != nil {
			answer.Result, answer.Error = Failed, "customer_token: PAYLOAD_KEYS is not set, so it cannot be sealed"
			answer.Cause = secret.ErrNoKey
			return ledger.Entry{}, err
		}
	}
	return entry, nil
}

// fail notes what Redis, or the way to it, had against a payment.
func (a *Answer) fail(err error) {
	a.Result, a.Cause = Failed, err
	if !errors.As(err, new(redis.Error)) {
		a.Cause = fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	a.Error = err.Error()
}
