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

// What asynq does to a payment's task, and what becomes of the payment: the table
// in docs/asynq.md names these tests.

var (
	one     = payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV/1"}
	oneTask = "amdigipay:INV%2F1"
	// standbyTask is the standby task of the time at which a desk's clock stands.
	standbyTask = "standby:0:" + oneTask
)

// heldGateway sends nothing until it is let go: its requests are under way.
type heldGateway struct {
	clients.Gateway

	requests atomic.Int32
	letGo    chan struct{}
}

func (g *heldGateway) Submit(ctx context.Context, s clients.Submission) clients.Answer {
	g.requests.Add(1)
	select {
	case <-g.letGo:
	case <-ctx.Done():
	}
	return g.Gateway.Submit(ctx, s)
}

// desk is a rig with asynq before it.
type desk struct {
	*testing.T
	*testenv.Env

	client    redis.UniversalClient
	inspector *asynq.Inspector
	gateway   *heldGateway
	ended     atomic.Int32 // runs of the task
}

func newDesk(t *testing.T, client redis.UniversalClient) *desk {
	t.Helper()
	d := &desk{
		T: t, client: client, inspector: asynq.NewInspectorFromRedisClient(client),
		// A second request would be a second payment.
		Env: testenv.New(t, client, func(c *gatewaysim.Config) { c.AM.Duplicates = gatewaysim.DuplicateSecond }),
	}
	d.gateway = &heldGateway{Gateway: d.AM, letGo: make(chan struct{})}
	d.Submitter.Gateways[payment.AMDigiPay] = d.gateway
	d.Poller.Requeue = tasks.NewEnqueuer(client, func() time.Time { return time.Unix(0, 0) }).Requeue
	d.Create(testenv.AMOrder(one.TransactionID))
	return d
}

// worker starts a worker that gives a task up after a tenth of a second of
// shutdown.
func (d *desk) worker() *tasks.Server {
	d.Helper()
	log := slog.New(slog.DiscardHandler)
	w := tasks.NewServer(d.client, tasks.ServerConfig{
		Gateways: []payment.Gateway{payment.AMDigiPay}, Concurrency: 4, ShutdownTimeout: 100 * time.Millisecond,
		Log: log, AsynqLog: telemetry.AsynqLogger(log),
	}, tasks.Handlers{Submit: func(ctx context.Context, key payment.Key) (time.Duration, string, error) {
		defer d.ended.Add(1)
		next, err := d.Submitter.Submit(ctx, key)
		return next.In, next.Reason, err
	}})
	if err := w.Start(); err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() {
		w.Stop()
		w.Shutdown()
	})
	return w
}

const readable = `{"v":1,"gateway":"amdigipay","transaction_id":"INV/1"}`

// enqueue gives the payment a task, as bare asynq does.
func (d *desk) enqueue(payload string, opts ...asynq.Option) {
	d.Helper()
	_, err := asynq.NewClientFromRedisClient(d.client).Enqueue(asynq.NewTask(tasks.TypeSubmit, []byte(payload)),
		append(opts, asynq.TaskID(oneTask), asynq.Queue("amdigipay"))...)
	if err != nil {
		d.Fatal(err)
	}
}

// eventually polls for a condition, and gives up at the deadline.
func (d *desk) eventually(what string, condition func() bool) {
	d.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			d.Fatalf("never: %s", what)
		}
	}
}

func (d *desk) in(state asynq.TaskState) bool {
	info, err := d.inspector.GetTaskInfo("amdigipay", oneTask)
	return err == nil && info.State == state
}

