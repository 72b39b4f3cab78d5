package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/durable"
	"terbayar/internal/payment"
)

// PartitionsError says that the ledger has another number of partitions than LEDGER_PARTITIONS.
type PartitionsError struct{ Have, Want int }

func (e *PartitionsError) Error() string {
	return fmt.Sprintf("the ledger in this Redis has %d partition(s), not %d: the number is fixed at the first use", e.Have, e.Want)
}

// DurabilityKeys returns the keys of the durable.Writers that a ledger needs: in a Redis
// Cluster one for each partition, because each may be on another node.
func DurabilityKeys(client redis.UniversalClient, partitions int) []string {
	if _, isCluster := client.(*redis.ClusterClient); !isCluster {
		partitions = 1
	}
	keys := make([]string, max(partitions, 1))
	for i := range keys {
		keys[i] = durabilityKey(i)
	}
	return keys
}

// CheckPartitions compares the number of partitions with that of the ledger in Redis. At the
// first use of a ledger it writes the number down, durably. The error is a *PartitionsError if
// the ledger has another number.
func (l *Ledger) CheckPartitions(ctx context.Context) error {
	n, err := l.redis.Get(ctx, partitionsKey).Int()
	if errors.Is(err, redis.Nil) {
		first := l.partitions[0]
		call := durable.Call{Script: partitionsScript, Keys: []string{partitionsKey}, Args: []any{len(l.partitions)}}
		for _, g := range payment.Gateways() {
			call.Keys = append(call.Keys, first.counts(g), first.queued(g))
		}
		var replies []*redis.Cmd
		if replies, err = first.writes.Do(ctx, call); err == nil {
			n, err = replies[0].Int()
		}
	}
	return l.comparePartitions(n, err)
}

// checkPartitionsOnce calls CheckPartitions until it has once succeeded: a payment must not be
// created in a partition in which no other process looks for it.
func (l *Ledger) checkPartitionsOnce(ctx context.Context) error {
	if l.partitionsChecked.Load() {
		return nil
	}
	err := l.CheckPartitions(ctx)
	if err == nil {
		l.partitionsChecked.Store(true)
	}
	return err
}

// ReadPartitions is CheckPartitions for programs that only read.
func (l *Ledger) ReadPartitions(ctx context.Context) error {
	n, err := l.redis.Get(ctx, partitionsKey).Int()
	if errors.Is(err, redis.Nil) { // it is empty, or older than the number
		n, err = 1, nil
	}
	return l.comparePartitions(n, err)
}

func (l *Ledger) comparePartitions(n int, err error) error {
	switch {
	case err != nil:
		return fmt.Errorf("ledger: number of partitions: %w", err)
	case n != len(l.partitions):
		return &PartitionsError{Have: n, Want: len(l.partitions)}
	default:
		return nil
	}
}
