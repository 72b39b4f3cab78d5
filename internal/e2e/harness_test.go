// Package e2e drives the programs as a user does: worker and enqueue, built from
// the checkout and told everything by their environment, a real redis-server,
// and both simulated gateways, whose journal is the witness.
package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/ledger"
	"terbayar/internal/redistest"
	"terbayar/internal/secret"
)

// programs is where the programs under test are.
var programs string

func TestMain(m *testing.M) {
	flag.Parse()
	err := flag.Set("test.parallel", "4") // the tests wait more than they work
	if err == nil {
		programs, err = os.MkdirTemp("", "terbayar-e2e-")
	}
	if err == nil {
		err = build(programs)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(programs)
	os.Exit(code)
}

// build builds the programs, with the race detector if the tests have it.
func build(dir string) error {
	args := []string{"build", "-o", dir}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "terbayar/cmd/worker", "terbayar/cmd/enqueue")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return nil
}

// stage is what stands around the programs of one test.
type stage struct {
	*testing.T

	server  *redistest.Process
	redis   redis.UniversalClient
	book    *ledger.Ledger
	sim     *gatewaysim.Sim
	gateway *witness
	env     map[string]string // of every program
	pem     string
	workers []*process
	printed strings.Builder // by enqueue
}

// policy makes minutes into seconds. Look-ups never run out: under faults they
// fail too.
const policy = `gateways:
  amdigipay:
    verify: {settle: 3s, lookups: 2, then: review}
    rules:
      - {code: "net:unknown", action: verify, backoff: &pace {type: constant, base: 1s}, max_attempts: 100}
      - {code: "body:unreadable", action: verify, backoff: *pace, max_attempts: 100}
      - {code: "http:5xx", action: verify, backoff: *pace, max_attempts: 100}
      - {code: "http:202", action: verify, backoff: *pace, max_attempts: 100}
  paydia:
    verify: {settle: 3s, lookups: 2, then: review}
    rules:
      - {code: "net:unknown", action: verify, backoff: *pace, max_attempts: 100}
      - {code: "body:unreadable", action: verify, backoff: *pace, max_attempts: 100}
      - {code: "http:5xx", action: verify, backoff: *pace, max_attempts: 100}
      - {code: "http:2xx", action: verify, backoff: *pace, max_attempts: 100}
      - {code: "202xx00", action: verify, backoff: *pace, max_attempts: 100}
      - {code: "500xx01", action: verify, backoff: *pace, max_attempts: 100}
`

// newStage sets a stage up. The edits change how the gateways behave.
func newStage(t *testing.T, edits ...func(*gatewaysim.Config)) *stage {
	t.Helper()
	private, public, err := gatewaysim.NewKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	cfg := gatewaysim.DefaultConfig()
	cfg.Paydia.PublicKey = public
	cfg.Customers, cfg.Refusals = customers(), refusals()
	for _, edit := range edits {
		edit(&cfg)
	}
	s := &stage{T: t, server: redistest.Server(t), sim: gatewaysim.New(cfg, time.Now), pem: string(private)}
	s.redis = s.server.Client(t)
	s.book = ledger.NewReader(s.redis)
	s.gateway = &witness{next: s.sim.Handler(), secrets: map[string]bool{}}
	site := httptest.NewServer(s.gateway)
	t.Cleanup(site.Close)
	s.env = map[string]string{
		"REDIS_URL":          s.server.URL(),
		"AMDIGIPAY_BASE_URL": site.URL + "/api", "AMDIGIPAY_USERNAME": cfg.AM.Username, "AMDIGIPAY_PASSWORD": cfg.AM.Password,
		"PAYDIA_BASE_URL": site.URL + "/snap/v1.0", "PAYDIA_CLIENT_ID": cfg.Paydia.ClientID,
		"PAYDIA_CLIENT_SECRET": cfg.Paydia.ClientSecret, "PAYDIA_PRIVATE_KEY": s.pem, "PAYDIA_MERCHANT_ID": cfg.Paydia.MerchantID,
		"PAYLOAD_KEYS":         secret.NewKey().Reveal(),
		"WORKER_HTTP_ADDR":     "127.0.0.1:0",
		"STATUS_POLL_INTERVAL": "1s", "EXPIRY_GRACE": "1s", "GATEWAY_TIMEOUT": "5s", "WORKER_SHUTDOWN_TIMEOUT": "15s",
		"RETRY_POLICY_FILE": s.file("policy.yaml", policy),
		"LOG_LEVEL":         "debug",
	}
	return s
}

