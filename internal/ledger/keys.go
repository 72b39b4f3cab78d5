package ledger

import (
	"strings"

	"terbayar/internal/payment"
)

// DefaultStream is the default of EVENTS_STREAM, the stream that events are written to.
const DefaultStream = "terbayar:events"

// slot is the hash tag of every key of the ledger. One script writes a payment and its
// event, and in a Redis Cluster all keys of a script must be in one slot. A stream name
// without a hash tag is hashed as a whole, so this tag is the whole name of the default
// stream.
const slot = "{" + DefaultStream + "}"

// DurabilityKey is the value for durable.Options.Key. It is in the ledger's slot.
const DurabilityKey = slot + ":durability"

// paymentKey returns the key of one payment: a hash, see record.go.
func paymentKey(k payment.Key) string {
	return slot + ":payment:" + string(k.Gateway) + ":" + k.TransactionID
}

// sendingKey returns the key of the queued and submitting payments of a gateway: a sorted
// set of transaction ids, scored by the time (Unix ms) at which a worker has to act because
// the task is overdue or the claim has expired.
func sendingKey(g payment.Gateway) string { return slot + ":sending:" + string(g) }

// queuedKey returns the key of the queued payments of a gateway: a sorted set of
// transaction ids, scored by the time of creation (Unix ms).
func queuedKey(g payment.Gateway) string { return slot + ":queued:" + string(g) }

// openKey returns the key of the payments of a gateway that are looked up: a sorted set of
// transaction ids, scored by the time (Unix ms) of the next lookup.
func openKey(g payment.Gateway) string { return slot + ":open:" + string(g) }

// unknownKey returns the key of the verifying payments of a gateway: a sorted set of
// transaction ids, scored by the time (Unix ms) since which the outcome is unknown.
func unknownKey(g payment.Gateway) string { return slot + ":unknown:" + string(g) }

// countsKey returns the key of a gateway's counters: a hash of status to the number of
// payments that have it. The field accepted counts the submits that were accepted.
func countsKey(g payment.Gateway) string { return slot + ":counts:" + string(g) }

// highestKey returns the key of the highest numeric gateway reference seen: a number. A
// gateway that counts up gives a higher one to every later payment.
func highestKey(g payment.Gateway) string { return slot + ":highest:" + string(g) }

// SharesSlot reports whether a stream of that name is in the ledger's slot, which a Redis
// Cluster requires. Without a Cluster any name works.
func SharesSlot(stream string) bool {
	tag := stream
	if _, rest, ok := strings.Cut(stream, "{"); ok {
		if inner, _, closed := strings.Cut(rest, "}"); closed && inner != "" {
			tag = inner
		}
	}
	return tag == DefaultStream
}
