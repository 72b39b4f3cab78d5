// Package redistest gives tests a Redis: miniredis always, and a real
// redis-server wherever one is installed. No program imports it.
package redistest

import (
	"context"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
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
	c := client(t, mini.Addr())
	clocks.Store(c, mini)
	return c
}

// clocks are the miniredis behind the clients of Mini.
var clocks sync.Map

// SetTime sets the clock of the miniredis behind a client of Mini. It reports false for
// another client: a real Redis has the real time.
func SetTime(client redis.UniversalClient, now time.Time) bool {
	mini, ok := clocks.Load(client)
	if ok {
		mini.(*miniredis.Miniredis).SetTime(now)
	}
	return ok
}

// Process is a redis-server or a redis-sentinel, a child of the test.
type Process struct {
	Addr    string
	program string
	args    []string
	cmd     *exec.Cmd
}

// Server starts a redis-server with an append-only file that is synced before
// every answer: what was acknowledged outlives a Kill. (With everysec Redis holds
// writes back for up to 2 s while the disk is busy.) More arguments for it may
// follow. Without a redis-server installed the test is skipped, except in CI, where
// one is installed.
func Server(t testing.TB, args ...string) *Process {
	t.Helper()
	addr := freeAddr(t)
	return start(t, addr, "redis-server", append([]string{
		"--port", port(t, addr), "--bind", "127.0.0.1", "--dir", t.TempDir(),
		"--save", "", "--appendonly", "yes", "--appendfsync", "always",
		"--maxmemory-policy", "noeviction",
	}, args...)...)
}

// start starts a program that listens at the address, and kills it with the test.
func start(t testing.TB, addr, program string, args ...string) *Process {
	t.Helper()
	need(t, program)
	p := &Process{Addr: addr, program: program, args: args}
	t.Cleanup(p.Kill)
	p.Start(t)
	return p
}

// need skips the test where a program is missing; in CI it fails.
func need(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is not installed", program)
		}
		t.Skipf("%s is not installed", program)
	}
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
	p.cmd = exec.Command(p.program, p.args...)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	probe := redis.NewClient(&redis.Options{Addr: p.Addr, MaxRetries: -1})
	defer probe.Close()
	await(t, p.program+" at "+p.Addr+" answers", func(ctx context.Context) bool { return probe.Ping(ctx).Err() == nil })
}

// Kill ends the server at once, as kill -9 does.
func (p *Process) Kill() {
	if p.cmd.Process == nil { // it could not be started
		return
	}
	_ = p.cmd.Process.Kill() // it may be dead already
	_ = p.cmd.Wait()
}

// Pause stops the server as it stands, alive and deaf, until Resume or Kill.
func (p *Process) Pause(t testing.TB) { p.signal(t, syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (p *Process) Resume(t testing.TB) { p.signal(t, syscall.SIGCONT) }

func (p *Process) signal(t testing.TB, sig os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// await polls for a condition, and gives up after a while.
func await(t testing.TB, what string, condition func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for look := time.NewTicker(10 * time.Millisecond); !condition(ctx); <-look.C {
		if ctx.Err() != nil {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func client(t testing.TB, addr string) redis.UniversalClient {
	c := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// freeAddr is an address that nobody listens at. Its port is below those that the
// system gives to outgoing connections: while a server is down, a client that
// keeps dialling would end up there by chance. 10000 more, where a Cluster has its
// bus, is free and below them too.
func freeAddr(t testing.TB) string {
	t.Helper()
	for range 1000 {
		n := 10_000 + rand.N(12_000)
		if addr := loopback(n); isFree(addr) && isFree(loopback(n+10_000)) {
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func isFree(addr string) bool {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	_ = l.Close() // it was open for the sake of its port
	return true
}

func port(t testing.TB, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return port
}
