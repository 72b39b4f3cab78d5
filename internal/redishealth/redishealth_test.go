package redishealth

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/ledger"
	"terbayar/internal/redistest"
)

// check checks Redis with a generous timeout.
func check(t *testing.T, client redis.UniversalClient) State {
	t.Helper()
	return checkWithin(t, time.Minute, client)
}

func checkWithin(t *testing.T, timeout time.Duration, client redis.UniversalClient) State {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	return Check(ctx, client)
}

func TestCheck(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		if s := check(t, client); !s.Up || !s.Writable || s.Err() != nil || s.Full {
			t.Errorf("%+v", s)
		}
		keys, err := client.Keys(t.Context(), "*").Result()
		if err != nil || len(keys) != 1 || !ledger.SharesSlot(keys[0]) {
			t.Errorf("%v %v", keys, err)
		}
		if ttl := client.PTTL(t.Context(), probeKey).Val(); ttl <= 0 || ttl > time.Minute {
			t.Errorf("the probe key expires in %s", ttl)
		}
	})
}

// TestProblems: the problems of a Redis that may still answer PING.
func TestProblems(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, parameter, value string
		full                   bool
		problem                string // a part of it
	}{
		{"full", "maxmemory", "1", true, "is full"},
		{"too few replicas", "min-replicas-to-write", "1", false, "NOREPLICAS"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			client := redistest.Server(t).Client(t)
			if err := client.ConfigSet(t.Context(), row.parameter, row.value).Err(); err != nil {
				t.Fatal(err)
			}
			s := check(t, client)
			if !s.Up || s.Writable || s.Full != row.full || s.Err() == nil || !strings.Contains(s.Problem, row.problem) {
				t.Errorf("%+v", s)
			}
			if ratio, known := s.MemoryRatio(); !known || (ratio > 1) != row.full {
				t.Errorf("memory %v %v", ratio, known)
			}
		})
	}
	t.Run("cannot write to its disk", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir() // removed below, so that Redis cannot write its snapshot
		client := redistest.Server(t, "--save", "3600 1", "--dir", dir).Client(t)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := client.Set(t.Context(), "x", "y", 0).Err(); err != nil {
			t.Fatal(err)
		}
		if err := client.Do(t.Context(), "BGSAVE").Err(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); ; {
			s := check(t, client)
			if s.Up && !s.Writable && strings.Contains(s.Problem, "MISCONF") {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%+v", s)
			}
		}
	})
	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		server := redistest.Server(t)
		client := server.Client(t)
		server.Kill()
		if s := checkWithin(t, 100*time.Millisecond, client); s.Up || s.Writable || s.Problem != "does not answer" {
			t.Errorf("%+v", s)
		}
	})
	t.Run("paused", func(t *testing.T) {
		t.Parallel()
		server := redistest.Server(t)
		client := redis.NewClient(&redis.Options{Addr: server.Addr, ContextTimeoutEnabled: true})
		defer client.Close()
		server.Pause(t)
		if s := checkWithin(t, 100*time.Millisecond, client); s.Up || s.Problem != "does not answer" {
			t.Errorf("%+v", s)
		}
	})
	t.Run("another password", func(t *testing.T) {
		t.Parallel()
		server := redistest.Server(t)
		if err := server.Client(t).ConfigSet(t.Context(), "requirepass", "hunter2").Err(); err != nil {
			t.Fatal(err)
		}
		client := redis.NewClient(&redis.Options{Addr: server.Addr, Password: "hunter3"})
		defer client.Close()
		if s := check(t, client); !s.Up || s.Writable || !strings.Contains(s.Problem, "REDIS_PASSWORD") {
			t.Errorf("%+v", s)
		}
	})
}

