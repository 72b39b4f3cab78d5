package failover_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"terbayar/internal/config"
	"terbayar/internal/ledger"
	"terbayar/internal/redisconn"
	"terbayar/internal/redistest"
	"terbayar/internal/worker"
)

func TestCluster(t *testing.T) {
	t.Parallel()
	cluster := redistest.NewCluster(t)
	ledgerWorks(t, cluster.URL())
	checkEveryPrimary(t, cluster)

	s := newStage(t, cluster.URL())
	for _, stream := range []string{"other", "terbayar:{events}", "{other}:terbayar:events"} {
		_, err := worker.New(s.settings("--events-stream", stream), s.redis, nil, slog.New(slog.DiscardHandler))
		want := fmt.Sprintf("EVENTS_STREAM: %q lies in another slot of the Redis Cluster than the ledger; put {terbayar:events} into its name", stream)
		if !errors.As(err, new(*config.Error)) || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}

	var log output
	cmd := exec.Command(s.program("worker"), s.flags...)
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has ended, unless the test has failed
		if t.Failed() {
			t.Log(log.tail())
		}
	})
	s.handIn(t.Context(), 60, time.Millisecond)
	s.endsWell(15 * time.Second)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if log.has(`"level":"ERROR"`) || log.has("DATA RACE") {
		t.Error(log.tail())
	}
}

// checkEveryPrimary: one misconfigured primary of three is found, and named.
func checkEveryPrimary(t *testing.T, cluster *redistest.Cluster) {
	client, err := redisconn.Open(cluster.URL(), redisconn.Passwords{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	odd := cluster.Primaries[2]
	set := func(name, value string) {
		t.Helper()
		if err := odd.Client(t).ConfigSet(t.Context(), name, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if warnings, err := redisconn.Check(t.Context(), client); err != nil || warnings != nil {
		t.Errorf("%q, %v", warnings, err)
	}
	set("maxmemory-policy", "allkeys-lru")
	if _, err := redisconn.Check(t.Context(), client); !errors.Is(err, redisconn.ErrUnfit) || !strings.Contains(err.Error(), odd.Addr) {
		t.Error(err)
	}
	set("maxmemory-policy", "noeviction")
}

// TestClusterFailover kills, under load, the primary that holds the ledger.
func TestClusterFailover(t *testing.T) {
	t.Parallel()
	c := redistest.NewReplicatedCluster(t)
	s := newStage(t, c.URL())
	w := s.worker()

	// Payments keep coming in, before, while and after the primary is killed.
	var again int
	var shop sync.WaitGroup
	shop.Go(func() { again = s.handIn(t.Context(), 120, 300*time.Millisecond) })
	defer shop.Wait()
	s.eventually("the load is on", 15*time.Second, func() bool { return s.sent() >= 15 })
	primary, replica := c.Pair(t, ledger.DefaultStream)
	calls := w.meter.calls.Load()
	primary.Kill()
	killed := time.Now()
	c.AwaitHolder(t, ledger.DefaultStream, replica)
	promoted := time.Since(killed)
	if calls = w.meter.calls.Load() - calls; calls > 100*int64(promoted.Seconds()+1) {
		t.Errorf("%d calls in %s: that is a hot loop", calls, promoted)
	}
	primary.Start(t) // as a replica: without one nothing is sent
	rejoined, sent := time.Now(), s.sent()
	s.eventually("payments leave again", 20*time.Second, func() bool { return s.sent() > sent })
	t.Logf("%s after the kill there was a new primary (%d calls until then), %s after it had a replica payments left again",
		promoted.Round(100*time.Millisecond), calls, time.Since(rejoined).Round(100*time.Millisecond))
	shop.Wait()

	t.Logf("Redis would not take %d payments; they were handed in again", again)
	s.nothingLost()
	s.endsWell(30 * time.Second)
}
