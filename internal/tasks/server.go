package tasks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/payment"
)

// Handlers do the work of the tasks.
type Handlers struct {
	// Submit takes a payment as far as it goes right now. A positive again asks to
	// be called once more after that time; the reason is shown in the web UI.
	Submit func(ctx context.Context, key payment.Key) (again time.Duration, reason string, err error)
	// Poll settles what is due at a gateway.
	Poll func(ctx context.Context, g payment.Gateway) error
}

// ServerConfig is what a Server needs to know.
type ServerConfig struct {
	Gateways        []payment.Gateway // whose queues are served; the others' are left alone
	Concurrency     int               // submits under way at once, per gateway
	ShutdownTimeout time.Duration     // how long Shutdown waits for what is under way
	Log             *slog.Logger
	AsynqLog        asynq.Logger
}

// Server runs the tasks of the gateways: per gateway one asynq server for its
// submits and one for its polls.
type Server struct {
	servers []*asynq.Server
	mux     *asynq.ServeMux
}

const (
	// taskCheckInterval is how often an empty queue is looked at, and so how long
	// an idle worker may take to notice a payment.
	taskCheckInterval = 200 * time.Millisecond
	// delayedTaskCheckInterval is how late a task that was asked for "again in d"
	// may be. asynq's own 5 s would be most of a short wait.
	delayedTaskCheckInterval = time.Second
	// errorPause is the wait after an error of the worker's own surroundings, a
	// Redis that is away above all.
	errorPause = 5 * time.Second
)

// again is how a handler asks asynq to come back. It is not a failure: asynq
// counts no retry for it, and the payment's attempts are the ledger's to count.
type again struct {
	in     time.Duration
	reason string
}

func (a again) Error() string {
	return fmt.Sprintf("again in %s: %s", a.in.Round(time.Millisecond), a.reason)
}

// NewServer makes a server; Start starts it.
func NewServer(client redis.UniversalClient, cfg ServerConfig, h Handlers) *Server {
	s := &Server{mux: asynq.NewServeMux()}
	s.mux.Use(guard(cfg.Log))
	s.mux.HandleFunc(TypeSubmit, func(ctx context.Context, t *asynq.Task) error {
		p, err := Decode(t.Payload())
		if err != nil {
			return err
		}
		if p.TransactionID == "" {
			return fmt.Errorf("tasks: no transaction id: %w", ErrPayload)
		}
		in, reason, err := h.Submit(ctx, p.Key())
		// A standby task runs once: two tasks that come again would keep two times.
		if id, _ := asynq.GetTaskID(ctx); err == nil && in > 0 && !strings.HasPrefix(id, standby) {
			err = again{in, reason}
		}
		return err
	})
	s.mux.HandleFunc(TypePoll, func(ctx context.Context, t *asynq.Task) error {
		p, err := Decode(t.Payload())
		if err != nil {
			return err
		}
		return h.Poll(ctx, p.Gateway)
	})
	for _, g := range cfg.Gateways {
		s.servers = append(s.servers,
			newServer(client, cfg, SubmitQueue(g), cfg.Concurrency),
			// One poll at a time per replica: while it runs, what becomes due gathers
			// for the next one.
			newServer(client, cfg, PollQueue(g), 1),
		)
	}
	return s
}

func newServer(client redis.UniversalClient, cfg ServerConfig, queue string, concurrency int) *asynq.Server {
	return asynq.NewServerFromRedisClient(client, asynq.Config{
		Concurrency:              concurrency,
		Queues:                   map[string]int{queue: 1},
		TaskCheckInterval:        taskCheckInterval,
		DelayedTaskCheckInterval: delayedTaskCheckInterval,
		ShutdownTimeout:          cfg.ShutdownTimeout,
		Logger:                   cfg.AsynqLog,
		LogLevel:                 asynq.WarnLevel,
		// Nothing counts as a failure but what can never be done, so no number of
		// bad minutes brings a task into the archive.
		IsFailure: func(err error) bool { return errors.Is(err, asynq.SkipRetry) },
		RetryDelayFunc: func(_ int, err error, _ *asynq.Task) time.Duration {
			if a, ok := errors.AsType[again](err); ok {
				return a.in
			}
			return errorPause
		},
	})
}

// guard stands around every handler. It logs what went wrong, once, and sees to
// it that what asynq keeps of an error - in clear, in Redis, for the web UI - is
// nothing but words of our own.
func guard(log *slog.Logger) asynq.MiddlewareFunc {
	return func(next asynq.Handler) asynq.Handler {
		return asynq.HandlerFunc(func(ctx context.Context, t *asynq.Task) (err error) {
			id, _ := asynq.GetTaskID(ctx)
			defer func() {
				if r := recover(); r != nil {
					log.Error("task panicked", "task", id, "panic", r, "stack", string(debug.Stack()))
					err = errors.New("panicked; see the log")
				}
			}()
			err = next.ProcessTask(ctx, t)
			switch {
			case err == nil, errors.As(err, new(again)):
				return err
			case errors.Is(err, ErrPayload):
				log.Error("task cannot be read", "task", id, "error", err)
				return fmt.Errorf("%w: %w", err, asynq.SkipRetry)
			case errors.Is(err, ErrNoPayment):
				log.Error("task names a payment that the ledger does not have: it is archived", "task", id)
				return fmt.Errorf("%w: %w", ErrNoPayment, asynq.SkipRetry)
			default:
				log.Error("task failed, will be tried again", "task", id, "error", err)
				return errors.New("failed; see the log")
			}
		})
	}
}

// Start starts all servers.
func (s *Server) Start() error {
	for _, server := range s.servers {
		if err := server.Start(s.mux); err != nil {
			return fmt.Errorf("tasks: start: %w", err)
		}
	}
	return nil
}

// Stop takes no more tasks from the queues.
func (s *Server) Stop() {
	for _, server := range s.servers {
		server.Stop()
	}
}

// Shutdown waits for what is under way, all servers at once, and ends.
func (s *Server) Shutdown() {
	done := make(chan struct{})
	for _, server := range s.servers {
		go func() {
			server.Shutdown()
			done <- struct{}{}
		}()
	}
	for range s.servers {
		<-done
	}
}
