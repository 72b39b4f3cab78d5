package ledger

import (
	"strings"

	"terbayar/internal/payment"
)

// DefaultStream is where result events go unless EVENTS_STREAM says otherwise.
const DefaultStream = "terbayar:events"

// slot is the hash tag that every key of the ledger carries. A change and its
// event are one script, and in a Redis Cluster a script may touch one slot only;
// a stream without a tag of its own lies in the slot of its whole name, so this
// tag puts the ledger beside the default stream.
const slot = "{" + DefaultStream + "}"

// DurabilityKey is for durable.Options.Key: it lies in the ledger's slot.
const DurabilityKey = slot + ":durability"

// paymentKey holds one payment: a hash, fields in record.go.
func paymentKey(k payment.Key) string {
	return slot + ":payment:" + string(k.Gateway) + ":" + k.TransactionID
}

// sendingKey holds the payments of a gateway that are queued or submitting: a sorted
// set of transaction ids by the time (Unix ms) at which somebody has to see to them,
// because the task should have come or the claim has expired.
func sendingKey(g payment.Gateway) string { return slot + ":sending:" + string(g) }

// queuedKey holds the payments of a gateway that are queued: a sorted set of
// transaction ids by the time (Unix ms) at which each was created.
func queuedKey(g payment.Gateway) string { return slot + ":queued:" + string(g) }

// openKey holds the payments of a gateway that are looked up: a sorted set of
// transaction ids by the time (Unix ms) at which each is next due.
func openKey(g payment.Gateway) string { return slot + ":open:" + string(g) }

// unknownKey holds the payments of a gateway that are verifying: a sorted set of
// transaction ids by the time (Unix ms) since when the outcome is unknown.
func unknownKey(g payment.Gateway) string { return slot + ":unknown:" + string(g) }

// countsKey holds how many payments of a gateway have which status: a hash of status
// to number. Its field accepted counts the submits that were accepted.
func countsKey(g payment.Gateway) string { return slot + ":counts:" + string(g) }

// highestKey holds the highest numeric gateway reference that the ledger knows of
// a gateway: a number. What is sent later gets a higher one, if the gateway
// counts up.
func highestKey(g payment.Gateway) string { return slot + ":highest:" + string(g) }

// SharesSlot reports whether a stream of that name lies in the ledger's slot, as
// a Redis Cluster demands. Elsewhere any name will do.
func SharesSlot(stream string) bool {
	tag := stream
	if _, rest, ok := strings.Cut(stream, "{"); ok {
		if inner, _, closed := strings.Cut(rest, "}"); closed && inner != "" {
			tag = inner
		}
	}
	return tag == DefaultStream
}