// TestRunTwiceAtOnce: all the ways in which asynq runs a task again while its first
// run is still waiting for the gateway. One request leaves, and its answer counts,
// whatever has become of the run that waits for it.
func TestRunTwiceAtOnce(t *testing.T) {
	// run presses Run in the web UI, once asynq has the task waiting for a retry.
	run := func(d *desk) {
		d.eventually("the task waits for a retry", func() bool { return d.in(asynq.TaskStateRetry) })
		info, err := d.inspector.GetTaskInfo("amdigipay", oneTask)
		if err != nil || info.Retried != 0 {
			d.Errorf("%+v, %v: a retry was spent", info, err)
		}
		if err := d.inspector.RunTask("amdigipay", oneTask); err != nil {
			d.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		opts  []asynq.Option
		again func(d *desk, first *tasks.Server)
	}{
		{"shutdown time-out", nil, func(d *desk, first *tasks.Server) {
			first.Stop()
			first.Shutdown()
			d.worker()
		}},
		{"lease runs out", nil, func(d *desk, _ *tasks.Server) {
			for tries := 0; !d.in(asynq.TaskStateRetry) && tries < 5; tries++ { // a heartbeat may come in between
				past := redis.Z{Score: float64(time.Now().Add(-time.Minute).Unix()), Member: oneTask}
				if err := d.client.ZAddXX(d.Context(), "asynq:{amdigipay}:lease", past).Err(); err != nil {
					d.Fatal(err)
				}
				d.worker() // its recoverer looks at its start
				for deadline := time.Now().Add(2 * time.Second); !d.in(asynq.TaskStateRetry) && time.Now().Before(deadline); {
					time.Sleep(10 * time.Millisecond)
				}
			}
			run(d)
		}},
		{"Cancel and Run pressed", nil, func(d *desk, _ *tasks.Server) {
			d.eventually("asynq hears of it", func() bool {
				if err := d.inspector.CancelProcessing(oneTask); err != nil {
					d.Fatal(err)
				}
				return d.in(asynq.TaskStateRetry)
			})
			run(d)
		}},
		{"time-out of the task", []asynq.Option{asynq.Timeout(time.Second)}, func(d *desk, _ *tasks.Server) { run(d) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
				t.Parallel()
				d := newDesk(t, client)
				d.enqueue(readable, c.opts...)
				first := d.worker()
				d.eventually("the request is under way", func() bool { return d.gateway.requests.Load() == 1 })
				c.again(d, first)
				d.eventually("it was run again", func() bool { return d.ended.Load() > 0 || d.gateway.requests.Load() > 1 })
				close(d.gateway.letGo)
				d.eventually("the first run has ended", func() bool { return d.ended.Load() == 2 })
				if n := d.gateway.requests.Load(); n != 1 {
					t.Errorf("%d requests", n)
				}
				if diff := cmp.Diff([]string{"submit http:200 > accept", "on_processing"}, d.History(one)); diff != "" {
					t.Error(diff)
				}
				if rows := d.Sim.RowsOf(gatewaysim.AM, one.TransactionID); len(rows) != 1 {
					t.Errorf("the gateway has it %d times", len(rows))
				}
			})
		})
	}
}

// TestRunAgainAfterItsEnd: a task that stands in asynq although its payment is
// past being sent. It sends nothing and is gone, so that its id is free.
func TestRunAgainAfterItsEnd(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		d := newDesk(t, client)
		close(d.gateway.letGo)
		d.worker()
		for runs := range int32(3) {
			d.enqueue(readable)
			d.eventually("the task is gone", func() bool {
				_, err := d.inspector.GetTaskInfo("amdigipay", oneTask)
				return d.ended.Load() == runs+1 && errors.Is(err, asynq.ErrTaskNotFound)
			})
		}
		if n := d.gateway.requests.Load(); n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}

// TestLostTask: the ways in which a payment's task ends in nothing. Soon after its
// time the payment is due in the ledger, and gets a task again.
func TestLostTask(t *testing.T) {
	spoilt := func(payload string) func(d *desk) {
		return func(d *desk) {
			d.enqueue(payload)
			w := d.worker()
			d.eventually("it is archived", func() bool { return d.in(asynq.TaskStateArchived) })
			w.Stop()
			w.Shutdown()
		}
	}
	for _, c := range []struct {
		name string
		lose func(d *desk)
		id   string // of the new task
	}{
		{"never enqueued", func(*desk) {}, oneTask},
		{"deleted", func(d *desk) {
			d.enqueue(readable)
			if err := d.inspector.DeleteTask("amdigipay", oneTask); err != nil {
				d.Fatal(err)
			}
		}, oneTask},
		{"archived, holding its id", func(d *desk) {
			d.enqueue(readable)
			if err := d.inspector.ArchiveTask("amdigipay", oneTask); err != nil {
				d.Fatal(err)
			}
		}, oneTask},
		{"of a newer version", spoilt(`{"v":2,"gateway":"amdigipay","transaction_id":"INV/1"}`), oneTask},
		{"cannot be decoded", spoilt("\xff"), oneTask},
		{"dropped from a full archive", dropFromArchive, oneTask},
		{"given to a worker that is killed", giveAway, standbyTask},
	} {
		t.Run(c.name, func(t *testing.T) {
			redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
				d := newDesk(t, client)
				c.lose(d)
				d.Poll(payment.AMDigiPay)
				if n := client.LLen(t.Context(), "asynq:{amdigipay}:pending").Val(); n != 0 {
					t.Error("brought back before its time")
				}
				for range 2 {
					d.taskIsLate()
					d.Poll(payment.AMDigiPay)
					if n := client.LLen(t.Context(), "asynq:{amdigipay}:pending").Val(); n != 1 {
						t.Errorf("%d tasks wait", n)
					}
				}
				info := await(t, client, "amdigipay", c.id, asynq.TaskStatePending)
				if p, err := tasks.Decode(info.Payload); err != nil || p.Key() != one {
					t.Errorf("%s: %v", info.Payload, err)
				}
				close(d.gateway.letGo)
				d.worker()
				d.eventually("it is sent", func() bool { return d.Read(one).Status == payment.OnProcessing })
			})
		})
	}
}

// taskIsLate lets the time pass at which a queued payment's task is taken for lost; a
// real Redis' clock cannot be moved, so the time is.
func (d *desk) taskIsLate() {
	d.Advance(ledger.TaskGrace)
	if err := d.client.ZAddXX(d.Context(), "{terbayar:events}:sending:amdigipay", redis.Z{Score: 1, Member: one.TransactionID}).Err(); err != nil {
		d.Fatal(err)
	}
}

