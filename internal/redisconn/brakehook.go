package redisconn

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// brakeHook mends asynq's hot loop (v0.26.0, processor.exec): after a dequeue
// that failed, asynq dequeues again at once. A Redis that is away slows that down
// by itself, one that answers and refuses does not: when its memory or its disk
// is full, each server of a worker would ask it thousands of times a second.
type brakeHook struct{}

// brake is how long a failed dequeue holds its server up. It delays a shutdown by
// as much.
const brake = 500 * time.Millisecond

// ProcessHook implements redis.Hook.
func (brakeHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		// redis.Nil is an empty queue; NOSCRIPT is cured by the next call.
		if err != nil && isDequeue(cmd) && !errors.Is(err, redis.Nil) && !redis.HasErrorPrefix(err, "NOSCRIPT") {
			select {
			case <-ctx.Done():
			case <-time.After(brake):
			}
		}
		return err
	}
}

// ProcessPipelineHook implements redis.Hook.
func (brakeHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// DialHook implements redis.Hook.
func (brakeHook) DialHook(next redis.DialHook) redis.DialHook { return next }

// isDequeue recognizes asynq's dequeue by its keys: pending, paused, ...
func isDequeue(cmd redis.Cmder) bool { return startWith(scriptKeys(cmd), "pending", "paused") }
