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

// briefFields are the fields of a record that a lookup needs. They leave out the order and
// the attempts, which are most of a record's bytes.
var briefFields = []string{
	"v", "status", "rev", "request", "events", "attempts", "facts", "created", "updated", "expires",
	"token", "first_claim", "lowest_id", "unknown_since", "primary",
}

// DueList is one of a gateway's two lists of payments by the time when they are due.
type DueList int

// The lists.
const (
	// Sending lists the payments that are queued or submitting. They are due when their
	// task is overdue or their claim has expired.
	Sending DueList = iota
	// Open lists the payments that are looked up at the gateway.
	Open
)

func (list DueList) key(g payment.Gateway) string {
	if list == Sending {
		return sendingKey(g)
	}
	return openKey(g)
}

// Due returns those of the gateways that have a payment due in either list.
func (l *Ledger) Due(ctx context.Context, gateways []payment.Gateway) ([]payment.Gateway, error) {
	var keys []string
	for _, g := range gateways {
		keys = append(keys, sendingKey(g), openKey(g))
	}
	answer, err := dueScript.Run(ctx, l.redis, keys).StringSlice()
	if err == nil && len(answer) != len(keys) {
		err = errUnexpectedAnswer
	}
	if err != nil {
		return nil, fmt.Errorf("ledger: gateways with due payments: %w", err)
	}
	var due []payment.Gateway
	for i, g := range gateways {
		if answer[2*i] != "" || answer[2*i+1] != "" {
			due = append(due, g)
		}
	}
	return due, nil
}

// Batch is a number of due payments from one list. Until their visibility timeout ends,
// TakeDue does not return them again, to this worker or another.
type Batch struct {
	// Records are without their orders and attempts.
	Records []*Record
	// Unreadable are the ids of the records that are damaged or of another version; Err
	// has the reasons.
	Unreadable []string
	Err        error

	list        DueList
	gateway     payment.Gateway
	hiddenUntil string            // by Redis' clock (ms)
	due         map[string]string // when each payment was due (ms), by transaction id
	primary     string
}

// Len returns the number of payments in the batch.
func (b *Batch) Len() int { return len(b.due) }

// Primary returns the id of the Redis primary that the batch was read from: it changes
// with a failover and with a restart. It is empty if Redis does not report one.
func (b *Batch) Primary() string { return b.primary }

// TakeDue returns at most limit due payments, most overdue first, and hides them for the
// visibility timeout. Before it ends, call Hide to extend it, or Reschedule or Release to
// end it early.
func (l *Ledger) TakeDue(ctx context.Context, list DueList, g payment.Gateway, hide time.Duration, limit int) (*Batch, error) {
	fail := func(err error) (*Batch, error) {
		return nil, fmt.Errorf("ledger: take due payments of %s: %w", g, err)
	}
	answer, err := takeScript.Run(ctx, l.redis, []string{list.key(g)}, ms(hide), limit).StringSlice()
	if err == nil && len(answer) < 3 {
		err = errUnexpectedAnswer
	}
	if err != nil {
		return fail(err)
	}
	now, primary, hiddenUntil, taken := answer[0], answer[1], answer[2], answer[3:]
	d := decoder{fields: map[string]string{"now": now}}
	clock := durable.NewTime(d.time("now"), l.now())
	b := &Batch{list: list, gateway: g, primary: primary, hiddenUntil: hiddenUntil, due: pairs(taken)}
	var ids []string // in the order of the answer
	for i := 0; i+1 < len(taken); i += 2 {
		ids = append(ids, taken[i])
	}
	if b.Records, b.Unreadable, b.Err, err = l.readBrief(ctx, g, ids, clock); err != nil {
		return fail(err)
	}
	return b, nil
}

// UnknownOutcomes returns all payments of the batch's gateway whose outcome is unknown, oldest
// first, without their orders and attempts. It leaves out unreadable records.
func (l *Ledger) UnknownOutcomes(ctx context.Context, b *Batch) ([]*Record, error) {
	ids, err := l.redis.ZRange(ctx, unknownKey(b.gateway), 0, -1).Result()
	if err != nil {
		return nil, fmt.Errorf("ledger: unknown outcomes at %s: %w", b.gateway, err)
	}
	records, _, _, err := l.readBrief(ctx, b.gateway, ids, l.writes.Time())
	return records, err
}

// Hide restarts the visibility timeout of the payments of a batch that are still hidden.
func (l *Ledger) Hide(ctx context.Context, b *Batch, hide time.Duration) error {
	args := []any{b.hiddenUntil, ms(hide)}
	for id := range b.due {
		args = append(args, id)
	}
	answer, err := hideScript.Run(ctx, l.redis, []string{b.list.key(b.gateway)}, args...).Text()
	if err != nil {
		return fmt.Errorf("ledger: hide %d payments of %s: %w", b.Len(), b.gateway, err)
	}
	b.hiddenUntil = answer
	return nil
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
	if len(ids) == 0 {
		return nil
	}
	args := make([]any, 0, 3+2*len(ids))
	args = append(args, b.hiddenUntil, in, ms(grid))
	for _, id := range ids {
		args = append(args, id, b.due[id])
	}
	if err := rescheduleScript.Run(ctx, l.redis, []string{b.list.key(b.gateway)}, args...).Err(); err != nil {
		return fmt.Errorf("ledger: reschedule %d payments of %s: %w", len(ids), b.gateway, err)
	}
	return nil
}

