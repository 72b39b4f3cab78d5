package main

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/durable"
	"terbayar/internal/ledger"
	"terbayar/internal/redisconn"
	"terbayar/internal/redistest"
	"terbayar/internal/testenv"
)

// slow is the time from which on Redis logs a command in its SLOWLOG.
const slow = time.Millisecond

// server is the redis-server as an operator sees it.
type server struct {
	t      testenv.TB
	client *redis.Client
}

// startRedis starts a redis-server that fsyncs its append-only file once a second. It rewrites
// the file only when it is told to.
func startRedis(t testenv.TB) (*redistest.Process, *server) {
	t.Helper()
	process := redistest.Server(t, "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0",
		"--slowlog-log-slower-than", strconv.FormatInt(slow.Microseconds(), 10), "--slowlog-max-len", "100000")
	s := &server{t, redis.NewClient(&redis.Options{Addr: process.Addr, ReadTimeout: time.Minute})}
	t.Cleanup(func() { _ = s.client.Close() })
	return process, s
}

// require fails if a command has failed.
func (s *server) require(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// info returns one value of INFO.
func (s *server) info(section, name string) string {
	s.t.Helper()
	all, err := s.client.InfoMap(s.t.Context(), section).Result()
	s.require(err)
	for _, values := range all {
		if value, ok := values[name]; ok {
			return value
		}
	}
	s.t.Fatalf("INFO %s has no %s", section, name)
	return ""
}

// memory returns used_memory.
func (s *server) memory() int64 {
	s.t.Helper()
	n, err := strconv.ParseInt(s.info("memory", "used_memory"), 10, 64)
	s.require(err)
	return n
}

// cpu returns the CPU time of the redis-server since its start, without its children's.
func (s *server) cpu() (total time.Duration) {
	s.t.Helper()
	for _, name := range []string{"used_cpu_user", "used_cpu_sys"} {
		seconds, err := strconv.ParseFloat(s.info("cpu", name), 64)
		s.require(err)
		total += time.Duration(seconds * float64(time.Second))
	}
	return total
}

// flush makes Redis lose everything.
func (s *server) flush() {
	s.t.Helper()
	s.require(s.client.FlushAll(s.t.Context()).Err())
	s.rewrite()
}

// rewrite rewrites the append-only file, so that it does not need more disk than it must, and
// waits until that has ended.
func (s *server) rewrite() {
	s.t.Helper()
	isIdle := func() bool {
		return s.info("persistence", "aof_rewrite_in_progress") == "0" && s.info("persistence", "aof_rewrite_scheduled") == "0"
	}
	await(s.t, isIdle)
	s.require(s.client.BgRewriteAOF(s.t.Context()).Err())
	await(s.t, isIdle)
}

// keys returns some keys that match the pattern, in no order: SCAN returns them by their hashes.
func (s *server) keys(pattern string, n int) (keys []string) {
	s.t.Helper()
	scan := s.client.Scan(s.t.Context(), 0, pattern, 1000).Iterator()
	for len(keys) < n && scan.Next(s.t.Context()) {
		keys = append(keys, scan.Val())
	}
	s.require(scan.Err())
	return keys
}

// memoryUsage returns the sum of MEMORY USAGE of some keys.
func (s *server) memoryUsage(keys []string) (total int64) {
	s.t.Helper()
	for _, key := range keys {
		n, err := s.client.MemoryUsage(s.t.Context(), key, 0).Result()
		s.require(err)
		total += n
	}
	return total
}

// slowest returns the longest command in the SLOWLOG that clients of the ledger have sent.
func (s *server) slowest() (longest time.Duration, what string, n int) {
	s.t.Helper()
	entries, err := s.client.SlowLogGet(s.t.Context(), -1).Result()
	s.require(err)
	entries = slices.DeleteFunc(entries, func(e redis.SlowLog) bool { // what this program does to measure
		return slices.Contains([]string{"flushall", "config", "info", "slowlog", "bgrewriteaof"}, strings.ToLower(e.Args[0]))
	})
	if len(entries) == 0 {
		return 0, "none", 0
	}
	e := slices.MaxFunc(entries, func(a, b redis.SlowLog) int { return cmp.Compare(a.Duration, b.Duration) })
	return e.Duration, strings.ToLower(e.Args[0]), len(entries)
}

// store is a ledger, and its connections.
type store struct {
	*ledger.Ledger
	client, durable redis.UniversalClient
}

// openLedger opens the ledger. Writes do not wait for an fsync (durability none).
func openLedger(ctx context.Context, url string, partitions int) (*store, error) {
	client, err := redisconn.Open(url, redisconn.Passwords{})
	if err != nil {
		return nil, err
	}
	forWrites, err := redisconn.OpenDurable(url, redisconn.Passwords{})
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.DiscardHandler)
	writes := durable.NewWriters(durable.Options{Client: forWrites, Mode: durable.None, Now: time.Now, Log: log}, ledger.DurabilityKeys(client, partitions))
	s := &store{client: client, durable: forWrites, Ledger: ledger.New(ledger.Options{
		Redis: client, Writes: writes, Stream: ledger.DefaultStream, Partitions: partitions, Now: time.Now, Log: log,
	})}
	if err := writes.Start(ctx); err != nil { // since then Redis' clock is known
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *store) close() {
	_ = s.client.Close()
	_ = s.durable.Close()
}

// with calls a function with the ledger, and closes its connections: they need memory in Redis.
func (r *retentionRun) with(f func(*store)) {
	r.t.Helper()
	s, err := openLedger(r.t.Context(), r.server.URL(), r.o.partitions)
	r.require(err)
	defer s.close()
	f(s)
}

// await waits until a condition is true.
func await(t testenv.TB, condition func() bool) {
	t.Helper()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for !condition() {
		select {
		case <-poll.C:
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}
