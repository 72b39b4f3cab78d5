package redisconn

import (
	"context"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// ackHook mends asynq's failed acknowledgement (v0.26.0, shared/asynq.md 2).
//
// When a handler has returned, asynq takes its task off the list of active ones:
// done, completed, again later, archived, or pushed back at shutdown. If Redis is
// away at that moment, it logs "Will retry syncing" and tries again every 5 s -
// with the context of the first try, which was cancelled when that returned. So
// no second try can succeed, the task's lease runs out, and the recoverer has the
// finished task run again one or two minutes later.
//
// The hook runs such a script on a context that lives. It is the only thing that
// is done for a dead context: a claim in the ledger, an enqueued or a dequeued
// task must not be taken by somebody who has gone. It is safe: asynq drops its
// tries at the end of the lease, and only 30 s after that may anybody else touch
// the task.
type ackHook struct{}

// ackTimeout is how long such a script may take, go-redis's own tries included.
// asynq has one goroutine for all of them, and waits for it at shutdown.
const ackTimeout = time.Second

// ProcessHook implements redis.Hook.
func (ackHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := ctx.Err()
		if err == nil {
			err = next(ctx, cmd)
		}
		if err == nil || ctx.Err() == nil || !isAcknowledgement(cmd) {
			return err
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ackTimeout)
		defer cancel()
		return next(ctx, cmd)
	}
}

// ProcessPipelineHook implements redis.Hook.
func (ackHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// DialHook implements redis.Hook.
func (ackHook) DialHook(next redis.DialHook) redis.DialHook { return next }

// isAcknowledgement recognizes the scripts that take a task off the list of
// active ones by their keys: active, lease, ... (done, completed, pushed back) or
// task, active, lease, ... (retry, archive).
func isAcknowledgement(cmd redis.Cmder) bool {
	keys := scriptKeys(cmd)
	return startWith(keys, "active", "lease") || len(keys) > 0 && startWith(keys[1:], "active", "lease")
}

// startWith reports whether the first keys are those of these names of an asynq
// queue: "asynq:{queue}:name".
func startWith(keys []any, names ...string) bool {
	if len(keys) < len(names) {
		return false
	}
	for i, name := range names {
		key, ok := keys[i].(string)
		if !ok || !strings.HasPrefix(key, "asynq:{") || !strings.HasSuffix(key, "}:"+name) {
			return false
		}
	}
	return true
}

// scriptKeys are the keys of a script call, EVAL or EVALSHA, script, number of
// keys, key, key, ...; nil of any other command.
func scriptKeys(cmd redis.Cmder) []any {
	if name := cmd.Name(); name != "evalsha" && name != "eval" {
		return nil
	}
	args := cmd.Args()
	if len(args) < 3 {
		return nil
	}
	n, ok := args[2].(int)
	if !ok || n < 0 || len(args) < 3+n {
		return nil
	}
	return args[3 : 3+n]
}
