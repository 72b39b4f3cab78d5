package statuspoll

import (
	"fmt"
	"time"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/retrypolicy"
	"terbayar/internal/submit"
)

const (
	// maxWatchInterval is the maximum time between two lookups of a payment that is
	// expired or in review. The gateway may still report that the customer has paid;
	// then no manual review is needed.
	maxWatchInterval = 10 * time.Minute
	// maxUnknowns is how many submits of a payment may end with an unknown outcome before
	// it goes to review, even if the policy says "then: retry".
	maxUnknowns = 3
)

// change is a record that a finding has changed, with the attempt to record; nil if the
// finding is not an attempt.
type change struct {
	record  *ledger.Record
	attempt *payment.Attempt
	detail  error
}

// update applies a finding to a record. It reports false if there is nothing to save: the
// payment is still open and is due again at the next poll.
func (p *Poller) update(r *ledger.Record, f Finding) (c change, ok bool) {
	before := r.Payment
	var action retrypolicy.Action
	switch {
	case f.Answer.Receipt != nil:
		action = p.found(r, f)
	case before.Status == payment.Verifying:
		action = p.notFound(r, f)
	default: // open, expired or in review: absence and errors mean nothing
		p.scheduleNext(r)
	}
	if r.Status == payment.OnProcessing && p.openTooLong(r) {
		r.Status, r.Due = payment.NeedsReview, ledger.Due{}
		r.Reason = fmt.Sprintf("it is still open after %s, and the gateway has not reported a final status", p.LateWindow)
		action = retrypolicy.Review
	}
	c = change{record: r, detail: f.Answer.Err}
	if action != "" {
		c.attempt = &payment.Attempt{
			At: f.Answer.At.UTC().Truncate(time.Millisecond), Kind: payment.KindLookup,
			Code: f.Answer.Code, Message: f.Answer.Message, HTTPStatus: f.Answer.HTTPStatus, Action: string(action),
			DurationMS: f.Answer.Duration.Milliseconds(), ExternalID: f.ExternalID,
		}
		r.AddAttempt(*c.attempt)
	}
	same := before.Status == r.Status && before.GatewayStatus == r.GatewayStatus &&
		before.GatewayReference == r.GatewayReference
	return c, action != "" || r.Status != payment.OnProcessing || !same
}

// found applies the receipt of a payment that was found. It returns an empty action if the
// status does not change.
func (p *Poller) found(r *ledger.Record, f Finding) retrypolicy.Action {
	before, reason := r.Status, r.Reason
	why := f.Answer.Receipt.Apply(&r.Payment)
	if f.Duplicate != "" {
		why = f.Duplicate
		r.Status, r.Reason = payment.NextStatus(before, payment.NeedsReview), why
	}
	r.Contradicted = why != ""
	if before == payment.OnProcessing && r.Status == payment.OnProcessing && p.expired(r, f.Answer.At) {
		r.Status = payment.Expired
	}
	p.scheduleNext(r)
	switch {
	case r.Status == payment.NeedsReview && (before != payment.NeedsReview || r.Reason != reason):
		return retrypolicy.Review
	case r.Status != before:
		return retrypolicy.Accept
	default:
		return ""
	}
}

// expired reports whether a payment that was unpaid at the given time has passed its
// expired_date and the grace time, both by Redis' clock and by this worker's: either clock
// may be ahead.
func (p *Poller) expired(r *ledger.Record, unpaidAt time.Time) bool {
	end := r.ExpiresAt.Add(p.ExpiryGrace)
	return !r.ExpiresAt.IsZero() && unpaidAt.After(end) && r.Now(unpaidAt).After(end)
}

// openTooLong reports whether a payment has been open longer than LateWindow: the gateway
// no longer lists it, or never reports a final status.
func (p *Poller) openTooLong(r *ledger.Record) bool {
	from := r.ExpiresAt
	if from.IsZero() {
		from = r.CreatedAt
	}
	return r.Now(p.Now()).After(from.Add(p.ExpiryGrace + p.LateWindow))
}

// notFound updates a payment of unknown outcome that a lookup did not find. "No such
// payment" must be confirmed by several lookups over some time, because the gateway may
// still be processing the request.
func (p *Poller) notFound(r *ledger.Record, f Finding) retrypolicy.Action {
	age := r.Now(p.Now()).Sub(r.UnknownSince)
	r.Lookups++
	if f.Answer.Absent {
		r.NotFound++
	}
	verify := p.Policy.Verify(r.Gateway)
	absent := f.Conclusive && confirmed(r, verify, f.Answer.At)
	delay, exhausted := p.Policy.LookupSchedule(r.Gateway, r.UnknownCode, r.Lookups, age)
	switch {
	case absent && verify.Then == retrypolicy.Retry && r.Unknowns < maxUnknowns:
		r.Status = payment.Queued
		return retrypolicy.Retry
	case absent:
		r.Reason = fmt.Sprintf("the outcome of the submit is unknown (%s), and the gateway knew no such payment in %d lookups over %s",
			r.UnknownCode, r.NotFound, age.Round(time.Second))
	case exhausted:
		r.Reason = fmt.Sprintf("the outcome of the submit is unknown (%s), and %d lookups over %s did not determine it",
			r.UnknownCode, r.Lookups, age.Round(time.Second))
	default:
		r.Due = ledger.In(delay)
		return retrypolicy.Verify
	}
	r.Status, r.GatewayStatus = payment.NeedsReview, r.UnknownCode
	p.scheduleNext(r)
	return retrypolicy.Review
}

// confirmable reports whether "no such payment" would be confirmed by one more such answer
// at the given time.
func (p *Poller) confirmable(r *ledger.Record, at time.Time) bool {
	next := *r
	next.NotFound++
	return r.Status == payment.Verifying && confirmed(&next, p.Policy.Verify(r.Gateway), at)
}

// confirmed reports whether enough lookups, the last one at the given time, have found no
// such payment, and enough time has passed since its outcome became unknown.
func confirmed(r *ledger.Record, v retrypolicy.Verification, last time.Time) bool {
	return r.NotFound >= v.Lookups && r.Now(last).Sub(r.UnknownSince) >= v.Settle
}

// scheduleNext sets when a payment is next looked up. An open payment is due at the next
// poll. An expired payment, and one in review whose status at the gateway may still
// change, is due at a longer interval and only within LateWindow. Any other is never due.
func (p *Poller) scheduleNext(r *ledger.Record) {
	var from time.Time
	switch {
	case r.Status == payment.OnProcessing:
		r.Due = submit.DueAfter(r.Status, p.Interval)
		return
	case r.Status == payment.Expired && r.ExpiresAt.IsZero(): // it was not sent in time
		from = r.UpdatedAt
	case r.Status == payment.Expired:
		from = r.ExpiresAt
	case r.Status == payment.NeedsReview && r.Contradicted:
		from = r.UpdatedAt
	case r.Status == payment.NeedsReview && r.Unknowns > 0:
		from = r.UnknownSince
	default:
		r.Due = ledger.Due{}
		return
	}
	r.Due = ledger.Due{}
	if now := r.Now(p.Now()); now.Before(from.Add(p.LateWindow)) {
		r.Due = ledger.In(min(10*p.Interval, maxWatchInterval))
	}
}
