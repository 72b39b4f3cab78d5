package redisconn

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// dequeueHook works around a defect of asynq v0.26.0, see docs/asynq.md: after a failed
// dequeue it dequeues again at once (processor.exec). While Redis is down its timeouts limit
// the rate. While Redis answers but rejects dequeues, because its memory or disk is full,
// every asynq server of a worker would send thousands of dequeues a second.
type dequeueHook struct{}

// dequeueDelay is the delay after a failed dequeue. It can delay a shutdown by as much.
const dequeueDelay = 500 * time.Millisecond

// ProcessHook implements redis.Hook.
func (dequeueHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		// redis.Nil means that the queue is empty. After NOSCRIPT go-redis sends EVAL.
		if err != nil && isDequeue(cmd) && !errors.Is(err, redis.Nil) && !redis.HasErrorPrefix(err, "NOSCRIPT") {
			select {
			case <-ctx.Done():
			case <-time.After(dequeueDelay):
			}
		}
		return err
	}
}

// ProcessPipelineHook implements redis.Hook.
func (dequeueHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// DialHook implements redis.Hook.
func (dequeueHook) DialHook(next redis.DialHook) redis.DialHook { return next }

// isDequeue recognizes asynq's dequeue by its keys: pending, paused, ...
func isDequeue(cmd redis.Cmder) bool { return startsWith(scriptKeys(cmd), "pending", "paused") }
