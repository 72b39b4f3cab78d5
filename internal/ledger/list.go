package ledger

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/durable"
	"terbayar/internal/events"
	"terbayar/internal/payment"
)

// ErrCursor means that ListQuery.After is not from an earlier page of the same list.
var ErrCursor = errors.New("not the position of an earlier page of this list")

// ListQuery says which payments List returns.
type ListQuery struct {
	Gateway  payment.Gateway        // "": both
	Status   payment.Status         // "": all
	Since    time.Time              // they reached their status at this time or later; zero: at any time
	After    string                 // Next of the previous page; "": the first page
	Limit    int                    // of the page
	Includes func(payment.Key) bool // nil: all
	Streams  *events.Streams
}

// ListPage is a part of a list.
type ListPage struct {
	Records []*Record
	Next    string // the position of the next page; "": this is the last one
	// Incomplete has a sentence for each reason why payments may be missing in the list.
	Incomplete []string
}

// Each status has a source that has its payments oldest first, and that costs nothing or little for
// every payment (docs/adr/0027-lists.md). A source is named by the status, or ended: the event
// stream, for all statuses that are over.
const ended payment.Status = "ended"

// sourceOf returns the source of a status.
func sourceOf(s payment.Status) payment.Status {
	if isOver(s) && s != payment.NeedsReview {
		return ended
	}
	return s
}

// cursor is a position in a list.
type cursor struct {
	Source payment.Status `json:"s"`
	entry

	Events string `json:"e,omitempty"` // the position in the events
}

// entry is an entry of a sorted set.
type entry struct {
	Score   int64           `json:"n,omitempty"`
	ID      string          `json:"i,omitempty"`
	Gateway payment.Gateway `json:"g,omitempty"`
}

func (e entry) key() payment.Key { return payment.Key{Gateway: e.Gateway, TransactionID: e.ID} }

func compareEntries(a, b entry) int {
	return cmp.Or(cmp.Compare(a.Score, b.Score), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Gateway, b.Gateway))
}