// Stats are the numbers of a gateway's payments.
type Stats struct {
	Counts        map[payment.Status]int64
	OldestUnknown time.Duration // age of the oldest unknown outcome; 0: there is none
	OldestQueued  time.Duration // age of the oldest queued payment; 0: there is none
}

// Stats counts the payments of a gateway, in one round trip.
func (l *Ledger) Stats(ctx context.Context, g payment.Gateway) (Stats, error) {
	answer, err := statsScript.Run(ctx, l.redis, []string{countsKey(g), queuedKey(g), unknownKey(g)}).StringSlice()
	if err == nil && len(answer) < 3 {
		err = errUnexpectedAnswer
	}
	if err != nil {
		return Stats{}, fmt.Errorf("ledger: stats of %s: %w", g, err)
	}
	d := decoder{fields: map[string]string{"now": answer[0], "queued": answer[1], "unknown": answer[2]}}
	age := func(name string) time.Duration {
		if since := d.time(name); !since.IsZero() {
			return max(0, d.time("now").Sub(since))
		}
		return 0
	}
	s := Stats{Counts: map[payment.Status]int64{}, OldestUnknown: age("unknown"), OldestQueued: age("queued")}
	counts := pairs(answer[3:])
	for _, status := range payment.Statuses() {
		if n, err := strconv.ParseInt(counts[string(status)], 10, 64); err == nil { // no field: no payment ever had the status
			s.Counts[status] = n
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
	var lists []*redis.StringSliceCmd
	if _, err := l.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, list := range []DueList{Sending, Open} {
			lists = append(lists, pipe.ZRange(ctx, list.key(g), 0, n-1), pipe.ZRevRange(ctx, list.key(g), 0, n-1))
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("ledger: open payments of %s: %w", g, err)
	}
	var ids []string
	for _, list := range lists {
		ids = append(ids, list.Val()...)
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	if len(ids) == 0 {
		return nil, nil
	}
	texts := make([]*redis.StringCmd, len(ids))
	if _, err := l.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, id := range ids {
			texts[i] = pipe.HGet(ctx, paymentKey(payment.Key{Gateway: g, TransactionID: id}), "token")
		}
		return nil
	}); err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("ledger: customer tokens of %s: %w", g, err)
	}
	var tokens []EncryptedToken
	for i, id := range ids {
		if text := texts[i].Val(); text != "" {
			tokens = append(tokens, EncryptedToken{payment.Key{Gateway: g, TransactionID: id}, text})
		}
	}
	return tokens, nil
}

// Accepted returns how many submits the gateway has accepted since the ledger began, from
// all workers. Package refusals resets its count of refusals in a row when the number
// changes.
func (l *Ledger) Accepted(ctx context.Context, g payment.Gateway) (int64, error) {
	n, err := l.redis.HGet(ctx, countsKey(g), "accepted").Int64()
	if err != nil && !errors.Is(err, redis.Nil) {
		return 0, fmt.Errorf("ledger: accepted by %s: %w", g, err)
	}
	return n, nil
}

// readBrief reads the briefFields of payments in one round trip. It returns the ids of the
// records that cannot be read, and the reasons in why.
func (l *Ledger) readBrief(ctx context.Context, g payment.Gateway, ids []string, clock durable.Time) (records []*Record, unreadable []string, why, err error) {
	if len(ids) == 0 {
		return nil, nil, nil, nil
	}
	cmds := make([]*redis.SliceCmd, len(ids))
	_, err = l.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, id := range ids {
			cmds[i] = pipe.HMGet(ctx, paymentKey(payment.Key{Gateway: g, TransactionID: id}), briefFields...)
		}
		return nil
	})
	// An error that Redis returned belongs to one record, such as a key that is no hash.
	if err != nil && !errors.As(err, new(redis.Error)) {
		return nil, nil, nil, fmt.Errorf("ledger: read payments of %s: %w", g, err)
	}
	var reasons []error
	for i, id := range ids {
		fields := make(map[string]string, len(briefFields))
		for j, value := range cmds[i].Val() {
			if text, ok := value.(string); ok {
				fields[briefFields[j]] = text
			}
		}
		err := cmds[i].Err()
		var r *Record
		if err == nil {
			r, err = decode(payment.Key{Gateway: g, TransactionID: id}, fields, clock)
		}
		if err != nil {
			unreadable, reasons = append(unreadable, id), append(reasons, err)
			continue
		}
		records = append(records, r)
	}
	return records, unreadable, errors.Join(reasons...), nil
}
