package main

import (
	"bufio"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/ledger"
	"terbayar/internal/redistest"
	"terbayar/internal/testenv"
)

// server is a redis-server with an append-only file, which it does not rewrite. It fsyncs
// every second.
type server struct {
	t      testenv.TB
	addr   string
	client *redis.Client
}

func startRedis(t testenv.TB) *server {
	t.Helper()
	p := redistest.Server(t, "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0")
	s := &server{t, p.Addr, redis.NewClient(&redis.Options{Addr: p.Addr})}
	t.Cleanup(func() { _ = s.client.Close() })
	return s
}

// require fails if a command has failed.
func (s *server) require(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// fsyncAlways makes Redis fsync before every answer from now on.
func (s *server) fsyncAlways() {
	s.t.Helper()
	s.require(s.client.ConfigSet(s.t.Context(), "appendfsync", "always").Err())
}

// info returns one number of INFO.
func (s *server) info(section, name string) float64 {
	s.t.Helper()
	text, err := s.client.Info(s.t.Context(), section).Result()
	s.require(err)
	_, rest, ok := strings.Cut(text, "\n"+name+":")
	if !ok {
		s.t.Fatalf("INFO %s has no %s", section, name)
	}
	value, _, _ := strings.Cut(rest, "\r\n")
	number, err := strconv.ParseFloat(value, 64)
	s.require(err)
	return number
}

// reads returns how often Redis has read from a socket: the number of round trips so far.
func (s *server) reads() float64 { return s.info("stats", "total_reads_processed") }

// memory returns what Redis has allocated.
func (s *server) memory() float64 { return s.info("memory", "used_memory") }

// cpu returns the CPU time of the redis-server so far, in seconds.
func (s *server) cpu() float64 {
	return s.info("cpu", "used_cpu_user") + s.info("cpu", "used_cpu_sys")
}

// keySizes are sums of MEMORY USAGE.
type keySizes struct{ ledger, stream, asynq float64 }

// keySizes adds up MEMORY USAGE of all keys.
func (s *server) keySizes() (sizes keySizes) {
	s.t.Helper()
	ctx := s.t.Context()
	for cursor, first := uint64(0), true; first || cursor != 0; first = false {
		var keys []string
		var err error
		keys, cursor, err = s.client.Scan(ctx, cursor, "*", 1000).Result()
		s.require(err)
		usage := make([]*redis.IntCmd, len(keys))
		_, err = s.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for i, key := range keys {
				usage[i] = pipe.MemoryUsage(ctx, key, 0)
			}
			return nil
		})
		s.require(err)
		for i, key := range keys {
			n := float64(usage[i].Val())
			switch {
			case strings.HasPrefix(key, "asynq:"):
				sizes.asynq += n
			case key == ledger.DefaultStream:
				sizes.stream += n
			default:
				sizes.ledger += n
			}
		}
	}
	return sizes
}

// commands counts the commands that clients send to Redis within a time. MONITOR shows them
// apart from those that scripts execute, which INFO commandstats does not.
func (s *server) commands(d time.Duration) (n int) {
	s.t.Helper()
	conn, err := new(net.Dialer).DialContext(s.t.Context(), "tcp", s.addr)
	s.require(err)
	defer conn.Close()
	_, err = fmt.Fprint(conn, "MONITOR\r\n")
	s.require(err)
	s.require(conn.SetReadDeadline(time.Now().Add(d)))
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() { // `+1700000000.123456 [0 127.0.0.1:50000] "evalsha" ...`
		if text := lines.Text(); text != "+OK" && !strings.Contains(text, "[0 lua]") {
			n++
		}
	}
	return n
}
