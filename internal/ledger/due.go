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

// brief lists the fields of a record that a lookup needs. The order and the
// attempts are most of a record's bytes, and an open payment is looked up often.
var brief = []string{
	"v", "status", "rev", "request", "events", "attempts", "facts", "created", "updated", "expires",
	"token", "first_claim", "lowest_id", "unknown_since", "primary",
}

// DueList is one of the two lists of what is due at a gateway.
type DueList int

// The lists.
const (
	// Sending lists the payments that are queued or submitting. To see to them the
	// gateway need not be asked.
	Sending DueList = iota
	// Open lists the payments that are looked up at the gateway.
	Open
)

func (q DueList) key(g payment.Gateway) string {
	if q == Sending {
		return sendingKey(g)
	}
	return openKey(g)
}

// Due reports which of the gateways have a payment that is due in either list.
func (l *Ledger) Due(ctx context.Context, gateways []payment.Gateway) ([]payment.Gateway, error) {
	var keys []string
	for _, g := range gateways {
		keys = append(keys, sendingKey(g), openKey(g))
	}
	answer, err := dueScript.Run(ctx, l.redis, keys).StringSlice()
	if err == nil && len(answer) != len(keys) {
		err = errors.New("unexpected answer of a script")
	}
	if err != nil {
		return nil, fmt.Errorf("ledger: what is due: %w", err)
	}
	var due []payment.Gateway
	for i, g := range gateways {
		if answer[2*i] != "" || answer[2*i+1] != "" {
			due = append(due, g)
		}
	}
	return due, nil
}

// Batch is what was taken from a list, and is hidden from other takers for a while.
type Batch struct {
	// Records come without order and attempts.
	Records []*Record
	// Unreadable are the ids of the records that cannot be read, or are of another
	// version; Err says why.
	Unreadable []string
	Err        error

	queue   DueList
	gateway payment.Gateway
	hidden  string            // until when, by Redis' clock (ms)
	due     map[string]string // when each was due before (ms)
	primary string
}

// Len is how many were taken.
func (t *Batch) Len() int { return len(t.due) }

// Primary tells one primary of Redis from another; empty where Redis does not tell.
func (t *Batch) Primary() string { return t.primary }

// TakeDue takes payments that are due, most overdue first and at most limit, and hides
// them from other takers for a while: Hide them for longer, or say with Reschedule or
// Release when they are due.
func (l *Ledger) TakeDue(ctx context.Context, q DueList, g payment.Gateway, hide time.Duration, limit int) (*Batch, error) {
	fail := func(err error) (*Batch, error) {
		return nil, fmt.Errorf("ledger: take what is due at %s: %w", g, err)
	}
	answer, err := takeScript.Run(ctx, l.redis, []string{q.key(g)}, ms(hide), limit).StringSlice()
	if err == nil && len(answer) < 3 {
		err = errors.New("unexpected answer of a script")
	}
	if err != nil {
		return fail(err)
	}
	d := decoder{fields: map[string]string{"now": answer[0]}}
	clock := durable.NewTime(d.time("now"), l.now())
	t := &Batch{queue: q, gateway: g, primary: answer[1], hidden: answer[2], due: pairs(answer[3:])}
	var ids []string
	for i := 3; i+1 < len(answer); i += 2 {
		ids = append(ids, answer[i])
	}
	if t.Records, t.Unreadable, t.Err, err = l.readBrief(ctx, g, ids, clock); err != nil {
		return fail(err)
	}
	return t, nil
}

// Unknown returns every payment of a gateway whose outcome is being looked up, the
// oldest first, without order and attempts. Those that cannot be read are left out.
func (l *Ledger) Unknown(ctx context.Context, t *Batch) ([]*Record, error) {
	ids, err := l.redis.ZRange(ctx, unknownKey(t.gateway), 0, -1).Result()
	if err != nil {
		return nil, fmt.Errorf("ledger: unknown outcomes at %s: %w", t.gateway, err)
	}
	records, _, _, err := l.readBrief(ctx, t.gateway, ids, l.writes.Time())
	return records, err
}

// Hide keeps hidden what was taken and is still hidden.
func (l *Ledger) Hide(ctx context.Context, t *Batch, hide time.Duration) error {
	answer, err := hideScript.Run(ctx, l.redis, []string{t.queue.key(t.gateway)}, append([]any{t.hidden, ms(hide)}, t.ids()...)...).Text()
	if err != nil {
		return fmt.Errorf("ledger: hide %d at %s: %w", t.Len(), t.gateway, err)
	}
	t.hidden = answer
	return nil
}

func (t *Batch) ids() []any {
	ids := make([]any, 0, len(t.due))
	for id := range t.due {
		ids = append(ids, id)
	}
	return ids
}

