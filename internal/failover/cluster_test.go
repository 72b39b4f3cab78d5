package failover_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"terbayar/internal/config"
	"terbayar/internal/redisconn"
	"terbayar/internal/redistest"
	"terbayar/internal/worker"
)

func TestCluster(t *testing.T) {
	t.Parallel()
	program := buildWorker(t)
	cluster := redistest.Cluster(t)
	ledgerWorks(t, cluster.URL())
	checkEveryPrimary(t, cluster)

	s := newStage(t, cluster.URL())
	for _, stream := range []string{"other", "terbayar:{events}", "{other}:terbayar:events"} {
		_, err := worker.Build(s.settings("--events-stream", stream), s.redis, slog.New(slog.DiscardHandler))
		want := fmt.Sprintf("EVENTS_STREAM: %q lies in another slot of the Redis Cluster than the ledger; put {terbayar:events} into its name", stream)
		if !errors.As(err, new(*config.Error)) || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}

	var log output
	cmd := exec.Command(program, s.flags...)
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
func checkEveryPrimary(t *testing.T, cluster *redistest.Sharded) {
	client, err := redisconn.Open(cluster.URL())
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
	set("appendonly", "no")
	if warnings, err := redisconn.Check(t.Context(), client); err != nil || len(warnings) != 1 || !strings.HasPrefix(warnings[0], odd.Addr+": appendonly is off") {
		t.Errorf("%q, %v", warnings, err)
	}
	set("maxmemory-policy", "allkeys-lru")
	if _, err := redisconn.Check(t.Context(), client); !errors.Is(err, redisconn.ErrUnfit) || !strings.Contains(err.Error(), odd.Addr) {
		t.Error(err)
	}
	set("maxmemory-policy", "noeviction")
	set("appendonly", "yes")
}

// buildWorker builds the worker, with the race detector if the tests have it.
func buildWorker(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "worker")
	args := []string{"build", "-o", program}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "terbayar/cmd/worker")...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}
