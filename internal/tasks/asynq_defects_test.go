package tasks_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/clients"
	"terbayar/internal/gatewaysim"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/tasks"
	"terbayar/internal/telemetry"
	"terbayar/internal/testenv"
)

// These tests show that no defect of asynq harms a payment. docs/asynq.md names them.

var (
	one     = payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV/1"}
	oneTask = "amdigipay:INV%2F1"
	// standbyTask is the id of the standby task at the time of the test environment.
	standbyTask = "standby:0:" + oneTask
)

// blockedGateway sends requests only after release is closed: until then they are in flight.
type blockedGateway struct {
	clients.Gateway

	requests atomic.Int32
	release  chan struct{}
}

func (g *blockedGateway) Submit(ctx context.Context, s clients.Submission) clients.Answer {
	g.requests.Add(1)
	select {
	case <-g.release:
	case <-ctx.Done():
	}
	return g.Gateway.Submit(ctx, s)
}

// env is a test environment with asynq.
type env struct {
	*testing.T
	*testenv.Env

	client    redis.UniversalClient
	inspector *asynq.Inspector
	gateway   *blockedGateway
	ended     atomic.Int32 // runs of the task that ended
}

func newEnv(t *testing.T, client redis.UniversalClient) *env {
	t.Helper()
	e := &env{
		T: t, client: client, inspector: asynq.NewInspectorFromRedisClient(client),
		// A second request creates a second payment at the gateway.
		Env: testenv.New(t, client, func(c *gatewaysim.Config) { c.AM.Duplicates = gatewaysim.DuplicateSecond }),
	}
	e.gateway = &blockedGateway{Gateway: e.AM, release: make(chan struct{})}
	e.Submitter.Gateways[payment.AMDigiPay] = e.gateway
	e.Poller.Requeue = tasks.NewEnqueuer(client, func() time.Time { return time.Unix(0, 0) }).Requeue
	e.Create(testenv.AMOrder(one.TransactionID))
	return e
}

// worker starts a worker with a shutdown timeout of 100 ms.
func (e *env) worker() *tasks.Server {
	e.Helper()
	log := slog.New(slog.DiscardHandler)
	w := tasks.NewServer(e.client, tasks.ServerConfig{
		Gateways: []payment.Gateway{payment.AMDigiPay}, Concurrency: 4, ShutdownTimeout: 100 * time.Millisecond,
		Log: log, AsynqLog: telemetry.AsynqLogger(log),
	}, tasks.Handlers{Submit: func(ctx context.Context, key payment.Key) (time.Duration, string, error) {
		defer e.ended.Add(1)
		next, err := e.Submitter.Submit(ctx, key)
		return next.In, next.Reason, err
	}})
	if err := w.Start(); err != nil {
		e.Fatal(err)
	}
	e.Cleanup(func() {
		w.Stop()
		w.Shutdown()
	})
	return w
}

const payload = `{"v":1,"gateway":"amdigipay","transaction_id":"INV/1"}`

// enqueue enqueues a task for the payment with asynq's own client.
func (e *env) enqueue(payload string, opts ...asynq.Option) {
	e.Helper()
	_, err := asynq.NewClientFromRedisClient(e.client).Enqueue(asynq.NewTask(tasks.TypeSubmit, []byte(payload)),
		append(opts, asynq.TaskID(oneTask), asynq.Queue("amdigipay"))...)
	if err != nil {
		e.Fatal(err)
	}
}

// eventually waits for a condition, at most 30 s.
func (e *env) eventually(what string, condition func() bool) {
	e.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			e.Fatalf("timeout: %s", what)
		}
	}
}

func (e *env) in(state asynq.TaskState) bool {
	info, err := e.inspector.GetTaskInfo("amdigipay", oneTask)
	return err == nil && info.State == state
}

