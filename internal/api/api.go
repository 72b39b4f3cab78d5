// Package api is the HTTP API for order systems, see docs/interface.md, "The HTTP API". It accepts
// payments through package intake, with the same rules as enqueue create, and answers what ledger
// and events have.
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"terbayar/internal/callbacks"
	"terbayar/internal/events"
	"terbayar/internal/intake"
	"terbayar/internal/ledger"
	"terbayar/internal/loopback"
	"terbayar/internal/redishealth"
	"terbayar/internal/telemetry"
)

// Options are the parts and settings of a Server.
type Options struct {
	Intake     *intake.Intake
	Ledger     *ledger.Ledger
	Streams    *events.Streams
	Redis      interface{ State() redishealth.State } // must not block
	Keys       *Keys
	RateLimit  *RateLimit         // nil: none
	Callbacks  *callbacks.Handler // nil: off
	ArchiveDir string
	Metrics    *telemetry.API
	Now        func() time.Time
	Log        *slog.Logger

	MetricsListener net.Listener // for /metrics, /healthz and /readyz, without TLS; nil: they are where all others are

	ShutdownDelay   time.Duration // how long connections are accepted after /readyz reports the shutdown
	ShutdownTimeout time.Duration // how long requests may take after that
}

// The limits of a Server. Slow clients, large bodies and too many connections end in timeouts or
// in answers 503, and never use unbounded memory.
const (
	maxConnections  = 10_000
	maxHeaderBytes  = 16 << 10
	headerTimeout   = 10 * time.Second // to send the header of a request
	idleTimeout     = 2 * time.Minute  // between two requests of a connection
	bodyTimeout     = 30 * time.Second // to send the body of one payment
	lineTimeout     = time.Minute      // between two parts of a batch
	writeTimeout    = 30 * time.Second // to receive a part of an answer
	maxWait         = time.Minute
	maxWaits        = 1000     // requests that wait, event streams included
	maxBatches      = 64       // batches at the same time
	maxBodyBytes    = 64 << 20 // all bodies in flight
	budgetTimeout   = 5 * time.Second
	maxArchiveReads = 4 // lookups in the archive at the same time, which read a whole day
)

// Server is the handler of the API.
type Server struct {
	o            Options
	mux          *http.ServeMux
	metricsMux   *http.ServeMux // mux, or that of MetricsListener
	hub          *hub
	bodies       *semaphore.Weighted // bytes
	waits        chan struct{}
	batches      chan struct{}
	archiveReads chan struct{}
	crossOrigin  *http.CrossOriginProtection

	checked  atomic.Bool     // the number of partitions was compared
	ready    atomic.Bool     // it serves
	draining atomic.Bool     // the shutdown has begun
	stopping chan struct{}   // closed when waiting requests are to be answered
	stop     func()          // closes stopping
	cut      context.Context //nolint:containedctx // ends when batches are cut off; requests have their own
	cutOff   context.CancelFunc
}

// New returns a Server.
func New(o Options) *Server {
	s := &Server{
		o: o, mux: http.NewServeMux(), hub: newHub(o.Streams), bodies: semaphore.NewWeighted(maxBodyBytes),
		waits: make(chan struct{}, maxWaits), batches: make(chan struct{}, maxBatches), archiveReads: make(chan struct{}, maxArchiveReads),
		crossOrigin: http.NewCrossOriginProtection(), stopping: make(chan struct{}),
	}
	s.cut, s.cutOff = context.WithCancel(context.Background())
	s.stop = sync.OnceFunc(func() { close(s.stopping) })
	s.metricsMux = s.mux
	if o.MetricsListener != nil {
		s.metricsMux = http.NewServeMux()
	}
	s.routes()
	return s
}

