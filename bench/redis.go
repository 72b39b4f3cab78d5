package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/durable"
	"terbayar/internal/ledger"
)

// server is a redis-server, a child of this process, with an append-only file.
type server struct {
	*redis.Client

	url string
	cmd *exec.Cmd
	dir string
}

func startRedis(ctx context.Context) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().(*net.TCPAddr)
	_ = l.Close() // the port is free again; nobody else is after it
	dir, err := os.MkdirTemp("", "terbayar-bench-")
	if err != nil {
		return nil, err
	}
	s := &server{url: "redis://" + addr.String() + "/0", dir: dir}
	s.cmd = exec.CommandContext(ctx, "redis-server", "--port", strconv.Itoa(addr.Port), "--bind", "127.0.0.1", "--dir", dir,
		"--save", "", "--appendonly", "yes", "--maxmemory-policy", "noeviction")
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	s.Client = redis.NewClient(&redis.Options{Addr: addr.String(), PoolSize: 128})
	for deadline := time.Now().Add(10 * time.Second); s.Ping(ctx).Err() != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.stop()
			return nil, fmt.Errorf("redis-server on port %d does not answer", addr.Port)
		}
	}
	return s, nil
}

// newLedger makes a ledger on a Redis that acknowledges by answering.
func newLedger(client redis.UniversalClient, now func() time.Time) *ledger.Ledger {
	log := slog.New(slog.DiscardHandler)
	return ledger.New(ledger.Options{
		Redis: client, Writes: newWriter(client, now), Stream: ledger.DefaultStream, Now: now, Log: log,
	})
}

func newWriter(client redis.UniversalClient, now func() time.Time) *durable.Writer {
	return durable.New(durable.Options{
		Client: client, Mode: durable.None, Key: ledger.DurabilityKey, Now: now, Log: slog.New(slog.DiscardHandler),
	})
}

func (s *server) stop() {
	_ = s.Close()
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	_ = os.RemoveAll(s.dir)
}

// info is one number of INFO.
func (s *server) info(ctx context.Context, section, name string) (float64, error) {
	text, err := s.Info(ctx, section).Result()
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(text, name+":")
	if !ok {
		return 0, fmt.Errorf("INFO %s has no %s", section, name)
	}
	value, _, _ := strings.Cut(rest, "\r\n")
	return strconv.ParseFloat(value, 64)
}

// reads is how often Redis has read from a socket: the round trips made so far.
func (s *server) reads(ctx context.Context) (float64, error) {
	return s.info(ctx, "stats", "total_reads_processed")
}

func (s *server) memory(ctx context.Context) (float64, error) {
	return s.info(ctx, "memory", "used_memory")
}

// memoryOf adds up MEMORY USAGE of the keys that match a pattern.
func (s *server) memoryOf(ctx context.Context, pattern string) (float64, error) {
	total := 0.0
	scan := s.Scan(ctx, 0, pattern, 1000).Iterator()
	for scan.Next(ctx) {
		n, err := s.MemoryUsage(ctx, scan.Val(), 0).Result()
		if err != nil {
			return 0, err
		}
		total += float64(n)
	}
	return total, scan.Err()
}