func (c cursor) String() string {
	text, err := json.Marshal(c)
	if err != nil { // texts and numbers have no errors
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// sources returns the sources of a query, and the position to begin with.
func (q *ListQuery) sources() ([]payment.Status, cursor, error) {
	all := []payment.Status{sourceOf(q.Status)}
	if q.Status == "" {
		all = []payment.Status{payment.Queued, payment.Submitting, payment.Verifying, payment.OnProcessing, payment.NeedsReview, ended}
	}
	at := q.beginning(all[0])
	if q.After == "" {
		return all, at, nil
	}
	at = cursor{}
	text, err := base64.RawURLEncoding.DecodeString(q.After)
	if err == nil {
		err = json.Unmarshal(text, &at)
	}
	first := slices.Index(all, at.Source)
	if err != nil || first < 0 || at.Source == ended && !q.Streams.Valid(at.Events) {
		return nil, cursor{}, fmt.Errorf("ledger: list: %w", ErrCursor)
	}
	return all[first:], at, nil
}

// clockMargin is how much earlier than Since the list begins to read events: the time of an entry
// of the stream is Redis', and that of the event in it was computed by a worker.
const clockMargin = time.Minute

// beginning returns the position before the first payment of a source.
func (q *ListQuery) beginning(source payment.Status) cursor {
	at := cursor{Source: source}
	if q.Since.IsZero() {
		return at
	}
	switch source {
	case payment.Queued: // the score is the time of creation
	case ended:
		at.Events = q.Streams.Before(q.Since.Add(-clockMargin))
	default: // no score is earlier than the time at which the payment reached the status
		at.Score = q.Since.UnixMilli()
	}
	return at
}

// maxListed is how many entries one page reads. A page that would need more ends early.
const maxListed = 2000

// List returns a page of payments, oldest first: by the time at which they reached their status;
// those that are queued by their creation. Without a status, the payments of each status that is not
// over come one after the other, then those in needs_review, then all others by the time of their
// last change. A page may have fewer payments than Limit, or none, and still have a Next.
//
// A payment that keeps its status while the pages are read is on exactly one of them.
func (l *Ledger) List(ctx context.Context, q ListQuery) (ListPage, error) {
	sources, at, err := q.sources()
	if err != nil {
		return ListPage{}, err
	}
	var page ListPage
	budget := maxListed
	for i, source := range sources {
		if i > 0 {
			at = q.beginning(source)
		}
		var done bool
		if source == ended {
			done, err = l.listEnded(ctx, &q, &page, &at, &budget)
		} else {
			done, err = l.listSet(ctx, &q, &page, &at, &budget)
		}
		if err != nil {
			return ListPage{}, fmt.Errorf("ledger: list: %w", err)
		}
		if !done || len(page.Records) == q.Limit && i < len(sources)-1 {
			if done {
				at = q.beginning(sources[i+1])
			}
			page.Next = at.String()
			break
		}
	}
	if err := l.addNextAt(ctx, page.Records); err != nil {
		return ListPage{}, fmt.Errorf("ledger: list: %w", err)
	}
	return page, nil
}

// wants reports whether a payment is in the list.
func (q *ListQuery) wants(key payment.Key) bool {
	return (q.Gateway == "" || q.Gateway == key.Gateway) && (q.Includes == nil || q.Includes(key))
}

func (q *ListQuery) gateways() []payment.Gateway {
	if q.Gateway != "" {
		return []payment.Gateway{q.Gateway}
	}
	return payment.Gateways()
}

// set returns the key of the sorted set that has the payments of a status, and maybe others.
func (p *partition) set(g payment.Gateway, s payment.Status) string {
	switch s {
	case payment.Queued:
		return p.queued(g)
	case payment.Submitting: // each lease is equally long: the order is that of the claims
		return p.sending(g)
	case payment.Verifying:
		return p.unknown(g)
	default:
		return p.listed(g, s)
	}
}

// listSet adds the payments after a position of a sorted set, and moves the position. It reports
// whether there are no more.
func (l *Ledger) listSet(ctx context.Context, q *ListQuery, page *ListPage, at *cursor, budget *int) (done bool, err error) {
	if err := l.checkListed(ctx, q, at.Source, page); err != nil {
		return false, err
	}
	for *budget > 0 && len(page.Records) < q.Limit {
		entries, atEnd, err := l.entriesAfter(ctx, q.gateways(), at, q.Limit)
		if err != nil {
			return false, err
		}
		var keys []payment.Key
		for _, e := range entries {
			if q.wants(e.key()) {
				keys = append(keys, e.key())
			}
		}
		records, err := l.readListed(ctx, keys, page)
		if err != nil {
			return false, err
		}
		for _, e := range entries {
			if len(page.Records) == q.Limit {
				return false, nil
			}
			at.entry = e
			*budget--
			if r := records[e.key()]; r != nil && r.Status == at.Source && !r.Tombstone && !r.UpdatedAt.Before(q.Since) {
				page.Records = append(page.Records, r)
			}
		}
		if atEnd {
			return true, nil
		}
	}
	return false, nil
}

// entriesAfter returns entries that follow a position in the sets of all partitions, in order; atEnd
// reports whether these are all.
func (l *Ledger) entriesAfter(ctx context.Context, gateways []payment.Gateway, at *cursor, limit int) (all []entry, atEnd bool, err error) {
	n := int64(min(limit, maxListed/2)/(len(l.partitions)*len(gateways)) + 16) // of each set
	var bound *entry                                                           // later entries may follow others that were not read
	for _, g := range gateways {
		replies := make([]*redis.ZSliceCmd, len(l.partitions))
		read := func(pipe redis.Cmdable, p *partition, offset int64) *redis.ZSliceCmd {
			return pipe.ZRangeByScoreWithScores(ctx, p.set(g, at.Source), &redis.ZRangeBy{
				Min: strconv.FormatInt(at.Score, 10), Max: "+inf", Offset: offset, Count: n,
			})
		}
		if _, err := l.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for i, p := range l.partitions {
				replies[i] = read(pipe, p, 0)
			}
			return nil
		}); err != nil {
			return nil, false, err
		}
		for i, p := range l.partitions {
			reply, more := replies[i], true
			for offset := n; more; offset += n { // many may have the score of the position
				zs, err := reply.Result()
				if err != nil {
					return nil, false, err
				}
				more = int64(len(zs)) == n
				found := false
				for _, z := range zs {
					id, _ := z.Member.(string)
					e := entry{int64(z.Score), id, g}
					if compareEntries(e, at.entry) > 0 {
						all, found = append(all, e), true
					}
				}
				if found {
					break
				}
				if more {
					reply = read(l.redis, p, offset)
				}
			}
			if last := all; more && (bound == nil || compareEntries(last[len(last)-1], *bound) < 0) {
				bound = &last[len(last)-1]
			}
		}
	}
	if bound != nil {
		limit := *bound
		all = slices.DeleteFunc(all, func(e entry) bool { return compareEntries(e, limit) > 0 })
	}
	slices.SortFunc(all, compareEntries)
	return all, bound == nil, nil
}

