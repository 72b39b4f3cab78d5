package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/durable"
	"terbayar/internal/payment"
)

// DueList is one of a gateway's lists of payments by the time when they are due.
type DueList int

// The lists.
const (
	// Sending lists the payments that are queued or submitting. They are due when their
	// task is overdue or their claim has expired.
	Sending DueList = iota
	// Open lists the payments that are looked up at the gateway.
	Open
	// Asked lists the payments for which a callback has asked for one more lookup, see Ask.
	Asked
)

func (p *partition) list(list DueList, g payment.Gateway) string {
	switch list {
	case Sending:
		return p.sending(g)
	case Asked:
		return p.asked(g)
	default:
		return p.open(g)
	}
}

// Due returns those of the gateways that have a payment due in Sending or Open, and those that
// have one in Asked.
func (l *Ledger) Due(ctx context.Context, gateways []payment.Gateway) (due, asked []payment.Gateway, err error) {
	calls := make([]durable.Call, len(l.partitions))
	for i, p := range l.partitions {
		calls[i].Script = dueScript
		for _, g := range gateways {
			calls[i].Keys = append(calls[i].Keys, p.sending(g), p.open(g), p.asked(g))
		}
	}
	isDue, isAsked := make([]bool, len(gateways)), make([]bool, len(gateways))
	for _, reply := range l.runScripts(ctx, calls) {
		answer, err := readWords(reply, 3*len(gateways))
		if err != nil {
			return nil, nil, fmt.Errorf("ledger: gateways with due payments: %w", err)
		}
		for i := range gateways {
			isDue[i] = isDue[i] || answer[3*i] != "" || answer[3*i+1] != ""
			isAsked[i] = isAsked[i] || answer[3*i+2] != ""
		}
	}
	for i, g := range gateways {
		if isDue[i] {
			due = append(due, g)
		}
		if isAsked[i] {
			asked = append(asked, g)
		}
	}
	return due, asked, nil
}

// readWords returns the words of a script's reply, which are at least n.
func readWords(reply *redis.Cmd, n int) ([]string, error) {
	answer, err := reply.StringSlice()
	if err == nil && len(answer) < n {
		err = errUnexpectedAnswer
	}
	return answer, err
}

// Batch is a number of due payments from one list. Until their visibility timeout ends,
// TakeDue does not return them again, to this worker or another.
type Batch struct {
	// Records are without their attempts.
	Records []*Record
	// Unreadable are the ids of the records that are damaged or of another version; Err
	// has the reasons.
	Unreadable []string
	Err        error

	list    DueList
	gateway payment.Gateway
	taken   map[*partition]*taken
}

// taken are the payments of a batch that are in one partition.
type taken struct {
	due         map[string]string // when each payment was due (ms), by transaction id
	hiddenUntil string            // by Redis' clock (ms)
	primary     string
}

// Len returns the number of payments in the batch.
func (b *Batch) Len() int {
	n := 0
	for _, t := range b.taken {
		n += len(t.due)
	}
	return n
}

// TakeDue returns at most limit due payments, most overdue first, and hides them for the
// visibility timeout. Before it ends, call Hide to extend it, or Reschedule or Release to
// end it early. If the ledger has several partitions, each has its share of the limit, which is at
// least one payment: with more partitions than the limit, more payments may be returned.
func (l *Ledger) TakeDue(ctx context.Context, list DueList, g payment.Gateway, hide time.Duration, limit int) (*Batch, error) {
	fail := func(err error) (*Batch, error) {
		return nil, fmt.Errorf("ledger: take due payments of %s: %w", g, err)
	}
	calls := make([]durable.Call, len(l.partitions))
	for i, p := range l.partitions {
		share := max(1, (limit+i)/len(l.partitions)) // without one, it would never get its turn
		calls[i] = durable.Call{Script: takeScript, Keys: []string{p.list(list, g)}, Args: []any{ms(hide), share}}
	}
	b := &Batch{list: list, gateway: g, taken: map[*partition]*taken{}}
	var reads []read
	for i, reply := range l.runScripts(ctx, calls) {
		answer, err := readWords(reply, 3)
		if err != nil {
			return fail(err)
		}
		var n numbers
		clock := durable.NewTime(n.time("now", answer[0]), l.now())
		t := &taken{primary: answer[1], hiddenUntil: answer[2], due: pairs(answer[3:])}
		b.taken[l.partitions[i]] = t
		ids := make([]string, 0, len(t.due))
		for j := 3; j+1 < len(answer); j += 2 {
			ids = append(ids, answer[j])
		}
		reads = append(reads, read{l.partitions[i], ids, clock})
	}
	var err error
	if b.Records, b.Unreadable, b.Err, err = l.readMany(ctx, g, reads); err != nil {
		return fail(err)
	}
	return b, nil
}

// RestartCount sets NotFound of a record of the batch, or of UnknownOutcomes, to zero and
// UnknownSince to now if the primary has changed since they began: the clock of one primary
// cannot measure a time from another's. local is the time by this process' clock.
func (l *Ledger) RestartCount(b *Batch, r *Record, local time.Time) {
	r.restartCount(b.taken[l.partitionOf(r.Key())].primary, local)
}

