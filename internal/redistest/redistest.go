// Package redistest starts Redis for tests: miniredis, redis-server, Sentinel with replicas,
// and Cluster. bench/chaos uses it too.
package redistest

import (
	"context"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// TB is the part of testing.TB that a test environment needs. bench/chaos, which is not a
// test, has its own.
type TB interface {
	Helper()
	Context() context.Context
	TempDir() string
	Cleanup(f func())
	Failed() bool
	Logf(format string, args ...any)
	Error(args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// runner is implemented by *testing.T.
type runner[T any] interface {
	TB
	Run(name string, test func(t T)) bool
}

// Each runs a test on an empty miniredis and on an empty redis-server.
func Each[T runner[T]](t T, test func(t T, client redis.UniversalClient)) {
	t.Helper()
	t.Run("miniredis", func(t T) { test(t, Mini(t)) })
	t.Run("redis-server", func(t T) { test(t, Server(t).Client(t)) })
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

// clocks holds the miniredis of each client of Mini.
var clocks sync.Map

// SetTime sets the clock of the miniredis of a client of Mini. It returns false for any
// other client: a redis-server has the real time.
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
	env     []string // in addition to the test's own
	cmd     *exec.Cmd
}

// Server starts a redis-server that fsyncs its append-only file before every answer, so
// that every acknowledged write survives a Kill. args are further arguments of the
// redis-server. If none is installed the test is skipped; in CI it fails.
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

// start starts a program that listens at the address, and kills it when the test ends.
func start(t TB, addr, program string, args ...string) *Process {
	t.Helper()
	need(t, program)
	p := &Process{Addr: addr, program: program, args: args}
	t.Cleanup(p.Kill)
	p.Start(t)
	return p
}

// need skips the test if a program is not installed; in CI it fails.
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
	info, err := c.Do(t.Context(), "COMMAND", "INFO", command).Slice()
	if err != nil {
		t.Fatal(err)
	}
	return len(info) == 1 && info[0] != nil
}

// Start starts the server, for the first time or after a Kill, and waits until it answers.
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

// Kill is kill -9.
func (p *Process) Kill() {
	if p.cmd == nil || p.cmd.Process == nil { // it was not started
		return
	}
	_ = p.cmd.Process.Kill() // it may be dead already
	_ = p.cmd.Wait()
}

// Pause freezes the server until Resume or Kill: it keeps its connections and does not
// answer.
func (p *Process) Pause(t TB) { p.signal(t, syscall.SIGSTOP) }

// Resume ends a Pause.
func (p *Process) Resume(t TB) { p.signal(t, syscall.SIGCONT) }

func (p *Process) signal(t TB, sig os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// awaitTimeout is generous: these tests run beside others on a busy machine.
const awaitTimeout = 60 * time.Second

// await polls for a condition until the timeout.
func await(t TB, what string, condition func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), awaitTimeout)
	defer cancel()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for ; !condition(ctx); <-poll.C {
		if ctx.Err() != nil {
			t.Fatalf("not within %s: %s", awaitTimeout, what)
		}
	}
}

func client(t TB, addr string) redis.UniversalClient {
	c := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// freeAddr returns an address that is not in use, and that no other call returns until the
// test ends, in this process or another. Its port is below the range that the system uses for
// outgoing connections: otherwise a client that dials the port of a server that is down could
// get this port as its own. The port plus 10000, which a Cluster uses for its bus, is free too
// and below that range.
func freeAddr(t TB) string {
	t.Helper()
	for range 1000 {
		n := 10_000 + rand.N(10_000)
		if !reserve(t, n) {
			continue
		}
		if addr := loopback(n); isFree(addr) && isFree(loopback(n+10_000)) {
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

// reserve locks a file for a port until the test ends, and reports whether it was unlocked.
func reserve(t TB, port int) bool {
	t.Helper()
	dir := filepath.Join(os.TempDir(), "terbayar-test-ports-"+strconv.Itoa(os.Getuid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(port)), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		_ = file.Close()
		return false
	}
	t.Cleanup(func() { _ = file.Close() }) // unlocks it
	return true
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func isFree(addr string) bool {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	_ = l.Close()
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