// readListed reads payments, with their attempts. Those that do not exist are left out; page gets a
// sentence for those that cannot be read.
func (l *Ledger) readListed(ctx context.Context, keys []payment.Key, page *ListPage) (map[payment.Key]*Record, error) {
	records := make(map[payment.Key]*Record, len(keys))
	unreadable := 0
	for _, g := range payment.Gateways() {
		ids := map[*partition][]string{}
		for _, k := range keys {
			if k.Gateway == g {
				ids[l.partitionOf(k)] = append(ids[l.partitionOf(k)], k.TransactionID)
			}
		}
		var reads []read
		for p, ids := range ids {
			reads = append(reads, read{p, ids, p.writes.Time()})
		}
		found, others, _, err := l.readMany(ctx, g, reads)
		if err != nil {
			return nil, err
		}
		for _, r := range found {
			if err := r.unpack(); err != nil {
				unreadable++
				continue
			}
			records[r.Key()] = r
		}
		for _, id := range others { // it has a tombstone, does not exist, or cannot be read
			switch r, err := l.Read(ctx, payment.Key{Gateway: g, TransactionID: id}); {
			case err == nil:
				records[r.Key()] = r
			case errors.Is(err, ErrDamaged) || errors.Is(err, ErrOtherVersion):
				unreadable++
			case !errors.Is(err, ErrNotFound):
				return nil, err
			}
		}
	}
	if unreadable > 0 {
		page.Incomplete = append(page.Incomplete, fmt.Sprintf("%d payments are left out: this version cannot read their records", unreadable))
	}
	return records, nil
}

// listEnded adds the payments whose last event follows a position in the events.
func (l *Ledger) listEnded(ctx context.Context, q *ListQuery, page *ListPage, at *cursor, budget *int) (done bool, err error) {
	oldest, err := q.Streams.DeletedBefore(ctx)
	if err != nil {
		return false, err
	}
	if !oldest.IsZero() && q.Since.Before(oldest) {
		page.Incomplete = append(page.Incomplete,
			"payments that reached their status before "+oldest.UTC().Format(time.RFC3339)+" are left out: their events are deleted (EVENTS_RETENTION)")
	}
	for *budget > 0 && len(page.Records) < q.Limit {
		found, next, atEnd, err := q.Streams.Page(ctx, at.Events, min(*budget, eventsPage))
		if err != nil {
			return false, err
		}
		*budget -= len(found)
		if len(found) == 0 {
			*budget-- // entries that are no events
		}
		changes := make([]change, len(found))
		var keys []payment.Key
		for i, e := range found {
			changes[i] = parseChange(e.Event)
			if c := changes[i]; sourceOf(c.status) == ended && (q.Status == "" || q.Status == c.status) && !c.at.Before(q.Since) && q.wants(c.Key) {
				keys = append(keys, c.Key)
			} else {
				changes[i].status = ""
			}
		}
		slices.SortFunc(keys, func(a, b payment.Key) int { return cmp.Compare(a.String(), b.String()) })
		records, err := l.readListed(ctx, slices.Compact(keys), page)
		if err != nil {
			return false, err
		}
		for i, c := range changes {
			if len(page.Records) == q.Limit {
				return false, nil
			}
			at.Events = found[i].After
			// A payment that has changed since has a later event, or another source.
			if r := records[c.Key]; r != nil && r.Status == c.status && r.UpdatedAt.Equal(c.at) {
				page.Records = append(page.Records, r)
			}
		}
		if at.Events = next; atEnd {
			return true, nil
		}
	}
	return false, nil
}

// eventsPage is how many events are read at once.
const eventsPage = 500

// change is the change of status that an event reports.
type change struct {
	payment.Key

	status payment.Status
	at     time.Time
}

func parseChange(event []byte) change {
	var e struct {
		Subject string    `json:"subject"`
		Time    time.Time `json:"time"`
		Data    struct {
			Gateway payment.Gateway `json:"gateway"`
			Status  payment.Status  `json:"status"`
		} `json:"data"`
	}
	if json.Unmarshal(event, &e) != nil {
		return change{}
	}
	return change{payment.Key{Gateway: e.Data.Gateway, TransactionID: e.Subject}, e.Data.Status, e.Time}
}