// UnknownOutcomes returns all payments of the batch's gateway whose outcome is unknown, oldest
// first, without their attempts. It leaves out unreadable records.
func (l *Ledger) UnknownOutcomes(ctx context.Context, b *Batch) ([]*Record, error) {
	unknown := make([]*redis.StringSliceCmd, len(l.partitions))
	if _, err := l.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, p := range l.partitions {
			unknown[i] = pipe.ZRange(ctx, p.unknown(b.gateway), 0, -1)
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("ledger: unknown outcomes at %s: %w", b.gateway, err)
	}
	reads := make([]read, len(l.partitions))
	for i, p := range l.partitions {
		reads[i] = read{p, unknown[i].Val(), p.writes.Time()}
	}
	records, _, _, err := l.readMany(ctx, b.gateway, reads)
	return records, err
}

// Hide restarts the visibility timeout of the payments of a batch that are still hidden.
func (l *Ledger) Hide(ctx context.Context, b *Batch, hide time.Duration) error {
	var calls []durable.Call
	var changed []*taken
	for p, t := range b.taken {
		if len(t.due) == 0 {
			continue
		}
		args := []any{t.hiddenUntil, ms(hide)}
		for id := range t.due {
			args = append(args, id)
		}
		calls = append(calls, durable.Call{Script: hideScript, Keys: []string{p.list(b.list, b.gateway)}, Args: args})
		changed = append(changed, t)
	}
	var errs []error
	for i, reply := range l.runScripts(ctx, calls) {
		until, err := reply.Text()
		if err != nil {
			errs = append(errs, fmt.Errorf("ledger: hide %d payments of %s: %w", len(changed[i].due), b.gateway, err))
			continue
		}
		changed[i].hiddenUntil = until
	}
	return errors.Join(errs...)
}

// Reschedule sets when payments of a batch are next due, and changes nothing else.
func (l *Ledger) Reschedule(ctx context.Context, b *Batch, ids []string, due Due) error {
	return l.reschedule(ctx, b, ids, ms(due.in), due.grid)
}

// Release makes payments of a batch due at their former time again, for any worker.
func (l *Ledger) Release(ctx context.Context, b *Batch, ids []string) error {
	return l.reschedule(ctx, b, ids, "", 0)
}

func (l *Ledger) reschedule(ctx context.Context, b *Batch, ids []string, in any, grid time.Duration) error {
	args := map[*partition][]any{}
	for _, id := range ids {
		p := l.partitionOf(payment.Key{Gateway: b.gateway, TransactionID: id})
		t := b.taken[p]
		if args[p] == nil {
			args[p] = []any{t.hiddenUntil, in, ms(grid)}
		}
		args[p] = append(args[p], id, t.due[id])
	}
	var calls []durable.Call
	for p, args := range args {
		calls = append(calls, durable.Call{Script: rescheduleScript, Keys: []string{p.list(b.list, b.gateway)}, Args: args})
	}
	for _, reply := range l.runScripts(ctx, calls) {
		if err := reply.Err(); err != nil {
			return fmt.Errorf("ledger: reschedule %d payments of %s: %w", len(ids), b.gateway, err)
		}
	}
	return nil
}

// Stats are the numbers of a gateway's payments.
type Stats struct {
	Counts        map[payment.Status]int64
	Tombstones    int64         // payments whose records are deleted; they are not in Counts
	OldestUnknown time.Duration // age of the oldest unknown outcome; 0: there is none
	OldestQueued  time.Duration // age of the oldest queued payment; 0: there is none
}

// Payments returns the number of payments that have a record.
func (s Stats) Payments() int64 {
	var n int64
	for _, count := range s.Counts {
		n += count
	}
	return n
}

// Stats counts the payments of a gateway, in one round trip.
func (l *Ledger) Stats(ctx context.Context, g payment.Gateway) (Stats, error) {
	calls := make([]durable.Call, len(l.partitions))
	for i, p := range l.partitions {
		calls[i] = durable.Call{Script: statsScript, Keys: []string{p.counts(g), p.queued(g), p.unknown(g), p.sending(g)}}
	}
	s := Stats{Counts: map[payment.Status]int64{}}
	for _, reply := range l.runScripts(ctx, calls) {
		answer, err := readWords(reply, 3)
		if err != nil {
			return Stats{}, fmt.Errorf("ledger: stats of %s: %w", g, err)
		}
		var n numbers
		now := n.time("now", answer[0])
		age := func(text string) time.Duration {
			if since := n.time("since", text); !since.IsZero() {
				return max(0, now.Sub(since))
			}
			return 0
		}
		s.OldestQueued, s.OldestUnknown = max(s.OldestQueued, age(answer[1])), max(s.OldestUnknown, age(answer[2]))
		counts := pairs(answer[3:])
		if n, err := strconv.ParseInt(counts["tombstones"], 10, 64); err == nil {
			s.Tombstones += n
		}
		for _, status := range payment.Statuses() {
			if n, err := strconv.ParseInt(counts[string(status)], 10, 64); err == nil { // no field: no payment ever had the status
				s.Counts[status] += n
			}
		}
	}
	return s, nil
}