// file writes a file of the test's own and returns its path.
func (s *stage) file(name, content string) string {
	s.Helper()
	path := filepath.Join(s.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		s.Fatal(err)
	}
	return path
}

// process is a program that runs.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout output
	stderr output
	ended  chan struct{}
}

// start starts a program. The edits, NAME=value, change its environment; an
// empty value takes a variable away.
func (s *stage) start(program string, args []string, edits ...string) *process {
	s.Helper()
	env := maps.Clone(s.env)
	for _, edit := range edits {
		name, value, _ := strings.Cut(edit, "=")
		env[name] = value
	}
	p := &process{cmd: exec.Command(filepath.Join(programs, program), args...), ended: make(chan struct{})}
	p.cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"),
		"GORACE=atexit_sleep_ms=0", // the race detector would stay for a second after every end
	}
	for name, value := range env {
		if value != "" {
			p.cmd.Env = append(p.cmd.Env, name+"="+value)
		}
	}
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		s.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		s.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // the exit code tells
	}()
	s.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it has ended, or nobody waits for it
		<-p.ended
		if strings.Contains(p.stderr.String(), "DATA RACE") {
			s.Errorf("%s: %s", program, p.stderr.String())
		}
	})
	return p
}

// exit waits for the end of a program and returns its exit code.
func (s *stage) exit(p *process, within time.Duration) int {
	s.Helper()
	select {
	case <-p.ended:
	case <-time.After(within):
		s.Fatalf("%s has not ended within %s\n%s", p.cmd.Path, within, tail(p.stderr.String()))
	}
	return p.cmd.ProcessState.ExitCode()
}

// signal sends a signal to a program that runs.
func (s *stage) signal(p *process, sig os.Signal) {
	s.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		s.Fatal(err)
	}
}

// worker starts a worker and waits until it is ready.
func (s *stage) worker(edits ...string) *process {
	s.Helper()
	p := s.start("worker", nil, edits...)
	s.eventually("a worker is ready", 30*time.Second, func() bool {
		select {
		case <-p.ended:
			s.Fatalf("worker ended with %d: %s", p.cmd.ProcessState.ExitCode(), p.stderr.String())
		default:
		}
		return strings.Contains(p.stderr.String(), `"worker is ready"`)
	})
	s.workers = append(s.workers, p)
	return p
}

// stop ends a worker as Kubernetes does, and demands that it ends well.
func (s *stage) stop(p *process) {
	s.Helper()
	s.signal(p, syscall.SIGTERM)
	if code := s.exit(p, 20*time.Second); code != 0 {
		s.Errorf("worker ended with %d\n%s", code, tail(p.stderr.String()))
	}
}

var listensAt = regexp.MustCompile(`"msg":"worker starts",.*?"http":"([^"]+)"`)

// site is the address of a worker's pages.
func (s *stage) site(p *process) string {
	s.Helper()
	m := listensAt.FindStringSubmatch(p.stderr.String())
	if m == nil {
		s.Fatalf("the log does not say where the worker listens: %s", p.stderr.String())
	}
	return "http://" + m[1]
}

