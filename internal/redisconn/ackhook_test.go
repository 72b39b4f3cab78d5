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

// ackObserver is a hook that calls a function with the error of each acknowledgement.
type ackObserver func(err error)

func (observe ackObserver) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if isAcknowledgement(cmd) && !redis.HasErrorPrefix(err, "NOSCRIPT") {
			observe(err)
		}
		return err
	}
}

func (ackObserver) DialHook(next redis.DialHook) redis.DialHook { return next }

func (ackObserver) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// plainClient returns a client without our hooks.
func plainClient(t *testing.T, server *redistest.Process) redis.UniversalClient {
	t.Helper()
	return server.Client(t)
}

// hookedClient returns a client with our hooks.
func hookedClient(t *testing.T, server *redistest.Process) redis.UniversalClient {
	t.Helper()
	client, err := Open(server.URL(), Passwords{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// clientWithAckHook returns a client with an ackHook with another timeout.
func clientWithAckHook(t *testing.T, server *redistest.Process, timeout time.Duration) redis.UniversalClient {
	t.Helper()
	options, err := parse(server.URL(), Passwords{})
	if err != nil {
		t.Fatal(err)
	}
	client := connect(options)
	client.AddHook(ackHook{timeout})
	t.Cleanup(func() { client.Close() })
	return client
}

// handlerResults are the ways in which a task can end, with the result of its handler.
var handlerResults = map[string]error{
	"done":      nil,
	"retained":  nil, // it has a retention, so asynq keeps it as completed
	"retried":   errors.New("failed"),
	"not again": asynq.SkipRetry,
}

// TestFailedAcknowledgement: Redis is killed while the handlers of four tasks run, and is
// started again when asynq has noticed that. With plain asynq all repeated acknowledgements
// fail: the tasks stay active and run again. With the hook they succeed.
func TestFailedAcknowledgement(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("asynq repeats an acknowledgement after 5 s")
	}
	for name, c := range map[string]struct {
		connect  func(*testing.T, *redistest.Process) redis.UniversalClient
		repeated error             // the error of the repeated acknowledgement
		states   map[string]string // of the tasks after that
		runs     int32             // of all tasks, in the end
	}{
		"plain asynq": {
			connect: plainClient, repeated: context.Canceled, runs: 8,
			states: map[string]string{"done": "active", "retained": "active", "retried": "active", "not again": "active"},
		},
		"with hook": {
			connect: hookedClient, repeated: nil, runs: 4,
			states: map[string]string{"done": "deleted", "retained": "completed", "retried": "retry", "not again": "archived"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Server(t)
			client := c.connect(t, server)
			var noticed atomic.Bool // asynq has noticed the failed acknowledgements
			repeated := make(chan error, 1000)
			client.AddHook(ackObserver(func(err error) {
				if noticed.Load() {
					repeated <- err
				}
			}))

			var runs atomic.Int32
			var running sync.WaitGroup // all tasks have started
			running.Add(len(handlerResults))
			kill := sync.OnceFunc(server.Kill)
			handler := func(_ context.Context, task *asynq.Task) error {
				if runs.Add(1) > int32(len(handlerResults)) {
					return nil
				}
				running.Done()
				running.Wait()
				kill()
				return handlerResults[task.Type()]
			}
			log := make(logger, 100)
			startAsynq(t, client, handler, log)
			for name := range handlerResults {
				opts := []asynq.Option{asynq.TaskID(name)}
				if name == "retained" {
					opts = append(opts, asynq.Retention(time.Hour))
				}
				if _, err := asynq.NewClientFromRedisClient(client).Enqueue(asynq.NewTask(name, nil), opts...); err != nil {
					t.Fatal(err)
				}
			}
			for range handlerResults {
				<-log
			}
			noticed.Store(true)
			server.Start(t)
			for n := 0; n < len(handlerResults); {
				err := <-repeated
				if err != nil && !errors.Is(err, context.Canceled) {
					continue // Redis was still down
				}
				n++
				if !errors.Is(err, c.repeated) {
					t.Errorf("repeated acknowledgement: %v, want %v", err, c.repeated)
				}
			}
			states := map[string]string{}
			for name := range handlerResults {
				states[name] = state(t, client, name)
			}
			if diff := cmp.Diff(c.states, states); diff != "" {
				t.Error(diff)
			}

			// Let the leases expire. The recoverer of a new server looks for them at its start.
			for name := range handlerResults {
				past := redis.Z{Score: float64(time.Now().Add(-time.Minute).Unix()), Member: name}
				if err := client.ZAddXX(t.Context(), "asynq:{default}:lease", past).Err(); err != nil {
					t.Fatal(err)
				}
			}
			startAsynq(t, client, handler, make(logger, 100))
			for deadline := time.Now().Add(time.Minute); runs.Load() < c.runs; time.Sleep(10 * time.Millisecond) {
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

// startAsynq starts an asynq server with short intervals. It stops at the end of the test.
func startAsynq(t *testing.T, client redis.UniversalClient, handler asynq.HandlerFunc, log asynq.Logger) {
	t.Helper()
	server := asynq.NewServerFromRedisClient(client, asynq.Config{
		Concurrency: 2 * len(handlerResults), TaskCheckInterval: 20 * time.Millisecond, DelayedTaskCheckInterval: 100 * time.Millisecond,
		ShutdownTimeout: time.Second, Logger: log,
		RetryDelayFunc: func(_ int, err error, _ *asynq.Task) time.Duration {
			if errors.Is(err, asynq.ErrLeaseExpired) {
				return 0
			}
			return time.Hour
		},
	})
	if err := server.Start(handler); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
}

// state returns the state of a task in asynq.
func state(t *testing.T, client redis.UniversalClient, id string) string {
	t.Helper()
	info, err := asynq.NewInspectorFromRedisClient(client).GetTaskInfo("default", id)
	switch {
	case errors.Is(err, asynq.ErrTaskNotFound):
		return "deleted"
	case err != nil:
		t.Fatal(err)
	}
	return info.State.String()
}

// logger receives a value when asynq has noticed a failed acknowledgement.
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

// TestDeadContexts: with a cancelled context only acknowledgements run.
func TestDeadContexts(t *testing.T) {
	t.Parallel()
	const queue = "asynq:{default}:"
	dead, cancel := context.WithCancel(t.Context())
	cancel()
	client := clientWithAckHook(t, redistest.Server(t), time.Minute)
	for _, row := range []struct {
		name string
		keys []string
		runs bool
	}{
		{"done", []string{queue + "active", queue + "lease", queue + "t:1"}, true},
		{"retry", []string{queue + "t:1", queue + "active", queue + "lease"}, true},
		{"dequeue", []string{queue + "pending", queue + "paused", queue + "active", queue + "lease"}, false},
		{"enqueue", []string{queue + "t:1", queue + "pending"}, false},
		{"claim", []string{"{terbayar:events}:payment:amdigipay:INV-1", "{terbayar:events}:open:amdigipay"}, false},
		{"a payment with a similar id", []string{"{terbayar:events}:payment:amdigipay:asynq:{default}:active", "{terbayar:events}:lease"}, false},
		{"one key", []string{queue + "active"}, false},
		{"no keys", nil, false},
	} {
		written := queue + "written:" + row.name
		set := redis.NewScript(`return redis.call('SET', ARGV[1], '1')`)
		err := set.Run(dead, client, row.keys, written).Err() // EVALSHA, NOSCRIPT, EVAL
		if runs := client.Exists(t.Context(), written).Val() == 1; runs != row.runs || (err == nil) != row.runs {
			t.Errorf("%s: runs %t, error %v", row.name, runs, err)
		}
	}
	if err := client.Set(dead, "k", "v", 0).Err(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestContextEndsDuringAcknowledgement: an acknowledgement whose context ends while Redis
// does not answer is sent once more.
func TestContextEndsDuringAcknowledgement(t *testing.T) {
	t.Parallel()
	server := redistest.Server(t)
	client := clientWithAckHook(t, server, time.Minute)
	if err := client.Ping(t.Context()).Err(); err != nil { // opens a connection
		t.Fatal(err)
	}
	tries := 0
	client.AddHook(ackObserver(func(err error) {
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

// TestAcknowledgementTimeout: the hook gives up after its timeout.
func TestAcknowledgementTimeout(t *testing.T) {
	t.Parallel()
	server := redistest.Server(t)
	client := clientWithAckHook(t, server, 50*time.Millisecond)
	server.Pause(t)
	dead, cancel := context.WithCancel(t.Context())
	cancel()
	err := client.Eval(dead, "return 1", []string{"asynq:{default}:active", "asynq:{default}:lease"}).Err()
	if err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("%v, want a timeout", err)
	}
}
