package refusals

import (
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
)

// slot is the ledger's hash tag: in a Redis Cluster the counts are out of reach
// when the ledger is, and at no other time.
const slot = "{" + ledger.DefaultStream + "}"

// pauseKey holds what all workers know about a gateway's refusals: a hash.
//
//	paused   the row of refusals that paused the gateway; absent: it is not paused
//	kind     the kind of refusal that paused it, as in rowKey
//	code     its code
//	message  the gateway's words, as they are kept in an attempt
//	probe    the time (Unix ms, Redis' clock) from which the next probe may be sent
//	resets   how often a success was reported that the ledger does not count
func pauseKey(g payment.Gateway) string { return slot + ":refusals:" + string(g) }

// rowKey holds the present row of refusals of one kind: a hash.
//
//	row      which row it is: accepted payments of the ledger, a dot, resets
//	p:ID     one field per payment that was refused, at most the limit
func rowKey(g payment.Gateway, kind string) string {
	return slot + ":refusals:" + string(g) + ":" + kind
}
