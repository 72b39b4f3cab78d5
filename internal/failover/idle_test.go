package failover_test

import (
	"strconv"
	"testing"
	"time"

	"terbayar/internal/redistest"
)

// TestIdleWorker counts the calls to Redis of a worker that has nothing to do.
func TestIdleWorker(t *testing.T) {
	slow(t)
	server := redistest.Server(t)
	w := newEnv(t, server.URL()).startLocalWorker()
	client := server.Client(t)
	stat := func(name string) float64 {
		t.Helper()
		info, err := client.InfoMap(t.Context(), "stats").Result()
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.ParseFloat(info["Stats"][name], 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	const seconds = 3
	calls, reads, commands := w.redis.calls.Load(), stat("total_reads_processed"), stat("total_commands_processed")
	<-time.After(seconds * time.Second)
	calls = w.redis.calls.Load() - calls
	t.Logf("an idle worker makes %.0f round trips a second, for %.0f commands",
		(stat("total_reads_processed")-reads)/seconds, (stat("total_commands_processed")-commands)/seconds)
	if calls == 0 || calls > 60*seconds {
		t.Errorf("%d calls in %d s", calls, seconds)
	}
}
