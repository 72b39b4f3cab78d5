package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/durable"
	"terbayar/internal/payment"
)

// archived is a payment in the archive, one line of JSON: the payment as enqueue status --json
// shows it, and the rest of its record. The order and the customer token are not archived.
type archived struct {
	payment.Payment
	Digest string         `json:"digest"` // see shortDigest
	Record archivedRecord `json:"record"`
}

// archivedRecord has what others than the ledger do not need.
type archivedRecord struct {
	Revision     int64     `json:"revision"`
	Events       int64     `json:"events,omitempty"` // the number of its events
	MerchantID   string    `json:"merchant_id,omitempty"`
	ExpiresAt    time.Time `json:"expires_at,omitzero"`
	Retries      int       `json:"retries,omitempty"`
	Refreshes    int       `json:"refreshes,omitempty"`
	Unknowns     int       `json:"unknowns,omitempty"`
	UnknownCode  string    `json:"unknown_code,omitempty"`
	Lookups      int       `json:"lookups,omitempty"`
	NotFound     int       `json:"not_found,omitempty"`
	Contradicted bool      `json:"contradicted,omitempty"`
}

// ArchiveLine returns a payment that is over as a line of the archive, without the line end.
func (r *Record) ArchiveLine() ([]byte, error) {
	p := r.Payment
	p.NextAt = time.Time{}
	line, err := json.Marshal(archived{Payment: p, Digest: r.digest, Record: archivedRecord{
		Revision: r.rev, Events: r.events, MerchantID: r.MerchantID, ExpiresAt: r.ExpiresAt, Retries: r.Retries,
		Refreshes: r.Refreshes, Unknowns: r.Unknowns, UnknownCode: r.UnknownCode, Lookups: r.Lookups,
		NotFound: r.NotFound, Contradicted: r.Contradicted,
	}})
	if err != nil {
		return nil, fmt.Errorf("ledger: archive %s: %w", r.Key(), err)
	}
	return line, nil
}

// ParseArchiveLine returns the record of a line of the archive. It has no order: it cannot be
// sent.
func ParseArchiveLine(line []byte) (*Record, error) {
	var a archived
	if err := json.Unmarshal(line, &a); err != nil {
		return nil, fmt.Errorf("ledger: line of the archive: %w", err)
	}
	r := &Record{
		Payment: a.Payment, digest: a.Digest, rev: a.Record.Revision, events: a.Record.Events,
		MerchantID: a.Record.MerchantID, ExpiresAt: a.Record.ExpiresAt, Retries: a.Record.Retries, Refreshes: a.Record.Refreshes,
		Unknowns: a.Record.Unknowns, UnknownCode: a.Record.UnknownCode, Lookups: a.Record.Lookups,
		NotFound: a.Record.NotFound, Contradicted: a.Record.Contradicted,
	}
	if _, err := payment.ParseGateway(string(r.Gateway)); err != nil || r.TransactionID == "" || !isOver(r.Status) || len(r.digest) != len(shortDigest("")) {
		return nil, fmt.Errorf("ledger: line of the archive: %w: it is not a payment that is over, with its digest", ErrDamaged)
	}
	for i, attempt := range r.Attempts {
		var err error
		if r.storedAttempts, err = r.withAttempt(attempt, false); err != nil {
			return nil, fmt.Errorf("ledger: line of the archive: attempt %d of %s: %w", i+1, r.Key(), err)
		}
	}
	return r, nil
}

// ArchiveLinePrefix returns the beginning of all lines of a payment in the archive, and of no
// others: a search need not parse the others.
func ArchiveLinePrefix(key payment.Key) []byte {
	prefix, err := json.Marshal(struct {
		Gateway       payment.Gateway `json:"gateway"`
		TransactionID string          `json:"transaction_id"`
	}{key.Gateway, key.TransactionID})
	if err != nil { // texts have no errors
		panic(err)
	}
	prefix[len(prefix)-1] = ','
	return prefix
}

// Revision returns the number of the record's changes: of two lines of one payment in the
// archive, the one with the higher revision is the later one.
func (r *Record) Revision() int64 { return r.rev }

// Restored is what Restore did with a payment.
type Restored string

// The values of Restored.
const (
	RestoredNow Restored = "restored"
	Exists      Restored = "exists"  // nothing changed: what the ledger has is as new, or newer
	Differs     Restored = "differs" // nothing changed: the ledger has another order under this id
)

// restoreScript writes the record, or the tombstone, of a payment from the archive, if the ledger
// has not changed since it was read.
//
//	KEYS[1] payment
//	KEYS[2] tombstones
//	KEYS[3] counts
//	KEYS[4] in needs_review
//	ARGV[1] transaction id
//	ARGV[2] revision and request id read, "": there was no record
//	ARGV[3] tombstone read, "": there was none
//	ARGV[4] status
//	ARGV[5] record, or ""
//	ARGV[6] tombstone, or ""
//	ARGV[7] updated (ms)
//	result  "restored" | "changed"
var restoreScript = redis.NewScript(`
local function other() return 'changed' end
` + load + `
local tombstone = redis.call('HGET', KEYS[2], ARGV[1]) or ''
if (record and rev .. ' ' .. request or '') ~= ARGV[2] or tombstone ~= ARGV[3] then return 'changed' end
if record then
  redis.call('DEL', KEYS[1])
  redis.call('HINCRBY', KEYS[3], status, -1)
end
if tombstone ~= '' then
  redis.call('HDEL', KEYS[2], ARGV[1])
  redis.call('HINCRBY', KEYS[3], 'tombstones', -1)
end
if ARGV[5] ~= '' then
  redis.call('SET', KEYS[1], ARGV[5])
  redis.call('HINCRBY', KEYS[3], ARGV[4], 1)
else
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[6])
  redis.call('HINCRBY', KEYS[3], 'tombstones', 1)
end
redis.call('ZREM', KEYS[4], ARGV[1])
if ARGV[4] == 'needs_review' and ARGV[5] ~= '' then redis.call('ZADD', KEYS[4], ARGV[7], ARGV[1]) end
return 'restored'
`)

