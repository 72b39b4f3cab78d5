package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/durable"
	"terbayar/internal/payment"
)

// relistScript puts a payment into the set of its status, and removes it from the other.
//
//	KEYS[1] payment
//	KEYS[2] in on_processing
//	KEYS[3] in needs_review
//	ARGV[1] transaction id
//	result  "relisted"
var relistScript = redis.NewScript(`
local function other() return 'relisted' end
` + load + `
local keys = {on_processing = KEYS[2], needs_review = KEYS[3]}
for name, key in pairs(keys) do
  if name == status then
    redis.call('ZADD', key, updated, ARGV[1])
  else
    redis.call('ZREM', key, ARGV[1])
  end
end
return 'relisted'
`)

const (
	// relistInterval is the time between two checks whether the sets of List are complete.
	relistInterval = 10 * time.Minute
	relistLock     = "relist" // the key of the lock ends with it
)

// KeepListed lists payments that an older version wrote without the sets of List, until the context
// ends: at once, and whenever the sets lack payments. Of several workers, one does it at a time.
func (l *Ledger) KeepListed(ctx context.Context) {
	ticker := time.NewTicker(relistInterval)
	defer ticker.Stop()
	for {
		if err := l.relistIfNeeded(ctx); err != nil && ctx.Err() == nil {
			l.log.Warn("listing payments of an older version failed, will retry", "error", err, "in", relistInterval.String())
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (l *Ledger) relistIfNeeded(ctx context.Context) error {
	open, review, _, err := l.unlisted(ctx, payment.Gateways())
	if err != nil || open == 0 && review == 0 {
		return err
	}
	// The lock saves work and protects nothing. It is not renewed: a second scan does no harm.
	err = l.redis.SetArgs(ctx, l.partitions[0].tag+":"+relistLock, "1", redis.SetArgs{Mode: "NX", TTL: relistInterval - time.Minute}).Err()
	if errors.Is(err, redis.Nil) {
		return nil
	}
	if err != nil {
		return err
	}
	n, err := l.Relist(ctx)
	l.log.Info("payments listed that an older version wrote", "payments", n, "missing", open+review)
	return err
}

// Relist puts every payment in on_processing or needs_review into the set of its status, and removes
// all others. It reads the whole keyspace, as ScanEnded does, at the same pace. It returns the number
// of payments in these statuses.
func (l *Ledger) Relist(ctx context.Context) (n int, err error) {
	fail := func(err error) (int, error) { return n, fmt.Errorf("ledger: list payments: %w", err) }
	nodes, err := l.primaries(ctx)
	if err != nil {
		return fail(err)
	}
	pause := func(started time.Time) {
		select {
		case <-ctx.Done():
		case <-time.After(min(time.Second, max(0, l.now().Sub(started)))):
		}
	}
	for _, node := range nodes {
		for cursor, more := uint64(0), true; more; {
			started := l.now()
			keys, next, err := node.Scan(ctx, cursor, "{"+DefaultStream+"*:payment:*", scanCount).Result()
			if err != nil {
				return fail(err)
			}
			found, err := l.inReviewOrOpen(ctx, keys)
			if err == nil {
				err = l.relist(ctx, found)
			}
			if err != nil {
				return fail(err)
			}
			n += len(found)
			cursor, more = next, next != 0
			pause(started)
		}
	}
	// What a worker of an older version has changed is still in the set of its former status.
	for _, p := range l.partitions {
		for _, g := range payment.Gateways() {
			for _, s := range []payment.Status{payment.OnProcessing, payment.NeedsReview} {
				for cursor, more := uint64(0), true; more; {
					started := l.now()
					members, next, err := l.redis.ZScan(ctx, p.listed(g, s), cursor, "", scanCount).Result()
					if err != nil {
						return fail(err)
					}
					var keys []payment.Key
					for i := 0; i < len(members); i += 2 { // member, score, ...
						keys = append(keys, payment.Key{Gateway: g, TransactionID: members[i]})
					}
					if err := l.relist(ctx, keys); err != nil {
						return fail(err)
					}
					cursor, more = next, next != 0
					pause(started)
				}
			}
		}
	}
	return n, nil
}

// relist runs relistScript for payments.
func (l *Ledger) relist(ctx context.Context, keys []payment.Key) error {
	calls := make([]durable.Call, len(keys))
	for i, k := range keys {
		p := l.partitionOf(k)
		calls[i] = durable.Call{
			Script: relistScript,
			Keys:   []string{p.payment(k), p.listed(k.Gateway, payment.OnProcessing), p.listed(k.Gateway, payment.NeedsReview)},
			Args:   []any{k.TransactionID},
		}
	}
	for _, reply := range l.runScripts(ctx, calls) {
		if err := reply.Err(); err != nil {
			return err
		}
	}
	return nil
}

// inReviewOrOpen returns the payments with these keys that are in on_processing or needs_review. It
// rewrites those of version 2.
func (l *Ledger) inReviewOrOpen(ctx context.Context, keys []string) (found []payment.Key, err error) {
	texts := make([]*redis.StringCmd, len(keys))
	// Each command has its own error.
	_, _ = l.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, key := range keys {
			texts[i] = pipe.GetRange(ctx, key, 0, firstWords-1)
		}
		return nil
	})
	for i, key := range keys {
		_, rest, _ := strings.Cut(key, ":payment:")
		gateway, id, _ := strings.Cut(rest, ":")
		k := payment.Key{Gateway: payment.Gateway(gateway), TransactionID: id}
		if l.partitionOf(k).payment(k) != key { // not a key of this ledger
			continue
		}
		text, err := texts[i].Result()
		if redis.HasErrorPrefix(err, "WRONGTYPE") {
			var r *Record
			if r, err = l.Read(ctx, k); errors.Is(err, ErrDamaged) || errors.Is(err, ErrOtherVersion) || errors.Is(err, ErrNotFound) {
				continue
			}
			if err == nil && r.Status != payment.OnProcessing && r.Status != payment.NeedsReview {
				continue
			}
			if err == nil {
				err = l.rewriteAll(ctx, []*Record{r})
			}
			text = version + " " + string(payment.NeedsReview)
		}
		if err != nil {
			return nil, err
		}
		if words := strings.Fields(text); len(words) > 1 && words[0] == version &&
			(words[1] == string(payment.OnProcessing) || words[1] == string(payment.NeedsReview)) {
			found = append(found, k)
		}
	}
	return found, nil
}