// TestRunTwiceAtOnce: asynq may run a task again while its first run still waits for the
// gateway. One request is sent, and its answer is recorded.
func TestRunTwiceAtOnce(t *testing.T) {
	// run does what the button Run in the web UI does, when the task waits for a retry.
	run := func(e *env) {
		e.eventually("the task waits for a retry", func() bool { return e.in(asynq.TaskStateRetry) })
		info, err := e.inspector.GetTaskInfo("amdigipay", oneTask)
		if err != nil || info.Retried != 0 {
			e.Errorf("%+v, %v: a retry was counted", info, err)
		}
		if err := e.inspector.RunTask("amdigipay", oneTask); err != nil {
			e.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		opts  []asynq.Option
		rerun func(e *env, first *tasks.Server)
	}{
		{"shutdown timeout", nil, func(e *env, first *tasks.Server) {
			first.Stop()
			first.Shutdown()
			e.worker()
		}},
		{"lease expires", nil, func(e *env, _ *tasks.Server) {
			for tries := 0; !e.in(asynq.TaskStateRetry) && tries < 5; tries++ { // a heartbeat may extend the lease
				past := redis.Z{Score: float64(time.Now().Add(-time.Minute).Unix()), Member: oneTask}
				if err := e.client.ZAddXX(e.Context(), "asynq:{amdigipay}:lease", past).Err(); err != nil {
					e.Fatal(err)
				}
				e.worker() // its recoverer checks leases at its start
				for deadline := time.Now().Add(2 * time.Second); !e.in(asynq.TaskStateRetry) && time.Now().Before(deadline); {
					time.Sleep(10 * time.Millisecond)
				}
			}
			run(e)
		}},
		{"Cancel and Run pressed", nil, func(e *env, _ *tasks.Server) {
			e.eventually("asynq cancels the task", func() bool {
				if err := e.inspector.CancelProcessing(oneTask); err != nil {
					e.Fatal(err)
				}
				return e.in(asynq.TaskStateRetry)
			})
			run(e)
		}},
		{"timeout of the task", []asynq.Option{asynq.Timeout(time.Second)}, func(e *env, _ *tasks.Server) { run(e) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
				t.Parallel()
				e := newEnv(t, client)
				e.enqueue(payload, c.opts...)
				first := e.worker()
				e.eventually("the request is in flight", func() bool { return e.gateway.requests.Load() == 1 })
				c.rerun(e, first)
				e.eventually("the task runs again", func() bool { return e.ended.Load() > 0 || e.gateway.requests.Load() > 1 })
				close(e.gateway.release)
				e.eventually("both runs have ended", func() bool { return e.ended.Load() == 2 })
				if n := e.gateway.requests.Load(); n != 1 {
					t.Errorf("%d requests", n)
				}
				if diff := cmp.Diff([]string{"submit http:200 > accept", "on_processing"}, e.History(one)); diff != "" {
					t.Error(diff)
				}
				if rows := e.Sim.RowsOf(gatewaysim.AM, one.TransactionID); len(rows) != 1 {
					t.Errorf("the gateway has the payment %d times", len(rows))
				}
			})
		})
	}
}

// TestRunAgainAfterItsEnd: a task whose payment is already submitted sends nothing and is
// deleted, so that its id can be used again.
func TestRunAgainAfterItsEnd(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		t.Parallel()
		e := newEnv(t, client)
		close(e.gateway.release)
		e.worker()
		for runs := range int32(3) {
			e.enqueue(payload)
			e.eventually("the task is deleted", func() bool {
				_, err := e.inspector.GetTaskInfo("amdigipay", oneTask)
				return e.ended.Load() == runs+1 && errors.Is(err, asynq.ErrTaskNotFound)
			})
		}
		if n := e.gateway.requests.Load(); n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}