// Restore writes payments from the archive into the ledger, durably: as records, or, if
// archivedOn is not zero, as tombstones that name that day. The results have the order of the
// records, which must be of different payments. A payment that the ledger has is only replaced
// by a later state of itself.
func (l *Ledger) Restore(ctx context.Context, records []*Record, archivedOn time.Time) ([]Restored, error) {
	fail := func(err error) ([]Restored, error) { return nil, fmt.Errorf("ledger: restore: %w", err) }
	if err := l.checkPartitionsOnce(ctx); err != nil {
		return fail(err)
	}
	existing, tombstones, err := l.readExisting(ctx, records)
	if err != nil {
		return fail(err)
	}
	results := make([]Restored, len(records))
	calls, indexes := map[*partition][]durable.Call{}, map[*partition][]int{}
	for i, r := range records {
		if results[i] = r.restoredOver(existing[i], !archivedOn.IsZero()); results[i] != RestoredNow {
			continue
		}
		p, key := l.partitionOf(r.Key()), r.Key()
		call, err := p.restoreCall(r, existing[i], tombstones[i], archivedOn)
		if err != nil {
			return fail(fmt.Errorf("%s: %w", key, err))
		}
		calls[p], indexes[p] = append(calls[p], call), append(indexes[p], i)
	}
	for p, calls := range calls {
		replies, err := p.writes.Do(ctx, calls...)
		if err != nil {
			return fail(err)
		}
		for j, reply := range replies {
			switch result, err := reply.Text(); {
			case err != nil:
				return fail(err)
			case result != "restored": // another process has written it since: it is as new, or newer
				results[indexes[p][j]] = Exists
			}
		}
	}
	return results, nil
}

func (p *partition) restoreCall(r, existing *Record, tombstone string, archivedOn time.Time) (durable.Call, error) {
	token, record, text := "", []byte(nil), []byte(nil)
	if existing != nil && !existing.Tombstone {
		token = fmt.Sprintf("%d %s", existing.rev, existing.request)
	}
	var err error
	if archivedOn.IsZero() {
		r.request = newRequestID()
		record, err = r.encode()
	} else {
		text, err = encodeTombstone(r, archivedOn)
	}
	key := r.Key()
	return durable.Call{
		Script: restoreScript,
		Keys:   []string{p.payment(key), p.tombstones(key), p.counts(r.Gateway), p.listed(r.Gateway, payment.NeedsReview)},
		Args:   []any{r.TransactionID, token, tombstone, string(r.Status), record, text, unixMilli(r.UpdatedAt)},
	}, err
}

// restoredOver returns what Restore does with a payment of the archive if the ledger has the
// existing one, or nil.
func (r *Record) restoredOver(existing *Record, asTombstone bool) Restored {
	switch {
	case existing == nil:
		return RestoredNow
	case existing.digest != r.digest:
		return Differs
	case existing.Tombstone && (existing.UpdatedAt.Before(r.UpdatedAt) || !asTombstone && existing.UpdatedAt.Equal(r.UpdatedAt)):
		return RestoredNow
	case !existing.Tombstone && !asTombstone && isOver(existing.Status) && existing.CreatedAt.Equal(r.CreatedAt) && existing.rev < r.rev:
		return RestoredNow
	default:
		return Exists
	}
}

// readExisting reads what the ledger has of payments, in the order of the records: the record
// (nil if it has none), and the text of the tombstone.
func (l *Ledger) readExisting(ctx context.Context, records []*Record) (existing []*Record, tombstones []string, err error) {
	texts, fields := make([]*redis.StringCmd, len(records)), make([]*redis.StringCmd, len(records))
	// Each command has its own error.
	_, _ = l.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, r := range records {
			p := l.partitionOf(r.Key())
			texts[i], fields[i] = pipe.Get(ctx, p.payment(r.Key())), pipe.HGet(ctx, p.tombstones(r.Key()), r.TransactionID)
		}
		return nil
	})
	existing, tombstones = make([]*Record, len(records)), make([]string, len(records))
	for i, r := range records {
		if tombstones[i], err = fields[i].Result(); err != nil && !errors.Is(err, redis.Nil) {
			return nil, nil, err
		}
		existing[i], err = l.decode(ctx, l.partitionOf(r.Key()), r.Key(), texts[i])
		if errors.Is(err, ErrNotFound) {
			if existing[i], err = nil, nil; tombstones[i] != "" {
				existing[i], err = decodeTombstone(r.Key(), tombstones[i])
			}
		}
		if err != nil {
			return nil, nil, err
		}
	}
	return existing, tombstones, nil
}
