package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"terbayar/internal/durable"
	"terbayar/internal/payment"
)

// ClaimResult is the result of Claim.
type ClaimResult string

// The results. Only Claimed has changed anything.
const (
	Claimed      ClaimResult = "claimed"       // send the payment, then Save the outcome
	Busy         ClaimResult = "busy"          // another request holds the claim
	ClaimExpired ClaimResult = "claim expired" // of another request: the outcome is unknown
	NotQueued    ClaimResult = "not queued"    // it has been sent, or is not to be sent
	TooLate      ClaimResult = "too late"      // it has expired, or waited too long
	Missing      ClaimResult = "missing"       // the ledger has no such payment
	OtherVersion ClaimResult = "other version" // only a worker of another version can read it
)

// The results of claimScript that Claim does not return.
const (
	tooEarly   ClaimResult = "too early" // Claim returns a *LaterError
	isVersion2 ClaimResult = "version 2" // Claim rewrites the record and claims it then
)

// LaterError means that a payment cannot be claimed now. Nothing was claimed, and no
// attempt was used.
type LaterError struct {
	Wait   time.Duration // until the next try
	Reason string        // contains no text from Redis or a gateway
}

func (e *LaterError) Error() string { return e.Reason }

// pausedWait is the LaterError.Wait while claims are paused.
const pausedWait = 2 * time.Second

// Claim holds the arguments of Ledger.Claim.
type Claim struct {
	Attempt  payment.Attempt
	Lease    time.Duration
	QueueTTL time.Duration // how long a payment without ExpiresAt may be queued; 0: no limit
	Timeout  time.Duration // of one try
}

// Claim claims a queued payment for one submit. When it returns Claimed, the attempt and
// the lease are durable, and the record has the fencing token to Save with. Except for
// Missing and OtherVersion it returns the record. The error is a *LaterError if the
// payment can be claimed later.
//
// If the reply is lost or the claim is not acknowledged, Claim tries again with the same
// request id, which renews the lease. If that fails too, it releases the claim: nothing
// was sent. (Steps [claim] and [release].)
func (l *Ledger) Claim(ctx context.Context, key payment.Key, c Claim) (*Record, ClaimResult, error) {
	p := l.partitionOf(key)
	if reason := p.writes.Paused(); reason != "" {
		return nil, "", &LaterError{pausedWait, reason}
	}
	attempt, err := encodeAttempt(c.Attempt)
	if err != nil {
		return nil, "", fmt.Errorf("ledger: claim %s: %w", key, err)
	}
	request := newRequestID()
	call := p.claimCall(claimArgs{key: key, request: request, attempt: attempt, lease: c.Lease, queueTTL: c.QueueTTL})
	for range 2 {
		var r *Record
		var result ClaimResult
		r, result, err = l.tryClaim(ctx, key, call, c.Timeout)
		if result == isVersion2 {
			if r, result, err = l.rewriteForClaim(ctx, key); result == "" && err == nil {
				r, result, err = l.tryClaim(ctx, key, call, c.Timeout)
			}
		}
		if err == nil || !errors.Is(err, ErrNotDurable) {
			return r, result, err
		}
	}
	p.writes.Pause(err)
	l.release(ctx, p, releaseArgs{key: key, request: request, attempt: attempt, grace: TaskGrace})
	return nil, "", &LaterError{pausedWait, "redis did not acknowledge the claim; it was released unsent"}
}

// tryClaim runs claimScript once. The error is ErrNotDurable if the payment may be claimed
// but the claim is not known to be durable.
func (l *Ledger) tryClaim(ctx context.Context, key payment.Key, call durable.Call, timeout time.Duration) (*Record, ClaimResult, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	started := l.now()
	replies, notAcknowledged := l.partitionOf(key).writes.Do(ctx, call)
	if replies == nil {
		return nil, "", fmt.Errorf("ledger: claim %s: %w: %w", key, ErrNotDurable, notAcknowledged)
	}
	answer, err := replies[0].StringSlice()
	if err == nil && len(answer) != 3 {
		err = errUnexpectedAnswer
	}
	if err != nil { // Redis rejected the script, for example because its memory is full
		return nil, "", fmt.Errorf("ledger: claim %s: %w", key, errors.Join(err, notAcknowledged))
	}
	var n numbers
	now := n.time("now", answer[1])
	result := ClaimResult(answer[0])
	switch result {
	case Missing:
		if r, err := l.readTombstone(ctx, key); !errors.Is(err, ErrNotFound) {
			return r, NotQueued, err
		}
		return nil, Missing, nil
	case OtherVersion, isVersion2:
		return nil, result, nil
	case tooEarly:
		return nil, "", &LaterError{Wait: time.Duration(n.number("wait", answer[2])) * time.Millisecond, Reason: "it is not due yet"}
	case Claimed:
		if notAcknowledged != nil {
			return nil, "", fmt.Errorf("ledger: claim %s: %w: %w", key, ErrNotDurable, notAcknowledged)
		}
	case Busy, ClaimExpired, NotQueued, TooLate: // nothing was claimed, so nothing has to be durable
	}
	r, err := decode(key, answer[2], durable.NewTime(now, l.now()))
	if err == nil {
		err = r.unpack()
	}
	if err != nil {
		return nil, "", err
	}
	r.claimStarted = started
	return r, result, nil
}

// pairs returns the map of a list field, value, field, value, ...
func pairs(list []string) map[string]string {
	m := make(map[string]string, len(list)/2)
	for i := 0; i+1 < len(list); i += 2 {
		m[list[i]] = list[i+1]
	}
	return m
}

const (
	releaseTimeout = 2 * time.Second // of one try
	// repeatInterval and repeatFor are the pace and the limit of repeatUntilDone. A claim
	// that is not released by then expires and is looked up.
	repeatInterval = time.Second
	repeatFor      = 10 * time.Minute
)

// release undoes a claim that nothing was sent for. If the first try fails, it continues
// in the background. (Step [release].)
func (l *Ledger) release(ctx context.Context, p *partition, a releaseArgs) {
	ctx = context.WithoutCancel(ctx)
	l.repeatUntilDone(func() (done bool) {
		ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
		defer cancel()
		replies, err := p.writes.Do(ctx, p.releaseCall(a))
		// A release need not be durable: if a failover loses it, the claim expires and the
		// payment is looked up.
		return replies != nil && (err == nil || errors.Is(err, durable.ErrNotAcknowledged)) && replies[0].Err() == nil
	})
}

// repeatUntilDone calls do now and, until it returns true, every second in the background.
func (l *Ledger) repeatUntilDone(do func() (done bool)) {
	if do() {
		return
	}
	l.background.Go(func() {
		ticker := time.NewTicker(repeatInterval)
		defer ticker.Stop()
		for range int(repeatFor / repeatInterval) {
			<-ticker.C
			if do() {
				return
			}
		}
		l.log.Error("background write given up: redis did not acknowledge it", "after", repeatFor.String())
	})
}