// TestLostTask: a payment's task may be lost in several ways. Soon after the time at which it
// should have run, the payment is due in the ledger and gets a new task.
func TestLostTask(t *testing.T) {
	for _, c := range []struct {
		name string
		lose func(e *env)
		id   string // of the new task
	}{
		{"never enqueued", func(*env) {}, oneTask},
		{"deleted", func(e *env) {
			e.enqueue(payload)
			if err := e.inspector.DeleteTask("amdigipay", oneTask); err != nil {
				e.Fatal(err)
			}
		}, oneTask},
		{"archived, its id in use", func(e *env) {
			e.enqueue(payload)
			if err := e.inspector.ArchiveTask("amdigipay", oneTask); err != nil {
				e.Fatal(err)
			}
		}, oneTask},
		{"dropped from a full archive", dropFromArchive, oneTask},
		{"dequeued by a worker that crashed", dequeue, standbyTask},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
				t.Parallel()
				e := newEnv(t, client)
				c.lose(e)
				e.Poll(payment.AMDigiPay)
				if n := client.LLen(t.Context(), "asynq:{amdigipay}:pending").Val(); n != 0 {
					t.Error("a new task is enqueued too early")
				}
				for range 2 {
					e.taskIsLate()
					e.Poll(payment.AMDigiPay)
					if n := client.LLen(t.Context(), "asynq:{amdigipay}:pending").Val(); n != 1 {
						t.Errorf("%d tasks are pending", n)
					}
				}
				info := await(t, client, "amdigipay", c.id, asynq.TaskStatePending)
				if p, err := tasks.Decode(info.Payload); err != nil || p.Key() != one {
					t.Errorf("%s: %v", info.Payload, err)
				}
				close(e.gateway.release)
				e.worker()
				e.eventually("the payment is sent", func() bool { return e.Read(one).Status == payment.OnProcessing })
			})
		})
	}
}

// taskIsLate makes the payment's task so late that it counts as lost. A real Redis' clock
// cannot be moved, so the time at which the payment is due is set.
func (e *env) taskIsLate() {
	e.Advance(ledger.TaskGrace)
	if err := e.client.ZAddXX(e.Context(), "{terbayar:events}:sending:amdigipay", redis.Z{Score: 1, Member: one.TransactionID}).Err(); err != nil {
		e.Fatal(err)
	}
}

// dequeue enqueues the task and dequeues it as asynq does, but does not run it.
func dequeue(e *env) {
	e.enqueue(payload)
	ctx, queue := e.Context(), "asynq:{amdigipay}:"
	_, err := e.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.RPopLPush(ctx, queue+"pending", queue+"active")
		p.HSet(ctx, queue+"t:"+oneTask, "state", "active")
		p.ZAdd(ctx, queue+"lease", redis.Z{Score: float64(time.Now().Add(30 * time.Second).Unix()), Member: oneTask})
		return nil
	})
	if err != nil || !e.in(asynq.TaskStateActive) {
		e.Fatal("not dequeued", err)
	}
}

// dropFromArchive fills asynq's archive until it drops the oldest task.
func dropFromArchive(e *env) {
	e.enqueue(payload)
	if err := e.inspector.ArchiveTask("amdigipay", oneTask); err != nil {
		e.Fatal(err)
	}
	later := make([]redis.Z, 10_000)
	for i := range later {
		later[i] = redis.Z{Score: float64(time.Now().Unix() + 1), Member: fmt.Sprint("later-", i)}
	}
	if err := e.client.ZAdd(e.Context(), "asynq:{amdigipay}:archived", later...).Err(); err != nil {
		e.Fatal(err)
	}
	_, err := asynq.NewClientFromRedisClient(e.client).Enqueue(asynq.NewTask(tasks.TypeSubmit, nil), asynq.Queue("amdigipay"))
	if err != nil {
		e.Fatal(err)
	}
	w := e.worker() // archives the empty payload, which trims the archive
	e.eventually("asynq has dropped the task", func() bool {
		_, err := e.inspector.GetTaskInfo("amdigipay", oneTask)
		return errors.Is(err, asynq.ErrTaskNotFound)
	})
	if n := e.client.ZCard(e.Context(), "asynq:{amdigipay}:archived").Val(); n >= 10_000 {
		e.Errorf("the archive has %d tasks", n)
	}
	w.Stop()
	w.Shutdown()
}

