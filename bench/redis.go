package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/redistest"
	"terbayar/internal/testenv"
)

// server is a redis-server with an append-only file, fsynced every second.
type server struct{ *redis.Client }

func startRedis(t testenv.TB) *server {
	t.Helper()
	p := redistest.Server(t, "--appendfsync", "everysec")
	client := redis.NewClient(&redis.Options{Addr: p.Addr, PoolSize: 128})
	t.Cleanup(func() { _ = client.Close() })
	return &server{client}
}

// info returns one number of INFO.
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

// reads returns how often Redis has read from a socket: the number of round trips so far.
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
