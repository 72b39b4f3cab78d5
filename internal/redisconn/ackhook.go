package redisconn

import (
	"context"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// ackHook works around a defect of asynq v0.26.0, see docs/asynq.md, section 2: its failed
// acknowledgements are never repeated.
//
// When a handler returns, asynq runs a script that removes the task from the list of active
// tasks: it is done, completed, to be retried, archived or, during shutdown, requeued. If
// Redis is down then, asynq logs "Will retry syncing" and runs the script again every 5 s,
// with the context of the first try, which is already cancelled. So every repetition fails,
// the task's lease expires, and asynq's recoverer runs the finished task again one or two
// minutes later.
//
// For these scripts, and no other command, the hook replaces a cancelled context. The ledger's
// claims, enqueues and dequeues still end with their context. It is safe to run a script
// late: asynq stops at the end of the lease, and other workers only touch the task 30 s
// after that.
type ackHook struct{ timeout time.Duration }

// ackTimeout is the timeout of such a script, with go-redis's retries. asynq runs all of
// them in one goroutine and waits for it at shutdown.
const ackTimeout = time.Second

// ProcessHook implements redis.Hook.
func (h ackHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := ctx.Err()
		if err == nil {
			err = next(ctx, cmd)
		}
		if err == nil || ctx.Err() == nil || !isAcknowledgement(cmd) {
			return err
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.timeout)
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

// isAcknowledgement recognizes the scripts that remove a task from the list of active tasks.
// Their keys are: active, lease, ... (done, completed, requeued) or task, active, lease, ...
// (retry, archive).
func isAcknowledgement(cmd redis.Cmder) bool {
	keys := scriptKeys(cmd)
	return startsWith(keys, "active", "lease") || len(keys) > 0 && startsWith(keys[1:], "active", "lease")
}

// startsWith reports whether the first keys are keys of an asynq queue with these names:
// "asynq:{queue}:name".
func startsWith(keys []any, names ...string) bool {
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

// scriptKeys returns the keys of EVAL or EVALSHA (script, number of keys, key, key, ...), and
// nil for other commands.
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
