// Package submit is the moment a payment leaves: claim, send once, decide,
// record. Whatever happens between the claim and the record - a time-out, a
// crash, an answer nobody can read - leaves a payment of unknown outcome, and
// those are looked up, never sent again.
package submit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"terbayar/internal/clients"
	"terbayar/internal/gate"
	"terbayar/internal/ledger"
	"terbayar/internal/order"
	"terbayar/internal/payment"
	"terbayar/internal/retrypolicy"
	"terbayar/internal/secret"
)

// Submitter submits payments. Its fields are set once, before its first use.
type Submitter struct {
	Ledger   *ledger.Ledger
	Gateways map[payment.Gateway]clients.Gateway
	Gates    map[payment.Gateway]*gate.Gate // a gateway without one may always be asked
	Policy   *retrypolicy.Policy
	Sealer   *secret.Sealer

	// Lease is how long a claim is held: longer than the gateway time-out, so that
	// a claim that has lapsed means a holder that is gone.
	Lease time.Duration
	// PollInterval is the grid on which open payments are polled.
	PollInterval time.Duration
	Now          func() time.Time
	// OnLogin is told, before every submit that the gate lets through, whether the
	// gateway can be logged in to.
	OnLogin func(g payment.Gateway, err error)
	// OnAttempt is told of every attempt, with what its client had to add.
	OnAttempt func(r *ledger.Record, a payment.Attempt, detail error)
}

// Next says when to come back for a payment. The zero value: no need to.
type Next struct {
	In     time.Duration
	Reason string // a code or a few words of our own; safe to show anywhere
}

// soon is "at once" for what has to go through the queue all the same.
const soon = time.Millisecond

// How long a payment waits when its gateway cannot be logged in to: until the next
// login may be made, within these bounds. Nothing has been claimed, sent or asked
// then, and no attempt is spent.
const (
	LoginPause    = 5 * time.Second
	maxLoginPause = 30 * time.Second // a worker with the right credentials may have come
)

// Submit takes one payment as far as it goes right now. An error means that the
// ledger could not be used; the payment is then to be tried again.
func (s *Submitter) Submit(ctx context.Context, key payment.Key) (Next, error) {
	gateway, ok := s.Gateways[key.Gateway]
	if !ok {
		return Next{}, fmt.Errorf("submit: %s: gateway is off", key)
	}
	pass, err := s.Gates[key.Gateway].Enter(ctx, gateway)
	if err != nil {
		return s.notNow(key.Gateway, err)
	}
	defer pass.Leave()
	s.OnLogin(key.Gateway, nil)
	claimed, verdict, err := s.Ledger.Claim(ctx, key, payment.Attempt{
		At: s.Now().UTC().Truncate(time.Millisecond), Kind: payment.KindSubmit, ExternalID: gateway.NewExternalID(),
	}, s.Lease)
	if verdict == ledger.Lapsed {
		err = s.Abandon(ctx, key)
	}
	held, ok := errors.AsType[*ledger.Held](err)
	switch {
	case ok:
		return Next{In: held.Wait, Reason: held.Error()}, nil
	case err != nil:
		return Next{}, fmt.Errorf("submit: %w", err)
	case verdict == ledger.Missing:
		return Next{}, fmt.Errorf("submit: %s: %w", key, ledger.ErrNotFound)
	case verdict != ledger.Claimed:
		// On its way elsewhere, or past being sent: the ledger watches it.
		return Next{}, nil
	}
	return s.send(ctx, gateway, pass, claimed)
}

// notNow is what follows when the gate does not open. Only a Redis that cannot be
// asked is an error.
func (s *Submitter) notNow(g payment.Gateway, err error) (Next, error) {
	if closed, ok := errors.AsType[*gate.Closed](err); ok {
		return Next{In: closed.Wait, Reason: err.Error()}, nil
	}
	if failure, ok := errors.AsType[*clients.Error](err); ok {
		s.OnLogin(g, err)
		return Next{In: min(max(failure.NextTry.Sub(s.Now()), LoginPause), maxLoginPause), Reason: err.Error()}, nil
	}
	return Next{}, fmt.Errorf("submit: %w", err)
}

// send sends a claimed payment once and records what came of it. From here on
// the caller's context no longer counts: breaking off a request that may move
// money would only make its outcome unknown.
func (s *Submitter) send(ctx context.Context, gateway clients.Gateway, pass *gate.Pass, r *ledger.Record) (Next, error) {
	attempt := r.Attempts[len(r.Attempts)-1]
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.LeaseEnd().Sub(s.Now()))
	defer cancel()

	answer := s.attempt(ctx, gateway, r, attempt.ExternalID)
	pass.Report(answer)
	decision := pass.Weigh(ctx, r.Key(), answer, s.decide(r, answer))
	attempt.Code, attempt.Message, attempt.HTTPStatus = answer.Code, answer.Message, answer.HTTPStatus
	attempt.Action = string(decision.Action)
	attempt.DurationMS = answer.Duration.Milliseconds()

	next := s.apply(gateway, r, attempt, answer, decision)
	r.Close(attempt)
	err := s.Ledger.Save(ctx, r)
	if errors.Is(err, ledger.ErrFenced) {
		err = s.adopt(ctx, r.Key(), answer)
	}
	if err != nil { // it will be looked up when the claim ends
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
	if r.SealedToken != "" {
		if token, err = s.Sealer.Open(r.SealedToken, r.Key().String()); err != nil {
			return clients.Answer{Code: retrypolicy.CodeUndecryptable, Err: err}
		}
	}
	return gateway.Submit(ctx, clients.Submission{Order: o, CustomerToken: token, ExternalID: externalID})
}