// TestArchivedPollDoesNotStopPolling: an archived poll is one tick's; the next tick has its own
// task. Timeout and retention are whole seconds: asynq truncates fractions.
func TestArchivedPollDoesNotStopPolling(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		t.Parallel()
		enqueuer, inspector := tasks.NewEnqueuer(client, time.Now), asynq.NewInspectorFromRedisClient(client)
		for tick := range int64(2) {
			if err := enqueuer.Poll(t.Context(), payment.AMDigiPay, time.UnixMilli(tick)); err != nil {
				t.Fatal(err)
			}
			pending, err := inspector.ListPendingTasks("amdigipay-poll")
			if err != nil || len(pending) != 1 {
				t.Fatalf("tick %d: %d polls are pending, %v", tick, len(pending), err)
			}
			if info := pending[0]; info.Timeout != 10*time.Minute || info.Retention != time.Minute {
				t.Errorf("timeout %s, retention %s", info.Timeout, info.Retention)
			}
			if err := inspector.ArchiveTask("amdigipay-poll", pending[0].ID); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestRetryLaterIsPrompt: with asynq's default, which checks for due tasks every 5 s, three
// retries after a millisecond would take 10 to 15 s. Here they take about 3 s.
func TestRetryLaterIsPrompt(t *testing.T) {
	t.Parallel()
	client := redistest.Mini(t)
	var calls atomic.Int32
	done := make(chan struct{})
	serve(t, client, tasks.Handlers{Submit: func(context.Context, payment.Key) (time.Duration, string, error) {
		if calls.Add(1) == 4 {
			close(done)
			return 0, "", nil
		}
		return time.Millisecond, "http:429", nil
	}})
	start := time.Now()
	submit(t, tasks.NewEnqueuer(client, time.Now), inv)
	<-done
	if took := time.Since(start); took > 9*time.Second {
		t.Errorf("took %s", took)
	}
}

// TestSlowGatewayBlocksNothingElse: while all slots of one gateway are busy with submits, its
// polls and the other gateway's submits run.
func TestSlowGatewayBlocksNothingElse(t *testing.T) {
	t.Parallel()
	client, log := redistest.Mini(t), slog.New(slog.DiscardHandler)
	busy, release := make(chan struct{}), make(chan struct{})
	other, polled := make(chan struct{}), make(chan struct{})
	server := tasks.NewServer(client, tasks.ServerConfig{
		Gateways: payment.Gateways(), Concurrency: 2, ShutdownTimeout: time.Second, Log: log, AsynqLog: telemetry.AsynqLogger(log),
	}, tasks.Handlers{
		Submit: func(_ context.Context, key payment.Key) (time.Duration, string, error) {
			if key.Gateway == payment.Paydia {
				close(other)
				return 0, "", nil
			}
			busy <- struct{}{}
			<-release
			return 0, "", nil
		},
		Poll: func(context.Context, payment.Gateway) error {
			close(polled)
			return nil
		},
	})
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Stop()
		server.Shutdown()
	})
	defer close(release)
	enqueuer := tasks.NewEnqueuer(client, time.Now)
	for _, id := range []string{"A", "B"} {
		submit(t, enqueuer, payment.Key{Gateway: payment.AMDigiPay, TransactionID: id})
		<-busy
	}
	submit(t, enqueuer, payment.Key{Gateway: payment.Paydia, TransactionID: "C"})
	if err := enqueuer.Poll(t.Context(), payment.AMDigiPay, time.Now()); err != nil {
		t.Fatal(err)
	}
	for what, run := range map[string]chan struct{}{"the other gateway's submit": other, "the poll": polled} {
		select {
		case <-run:
		case <-time.After(30 * time.Second):
			t.Errorf("%s does not run", what)
		}
	}
}
