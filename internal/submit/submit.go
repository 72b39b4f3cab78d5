// Package submit is the moment a payment leaves: claim, send once, decide,
// record. Whatever happens between the claim and the record - a timeout, a
// crash, an answer nobody can read - leaves a payment of unknown outcome, and
// those are looked up, never sent again.
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

// Submitter submits payments. Its fields are set once, before its first use.
type Submitter struct {
	Ledger    *ledger.Ledger
	Gateways  map[payment.Gateway]clients.Gateway
	Admission map[payment.Gateway]*admission.Controller // a gateway without one may always be asked
	Policy    *retrypolicy.Policy
	Cipher    *secret.Cipher

	Times Times
	// PollInterval is the grid on which open payments are polled.
	PollInterval time.Duration
	// QueueTTL is how long a payment of a gateway without an expiry date of its own may
	// wait to be sent; a gateway without one: for ever.
	QueueTTL map[payment.Gateway]time.Duration
	Now      func() time.Time
	// OnLogin is told, before every submit that the gate lets through, whether the
	// gateway can be logged in to.
	OnLogin func(g payment.Gateway, err error)
	// OnExpired is told of every payment that was not sent in time.
	OnExpired func(r *ledger.Record)
	// OnAttempt is told of every attempt, with what its client had to add.
	OnAttempt func(r *ledger.Record, a payment.Attempt, detail error)
}

// Times is the chain of timeouts around one submit. The request leaves within Send of
// the claim's leaving or not at all; it is over a gateway timeout later; and the claim
// holds for a margin beyond that:
//
//	claim leaves |-- Send: acknowledged, first byte --|-- gateway timeout --|-- margin --| claim expires
//
// So a claim that has expired means that its request has long ended, or never leaves: a
// worker that was frozen meanwhile finds its right to send used up.
type Times struct {
	Send  time.Duration
	Lease time.Duration // how long a claim is held: Send, gateway timeout and margin
}

// Next says when to come back for a payment. The zero value: no need to.
type Next struct {
	In     time.Duration
	Reason string // a code or a few words of our own; safe to show anywhere
}

const (
	// soon is "at once" for what has to go through the queue all the same.
	soon = time.Millisecond
	// versionWait is when a worker looks again at a record of another version.
	versionWait = 30 * time.Second
)

// LoginPause is how long a payment waits when its gateway cannot be logged in to. Nothing
// has been claimed, sent or asked then, and no attempt is spent. It is short, however
// long this worker's next login is away: another worker may be able to log in.
const LoginPause = 5 * time.Second

// Submit takes one payment as far as it goes right now. The error is
// ledger.ErrNotFound, or that of a Redis that cannot be used; the payment is then to be
// tried again.
func (s *Submitter) Submit(ctx context.Context, key payment.Key) (Next, error) {
	gateway, ok := s.Gateways[key.Gateway]
	if !ok {
		return Next{}, fmt.Errorf("submit: %s: gateway is off", key)
	}
	pass, err := s.Admission[key.Gateway].Allow(ctx, gateway)
	if err != nil {
		return s.denied(key.Gateway, err)
	}
	defer pass.Release()
	s.OnLogin(key.Gateway, nil)
	r, verdict, err := s.Ledger.Claim(ctx, key, ledger.Claim{
		Attempt: payment.Attempt{
			At: s.Now().UTC().Truncate(time.Millisecond), Kind: payment.KindSubmit, ExternalID: gateway.NewExternalID(),
		},
		Lease: s.Times.Lease, QueueTTL: s.QueueTTL[key.Gateway], Timeout: s.Times.Send,
	})
	if later, ok := errors.AsType[*ledger.LaterError](err); ok {
		return Next{In: max(later.Wait, soon), Reason: later.Error()}, nil
	}
	if err != nil {
		return Next{}, fmt.Errorf("submit: %w", err)
	}
	switch verdict {
	case ledger.Claimed:
		return s.send(ctx, gateway, pass, r)
	case ledger.ClaimExpired:
		return Next{}, s.ExpireClaim(ctx, key)
	case ledger.TooLate:
		return s.ExpirePayment(ctx, r)
	case ledger.Missing:
		return Next{}, fmt.Errorf("submit: %s: %w", key, ledger.ErrNotFound)
	case ledger.OtherVersion: // for a worker that can read it
		return Next{In: versionWait, Reason: ledger.ErrOtherVersion.Error()}, nil
	default: // on its way elsewhere, or past being sent: the ledger watches it
		return Next{}, nil
	}
}