// decide asks the policy what follows. A rule's attempts are those that fell
// under its action: a void token is no sign that the gateway is busy.
func (s *Submitter) decide(r *ledger.Record, answer clients.Answer) retrypolicy.Decision {
	d := s.Policy.Decide(r.Gateway, answer.Code, answer.Message, 1, 0)
	age := s.Now().Sub(r.Attempts[0].At) // the first attempt of a payment is a submit
	switch {
	case d.Action == retrypolicy.Retry:
		r.Retries++
		d = s.Policy.Decide(r.Gateway, answer.Code, answer.Message, r.Retries, age)
	case d.Action == retrypolicy.RefreshToken:
		r.Refreshes++
		d = s.Policy.Decide(r.Gateway, answer.Code, answer.Message, r.Refreshes, age)
	case d.Action == retrypolicy.Reject && r.Doubts > 0:
		// A refusal of this send says nothing about the earlier one that was never
		// accounted for (gateways.md 3.1).
		d.Action = retrypolicy.Verify
	}
	return d
}

// apply brings the record to where the decision puts it.
func (s *Submitter) apply(gateway clients.Gateway, r *ledger.Record, a payment.Attempt, answer clients.Answer, d retrypolicy.Decision) Next {
	now := s.Now()
	if d.NewLogin {
		gateway.DropToken(answer.Token)
	}
	switch d.Action {
	case retrypolicy.Accept:
		if answer.Receipt != nil {
			answer.Receipt.Apply(&r.Payment)
		} else { // an override says so; where it stands is for the poll to find out
			r.Status, r.GatewayStatus = payment.OnProcessing, answer.Code
		}
		r.Due = DueAfter(r.Status, now, s.PollInterval)
		return Next{}
	case retrypolicy.Retry, retrypolicy.RefreshToken:
		// Behind what the gateway asked for comes the policy's own wait: its jitter
		// keeps all that were sent away from coming back in the same instant.
		next := Next{In: max(answer.RetryAfter+d.Delay, soon), Reason: answer.Code}
		// Whoever's task comes first has to wait: there may be two of them.
		r.Status, r.After, r.Due = payment.Queued, now.Add(next.In), now.Add(next.In+ledger.TaskGrace)
		return next
	case retrypolicy.Reject:
		r.Status, r.GatewayStatus, r.Due = payment.Rejected, answer.Code, time.Time{}
		return Next{}
	case retrypolicy.Review:
		r.Status, r.GatewayStatus, r.Due = payment.NeedsReview, answer.Code, time.Time{}
		r.Reason = d.Reason
		if r.Doubts > 0 { // an earlier send is still unaccounted for: the poll keeps an eye on it
			r.Due = now
		}
		return Next{}
	default:
		s.doubt(r, answer.Code, a.End())
		return Next{}
	}
}

// doubt puts a payment whose outcome is unknown up for looking up.
func (s *Submitter) doubt(r *ledger.Record, code string, since time.Time) {
	first, _ := s.Policy.Lookup(r.Gateway, code, 0, 0)
	r.Status, r.Due = payment.Verifying, since.Add(first)
	r.Doubts++
	r.Doubt, r.Since, r.Lookups, r.NotFound = code, since, 0, 0
}

// Abandon records that whoever claimed a payment is gone: whether its request
// left, nobody knows. It does nothing when the claim is still held, or has
// ended meanwhile. The error is a *ledger.Held where Redis has just come back.
func (s *Submitter) Abandon(ctx context.Context, key payment.Key) error {
	r, err := s.Ledger.Read(ctx, key)
	if err != nil {
		return fmt.Errorf("abandon: %w", err)
	}
	if !r.Lapsed(s.Now()) {
		return nil
	}
	attempt := r.Attempts[len(r.Attempts)-1]
	attempt.Code, attempt.Action = retrypolicy.CodeUnknown, string(retrypolicy.Verify)
	attempt.DurationMS = r.LeaseEnd().Sub(attempt.At).Milliseconds()
	s.doubt(r, attempt.Code, r.LeaseEnd())
	r.Due = s.Now() // its request has ended long before the claim: there is nothing to wait for
	r.Close(attempt)
	switch err := s.Ledger.SaveAll(ctx, []*ledger.Record{r})[0]; {
	case errors.Is(err, ledger.ErrFenced): // somebody else noticed, or the holder came back
		return nil
	case err != nil:
		return fmt.Errorf("abandon: %w", err)
	}
	s.OnAttempt(r, attempt, errAbandoned)
	return nil
}

var errAbandoned = errors.New("its worker did not come back")

// adopt is for an answer that came after the claim had lapsed and the payment
// was put up for looking up. What the gateway positively said is as good as a
// look-up that finds it; anything else is left to the look-ups.
func (s *Submitter) adopt(ctx context.Context, key payment.Key, answer clients.Answer) error {
	if answer.Receipt == nil {
		return nil
	}
	r, err := s.Ledger.Read(ctx, key)
	if err != nil || r.Status != payment.Verifying {
		return err
	}
	answer.Receipt.Apply(&r.Payment)
	r.Due = DueAfter(r.Status, s.Now(), s.PollInterval)
	err = s.Ledger.SaveAll(ctx, []*ledger.Record{r})[0]
	if errors.Is(err, ledger.ErrFenced) || errors.As(err, new(*ledger.Held)) {
		return nil // the look-ups will find it, too
	}
	return err
}

// DueAfter is when a payment that has just reached a status is next looked at:
// an open one on the grid of the poll, so that one poll serves all of them.
func DueAfter(status payment.Status, now time.Time, interval time.Duration) time.Time {
	if status != payment.OnProcessing {
		return time.Time{}
	}
	return now.Truncate(interval).Add(interval)
}
