package ledger

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/durable"
	"terbayar/internal/payment"
)

// A tombstone is what is left of a payment after RETENTION: enough to answer duplicate or
// conflict when the same id is submitted again. Tombstones are never deleted. They are the
// fields of hashes, by transaction id: Redis stores a hash of up to 128 fields, none of them
// longer than 64 bytes, without the overhead of a key or a hash table. One longer field makes
// the whole hash twice as large, so a Paydia reference of 64 hex digits takes 32 bytes. A
// tombstone is
//
//	STATUS   one letter, see tombstoneStatus; upper case: REFERENCE is packed
//	DIGEST   of the order, 15 bytes
//	AMOUNT, UPDATED (Unix ms), UPDATED - CREATED (ms), each an unsigned varint
//	DAY      of the archive that has the record: the days since UPDATED, a varint; -64: it was
//	         not archived
//	REFERENCE of the gateway: the rest; packed: two hex digits in a byte

// tombstoneStatus maps the statuses of payments that are over to their letters.
var tombstoneStatus = map[payment.Status]byte{
	payment.Paid: 'p', payment.Rejected: 'r', payment.Failed: 'f', payment.Expired: 'e', payment.Cancelled: 'c',
	payment.Refunded: 'b', payment.NeedsReview: 'n',
}

// isOver reports whether a payment of that status may become a tombstone, once nothing looks it
// up any more.
func isOver(s payment.Status) bool { return tombstoneStatus[s] != 0 }

// tombstones returns the key of the hash that has a payment's tombstone. There are 2^16 for each
// gateway. The bits are not those that partitionOf depends on most, so every partition uses all.
func (p *partition) tombstones(k payment.Key) string {
	return fmt.Sprintf("%s:tombstones:%s:%04x", p.tag, k.Gateway, crc32.ChecksumIEEE([]byte(k.TransactionID))>>16)
}

const day = 24 * time.Hour

// notArchived is the DAY of a tombstone whose record is not in the archive.
const notArchived = -64

// encodeTombstone returns the tombstone of a record; archived is the day of the archive, or zero.
func encodeTombstone(r *Record, archived time.Time) ([]byte, error) {
	digest, err := base64.RawURLEncoding.DecodeString(r.digest)
	if err == nil && len(digest) < digestSize {
		err = errors.New("the digest is too short")
	}
	if err != nil {
		return nil, fmt.Errorf("ledger: tombstone of %s: %w: %w", r.Key(), ErrDamaged, err)
	}
	letter, reference := tombstoneStatus[r.Status], []byte(r.GatewayReference)
	if packed, err := hex.DecodeString(r.GatewayReference); err == nil && hex.EncodeToString(packed) == r.GatewayReference {
		letter, reference = letter-'a'+'A', packed
	}
	b := append([]byte{letter}, digest[:digestSize]...)
	b = binary.AppendUvarint(b, uint64(max(0, r.Amount)))
	b = binary.AppendUvarint(b, uint64(max(0, unixMilli(r.UpdatedAt))))
	b = binary.AppendUvarint(b, uint64(max(0, r.UpdatedAt.Sub(r.CreatedAt).Milliseconds())))
	archivedAfter := int64(notArchived)
	if !archived.IsZero() {
		archivedAfter = days(archived) - days(r.UpdatedAt)
	}
	b = binary.AppendVarint(b, archivedAfter)
	return append(b, reference...), nil
}

// days returns the number of a UTC day since 1970-01-01.
func days(t time.Time) int64 { return unixMilli(t) / day.Milliseconds() }

// decodeTombstone returns the record of a tombstone: it has what the tombstone has. It cannot
// be saved.
func decodeTombstone(key payment.Key, text string) (*Record, error) {
	r := &Record{Payment: payment.Payment{Gateway: key.Gateway, TransactionID: key.TransactionID, Attempts: []payment.Attempt{}}, Tombstone: true}
	fail := func(err error) (*Record, error) {
		return nil, fmt.Errorf("ledger: tombstone of %s: %w", key, err)
	}
	rest := []byte(text)
	if len(rest) <= digestSize {
		return fail(ErrDamaged)
	}
	for status, letter := range tombstoneStatus {
		if letter == rest[0]|0x20 { // in lower case
			r.Status = status
		}
	}
	isPacked := rest[0]&0x20 == 0
	if r.Status == "" {
		return fail(ErrOtherVersion)
	}
	r.digest = base64.RawURLEncoding.EncodeToString(rest[1 : 1+digestSize])
	rest = rest[1+digestSize:]
	var n [3]int64 // amount, updated, updated - created
	for i := range n {
		value, size := binary.Uvarint(rest)
		if size <= 0 || value > maxNumber {
			return fail(ErrDamaged)
		}
		n[i], rest = int64(value), rest[size:]
	}
	r.Amount, r.UpdatedAt, r.CreatedAt = payment.Rupiah(n[0]), fromUnixMilli(n[1]), fromUnixMilli(n[1]-n[2])
	archivedAfter, size := binary.Varint(rest)
	if size <= 0 {
		return fail(ErrDamaged)
	}
	if archivedAfter != notArchived {
		r.ArchivedOn = fromUnixMilli((days(r.UpdatedAt) + archivedAfter) * day.Milliseconds())
	}
	if r.GatewayReference = string(rest[size:]); isPacked {
		r.GatewayReference = hex.EncodeToString(rest[size:])
	}
	return r, nil
}

