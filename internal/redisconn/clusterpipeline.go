package redisconn

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sethvargo/go-retry"
)

// clusterPipelines works around a defect of go-redis v9.23.0. If the first command that a
// node got of a pipeline must be sent again, go-redis sends all of them again, and also those
// that the node has redirected, a second time: such a command runs at two nodes, and two
// goroutines write its reply. That occurs while a slot is moved (TRYAGAIN and ASK in one
// pipeline).
//
// The hook sends the part of each node once, and then only those commands again that the node
// did not run.
type clusterPipelines struct{ cluster *redis.ClusterClient }

// The number of tries after the first and the pause before the first of them are go-redis's
// own for a Cluster.
const (
	clusterRetries = 3
	clusterBackoff = 8 * time.Millisecond
)

// ProcessPipelineHook implements redis.Hook.
func (h clusterPipelines) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if cmds[0].Name() == "multi" { // a transaction: go-redis sends it as a whole or not at all
			return next(ctx, cmds)
		}
		again := cmds
		_ = retry.Do(ctx, retry.WithMaxRetries(clusterRetries, retry.NewExponential(clusterBackoff)), func(ctx context.Context) error {
			h.send(ctx, again)
			if again = notRun(again); len(again) > 0 {
				h.cluster.ReloadState(ctx)
				return retry.RetryableError(again[0].Err())
			}
			return nil
		})
		for _, cmd := range cmds {
			if cmd.Err() != nil {
				return cmd.Err()
			}
		}
		return nil
	}
}

// send sends each command once, those for one node as one pipeline, and then those alone that
// were redirected: go-redis follows redirects of single commands correctly.
func (h clusterPipelines) send(ctx context.Context, cmds []redis.Cmder) {
	parts := map[*redis.Client][]redis.Cmder{}
	for _, cmd := range cmds {
		node, err := h.cluster.MasterForKey(ctx, firstKey(cmd))
		if cmd.SetErr(err); err == nil {
			parts[node] = append(parts[node], cmd)
		}
	}
	var sending sync.WaitGroup
	for node, part := range parts {
		sending.Go(func() {
			pipe := node.Pipeline()
			for _, cmd := range part {
				_ = pipe.Process(ctx, cmd)
			}
			_, _ = pipe.Exec(ctx) // each command has its own error
			for _, cmd := range part {
				if isRedirect(cmd.Err()) {
					_ = h.cluster.Process(ctx, cmd)
				}
			}
		})
	}
	sending.Wait()
}

func isRedirect(err error) bool {
	_, moved := redis.IsMovedError(err)
	_, ask := redis.IsAskError(err)
	return moved || ask
}

// notRun returns the commands that no node has run, as far as the client knows: a command
// whose reply was lost is among them, as it is for go-redis.
func notRun(cmds []redis.Cmder) (again []redis.Cmder) {
	for _, cmd := range cmds {
		var network net.Error
		err := cmd.Err()
		switch {
		case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		case redis.IsTryAgainError(err), redis.IsClusterDownError(err), redis.IsLoadingError(err),
			redis.IsReadOnlyError(err), redis.IsMasterDownError(err), isRedirect(err),
			errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &network):
			again = append(again, cmd)
		}
	}
	return again
}

// firstKey returns the first key of a command. Those of which it is not the first argument
// are few: scripts, and XINFO.
func firstKey(cmd redis.Cmder) string {
	position := 1
	switch cmd.Name() {
	case "eval", "evalsha":
		position = 3
	case "xinfo":
		position = 2
	}
	if args := cmd.Args(); position < len(args) {
		key, _ := args[position].(string)
		return key
	}
	return ""
}

// ProcessHook implements redis.Hook.
func (clusterPipelines) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

// DialHook implements redis.Hook.
func (clusterPipelines) DialHook(next redis.DialHook) redis.DialHook { return next }
