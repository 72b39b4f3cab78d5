package tasks

import (
	"context"
	"errors"
	"fmt"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/payment"
)

// submitTask is the task of a submit, to be enqueued.
type submitTask struct {
	payment *payment.Payment
	id      string
	exists  bool // it was not enqueued, because a task with that id exists
	err     error
}

func (t *submitTask) queue() string { return SubmitQueue(t.payment.Gateway, t.payment.Priority) }

// submit enqueues tasks in one round trip, and sets exists and err of each. asynq has no batch
// call that reports existing ids, so its client prepares each command and batchClient
// collects them.
func (e *Enqueuer) submit(ctx context.Context, batch []*submitTask) {
	for len(batch) > 0 {
		notCached := e.pipeline(ctx, batch)
		if len(notCached) == 0 {
			return
		}
		// Redis does not have asynq's script: it has restarted, or is new. One task that is
		// enqueued alone brings it there; in a Cluster, to the node of its queue.
		first := notCached[0]
		first.setResult(e.enqueueSubmit(ctx, first))
		batch = notCached[1:]
	}
}

// pipeline sends the commands that enqueue the tasks as one pipeline. It returns the tasks
// whose script Redis has not cached.
func (e *Enqueuer) pipeline(ctx context.Context, batch []*submitTask) (notCached []*submitTask) {
	collected := &collection{pipe: e.redis.Pipeline()}
	collecting := context.WithValue(ctx, collectionKey{}, collected)
	for i, t := range batch {
		if err := e.enqueueSubmit(collecting, t); err != nil {
			for _, t := range batch[i:] { // Redis cannot be reached: do not wait for another timeout
				t.setResult(err)
			}
			batch = batch[:i]
			break
		}
	}
	if len(batch) == 0 {
		return nil
	}
	_, _ = collected.pipe.Exec(ctx) // each command has its own error
	for i, t := range batch {
		switch enqueued, err := collected.cmds[i].Int64(); {
		case redis.HasErrorPrefix(err, "NOSCRIPT"):
			notCached = append(notCached, t)
		case err != nil:
			t.setResult(fmt.Errorf("tasks: enqueue %s for %s: %w", TypeSubmit, t.payment.Key(), err))
		case enqueued == 0:
			t.setResult(asynq.ErrTaskIDConflict)
		default:
			t.setResult(nil)
		}
	}
	return notCached
}

// enqueueSubmit calls asynq's client for a task.
func (e *Enqueuer) enqueueSubmit(ctx context.Context, t *submitTask) error {
	return e.enqueue(ctx, TypeSubmit,
		Payload{Version: version, Gateway: t.payment.Gateway, TransactionID: t.payment.TransactionID, Amount: t.payment.Amount},
		asynq.TaskID(t.id), asynq.Queue(t.queue()), asynq.Timeout(SubmitTimeout))
}

func (t *submitTask) setResult(err error) {
	t.exists, t.err = errors.Is(err, asynq.ErrTaskIDConflict), err
	if t.exists {
		t.err = nil
	}
}

// states returns asynq's states of tasks, in one round trip; "" means that there is no such
// task. It sets err of each.
func (e *Enqueuer) states(ctx context.Context, batch []*submitTask) []string {
	if len(batch) == 0 {
		return nil
	}
	cmds := make([]*redis.StringCmd, len(batch))
	// Each command has its own error; a missing task is one, too.
	_, _ = e.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, t := range batch {
			cmds[i] = pipe.HGet(ctx, taskKey(t.queue(), t.id), "state")
		}
		return nil
	})
	states := make([]string, len(batch))
	for i, t := range batch {
		var err error
		if states[i], err = cmds[i].Result(); err != nil && !errors.Is(err, redis.Nil) {
			t.err = fmt.Errorf("tasks: inspect the task of %s: %w", t.payment.Key(), err)
		}
	}
	return states
}

// taskKey returns asynq's key of a task, a hash with a field "state" (asynq v0.26.0,
// internal/base.TaskKey).
func taskKey(queue, id string) string { return "asynq:{" + queue + "}:t:" + id }

// batchClient is the Redis client of asynq's client. With a context that has a collection it
// does not send a script, but adds it to the collection.
type batchClient struct{ redis.UniversalClient }

// collection holds the scripts that were collected, in order.
type collection struct {
	pipe redis.Pipeliner
	cmds []*redis.Cmd
}

type collectionKey struct{}

// EvalSha implements redis.Scripter. asynq is told that the task was enqueued: the script
// returns 1 then, and 0 if a task with that id exists (asynq v0.26.0, rdb.enqueueCmd).
func (c batchClient) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	collected, ok := ctx.Value(collectionKey{}).(*collection)
	if !ok {
		return c.UniversalClient.EvalSha(ctx, sha, keys, args...)
	}
	collected.cmds = append(collected.cmds, collected.pipe.EvalSha(ctx, sha, keys, args...))
	enqueued := redis.NewCmd(ctx)
	enqueued.SetVal(int64(1))
	return enqueued
}
