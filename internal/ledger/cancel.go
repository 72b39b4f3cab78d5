package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"terbayar/internal/payment"
)

// ReasonCancelled is the Reason of payments that Cancel has cancelled. A payment that was
// cancelled at its gateway does not have it.
const ReasonCancelled = "cancelled before it was sent"

// NotCancelledError means that a payment cannot be cancelled: it is not queued any more, or a
// request for it may have reached the gateway. Nothing was changed.
type NotCancelledError struct{ Reason string }

func (e *NotCancelledError) Error() string { return "it cannot be cancelled: " + e.Reason }

// CancelledByUs reports whether Cancel has cancelled the payment.
func (r *Record) CancelledByUs() bool {
	return r.Status == payment.Cancelled && r.Reason == ReasonCancelled
}

// whyNotCancelled returns why a payment cannot be cancelled; "" if it can.
func (r *Record) whyNotCancelled() string {
	switch {
	case r.CancelledByUs():
		return ""
	case r.Status == payment.Queued && r.Unknowns == 0:
		// Every other submit was certainly not processed: only that leads back to queued.
		return ""
	case r.Status == payment.Queued:
		return "the outcome of an earlier attempt to send it was unknown, so the gateway may still have it"
	case r.Status == payment.Submitting:
		return "a worker is sending it now, or was lost while it did"
	case r.Status == payment.Verifying:
		return "the outcome of sending it is unknown and being looked up, so the gateway may have it"
	case r.Status == payment.OnProcessing:
		return "the gateway has accepted it"
	case r.Status == payment.NeedsReview:
		return "it is in needs_review"
	case r.Status == payment.Cancelled && r.Tombstone:
		return "it is cancelled already, and was over for longer than RETENTION"
	case r.Status == payment.Cancelled:
		return "it was cancelled at the gateway"
	default:
		return "it is " + string(r.Status) + " already"
	}
}

// Cancel cancels a queued payment of which no request can have reached the gateway: every
// submit so far was certainly not processed. It returns the payment as it is then; if it cannot
// be cancelled, with a *NotCancelledError. When Cancel returns no error, the change is durable
// and no worker can send the payment any more. A payment that Cancel has cancelled before is
// made durable again, without a second event.
//
// With ErrNotDurable the payment may or may not be cancelled: call Cancel again.
//
// It races with Claim: both compare the fencing token and change it in one script, so only one
// of them succeeds. A claim that has expired is no longer queued. (Step [cancel].)
func (l *Ledger) Cancel(ctx context.Context, key payment.Key) (*Record, error) {
	ctx, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	if err := l.partitionOf(key).writes.Start(ctx); err != nil { // the change needs Redis' time
		return nil, fmt.Errorf("ledger: cancel %s: %w: %w", key, ErrNotDurable, err)
	}
	for {
		r, err := l.Read(ctx, key)
		if err != nil {
			return nil, err
		}
		if why := r.whyNotCancelled(); why != "" {
			return r, &NotCancelledError{why}
		}
		err = l.cancel(ctx, r)
		if !errors.Is(err, ErrFenced) {
			return r, err
		}
		// It has changed since it was read.
	}
}

// cancel writes the change durably, if the payment has not changed since it was read.
func (l *Ledger) cancel(ctx context.Context, r *Record) error {
	fail := func(err error) error { return fmt.Errorf("ledger: cancel %s: %w", r.Key(), err) }
	err := l.rewriteAll(ctx, []*Record{r})
	if errors.Is(err, ErrCreatedAgain) {
		return &NotCancelledError{ErrCreatedAgain.Error()}
	}
	if err != nil {
		return fail(fmt.Errorf("%w: %w", ErrNotDurable, err))
	}
	if r.Status == payment.Cancelled {
		r.saveID = r.request // the script finds it in the record, changes nothing, and is acknowledged
	} else {
		r.Status, r.Reason, r.GatewayStatus = payment.Cancelled, ReasonCancelled, ""
	}
	call, err := l.newSaveCall(r)
	if err != nil {
		return fail(err)
	}
	replies, notAcknowledged := l.partitionOf(r.Key()).writes.Do(ctx, call)
	if replies == nil {
		return fail(fmt.Errorf("%w: %w", ErrNotDurable, notAcknowledged))
	}
	var result string
	if result, err = replies[0].Text(); err == nil {
		switch {
		case result != "saved": // fenced, or its record was replaced by a tombstone
			err = ErrFenced
		case notAcknowledged != nil:
			err = fmt.Errorf("%w: %w", ErrNotDurable, notAcknowledged)
		default:
			r.NextAt = time.Time{}
			return nil
		}
	}
	return fail(err)
}
