package redistest

import (
	"context"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// RoundTrips counts the round trips of a client, without those that set up a connection:
// when the pool opens one is not predictable.
type RoundTrips struct{ n atomic.Int64 }

// CountRoundTrips starts to count the round trips of a client.
func CountRoundTrips(client redis.UniversalClient) *RoundTrips {
	t := &RoundTrips{}
	client.AddHook(t)
	return t
}

// N returns the count.
func (t *RoundTrips) N() int { return int(t.n.Load()) }

// DialHook implements redis.Hook.
func (*RoundTrips) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements redis.Hook.
func (t *RoundTrips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		t.count(cmd)
		return next(ctx, cmd)
	}
}

// ProcessPipelineHook implements redis.Hook.
func (t *RoundTrips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		t.count(cmds[0])
		return next(ctx, cmds)
	}
}

func (t *RoundTrips) count(first redis.Cmder) {
	if name := first.Name(); name != "hello" && name != "client" {
		t.n.Add(1)
	}
}
