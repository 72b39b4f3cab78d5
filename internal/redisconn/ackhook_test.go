package redisconn

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/redistest"
)

// spy tells how the acknowledgements end that pass through it.
type spy func(err error)

func (s spy) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if isAcknowledgement(cmd) && !redis.HasErrorPrefix(err, "NOSCRIPT") {
			s(err)
		}
		return err
	}
}

func (s spy) DialHook(next redis.DialHook) redis.DialHook { return next }

func (s spy) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// bare is a client without our hooks, opened is one with them.
func bare(t *testing.T, server *redistest.Process) redis.UniversalClient {
	t.Helper()
	redis.SetLogger(debugLog{})
	return server.Client(t)
}

func opened(t *testing.T, server *redistest.Process) redis.UniversalClient {
	t.Helper()
	client, err := Open(server.URL(), Passwords{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// ends are the ways in which a task can end: what its handler returns.
var ends = map[string]error{
	"done":  nil,
	"kept":  nil, // has a retention
	"again": errors.New("not yet"),
	"never": asynq.SkipRetry,
}

// TestFailedAcknowledgement: Redis is killed when four tasks are as good as
// finished, and is back as soon as asynq has noticed. Bare asynq can't tell it
// any more: the tasks stay active, and run again. With the hook it can.
func TestFailedAcknowledgement(t *testing.T) {
	for name, c := range map[string]struct {
		connect func(*testing.T, *redistest.Process) redis.UniversalClient
		second  error             // what asynq's second try comes to
		states  map[string]string // after it
		runs    int32             // of all tasks together, in the end
	}{
		"bare asynq": {bare, context.Canceled, map[string]string{"done": "active", "kept": "active", "again": "active", "never": "active"}, 8},
		"with hook":  {opened, nil, map[string]string{"done": "gone", "kept": "completed", "again": "retry", "never": "archived"}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Server(t)
			client := c.connect(t, server)
			var back atomic.Bool
			tries := make(chan error, 100)
			client.AddHook(spy(func(err error) {
				if back.Load() {
					tries <- err
				}
			}))

			var runs atomic.Int32
			var running sync.WaitGroup // the first runs, until all of them run
			running.Add(len(ends))
			kill := sync.OnceFunc(server.Kill)
			work := func(_ context.Context, task *asynq.Task) error {
				if runs.Add(1) > int32(len(ends)) {
					return nil
				}
				running.Done()
				running.Wait()
				kill()
				return ends[task.Type()]
			}
			noticed := make(logger, 100)
			startAsynq(t, client, work, noticed)
			for name := range ends {
				opts := []asynq.Option{asynq.TaskID(name)}
				if name == "kept" {
					opts = append(opts, asynq.Retention(time.Hour))
				}
				if _, err := asynq.NewClientFromRedisClient(client).Enqueue(asynq.NewTask(name, nil), opts...); err != nil {
					t.Fatal(err)
				}
			}
			for range ends {
				<-noticed
			}
			server.Start(t)
			back.Store(true)
			for range ends {
				if err := <-tries; !errors.Is(err, c.second) {
					t.Errorf("second try: %v, want %v", err, c.second)
				}
			}
			states := map[string]string{}
			for name := range ends {
				states[name] = state(t, client, name)
			}
			if diff := cmp.Diff(c.states, states); diff != "" {
				t.Error(diff)
			}

			// A minute passes: the leases run out. asynq's recoverer looks at its start.
			for name := range ends {
				past := redis.Z{Score: float64(time.Now().Add(-time.Minute).Unix()), Member: name}
				if err := client.ZAddXX(t.Context(), "asynq:{default}:lease", past).Err(); err != nil {
					t.Fatal(err)
				}
			}
			startAsynq(t, client, work, make(logger, 100))
			for deadline := time.Now().Add(10 * time.Second); runs.Load() < c.runs; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("%d runs, want %d", runs.Load(), c.runs)
				}
			}
			if n := runs.Load(); n != c.runs {
				t.Errorf("%d runs, want %d", n, c.runs)
			}
		})
	}
}