// page asks for a page; the edits change the request. A site that does not
// answer is status 0.
func (s *stage) page(method, url string, edits ...func(*http.Request)) (status int, body string) {
	s.Helper()
	r, err := http.NewRequestWithContext(s.Context(), method, url, http.NoBody)
	if err != nil {
		s.Fatal(err)
	}
	for _, edit := range edits {
		edit(r)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(text)
}

// result is what a program said that has ended.
type result struct {
	code           int
	stdout, stderr string
}

// run runs a program to its end.
func (s *stage) run(program string, args []string, stdin string, edits ...string) result {
	s.Helper()
	p := s.start(program, args, edits...)
	_, _ = io.WriteString(p.stdin, stdin) // a program may end without reading it
	_ = p.stdin.Close()
	return result{s.exit(p, 30*time.Second), p.stdout.String(), p.stderr.String()}
}

// enqueue runs enqueue and remembers what it printed.
func (s *stage) enqueue(stdin string, args ...string) result {
	s.Helper()
	r := s.run("enqueue", args, stdin)
	s.printed.WriteString(r.stdout + r.stderr)
	return r
}

// eventually polls for a condition, and gives up at the deadline.
func (s *stage) eventually(what string, within time.Duration, condition func() bool) {
	s.Helper()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(within); !condition(); <-look.C {
		if time.Now().After(deadline) {
			s.Fatalf("not within %s: %s", within, what)
		}
	}
}

// output gathers what a program prints while it runs.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// tail is the end of a long text.
func tail(text string) string { return text[max(0, len(text)-3000):] }

// lines decodes one JSON value a line, and nothing that T does not know.
func lines[T any](s *stage, text string) []T {
	s.Helper()
	var all []T
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	for {
		var value T
		switch err := dec.Decode(&value); {
		case errors.Is(err, io.EOF):
			if n := strings.Count(text, "\n"); n != len(all) {
				s.Errorf("%d values in %d lines", len(all), n)
			}
			return all
		case err != nil:
			s.Fatalf("%v in %s", err, tail(text))
		}
		all = append(all, value)
	}
}

// witness stands before the gateways. It keeps the secrets that come by, and
// counts the requests that are being answered.
type witness struct {
	next http.Handler

	mu      sync.Mutex
	secrets map[string]bool
	inside  int // money-moving requests that have not been answered yet
}

// ServeHTTP implements http.Handler.
func (w *witness) ServeHTTP(res http.ResponseWriter, req *http.Request) {
	moves := 0
	if strings.HasSuffix(req.URL.Path, "/payment/transaction") || strings.HasSuffix(req.URL.Path, "/auth/payment") {
		moves = 1
	}
	w.mu.Lock()
	for _, name := range []string{"Authorization", "Authorization-Customer", "X-Signature"} {
		if value := strings.TrimPrefix(req.Header.Get(name), "Bearer "); value != "" {
			w.secrets[value] = true
		}
	}
	w.inside += moves
	w.mu.Unlock()
	defer func() { // a gateway that loses the connection panics
		w.mu.Lock()
		defer w.mu.Unlock()
		w.inside -= moves
	}()
	w.next.ServeHTTP(res, req)
}

// underWay is how many money-moving requests have not been answered yet.
func (w *witness) underWay() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.inside
}

// secrets lists everything that must be seen nowhere.
func (s *stage) secrets() []string {
	all := []string{s.env["AMDIGIPAY_PASSWORD"], s.env["PAYDIA_CLIENT_SECRET"], s.env["PAYLOAD_KEYS"], tokenMark}
	for line := range strings.Lines(s.pem) {
		if !strings.HasPrefix(line, "-----") {
			all = append(all, strings.TrimSpace(line))
		}
	}
	s.gateway.mu.Lock()
	defer s.gateway.mu.Unlock()
	return slices.AppendSeq(all, maps.Keys(s.gateway.secrets))
}

// noSecrets looks for secrets in every place that anybody may look into, and for
// customers in all of them but the ledger.
func (s *stage) noSecrets() {
	s.Helper()
	places := map[string]string{"enqueue": s.printed.String()}
	for i, w := range s.workers {
		places[fmt.Sprintf("log of worker %d", i)] = w.stdout.String() + w.stderr.String()
		maps.Copy(places, s.pages(w))
	}
	for key, content := range s.keys() {
		if strings.HasPrefix(key, "asynq:") {
			places[key] = content
		}
	}
	s.find(personalMarks, places)
	maps.Copy(places, s.keys())
	places["append-only file"] = s.appendOnlyFile()
	if !strings.Contains(places["append-only file"], "asynq:{paydia}") {
		s.Error("the append-only file is not what was written to Redis")
	}
	s.find(s.secrets(), places)
}

