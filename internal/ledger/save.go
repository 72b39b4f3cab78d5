package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sethvargo/go-retry"

	"terbayar/internal/durable"
	"terbayar/internal/events"
	"terbayar/internal/payment"
)

// mustBeDurable reports whether a save of the status, after a submit, must be durable:
// the order system may create a new order when it receives the event, and if the save were
// lost, no lookup would restore it.
func mustBeDurable(s payment.Status) bool {
	switch s {
	case payment.Rejected, payment.NeedsReview, payment.Cancelled, payment.Expired:
		return true
	default:
		return false
	}
}

// Save writes a changed record that its caller has claimed, or a queued one that is not to
// be sent. The error is ErrFenced if the payment has changed since the record was read.
// While Redis does not answer, Save tries again until the context ends: the gateway's
// answer must not be lost.
//
// A status that no lookup can restore is durable when Save returns. If that takes longer
// than the context, the save is repeated in the background with the same request id, on
// the current primary, until it is acknowledged. (Step [record].)
func (l *Ledger) Save(ctx context.Context, r *Record) error {
	call, err := l.newSaveCall(r)
	if err != nil {
		return err
	}
	run := l.saves.Do
	if mustBeDurable(r.Status) {
		run = l.partitionOf(r.Key()).writes.Do
	}
	saved := false
	backoff := retry.WithCappedDuration(time.Second, retry.NewFibonacci(50*time.Millisecond))
	err = retry.Do(ctx, backoff, func(ctx context.Context) error {
		if err := l.rewriteAll(ctx, []*Record{r}); isPermanent(err) {
			return err
		} else if err != nil {
			return retry.RetryableError(err)
		}
		replies, err := run(ctx, call)
		if replies != nil {
			if err := l.readSaveReply(ctx, r, replies[0]); err != nil {
				if isPermanent(err) {
					return err
				}
				return retry.RetryableError(err)
			}
			saved = true
		}
		if err != nil { // such as durable.ErrNotAcknowledged
			return retry.RetryableError(err)
		}
		return nil
	})
	switch {
	case err == nil || isPermanent(err):
		return err
	case mustBeDurable(r.Status):
		l.repeatSave(ctx, r, call)
		if saved {
			return nil
		}
	}
	return fmt.Errorf("ledger: save %s: %w", r.Key(), err)
}

// repeatSave repeats a save until it is acknowledged, or the payment has another change.
func (l *Ledger) repeatSave(ctx context.Context, r *Record, call durable.Call) {
	ctx, key := context.WithoutCancel(ctx), r.Key()
	l.repeatUntilDone(func() (done bool) {
		ctx, cancel := context.WithTimeout(ctx, repeatSaveTimeout)
		defer cancel()
		replies, err := l.partitionOf(key).writes.Do(ctx, call)
		if replies == nil {
			return false
		}
		result, scriptErr := replies[0].Text()
		if scriptErr == nil && result != "saved" {
			l.log.Warn("result not made durable: the payment has changed since",
				"gateway", key.Gateway, "transaction_id", key.TransactionID, "status", r.Status)
			return true
		}
		return scriptErr == nil && err == nil
	})
}

const repeatSaveTimeout = 3 * time.Second // of one try

// isPermanent reports whether trying again would give the same error.
func isPermanent(err error) bool {
	return errors.Is(err, ErrFenced) || errors.Is(err, ErrNotFound) || errors.Is(err, ErrCreatedAgain)
}

// SaveAll writes changed records that the caller has not claimed, in one round trip. The
// errors have the order of the records. It tries once and is not durable, because lookups
// can be repeated.
func (l *Ledger) SaveAll(ctx context.Context, records []*Record) []error {
	errs := make([]error, len(records))
	if err := l.rewriteAll(ctx, records); err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	calls := make([]durable.Call, 0, len(records))
	var index []int // of each call's record
	for i, r := range records {
		call, err := l.newSaveCall(r)
		if err != nil {
			errs[i] = err
			continue
		}
		calls, index = append(calls, call), append(index, i)
	}
	for j, reply := range l.runScripts(ctx, calls) {
		errs[index[j]] = l.readSaveReply(ctx, records[index[j]], reply)
	}
	return errs
}

// SaveIfExpired writes a changed record if its claim has expired by Redis' clock; otherwise
// the error is ErrFenced. (Step [expire].)
func (l *Ledger) SaveIfExpired(ctx context.Context, r *Record) error {
	r.onlyIfExpired = true
	return l.SaveAll(ctx, []*Record{r})[0]
}

