package tasks_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/tasks"
	"terbayar/internal/telemetry"
)

var inv = payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV/1 é"}

const invTask = "amdigipay:INV%2F1%20%C3%A9"

// serve starts a server of AM's queues and stops it with the test.
func serve(t *testing.T, client redis.UniversalClient, h tasks.Handlers) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	server := tasks.NewServer(client, tasks.ServerConfig{
		Gateways: []payment.Gateway{payment.AMDigiPay}, Concurrency: 4, ShutdownTimeout: time.Second,
		Log: log, AsynqLog: telemetry.AsynqLogger(log),
	}, h)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Stop()
		server.Shutdown()
	})
}

// await waits until a task is in the state.
func await(t *testing.T, client redis.UniversalClient, queue, id string, state asynq.TaskState) *asynq.TaskInfo {
	t.Helper()
	inspector := asynq.NewInspectorFromRedisClient(client)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		info, err := inspector.GetTaskInfo(queue, id)
		if err == nil && info.State == state {
			return info
		}
		if time.Now().After(deadline) {
			t.Fatalf("task %s is never %s: %+v, %v", id, state, info, err)
		}
	}
}

// submit enqueues the submits of payments.
func submit(t *testing.T, enqueuer *tasks.Enqueuer, keys ...payment.Key) {
	t.Helper()
	var payments []*payment.Payment
	for _, key := range keys {
		payments = append(payments, &payment.Payment{Gateway: key.Gateway, TransactionID: key.TransactionID, Amount: 13000})
	}
	if err := errors.Join(enqueuer.Submit(t.Context(), payments)...); err != nil {
		t.Fatal(err)
	}
}

func TestOnePaymentOneTask(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		t.Parallel()
		enqueuer := tasks.NewEnqueuer(client, time.Now)
		for range 3 {
			submit(t, enqueuer, inv)
		}
		info := await(t, client, "amdigipay", invTask, asynq.TaskStatePending)
		const want = `{"v":1,"gateway":"amdigipay","transaction_id":"INV/1 é","amount":13000}`
		if diff := cmp.Diff(want, string(info.Payload)); diff != "" {
			t.Error(diff)
		}
		if info.Timeout != tasks.SubmitTimeout || info.Retention != 0 { // a retained task would keep its id in use
			t.Errorf("timeout %s, retention %s", info.Timeout, info.Retention)
		}
	})
}

// TestArchivedTaskIsReplaced: Submit replaces an archived task, which has the same id.
func TestArchivedTaskIsReplaced(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		t.Parallel()
		enqueuer := tasks.NewEnqueuer(client, time.Now)
		submit(t, enqueuer, inv)
		if err := asynq.NewInspectorFromRedisClient(client).ArchiveTask("amdigipay", invTask); err != nil {
			t.Fatal(err)
		}
		submit(t, enqueuer, inv)
		await(t, client, "amdigipay", invTask, asynq.TaskStatePending)
	})
}

// TestStandby: Requeue enqueues a standby task when asynq believes that the payment's task is
// running. A standby task is not retried. Requeue takes one round trip for all waiting tasks.
func TestStandby(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		t.Parallel()
		enqueuer := tasks.NewEnqueuer(client, epoch)
		var waiting []*payment.Payment
		for i := range 200 {
			waiting = append(waiting, &payment.Payment{Gateway: payment.Paydia, TransactionID: fmt.Sprint(i), Amount: 13000})
		}
		if err := errors.Join(enqueuer.Submit(t.Context(), waiting)...); err != nil {
			t.Fatal(err)
		}
		trips := redistest.CountRoundTrips(client)
		if err := enqueuer.Requeue(t.Context(), waiting); err != nil || trips.N() != 1 {
			t.Errorf("%d round trips: %v", trips.N(), err)
		}
		if n := client.LLen(t.Context(), "asynq:{paydia}:pending").Val(); n != 200 {
			t.Errorf("%d tasks", n)
		}

		first, release, runs := make(chan struct{}), make(chan struct{}), atomic.Int32{}
		serve(t, client, tasks.Handlers{Submit: func(context.Context, payment.Key) (time.Duration, string, error) {
			if runs.Add(1) == 1 {
				close(first)
				<-release
			}
			return time.Hour, "not yet", nil
		}})
		submit(t, enqueuer, inv)
		<-first
		stuck := &payment.Payment{Gateway: inv.Gateway, TransactionID: inv.TransactionID, Amount: 13000}
		for range 2 {
			if err := enqueuer.Requeue(t.Context(), []*payment.Payment{stuck}); err != nil {
				t.Fatal(err)
			}
		}
		inspector := asynq.NewInspectorFromRedisClient(client)
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			_, err := inspector.GetTaskInfo("amdigipay", "standby:0:"+invTask)
			if runs.Load() > 1 && errors.Is(err, asynq.ErrTaskNotFound) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the standby task has not run, or still exists")
			}
		}
		close(release)
		await(t, client, "amdigipay", invTask, asynq.TaskStateRetry)
	})
}

