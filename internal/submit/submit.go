// Package submit sends a payment to its gateway, in four steps:
//
//  1. Claim: the ledger records, durably, that this worker is about to send the payment.
//  2. Send: the worker makes one request. It never repeats it by itself.
//  3. Decide: the retry policy says what follows from the answer.
//  4. Record: the ledger saves the attempt and the payment's new status.
//
// If there is no clear answer, or the worker crashes before the last step, the outcome of the
// request is unknown: the gateway may or may not have the payment. It then becomes verifying
// and is looked up at the gateway (package statuspoll) instead of being sent again.
package submit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"terbayar/internal/admission"
	"terbayar/internal/clients"
	"terbayar/internal/ledger"
	"terbayar/internal/order"
	"terbayar/internal/payment"
	"terbayar/internal/retrypolicy"
	"terbayar/internal/secret"
)

// Submitter submits payments. Set its fields before the first use and do not change them later.
type Submitter struct {
	Ledger    *ledger.Ledger
	Gateways  map[payment.Gateway]clients.Gateway
	Admission map[payment.Gateway]*admission.Controller // no entry: every request to the gateway is allowed
	Policy    *retrypolicy.Policy
	Cipher    *secret.Cipher

	Times Times
	// PollInterval is the time between two polls of the payments in on_processing.
	PollInterval time.Duration
	// QueueTTL is how long a payment may wait to be sent if its gateway has no expiry date.
	// Without an entry for the gateway there is no limit.
	QueueTTL map[payment.Gateway]time.Duration
	Now      func() time.Time
	// OnLogin is called with the result of the login, nil or an error, before a submit that
	// admission control allows.
	OnLogin func(g payment.Gateway, err error)
	// OnExpired is called for every payment that was not sent in time.
	OnExpired func(r *ledger.Record)
	// OnAttempt is called for every recorded attempt; detail is the client's error, if any.
	OnAttempt func(r *ledger.Record, a payment.Attempt, detail error)
}

// Times are the timeouts of one submit. They count from the moment when the claim is sent to
// Redis:
//
//	|-- Send --|-- gateway timeout --|-- margin --|
//	|------------------- Lease -------------------|
//
// Within Send the claim has to be acknowledged and the first byte of the request has to
// leave; otherwise the request is not made. It then ends within the gateway timeout. So when
// a claim has expired, its request has ended or will never be made, even if the worker was
// frozen meanwhile.
type Times struct {
	Send  time.Duration
	Lease time.Duration // how long a claim is valid: Send + gateway timeout + margin
}

// Next says when the payment's task has to run again. The zero value: not again.
type Next struct {
	In     time.Duration
	Reason string // a code, or a few words; contains no secrets
}

const (
	// minWait is the shortest Next.In: zero would mean that the task does not run again.
	minWait = time.Millisecond
	// otherVersionWait is the wait before a task runs again if another version of the
	// worker wrote its record.
	otherVersionWait = 30 * time.Second
)

// LoginPause is how long a payment waits after a failed login. Nothing has been claimed or
// sent then, and no attempt is spent. It does not depend on the time of this worker's next
// login: another worker may be able to log in. It is also the wait while this worker's clock
// and Redis' disagree, see ExpirePayment.
const LoginPause = 5 * time.Second

// Submit sends one queued payment if it may be sent now, and expires it if it is too late to
// send it. A payment whose claim has expired becomes verifying, see ExpireClaim. It changes no
// other payment. The error is ledger.ErrNotFound or an error of Redis; after an error of Redis
// the task has to run again.
func (s *Submitter) Submit(ctx context.Context, key payment.Key) (Next, error) {
	gateway, ok := s.Gateways[key.Gateway]
	if !ok {
		return Next{}, fmt.Errorf("submit: %s: gateway is off", key)
	}
	permit, err := s.Admission[key.Gateway].Allow(ctx, gateway)
	if err != nil {
		return s.denied(key.Gateway, err)
	}
	defer permit.Release()
	s.OnLogin(key.Gateway, nil)
	r, result, err := s.Ledger.Claim(ctx, key, ledger.Claim{
		Attempt: payment.Attempt{
			At: s.Now().UTC().Truncate(time.Millisecond), Kind: payment.KindSubmit, ExternalID: gateway.NewExternalID(),
		},
		Lease: s.Times.Lease, QueueTTL: s.QueueTTL[key.Gateway], Timeout: s.Times.Send,
	})
	if later, ok := errors.AsType[*ledger.LaterError](err); ok {
		return Next{In: max(later.Wait, minWait), Reason: later.Error()}, nil
	}
	if err != nil {
		return Next{}, fmt.Errorf("submit: %w", err)
	}
	switch result {
	case ledger.Claimed:
		return s.send(ctx, gateway, permit, r)
	case ledger.ClaimExpired:
		return Next{}, s.ExpireClaim(ctx, key)
	case ledger.TooLate:
		return s.ExpirePayment(ctx, r)
	case ledger.Missing:
		return Next{}, fmt.Errorf("submit: %s: %w", key, ledger.ErrNotFound)
	case ledger.OtherVersion: // only a worker of that version can process it
		return Next{In: otherVersionWait, Reason: ledger.ErrOtherVersion.Error()}, nil
	default: // another worker is sending it, or it is no longer queued
		return Next{}, nil
	}
}