// Reschedule says when payments that were taken are next due, and changes nothing else.
func (l *Ledger) Reschedule(ctx context.Context, t *Batch, ids []string, due Due) error {
	return l.reschedule(ctx, t, ids, ms(due.in), due.grid)
}

// Release puts payments back that were taken and not seen to: they are due as they were
// before, for whoever can see to them.
func (l *Ledger) Release(ctx context.Context, t *Batch, ids []string) error {
	return l.reschedule(ctx, t, ids, "", 0)
}

func (l *Ledger) reschedule(ctx context.Context, t *Batch, ids []string, in any, grid time.Duration) error {
	if len(ids) == 0 {
		return nil
	}
	args := make([]any, 0, 3+2*len(ids))
	args = append(args, t.hidden, in, ms(grid))
	for _, id := range ids {
		args = append(args, id, t.due[id])
	}
	if err := rescheduleScript.Run(ctx, l.redis, []string{t.queue.key(t.gateway)}, args...).Err(); err != nil {
		return fmt.Errorf("ledger: reschedule %d at %s: %w", len(ids), t.gateway, err)
	}
	return nil
}

// Stats is how many payments of a gateway there are.
type Stats struct {
	Counts        map[payment.Status]int64
	OldestUnknown time.Duration // for how long the oldest unknown outcome is unknown; 0: there is none
	OldestQueued  time.Duration // how old the oldest queued payment is; 0: there is none
}

// Stats counts the payments of a gateway, in one round trip.
func (l *Ledger) Stats(ctx context.Context, g payment.Gateway) (Stats, error) {
	answer, err := censusScript.Run(ctx, l.redis, []string{countsKey(g), queuedKey(g), unknownKey(g)}).StringSlice()
	if err == nil && len(answer) < 3 {
		err = errors.New("unexpected answer of a script")
	}
	if err != nil {
		return Stats{}, fmt.Errorf("ledger: census of %s: %w", g, err)
	}
	d := decoder{fields: map[string]string{"now": answer[0], "queued": answer[1], "unknown": answer[2]}}
	age := func(name string) time.Duration {
		if answered := d.time(name); !answered.IsZero() {
			return max(0, d.time("now").Sub(answered))
		}
		return 0
	}
	c := Stats{Counts: map[payment.Status]int64{}, OldestUnknown: age("unknown"), OldestQueued: age("queued")}
	counts := pairs(answer[3:])
	for _, s := range payment.Statuses() {
		if n, err := strconv.ParseInt(counts[string(s)], 10, 64); err == nil { // a status that was never reached has no count
			c.Counts[s] = n
		}
	}
	return c, nil
}

// EncryptedToken is a customer token as the ledger keeps it: encrypted.
type EncryptedToken struct {
	Key  payment.Key
	Text string
}

// EncryptedTokens returns customer tokens of payments that are not at their end, of either
// list those due first and those due last, so many of each at the most. A payment that
// has no token is left out.
func (l *Ledger) EncryptedTokens(ctx context.Context, g payment.Gateway, each int64) ([]EncryptedToken, error) {
	var lists []*redis.StringSliceCmd
	if _, err := l.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, q := range []DueList{Sending, Open} {
			lists = append(lists, pipe.ZRange(ctx, q.key(g), 0, each-1), pipe.ZRevRange(ctx, q.key(g), 0, each-1))
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

// Accepted is how many submits to a gateway were accepted, ever: a number that
// changes with every success, whoever had it. Refusals in a row are counted
// against it (internal/refusals).
func (l *Ledger) Accepted(ctx context.Context, g payment.Gateway) (int64, error) {
	n, err := l.redis.HGet(ctx, countsKey(g), "accepted").Int64()
	if err != nil && !errors.Is(err, redis.Nil) {
		return 0, fmt.Errorf("ledger: accepted by %s: %w", g, err)
	}
	return n, nil
}

// readBrief reads the brief fields of many payments in one round trip. Records that
// cannot be read are named, and why.
func (l *Ledger) readBrief(ctx context.Context, g payment.Gateway, ids []string, clock durable.Time) (records []*Record, unreadable []string, why, err error) {
	if len(ids) == 0 {
		return nil, nil, nil, nil
	}
	cmds := make([]*redis.SliceCmd, len(ids))
	_, err = l.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, id := range ids {
			cmds[i] = pipe.HMGet(ctx, paymentKey(payment.Key{Gateway: g, TransactionID: id}), brief...)
		}
		return nil
	})
	var refusal redis.Error
	if err != nil && !errors.As(err, &refusal) { // a record of another type than a hash is one that cannot be read
		return nil, nil, nil, fmt.Errorf("ledger: read payments of %s: %w", g, err)
	}
	var reasons []error
	for i, id := range ids {
		fields := make(map[string]string, len(brief))
		for j, value := range cmds[i].Val() {
			if text, ok := value.(string); ok {
				fields[brief[j]] = text
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