// TestMemory: the fullest primary counts, and an INFO without the memory is ignored.
func TestMemory(t *testing.T) {
	t.Parallel()
	var s State
	for _, row := range []struct {
		info  string
		ratio float64
		known bool
	}{
		{"", 0, false},
		{"# Memory\r\nused_memory:50\r\nmaxmemory:0\r\n", 0, false},
		{"used_memory:50\r\nmaxmemory:100\r\n", .5, true},
		{"used_memory:90\r\nmaxmemory:1000\r\n", .5, true},
		{"used_memory:9\r\nmaxmemory:10\r\nmaxmemory_human:10B\r\n", .9, true},
		{"used_memory:9999\r\nmaxmemory:0\r\n", .9, true},
		{"used_memory:91\r\nmaxmemory:100\r\ntotal_system_memory:9100\r\n", .91, true},
		{"used_memory:92\r\nmaxmemory:0\r\ntotal_system_memory:100\r\n", .92, true},
	} {
		s.addMemory(row.info)
		if ratio, known := s.MemoryRatio(); ratio != row.ratio || known != row.known {
			t.Errorf("%q: %v %v", row.info, ratio, known)
		}
	}
}

func TestPaymentsLeft(t *testing.T) {
	t.Parallel()
	const mb = 1 << 20
	for _, row := range []struct {
		used, most, payments, tombstones, left int64
		known                                  bool
	}{
		{1 * mb, 0, 5000, 0, 0, false},
		{1 * mb, 11 * mb, 0, 0, 10 * mb / 2048, true},
		{3 * mb, 13 * mb, 999, 0, 10 * mb / 2048, true}, // too few to measure
		{3 * mb, 13 * mb, 1000, 0, 3333, true},
		{600 * mb, 1000 * mb, 1_000_000, 0, 666_666, true},
		{600 * mb, 1000 * mb, 3_000_000, 0, 2_000_000, true}, // smaller payments
		{600 * mb, 1000 * mb, 1_000_000, 16_000_000, 1_333_333, true},
		{1000 * mb, 1000 * mb, 1_000_000, 0, 0, true},
		{1001 * mb, 1000 * mb, 1_000_000, 0, 0, true},
		{1001 * mb, 1000 * mb, 1, 0, 0, true},
	} {
		s := State{UsedMemory: row.used, MaxMemory: row.most}
		if left, known := s.PaymentsLeft(row.payments, row.tombstones); left != row.left || known != row.known {
			t.Errorf("%+v: %d %v", row, left, known)
		}
	}
}

// TestMonitor: Redis counts as down after two checks without an answer, but at once after an
// error that it returns. A problem is logged once a minute. An old state does not count.
func TestMonitor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		healthy, down := State{Up: true, Writable: true}, State{Problem: "does not answer"}
		full := State{Up: true, Full: true, Problem: "is full"}
		next := healthy
		w := New(nil, time.Now, slog.New(slog.NewTextHandler(&log, nil)))
		w.check = func(context.Context) State { return next }
		lines := func() int { return strings.Count(log.String(), "level=ERROR") }
		step := func(s State, n int, want error, errorLines int) {
			t.Helper()
			next = s
			for range n {
				time.Sleep(time.Second)
				w.checkOnce(t.Context())
			}
			if got := w.Err(); (got == nil) != (want == nil) || lines() != errorLines {
				t.Errorf("%v with %d error lines, want %v with %d\n%s", got, lines(), want, errorLines, log.String())
			}
		}
		if w.Err() == nil {
			t.Error("no error before the first check")
		}
		step(healthy, 1, nil, 0)
		step(down, 1, nil, 0)
		step(down, 1, down.Err(), 1)
		step(down, 59, down.Err(), 1)
		step(down, 1, down.Err(), 2)
		step(healthy, 1, nil, 2)
		step(full, 1, full.Err(), 3)
		step(healthy, 1, nil, 3)
		if n := strings.Count(log.String(), "redis is back"); n != 2 {
			t.Errorf("logged \"redis is back\" %d times:\n%s", n, log.String())
		}
		time.Sleep(maxStateAge + time.Second)
		if w.State().Up {
			t.Error("an old state still counts")
		}
	})
}

// TestRun: Run checks Redis, and ends with its context.
func TestRun(t *testing.T) {
	t.Parallel()
	w := New(redistest.Mini(t), time.Now, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.Run(ctx)
	}()
	for deadline := time.Now().Add(time.Minute); w.Err() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(w.Err())
		}
	}
	cancel()
	<-ended
}
