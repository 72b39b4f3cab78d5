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
		p.wake()
	}
	<-p.turn
}

// wake makes the servers that wait ask at once.
func (p *pacer) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.found)
	p.found = make(chan struct{})
}

// lane is the queue of a gateway's interactive submits. All servers of the gateway's submits serve
// it before the other queue. asynq asks for it in every dequeue; but it is almost always empty, and
// a round trip for each task would be a high price. So it is asked for once per laneInterval
// while tasks of the other queue are dequeued, and otherwise when the check of an idle queue
// has seen that it is not empty.
type lane struct {
	queue string

	mu      sync.Mutex
	hasTask bool      // it was not empty when it was last looked at
	next    time.Time // when it may be asked for again
}

// laneInterval is how long a busy worker may take to notice an interactive payment.
const laneInterval = 50 * time.Millisecond

// ask reports whether a server should ask for a task. A busy server is one that has just
// dequeued a task of the other queue.
func (l *lane) ask(busy bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if !l.hasTask && (!busy || now.Before(l.next)) {
		return false
	}
	l.next = now.Add(laneInterval)
	return true
}

func (l *lane) setHasTask(hasTask bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hasTask = hasTask
}

// pacedClient is the Redis client of one server. Its dequeues are paced, and its
// acknowledgements joined with those of the gateway's other servers.
type pacedClient struct {
	redis.UniversalClient

	queue string
	lane  *lane // nil: the server has one queue
	pacer *pacer
	done  acknowledgements
	empty *bool // the latest dequeue of queue got no task; only the goroutine that dequeues uses it
}

// EvalSha implements redis.Scripter. asynq's dequeue is the script with the keys pending and
// paused (asynq v0.26.0, rdb.dequeueCmd); asynq calls it in one goroutine per server, for one
// queue after the other until it gets a task. Done and completed tasks are removed by scripts
// with the keys active and lease.
func (c pacedClient) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	dequeue := func() *redis.Cmd { return c.UniversalClient.EvalSha(ctx, sha, keys, args...) }
	switch {
	// With a cancelled context it is a repetition, see redisconn.ackHook.
	case c.hasKeys(keys, "active", "lease") && ctx.Err() == nil:
		return c.done.EvalSha(ctx, sha, keys, args...)
	case !c.hasKeys(keys, "pending", "paused"):
		return dequeue()
	case c.lane != nil && keys[0] == key(c.lane.queue, "pending"):
		return c.dequeueInteractive(ctx, dequeue)
	default:
		return c.dequeue(ctx, dequeue)
	}
}

// hasKeys reports whether the first keys of a script are these two of one of the queues.
func (c pacedClient) hasKeys(keys []string, first, second string) bool {
	if len(keys) < 2 {
		return false
	}
	is := func(queue string) bool { return keys[0] == key(queue, first) && keys[1] == key(queue, second) }
	return is(c.queue) || c.lane != nil && is(c.lane.queue)
}

// key returns one of asynq's keys of a queue.
func key(queue, part string) string { return "asynq:{" + queue + "}:" + part }

func (c pacedClient) dequeueInteractive(ctx context.Context, dequeue func() *redis.Cmd) *redis.Cmd {
	if !c.lane.ask(!*c.empty) {
		return isEmpty(ctx)
	}
	cmd := dequeue()
	// After NOSCRIPT asynq sends the script itself, with Eval.
	got := cmd.Err() == nil || redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT")
	c.lane.setHasTask(got)
	if got {
		c.pacer.wake() // there may be more than this server can run
	}
	return cmd
}

func (c pacedClient) dequeue(ctx context.Context, dequeue func() *redis.Cmd) *redis.Cmd {
	hasTurn := false
	if *c.empty {
		var ask bool
		if ask, hasTurn = c.pacer.wait(); !ask {
			return isEmpty(ctx)
		}
		if hasTurn { // it is cheaper than asynq's script, which also reports errors
			if queue, interactive, err := c.look(ctx); err == nil {
				if c.lane != nil && interactive {
					c.lane.setHasTask(true) // asynq asks for it next
				}
				if !queue {
					c.pacer.endTurn(interactive)
					return isEmpty(ctx)
				}
			}
		}
	}
	cmd := dequeue()
	*c.empty = cmd.Err() != nil && !redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT")
	if hasTurn {
		c.pacer.endTurn(cmd.Err() == nil)
	}
	return cmd
}

// look reports which queues have tasks, with one command while both are empty. In a Redis
// Cluster they are in different slots.
func (c pacedClient) look(ctx context.Context) (queue, interactive bool, err error) {
	pending := []string{key(c.queue, "pending")}
	if c.lane != nil {
		pending = append(pending, key(c.lane.queue, "pending"))
	}
	if _, isCluster := c.UniversalClient.(*redis.ClusterClient); !isCluster {
		if n, err := c.Exists(ctx, pending...).Result(); err != nil || n == 0 { // asynq's lists: an empty one does not exist
			return false, false, err
		}
	}
	var lengths [2]*redis.IntCmd
	_, err = c.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, key := range pending {
			lengths[i] = pipe.LLen(ctx, key)
		}
		return nil
	})
	if err != nil {
		return false, false, err
	}
	return lengths[0].Val() > 0, c.lane != nil && lengths[1].Val() > 0, nil
}

// isEmpty returns asynq's reply for an empty queue.
func isEmpty(ctx context.Context) *redis.Cmd {
	cmd := redis.NewCmd(ctx)
	cmd.SetErr(redis.Nil)
	return cmd
}
