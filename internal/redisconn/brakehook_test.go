package redisconn

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/redistest"
)

// counter counts the dequeues that Redis refuses.
type counter struct{ refused *atomic.Int32 }

func (c counter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if isDequeue(cmd) && redis.HasErrorPrefix(err, "OOM") {
			c.refused.Add(1)
		}
		return err
	}
}
func (counter) DialHook(next redis.DialHook) redis.DialHook { return next }
func (counter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// TestFullRedis: its memory is full, so it refuses to let a task be dequeued.
// Bare asynq asks again at once, and again; with the hook it waits. When there is
// room again, work goes on.
func TestFullRedis(t *testing.T) {
	for name, c := range map[string]struct {
		connect     func(*testing.T, *redistest.Process) redis.UniversalClient
		least, most int32 // refusals in a second
	}{
		"bare asynq": {bare, 300, 1e6},
		"with hook":  {opened, 1, 3},
	} {
		t.Run(name, func(t *testing.T) {
			client := c.connect(t, redistest.Server(t))
			var refused atomic.Int32
			client.AddHook(counter{&refused})
			maxmemory := func(bytes string) {
				t.Helper()
				if err := client.ConfigSet(t.Context(), "maxmemory", bytes).Err(); err != nil {
					t.Fatal(err)
				}
			}
			done := make(chan struct{})
			startAsynq(t, client, func(context.Context, *asynq.Task) error { close(done); return nil }, make(logger, 100))
			maxmemory("1")
			<-time.After(time.Second)
			if n := refused.Load(); n < c.least || n > c.most {
				t.Errorf("%d refusals in a second, want %d to %d", n, c.least, c.most)
			} else {
				t.Logf("%d refusals in a second", n)
			}
			maxmemory("0")
			if _, err := asynq.NewClientFromRedisClient(client).Enqueue(asynq.NewTask("done", nil)); err != nil {
				t.Fatal(err)
			}
			<-done
		})
	}
}
