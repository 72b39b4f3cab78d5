package ledger

import (
	"hash/crc32"
	"strconv"
	"strings"

	"terbayar/internal/durable"
	"terbayar/internal/payment"
)

// DefaultStream is the default of EVENTS_STREAM, the stream that events are written to.
const DefaultStream = "terbayar:events"

// partition is one part of the ledger. All its keys contain the same hash tag, because one
// script writes a payment and its event, and in a Redis Cluster all keys of a script must be
// in one slot. A payment is in the partition that partitionOf chooses by its key.
type partition struct {
	tag    string          // with braces
	stream string          // the events of its payments
	writes *durable.Writer // to the primary of its slot
}

// partitionTag returns the hash tag of a partition. A stream name without a hash tag is hashed
// as a whole, so the tag of partition 0 is the whole name of the default stream, and that of
// the others the names that StreamName returns.
func partitionTag(i int) string {
	if i == 0 {
		return "{" + DefaultStream + "}"
	}
	return "{" + DefaultStream + ":" + strconv.Itoa(i) + "}"
}

// StreamName returns the stream of a partition. That of partition 0 has the name of
// EVENTS_STREAM. A name with the ledger's hash tag gets the partition's; any other name gets
// the number at its end.
func StreamName(name string, partition int) string {
	if partition == 0 {
		return name
	}
	if tagged := strings.Replace(name, partitionTag(0), partitionTag(partition), 1); tagged != name {
		return tagged
	}
	return name + ":" + strconv.Itoa(partition)
}

// StreamNames returns the streams of all partitions.
func StreamNames(name string, partitions int) []string {
	names := make([]string, partitions)
	for i := range names {
		names[i] = StreamName(name, i)
	}
	return names
}

// durabilityKey returns the value for durable.Options.Key. It is in the partition's slot.
func durabilityKey(partition int) string { return partitionTag(partition) + ":durability" }

// partitionsKey is the key of the number of partitions of this ledger.
var partitionsKey = partitionTag(0) + ":partitions"

// partitionOf returns the partition of a payment.
func (l *Ledger) partitionOf(k payment.Key) *partition {
	if len(l.partitions) == 1 {
		return l.partitions[0]
	}
	return l.partitions[int64(crc32.ChecksumIEEE([]byte(k.String())))%int64(len(l.partitions))]
}

// payment returns the key of one payment: a string, see format.go.
func (p *partition) payment(k payment.Key) string {
	return p.tag + ":payment:" + string(k.Gateway) + ":" + k.TransactionID
}

// sending returns the key of the queued and submitting payments of a gateway: a sorted
// set of transaction ids, scored by the time (Unix ms) at which a worker has to act because
// the task is overdue or the claim has expired.
func (p *partition) sending(g payment.Gateway) string { return p.tag + ":sending:" + string(g) }

// queued returns the key of the queued payments of a gateway: a sorted set of
// transaction ids, scored by the time of creation (Unix ms).
func (p *partition) queued(g payment.Gateway) string { return p.tag + ":queued:" + string(g) }

// open returns the key of the payments of a gateway that are looked up: a sorted set of
// transaction ids, scored by the time (Unix ms) of the next lookup.
func (p *partition) open(g payment.Gateway) string { return p.tag + ":open:" + string(g) }

// asked returns the key of the payments of a gateway that are looked up because a callback has
// asked for it: a sorted set of transaction ids, scored by the time (Unix ms) of that lookup.
func (p *partition) asked(g payment.Gateway) string { return p.tag + ":asked:" + string(g) }

// latestAsked returns the key of the time (Unix ms) of a payment's latest lookup that a callback
// has asked for, a string. It may be in the future. It expires after twice the interval between
// two such lookups, or earlier.
func (p *partition) latestAsked(k payment.Key) string {
	return p.asked(k.Gateway) + ":" + k.TransactionID
}

// unknown returns the key of the verifying payments of a gateway: a sorted set of
// transaction ids, scored by the time (Unix ms) since which the outcome is unknown.
func (p *partition) unknown(g payment.Gateway) string { return p.tag + ":unknown:" + string(g) }

// listed returns the key of the payments of a gateway in on_processing or in needs_review: a sorted
// set of transaction ids, scored by the time (Unix ms) at which they reached it. It only serves List.
func (p *partition) listed(g payment.Gateway, s payment.Status) string {
	return p.tag + ":" + string(s) + ":" + string(g)
}

// counts returns the key of a gateway's counters: a hash of status to the number of
// payments that have it. It has no queued, submitting and verifying payments: those are
// counted by their sets. The field accepted counts the submits that were accepted, and the
// field highest is the highest numeric gateway reference seen: a gateway that counts up gives
// a higher one to every later payment.
func (p *partition) counts(g payment.Gateway) string { return p.tag + ":counts:" + string(g) }

// SharesSlot reports whether streams of that name are in the slots of the ledger, which a
// Redis Cluster requires. Without a Cluster any name works.
func SharesSlot(stream string) bool {
	tag := stream
	if _, rest, ok := strings.Cut(stream, "{"); ok {
		if inner, _, closed := strings.Cut(rest, "}"); closed && inner != "" {
			tag = inner
		}
	}
	return tag == DefaultStream
}
