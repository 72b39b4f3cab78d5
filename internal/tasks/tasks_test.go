package tasks_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
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

func payments(keys []payment.Key) []*payment.Payment {
	var all []*payment.Payment
	for _, key := range keys {
		all = append(all, &payment.Payment{Gateway: key.Gateway, TransactionID: key.TransactionID, Amount: 13000})
	}
	return all
}

// submit enqueues the submits of payments.
func submit(t *testing.T, enqueuer *tasks.Enqueuer, keys ...payment.Key) {
	t.Helper()
	if err := errors.Join(enqueuer.Submit(t.Context(), payments(keys))...); err != nil {
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

// clusters runs a test on miniredis, on a redis-server, and on a Cluster.
func clusters(t *testing.T, test func(t *testing.T, client redis.UniversalClient)) {
	t.Helper()
	redistest.Each(t, test)
	t.Run("cluster", func(t *testing.T) {
		cluster := redistest.NewCluster(t)
		client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{cluster.Primaries[0].Addr}})
		t.Cleanup(func() { _ = client.Close() })
		test(t, client)
	})
}

// TestSubmitBatch: Submit enqueues a batch of both gateways in one round trip, also when Redis
// has lost asynq's script. It treats each payment as if it were alone: new, twice in the batch,
// with a task that is waiting, archived, or that cannot be enqueued.
func TestSubmitBatch(t *testing.T) {
	t.Parallel()
	clusters(t, func(t *testing.T, client redis.UniversalClient) {
		t.Parallel()
		enqueuer, inspector := tasks.NewEnqueuer(client, time.Now), asynq.NewInspectorFromRedisClient(client)
		waiting := payment.Key{Gateway: payment.Paydia, TransactionID: "waiting"}
		archived := payment.Key{Gateway: payment.Paydia, TransactionID: "archived"}
		damaged := payment.Key{Gateway: payment.AMDigiPay, TransactionID: "damaged"}
		submit(t, enqueuer, inv, waiting, archived) // Redis does not have the script yet
		for _, id := range []string{invTask, "paydia:archived"} {
			queue, _, _ := strings.Cut(id, ":")
			if err := inspector.ArchiveTask(queue, id); err != nil {
				t.Fatal(err)
			}
		}
		if err := client.Set(t.Context(), "asynq:{amdigipay}:t:amdigipay:damaged", "not a hash", 0).Err(); err != nil {
			t.Fatal(err)
		}
		batch := []payment.Key{inv, waiting, archived, damaged}
		for i := range 200 {
			g := payment.Gateways()[i%2]
			batch = append(batch, payment.Key{Gateway: g, TransactionID: fmt.Sprint(i)}, payment.Key{Gateway: g, TransactionID: fmt.Sprint(i)})
		}
		for i, err := range enqueuer.Submit(t.Context(), payments(batch)) {
			if (err != nil) != (batch[i] == damaged) {
				t.Errorf("%s: %v", batch[i], err)
			}
		}
		for queue, want := range map[string]int64{"amdigipay": 101, "paydia": 102} {
			if n := client.LLen(t.Context(), "asynq:{"+queue+"}:pending").Val(); n != want {
				t.Errorf("%s: %d tasks are pending", queue, n)
			}
		}
		for _, id := range []string{invTask, "paydia:archived"} {
			queue, _, _ := strings.Cut(id, ":")
			await(t, client, queue, id, asynq.TaskStatePending)
		}
	})
}

// TestConcurrency: the servers of a queue together run as many submits as the setting says,
// and no more.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		t.Parallel()
		const limit = 50
		log := slog.New(slog.DiscardHandler)
		running, release := make(chan struct{}, limit+1), make(chan struct{})
		server := tasks.NewServer(client, tasks.ServerConfig{
			Gateways: []payment.Gateway{payment.AMDigiPay}, Concurrency: limit, ShutdownTimeout: time.Second, Log: log, AsynqLog: telemetry.AsynqLogger(log),
		}, tasks.Handlers{Submit: func(context.Context, payment.Key) (time.Duration, string, error) {
			running <- struct{}{}
			<-release
			return 0, "", nil
		}})
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(server.Shutdown)
		var keys []payment.Key
		for i := range limit + 1 {
			keys = append(keys, payment.Key{Gateway: payment.AMDigiPay, TransactionID: fmt.Sprint(i)})
		}
		submit(t, tasks.NewEnqueuer(client, time.Now), keys...)
		for range limit {
			<-running
		}
		select {
		case <-running:
			t.Error("one more submit runs")
		case <-time.After(500 * time.Millisecond): // several intervals of the pacer
		}
		if n := client.LLen(t.Context(), "asynq:{amdigipay}:pending").Val(); n != 1 {
			t.Errorf("%d tasks are pending", n)
		}
		close(release)
		<-running
	})
}

// TestIdleCommands counts the round trips of idle servers, heartbeats included, at the default
// concurrency. A worker may make 60 a second, and does other things too.
func TestIdleCommands(t *testing.T) {
	t.Parallel()
	client := redistest.Server(t).Client(t)
	log := slog.New(slog.DiscardHandler)
	server := tasks.NewServer(client, tasks.ServerConfig{
		Gateways: payment.Gateways(), Concurrency: 50, ShutdownTimeout: time.Second, Log: log, AsynqLog: telemetry.AsynqLogger(log),
	}, tasks.Handlers{})
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	<-time.After(time.Second) // the servers have started
	trips := redistest.CountRoundTrips(client)
	const seconds = 5 // the interval of the heartbeats
	<-time.After(seconds * time.Second)
	n := trips.N()
	t.Logf("%d round trips in %d s", n, seconds)
	if n == 0 || n > 45*seconds {
		t.Error("too many, or none")
	}
}

