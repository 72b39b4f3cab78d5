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
	// watchInterval is how often a payment in review whose outcome is still
	// unknown is looked for. Late evidence spares the person who would look.
	watchInterval = 10 * time.Minute
	// maxDoubts is how often a payment may be sent with an outcome nobody knew
	// before a person decides, where the policy says "then: retry".
	maxDoubts = 3
)

// change is what a look-up changed in a record, with the attempt to show for it
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
	c = change{record: r, detail: f.Answer.Err}
	if action != "" {
		c.attempt = &payment.Attempt{
			At: f.Answer.At.UTC().Truncate(time.Millisecond), Kind: payment.KindLookup,
			Code: f.Answer.Code, Message: f.Answer.Message, HTTPStatus: f.Answer.HTTPStatus, Action: string(action),
			DurationMS: f.Answer.Duration.Milliseconds(), ExternalID: f.ExternalID,
		}
		r.Append(*c.attempt)
	}
	polled := r.Status == payment.OnProcessing || r.Status == payment.Expired
	same := before.Status == r.Status && before.GatewayStatus == r.GatewayStatus &&
		before.GatewayReference == r.GatewayReference
	return c, action != "" || !polled || !same || r.Due.IsZero()
}

// found takes over what the gateway says. The action is empty when the payment
// stays where it stood.
func (p *Poller) found(r *ledger.Record, f Finding) retrypolicy.Action {
	before := r.Status
	f.Answer.Receipt.Apply(&r.Payment)
	if f.Twice != "" {
		r.Status, r.Reason = payment.NeedsReview, f.Twice
	}
	if before == payment.Expired && r.Status == payment.OnProcessing {
		r.Status = payment.Expired // still unpaid; only money brings it back
	}
	if before == payment.OnProcessing && r.Status == payment.OnProcessing && p.late(r, f.Answer.At) {
		r.Status = payment.Expired
	}
	r.Due = submit.DueAfter(r.Status, p.Now(), p.Interval)
	if r.Status == payment.Expired || r.Status == payment.NeedsReview && before == payment.NeedsReview {
		p.keepWatch(r)
	}
	if r.Status == before {
		return ""
	}
	return retrypolicy.Accept
}

// late reports whether a payment that was seen unpaid at that time will not be
// paid in time any more.
func (p *Poller) late(r *ledger.Record, seen time.Time) bool {
	return !r.ExpiresAt.IsZero() && seen.After(r.ExpiresAt.Add(p.ExpiryGrace))
}

// notFound goes on with a payment of unknown outcome that a look-up did not
// find. "No such payment" is believed only when it was said often enough over
// long enough: the request may still be on its way inside the gateway.
func (p *Poller) notFound(r *ledger.Record, f Finding) retrypolicy.Action {
	now := p.Now()
	r.Lookups++
	if f.Answer.Absent {
		r.NotFound++
	}
	verify := p.Policy.Verify(r.Gateway)
	believed := f.Proven && enough(r, verify, f.Answer.At)
	delay, exhausted := p.Policy.Lookup(r.Gateway, r.Doubt, r.Lookups, now.Sub(r.Since))
	switch {
	case believed && verify.Then == retrypolicy.Retry && r.Doubts < maxDoubts:
		r.Status, r.Due = payment.Queued, now.Add(ledger.TaskGrace)
		return retrypolicy.Retry
	case believed:
		r.Reason = fmt.Sprintf("the outcome of the submit is unknown (%s), and the gateway knew no such payment in %d look-ups over %s",
			r.Doubt, r.NotFound, now.Sub(r.Since).Round(time.Second))
	case exhausted:
		r.Reason = fmt.Sprintf("the outcome of the submit is unknown (%s), and %d look-ups over %s did not settle it",
			r.Doubt, r.Lookups, now.Sub(r.Since).Round(time.Second))
	default:
		r.Due = now.Add(delay)
		return retrypolicy.Verify
	}
	r.Status, r.GatewayStatus = payment.NeedsReview, r.Doubt
	p.keepWatch(r)
	return retrypolicy.Review
}

// ripe reports whether one more "no such payment", said at that time, would be believed.
func (p *Poller) ripe(r *ledger.Record, at time.Time) bool {
	once := *r
	once.NotFound++
	return r.Status == payment.Verifying && enough(&once, p.Policy.Verify(r.Gateway), at)
}

// enough reports whether "no such payment", last said at that time, was said often
// enough, for long enough.
func enough(r *ledger.Record, c retrypolicy.Verification, at time.Time) bool {
	return r.NotFound >= c.Lookups && at.Sub(r.Since) >= c.Settle
}

// keepWatch says when an expired payment, or one in review, is next looked
// for; once its time is up, never again.
func (p *Poller) keepWatch(r *ledger.Record) {
	now := p.Now()
	switch {
	case r.Status == payment.Expired && now.Before(r.ExpiresAt.Add(p.LateWindow)),
		r.Status == payment.OnProcessing:
		r.Due = submit.DueAfter(payment.OnProcessing, now, p.Interval)
	case r.Status == payment.NeedsReview && r.Doubts > 0 && now.Before(r.Since.Add(p.LateWindow)):
		r.Due = now.Add(watchInterval)
	default:
		r.Due = time.Time{}
	}
}
