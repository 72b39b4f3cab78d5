// Package redistest gives tests a Redis: miniredis always, and a real
// redis-server wherever one is installed. Of the programs bench/chaos alone uses it.
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

// TB is what the set-ups need of a test. A program that is none brings its own.
type TB interface {
	Helper()
	Context() context.Context
	TempDir() string
	Cleanup(f func())
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// Each runs a test once per kind of Redis, each time on an empty one.
func Each(t *testing.T, test func(t *testing.T, client redis.UniversalClient)) {
	t.Helper()
	t.Run("miniredis", func(t *testing.T) { test(t, Mini(t)) })
	t.Run("redis-server", func(t *testing.T) { test(t, Server(t).Client(t)) })
}

// Mini starts a miniredis and returns a client of it.
func Mini(t TB) redis.UniversalClient {
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
	env     []string // beside the test's own
	cmd     *exec.Cmd
}

// Server starts a redis-server with an append-only file that is synced before
// every answer: what was acknowledged outlives a Kill. (With everysec Redis holds
// writes back for up to 2 s while the disk is busy.) More arguments for it may
// follow. Without a redis-server installed the test is skipped, except in CI, where
// one is installed.
func Server(t TB, args ...string) *Process {
	t.Helper()
	addr := freeAddr(t)
	return start(t, addr, "redis-server", serverArgs(t, addr, args)...)
}

func serverArgs(t TB, addr string, more []string) []string {
	return append([]string{
		"--port", port(t, addr), "--bind", "127.0.0.1", "--dir", t.TempDir(),
		"--save", "", "--appendonly", "yes", "--appendfsync", "always",
		"--maxmemory-policy", "noeviction",
	}, more...)
}

// start starts a program that listens at the address, and kills it with the test.
func start(t TB, addr, program string, args ...string) *Process {
	t.Helper()
	need(t, program)
	p := &Process{Addr: addr, program: program, args: args}
	t.Cleanup(p.Kill)
	p.Start(t)
	return p
}

// need skips the test where a program is missing; in CI it fails.
func need(t TB, program string) {
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
func (p *Process) Client(t TB) redis.UniversalClient {
	t.Helper()
	return client(t, p.Addr)
}

// HasCommand reports whether the server has a command.
func (p *Process) HasCommand(t TB, command string) bool {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: p.Addr})
	defer c.Close()
	about, err := c.Do(t.Context(), "COMMAND", "INFO", command).Slice()
	if err != nil {
		t.Fatal(err)
	}
	return len(about) == 1 && about[0] != nil
}

// Start starts the server, again after a Kill, and waits until it answers.
func (p *Process) Start(t TB) {
	t.Helper()
	p.cmd = exec.Command(p.program, p.args...)
	p.cmd.Env = append(os.Environ(), p.env...)
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
func (p *Process) Pause(t TB) { p.signal(t, syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (p *Process) Resume(t TB) { p.signal(t, syscall.SIGCONT) }

func (p *Process) signal(t TB, sig os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// await polls for a condition, and gives up after a while.
func await(t TB, what string, condition func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for look := time.NewTicker(10 * time.Millisecond); !condition(ctx); <-look.C {
		if ctx.Err() != nil {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func client(t TB, addr string) redis.UniversalClient {
	c := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// freeAddr is an address that nobody listens at. Its port is below those that the
// system gives to outgoing connections: while a server is down, a client that
// keeps dialling would end up there by chance. 10000 more, where a Cluster has its
// bus, is free and below them too.
func freeAddr(t TB) string {
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

func port(t TB, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return port
}
