package ledger

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sethvargo/go-retry"

	"terbayar/internal/durable"
	"terbayar/internal/events"
	"terbayar/internal/payment"
)

// mustSurvive reports whether the order system may create a new order once it hears of
// the status, after a submit: no lookup would bring that back.
func mustSurvive(s payment.Status) bool {
	switch s {
	case payment.Rejected, payment.NeedsReview, payment.Cancelled, payment.Expired:
		return true
	default:
		return false
	}
}

// Save records what its holder has changed in a claimed record, or in a queued one that
// is not to be sent. The error is ErrFenced when somebody else was first. While Redis
// does not answer, Save goes on trying until the context ends: what a gateway said must
// not be lost.
//
// What no lookup can find again is durable when Save returns; where that takes longer
// than the context, it is repeated in the background under the same request id, on
// whoever is primary, until it is acknowledged. (Model step [record].)
func (l *Ledger) Save(ctx context.Context, r *Record) error {
	call, err := l.save(r)
	if err != nil {
		return err
	}
	run := l.runOnce
	if mustSurvive(r.Status) {
		run = l.writes.Do
	}
	recorded := false
	backoff := retry.WithCappedDuration(time.Second, retry.NewFibonacci(50*time.Millisecond))
	err = retry.Do(ctx, backoff, func(ctx context.Context) error {
		replies, err := run(ctx, call)
		if replies != nil {
			if answer := r.saved(replies[0]); answer != nil {
				if final(answer) {
					return answer
				}
				return retry.RetryableError(answer)
			}
			recorded = true
		}
		if err != nil {
			return retry.RetryableError(err)
		}
		return nil
	})
	switch {
	case err == nil || final(err):
		return err
	case mustSurvive(r.Status):
		l.repeatSave(ctx, r, call)
		if recorded {
			return nil
		}
	}
	return fmt.Errorf("ledger: save %s: %w", r.Key(), err)
}

// repeatSave goes on until a save is acknowledged, or somebody else was first.
func (l *Ledger) repeatSave(ctx context.Context, r *Record, call durable.Call) {
	ctx, key := context.WithoutCancel(ctx), r.Key()
	l.repeat(func() (done bool) {
		ctx, cancel := context.WithTimeout(ctx, saveTimeout)
		defer cancel()
		replies, err := l.writes.Do(ctx, call)
		if replies == nil {
			return false
		}
		word, refused := replies[0].Text()
		if refused == nil && word != "saved" {
			l.log.Warn("a result could not be made durable: somebody else has changed the payment",
				"gateway", key.Gateway, "transaction_id", key.TransactionID, "status", r.Status)
			return true
		}
		return refused == nil && err == nil
	})
}

const saveTimeout = 3 * time.Second // of one try to repeat a save

// final reports whether trying again changes nothing.
func final(err error) bool { return errors.Is(err, ErrFenced) || errors.Is(err, ErrNotFound) }

// runOnce runs one script that need not be durable.
func (l *Ledger) runOnce(ctx context.Context, calls ...durable.Call) ([]*redis.Cmd, error) {
	replies := l.run(ctx, calls)
	var refusal redis.Error
	if err := replies[0].Err(); err != nil && !errors.As(err, &refusal) {
		return nil, err
	}
	return replies, nil
}

// SaveAll is for those who hold no claim: it records what was changed in many records, in
// one round trip; each error stands at its record's index. It does not try again, and
// need not be durable: lookups can be repeated.
func (l *Ledger) SaveAll(ctx context.Context, records []*Record) []error {
	errs := make([]error, len(records))
	calls := make([]durable.Call, 0, len(records))
	var index []int
	for i, r := range records {
		call, err := l.save(r)
		if err != nil {
			errs[i] = err
			continue
		}
		calls, index = append(calls, call), append(index, i)
	}
	for j, reply := range l.run(ctx, calls) {
		errs[index[j]] = records[index[j]].saved(reply)
	}
	return errs
}

// SaveIfExpired is SaveAll for one record whose claim has expired, by Redis' clock: the
// error is ErrFenced where it has not. (Model step [expire].)
func (l *Ledger) SaveIfExpired(ctx context.Context, r *Record) error {
	r.onlyIfExpired = true
	return l.SaveAll(ctx, []*Record{r})[0]
}

// saved reads saveScript's answer.
func (r *Record) saved(cmd *redis.Cmd) error {
	word, err := cmd.Text()
	switch {
	case err != nil:
	case word == "saved":
		r.saving = ""
		return nil
	case word == "fenced":
		err = ErrFenced
	case word == "missing":
		err = ErrNotFound
	default:
		err = errors.New("unexpected answer of a script")
	}
	return fmt.Errorf("ledger: save %s: %w", r.Key(), err)
}

// save turns a changed record into a run of saveScript.
func (l *Ledger) save(r *Record) (durable.Call, error) {
	fail := func(err error) (durable.Call, error) {
		return durable.Call{}, fmt.Errorf("ledger: save %s: %w", r.Key(), err)
	}
	if !payment.CanMove(r.previous, r.Status) || r.Status == payment.Submitting { // only Claim leads there
		return fail(fmt.Errorf("from %s to %s: %w", r.previous, r.Status, ErrIllegalMove))
	}
	// What an order system has to hear of: another status, or another reason to look.
	news := r.Status != r.previous || r.Status == payment.NeedsReview && r.Reason != r.reason
	if r.saving == "" {
		r.saving = rand.Text()
		if news {
			r.UpdatedAt = r.Now(l.now()).Truncate(time.Millisecond).UTC()
		}
	}
	a := saveArgs{
		request: r.saving, revRead: r.rev, requestRead: r.request, status: r.Status, updated: r.UpdatedAt,
		due: r.Due, notBefore: r.NotBefore, restart: r.restart, primary: r.primary,
		deleteToken: r.Status.Final(), reference: r.numeric(), onlyIfExpired: r.onlyIfExpired, badToken: r.BadToken,
	}
	if r.restart && r.primary == "" {
		a.primary = l.writes.Primary()
	}
	if r.Status == payment.Queued {
		a.due = In(TaskGrace)
	}
	var err error
	if a.facts, err = r.facts(); err != nil {
		return fail(err)
	}
	if news && r.Status.HasEvent() {
		told := r.Payment
		told.NextAt = time.Time{}
		if a.event, err = events.Marshal(&told, r.events+1); err != nil {
			return fail(err)
		}
	}
	if r.changed != nil {
		a.number = r.number
		if a.attempt, err = json.Marshal(r.changed); err != nil {
			return fail(err)
		}
	}
	return saveCall(r.Key(), l.stream, a), nil
}

// run runs scripts that need not be durable, in order and in one round trip; each
// reply stands at its call's index. A Redis that does not know a script yet is told it,
// which costs two more round trips.
func (l *Ledger) run(ctx context.Context, calls []durable.Call) []*redis.Cmd {
	if len(calls) == 0 {
		return nil
	}
	replies := make([]*redis.Cmd, len(calls))
	// Each command carries its own error, and the pipeline's is the first of them.
	_, _ = l.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, c := range calls {
			replies[i] = c.Script.EvalSha(ctx, pipe, c.Keys, c.Args...)
		}
		return nil
	})
	for i, c := range calls {
		if redis.HasErrorPrefix(replies[i].Err(), "NOSCRIPT") {
			replies[i] = c.Script.Run(ctx, l.redis, c.Keys, c.Args...)
			copy(replies[i+1:], l.run(ctx, calls[i+1:]))
			break
		}
	}
	return replies
}