// startAsynq starts a worker that hurries, and stops it with the test.
func startAsynq(t *testing.T, client redis.UniversalClient, work asynq.HandlerFunc, log asynq.Logger) {
	t.Helper()
	server := asynq.NewServerFromRedisClient(client, asynq.Config{
		Concurrency: 2 * len(ends), TaskCheckInterval: 20 * time.Millisecond, DelayedTaskCheckInterval: 100 * time.Millisecond,
		ShutdownTimeout: time.Second, Logger: log,
		RetryDelayFunc: func(_ int, err error, _ *asynq.Task) time.Duration {
			if errors.Is(err, asynq.ErrLeaseExpired) {
				return 0
			}
			return time.Hour
		},
	})
	if err := server.Start(work); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
}

// state is where a task stands in asynq.
func state(t *testing.T, client redis.UniversalClient, id string) string {
	t.Helper()
	info, err := asynq.NewInspectorFromRedisClient(client).GetTaskInfo("default", id)
	switch {
	case errors.Is(err, asynq.ErrTaskNotFound):
		return "gone"
	case err != nil:
		t.Fatal(err)
	}
	return info.State.String()
}

// logger tells when asynq has noticed a failed acknowledgement.
type logger chan struct{}

func (l logger) Warn(args ...any) {
	if strings.Contains(fmt.Sprint(args...), "Will retry syncing") {
		l <- struct{}{}
	}
}
func (logger) Debug(...any) {}
func (logger) Info(...any)  {}
func (logger) Error(...any) {}
func (logger) Fatal(...any) {}

// TestDeadContexts: of all that is asked for by somebody who has gone, only
// acknowledgements are still done.
func TestDeadContexts(t *testing.T) {
	const queue = "asynq:{default}:"
	dead, cancel := context.WithCancel(t.Context())
	cancel()
	client := opened(t, redistest.Server(t))
	for _, row := range []struct {
		name string
		keys []string
		done bool
	}{
		{"done", []string{queue + "active", queue + "lease", queue + "t:1"}, true},
		{"retry", []string{queue + "t:1", queue + "active", queue + "lease"}, true},
		{"dequeue", []string{queue + "pending", queue + "paused", queue + "active", queue + "lease"}, false},
		{"enqueue", []string{queue + "t:1", queue + "pending"}, false},
		{"claim", []string{"{terbayar:events}:payment:amdigipay:INV-1", "{terbayar:events}:open:amdigipay"}, false},
		{"a payment of that name", []string{"{terbayar:events}:payment:amdigipay:asynq:{default}:active", "{terbayar:events}:lease"}, false},
		{"one key", []string{queue + "active"}, false},
		{"none", nil, false},
	} {
		witness := queue + "witness:" + row.name
		set := redis.NewScript(`return redis.call('SET', ARGV[1], '1')`)
		err := set.Run(dead, client, row.keys, witness).Err() // EVALSHA, NOSCRIPT, EVAL
		if written := client.Exists(t.Context(), witness).Val() == 1; written != row.done || (err == nil) != row.done {
			t.Errorf("%s: done %t, %v", row.name, written, err)
		}
	}
	if err := client.Set(dead, "k", "v", 0).Err(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestContextEndsWhileRedisIsAway: the lease's end may come while asynq waits for
// a Redis that does not answer.
func TestContextEndsWhileRedisIsAway(t *testing.T) {
	server := redistest.Server(t)
	client := opened(t, server)
	if err := client.Ping(t.Context()).Err(); err != nil { // a connection that stands already
		t.Fatal(err)
	}
	tries := 0
	client.AddHook(spy(func(err error) {
		if tries++; err != nil {
			server.Resume(t)
		}
	}))
	server.Pause(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := client.Eval(ctx, "return 1", []string{"asynq:{default}:active", "asynq:{default}:lease"}).Err()
	if err != nil || ctx.Err() == nil || tries != 2 {
		t.Errorf("%v after %d tries, context: %v", err, tries, ctx.Err())
	}
}

// TestAwayForGood: the hook gives up in time for a shutdown.
func TestAwayForGood(t *testing.T) {
	server := redistest.Server(t)
	client := opened(t, server)
	server.Pause(t)
	dead, cancel := context.WithCancel(t.Context())
	cancel()
	begun := time.Now()
	err := client.Eval(dead, "return 1", []string{"asynq:{default}:active", "asynq:{default}:lease"}).Err()
	if took := time.Since(begun); err == nil || took < ackTimeout/2 || took > 3*ackTimeout {
		t.Errorf("%v after %s", err, took)
	}
}
