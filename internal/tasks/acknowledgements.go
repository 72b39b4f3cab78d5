package tasks

import (
	"context"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/groupcommit"
)

// acknowledgements sends the scripts with which asynq removes finished tasks: those that are
// ready at the same time share a round trip.
type acknowledgements struct {
	scripts *groupcommit.Group[script, *redis.Cmd]
}

// script holds the arguments of EVALSHA.
type script struct {
	sha  string
	keys []string
	args []any
}

func newAcknowledgements(client redis.UniversalClient) acknowledgements {
	return acknowledgements{groupcommit.New(func(ctx context.Context, scripts []script) ([]*redis.Cmd, error) {
		cmds := make([]*redis.Cmd, len(scripts))
		_, _ = client.Pipelined(ctx, func(pipe redis.Pipeliner) error { // each command has its own error
			for i, s := range scripts {
				cmds[i] = pipe.EvalSha(ctx, s.sha, s.keys, s.args...)
			}
			return nil
		})
		return cmds, nil
	})}
}

// EvalSha implements redis.Scripter.
func (a acknowledgements) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	cmds, err := a.scripts.Do(ctx, script{sha, keys, args})
	if err != nil { // the context has ended; the script may run nevertheless
		cmd := redis.NewCmd(ctx)
		cmd.SetErr(err)
		return cmd
	}
	return cmds[0]
}
