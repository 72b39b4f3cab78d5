package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// cutOffTimeout is how long a batch that is cut off at shutdown may take: its last lines are being
// recorded.
const cutOffTimeout = 8 * time.Second

// Serve answers requests until the context ends, and then shuts down:
//
//  1. /readyz reports it, and connections are no longer kept alive, but new ones are accepted for
//     ShutdownDelay: load balancers need that time to send requests elsewhere.
//  2. No connection is accepted. Requests that wait are answered, event streams end, all others
//     have ShutdownTimeout to finish.
//  3. Batches that are not finished then are cut off after what was read of them is answered.
//
// MetricsListener is served until the end.
func (s *Server) Serve(ctx context.Context, l net.Listener, config *tls.Config) error {
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	group.Go(func() { s.hub.run(background) })

	srv := newHTTPServer(s.o.Log, s)
	srv.TLSConfig = config
	l = newLimitListener(l, maxConnections)
	served := make(chan error, 2)
	go func() {
		if config != nil {
			served <- srv.ServeTLS(l, "", "")
		} else {
			served <- srv.Serve(l)
		}
	}()
	if s.o.MetricsListener != nil {
		metrics := newHTTPServer(s.o.Log, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(s.metricsMux, w, r) }))
		defer metrics.Close()
		go func() {
			if err := metrics.Serve(s.o.MetricsListener); !errors.Is(err, http.ErrServerClosed) {
				served <- err
			}
		}()
	}
	s.ready.Store(true)
	select {
	case err := <-served:
		return fmt.Errorf("api: serve: %w", err)
	case <-ctx.Done():
	}
	s.o.Log.Info("shutting down", "delay", s.o.ShutdownDelay.String(), "timeout", s.o.ShutdownTimeout.String())
	s.draining.Store(true)
	select {
	case err := <-served:
		return fmt.Errorf("api: serve: %w", err)
	case <-time.After(s.o.ShutdownDelay):
	}
	s.stop()
	err := shutdown(srv, s.o.ShutdownTimeout)
	if errors.Is(err, context.DeadlineExceeded) {
		s.o.Log.Warn("requests have not finished in time: batches are cut off")
		s.cutOff()
		err = shutdown(srv, cutOffTimeout)
	}
	if err != nil {
		_ = srv.Close()
		return fmt.Errorf("api: shut down: %w", err)
	}
	return nil
}

func newHTTPServer(log *slog.Logger, handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), // failed handshakes and the like
	}
}

func shutdown(srv *http.Server, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return srv.Shutdown(ctx)
}

// limitListener bounds the number of connections. Further ones wait in the kernel.
type limitListener struct {
	net.Listener

	places chan struct{}
	closed chan struct{}
	close  func() error
}

func newLimitListener(l net.Listener, n int) net.Listener {
	closed := make(chan struct{})
	return &limitListener{
		Listener: l, places: make(chan struct{}, n), closed: closed,
		close: sync.OnceValue(func() error { close(closed); return l.Close() }),
	}
}

func (l *limitListener) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &limitedConn{Conn: conn, release: sync.OnceFunc(func() { <-l.places })}, nil
}

func (l *limitListener) Close() error { return l.close() }

type limitedConn struct {
	net.Conn

	release func()
}

func (c *limitedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
