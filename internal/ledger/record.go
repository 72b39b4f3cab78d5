package ledger

import (
	"strconv"
	"time"

	"terbayar/internal/durable"
	"terbayar/internal/payment"
)

// Record is a payment in the ledger: the payment as others see it, what the worker needs
// to continue with it, and the fencing token that it was read with. Change it and Save it.
//
// Order and Attempts are only set by Claim and Read. Its times, except those in Attempts, are by Redis'
// clock: compare them with Now only.
type Record struct {
	payment.Payment

	Order          []byte    // the gateway's part of the order, JSON; deleted when the payment cannot be sent any more
	EncryptedToken string    // the customer token, encrypted; deleted when the payment is final
	MerchantID     string    // Paydia's merchantId
	ExpiresAt      time.Time // until then the customer can pay; zero: no limit
	FirstClaim     time.Time // time of the first claim; zero: never claimed
	LowestID       int64     // lowest possible gateway reference: the highest known at the first claim; 0: unknown

	Due       Due           // the next lookup; set it before Save, it is not read back
	NotBefore time.Duration // a queued payment cannot be claimed for that long; set it before Save, it is not read back

	Retries      int       // submits that were certainly not processed
	Refreshes    int       // submits whose access token was rejected
	Unknowns     int       // submits whose outcome was unknown
	UnknownCode  string    // the code of the submit whose outcome is being looked up
	UnknownSince time.Time // when the outcome became unknown, or when the primary last changed since
	Lookups      int       // lookups so far; MarkUnknown resets it
	NotFound     int       // of these, answered "no such payment" since the primary last changed
	BadToken     bool      // no worker could decrypt the customer token
	Contradicted bool      // it is in needs_review because the gateway's answer contradicts the order

	Tombstone  bool      // the record is deleted: this is what its tombstone has
	ArchivedOn time.Time // with Tombstone: the day (UTC) of the archive that has the record; zero: it was not archived

	clock          durable.Time // Redis' clock when the record was read
	claimStarted   time.Time    // when the claim was sent, by this process' clock
	readStatus     payment.Status
	readReason     string
	rev            int64  // with request: the fencing token
	request        string // the id of the request that wrote this revision
	heldUntil      time.Time
	digest         string // of the order, as stored
	primary        string // the primary whose clock UnknownSince is from
	events         int64  // the number of events so far
	storedOrder    []byte
	storedAttempts []byte
	version2       []byte // the record in version 3, if it was read in version 2

	// The next Save.
	saveID         string           // its request id; a second try uses the same one
	attempt        *payment.Attempt // the attempt to write
	replaceLast    bool             // it replaces the last attempt
	restartUnknown bool             // set UnknownSince to the time of the save
	onlyIfExpired  bool             // save only if the claim has expired
}

// Due is the time of the next lookup. The zero value means never.
type Due struct {
	set  bool
	in   time.Duration
	grid time.Duration
}

// In returns the time that is d from now.
func In(d time.Duration) Due { return Due{set: true, in: max(d, 0)} }

// OnGrid returns the next multiple of the interval, by Redis' clock: payments that become
// due together share one poll.
func OnGrid(interval time.Duration) Due { return Due{set: true, grid: interval} }

// Never reports whether there is no next lookup.
func (d Due) Never() bool { return !d.set }

// Now converts a time of this process' clock, after the record was read, to Redis' clock.
func (r *Record) Now(local time.Time) time.Time { return r.clock.At(local) }

// NextAttempt returns when the payment is next sent or looked up if it is saved at the given
// time of this process' clock. It computes the same as saveScript. The zero time: never.
func (r *Record) NextAttempt(local time.Time) time.Time {
	now := r.Now(local)
	switch {
	case r.Status.Final():
		return time.Time{}
	case r.Status == payment.Queued:
		return now.Add(r.NotBefore)
	case r.Due.Never():
		return time.Time{}
	case r.Due.grid > 0:
		grid := r.Due.grid.Milliseconds()
		return time.UnixMilli(now.UnixMilli()/grid*grid + grid).UTC()
	default:
		return now.Add(r.Due.in)
	}
}

// FinishAttempt replaces the attempt that Claim has added, with the next Save.
func (r *Record) FinishAttempt(a payment.Attempt) { r.attempt, r.replaceLast = &a, true }

// AddAttempt adds an attempt, such as a lookup, with the next Save.
func (r *Record) AddAttempt(a payment.Attempt) { r.attempt, r.replaceLast = &a, false }

// MarkUnknown sets the status to verifying: the outcome of the submit that ended with the code
// is unknown.
func (r *Record) MarkUnknown(code string) {
	r.Status = payment.Verifying
	r.Unknowns++
	r.UnknownCode, r.Lookups, r.NotFound, r.restartUnknown = code, 0, 0, true
}

// HasDigest reports whether the payment was created with an order of that digest.
func (r *Record) HasDigest(digest string) bool { return r.digest == shortDigest(digest) }

// restartCount is Ledger.RestartCount; primary is the one that the record was read from.
func (r *Record) restartCount(primary string, local time.Time) {
	if r.Status == payment.Verifying && r.primary != primary {
		r.NotFound, r.UnknownSince = 0, r.Now(local)
		r.restartUnknown, r.primary = true, primary
	}
}

// SinceClaim returns the time since the claim was sent: the longer of what the monotonic
// clock and the wall clock measure. Either may have stopped while the process or the machine
// was frozen.
func (r *Record) SinceClaim(now time.Time) time.Duration {
	return max(now.Sub(r.claimStarted), now.Round(0).Sub(r.claimStarted.Round(0)))
}

// numericReference returns the gateway reference if it is a number that Lua can compare
// exactly, as AM's ids are; otherwise 0.
func (r *Record) numericReference() int64 {
	n, err := strconv.ParseInt(r.GatewayReference, 10, 64)
	if err != nil || n < 0 || n > maxNumber {
		return 0
	}
	return n
}
