package refusals

import (
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
)

// hashTag is the ledger's hash tag: in a Redis Cluster these keys are on the ledger's node,
// and so are unavailable only when the ledger is.
const hashTag = "{" + ledger.DefaultStream + "}"

// pauseKey is the key of a gateway's pause, shared by all workers: a hash.
//
//	paused   the streak that paused the gateway, see scripts.go; missing: not paused
//	kind     that streak's kind of refusal, as in streakKey
//	code     the gateway's code
//	message  the gateway's message, as in an attempt
//	probe    the time (Unix ms, Redis' clock) from which the next probe may be sent
//	resets   how many successes were reported that the ledger does not count
func pauseKey(g payment.Gateway) string { return hashTag + ":refusals:" + string(g) }

// streakKey is the key of the current streak of refusals of one kind: a hash.
//
//	row      the name of the streak, see scripts.go
//	p:ID     one field per refused payment, at most Options.Limit
func streakKey(g payment.Gateway, kind string) string {
	return hashTag + ":refusals:" + string(g) + ":" + kind
}