func (s *Server) routes() {
	methods := map[string][]string{} // by path
	muxOf := func(path string) *http.ServeMux {
		if path == "/healthz" || path == "/readyz" || path == "/metrics" {
			return s.metricsMux
		}
		return s.mux
	}
	handle := func(method, path string, handler func(*response, *http.Request)) {
		methods[path] = append(methods[path], method)
		muxOf(path).HandleFunc(method+" "+path, func(w http.ResponseWriter, r *http.Request) {
			answer, _ := w.(*response) // ServeHTTP makes it
			answer.route = path
			handler(answer, r)
		})
	}
	handle(http.MethodPost, "/v1/payments", s.withKey(s.postPayment))
	handle(http.MethodPost, "/v1/payments/batch", s.withKey(s.postBatch))
	handle(http.MethodGet, "/v1/payments", s.withKey(s.getPayments))
	handle(http.MethodGet, "/v1/payments/{gateway}/{id}", s.withKey(s.getPaymentByPath))
	handle(http.MethodDelete, "/v1/payments", s.withKey(s.deletePaymentByQuery))
	handle(http.MethodDelete, "/v1/payments/{gateway}/{id}", s.withKey(s.deletePaymentByPath))
	handle(http.MethodGet, "/v1/events", s.withKey(s.getEvents))
	handle(http.MethodGet, "/openapi.json", getOpenAPI)
	handle(http.MethodGet, "/docs", docsPage)
	handle(http.MethodGet, "/docs/", docsPage)
	handle(http.MethodGet, "/healthz", func(w *response, _ *http.Request) { fmt.Fprintln(w, "ok") })
	handle(http.MethodGet, "/readyz", s.getReady)
	handle(http.MethodGet, "/metrics", func(w *response, r *http.Request) { s.o.Metrics.Handler().ServeHTTP(w, r) })
	for path, allowed := range methods {
		if slices.Contains(allowed, http.MethodGet) {
			allowed = append(allowed, http.MethodHead)
		}
		slices.Sort(allowed)
		p := newProblem(http.StatusMethodNotAllowed, "this path does not have this method; it has "+strings.Join(allowed, ", "))
		p.header = map[string]string{"Allow": strings.Join(allowed, ", ")}
		muxOf(path).HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { p.write(w) })
	}
	s.mux.HandleFunc("/", nothingHere)
	if s.metricsMux != s.mux {
		s.metricsMux.HandleFunc("/", nothingHere)
	}
	if s.o.Callbacks != nil {
		s.mux.HandleFunc(callbacks.Path, s.callback)
	}
}

func nothingHere(w http.ResponseWriter, _ *http.Request) {
	newProblem(http.StatusNotFound, "there is nothing at this path; see /docs").write(w)
}

// callback answers a gateway's callback. With a wrong secret its path is like any that does not exist.
func (s *Server) callback(w http.ResponseWriter, r *http.Request) {
	g, ok := s.o.Callbacks.Gateway(r)
	if !ok {
		nothingHere(w, r)
		return
	}
	if answer, ok := w.(*response); ok {
		answer.route = callbacks.Route(g)
	}
	s.o.Callbacks.Serve(w, r, g)
}

// ServeHTTP implements http.Handler. It has no /metrics, /healthz and /readyz if they have a
// listener of their own.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.serve(s.mux, w, r) }

func (s *Server) serve(mux *http.ServeMux, writer http.ResponseWriter, r *http.Request) {
	start := time.Now()
	w := &response{ResponseWriter: writer, control: http.NewResponseController(writer), route: "other"}
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	if s.draining.Load() { // a connection that is not kept alive cannot be closed under the next request
		h.Set("Connection", "close")
	}
	aborted := true
	defer func() {
		if aborted {
			s.panicked(w, r, recover())
		}
		s.finish(w, r, time.Since(start))
		if w.abort { // the client must not take the answer for complete
			panic(http.ErrAbortHandler)
		}
	}()
	mux.ServeHTTP(w, r)
	aborted = false
}

// panicked handles a panic of a handler.
func (s *Server) panicked(w *response, r *http.Request, cause any) {
	s.o.Log.Error("request panicked", "route", w.route, "method", r.Method, "panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
	if w.abort = w.status != 0; !w.abort {
		newProblem(http.StatusInternalServerError, "the server has a defect: see its log").write(w)
	}
}

// finish counts a request, and logs it if it failed.
func (s *Server) finish(w *response, r *http.Request, took time.Duration) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	s.o.Metrics.Request(w.route, r.Method, w.status, took, !w.untimed)
	level := slog.LevelDebug
	if w.cause != nil {
		level = slog.LevelError
	}
	if s.o.Log.Enabled(r.Context(), level) {
		s.o.Log.Log(r.Context(), level, "request answered", "route", w.route, "method", r.Method, "status", w.status, "caller", w.caller,
			"remote", r.RemoteAddr, "duration_ms", took.Milliseconds(), "error", w.cause)
	}
}

// response is an http.ResponseWriter with a timeout for each part that the client receives.
type response struct {
	http.ResponseWriter

	control *http.ResponseController
	status  int
	abort   bool

	// For metrics and log.
	route   string
	caller  string // name of the key
	untimed bool   // it waited for an event or for its client
	cause   error  // why it failed, if that is not the client's fault
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *response) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.extend()
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.extend()
	return w.ResponseWriter.Write(p)
}

// flush sends what was written.
func (w *response) flush() error {
	w.extend()
	return w.control.Flush()
}

// extend restarts the timeout of the client. Without deadlines (a test's recorder) there is none.
func (w *response) extend() { _ = w.control.SetWriteDeadline(time.Now().Add(writeTimeout)) }

// fail answers with a problem whose cause is logged.
func (w *response) fail(p *problem, cause error) {
	w.cause = cause
	p.write(w)
}

