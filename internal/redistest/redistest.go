// Package redistest gives tests a Redis: miniredis always, and a real
// redis-server wherever one is installed. No program imports it.
package redistest

import (
	"context"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// Each runs a test once per kind of Redis, each time on an empty one.
func Each(t *testing.T, test func(t *testing.T, client redis.UniversalClient)) {
	t.Helper()
	t.Run("miniredis", func(t *testing.T) { test(t, Mini(t)) })
	t.Run("redis-server", func(t *testing.T) { test(t, Server(t).Client(t)) })
}

// Mini starts a miniredis and returns a client of it.
func Mini(t testing.TB) redis.UniversalClient {
	t.Helper()
	mini := miniredis.NewMiniRedis()
	if err := mini.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mini.Close)
	return client(t, mini.Addr())
}

// Process is a redis-server, a child of the test.
type Process struct {
	Addr string
	dir  string
	cmd  *exec.Cmd
}

// Server starts a redis-server with an append-only file. Without one installed
// the test is skipped, except in CI, where one is installed.
func Server(t testing.TB) *Process {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("redis-server is not installed")
		}
		t.Skip("redis-server is not installed")
	}
	p := &Process{Addr: freeAddr(t), dir: t.TempDir()}
	p.Start(t)
	t.Cleanup(p.Kill)
	return p
}

// URL is the REDIS_URL of the server.
func (p *Process) URL() string { return "redis://" + p.Addr + "/0" }

// Client returns a client of the server.
func (p *Process) Client(t testing.TB) redis.UniversalClient {
	t.Helper()
	return client(t, p.Addr)
}

// Start starts the server, again after a Kill, and waits until it answers.
func (p *Process) Start(t testing.TB) {
	t.Helper()
	_, port, err := net.SplitHostPort(p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	p.cmd = exec.Command("redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", p.dir,
		"--save", "", "--appendonly", "yes", "--maxmemory-policy", "noeviction")
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	probe := redis.NewClient(&redis.Options{Addr: p.Addr, MaxRetries: -1})
	defer probe.Close()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err = probe.Ping(context.Background()).Err(); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("redis-server on port %s does not answer: %v", port, err)
		}
	}
}

// Kill ends the server at once, as kill -9 does.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may be dead already
	_ = p.cmd.Wait()
}

func client(t testing.TB, addr string) redis.UniversalClient {
	c := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
}