// window is how much of a long text is looked for: half a secret is bad enough.
const window = 32

// find looks for many texts in many places, the long ones all at once.
func (s *stage) find(texts []string, places map[string]string) {
	s.Helper()
	long := map[string]bool{}
	for name, place := range places {
		for _, text := range texts {
			if len(text) >= window {
				long[text[:window]] = true
			} else if i := strings.Index(place, text); i >= 0 {
				s.Errorf("%s shows %q: %.300s", name, text, place[max(0, i-100):])
			}
		}
		for i := 0; i+window <= len(place); i++ {
			if long[place[i:i+window]] {
				s.Errorf("%s shows %q...: %.300s", name, place[i:i+window], place[max(0, i-100):])
			}
		}
	}
}

// pages is what a running worker shows.
func (s *stage) pages(p *process) map[string]string {
	s.Helper()
	select {
	case <-p.ended:
		return nil
	default:
	}
	paths := []string{
		"/metrics", "/monitoring/", "/monitoring/api/queues", "/monitoring/api/queue_stats",
		"/monitoring/api/servers", "/monitoring/api/scheduler_entries", "/monitoring/api/redis_info",
	}
	queues, err := s.redis.SMembers(s.Context(), "asynq:queues").Result() // one that was never used is not known to asynq
	if err != nil || len(queues) == 0 {
		s.Fatalf("asynq knows the queues %v: %v", queues, err)
	}
	for _, queue := range queues {
		for _, list := range []string{"active", "pending", "scheduled", "retry", "archived", "completed"} {
			paths = append(paths, "/monitoring/api/queues/"+queue+"/"+list+"_tasks?size=1000")
		}
	}
	pages := map[string]string{}
	for _, path := range paths {
		status, body := s.page(http.MethodGet, s.site(p)+path)
		if status != http.StatusOK {
			s.Errorf("%s: %d %s", path, status, body)
		}
		pages[path] = body
	}
	return pages
}

// keys is the content of every key in Redis.
func (s *stage) keys() map[string]string {
	s.Helper()
	ctx := s.Context()
	all := map[string]string{}
	for scan := s.redis.Scan(ctx, 0, "*", 1000).Iterator(); scan.Next(ctx); {
		key := scan.Val()
		kind, err := s.redis.Type(ctx, key).Result()
		if err != nil {
			s.Fatal(err)
		}
		content, err := s.content(ctx, kind, key)
		if err != nil && !errors.Is(err, redis.Nil) { // it may have gone meanwhile
			s.Fatal(err)
		}
		all[key] = fmt.Sprint(content)
	}
	if len(all) == 0 {
		s.Error("no keys in Redis")
	}
	return all
}

func (s *stage) content(ctx context.Context, kind, key string) (any, error) {
	switch kind {
	case "string":
		return s.redis.Get(ctx, key).Result()
	case "hash":
		return s.redis.HGetAll(ctx, key).Result()
	case "list":
		return s.redis.LRange(ctx, key, 0, -1).Result()
	case "set":
		return s.redis.SMembers(ctx, key).Result()
	case "zset":
		return s.redis.ZRange(ctx, key, 0, -1).Result()
	case "stream":
		return s.redis.XRange(ctx, key, "-", "+").Result()
	case "none":
		return nil, redis.Nil
	default:
		return nil, fmt.Errorf("%s is of the type %s", key, kind)
	}
}

// appendOnlyFile is everything that was ever written to Redis, also what is gone.
func (s *stage) appendOnlyFile() string {
	s.Helper()
	dir, err := s.redis.ConfigGet(s.Context(), "dir").Result()
	if err != nil {
		s.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir["dir"], "appendonlydir", "*.aof"))
	if err != nil || len(files) == 0 {
		s.Fatalf("no append-only file in %s: %v", dir["dir"], err)
	}
	var all strings.Builder
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			s.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}