// withKey answers only requests with a key or, if there are no keys, of loopback callers.
func (s *Server) withKey(next func(w *response, r *http.Request, key Key)) func(*response, *http.Request) {
	unauthorized := func(detail string) *problem {
		p := newProblem(http.StatusUnauthorized, detail)
		p.header = map[string]string{"WWW-Authenticate": `Bearer realm="terbayar"`}
		return p
	}
	return func(w *response, r *http.Request) {
		if s.o.Keys.loopbackOnly() {
			switch {
			case !loopback.Is(r):
				newProblem(http.StatusForbidden, "without API keys this server answers loopback callers only; set API_KEYS to open it to others").write(w)
			case s.crossOrigin.Check(r) != nil:
				newProblem(http.StatusForbidden, "a page of another site has sent this request").write(w)
			default:
				next(w, r, Key{})
			}
			return
		}
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if token == "" || !strings.EqualFold(scheme, "Bearer") {
			unauthorized("send an API key: Authorization: Bearer tbr_...").write(w)
			return
		}
		key, ok := s.o.Keys.find(strings.TrimSpace(token))
		switch now := s.o.Now(); {
		case !ok:
			unauthorized("this API key does not exist, or not any more").write(w)
		case key.ended(now):
			unauthorized("this API key has ended").write(w)
		default:
			w.caller = key.Name
			s.o.Metrics.KeyUsed(key.Name, now)
			if wait, ok := s.allow(r.Context(), key.Name); !ok {
				s.o.Metrics.RateLimited(key.Name)
				p := newProblem(http.StatusTooManyRequests, "this API key makes more requests than the server allows. Nothing was done")
				p.retryAfter = wait
				p.write(w)
				return
			}
			next(w, r, key)
		}
	}
}

// checkRedis returns a problem if no payment can be read or written now. It compares the number
// of partitions once: with a wrong one, payments that exist would not be found.
func (s *Server) checkRedis(ctx context.Context) (*problem, error) {
	if state := s.o.Redis.State(); !state.Up {
		return unavailable("the store of the payments does not answer. Nothing was done", retryRedis), nil // Redis' monitor logs it
	}
	if s.checked.Load() {
		return nil, nil
	}
	if err := s.o.Ledger.CheckPartitions(ctx); err != nil {
		return unavailable("the store of the payments cannot be used. Nothing was done", retryRedis), err
	}
	s.checked.Store(true)
	return nil, nil
}

// getReady reports whether requests should be sent here. While Redis is down the answer is still
// 200: every replica would be unready then, and clients would receive no answer at all instead of
// 503 with Retry-After.
func (s *Server) getReady(w *response, _ *http.Request) {
	switch state := s.o.Redis.State(); {
	case !s.ready.Load() || s.draining.Load():
		unavailable("starting or shutting down", retryBusy).write(w)
	case state.Err() != nil:
		fmt.Fprintf(w, "ready, but %v: payments are answered 503\n", state.Err())
	default:
		fmt.Fprintln(w, "ready")
	}
}

// checkQuery returns a problem if a request has parameters that it does not take, or one twice.
func checkQuery(r *http.Request, allowed ...string) *problem {
	for name, values := range r.URL.Query() {
		if !slices.Contains(allowed, name) {
			return newProblem(http.StatusBadRequest, "unknown query parameter; this request takes: "+strings.Join(allowed, ", "))
		}
		if len(values) > 1 {
			return newProblem(http.StatusBadRequest, "the query parameter "+name+" is given twice")
		}
	}
	if strings.Contains(r.URL.RawQuery, ";") {
		return newProblem(http.StatusBadRequest, "query parameters are separated by &")
	}
	return nil
}

// parseWait returns the query parameter wait.
func parseWait(r *http.Request) (time.Duration, *problem) {
	text := r.URL.Query().Get("wait")
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > maxWait {
		return 0, newProblem(http.StatusBadRequest, "wait must be a duration from 0s to "+maxWait.String()+", such as 10s")
	}
	return d, nil
}

// acquire takes one of a limited number of places, without waiting.
func acquire(places chan struct{}) (release func(), ok bool) {
	select {
	case places <- struct{}{}:
		return func() { <-places }, true
	default:
		return nil, false
	}
}

// wait counts a request that waits. It reports false if too many do.
func (s *Server) wait(w *response) (release func(), ok bool) {
	free, ok := acquire(s.waits)
	if !ok {
		return nil, false
	}
	w.untimed = true
	s.o.Metrics.Waiting(1)
	return func() { free(); s.o.Metrics.Waiting(-1) }, true
}

var errTooManyWait = unavailable("too many requests wait: ask again without wait", retryBusy)

// gone reports whether an error is only that the client has gone.
func gone(r *http.Request, err error) bool {
	return r.Context().Err() != nil && errors.Is(err, context.Canceled)
}
