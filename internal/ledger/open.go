package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/payment"
)

// brief lists the fields of a record that a look-up needs. The order and the
// attempts are most of a record's bytes, and an open payment is looked at often.
var brief = []string{"v", "status", "rev", "events", "attempts", "facts", "updated", "lease", "token", "floor", "nonce"}

// Due reports which of the gateways have a payment that is due, and notices a
// Redis that has come back: one round trip.
func (l *Ledger) Due(ctx context.Context, gateways []payment.Gateway) ([]payment.Gateway, error) {
	lineage, due, err := l.look(ctx, gateways)
	if err != nil {
		return nil, fmt.Errorf("ledger: what is due: %w", err)
	}
	return due, l.attend(ctx, lineage)
}

// Take takes payments that are due, most overdue first and at most limit, and
// hides them from other takers until the given time. Their records come without
// order and attempts. A record that cannot be read is left out and told in the
// error, beside the others. Where Redis has just come back it may be an older one:
// what comes of it can be recorded only if it is not.
func (l *Ledger) Take(ctx context.Context, g payment.Gateway, hidden time.Time, limit int) ([]*Record, error) {
	ids, err := takeScript.Run(ctx, l.redis, []string{openKey(g)},
		l.now().UnixMilli(), hidden.UnixMilli(), limit).StringSlice()
	if err != nil {
		return nil, fmt.Errorf("ledger: take what is due at %s: %w", g, err)
	}
	return l.readBrief(ctx, g, ids)
}

// Unknown returns every payment of a gateway whose outcome is being looked up,
// the oldest doubt first, without order and attempts.
func (l *Ledger) Unknown(ctx context.Context, g payment.Gateway) ([]*Record, error) {
	ids, err := l.redis.ZRange(ctx, unknownKey(g), 0, -1).Result()
	if err != nil {
		return nil, fmt.Errorf("ledger: unknown payments at %s: %w", g, err)
	}
	return l.readBrief(ctx, g, ids)
}

// Postpone sets when payments are next due, in the order given, and nothing else:
// they were looked at, or had to wait, and stand where they stood. One that has left
// the open set stays out.
func (l *Ledger) Postpone(ctx context.Context, g payment.Gateway, ids []string, due time.Time) error {
	if len(ids) == 0 {
		return nil
	}
	members := make([]redis.Z, len(ids))
	for i, id := range ids {
		// Early rather than late, so that one poll finds all of them.
		at := due.Add(-time.Duration(len(ids)-1-i) * Apart)
		members[i] = redis.Z{Score: float64(at.UnixMicro()) / 1000, Member: id}
	}
	if err := l.redis.ZAddXX(ctx, openKey(g), members...).Err(); err != nil {
		return fmt.Errorf("ledger: postpone %d at %s: %w", len(ids), g, err)
	}
	return nil
}

// Apart is how far apart Postpone sets payments, to keep their order: of those due at
// the same time Redis would make an order of its own.
const Apart = time.Microsecond

// PostponeHidden is Postpone for payments that are still hidden as Take hid them: what
// somebody else has changed meanwhile is due when he said.
func (l *Ledger) PostponeHidden(ctx context.Context, g payment.Gateway, ids []string, hidden, due time.Time) error {
	args := make([]any, 0, 2+len(ids))
	args = append(args, hidden.UnixMilli(), due.UnixMilli())
	for _, id := range ids {
		args = append(args, id)
	}
	if err := postponeHiddenScript.Run(ctx, l.redis, []string{openKey(g)}, args...).Err(); err != nil {
		return fmt.Errorf("ledger: postpone %d at %s: %w", len(ids), g, err)
	}
	return nil
}

// Census is how many payments of a gateway are in which status, and how old the
// oldest of unknown outcome, and the oldest that waits to be sent, are (0 when
// there is none).
type Census struct {
	Counts                      map[payment.Status]int64
	OldestUnknown, OldestQueued time.Duration
}

