package programs

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/events"
	"terbayar/internal/gatewaysim"
	"terbayar/internal/ledger"
	"terbayar/internal/redisconn"
	"terbayar/internal/secret"
	"terbayar/internal/testenv"
)

// TB is implemented by testing.TB and, for programs, by testenv.ProgramTB.
type TB = testenv.TB

// Timeout limits every wait of a test. It is generous: the tests run beside others on a busy
// machine.
const Timeout = 2 * time.Minute

// Env is the environment of the programs in one test.
type Env struct {
	TB

	Sim      *gatewaysim.Server
	Redis    redis.UniversalClient
	Ledger   *ledger.Ledger // for reading
	Streams  *events.Streams
	Settings map[string]string // environment variables of every program
	LogDir   string            // the programs write their logs there; may be empty

	mu        sync.Mutex
	processes []*Process
}

// Options are the optional parts of an environment.
type Options struct {
	Simulators []func(*gatewaysim.Config)      // change how the gateways behave
	Middleware func(http.Handler) http.Handler // around both gateways
	Settle     time.Duration                   // verify.settle of the retry policy; default 3s
	Partitions int                             // of the ledger; default 1
	LogDir     string
}

// New returns an environment on the Redis at a REDIS_URL.
func New(t TB, redisURL string, o Options) *Env {
	t.Helper()
	cfg := gatewaysim.DefaultConfig()
	for _, edit := range o.Simulators {
		edit(&cfg)
	}
	if o.Settle == 0 {
		o.Settle = 3 * time.Second
	}
	e := &Env{TB: t, LogDir: o.LogDir, Sim: testenv.Simulators(t, cfg, gatewaysim.ServerOptions{Middleware: o.Middleware})}
	e.Redis = e.Connect(redisURL)
	partitions := max(o.Partitions, 1)
	e.Ledger = ledger.NewReader(e.Redis, partitions)
	e.Streams = events.NewStreams(e.Redis, ledger.StreamNames(ledger.DefaultStream, partitions))
	e.Settings = map[string]string{
		"LEDGER_PARTITIONS": strconv.Itoa(partitions),
		"REDIS_URL":         redisURL,
		"PAYLOAD_KEYS":      secret.NewKey().Reveal(),
		"RETRY_POLICY_FILE": e.File("policy.yaml", FastPolicy(o.Settle)),
		"LOG_FORMAT":        "json",
		"WORKER_HTTP_ADDR":  "127.0.0.1:0", "WORKER_SHUTDOWN_TIMEOUT": "15s", "GATEWAY_TIMEOUT": "5s",
		"STATUS_POLL_INTERVAL": "1s", "EXPIRY_GRACE": "1s",
	}
	for _, s := range e.Sim.Settings() {
		e.Settings[s.Name] = s.Value
	}
	return e
}

// FastPolicy is the retry policy of the tests: the built-in one with seconds instead of
// minutes, and with enough lookups although faults make many of them fail.
func FastPolicy(settle time.Duration) string {
	return fmt.Sprintf(`gateways:
  amdigipay:
    verify: {settle: %[1]s, lookups: 2, then: review}
    rules:
      - {code: "net:unknown", action: verify, backoff: &pace {type: constant, base: 1s}, max_attempts: 1000}
      - {code: "body:unreadable", action: verify, backoff: *pace, max_attempts: 1000}
      - {code: "http:5xx", action: verify, backoff: *pace, max_attempts: 1000}
      - {code: "http:202", action: verify, backoff: *pace, max_attempts: 1000}
  paydia:
    verify: {settle: %[1]s, lookups: 2, then: review}
    rules:
      - {code: "net:unknown", action: verify, backoff: *pace, max_attempts: 1000}
      - {code: "body:unreadable", action: verify, backoff: *pace, max_attempts: 1000}
      - {code: "http:5xx", action: verify, backoff: *pace, max_attempts: 1000}
      - {code: "http:2xx", action: verify, backoff: *pace, max_attempts: 1000}
      - {code: "202xx00", action: verify, backoff: *pace, max_attempts: 1000}
      - {code: "500xx01", action: verify, backoff: *pace, max_attempts: 1000}
`, settle)
}

