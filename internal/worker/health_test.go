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

	"terbayar/internal/config"
	"terbayar/internal/ledger"
	"terbayar/internal/worker"
)

// TestRedisUnfit: a worker whose Redis is full, or gone, is not ready and says why;
// its metrics come at once and say so, too; when Redis is well again so is the worker.
func TestRedisUnfit(t *testing.T) {
	s := newStage(t)
	var cfg struct{ worker.Config }
	if _, err := config.Parse("worker", "", &cfg, slices.Concat(s.args, []string{"--worker-http-addr=127.0.0.1:0", "--worker-shutdown-timeout=16s"}), io.Discard); err != nil {
		t.Fatal(err)
	}
	client, err := cfg.Redis.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	log := slog.New(slog.DiscardHandler)
	writes, closeWrites, err := cfg.Redis.OpenDurable(ledger.DurabilityKey, log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = closeWrites() }()
	w, err := worker.New(cfg.Config, client, writes, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	page := func(path string) (int, string) {
		t.Helper()
		begun := time.Now()
		res, err := http.Get("http://" + w.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(begun); d > 1500*time.Millisecond { // it is at once; two busy cores are not
			t.Errorf("%s took %s", path, d)
		}
		return res.StatusCode, string(body)
	}
	becomes := func(status int, reason string, metrics ...string) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			got, body := page("/readyz")
			if got == status && strings.Contains(body, reason) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("/readyz: %d %s, want %d %s", got, body, status, reason)
			}
		}
		// The metrics are as of the last look at Redis, a second ago at the most.
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			_, body := page("/metrics")
			missing := slices.DeleteFunc(slices.Clone(metrics), func(want string) bool { return strings.Contains(body, "\n"+want+"\n") })
			if len(missing) == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("no %q", missing)
			}
		}
	}
	becomes(200, "ready", "terbayar_redis_up 1", "terbayar_redis_writable 1", `terbayar_payments{gateway="paydia",status="paid"} 0`)
	set := func(parameter, value string) {
		t.Helper()
		if err := s.redis.Client(t).ConfigSet(t.Context(), parameter, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	set("maxmemory", "1")
	becomes(503, "redis is full", "terbayar_redis_up 1", "terbayar_redis_writable 0")
	set("maxmemory", "0")
	becomes(200, "ready", "terbayar_redis_writable 1")
	s.redis.Kill()
	becomes(503, "redis does not answer", "terbayar_redis_up 0", "terbayar_redis_writable 0")
	s.redis.Start(t)
	becomes(200, "ready", "terbayar_redis_up 1")
	s.redis.Pause(t)
	becomes(503, "redis does not answer", "terbayar_redis_up 0")
	s.redis.Resume(t)
	becomes(200, "ready", "terbayar_redis_up 1")
}
