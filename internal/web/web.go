// Package web serves the worker's HTTP pages: health, readiness, metrics, and asynq's web
// UI.
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

// Options are the settings of a Handler.
type Options struct {
	Redis   redis.UniversalClient
	Ready   func() error // why the worker cannot work now; nil when it can; must not block
	Ledger  *ledger.Ledger
	Metrics http.Handler
	Users   Users // who may see the web UI; empty: loopback callers only
}

// Handler serves the pages. It is not ready until SetReady(true).
type Handler struct {
	options Options
	ready   atomic.Bool
	mux     *http.ServeMux
}

// New creates a Handler.
func New(o Options) *Handler {
	h := &Handler{options: o, mux: http.NewServeMux()}
	h.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	h.mux.HandleFunc("GET /readyz", h.readyz)
	h.mux.Handle("GET /metrics", o.Metrics)
	h.mux.Handle("GET "+monitoringPath, http.RedirectHandler(monitoringPath+"/", http.StatusMovedPermanently))
	h.mux.Handle(monitoringPath+"/", o.Users.protect(monitoring(o.Redis, o.Ledger)))
	h.mux.Handle("GET /{$}", http.RedirectHandler(monitoringPath+"/", http.StatusFound))
	return h
}

// SetReady sets whether the worker accepts tasks: true after its start, false when its
// shutdown begins.
func (h *Handler) SetReady(ready bool) { h.ready.Store(ready) }

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// pingTimeout bounds the PING of Redis in readyz.
const pingTimeout = 500 * time.Millisecond

func (h *Handler) readyz(w http.ResponseWriter, r *http.Request) {
	if !h.ready.Load() {
		http.Error(w, "starting or shutting down", http.StatusServiceUnavailable)
		return
	}
	err := h.options.Ready()
	if err == nil { // that is up to a second old: Redis may have stopped since
		ctx, cancel := context.WithTimeout(r.Context(), pingTimeout)
		defer cancel()
		if h.options.Redis.Ping(ctx).Err() != nil {
			err = errors.New("redis does not answer")
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}