// readTombstone returns the record of a payment's tombstone, or ErrNotFound.
func (l *Ledger) readTombstone(ctx context.Context, key payment.Key) (*Record, error) {
	text, err := l.redis.HGet(ctx, l.partitionOf(key).tombstones(key), key.TransactionID).Result()
	if errors.Is(err, redis.Nil) {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("ledger: read %s: %w", key, err)
	}
	return decodeTombstone(key, text)
}

// scanCount is how many keys Redis looks at for one answer to SCAN: about a millisecond.
const scanCount = 1000

// ScanEnded calls found with the records of all payments that have been over for the given time,
// with their attempts, some hundred at a time. A payment is over if its status is final, expired
// or needs_review, and it is not looked up any more. Records of version 2 are rewritten first.
//
// It reads the whole keyspace of each primary, because an index would make every payment larger.
// After each step it waits as long as the step took, so that it uses at most half of the time of
// a Redis that does nothing else. A record that the scan misses because its slot migrates is
// found by the next scan. Unreadable records are left out; unreadable is their number.
func (l *Ledger) ScanEnded(ctx context.Context, age time.Duration, found func([]*Record) error) (unreadable int, err error) {
	nodes, err := l.primaries(ctx)
	if err != nil {
		return 0, err
	}
	for _, node := range nodes {
		for cursor := uint64(0); ; {
			started := l.now()
			keys, next, err := node.Scan(ctx, cursor, "{"+DefaultStream+"*:payment:*", scanCount).Result()
			if err != nil {
				return unreadable, fmt.Errorf("ledger: scan: %w", err)
			}
			records, damaged, err := l.ended(ctx, keys, age)
			unreadable += damaged
			if err == nil && len(records) > 0 {
				err = found(records)
			}
			if err != nil {
				return unreadable, err
			}
			if cursor = next; cursor == 0 {
				break
			}
			select {
			case <-ctx.Done():
				return unreadable, ctx.Err()
			case <-time.After(l.now().Sub(started)):
			}
		}
	}
	return unreadable, nil
}

// primaries returns a client for each primary that has a partition.
func (l *Ledger) primaries(ctx context.Context) (nodes []redis.Cmdable, err error) {
	cluster, isCluster := l.redis.(*redis.ClusterClient)
	if !isCluster {
		return []redis.Cmdable{l.redis}, nil
	}
	seen := map[string]bool{}
	for _, p := range l.partitions {
		node, err := cluster.MasterForKey(ctx, p.tag)
		if err != nil {
			return nil, fmt.Errorf("ledger: primary of %s: %w", p.tag, err)
		}
		if !seen[node.Options().Addr] {
			seen[node.Options().Addr] = true
			nodes = append(nodes, node)
		}
	}
	return nodes, nil
}

// ended returns those of the payments with these keys that have been over for the given time.
func (l *Ledger) ended(ctx context.Context, keys []string, age time.Duration) (records []*Record, unreadable int, err error) {
	candidates, err := l.endedKeys(ctx, keys, age)
	if err != nil || len(candidates) == 0 {
		return nil, 0, err
	}
	for _, g := range payment.Gateways() {
		ids := map[*partition][]string{}
		for _, k := range candidates {
			if k.Gateway == g {
				ids[l.partitionOf(k)] = append(ids[l.partitionOf(k)], k.TransactionID)
			}
		}
		var reads []read
		for p, ids := range ids {
			reads = append(reads, read{p, ids, p.writes.Time()})
		}
		all, damaged, _, err := l.readMany(ctx, g, reads)
		if err != nil {
			return nil, 0, err
		}
		unreadable += len(damaged)
		for _, r := range all {
			err := r.unpack()
			if err == nil {
				_, err = encodeTombstone(r, time.Time{})
			}
			if err != nil { // it stays, and holds up no other
				unreadable++
				continue
			}
			records = append(records, r)
		}
	}
	return records, unreadable, l.rewriteAll(ctx, records)
}

// firstWords is enough of a record's first line to contain UPDATED.
const firstWords = 128