// TooLate reports whether a queued payment can no longer be sent, by Redis' clock: its expiry
// date or QueueTTL has passed.
func (s *Submitter) TooLate(r *ledger.Record) bool {
	end := r.ExpiresAt
	if ttl := s.QueueTTL[r.Gateway]; end.IsZero() && ttl > 0 {
		end = r.CreatedAt.Add(ttl)
	}
	return !end.IsZero() && !r.Now(s.Now()).Before(end)
}

// ExpirePayment sets a payment that was not sent in time to expired. If an earlier submit has
// an unknown outcome, the payment is still looked up. By Redis' clock it is too late; if this
// worker's clock disagrees, the payment is neither sent nor expired, but tried again later.
func (s *Submitter) ExpirePayment(ctx context.Context, r *ledger.Record) (Next, error) {
	if !r.ExpiresAt.IsZero() && s.Now().Before(r.ExpiresAt) {
		return Next{In: LoginPause, Reason: "the clocks of this worker and Redis disagree on whether the payment has expired"}, nil
	}
	r.Status, r.Reason = payment.Expired, "not sent in time"
	if r.Unknowns > 0 {
		r.Due = ledger.In(0)
	}
	err := s.Ledger.Save(ctx, r)
	if errors.Is(err, ledger.ErrFenced) { // another worker has changed it
		return Next{}, nil
	}
	if err != nil {
		return Next{}, fmt.Errorf("submit: %w", err)
	}
	s.OnExpired(r)
	return Next{}, nil
}

// denied handles an error of admission control: the task runs again later. Only an error of
// Redis is returned.
func (s *Submitter) denied(g payment.Gateway, err error) (Next, error) {
	if denied, ok := errors.AsType[*admission.DeniedError](err); ok {
		return Next{In: denied.Wait, Reason: err.Error()}, nil
	}
	if errors.As(err, new(*clients.Error)) {
		s.OnLogin(g, err)
		return Next{In: LoginPause, Reason: err.Error()}, nil
	}
	return Next{}, fmt.Errorf("submit: %w", err)
}

// send sends a claimed payment once, decides, and records the result. It ignores a
// cancellation of ctx: cancelling a request that moves money would only make its outcome
// unknown. (Steps [send] and [record] of the model in docs/model.)
func (s *Submitter) send(ctx context.Context, gateway clients.Gateway, permit *admission.Permit, r *ledger.Record) (Next, error) {
	attempt := r.Attempts[len(r.Attempts)-1]
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.Times.Lease-r.SinceClaim(s.Now()))
	defer cancel()

	answer := s.attempt(ctx, gateway, r, attempt.ExternalID)
	permit.Report(answer)
	decision := permit.Adjust(ctx, r.Key(), answer, s.decide(r, answer))
	if answer.Receipt != nil && decision.Action == retrypolicy.Accept && answer.Receipt.Contradiction(&r.Payment) != "" {
		decision.Action = retrypolicy.Review
	}
	attempt.Code, attempt.Message, attempt.HTTPStatus = answer.Code, answer.Message, answer.HTTPStatus
	attempt.Action = string(decision.Action)
	attempt.DurationMS = answer.Duration.Milliseconds()

	next := s.apply(gateway, r, answer, decision)
	r.FinishAttempt(attempt)
	err := s.Ledger.Save(ctx, r)
	if errors.Is(err, ledger.ErrFenced) {
		err = s.recordLateAnswer(ctx, r, attempt, answer, decision)
	}
	if err != nil { // the claim will expire, and the payment will be looked up
		return Next{}, fmt.Errorf("submit: record answer %s: %w", answer.Code, err)
	}
	s.OnAttempt(r, attempt, answer.Err)
	return next, nil
}

