package tasks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/payment"
)

// Handlers handle the tasks.
type Handlers struct {
	// Submit submits a payment. If retryIn is positive, it is called again after that time;
	// the web UI shows the reason.
	Submit func(ctx context.Context, key payment.Key) (retryIn time.Duration, reason string, err error)
	// Poll looks up the payments that are due at a gateway.
	Poll func(ctx context.Context, g payment.Gateway) error
}

// ServerConfig holds the settings of a Server.
type ServerConfig struct {
	Gateways        []payment.Gateway // whose queues are served
	Concurrency     int               // submits at the same time, per gateway
	ShutdownTimeout time.Duration     // how long Shutdown waits for running tasks
	Log             *slog.Logger
	AsynqLog        asynq.Logger
}

// Server runs the tasks of the gateways. Each gateway has several asynq servers for its
// submits, because a server has one goroutine that dequeues, and one for its polls.
type Server struct {
	servers []*asynq.Server
	pacers  []*pacer
	mux     *asynq.ServeMux
}

const (
	// submitsPerServer and maxServers determine the number of servers of a gateway's submits.
	submitsPerServer = 6
	maxServers       = 8
	// submitCheckInterval is how often a worker checks an empty queue of submits, and so how
	// long it may take to notice a payment.
	submitCheckInterval = 110 * time.Millisecond
	pollCheckInterval   = time.Second
	// taskCheckInterval is asynq's own pause after an empty dequeue. The pacer makes the real one.
	taskCheckInterval = time.Millisecond
	// submitDelayedInterval is how late a submit that is retried later may be. asynq's default,
	// 5 s, would be longer than most waits. For polls it is short enough.
	submitDelayedInterval = time.Second
	// never is the interval of what one server of a queue does for all of them.
	never = 365 * 24 * time.Hour
	// errorRetryDelay is the wait after an error that is not the gateway's, mostly because
	// Redis is down.
	errorRetryDelay = 5 * time.Second
)

// retryLaterError makes asynq run a task again later. It is not a failure: asynq counts no
// retry, and the ledger counts the payment's attempts. The web UI shows its text as the
// task's last error.
type retryLaterError struct {
	in     time.Duration
	reason string
}

func (e retryLaterError) Error() string {
	return fmt.Sprintf("no failure, will be retried in %s: %s", e.in.Round(time.Millisecond), e.reason)
}

// NewServer creates a Server. Start starts it.
func NewServer(client redis.UniversalClient, cfg ServerConfig, h Handlers) *Server {
	s := &Server{mux: asynq.NewServeMux()}
	s.mux.Use(redactErrors(cfg.Log))
	s.mux.HandleFunc(TypeSubmit, func(ctx context.Context, t *asynq.Task) error {
		id, _ := asynq.GetTaskID(ctx)
		key, standby, ok := parseTaskID(id)
		if !ok { // not enqueued by this code
			p, err := Decode(t.Payload())
			if err != nil {
				return err
			}
			if key = p.Key(); key.TransactionID == "" {
				return fmt.Errorf("tasks: no transaction id: %w", ErrPayload)
			}
		}
		in, reason, err := h.Submit(ctx, key)
		// A standby task is not retried: the payment's own task is.
		if err == nil && in > 0 && !standby {
			err = retryLaterError{in, reason}
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
		submits, done := newPacer(submitCheckInterval), newAcknowledgements(client)
		lane := &lane{queue: SubmitQueue(g, payment.Interactive)}
		for i, concurrency := range split(cfg.Concurrency) {
			c := asynq.Config{Concurrency: concurrency, DelayedTaskCheckInterval: submitDelayedInterval}
			if i > 0 {
				c.DelayedTaskCheckInterval, c.JanitorInterval = never, never
			}
			s.add(pacedClient{client, SubmitQueue(g, payment.Normal), lane, submits, done, new(bool)}, cfg, c)
		}
		// One poll at a time per worker: payments that become due meanwhile are for the next
		// poll.
		s.add(pacedClient{client, PollQueue(g), nil, newPacer(pollCheckInterval), done, new(bool)}, cfg, asynq.Config{Concurrency: 1})
	}
	return s
}

// split returns the concurrency of each server of a gateway's submits. Its sum is the total.
func split(total int) []int {
	n := min(max(total/submitsPerServer, 1), maxServers)
	all := make([]int, n)
	for i := range all {
		all[i] = total / n
		if i < total%n {
			all[i]++
		}
	}
	return all
}

// add adds a server of the client's queue, and of its interactive queue, which is served first.
func (s *Server) add(client pacedClient, cfg ServerConfig, c asynq.Config) {
	c.Queues = map[string]int{client.queue: 1}
	if client.lane != nil {
		c.Queues[client.lane.queue], c.StrictPriority = 2, true
	}
	c.TaskCheckInterval = taskCheckInterval
	c.ShutdownTimeout = cfg.ShutdownTimeout
	c.Logger, c.LogLevel = cfg.AsynqLog, asynq.WarnLevel
	// Only a task that can never succeed counts as failed. So no outage, however long, archives
	// a task.
	c.IsFailure = func(err error) bool { return errors.Is(err, asynq.SkipRetry) }
	c.RetryDelayFunc = func(_ int, err error, _ *asynq.Task) time.Duration {
		if later, ok := errors.AsType[retryLaterError](err); ok {
			return later.in
		}
		return errorRetryDelay
	}
	s.pacers = append(s.pacers, client.pacer)
	s.servers = append(s.servers, asynq.NewServerFromRedisClient(client, c))
}

// redactErrors wraps every handler. It logs each error once, and returns a fixed text
// instead: asynq stores the error unencrypted in Redis and shows it in the web UI, and it
// may contain a secret.
func redactErrors(log *slog.Logger) asynq.MiddlewareFunc {
	return func(next asynq.Handler) asynq.Handler {
		return asynq.HandlerFunc(func(ctx context.Context, t *asynq.Task) (err error) {
			id, _ := asynq.GetTaskID(ctx)
			defer func() {
				if r := recover(); r != nil {
					log.Error("task panicked", "task", id, "panic", r, "stack", string(debug.Stack()))
					err = errors.New("panicked: see the worker's log")
				}
			}()
			err = next.ProcessTask(ctx, t)
			switch {
			case err == nil, errors.As(err, new(retryLaterError)):
				return err
			case errors.Is(err, ErrPayload):
				log.Error("task archived: its payload cannot be read", "task", id, "error", err)
				return fmt.Errorf("%w: %w", err, asynq.SkipRetry)
			case errors.Is(err, ErrNoPayment):
				log.Error("task archived: the ledger does not have its payment", "task", id)
				return fmt.Errorf("%w: %w", ErrNoPayment, asynq.SkipRetry)
			default:
				log.Error("task failed, will retry", "task", id, "error", err)
				return errors.New("failed: see the worker's log")
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

// Stop stops dequeuing tasks.
func (s *Server) Stop() {
	for _, p := range s.pacers {
		p.close()
	}
	for _, server := range s.servers {
		server.Stop()
	}
}

// Shutdown stops dequeuing and shuts all servers down at the same time. It waits for running
// tasks, at most for the shutdown timeout.
func (s *Server) Shutdown() {
	s.Stop()
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