// endedKeys reads the first words of records, which is much less than the records, and returns
// the payments that have been over for the given time and are not looked up.
func (l *Ledger) endedKeys(ctx context.Context, keys []string, age time.Duration) (over []payment.Key, err error) {
	type candidate struct {
		payment.Key
		*partition
		text   *redis.StringCmd
		fields *redis.SliceCmd // of version 2
		lookup *redis.FloatCmd
	}
	var all []*candidate
	for _, key := range keys {
		_, rest, _ := strings.Cut(key, ":payment:")
		gateway, id, _ := strings.Cut(rest, ":")
		c := &candidate{Key: payment.Key{Gateway: payment.Gateway(gateway), TransactionID: id}}
		c.partition = l.partitionOf(c.Key)
		if c.payment(c.Key) == key { // not a key of something else
			all = append(all, c)
		}
	}
	pipelined := func(add func(c *candidate, pipe redis.Pipeliner)) error {
		_, err := l.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for _, c := range all {
				add(c, pipe)
			}
			return nil
		})
		if err != nil && !errors.As(err, new(redis.Error)) { // each command has its own error
			return fmt.Errorf("ledger: scan: %w", err)
		}
		return nil
	}
	if err := pipelined(func(c *candidate, pipe redis.Pipeliner) {
		c.text = pipe.GetRange(ctx, c.payment(c.Key), 0, firstWords-1)
		c.lookup = pipe.ZScore(ctx, c.open(c.Gateway), c.TransactionID)
	}); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(all, func(c *candidate) bool { return redis.HasErrorPrefix(c.text.Err(), "WRONGTYPE") }) {
		if err := pipelined(func(c *candidate, pipe redis.Pipeliner) {
			if redis.HasErrorPrefix(c.text.Err(), "WRONGTYPE") {
				c.fields = pipe.HMGet(ctx, c.payment(c.Key), "status", "updated")
			}
		}); err != nil {
			return nil, err
		}
	}
	for _, c := range all {
		var status, updated string
		switch words := strings.Fields(c.text.Val()); {
		case c.fields != nil && c.fields.Err() == nil:
			status, _ = c.fields.Val()[0].(string)
			updated, _ = c.fields.Val()[1].(string)
		case len(words) > 7 && words[0] == version:
			status, updated = words[1], words[6]
		}
		var n numbers
		since := n.time("updated", updated)
		if isOver(payment.Status(status)) && errors.Is(c.lookup.Err(), redis.Nil) && n.errs == nil &&
			c.writes.Time().At(l.now()).Sub(since) >= age {
			over = append(over, c.Key)
		}
	}
	return over, nil
}

// dropScript replaces a record by its tombstone, unless the payment has changed since it was
// read, or is looked up.
//
//	KEYS[1] payment
//	KEYS[2] tombstones
//	KEYS[3] open
//	KEYS[4] counts
//	KEYS[5] in needs_review
//	ARGV[1] revision read
//	ARGV[2] request id read
//	ARGV[3] transaction id
//	ARGV[4] tombstone
//	result  "dropped" | "changed"
var dropScript = redis.NewScript(`
local function other() return 'changed' end
` + load + `
if not record then
  if redis.call('HGET', KEYS[2], ARGV[3]) ~= ARGV[4] then return 'changed' end
  redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
  return 'dropped'
end
if rev ~= ARGV[1] or request ~= ARGV[2] or redis.call('ZSCORE', KEYS[3], ARGV[3]) then return 'changed' end
redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
redis.call('DEL', KEYS[1])
redis.call('HINCRBY', KEYS[4], status, -1)
redis.call('HINCRBY', KEYS[4], 'tombstones', 1)
redis.call('ZREM', KEYS[5], ARGV[3])
return 'dropped'
`)

// Drop replaces records that ScanEnded has found by tombstones, durably. It skips payments that
// have changed since. archived is the day of the archive that has the records, or zero. It
// returns how many it has dropped; if there is an error, some of the others may be dropped too.
func (l *Ledger) Drop(ctx context.Context, records []*Record, archived time.Time) (dropped int, err error) {
	calls := map[*partition][]durable.Call{}
	for _, r := range records {
		text, err := encodeTombstone(r, archived)
		if err != nil {
			return 0, err
		}
		p, key := l.partitionOf(r.Key()), r.Key()
		calls[p] = append(calls[p], durable.Call{
			Script: dropScript,
			Keys:   []string{p.payment(key), p.tombstones(key), p.open(r.Gateway), p.counts(r.Gateway), p.listed(r.Gateway, payment.NeedsReview)},
			Args:   []any{r.rev, r.request, r.TransactionID, text},
		})
	}
	var errs []error
	for p, calls := range calls {
		for some := range slices.Chunk(calls, dropBatch) {
			replies, err := p.writes.Do(ctx, some...)
			errs = append(errs, err)
			for _, reply := range replies {
				result, replyErr := reply.Text()
				if replyErr != nil {
					errs = append(errs, replyErr)
				}
				if err == nil && result == "dropped" {
					dropped++
				}
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return dropped, fmt.Errorf("ledger: replace records by tombstones: %w", err)
	}
	return dropped, nil
}

// dropBatch is the number of records that one pipeline drops: claims and creates wait behind it.
const dropBatch = 100