// attempt makes the request. An error before that is an answer too: "not sent".
func (s *Submitter) attempt(ctx context.Context, gateway clients.Gateway, r *ledger.Record, externalID string) clients.Answer {
	o, err := order.Restore(r.Gateway, r.Order)
	if err != nil {
		return clients.Answer{Code: retrypolicy.CodeUnsent, Err: err}
	}
	var token secret.Text
	if r.EncryptedToken != "" {
		if token, err = s.Cipher.Decrypt(r.EncryptedToken, r.Key().String()); err != nil {
			return clients.Answer{Code: retrypolicy.CodeUndecryptable, Err: err}
		}
	}
	return gateway.Submit(ctx, clients.Submission{
		Order: o, CustomerToken: token, ExternalID: externalID, BeforeSend: func() error { return s.checkSendBudget(r) },
	})
}

// checkSendBudget returns an error if Times.Send has passed since the claim was made: the
// request must then not be sent.
func (s *Submitter) checkSendBudget(r *ledger.Record) error {
	if since := r.SinceClaim(s.Now()); since > s.Times.Send {
		return fmt.Errorf("the claim was made %s ago, but the request has to be sent within %s", since.Round(time.Millisecond), s.Times.Send)
	}
	return nil
}

// decide returns the policy's decision on an answer. Retries and token refreshes are counted
// separately: a refused token does not mean that the gateway is busy.
func (s *Submitter) decide(r *ledger.Record, answer clients.Answer) retrypolicy.Decision {
	d := s.Policy.Decide(r.Gateway, answer.Code, answer.Message, 1, 0)
	age := r.Now(s.Now()).Sub(r.FirstClaim)
	switch {
	case d.Action == retrypolicy.Retry:
		r.Retries++
		d = s.Policy.Decide(r.Gateway, answer.Code, answer.Message, r.Retries, age)
	case d.Action == retrypolicy.RefreshToken:
		r.Refreshes++
		d = s.Policy.Decide(r.Gateway, answer.Code, answer.Message, r.Refreshes, age)
	case d.Action == retrypolicy.Reject && r.Unknowns > 0:
		// This submit was refused, but an earlier one with an unknown outcome may have been
		// accepted (docs/gateways.md 3.1).
		d.Action = retrypolicy.Verify
	}
	return d
}

// apply applies the decision to the record, and returns when the task has to run again.
func (s *Submitter) apply(gateway clients.Gateway, r *ledger.Record, answer clients.Answer, d retrypolicy.Decision) Next {
	if d.NewLogin {
		gateway.DropToken(answer.Token)
	}
	switch d.Action {
	case retrypolicy.Accept:
		if answer.Receipt != nil {
			s.applyReceipt(r, answer.Receipt)
			return Next{}
		}
		// An override accepts a code that comes without a receipt: the poll finds its status.
		r.Status, r.GatewayStatus, r.Due = payment.OnProcessing, answer.Code, ledger.OnGrid(s.PollInterval)
		return Next{}
	case retrypolicy.Retry, retrypolicy.RefreshToken:
		// The policy's delay is added to the gateway's Retry-After: its jitter spreads the
		// payments that wait for the same moment.
		next := Next{In: max(answer.RetryAfter+d.Delay, minWait), Reason: answer.Code}
		// NotBefore makes every task of the payment wait: there may be two.
		r.Status, r.NotBefore = payment.Queued, next.In
		r.BadToken, r.Reason = false, ""
		if answer.Code == retrypolicy.CodeUndecryptable { // submitting the order again replaces the token
			r.BadToken, r.Reason = true, d.Rule.Meaning
		}
		return next
	case retrypolicy.Reject:
		r.Status, r.GatewayStatus, r.Due = payment.Rejected, answer.Code, ledger.Due{}
		return Next{}
	case retrypolicy.Review:
		if answer.Receipt != nil { // it contradicts the order, or an override asks for a review
			s.applyReceipt(r, answer.Receipt)
			if r.Contradicted {
				return Next{}
			}
		}
		r.Status, r.GatewayStatus, r.Due = payment.NeedsReview, answer.Code, ledger.Due{}
		r.Reason, r.BadToken = d.Reason, answer.Code == retrypolicy.CodeUndecryptable
		if r.Unknowns > 0 { // the outcome of an earlier submit is still unknown: look it up
			r.Due = ledger.In(0)
		}
		return Next{}
	default: // Verify: the outcome is unknown
		first, _ := s.Policy.LookupSchedule(r.Gateway, answer.Code, 0, 0)
		r.MarkUnknown(answer.Code)
		r.Due = ledger.In(first)
		return Next{}
	}
}