// File writes a file that is removed when the test ends, and returns its path.
func (e *Env) File(name, content string) string {
	e.Helper()
	path := filepath.Join(e.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		e.Fatal(err)
	}
	return path
}

// Connect opens a Redis client as the programs do.
func (e *Env) Connect(redisURL string) redis.UniversalClient {
	e.Helper()
	client, err := redisconn.Open(redisURL, redisconn.Passwords{})
	if err != nil {
		e.Fatal(err)
	}
	e.Cleanup(func() { _ = client.Close() })
	return client
}

// Eventually waits until a condition is true, and fails the test after the timeout.
func (e *Env) Eventually(what string, condition func() bool) {
	e.Helper()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(Timeout); !condition(); <-poll.C {
		if time.Now().After(deadline) {
			e.Fatalf("not within %s: %s", Timeout, what)
		}
		if e.Context().Err() != nil {
			e.Fatal(e.Context().Err())
		}
	}
}

// StartWorker starts a worker and does not wait for it. The edits are those of Start.
func (e *Env) StartWorker(edits ...string) *Process {
	e.Helper()
	return e.Start("worker", nil, edits...)
}

// Worker starts a worker and waits until it is ready.
func (e *Env) Worker(edits ...string) *Process {
	e.Helper()
	return e.awaitReady(e.StartWorker(edits...))
}

// WorkerAt is Worker with the program at a path.
func (e *Env) WorkerAt(path string, edits ...string) *Process {
	e.Helper()
	return e.awaitReady(e.Start(path, nil, edits...))
}

func (e *Env) awaitReady(p *Process) *Process {
	e.Helper()
	e.Eventually("the worker is ready", func() bool {
		if p.HasEnded() {
			e.Fatalf("%s ended with exit code %d: %s", p.Name, p.Exit(), p.Stderr.String())
		}
		url := p.URL()
		return url != "" && e.Status(url+"/readyz") == http.StatusOK
	})
	return p
}

// Status returns the HTTP status of a page; 0 if there is no answer.
func (e *Env) Status(url string) int {
	e.Helper()
	ctx, cancel := context.WithTimeout(e.Context(), 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		e.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0
	}
	_ = res.Body.Close()
	return res.StatusCode
}

// Workers returns all workers that were started, including those that have ended.
func (e *Env) Workers() []*Process {
	e.mu.Lock()
	defer e.mu.Unlock()
	var workers []*Process
	for _, p := range e.processes {
		if filepath.Base(p.cmd.Path) == "worker" {
			workers = append(workers, p)
		}
	}
	return workers
}

// StopWorkers sends SIGTERM to all workers that run and waits until they, and those that
// were sent SIGTERM before, have ended. It kills those that take longer than the given time.
func (e *Env) StopWorkers(within time.Duration) {
	for _, p := range e.Workers() {
		if !p.HasEnded() && p.terminated.IsZero() {
			p.Signal(syscall.SIGTERM)
		}
	}
	for _, p := range e.Workers() {
		select {
		case <-p.ended:
		case <-time.After(time.Until(p.terminated.Add(within))):
			_ = p.cmd.Process.Kill() // Crashed reports it
			<-p.ended
		}
	}
}

// Crashed names the workers that ended by themselves, or after SIGTERM with an exit code
// other than 0.
func (e *Env) Crashed() (names []string) {
	for _, p := range e.Workers() {
		if p.HasEnded() && !p.killed && p.cmd.ProcessState.ExitCode() != 0 || p.HasEnded() && !p.killed && p.terminated.IsZero() {
			name := fmt.Sprintf("%s (exit code %d", p.Name, p.cmd.ProcessState.ExitCode())
			if !p.terminated.IsZero() {
				name += fmt.Sprintf(", %s after SIGTERM", p.endedAt.Sub(p.terminated).Round(time.Millisecond))
			}
			names = append(names, name+")")
		}
	}
	return names
}