// readSaveReply returns the error in a reply of saveScript. A record that has been replaced by
// its tombstone has changed since it was read: that is logged, because nothing else shows it.
func (l *Ledger) readSaveReply(ctx context.Context, r *Record, reply *redis.Cmd) error {
	result, err := reply.Text()
	switch {
	case err != nil:
	case result == "saved":
		r.saveID = ""
		return nil
	case result == "fenced":
		err = ErrFenced
	case result == "missing":
		var left *Record
		if left, err = l.readTombstone(ctx, r.Key()); err == nil {
			err = ErrFenced
			l.log.Warn("late result not recorded: only the payment's tombstone is left",
				"gateway", r.Gateway, "transaction_id", r.TransactionID, "recorded", left.Status, "late", r.Status, "gateway_status", r.GatewayStatus)
			l.onLateResult(r.Gateway)
		}
	default:
		err = errUnexpectedAnswer
	}
	return fmt.Errorf("ledger: save %s: %w", r.Key(), err)
}

// newSaveCall returns the call of saveScript that writes a changed record.
func (l *Ledger) newSaveCall(r *Record) (durable.Call, error) {
	fail := func(err error) (durable.Call, error) {
		return durable.Call{}, fmt.Errorf("ledger: save %s: %w", r.Key(), err)
	}
	if !payment.CanMove(r.readStatus, r.Status) || r.Status == payment.Submitting { // only Claim sets submitting
		return fail(fmt.Errorf("from %s to %s: %w", r.readStatus, r.Status, ErrIllegalMove))
	}
	// The order system receives every change of status, and in needs_review of the reason.
	changed := r.Status != r.readStatus || r.Status == payment.NeedsReview && r.Reason != r.readReason
	if r.saveID == "" {
		r.saveID = newRequestID()
		if changed {
			r.UpdatedAt = r.Now(l.now()).Truncate(time.Millisecond).UTC()
		}
	}
	p := l.partitionOf(r.Key())
	w := *r // as it will be stored
	a := saveArgs{
		key: r.Key(), request: r.saveID, revRead: r.rev, requestRead: r.request, status: r.Status, updated: r.UpdatedAt,
		due: r.Due, notBefore: r.NotBefore, reference: r.numericReference(),
		restartUnknown: r.restartUnknown, onlyIfExpired: r.onlyIfExpired,
	}
	if r.restartUnknown && r.primary == "" {
		w.primary = p.writes.Primary()
	}
	if r.Status == payment.Queued {
		a.due = In(TaskGrace)
	}
	var err error
	if changed && r.Status.HasEvent() {
		w.events++
		shown := r.Payment
		shown.NextAt = time.Time{}
		if a.event, err = events.Marshal(&shown, w.events); err != nil {
			return fail(err)
		}
	}
	if r.attempt != nil {
		if w.storedAttempts, err = r.withAttempt(*r.attempt, r.replaceLast); err != nil {
			return fail(err)
		}
	}
	if a.body, err = w.encodeBody(); err != nil {
		return fail(err)
	}
	return p.saveCall(a), nil
}

// runScripts runs scripts that need not be durable, in one round trip. The replies have the
// order of the calls. The calls whose script Redis has not cached take two more round trips.
func (l *Ledger) runScripts(ctx context.Context, calls []durable.Call) []*redis.Cmd {
	replies := l.runCached(ctx, calls)
	var missing []int
	for i, reply := range replies {
		if redis.HasErrorPrefix(reply.Err(), "NOSCRIPT") {
			missing = append(missing, i)
		}
	}
	if missing == nil {
		return replies
	}
	var again []durable.Call
	loaded := map[*redis.Script]bool{}
	for _, i := range missing {
		if script := calls[i].Script; !loaded[script] {
			loaded[script] = true
			_ = script.Load(ctx, l.redis) // if it fails, the call has an error again
		}
		again = append(again, calls[i])
	}
	for j, reply := range l.runCached(ctx, again) {
		replies[missing[j]] = reply
	}
	return replies
}

func (l *Ledger) runCached(ctx context.Context, calls []durable.Call) []*redis.Cmd {
	if len(calls) == 0 {
		return nil
	}
	replies := make([]*redis.Cmd, len(calls))
	// The error of the pipeline is the first error of its commands: read each command's own.
	_, _ = l.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, c := range calls {
			replies[i] = c.Script.EvalSha(ctx, pipe, c.Keys, c.Args...)
		}
		return nil
	})
	return replies
}