// Census takes the census of a gateway.
func (l *Ledger) Census(ctx context.Context, g payment.Gateway) (Census, error) {
	var counts *redis.MapStringStringCmd
	var oldest *redis.ZSliceCmd
	_, err := l.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		counts = pipe.HGetAll(ctx, countsKey(g))
		oldest = pipe.ZRangeWithScores(ctx, unknownKey(g), 0, 0)
		return nil
	})
	if err != nil {
		return Census{}, fmt.Errorf("ledger: census of %s: %w", g, err)
	}
	census := Census{Counts: make(map[payment.Status]int64, len(payment.Statuses()))}
	for _, s := range payment.Statuses() {
		n, err := strconv.ParseInt(counts.Val()[string(s)], 10, 64)
		if err == nil { // a status that was never reached has no count
			census.Counts[s] = n
		}
	}
	if unknown := oldest.Val(); len(unknown) > 0 {
		census.OldestUnknown = max(0, l.now().Sub(time.UnixMilli(int64(unknown[0].Score))))
	}
	return census, nil
}

// SealedToken is the customer token of a payment, as the ledger has it.
type SealedToken struct {
	Key  payment.Key
	Text string
}

// SealedTokens returns customer tokens of payments that are not at their end: those
// due first and those due last, so many of each at the most. A payment that has no
// token is left out.
func (l *Ledger) SealedTokens(ctx context.Context, g payment.Gateway, each int64) ([]SealedToken, error) {
	var first, last *redis.StringSliceCmd
	if _, err := l.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		first = pipe.ZRange(ctx, openKey(g), 0, each-1)
		last = pipe.ZRevRange(ctx, openKey(g), 0, each-1)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("ledger: open payments of %s: %w", g, err)
	}
	ids := slices.Concat(first.Val(), last.Val())
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
	var tokens []SealedToken
	for i, id := range ids {
		if text := texts[i].Val(); text != "" {
			tokens = append(tokens, SealedToken{payment.Key{Gateway: g, TransactionID: id}, text})
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

// AttemptCount is how many attempts a payment has had; 0 when the ledger has no
// such payment.
func (l *Ledger) AttemptCount(ctx context.Context, key payment.Key) (int, error) {
	n, err := l.redis.HGet(ctx, paymentKey(key), "attempts").Int()
	if err != nil && !errors.Is(err, redis.Nil) {
		return 0, fmt.Errorf("ledger: attempts of %s: %w", key, err)
	}
	return n, nil
}

// readBrief reads the brief fields of many payments in one round trip.
func (l *Ledger) readBrief(ctx context.Context, g payment.Gateway, ids []string) ([]*Record, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	cmds := make([]*redis.SliceCmd, len(ids))
	if _, err := l.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, id := range ids {
			cmds[i] = pipe.HMGet(ctx, paymentKey(payment.Key{Gateway: g, TransactionID: id}), brief...)
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("ledger: read open payments of %s: %w", g, err)
	}
	records := make([]*Record, 0, len(ids))
	var damaged []error
	for i, id := range ids {
		fields := make(map[string]string, len(brief))
		for j, value := range cmds[i].Val() {
			if text, ok := value.(string); ok {
				fields[brief[j]] = text
			}
		}
		r, err := decode(payment.Key{Gateway: g, TransactionID: id}, fields)
		if err != nil {
			damaged = append(damaged, err)
			continue
		}
		records = append(records, r)
	}
	return records, errors.Join(damaged...)
}

// call is one run of a script.
type call struct {
	index  int
	script *redis.Script
	keys   []string
	args   []any
}

// under is a run of saveScript in the Redis of that lineage.
func (c call) under(lineage string) call {
	c.args = append(slices.Clip(c.args[:saveArgs]), lineage)
	return c
}

// saveArgs is how many arguments saveScript has before the lineage.
const saveArgs = 15

// runAll runs scripts in order in one round trip and hands each answer to done.
// A Redis that does not know a script yet (restarted, failed over) is told it, which
// costs two more.
func (l *Ledger) runAll(ctx context.Context, calls []call, done func(c call, cmd *redis.Cmd)) {
	if len(calls) == 0 {
		return
	}
	cmds := make([]*redis.Cmd, len(calls))
	// Each command carries its own error, so the pipeline's is the first of them.
	_, _ = l.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, c := range calls {
			cmds[i] = c.script.EvalSha(ctx, pipe, c.keys, c.args...)
		}
		return nil
	})
	var unknown []call
	for i, c := range calls {
		if redis.HasErrorPrefix(cmds[i].Err(), "NOSCRIPT") {
			unknown = append(unknown, c)
		} else {
			done(c, cmds[i])
		}
	}
	if len(unknown) > 0 {
		first := unknown[0]
		done(first, first.script.Run(ctx, l.redis, first.keys, first.args...))
		l.runAll(ctx, unknown[1:], done)
	}
}