// TooLate reports whether a queued payment can no longer be sent, by Redis' clock.
func (s *Submitter) TooLate(r *ledger.Record) bool {
	end := r.ExpiresAt
	if ttl := s.QueueTTL[r.Gateway]; end.IsZero() && ttl > 0 {
		end = r.CreatedAt.Add(ttl)
	}
	return !end.IsZero() && !r.Now(s.Now()).Before(end)
}

// ExpirePayment ends a payment that was not sent in time. An earlier send of unknown outcome
// is still looked for. Redis' clock says that it is too late; where this worker's says
// otherwise nobody knows, and it is neither sent nor ended.
func (s *Submitter) ExpirePayment(ctx context.Context, r *ledger.Record) (Next, error) {
	if !r.ExpiresAt.IsZero() && s.Now().Before(r.ExpiresAt) {
		return Next{In: LoginPause, Reason: "this worker's clock and Redis' do not agree whether it has expired"}, nil
	}
	r.Status, r.Reason = payment.Expired, "not sent in time"
	if r.Unknowns > 0 {
		r.Due = ledger.In(0)
	}
	err := s.Ledger.Save(ctx, r)
	if errors.Is(err, ledger.ErrFenced) { // somebody else was first
		return Next{}, nil
	}
	if err != nil {
		return Next{}, fmt.Errorf("submit: %w", err)
	}
	s.OnExpired(r)
	return Next{}, nil
}

// notNow is what follows when the gate does not open. Only a Redis that cannot be
// asked is an error.
func (s *Submitter) denied(g payment.Gateway, err error) (Next, error) {
	if closed, ok := errors.AsType[*admission.DeniedError](err); ok {
		return Next{In: closed.Wait, Reason: err.Error()}, nil
	}
	if errors.As(err, new(*clients.Error)) {
		s.OnLogin(g, err)
		return Next{In: LoginPause, Reason: err.Error()}, nil
	}
	return Next{}, fmt.Errorf("submit: %w", err)
}

// send sends a claimed payment once and records what came of it. From here on
// the caller's context no longer counts: breaking off a request that may move
// money would only make its outcome unknown. (Model steps [send] and [record].)
func (s *Submitter) send(ctx context.Context, gateway clients.Gateway, pass *admission.Permit, r *ledger.Record) (Next, error) {
	attempt := r.Attempts[len(r.Attempts)-1]
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.Times.Lease-r.SinceClaim(s.Now()))
	defer cancel()

	answer := s.attempt(ctx, gateway, r, attempt.ExternalID)
	pass.Report(answer)
	decision := pass.Adjust(ctx, r.Key(), answer, s.decide(r, answer))
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
		err = s.adopt(ctx, r, attempt, answer, decision)
	}
	if err != nil { // it will be looked up when the claim expires
		return Next{}, fmt.Errorf("submit: the answer %s is not recorded: %w", answer.Code, err)
	}
	s.OnAttempt(r, attempt, answer.Err)
	return next, nil
}

// attempt makes the one request. What fails before it is ready to leave is an
// unsent request like any other.
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

// mayLeave says whether a claimed payment may still be sent: the right to send is a
// budget of time since the claim left.
func (s *Submitter) checkSendBudget(r *ledger.Record) error {
	if since := r.SinceClaim(s.Now()); since > s.Times.Send {
		return fmt.Errorf("the claim was made %s ago, and had to be used within %s", since.Round(time.Millisecond), s.Times.Send)
	}
	return nil
}

// decide asks the policy what follows. A rule's attempts are those that fell
// under its action: a refused token is no sign that the gateway is busy.
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
		// A refusal of this send says nothing about the earlier one whose outcome is
		// unknown (gateways.md 3.1).
		d.Action = retrypolicy.Verify
	}
	return d
}