// applyReceipt copies the gateway's receipt into the record. A payment whose receipt
// contradicts the order goes to review and is looked up again: the gateway may correct it.
func (s *Submitter) applyReceipt(r *ledger.Record, receipt *clients.Receipt) {
	r.Contradicted = receipt.Apply(&r.Payment) != ""
	r.Due = DueAfter(r.Status, s.PollInterval)
	if r.Contradicted {
		r.Due = ledger.OnGrid(s.PollInterval)
	}
}

// ExpireClaim handles a claim that has expired, by Redis' clock, because its worker was lost:
// the outcome of its request is unknown, so the payment becomes verifying. It does nothing if
// the claim is still valid or its result was recorded. (Step [expire] of the model in
// docs/model.)
func (s *Submitter) ExpireClaim(ctx context.Context, key payment.Key) error {
	r, err := s.Ledger.Read(ctx, key)
	if err != nil {
		return fmt.Errorf("expire claim: %w", err)
	}
	if r.Status != payment.Submitting {
		return nil
	}
	attempt := r.Attempts[len(r.Attempts)-1]
	attempt.Code, attempt.Action = retrypolicy.CodeUnknown, string(retrypolicy.Verify)
	attempt.DurationMS = s.Times.Lease.Milliseconds()
	r.MarkUnknown(attempt.Code)
	r.Due = ledger.In(0) // the request ended before the claim did, see Times: look it up now
	r.FinishAttempt(attempt)
	switch err := s.Ledger.SaveIfExpired(ctx, r); {
	case errors.Is(err, ledger.ErrFenced): // the claim is still valid, or its result was recorded
		return nil
	case err != nil:
		return fmt.Errorf("expire claim: %w", err)
	}
	s.OnAttempt(r, attempt, errClaimExpired)
	return nil
}

var errClaimExpired = errors.New("claim expired (worker lost)")

// recordLateAnswer records an answer that arrived after the claim had expired and the payment
// had become verifying. A receipt is as good as one found by a lookup. A refusal ends the
// payment if this was its only request that may have reached the gateway. Any other answer
// is dropped: the lookups decide.
func (s *Submitter) recordLateAnswer(ctx context.Context, claimed *ledger.Record, attempt payment.Attempt, answer clients.Answer, d retrypolicy.Decision) error {
	r, err := s.Ledger.Read(ctx, claimed.Key())
	if err != nil || r.Status != payment.Verifying {
		return err
	}
	number := len(claimed.Attempts)
	onlyRequest := r.Unknowns == 1 && number <= len(r.Attempts) && r.Attempts[number-1].Code == retrypolicy.CodeUnknown
	switch {
	case answer.Receipt != nil:
		s.applyReceipt(r, answer.Receipt)
	case onlyRequest && (d.Action == retrypolicy.Reject || d.Action == retrypolicy.Review):
		r.Status, r.GatewayStatus, r.Reason, r.Due = payment.Rejected, answer.Code, "", ledger.Due{}
		if d.Action == retrypolicy.Review {
			r.Status, r.Reason = payment.NeedsReview, d.Reason
		}
	default:
		return nil
	}
	r.AddAttempt(attempt)
	err = s.Ledger.Save(ctx, r)
	if errors.Is(err, ledger.ErrFenced) {
		return nil // a lookup was faster
	}
	return err
}

// DueAfter returns when a payment that has just reached a status is next looked up: in
// on_processing at the next multiple of interval, so that one poll serves many payments; in
// any other status never.
func DueAfter(status payment.Status, interval time.Duration) ledger.Due {
	if status != payment.OnProcessing {
		return ledger.Due{}
	}
	return ledger.OnGrid(interval)
}
