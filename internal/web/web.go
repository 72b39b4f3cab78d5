// Package web is the worker's HTTP side: health, readiness, metrics, and the
// asynq web UI.
package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/ledger"
)

// Options is what the HTTP side needs to know.
type Options struct {
	Redis   redis.UniversalClient
	Ready   func() error // why the worker cannot work right now, at once; nil when it can
	Ledger  *ledger.Ledger
	Metrics http.Handler
	Users   Users // who may see the web UI; empty: loopback callers only
}

// Site is the HTTP side. It is not ready until it is told so.
type Site struct {
	redis redis.UniversalClient
	fit   func() error
	ready atomic.Bool
	mux   *http.ServeMux
}

// New builds the HTTP side.
func New(o Options) *Site {
	s := &Site{redis: o.Redis, fit: o.Ready, mux: http.NewServeMux()}
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	s.mux.HandleFunc("GET /readyz", s.readyz)
	s.mux.Handle("GET /metrics", o.Metrics)
	s.mux.Handle("GET "+monitoringPath, http.RedirectHandler(monitoringPath+"/", http.StatusMovedPermanently))
	s.mux.Handle(monitoringPath+"/", o.Users.guard(monitoring(o.Redis, o.Ledger)))
	s.mux.Handle("GET /{$}", http.RedirectHandler(monitoringPath+"/", http.StatusFound))
	return s
}

// SetReady says whether the worker takes payments: after its start, and until
// its shutdown begins.
func (s *Site) SetReady(ready bool) { s.ready.Store(ready) }

// ServeHTTP implements http.Handler.
func (s *Site) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// pingTimeout bounds the one question that readiness asks of Redis.
const pingTimeout = 500 * time.Millisecond

func (s *Site) readyz(w http.ResponseWriter, r *http.Request) {
	if !s.ready.Load() {
		http.Error(w, "starting or shutting down", http.StatusServiceUnavailable)
		return
	}
	err := s.fit()
	if err == nil { // as of a second ago: it may just have died
		ctx, cancel := context.WithTimeout(r.Context(), pingTimeout)
		defer cancel()
		if s.redis.Ping(ctx).Err() != nil {
			err = errors.New("redis does not answer")
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}
