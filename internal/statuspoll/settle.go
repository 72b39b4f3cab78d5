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
	// slowest is the longest time between two lookups of a payment that is only watched,
	// because it expired or is in review: late evidence spares the person who would look.
	slowest = 10 * time.Minute
	// maxUnknowns is how often a payment may be sent with an unknown outcome before a
	// person decides, where the policy says "then: retry".
	maxUnknowns = 3
)

// change is what a lookup changed in a record, with the attempt to show for it
// (nil where only the record's upkeep changed).
type change struct {
	record  *ledger.Record
	attempt *payment.Attempt
	detail  error
}

// settle brings a record to where a finding puts it. ok is false when nothing
// changes but that it is due again with the next poll.
func (p *Poller) settle(r *ledger.Record, f Finding) (c change, ok bool) {
	before := r.Payment
	var action retrypolicy.Action
	switch {
	case f.Answer.Receipt != nil:
		action = p.found(r, f)
	case before.Status == payment.Verifying:
		action = p.notFound(r, f)
	default: // known to be there, or being watched for: not to see it says nothing
		p.keepWatch(r)
	}
	if r.Status == payment.OnProcessing && p.openTooLong(r) {
		r.Status, r.Due = payment.NeedsReview, ledger.Due{}
		r.Reason = fmt.Sprintf("it is still open after %s, and the gateway has not said that it ended", p.LateWindow)
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

// found takes over what the gateway says. The action is empty when the payment's status
// stays as it was.
func (p *Poller) found(r *ledger.Record, f Finding) retrypolicy.Action {
	before, reason := r.Status, r.Reason
	why := f.Answer.Receipt.Apply(&r.Payment)
	if f.Duplicate != "" {
		why = f.Duplicate
		r.Status, r.Reason = payment.NextStatus(before, payment.NeedsReview), why
	}
	r.Contradicted = why != ""
	if before == payment.OnProcessing && r.Status == payment.OnProcessing && p.late(r, f.Answer.At) {
		r.Status = payment.Expired
	}
	p.keepWatch(r)
	switch {
	case r.Status == payment.NeedsReview && (before != payment.NeedsReview || r.Reason != reason):
		return retrypolicy.Review
	case r.Status != before:
		return retrypolicy.Accept
	default:
		return ""
	}
}

// late reports whether a payment that was seen unpaid at that time will not be paid in
// time any more. Redis' clock and this worker's both have to say so: either may be ahead.
func (p *Poller) late(r *ledger.Record, seen time.Time) bool {
	end := r.ExpiresAt.Add(p.ExpiryGrace)
	return !r.ExpiresAt.IsZero() && seen.After(end) && r.Now(seen).After(end)
}

// openTooLong reports whether a payment has been open for so long that a person should
// look: the gateway no longer shows it, or never says how it ended.
func (p *Poller) openTooLong(r *ledger.Record) bool {
	from := r.ExpiresAt
	if from.IsZero() {
		from = r.CreatedAt
	}
	return r.Now(p.Now()).After(from.Add(p.ExpiryGrace + p.LateWindow))
}

// notFound goes on with a payment of unknown outcome that a lookup did not
// find. "No such payment" is believed only when it was said often enough over
// long enough: the request may still be on its way inside the gateway.
func (p *Poller) notFound(r *ledger.Record, f Finding) retrypolicy.Action {
	age := r.Now(p.Now()).Sub(r.UnknownSince)
	r.Lookups++
	if f.Answer.Absent {
		r.NotFound++
	}
	verify := p.Policy.Verify(r.Gateway)
	believed := f.Conclusive && enough(r, verify, f.Answer.At)
	delay, exhausted := p.Policy.LookupSchedule(r.Gateway, r.UnknownCode, r.Lookups, age)
	switch {
	case believed && verify.Then == retrypolicy.Retry && r.Unknowns < maxUnknowns:
		r.Status = payment.Queued
		return retrypolicy.Retry
	case believed:
		r.Reason = fmt.Sprintf("the outcome of the submit is unknown (%s), and the gateway knew no such payment in %d lookups over %s",
			r.UnknownCode, r.NotFound, age.Round(time.Second))
	case exhausted:
		r.Reason = fmt.Sprintf("the outcome of the submit is unknown (%s), and %d lookups over %s did not settle it",
			r.UnknownCode, r.Lookups, age.Round(time.Second))
	default:
		r.Due = ledger.In(delay)
		return retrypolicy.Verify
	}
	r.Status, r.GatewayStatus = payment.NeedsReview, r.UnknownCode
	p.keepWatch(r)
	return retrypolicy.Review
}

// confirmable reports whether one more "no such payment", said at that time, would be
// believed.
func (p *Poller) confirmable(r *ledger.Record, at time.Time) bool {
	once := *r
	once.NotFound++
	return r.Status == payment.Verifying && enough(&once, p.Policy.Verify(r.Gateway), at)
}

// enough reports whether "no such payment", last said at that time, was said often
// enough, for long enough.
func enough(r *ledger.Record, v retrypolicy.Verification, at time.Time) bool {
	return r.NotFound >= v.Lookups && r.Now(at).Sub(r.UnknownSince) >= v.Settle
}

// keepWatch says when a payment is next looked up: an open one with the next poll; one
// that has expired, or is in review because of something that may change, more slowly
// and for LateWindow only.
func (p *Poller) keepWatch(r *ledger.Record) {
	var from time.Time
	switch {
	case r.Status == payment.OnProcessing:
		r.Due = submit.DueAfter(r.Status, p.Interval)
		return
	case r.Status == payment.Expired && r.ExpiresAt.IsZero(): // it waited too long to be sent
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
		r.Due = ledger.In(min(10*p.Interval, slowest))
	}
}