// TestSubmitRoundTrips: a batch is one round trip.
func TestSubmitRoundTrips(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		t.Parallel()
		enqueuer := tasks.NewEnqueuer(client, time.Now)
		submit(t, enqueuer, inv)
		var batch []payment.Key
		for i := range 256 {
			batch = append(batch, payment.Key{Gateway: payment.AMDigiPay, TransactionID: fmt.Sprint(i)})
		}
		trips := redistest.CountRoundTrips(client)
		submit(t, enqueuer, batch...)
		if n := trips.N(); n != 1 {
			t.Errorf("%d round trips", n)
		}
		if n := client.LLen(t.Context(), "asynq:{amdigipay}:pending").Val(); n != 257 {
			t.Errorf("%d tasks are pending", n)
		}
	})
}

// TestSubmitUnreachable: when Redis cannot be reached, every payment of a batch gets the error,
// after one timeout at most.
func TestSubmitUnreachable(t *testing.T) {
	t.Parallel()
	for _, warm := range []bool{false, true} {
		client := redistest.Mini(t)
		enqueuer := tasks.NewEnqueuer(client, time.Now)
		if warm {
			submit(t, enqueuer, inv)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for i, err := range enqueuer.Submit(ctx, payments([]payment.Key{inv, {Gateway: payment.AMDigiPay, TransactionID: "B"}})) {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("payment %d: %v", i, err)
			}
		}
	}
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

// TestTaskIDIsEnough: a task whose id names a payment runs, whatever its payload.
func TestTaskIDIsEnough(t *testing.T) {
	t.Parallel()
	client := redistest.Mini(t)
	submitted := make(chan payment.Key)
	serve(t, client, tasks.Handlers{Submit: func(_ context.Context, key payment.Key) (time.Duration, string, error) {
		submitted <- key
		return 0, "", nil
	}})
	for _, payload := range []string{"\xff", `{"v":2,"gateway":"paydia","transaction_id":"other"}`} {
		for _, id := range []string{invTask, "standby:0:" + invTask} {
			_, err := asynq.NewClientFromRedisClient(client).Enqueue(
				asynq.NewTask(tasks.TypeSubmit, []byte(payload)), asynq.TaskID(id), asynq.Queue("amdigipay"))
			if err != nil {
				t.Fatal(err)
			}
			if key := <-submitted; key != inv {
				t.Errorf("%s with payload %q submits %s", id, payload, key)
			}
			for deadline := time.Now().Add(20 * time.Second); client.Exists(t.Context(), "asynq:{amdigipay}:t:"+id).Val() == 1; {
				if time.Now().After(deadline) {
					t.Fatal("the task is not deleted")
				}
			}
		}
	}
}

// TestUnreadablePayload: a task whose id does not name a payment is archived if its payload
// cannot be read. Its error does not quote the payload.
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

// TestInteractiveFirst: payments of customers who wait are submitted before a long queue of
// others, and again when they are retried.
func TestInteractiveFirst(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		const normal = 400
		e := tasks.NewEnqueuer(client, time.Now)
		var batch []*payment.Payment
		for i := range normal {
			batch = append(batch, &payment.Payment{Gateway: payment.AMDigiPay, TransactionID: fmt.Sprint("N-", i)})
		}
		for i, err := range e.Submit(t.Context(), batch) {
			if err != nil {
				t.Fatal(i, err)
			}
		}
		var done atomic.Int64 // submits of the queue of others
		type run struct {
			id     string
			before int64 // submits of others before it
		}
		runs := make(chan run, 10)
		retried := make(map[string]bool)
		var mu sync.Mutex
		serve(t, client, tasks.Handlers{Submit: func(_ context.Context, key payment.Key) (time.Duration, string, error) {
			if strings.HasPrefix(key.TransactionID, "N-") {
				time.Sleep(4 * time.Millisecond) // a gateway
				done.Add(1)
				return 0, "", nil
			}
			mu.Lock()
			defer mu.Unlock()
			runs <- run{key.TransactionID, done.Load()}
			if !retried[key.TransactionID] {
				retried[key.TransactionID] = true
				return time.Millisecond, "busy", nil
			}
			return 0, "", nil
		}})
		for done.Load() < 40 {
			runtime.Gosched()
		}
		from := done.Load()
		e.Submit(t.Context(), []*payment.Payment{
			{Gateway: payment.AMDigiPay, TransactionID: "I-1", Priority: payment.Interactive},
			{Gateway: payment.AMDigiPay, TransactionID: "I-2", Priority: payment.Interactive},
		})
		for i := range 4 { // each twice
			select {
			case r := <-runs:
				if i < 2 && r.before-from > normal/2 {
					t.Errorf("%d others were submitted before %s", r.before-from, r.id)
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("%d interactive submits", i)
			}
		}
	})
}

// TestInteractiveIdle: an idle worker notices a payment of a customer who waits.
func TestInteractiveIdle(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		got := make(chan string, 10)
		serve(t, client, tasks.Handlers{Submit: func(_ context.Context, key payment.Key) (time.Duration, string, error) {
			got <- key.TransactionID
			return 0, "", nil
		}})
		e := tasks.NewEnqueuer(client, time.Now)
		for i := range 5 {
			p := payment.Payment{Gateway: payment.AMDigiPay, TransactionID: fmt.Sprint(i)}
			if i%2 == 0 {
				p.Priority = payment.Interactive
			}
			if err := e.Submit(t.Context(), []*payment.Payment{&p})[0]; err != nil {
				t.Fatal(err)
			}
			select {
			case id := <-got:
				if id != p.TransactionID {
					t.Errorf("%s was submitted, want %s", id, p.TransactionID)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("payment %d was not submitted", i)
			}
		}
	})
}
