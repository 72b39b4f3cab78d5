package payment

import "slices"

// Status is where a payment stands.
type Status string

// The statuses of interface.md, "Where a payment can stand".
const (
	Queued       Status = "queued"        // recorded; no outcome of a submit is open
	Submitting   Status = "submitting"    // claimed: a request may be on its way
	Verifying    Status = "verifying"     // the outcome of a submit is unknown and being looked up
	OnProcessing Status = "on_processing" // at the gateway, not paid yet
	Paid         Status = "paid"          // "Terbayar": the money is there
	Rejected     Status = "rejected"      // the gateway refused it for good
	Failed       Status = "failed"        // the gateway took it and it failed there
	Expired      Status = "expired"       // not paid in time; a late "Terbayar" still makes it paid
	Cancelled    Status = "cancelled"     // cancelled at the gateway
	Refunded     Status = "refunded"      // paid and given back
	NeedsReview  Status = "needs_review"  // a person must look; nothing is guessed
)

// moves is the one table of legal moves. What is not listed is refused by the
// ledger, whoever asks for it.
//
// The rows carry the money rules. Submitting returns to Queued only on an answer
// that says "not processed"; a payment whose fate is unknown leaves Verifying
// only on evidence; Expired and NeedsReview yield to what the gateway positively
// says later; and a final status has no row: nothing overwrites it.
var moves = map[Status][]Status{
	Queued:       {Submitting, Expired, Cancelled, NeedsReview},
	Submitting:   {Queued, Verifying, OnProcessing, Paid, Rejected, Failed, Expired, Cancelled, Refunded, NeedsReview},
	Verifying:    {Queued, OnProcessing, Paid, Rejected, Failed, Expired, Cancelled, Refunded, NeedsReview},
	OnProcessing: {Paid, Failed, Expired, Cancelled, Refunded, NeedsReview},
	Expired:      {Paid, Failed, Cancelled, Refunded, NeedsReview},
	NeedsReview:  {OnProcessing, Paid, Failed, Expired, Cancelled, Refunded},
}

// stays lists what a gateway may say of a payment without moving it: an expired
// payment that is still open at the gateway stays expired, since only money (or
// an end) brings it back.
var stays = map[Status][]Status{
	Expired: {OnProcessing},
}

// Next is the status of a payment of which its gateway has positively said where
// it stands: what the gateway says, unless the payment is at its end already or
// the pair is one of those that stay.
func Next(from, told Status) Status {
	if slices.Contains(stays[from], told) || !CanMove(from, told) {
		return from
	}
	return told
}

// Meanings lists the statuses in which a gateway can have a payment. The others
// are Terbayar's own.
func Meanings() []Status {
	return []Status{OnProcessing, Paid, Failed, Expired, Cancelled, Refunded}
}

// LookedUp lists the statuses in which a payment is looked up at its gateway.
// From each of them every one of Meanings must lead somewhere: see Next.
func LookedUp() []Status {
	return []Status{Submitting, Verifying, OnProcessing, Expired, NeedsReview}
}

// Statuses lists every status, in the order of a payment's life.
func Statuses() []Status {
	return []Status{
		Queued, Submitting, Verifying, OnProcessing, Paid,
		Rejected, Failed, Expired, Cancelled, Refunded, NeedsReview,
	}
}

// CanMove reports whether a payment may go from one status to another. Staying
// is always legal: it records an attempt that changed nothing.
func CanMove(from, to Status) bool { return from == to || slices.Contains(moves[from], to) }

// HasEvent reports whether reaching the status is told to the outside by an
// event. The ways of the worker itself (queued, submitting, verifying) are not.
func (s Status) HasEvent() bool { return s != Queued && s != Submitting && s != Verifying }

// Final reports whether a payment in this status is at its end. Expired and
// NeedsReview are ends for the order system, but Terbayar keeps an eye on them:
// late money must be noticed.
func (s Status) Final() bool { return len(moves[s]) == 0 }