// EncryptedToken is the encrypted customer token of a payment.
type EncryptedToken struct {
	Key  payment.Key
	Text string
}

// EncryptedTokens returns customer tokens of payments that are queued, submitting or
// looked up: of each DueList those of the first and of the last n payments. Payments
// without a token are left out.
func (l *Ledger) EncryptedTokens(ctx context.Context, g payment.Gateway, n int64) ([]EncryptedToken, error) {
	type part struct {
		*partition
		ids []*redis.StringSliceCmd
	}
	var parts []part
	if _, err := l.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, p := range l.partitions {
			found := part{partition: p}
			for _, list := range []DueList{Sending, Open} {
				found.ids = append(found.ids, pipe.ZRange(ctx, p.list(list, g), 0, n-1), pipe.ZRevRange(ctx, p.list(list, g), 0, n-1))
			}
			parts = append(parts, found)
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("ledger: open payments of %s: %w", g, err)
	}
	reads := make([]read, len(parts))
	for i, found := range parts {
		var ids []string
		for _, cmd := range found.ids {
			ids = append(ids, cmd.Val()...)
		}
		slices.Sort(ids)
		reads[i] = read{found.partition, slices.Compact(ids), found.writes.Time()}
	}
	records, _, _, err := l.readMany(ctx, g, reads)
	if err != nil {
		return nil, err
	}
	var tokens []EncryptedToken
	for _, r := range records {
		if r.EncryptedToken != "" {
			tokens = append(tokens, EncryptedToken{r.Key(), r.EncryptedToken})
		}
	}
	return tokens, nil
}

// Accepted returns how many submits the gateway has accepted since the ledger began, from
// all workers. Package refusals resets its count of refusals in a row when the number
// changes.
func (l *Ledger) Accepted(ctx context.Context, g payment.Gateway) (int64, error) {
	cmds := make([]*redis.StringCmd, len(l.partitions))
	_, err := l.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, p := range l.partitions {
			cmds[i] = pipe.HGet(ctx, p.counts(g), "accepted")
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return 0, fmt.Errorf("ledger: accepted by %s: %w", g, err)
	}
	var sum int64
	for _, cmd := range cmds {
		n, err := cmd.Int64()
		if err != nil && !errors.Is(err, redis.Nil) {
			return 0, fmt.Errorf("ledger: accepted by %s: %w", g, err)
		}
		sum += n
	}
	return sum, nil
}

// read names payments of one partition to read.
type read struct {
	*partition
	ids   []string
	clock durable.Time
}

// readMany reads payments of one gateway, without decoding their attempts, in one round
// trip, and those of version 2 in a second one. It returns the ids of the records that
// cannot be read, and the reasons in why.
func (l *Ledger) readMany(ctx context.Context, g payment.Gateway, reads []read) (records []*Record, unreadable []string, why, err error) {
	fail := func(err error) ([]*Record, []string, error, error) {
		return nil, nil, nil, fmt.Errorf("ledger: read payments of %s: %w", g, err)
	}
	texts := make([]*redis.SliceCmd, len(reads))
	if _, err = l.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, part := range reads {
			if len(part.ids) == 0 {
				continue
			}
			keys := make([]string, len(part.ids))
			for j, id := range part.ids {
				keys[j] = part.payment(payment.Key{Gateway: g, TransactionID: id})
			}
			texts[i] = pipe.MGet(ctx, keys...)
		}
		return nil
	}); err != nil {
		return fail(err)
	}
	var reasons []error
	add := func(id string, r *Record, err error) {
		if err != nil {
			unreadable, reasons = append(unreadable, id), append(reasons, err)
		} else {
			records = append(records, r)
		}
	}
	var noStrings []read // one for each payment
	for i, part := range reads {
		for j, id := range part.ids {
			if text, ok := texts[i].Val()[j].(string); ok {
				r, err := decode(payment.Key{Gateway: g, TransactionID: id}, text, part.clock)
				add(id, r, err)
			} else {
				noStrings = append(noStrings, read{part.partition, []string{id}, part.clock})
			}
		}
	}
	if len(noStrings) > 0 {
		hashes := make([]*redis.MapStringStringCmd, len(noStrings))
		_, err = l.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for i, one := range noStrings {
				hashes[i] = pipe.HGetAll(ctx, one.payment(payment.Key{Gateway: g, TransactionID: one.ids[0]}))
			}
			return nil
		})
		// An error that Redis returned belongs to one record, such as a key that is no hash.
		if err != nil && !errors.As(err, new(redis.Error)) {
			return fail(err)
		}
		for i, one := range noStrings {
			fields, err := hashes[i].Result()
			var r *Record
			if err == nil {
				r, err = decode2(payment.Key{Gateway: g, TransactionID: one.ids[0]}, fields, one.clock)
			}
			add(one.ids[0], r, err)
		}
	}
	return records, unreadable, errors.Join(reasons...), nil
}