// epoch is a clock that does not move.
func epoch() time.Time { return time.Unix(0, 0) }

// TestOrphanedStandby: asynq may leave a task active forever, and its standby task, too.
// Five minutes later Requeue enqueues another standby task.
func TestOrphanedStandby(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		t.Parallel()
		now := epoch()
		enqueuer := tasks.NewEnqueuer(client, func() time.Time { return now })
		orphan := func() { // dequeued as asynq does, but without a lease
			t.Helper()
			id := client.RPopLPush(t.Context(), "asynq:{amdigipay}:pending", "asynq:{amdigipay}:active").Val()
			if id == "" || client.HSet(t.Context(), "asynq:{amdigipay}:t:"+id, "state", "active").Err() != nil {
				t.Fatal("no task is pending")
			}
		}
		stuck := []*payment.Payment{{Gateway: inv.Gateway, TransactionID: inv.TransactionID, Amount: 13000}}
		requeue := func() int64 {
			t.Helper()
			if err := enqueuer.Requeue(t.Context(), stuck); err != nil {
				t.Fatal(err)
			}
			return client.LLen(t.Context(), "asynq:{amdigipay}:pending").Val()
		}
		requeue()
		orphan()
		requeue()
		orphan()
		if n := requeue(); n != 0 {
			t.Errorf("%d tasks are pending, although the id is in use", n)
		}
		now = now.Add(5 * time.Minute)
		if n := requeue(); n != 1 {
			t.Errorf("%d tasks are pending, want another standby task", n)
		}
	})
}

// TestNoPayment: a task whose payment is not in the ledger is archived.
func TestNoPayment(t *testing.T) {
	t.Parallel()
	client := redistest.Mini(t)
	serve(t, client, tasks.Handlers{Submit: func(context.Context, payment.Key) (time.Duration, string, error) {
		return 0, "", tasks.ErrNoPayment
	}})
	submit(t, tasks.NewEnqueuer(client, time.Now), inv)
	if info := await(t, client, "amdigipay", invTask, asynq.TaskStateArchived); !strings.Contains(info.LastErr, "no such payment") {
		t.Errorf("%q", info.LastErr)
	}
}

// TestOneTickOnePoll: the poll of a tick runs once, even if workers enqueue it after it ran.
func TestOneTickOnePoll(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		t.Parallel()
		var polls atomic.Int32
		serve(t, client, tasks.Handlers{Poll: func(_ context.Context, _ payment.Gateway) error {
			polls.Add(1)
			return nil
		}})
		tick := time.UnixMilli(1_700_000_000_000)
		for range 2 {
			for range 3 {
				if err := tasks.NewEnqueuer(client, time.Now).Poll(t.Context(), payment.AMDigiPay, tick); err != nil {
					t.Fatal(err)
				}
			}
			await(t, client, "amdigipay-poll", "poll:amdigipay:1700000000000", asynq.TaskStateCompleted)
		}
		if n := polls.Load(); n != 1 {
			t.Errorf("polled %d times", n)
		}
	})
}

