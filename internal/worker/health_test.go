package worker_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/config"
	"terbayar/internal/ledger"
	"terbayar/internal/worker"
)

// run runs a worker until the test ends. page gets one of its pages.
func (s *env) run(t *testing.T, flags ...string) (page func(path string) (int, string)) {
	t.Helper()
	var cfg struct{ worker.Config }
	if _, err := config.Parse("worker", "", &cfg, slices.Concat(s.args, []string{"--worker-http-addr=127.0.0.1:0"}, flags), io.Discard); err != nil {
		t.Fatal(err)
	}
	client, err := cfg.Redis.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	log := slog.New(slog.DiscardHandler)
	writes, closeWrites, err := cfg.Redis.OpenDurable(ledger.DurabilityKeys(client, cfg.Ledger.Partitions), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = closeWrites() })
	w, err := worker.New(cfg.Config, client, writes, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return func(path string) (int, string) {
		t.Helper()
		res, err := http.Get("http://" + w.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(body)
	}
}

// TestEventsRetention: a worker deletes old events of all partitions at its start, and shows
// the lag of a consumer group.
func TestEventsRetention(t *testing.T) {
	t.Parallel()
	s := newEnv(t)
	client := s.redis.Client(t)
	if err := client.ConfigSet(t.Context(), "stream-node-max-entries", "1").Err(); err != nil {
		t.Fatal(err)
	}
	streams := ledger.StreamNames(ledger.DefaultStream, 2)
	for _, stream := range streams {
		if err := client.XAdd(t.Context(), &redis.XAddArgs{Stream: stream, ID: "1-0", Values: []string{"event", "{}"}}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := client.XGroupCreate(t.Context(), streams[1], "books", "$").Err(); err != nil {
		t.Fatal(err)
	}
	page := s.run(t, "--ledger-partitions=2", "--events-retention=400d")
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		left := client.XLen(t.Context(), streams[0]).Val() + client.XLen(t.Context(), streams[1]).Val()
		_, metrics := page("/metrics")
		if left == 0 && strings.Contains(metrics, `terbayar_events_group_lag_seconds{group="books"} 0`) &&
			strings.Contains(metrics, `terbayar_events_group_idle{group="books"} 0`) &&
			strings.Contains(metrics, "terbayar_events_retention_seconds 3.456e+07") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d events are left\n%s", left, metrics)
		}
	}
}

// TestReadiness: while Redis is full, down or hangs, /readyz reports the reason and /metrics
// the state, both without a delay. When Redis works again, the worker is ready.
func TestReadiness(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 10 s: it stops a real Redis")
	}
	t.Parallel()
	s := newEnv(t)
	page := s.run(t, "--worker-shutdown-timeout=16s")
	// eventually waits for /readyz to answer with the status and the reason, and for
	// /metrics to have the lines. Then neither page may wait for Redis, whose timeouts are
	// 3 s and longer; the fastest of three requests counts, since the machine may be busy.
	eventually := func(status int, reason string, metrics ...string) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			got, body := page("/readyz")
			if got == status && strings.Contains(body, reason) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("/readyz: %d %s, want %d %s", got, body, status, reason)
			}
		}
		// The metrics show the latest probe of Redis, at most a second old.
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			_, body := page("/metrics")
			missing := slices.DeleteFunc(slices.Clone(metrics), func(want string) bool { return strings.Contains(body, "\n"+want+"\n") })
			if len(missing) == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("/metrics: %q is missing", missing)
			}
		}
		for _, path := range []string{"/readyz", "/metrics"} {
			fastest := time.Hour
			for range 3 {
				start := time.Now()
				page(path)
				fastest = min(fastest, time.Since(start))
			}
			if fastest > 1500*time.Millisecond {
				t.Errorf("%s takes %s: it waits for Redis", path, fastest)
			}
		}
	}
	eventually(200, "ready", "terbayar_redis_up 1", "terbayar_redis_writable 1", `terbayar_payments{gateway="paydia",status="paid"} 0`)
	set := func(parameter, value string) {
		t.Helper()
		if err := s.redis.Client(t).ConfigSet(t.Context(), parameter, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	set("maxmemory", "1")
	eventually(503, "redis is full", "terbayar_redis_up 1", "terbayar_redis_writable 0")
	set("maxmemory", "0")
	eventually(200, "ready", "terbayar_redis_writable 1")
	s.redis.Kill()
	eventually(503, "redis does not answer", "terbayar_redis_up 0", "terbayar_redis_writable 0")
	s.redis.Start(t)
	eventually(200, "ready", "terbayar_redis_up 1")
	s.redis.Pause(t)
	eventually(503, "redis does not answer", "terbayar_redis_up 0")
	s.redis.Resume(t)
	eventually(200, "ready", "terbayar_redis_up 1")
}