// addNextAt sets NextAt, as Read does.
func (l *Ledger) addNextAt(ctx context.Context, records []*Record) error {
	due := make([]*redis.FloatCmd, len(records))
	if _, err := l.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, r := range records {
			due[i] = pipe.ZScore(ctx, l.partitionOf(r.Key()).open(r.Gateway), r.TransactionID)
		}
		return nil
	}); err != nil && !errors.Is(err, redis.Nil) {
		return err
	}
	for i, r := range records {
		r.setNextAt(due[i].Val())
	}
	return nil
}

// setNextAt sets NextAt; due is the score of the payment in open, or 0.
func (r *Record) setNextAt(due float64) {
	switch {
	case r.Status == payment.Queued:
		r.NextAt = r.heldUntil
	case due > 0:
		r.NextAt = time.UnixMilli(int64(due)).UTC()
	}
}

// listedScript compares the number of payments that have a status with the size of its set.
//
//	KEYS[1] counts
//	KEYS[2] in on_processing
//	KEYS[3] in needs_review
//	result[1] payments in on_processing, less those in its set
//	result[2] payments in needs_review, less those in its set
//	result[3] tombstones
var listedScript = redis.NewScript(`
local open, review, tombstones = unpack(redis.call('HMGET', KEYS[1], 'on_processing', 'needs_review', 'tombstones'))
return {(open or 0) - redis.call('ZCARD', KEYS[2]), (review or 0) - redis.call('ZCARD', KEYS[3]), tonumber(tombstones or 0)}
`)

// unlisted returns how many payments in on_processing and in needs_review their sets lack, and the
// number of tombstones.
func (l *Ledger) unlisted(ctx context.Context, gateways []payment.Gateway) (open, review, tombstones int64, err error) {
	var calls []durable.Call
	for _, p := range l.partitions {
		for _, g := range gateways {
			calls = append(calls, durable.Call{
				Script: listedScript, Keys: []string{p.counts(g), p.listed(g, payment.OnProcessing), p.listed(g, payment.NeedsReview)},
			})
		}
	}
	for _, reply := range l.runScripts(ctx, calls) {
		n, err := reply.Int64Slice()
		if err == nil && len(n) != 3 {
			err = errUnexpectedAnswer
		}
		if err != nil {
			return 0, 0, 0, err
		}
		open, review, tombstones = open+max(n[0], -n[0]), review+max(n[1], -n[1]), tombstones+n[2]
	}
	return open, review, tombstones, nil
}

// checkListed adds a sentence to the page if the set of a status may lack payments.
func (l *Ledger) checkListed(ctx context.Context, q *ListQuery, s payment.Status, page *ListPage) error {
	if s != payment.OnProcessing && s != payment.NeedsReview {
		return nil
	}
	open, review, tombstones, err := l.unlisted(ctx, q.gateways())
	if err != nil {
		return err
	}
	missing := open
	if s == payment.NeedsReview {
		missing = review
	}
	if missing != 0 {
		page.Incomplete = append(page.Incomplete, fmt.Sprintf(
			"about %d payments in %s may be left out: an older version wrote them, and a worker lists them within 10 minutes of its start", missing, s))
	}
	if s == payment.NeedsReview && tombstones > 0 {
		page.Incomplete = append(page.Incomplete, "payments in needs_review that nobody acted on within RETENTION are left out: only tombstones are left of them")
	}
	return nil
}

// ParseStatus parses the status of a list. The error contains no part of the text.
func ParseStatus(text string) (payment.Status, error) {
	if !slices.Contains(payment.Statuses(), payment.Status(text)) {
		return "", fmt.Errorf("unknown status (want one of %s)", strings.Trim(fmt.Sprint(payment.Statuses()), "[]"))
	}
	return payment.Status(text), nil
}

// ParseSince parses a time: RFC 3339, or how long ago, such as 36h or 7d. The error contains no part
// of the text.
func ParseSince(text string, now time.Time) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	if number, ok := strings.CutSuffix(text, "d"); ok {
		if days, err := strconv.ParseUint(number, 10, 16); err == nil {
			return now.Add(-time.Duration(days) * day), nil
		}
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	return time.Time{}, errors.New("must be a time in RFC 3339, such as 2026-05-21T10:00:00+07:00, or how long ago, such as 30m, 36h or 7d")
}
