package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/durable"
	"terbayar/internal/payment"
)

// A payment can be looked up once more than its schedule says, because a gateway's callback has
// asked for it. Such a lookup leaves record and schedule unchanged unless it finds the payment,
// see statuspoll.Poller.LookUpAsked. So it is not stored in the list Open, which has the schedule,
// but in the list Asked.

// AskResult is what Ask did.
type AskResult string

// The values of AskResult.
const (
	AskedNow     AskResult = "now"      // it is looked up now
	AskedLater   AskResult = "later"    // it is looked up at the end of the interval since the latest such lookup, or since now if it is submitting
	AskedAlready AskResult = "already"  // a lookup that has not begun was asked for already: nothing was done
	NotLookedUp  AskResult = "not open" // payments of its status are not looked up: nothing was done
	NoRecord     AskResult = "missing"  // there is no such payment, or only its tombstone: nothing was done
)

// Ask asks for one lookup of a payment, whoever asks and whatever its schedule is: now, or as soon
// as the interval since the latest one has passed. A request during the interval is not dropped,
// because the gateway may report the last change of several then.
//
// Nothing is durable: the payment is looked up by its schedule too.
func (l *Ledger) Ask(ctx context.Context, key payment.Key, interval time.Duration) (AskResult, error) {
	fail := func(err error) (AskResult, error) {
		return "", fmt.Errorf("ledger: ask for a lookup of %s: %w", key, err)
	}
	if err := l.checkPartitionsOnce(ctx); err != nil { // the wrong partition has no such payment
		return fail(err)
	}
	p, g := l.partitionOf(key), key.Gateway
	result, err := l.runScripts(ctx, []durable.Call{{
		Script: askScript,
		Keys:   []string{p.payment(key), p.open(g), p.sending(g), p.queued(g), p.asked(g), p.latestAsked(key)},
		Args:   []any{key.TransactionID, ms(interval)},
	}})[0].Text()
	if err != nil {
		return fail(err)
	}
	return AskResult(result), nil
}

// askScript asks for one lookup of a payment. Its latest lookup may be in the future: it was asked
// for during the interval after the one before. A payment that is submitting is looked up an interval
// later, if it is open then: the gateway may report a change before it answers the submit.
//
//	KEYS[1] payment
//	KEYS[2] open
//	KEYS[3] sending
//	KEYS[4] queued
//	KEYS[5] asked
//	KEYS[6] latest lookup that was asked for (ms); expires an interval after it
//	ARGV[1] transaction id
//	ARGV[2] interval (ms)
//	result  an AskResult
var askScript = redis.NewScript(clock + `
local function contains(key) return redis.call('ZSCORE', key, ARGV[1]) end
local submitting = contains(KEYS[3]) and not contains(KEYS[4])
if not submitting and not contains(KEYS[2]) then
  return redis.call('EXISTS', KEYS[1]) == 1 and 'not open' or 'missing'
end
local latest = tonumber(redis.call('GET', KEYS[6]) or 0)
local waiting = contains(KEYS[5]) -- in the future: it is hidden, because its lookup has begun
if latest > now or waiting and tonumber(waiting) <= now then return 'already' end
local at = math.max(submitting and now + ARGV[2] or now, latest + ARGV[2])
redis.call('SET', KEYS[6], text(at), 'PX', text(at - now + ARGV[2]))
redis.call('ZADD', KEYS[5], text(at), ARGV[1])
return at == now and 'now' or 'later'
`)

// Finish removes payments of a batch of the list Asked, unless a lookup has been asked for since.
func (l *Ledger) Finish(ctx context.Context, b *Batch, ids []string) error {
	args := map[*partition][]any{}
	for _, id := range ids {
		p := l.partitionOf(payment.Key{Gateway: b.gateway, TransactionID: id})
		if args[p] == nil {
			args[p] = []any{b.taken[p].hiddenUntil}
		}
		args[p] = append(args[p], id)
	}
	var calls []durable.Call
	for p, args := range args {
		calls = append(calls, durable.Call{Script: finishScript, Keys: []string{p.list(b.list, b.gateway)}, Args: args})
	}
	for _, reply := range l.runScripts(ctx, calls) {
		if err := reply.Err(); err != nil {
			return fmt.Errorf("ledger: remove %d payments of %s that were looked up: %w", len(ids), b.gateway, err)
		}
	}
	return nil
}

// finishScript removes payments that are still hidden until the given time.
//
//	KEYS[1] the sorted set that they were taken from
//	ARGV[1] hidden until (ms)
//	ARGV[2...] transaction id, ...
//	result  number of payments that were removed
var finishScript = redis.NewScript(`
local n = 0
for i = 2, #ARGV do
  if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[i]) or '-1') == tonumber(ARGV[1]) then
    n = n + redis.call('ZREM', KEYS[1], ARGV[i])
  end
end
return n
`)
