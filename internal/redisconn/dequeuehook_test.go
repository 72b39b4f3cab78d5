package redisconn

import (
	"context"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/redistest"
)

// rejections is a hook that receives a value for each dequeue that Redis rejects because its
// memory is full.
type rejections chan time.Time

func (r rejections) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if isDequeue(cmd) && redis.HasErrorPrefix(err, "OOM") {
			select {
			case r <- time.Now():
			default: // the test has enough of them
			}
		}
		return err
	}
}

func (rejections) DialHook(next redis.DialHook) redis.DialHook { return next }

func (rejections) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// TestFullRedis: Redis' memory is full, so it rejects dequeues. Plain asynq repeats them at
// once; with the hook it waits in between. Afterwards tasks run again.
func TestFullRedis(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		connect func(*testing.T, *redistest.Process) redis.UniversalClient
		n       int // rejections to wait for
		waits   bool
	}{
		"plain asynq": {plainClient, 100, false},
		"with hook":   {hookedClient, 3, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := c.connect(t, redistest.Server(t))
			rejected := make(rejections, c.n)
			client.AddHook(rejected)
			setMaxMemory := func(bytes string) {
				t.Helper()
				if err := client.ConfigSet(t.Context(), "maxmemory", bytes).Err(); err != nil {
					t.Fatal(err)
				}
			}
			done := make(chan struct{})
			startAsynq(t, client, func(context.Context, *asynq.Task) error { close(done); return nil }, make(logger, 100))
			setMaxMemory("1")
			shortest := time.Hour // pause between two rejections
			last := <-rejected
			for range c.n - 1 {
				at := <-rejected
				shortest, last = min(shortest, at.Sub(last)), at
			}
			if waits := shortest >= dequeueDelay; waits != c.waits {
				t.Errorf("shortest pause between %d rejections: %s", c.n, shortest)
			}
			setMaxMemory("0")
			if _, err := asynq.NewClientFromRedisClient(client).Enqueue(asynq.NewTask("done", nil)); err != nil {
				t.Fatal(err)
			}
			<-done
		})
	}
}
