package payment

import "slices"

// Status is the status of a payment.
type Status string

// The statuses of docs/interface.md, "Payment status".
const (
	Queued       Status = "queued"        // recorded, waiting to be sent
	Submitting   Status = "submitting"    // claimed by a worker: a request may be in flight
	Verifying    Status = "verifying"     // the outcome of a submit is unknown and being looked up
	OnProcessing Status = "on_processing" // accepted by the gateway, not paid yet
	Paid         Status = "paid"          // the gateway has the money ("Terbayar")
	Rejected     Status = "rejected"      // the gateway permanently refused it
	Failed       Status = "failed"        // the gateway accepted it, then it failed there
	Expired      Status = "expired"       // not paid in time; a late "Terbayar" still makes it paid
	Cancelled    Status = "cancelled"     // cancelled at the gateway
	Refunded     Status = "refunded"      // paid, then refunded
	NeedsReview  Status = "needs_review"  // manual review; nothing is guessed
)

// moves lists the legal changes of status. The ledger refuses every other one.
//
//   - Submitting returns to Queued only on an answer that says "not processed".
//   - Verifying (unknown outcome) ends only on what the gateway has answered.
//   - Expired and NeedsReview change when the gateway later reports another status.
//   - A final status has no row: it never changes.
var moves = map[Status][]Status{
	Queued:       {Submitting, Expired, Cancelled, NeedsReview},
	Submitting:   {Queued, Verifying, OnProcessing, Paid, Rejected, Failed, Expired, Cancelled, Refunded, NeedsReview},
	Verifying:    {Queued, OnProcessing, Paid, Rejected, Failed, Expired, Cancelled, Refunded, NeedsReview},
	OnProcessing: {Paid, Failed, Expired, Cancelled, Refunded, NeedsReview},
	Expired:      {Paid, Failed, Cancelled, Refunded, NeedsReview},
	NeedsReview:  {OnProcessing, Paid, Failed, Expired, Cancelled, Refunded},
}

// unchanged lists, by status, what a gateway may report without changing that status. An
// expired payment that is still open at the gateway remains expired until the gateway
// reports it as paid, or as ended.
var unchanged = map[Status][]Status{
	Expired: {OnProcessing},
}

// NextStatus returns the status of a payment after its gateway has reported one: the
// reported status if that is a legal move and not listed in unchanged, else the current
// one.
func NextStatus(from, reported Status) Status {
	if slices.Contains(unchanged[from], reported) || !CanMove(from, reported) {
		return from
	}
	return reported
}

// GatewayStatuses lists the statuses that a gateway can report. The others are Terbayar's
// own.
func GatewayStatuses() []Status {
	return []Status{OnProcessing, Paid, Failed, Expired, Cancelled, Refunded}
}

// LookupStatuses lists the statuses in which a payment is looked up at its gateway.
// NextStatus has to accept every pair of one of these and one of GatewayStatuses.
func LookupStatuses() []Status {
	return []Status{Submitting, Verifying, OnProcessing, Expired, NeedsReview}
}

// Statuses lists every status, in the order of a payment's life.
func Statuses() []Status {
	return []Status{
		Queued, Submitting, Verifying, OnProcessing, Paid,
		Rejected, Failed, Expired, Cancelled, Refunded, NeedsReview,
	}
}

// CanMove reports whether a payment may change from one status to another. A status may
// always remain the same: an attempt is then recorded that changed nothing.
func CanMove(from, to Status) bool { return from == to || slices.Contains(moves[from], to) }

// HasEvent reports whether reaching the status writes a result event. Queued, Submitting
// and Verifying are internal to the worker and write none.
func (s Status) HasEvent() bool { return s != Queued && s != Submitting && s != Verifying }

// Final reports whether the status never changes. Expired and NeedsReview look final to
// the order system, but payments in them are still looked up, to notice a late payment.
func (s Status) Final() bool { return len(moves[s]) == 0 }