// apply brings the record to where the decision puts it.
func (s *Submitter) apply(gateway clients.Gateway, r *ledger.Record, answer clients.Answer, d retrypolicy.Decision) Next {
	if d.NewLogin {
		gateway.DropToken(answer.Token)
	}
	switch d.Action {
	case retrypolicy.Accept:
		if answer.Receipt != nil {
			s.adoptReceipt(r, answer.Receipt)
			return Next{}
		}
		// An override says so; its status is for the poll to find out.
		r.Status, r.GatewayStatus, r.Due = payment.OnProcessing, answer.Code, ledger.OnGrid(s.PollInterval)
		return Next{}
	case retrypolicy.Retry, retrypolicy.RefreshToken:
		// The policy's own wait comes after what the gateway asked for: its jitter
		// keeps all that were sent away from coming back in the same instant.
		next := Next{In: max(answer.RetryAfter+d.Delay, soon), Reason: answer.Code}
		// Whichever task comes first has to wait: there may be two of them.
		r.Status, r.NotBefore = payment.Queued, next.In
		r.BadToken, r.Reason = false, ""
		if answer.Code == retrypolicy.CodeUndecryptable { // the same order, submitted again, brings another token
			r.BadToken, r.Reason = true, d.Rule.Meaning
		}
		return next
	case retrypolicy.Reject:
		r.Status, r.GatewayStatus, r.Due = payment.Rejected, answer.Code, ledger.Due{}
		return Next{}
	case retrypolicy.Review:
		if answer.Receipt != nil { // it contradicts the order, or the policy wants a person to look
			s.adoptReceipt(r, answer.Receipt)
			if r.Contradicted {
				return Next{}
			}
		}
		r.Status, r.GatewayStatus, r.Due = payment.NeedsReview, answer.Code, ledger.Due{}
		r.Reason, r.BadToken = d.Reason, answer.Code == retrypolicy.CodeUndecryptable
		if r.Unknowns > 0 { // the outcome of an earlier send is still unknown: it is looked for
			r.Due = ledger.In(0)
		}
		return Next{}
	default:
		first, _ := s.Policy.LookupSchedule(r.Gateway, answer.Code, 0, 0)
		r.MarkUnknown(answer.Code)
		r.Due = ledger.In(first)
		return Next{}
	}
}

// adoptReceipt takes over what the gateway says of a payment. What contradicts the order
// is for a person, and is looked up again: it may change.
func (s *Submitter) adoptReceipt(r *ledger.Record, receipt *clients.Receipt) {
	r.Contradicted = receipt.Apply(&r.Payment) != ""
	r.Due = DueAfter(r.Status, s.PollInterval)
	if r.Contradicted {
		r.Due = ledger.OnGrid(s.PollInterval)
	}
}

// ExpireClaim records that whoever claimed a payment is gone: whether its request left,
// nobody knows. It does nothing when the claim has not expired, by Redis' clock, or has
// ended meanwhile. (Model step [expire].)
func (s *Submitter) ExpireClaim(ctx context.Context, key payment.Key) error {
	r, err := s.Ledger.Read(ctx, key)
	if err != nil {
		return fmt.Errorf("abandon: %w", err)
	}
	if r.Status != payment.Submitting {
		return nil
	}
	attempt := r.Attempts[len(r.Attempts)-1]
	attempt.Code, attempt.Action = retrypolicy.CodeUnknown, string(retrypolicy.Verify)
	attempt.DurationMS = s.Times.Lease.Milliseconds()
	r.MarkUnknown(attempt.Code)
	r.Due = ledger.In(0) // its request has ended long before the claim: there is nothing to wait for
	r.FinishAttempt(attempt)
	switch err := s.Ledger.SaveIfExpired(ctx, r); {
	case errors.Is(err, ledger.ErrFenced): // it has not expired, or the holder came back
		return nil
	case err != nil:
		return fmt.Errorf("abandon: %w", err)
	}
	s.OnAttempt(r, attempt, errClaimExpired)
	return nil
}

var errClaimExpired = errors.New("the claim expired: its worker is gone")

// adopt is for an answer that came after the claim had expired and the payment was put
// up for looking up. What the gateway positively said is as good as a lookup that finds
// it, and a refusal of the only request that may have reached it ends the payment;
// anything else is left to the lookups.
func (s *Submitter) adopt(ctx context.Context, claimed *ledger.Record, attempt payment.Attempt, answer clients.Answer, d retrypolicy.Decision) error {
	r, err := s.Ledger.Read(ctx, claimed.Key())
	if err != nil || r.Status != payment.Verifying {
		return err
	}
	number := len(claimed.Attempts)
	onlyOne := r.Unknowns == 1 && number <= len(r.Attempts) && r.Attempts[number-1].Code == retrypolicy.CodeUnknown
	switch {
	case answer.Receipt != nil:
		s.adoptReceipt(r, answer.Receipt)
	case onlyOne && (d.Action == retrypolicy.Reject || d.Action == retrypolicy.Review):
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
		return nil // the lookups will find it, too
	}
	return err
}

// DueAfter is when a payment that has just reached a status is next looked up: an open
// one on the grid of the poll, so that one poll serves all of them.
func DueAfter(status payment.Status, interval time.Duration) ledger.Due {
	if status != payment.OnProcessing {
		return ledger.Due{}
	}
	return ledger.OnGrid(interval)
}
