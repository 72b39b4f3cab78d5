package redistest

import (
	"context"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// Trips counts the round trips of a client. What a new connection says of itself does
// not count: when one is made is the pool's doing.
type Trips struct{ n atomic.Int64 }

// Count counts the round trips that a client makes from now on.
func Count(client redis.UniversalClient) *Trips {
	t := &Trips{}
	client.AddHook(t)
	return t
}

// N is how many there were.
func (t *Trips) N() int { return int(t.n.Load()) }

// DialHook implements redis.Hook.
func (*Trips) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements redis.Hook.
func (t *Trips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		t.count(cmd)
		return next(ctx, cmd)
	}
}

// ProcessPipelineHook implements redis.Hook.
func (t *Trips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		t.count(cmds[0])
		return next(ctx, cmds)
	}
}

func (t *Trips) count(first redis.Cmder) {
	if name := first.Name(); name != "hello" && name != "client" {
		t.n.Add(1)
	}
}
