package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/config"
	"terbayar/internal/gatewaysim"
	"terbayar/internal/ledger"
	"terbayar/internal/redisconn"
	"terbayar/internal/secret"
)

// The times of a run: what takes minutes in the field takes seconds here.
const (
	gatewayTimeout  = 2 * time.Second
	settleTime      = 6 * time.Second
	shutdownTimeout = 10 * time.Second
	shutdownGrace   = shutdownTimeout + 20*time.Second // a busy machine may take its time
)

// claimLease is what the worker makes of the time-out.
var claimLease = (&config.Worker{GatewayTimeout: gatewayTimeout}).ClaimLease((&config.Redis{}).LongestWait())

// policy makes minutes into seconds. Look-ups never run out: under faults they
// fail too.
var policy = fmt.Sprintf(`gateways:
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
`, settleTime)

// stage is what the payments live in: gateways, Redis, workers, and a folder with
// the programs, Redis's files and everybody's log.
type stage struct {
	flags

	dir     string
	env     []string // of every program
	sim     *gatewaysim.Sim
	site    *http.Server
	host    *host // of Redis
	server  *deployment
	lateWon int // failovers to the replica that lagged
	client  redis.UniversalClient
	book    *ledger.Ledger
	begun   time.Time    // when the stage was set
	started atomic.Int64 // processes so far

	crew    sync.Mutex // guards the workers:
	workers []*process
	leaving []leaver // told to end, and perhaps not gone yet
}

func newStage(ctx context.Context, f flags) (*stage, error) {
	dir, err := os.MkdirTemp("", "terbayar-chaos-")
	if err != nil {
		return nil, err
	}
	s := &stage{flags: f, dir: dir, begun: time.Now(), host: &host{ctx: ctx, dir: dir}}
	if err := s.set(ctx); err != nil {
		s.close(true)
		return nil, err
	}
	return s, nil
}

func (s *stage) set(ctx context.Context) error {
	build := exec.CommandContext(ctx, "go", "build", "-o", s.dir, "terbayar/cmd/worker", "terbayar/cmd/enqueue")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	private, public, err := gatewaysim.NewKeyPair()
	if err != nil {
		return err
	}
	cfg := gateways(s.flags)
	cfg.Paydia.PublicKey = public
	s.sim = gatewaysim.New(cfg, time.Now)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.site = &http.Server{Handler: distant(s.sim.Handler()), ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = s.site.Serve(listener) }() // ends with close

	policyFile := filepath.Join(s.dir, "policy.yaml")
	if err := os.WriteFile(policyFile, []byte(policy), 0o600); err != nil {
		return err
	}
	if err := s.host.try(func() { s.server = s.deploy() }); err != nil {
		return err
	}
	at := "http://" + listener.Addr().String()
	s.env = []string{
		"PATH=" + os.Getenv("PATH"), "REDIS_URL=" + s.server.url,
		"AMDIGIPAY_BASE_URL=" + at + "/api", "AMDIGIPAY_USERNAME=" + cfg.AM.Username, "AMDIGIPAY_PASSWORD=" + cfg.AM.Password,
		"PAYDIA_BASE_URL=" + at + "/snap/v1.0", "PAYDIA_CLIENT_ID=" + cfg.Paydia.ClientID, "PAYDIA_CLIENT_SECRET=" + cfg.Paydia.ClientSecret,
		"PAYDIA_PRIVATE_KEY=" + string(private), "PAYDIA_MERCHANT_ID=" + cfg.Paydia.MerchantID,
		"PAYLOAD_KEYS=" + secret.NewKey().Reveal(), "RETRY_POLICY_FILE=" + policyFile,
		"WORKER_HTTP_ADDR=127.0.0.1:0", "WORKER_SHUTDOWN_TIMEOUT=" + shutdownTimeout.String(),
		"GATEWAY_TIMEOUT=" + gatewayTimeout.String(), "GATEWAY_BREAKER_PAUSE=1s", "STATUS_POLL_INTERVAL=1s",
	}
	if s.Durability != "" {
		s.env = append(s.env, "REDIS_DURABILITY="+s.Durability)
	}
	if s.WaitReplicas != "" {
		s.env = append(s.env, "REDIS_WAIT_REPLICAS="+s.WaitReplicas)
	}
	if s.client, err = redisconn.Open(s.server.url, redisconn.Passwords{}); err != nil {
		return err
	}
	s.book = ledger.NewReader(s.client)
	for range s.Workers {
		if err := s.hire(); err != nil {
			return err
		}
	}
	return nil
}

// distant puts both gateways some way off, so that a kill finds requests on their
// way there and answers on their way back.
func distant(next http.Handler) http.Handler {
	travel := func() { time.Sleep(rand.N(250 * time.Millisecond)) } //nolint:gosec // no secret
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		travel()
		next.ServeHTTP(w, r) // a connection that is lost is a panic, and goes on as one
		travel()             // the answer is short: it leaves when the handler returns
	})
}

// close ends everything. The folder stays where the judgement was not clean.
func (s *stage) close(clean bool) {
	for _, w := range s.workers {
		w.kill()
	}
	for _, l := range s.leaving {
		l.kill()
	}
	if s.client != nil {
		_ = s.client.Close()
	}
	s.host.close()
	if s.site != nil {
		_ = s.site.Close()
	}
	if clean {
		_ = os.RemoveAll(s.dir)
	} else {
		log.Printf("the logs, and Redis's files, are in %s", s.dir)
	}
}

// say tells what is being done, unless --quiet.
func (s *stage) say(format string, args ...any) {
	if !s.Quiet {
		log.Printf("%6.1fs "+format, append([]any{time.Since(s.begun).Seconds()}, args...)...)
	}
}

// process is a child that runs.
type process struct {
	name  string // also of its log
	cmd   *exec.Cmd
	ended chan struct{}
	endAt time.Time // once ended is closed
}

// start starts a program, logging to a file of its own.
func (s *stage) start(program string, args ...string) (*process, error) {
	p := &process{name: fmt.Sprintf("%s-%d", filepath.Base(program), s.started.Add(1)), ended: make(chan struct{})}
	file, err := os.Create(filepath.Join(s.dir, p.name+".log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()    // the child has its own
	p.cmd = exec.Command(program, args...) //nolint:noctx // it ends by kill and close
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = s.env, file, file
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us to hear
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // the exit code tells
		p.endAt = time.Now()
	}()
	return p, nil
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended already
	<-p.ended
}

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// hire starts one more worker. It gets ready by itself, Redis or not. But for the
// setting of the stage its caller holds crew.
func (s *stage) hire() error {
	w, err := s.start(filepath.Join(s.dir, "worker"))
	if err == nil {
		s.workers = append(s.workers, w)
	}
	return err
}

// enqueue runs enqueue once, as a user would.
func (s *stage) enqueue(ctx context.Context, stdin string, args ...string) (stdout []byte, code int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(s.dir, "enqueue"), args...)
	var out, complaint bytes.Buffer
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = s.env, strings.NewReader(stdin), &out, &complaint
	err = cmd.Run()
	code = cmd.ProcessState.ExitCode() // -1: it did not start, or was killed
	if code < 0 || code == 2 {
		return nil, code, fmt.Errorf("enqueue %s: %w: %s", args[0], err, complaint.String())
	}
	return out.Bytes(), code, nil
}
