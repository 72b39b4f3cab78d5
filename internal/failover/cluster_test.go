package failover_test

import (
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"terbayar/internal/config"
	"terbayar/internal/ledger"
	"terbayar/internal/redisconn"
	"terbayar/internal/redistest"
	"terbayar/internal/testenv/programs"
	"terbayar/internal/worker"
)

func TestCluster(t *testing.T) {
	slow(t)
	cluster := redistest.NewCluster(t)
	checkEveryPrimary(t, cluster)

	e := newEnv(t, cluster.URL())
	for _, stream := range []string{"other", "terbayar:{events}", "{other}:terbayar:events"} {
		_, err := worker.New(e.config("EVENTS_STREAM="+stream), e.Redis, nil, slog.New(slog.DiscardHandler))
		if !errors.As(err, new(*config.Error)) || !strings.HasPrefix(err.Error(), "EVENTS_STREAM: ") || !strings.Contains(err.Error(), "{terbayar:events}") {
			t.Errorf("%s: %v", stream, err)
		}
	}
	w := e.Worker()
	orders := e.NewOrderSystem()
	orders.Submit(t.Context(), invoices(60))
	e.requireClean(orders)
	e.requirePaid(orders)
	w.Stop()
	if w.Stderr.Has(`"level":"ERROR"`) {
		t.Error(w.Stderr.Tail())
	}
	e.checkLedger()
}

// checkEveryPrimary: one misconfigured primary of three is found and named.
func checkEveryPrimary(t *testing.T, cluster *redistest.Cluster) {
	t.Helper()
	client, err := redisconn.Open(cluster.URL(), redisconn.Passwords{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	misconfigured := cluster.Primaries[2]
	set := func(name, value string) {
		t.Helper()
		if err := misconfigured.Client(t).ConfigSet(t.Context(), name, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if warnings, err := redisconn.Check(t.Context(), client); err != nil || warnings != nil {
		t.Errorf("%q, %v", warnings, err)
	}
	set("maxmemory-policy", "allkeys-lru")
	if _, err := redisconn.Check(t.Context(), client); !errors.Is(err, redisconn.ErrUnfit) || !strings.Contains(err.Error(), misconfigured.Addr) {
		t.Error(err)
	}
	set("maxmemory-policy", "noeviction")
}

// TestClusterFailover kills the primary that holds the ledger under load.
func TestClusterFailover(t *testing.T) {
	slow(t)
	c := redistest.NewReplicatedCluster(t)
	e := newEnv(t, c.URL())
	e.failover = true
	w := e.startLocalWorker()

	orders := e.NewOrderSystem()
	var submitting sync.WaitGroup
	submitting.Go(func() { orders.SubmitSlowly(t.Context(), invoices(120), 300*time.Millisecond) })
	defer submitting.Wait()
	e.awaitLoad(15)
	primary, replica := c.Pair(t, ledger.DefaultStream)
	calls := w.redis.calls.Load()
	primary.Kill()
	killed := time.Now()
	c.AwaitHolder(t, ledger.DefaultStream, replica)
	promoted := time.Since(killed)
	if calls = w.redis.calls.Load() - calls; calls > 100*int64(promoted.Seconds()+1) {
		t.Errorf("%d calls in %s: that is a hot loop", calls, promoted)
	}
	primary.Start(t) // as a replica: without a replica nothing is sent
	rejoined := time.Now()
	e.awaitSends()
	t.Logf("%s after the kill there was a new primary (%d calls until then), %s after it had a replica payments were sent again",
		promoted.Round(100*time.Millisecond), calls, time.Since(rejoined).Round(100*time.Millisecond))
	submitting.Wait()
	orders.Resubmit(t.Context())
	e.requireClean(orders)
	e.requirePaid(orders)
}

// TestPartitions: the ledger is spread over a Cluster in twelve partitions. Under load one
// primary fails over, and the slot of a partition of another primary moves. Then the events
// are read from their twelve streams with the program, from the start and from the middle.
func TestPartitions(t *testing.T) {
	slow(t)
	const partitions = 12
	c := redistest.NewReplicatedCluster(t)
	e := newPartitionedEnv(t, c.URL(), partitions)
	e.failover = true
	e.Worker()
	e.Worker()
	orders := e.NewOrderSystem()
	var submitting sync.WaitGroup
	submitting.Go(func() { orders.SubmitSlowly(t.Context(), invoices(200), 200*time.Millisecond) })
	defer submitting.Wait()
	e.awaitLoad(15)

	streams := ledger.StreamNames(ledger.DefaultStream, partitions)
	primary, replica := c.Pair(t, streams[0])
	var moving string
	var from, to *redistest.Node
	for _, stream := range streams {
		switch holder, _ := c.Pair(t, stream); {
		case holder == primary:
		case from == nil:
			moving, from = stream, holder
		case holder != from:
			to = holder
		}
	}
	if to == nil {
		t.Fatal("the partitions are not on all primaries")
	}
	primary.Kill()
	c.AwaitHolder(t, streams[0], replica)
	primary.Start(t) // as a replica: without a replica nothing is sent
	e.awaitSends()
	m := newMigration(t, moving, from, to)
	m.begin()
	m.move(0.5)
	e.awaitSends() // of the other partitions
	m.move(1)
	m.end(c)
	e.awaitSends()
	submitting.Wait()
	orders.Resubmit(t.Context())
	e.requireClean(orders)
	e.requirePaid(orders)

	// The program refuses another number, and merges the streams.
	for _, command := range []string{"events", "create"} {
		r := e.Run("enqueue", []string{command}, programs.Input(programs.NewPayments("OTHER", 1, time.Hour)), "LEDGER_PARTITIONS=1")
		if r.Code != 2 || r.Stdout != "" || !strings.Contains(r.Stderr, "LEDGER_PARTITIONS: ") {
			t.Errorf("%s with another number of partitions: %d %s %s", command, r.Code, r.Stdout, r.Stderr)
		}
	}
	all := strings.Split(strings.TrimSpace(e.Run("enqueue", []string{"events"}, "").Stdout), "\n")
	middle := all[len(all)/2]
	var event struct{ Cursor string }
	if err := json.Unmarshal([]byte(middle), &event); err != nil || strings.Count(event.Cursor, ",") != partitions-1 {
		t.Fatalf("cursor %q, %v", event.Cursor, err)
	}
	rest := strings.TrimSpace(e.Run("enqueue", []string{"events", "--from", event.Cursor}, "").Stdout)
	if rest != strings.Join(all[len(all)/2:], "\n") {
		t.Errorf("from the middle: %d lines, want %d", strings.Count(rest, "\n")+1, len(all)-len(all)/2)
	}
}
