package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/api"
	"terbayar/internal/durable"
	"terbayar/internal/events"
	"terbayar/internal/ledger"
	"terbayar/internal/redishealth"
	"terbayar/internal/telemetry"
	"terbayar/internal/testenv"
)

// stateOf is the state of Redis that a test wants the server to see.
type stateOf struct {
	mu    sync.Mutex
	state redishealth.State
}

func (s *stateOf) State() redishealth.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

func (s *stateOf) set(up bool, problem string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = redishealth.State{Up: up, Writable: up, Problem: problem}
}

// env is a server behind a real socket, in a test environment.
type env struct {
	*testenv.Env

	t       *testing.T
	options api.Options
	keys    *api.Keys
	state   *stateOf
	metrics *telemetry.API
	log     *syncBuffer
	addr    string
	stop    context.CancelFunc
	done    chan error
	client  *http.Client
	key     string // the token that requests send
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// newEnv starts a server with one key that may do everything.
func newEnv(t *testing.T, client redis.UniversalClient, edits ...func(*env)) *env {
	t.Helper()
	e := &env{Env: testenv.New(t, client), t: t, state: &stateOf{}, log: &syncBuffer{}}
	e.state.set(true, "")
	e.metrics = telemetry.NewAPI(e.state)
	token, key, err := api.NewKey("all", api.Scope{}, "")
	if err != nil {
		t.Fatal(err)
	}
	e.key, e.keys = token, api.NewKeys([]api.Key{key})
	e.metrics.Keys([]string{"all"})
	e.options = api.Options{
		Intake: e.Intake, Ledger: e.Ledger, Streams: events.NewStreams(client, ledger.StreamNames(ledger.DefaultStream, 1)),
		Redis: e.state, Metrics: e.metrics, Now: e.Now, Log: slog.New(slog.NewTextHandler(e.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		ShutdownTimeout: 10 * time.Second,
	}
	for _, edit := range edits {
		edit(e)
	}
	e.options.Keys = e.keys
	e.start()
	return e
}

// start starts the server.
func (e *env) start() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		e.t.Fatal(err)
	}
	e.addr = l.Addr().String()
	e.done = make(chan error, 1)
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	e.client = &http.Client{Transport: transport, Timeout: time.Minute}
	ctx, cancel := context.WithCancel(context.Background())
	e.stop = cancel
	server := api.New(e.options)
	go func() { e.done <- server.Serve(ctx, l, nil) }()
	e.t.Cleanup(func() {
		cancel()
		transport.CloseIdleConnections()
		if err := <-e.done; err != nil {
			e.t.Error(err)
		}
	})
}

// usePartitions spreads ledger and events over partitions.
func usePartitions(n int) func(*env) {
	return func(e *env) {
		discard := slog.New(slog.DiscardHandler)
		l := ledger.New(ledger.Options{
			Redis: e.Redis, Stream: ledger.DefaultStream, Partitions: n, Now: e.Now, Log: discard,
			Writes: durable.NewWriters(durable.Options{Client: e.Redis, Mode: durable.None, Now: e.Now, Log: discard}, ledger.DurabilityKeys(e.Redis, n)),
		})
		e.Ledger, e.Intake.Ledger, e.Submitter.Ledger, e.Poller.Ledger, e.options.Ledger = l, l, l, l, l
		e.options.Streams = events.NewStreams(e.Redis, ledger.StreamNames(ledger.DefaultStream, n))
	}
}

// addKey adds a key and returns its token.
func (e *env) addKey(keys *[]api.Key, name string, scope api.Scope, until string) string {
	e.t.Helper()
	token, key, err := api.NewKey(name, scope, until)
	if err != nil {
		e.t.Fatal(err)
	}
	*keys = append(*keys, key)
	return token
}

// answer is an answer with its body read.
type answer struct {
	*http.Response

	body string
}

func (a answer) json(t *testing.T) map[string]any {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal([]byte(a.body), &all); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	return all
}

// do sends a request. headers are name, value, name, value, ... Every answer is compared with
// openapi.json.
func (e *env) do(method, path, body string, headers ...string) answer {
	e.t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(e.t.Context(), method, "http://"+e.addr+path, reader)
	if err != nil {
		e.t.Fatal(err)
	}
	if e.key != "" {
		r.Header.Set("Authorization", "Bearer "+e.key)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1] //nolint:gosec // G602: pairs
			continue
		}
		r.Header.Add(headers[i], headers[i+1]) //nolint:gosec // G602: pairs
	}
	res, err := e.client.Do(r)
	if err != nil {
		e.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	a := answer{res, string(text)}
	checkAnswer(e.t, r, a)
	return a
}

// document is openapi.json, parsed and compiled.
var document = sync.OnceValues(func() (validator.Validator, error) {
	text, err := os.ReadFile("openapi.json")
	if err != nil {
		return nil, err
	}
	doc, err := libopenapi.NewDocument(text)
	if err != nil {
		return nil, err
	}
	v, errs := validator.NewValidator(doc)
	if len(errs) > 0 {
		return nil, errs[0]
	}
	return v, nil
})

var seen sync.Map // "GET /v1/events 200": true

// checkAnswer fails if openapi.json does not have this answer to the request.
func checkAnswer(t *testing.T, r *http.Request, a answer) {
	t.Helper()
	if a.StatusCode == http.StatusMethodNotAllowed || strings.Contains(a.body, "there is nothing at this path") ||
		r.Method == http.MethodHead || strings.HasPrefix(r.URL.Path, "/docs/") || strings.Contains(a.Header.Get("Content-Type"), "ndjson") {
		return
	}
	isCallback := strings.HasPrefix(r.URL.Path, "/callbacks/")
	if a.StatusCode >= 400 && !isCallback {
		p := a.json(t)
		if a.Header.Get("Content-Type") != "application/problem+json" || p["type"] == "" || p["title"] == "" || p["detail"] == "" || p["status"] != float64(a.StatusCode) {
			t.Errorf("%s %s: %s %s", r.Method, r.URL, a.Header.Get("Content-Type"), a.body)
		}
	}
	v, err := document()
	if err != nil {
		t.Fatal(err)
	}
	path := r.URL.Path
	if parts := strings.Split(r.URL.EscapedPath(), "/"); strings.HasPrefix(path, "/v1/payments/") && len(parts) == 5 {
		path = "/v1/payments/{gateway}/{id}"
	}
	if isCallback { // as the metrics name it
		path = r.URL.Path[:strings.LastIndex(r.URL.Path, "/")] + "/{secret}"
	}
	seen.Store(fmt.Sprintf("%s %s %d", r.Method, path, a.StatusCode), true)
	res := *a.Response
	res.Body = io.NopCloser(strings.NewReader(a.body))
	if path == "/v1/payments/{gateway}/{id}" { // the validator knows no encoded slash
		clone := r.Clone(t.Context())
		clone.URL.Path, clone.URL.RawPath = "/v1/payments/paydia/x", ""
		r = clone
	}
	if strings.HasPrefix(a.Header.Get("Content-Type"), "text/") || a.StatusCode == http.StatusNotModified {
		return
	}
	if ok, errs := v.ValidateHttpResponse(r, &res); !ok {
		for _, err := range errs {
			t.Errorf("%s %s: %d is not as openapi.json says: %s: %s %v\n%s", r.Method, r.URL, a.StatusCode, err.Message, err.Reason, err.SchemaValidationErrors, a.body)
		}
	}
}

func am(id string) string     { return string(testenv.AMOrder(id)) }
func paydia(id string) string { return string(testenv.PaydiaOrder(id)) }
