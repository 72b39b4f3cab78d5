package ledger

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"terbayar/internal/durable"
	"terbayar/internal/payment"
)

// ClaimResult is the result of a claim.
type ClaimResult string

// The verdicts.
const (
	Claimed      ClaimResult = "claimed" // yours: send, and Save what came of it
	Busy         ClaimResult = "busy"    // somebody else is sending it right now
	ClaimExpired ClaimResult = "lapsed"  // somebody's claim has expired: its outcome is unknown
	NotQueued    ClaimResult = "settled" // it is past being sent
	TooLate      ClaimResult = "expired" // it is too late to send it
	Missing      ClaimResult = "missing" // the ledger has no such payment
	OtherVersion ClaimResult = "version" // its record is of another version: for another worker
)

// verdictEarly says that it may not be claimed yet: a *LaterError.
const tooEarly ClaimResult = "early"

// LaterError says that a payment cannot be claimed now, and when to try again. Nothing
// was claimed, and no attempt is spent.
type LaterError struct {
	Wait   time.Duration
	Reason string // in words of our own
}

func (e *LaterError) Error() string { return e.Reason }

// pausedWait is when to try again while claims are paused.
const pausedWait = 2 * time.Second

// Claim describes a claim to be made.
type Claim struct {
	Attempt  payment.Attempt
	Lease    time.Duration // how long the holder may take
	QueueTTL time.Duration // how long a payment without a date of its own may wait to be sent; 0: for ever
	Timeout  time.Duration // how long one try may take
}

// Claim takes a queued payment for one submit. The attempt is written down, and is
// durable, before Claim returns Claimed; the record's revision and request id are the
// holder's fence. Except for Missing and Version the record is returned. The error is a
// *LaterError where it may be claimed later.
//
// A claim whose reply was lost, or that was not acknowledged, is made again under the
// same request id, which renews its lease. One that then is not known to be durable is
// released unsent. (Model steps [claim] and [release].)
func (l *Ledger) Claim(ctx context.Context, key payment.Key, c Claim) (*Record, ClaimResult, error) {
	if reason := l.writes.Paused(); reason != "" {
		return nil, "", &LaterError{pausedWait, reason}
	}
	attempt, err := json.Marshal(c.Attempt)
	if err != nil {
		return nil, "", fmt.Errorf("ledger: claim %s: %w", key, err)
	}
	request := rand.Text()
	call := claimCall(key.Gateway, claimArgs{
		request: request, transactionID: key.TransactionID, attempt: attempt, lease: c.Lease, queueTTL: c.QueueTTL,
	})
	for range 2 {
		var r *Record
		var verdict ClaimResult
		r, verdict, err = l.claim(ctx, key, call, c.Timeout)
		if err == nil || !errors.Is(err, ErrNotDurable) {
			return r, verdict, err
		}
	}
	l.writes.Pause(err)
	l.release(ctx, key, request)
	return nil, "", &LaterError{pausedWait, "redis does not acknowledge the claim: it was released unsent"}
}

// claim makes one try. The error is ErrNotDurable where the payment may be claimed, and
// nobody knows whether that would survive.
func (l *Ledger) claim(ctx context.Context, key payment.Key, call durable.Call, patience time.Duration) (*Record, ClaimResult, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	began := l.now()
	replies, unacknowledged := l.writes.Do(ctx, call)
	if replies == nil {
		return nil, "", fmt.Errorf("ledger: claim %s: %w: %w", key, ErrNotDurable, unacknowledged)
	}
	answer, err := replies[0].StringSlice()
	if err != nil || len(answer) < 2 { // such as a full memory: the script has not begun
		return nil, "", fmt.Errorf("ledger: claim %s: %w", key, errors.Join(err, unacknowledged))
	}
	verdict, clock := ClaimResult(answer[0]), answer[1]
	switch verdict {
	case Missing, OtherVersion:
		return nil, verdict, nil
	case tooEarly:
		d := decoder{fields: map[string]string{"wait": answer[2]}}
		return nil, "", &LaterError{Wait: time.Duration(d.number("wait")) * time.Millisecond, Reason: "its time has not come"}
	case Claimed:
		if unacknowledged != nil {
			return nil, "", fmt.Errorf("ledger: claim %s: %w: %w", key, ErrNotDurable, unacknowledged)
		}
	}
	d := decoder{fields: map[string]string{"now": clock}}
	r, err := decode(key, pairs(answer[2:]), durable.NewTime(d.time("now"), l.now()))
	if r != nil {
		r.claimed = began
	}
	return r, verdict, err
}

// pairs makes a map of field, value, field, value, ...
func pairs(list []string) map[string]string {
	m := make(map[string]string, len(list)/2)
	for i := 0; i+1 < len(list); i += 2 {
		m[list[i]] = list[i+1]
	}
	return m
}

// The pace of what is repeated until Redis has taken it.
const (
	releaseTimeout = 2 * time.Second // of one try
	repeatPause    = time.Second
	// repeatFor is how long a worker goes on. What is not released by then is looked up.
	repeatFor = 10 * time.Minute
)

// release gives a claim back of which nothing was sent; what cannot be done at once
// goes on in the background. (Model step [release].)
func (l *Ledger) release(ctx context.Context, key payment.Key, request string) {
	call := releaseCall(key.Gateway, releaseArgs{request: request, transactionID: key.TransactionID, grace: TaskGrace})
	ctx = context.WithoutCancel(ctx)
	l.repeat(func() (done bool) {
		ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
		defer cancel()
		replies, err := l.writes.Do(ctx, call)
		// A release that a failover loses leaves a claim that expires: it is looked up.
		return replies != nil && (err == nil || errors.Is(err, durable.ErrNotAcknowledged)) && replies[0].Err() == nil
	})
}

// repeat does something until it is done: once now, then in the background.
func (l *Ledger) repeat(do func() (done bool)) {
	if do() {
		return
	}
	l.repeating.Go(func() {
		pause := time.NewTicker(repeatPause)
		defer pause.Stop()
		for range int(repeatFor / repeatPause) {
			<-pause.C
			if do() {
				return
			}
		}
		l.log.Error("given up: redis has not taken what had to be repeated", "for", repeatFor.String())
	})
}
