package tasks

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// pacer paces the dequeues of the servers of one queue, so that an idle worker reacts fast with
// few commands to Redis, however many servers it has. A server that has just dequeued a task
// asks for the next one at once. The servers that found the queue empty wait. One of them at a
// time asks again after the interval; if it gets a task, all of them ask at once.
type pacer struct {
	interval time.Duration
	turn     chan struct{} // holds a value while one of the waiting servers has its turn
	closed   chan struct{}
	close    func()

	mu    sync.Mutex
	found chan struct{} // closed and replaced when that server gets a task
}

func newPacer(interval time.Duration) *pacer {
	closed := make(chan struct{})
	return &pacer{
		interval: interval, turn: make(chan struct{}, 1), found: make(chan struct{}),
		closed: closed, close: sync.OnceFunc(func() { close(closed) }),
	}
}

// wait waits until the server may ask an empty queue. With hasTurn the server must call
// endTurn afterwards. Without ask the pacer is closed: the server must not ask.
func (p *pacer) wait() (ask, hasTurn bool) {
	p.mu.Lock()
	found := p.found
	p.mu.Unlock()
	select {
	case <-found:
		return true, false
	case <-p.closed:
		return false, false
	case p.turn <- struct{}{}:
	}
	timer := time.NewTimer(p.interval)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true, true
	case <-p.closed:
		<-p.turn
		return false, false
	}
}

// endTurn ends the turn of a server, and wakes the others if it got a task.
func (p *pacer) endTurn(gotTask bool) {
	if gotTask {
		p.mu.Lock()
		close(p.found)
		p.found = make(chan struct{})
		p.mu.Unlock()
	}
	<-p.turn
}

// pacedClient is the Redis client of one server. Its dequeues are paced, and its
// acknowledgements joined with those of the gateway's other servers.
type pacedClient struct {
	redis.UniversalClient

	queue string
	pacer *pacer
	done  acknowledgements
	empty *bool // the latest dequeue got no task; only the goroutine that dequeues uses it
}

// EvalSha implements redis.Scripter. asynq's dequeue is the script with the keys pending and
// paused (asynq v0.26.0, rdb.dequeueCmd); asynq calls it in one goroutine per server. Done and
// completed tasks are removed by scripts with the keys active and lease.
func (c pacedClient) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	prefix := "asynq:{" + c.queue + "}:"
	// With a cancelled context it is a repetition, see redisconn.ackHook.
	if len(keys) > 1 && keys[0] == prefix+"active" && keys[1] == prefix+"lease" && ctx.Err() == nil {
		return c.done.EvalSha(ctx, sha, keys, args...)
	}
	if len(keys) < 2 || keys[0] != prefix+"pending" || keys[1] != prefix+"paused" {
		return c.UniversalClient.EvalSha(ctx, sha, keys, args...)
	}
	hasTurn := false
	if *c.empty {
		var ask bool
		if ask, hasTurn = c.pacer.wait(); !ask {
			return isEmpty(ctx)
		}
		if hasTurn { // LLEN is cheaper than asynq's script, which also reports errors
			if n, err := c.LLen(ctx, keys[0]).Result(); err == nil && n == 0 {
				c.pacer.endTurn(false)
				return isEmpty(ctx)
			}
		}
	}
	cmd := c.UniversalClient.EvalSha(ctx, sha, keys, args...)
	// After NOSCRIPT asynq sends the script itself, with Eval.
	*c.empty = cmd.Err() != nil && !redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT")
	if hasTurn {
		c.pacer.endTurn(cmd.Err() == nil)
	}
	return cmd
}

// isEmpty returns asynq's reply for an empty queue.
func isEmpty(ctx context.Context) *redis.Cmd {
	cmd := redis.NewCmd(ctx)
	cmd.SetErr(redis.Nil)
	return cmd
}