// TestRetryLaterIsNoFailure: a task that is retried later runs again at that time, uses up no
// retry of asynq, and shows the reason in the web UI.
func TestRetryLaterIsNoFailure(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		t.Parallel()
		var calls atomic.Int32
		done := make(chan struct{})
		serve(t, client, tasks.Handlers{Submit: func(context.Context, payment.Key) (time.Duration, string, error) {
			switch calls.Add(1) {
			case 1:
				return time.Millisecond, "4296300", nil
			case 2:
				close(done)
				return time.Hour, "net:unsent", nil
			default:
				return 0, "", nil
			}
		}})
		submit(t, tasks.NewEnqueuer(client, time.Now), inv)
		<-done
		info := await(t, client, "amdigipay", invTask, asynq.TaskStateRetry)
		for info.LastErr != "no failure, will be retried in 1h0m0s: net:unsent" { // at first that of the first retry
			info = await(t, client, "amdigipay", invTask, asynq.TaskStateRetry)
		}
		if info.Retried != 0 || time.Until(info.NextProcessAt) < 59*time.Minute {
			t.Errorf("retried %d, next %s", info.Retried, info.NextProcessAt)
		}
	})
}

// TestErrorsAreRedacted: a handler's error or panic may contain a secret; asynq stores a fixed
// text in Redis.
func TestErrorsAreRedacted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		submit func() error
		want   string
	}{
		"error": {func() error { return errors.New("password hunter2") }, "failed: see the worker's log"},
		"panic": {func() error { panic("hunter2") }, "panicked: see the worker's log"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := redistest.Mini(t)
			serve(t, client, tasks.Handlers{Submit: func(context.Context, payment.Key) (time.Duration, string, error) {
				return 0, "", c.submit()
			}})
			submit(t, tasks.NewEnqueuer(client, time.Now), inv)
			info := await(t, client, "amdigipay", invTask, asynq.TaskStateRetry)
			if info.LastErr != c.want || info.Retried != 0 {
				t.Errorf("%q, retried %d", info.LastErr, info.Retried)
			}
		})
	}
}

// TestUnreadablePayload: the task is archived, and its error does not quote the payload.
func TestUnreadablePayload(t *testing.T) {
	t.Parallel()
	client := redistest.Mini(t)
	serve(t, client, tasks.Handlers{})
	for id, payload := range map[string]string{
		"garbage": `customer hunter2`,
		"newer":   `{"v":2,"gateway":"amdigipay","transaction_id":"hunter2"}`,
		"gateway": `{"v":1,"gateway":"hunter2"}`,
		"no-id":   `{"v":1,"gateway":"amdigipay"}`,
	} {
		_, err := asynq.NewClientFromRedisClient(client).Enqueue(
			asynq.NewTask(tasks.TypeSubmit, []byte(payload)), asynq.TaskID(id), asynq.Queue("amdigipay"))
		if err != nil {
			t.Fatal(err)
		}
		info := await(t, client, "amdigipay", id, asynq.TaskStateArchived)
		if strings.Contains(info.LastErr, "hunter2") || !strings.Contains(info.LastErr, "cannot be read") {
			t.Errorf("%s: %q", id, info.LastErr)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, payload := range []string{
		`{"v":1,"gateway":"amdigipay","transaction_id":"INV-1","amount":13000}`, `{"v":1,"gateway":"paydia","tick":1}`,
		`{"v":2}`, `{"v":2,"gateway":"paydia"}`, `{}`, `[]`, ``, "\xff", `{"v":1,"gateway":"x"}`,
	} {
		f.Add([]byte(payload))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		p, err := tasks.Decode(payload)
		if err != nil && !errors.Is(err, tasks.ErrPayload) {
			t.Fatal(err)
		}
		if err == nil && (p.Version != 1 || p.Gateway == "") {
			t.Fatalf("%q is decoded as %+v", payload, p)
		}
	})
}