// giveAway gives the task out as asynq does, to nobody.
func giveAway(d *desk) {
	d.enqueue(readable)
	ctx, queue := d.Context(), "asynq:{amdigipay}:"
	_, err := d.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.RPopLPush(ctx, queue+"pending", queue+"active")
		p.HSet(ctx, queue+"t:"+oneTask, "state", "active")
		p.ZAdd(ctx, queue+"lease", redis.Z{Score: float64(time.Now().Add(30 * time.Second).Unix()), Member: oneTask})
		return nil
	})
	if err != nil || !d.in(asynq.TaskStateActive) {
		d.Fatal("not given out", err)
	}
}

// dropFromArchive fills asynq's archive until the oldest task in it is dropped.
func dropFromArchive(d *desk) {
	d.enqueue(readable)
	if err := d.inspector.ArchiveTask("amdigipay", oneTask); err != nil {
		d.Fatal(err)
	}
	later := make([]redis.Z, 10_000)
	for i := range later {
		later[i] = redis.Z{Score: float64(time.Now().Unix() + 1), Member: fmt.Sprint("later-", i)}
	}
	if err := d.client.ZAdd(d.Context(), "asynq:{amdigipay}:archived", later...).Err(); err != nil {
		d.Fatal(err)
	}
	_, err := asynq.NewClientFromRedisClient(d.client).Enqueue(asynq.NewTask(tasks.TypeSubmit, nil), asynq.Queue("amdigipay"))
	if err != nil {
		d.Fatal(err)
	}
	w := d.worker() // archives it, since it cannot be read, and tidies the archive up
	d.eventually("asynq has dropped the task", func() bool {
		_, err := d.inspector.GetTaskInfo("amdigipay", oneTask)
		return errors.Is(err, asynq.ErrTaskNotFound)
	})
	if n := d.client.ZCard(d.Context(), "asynq:{amdigipay}:archived").Val(); n >= 10_000 {
		d.Errorf("the archive holds %d tasks", n)
	}
	w.Stop()
	w.Shutdown()
}

// TestArchivedPollStopsNothing: a poll that is stuck in asynq is one tick's, and the
// next tick's is run. Whole seconds, since asynq cuts the rest off.
func TestArchivedPollStopsNothing(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		enqueuer, inspector := tasks.NewEnqueuer(client, time.Now), asynq.NewInspectorFromRedisClient(client)
		for tick := range int64(2) {
			if err := enqueuer.Poll(t.Context(), payment.AMDigiPay, time.UnixMilli(tick)); err != nil {
				t.Fatal(err)
			}
			pending, err := inspector.ListPendingTasks("amdigipay-poll")
			if err != nil || len(pending) != 1 {
				t.Fatalf("tick %d: %d polls wait, %v", tick, len(pending), err)
			}
			if info := pending[0]; info.Timeout != 10*time.Minute || info.Retention != time.Minute {
				t.Errorf("time-out %s, retention %s", info.Timeout, info.Retention)
			}
			if err := inspector.ArchiveTask("amdigipay-poll", pending[0].ID); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestAgainComesSoon: asynq looks for due tasks every five seconds by itself; five
// waits of a millisecond would take twenty.
func TestAgainComesSoon(t *testing.T) {
	client := redistest.Mini(t)
	var calls atomic.Int32
	done := make(chan struct{})
	serve(t, client, tasks.Handlers{Submit: func(context.Context, payment.Key) (time.Duration, string, error) {
		if calls.Add(1) == 6 {
			close(done)
			return 0, "", nil
		}
		return time.Millisecond, "http:429", nil
	}})
	begun := time.Now()
	if err := tasks.NewEnqueuer(client, time.Now).Submit(t.Context(), inv, 13000); err != nil {
		t.Fatal(err)
	}
	<-done
	if took := time.Since(begun); took > 15*time.Second {
		t.Errorf("took %s", took)
	}
}

// TestSlowGatewayHoldsUpNobody: all hands are busy with one gateway's submits. Its
// polls, and the other gateway's submits, are run.
func TestSlowGatewayHoldsUpNobody(t *testing.T) {
	client, log := redistest.Mini(t), slog.New(slog.DiscardHandler)
	busy, letGo := make(chan struct{}), make(chan struct{})
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
			<-letGo
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
	defer close(letGo)
	enqueuer := tasks.NewEnqueuer(client, time.Now)
	submit := func(key payment.Key) {
		t.Helper()
		if err := enqueuer.Submit(t.Context(), key, 13000); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"A", "B"} {
		submit(payment.Key{Gateway: payment.AMDigiPay, TransactionID: id})
		<-busy
	}
	submit(payment.Key{Gateway: payment.Paydia, TransactionID: "C"})
	if err := enqueuer.Poll(t.Context(), payment.AMDigiPay, time.Now()); err != nil {
		t.Fatal(err)
	}
	for what, run := range map[string]chan struct{}{"the other gateway's submit": other, "the poll": polled} {
		select {
		case <-run:
		case <-time.After(10 * time.Second):
			t.Errorf("%s waits", what)
		}
	}
}
