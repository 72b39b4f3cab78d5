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

// paymentKey holds one payment: a hash, fields in record.go.
func paymentKey(k payment.Key) string {
	return slot + ":payment:" + string(k.Gateway) + ":" + k.TransactionID
}

// openKey holds the payments of a gateway that are not at their end: a sorted
// set of transaction ids by the time (Unix ms) at which each is next due.
func openKey(g payment.Gateway) string { return slot + ":open:" + string(g) }

// unknownKey holds the payments of a gateway that stand in verifying: a sorted
// set of transaction ids by the time (Unix ms) since when nobody knows.
func unknownKey(g payment.Gateway) string { return slot + ":unknown:" + string(g) }

// countsKey holds how many payments of a gateway stand where: a hash of status
// to number. Its field claims counts the claims there ever were, accepted the submits
// that were accepted.
func countsKey(g payment.Gateway) string { return slot + ":counts:" + string(g) }

// vigilKey holds for which Redis a vigil was kept last, and until when: a text,
// lineage and Unix ms.
const vigilKey = slot + ":vigil"

// newestKey holds the highest numeric gateway reference that the ledger knows of
// a gateway: a number. What is sent later gets a higher one, if the gateway
// counts up.
func newestKey(g payment.Gateway) string { return slot + ":newest:" + string(g) }

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
