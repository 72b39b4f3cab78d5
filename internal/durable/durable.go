// Package durable runs Lua scripts in Redis so that an acknowledged write survives the loss
// of the node that ran it. It relies on Redis for that: on an append-only file that is
// fsynced before the reply, and on WAIT (for replicas) or WAITAOF (for the fsync), see
// docs/interface.md, "Durability".
//
// WAIT and WAITAOF only cover the writes of the connection that they are sent on. So a
// script and its WAIT go to one node, in one pipeline, on one connection. A WAIT on another
// connection, or on another node, may succeed although the script's write is lost.
package durable

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sethvargo/go-retry"

	"terbayar/internal/groupcommit"
	"terbayar/internal/redisconn"
)

// Mode is what Redis must guarantee: the values of REDIS_DURABILITY.
type Mode string

// The modes.
const (
	// Auto requires each write on the primary's disk and in every connected replica.
	Auto Mode = "auto"
	// Replicas requires each write in every connected replica, and at least in one.
	Replicas Mode = "replicas"
	// Trusted does not check Redis' settings. It waits for the connected replicas.
	Trusted Mode = "trusted"
	// None waits for nothing. It is for development.
	None Mode = "none"
)

// EveryReplica is the value of Options.Replicas that means all connected replicas.
const EveryReplica = -1

// The default timeouts of WAIT and WAITAOF. With appendfsync everysec Redis calls fsync
// once a second, or every two seconds when the disk is busy.
const (
	DefaultTimeout  = time.Second
	EverySecTimeout = 2500 * time.Millisecond
)

var (
	// ErrNotAcknowledged means that the scripts have run, but Redis did not acknowledge
	// their writes in time: the writes may be lost.
	ErrNotAcknowledged = errors.New("redis did not acknowledge the write in time")
	// ErrUnfit means that Redis' settings do not provide what the mode requires.
	ErrUnfit = errors.New("redis does not provide what REDIS_DURABILITY requires")
)

// Options are the settings of a Writer.
type Options struct {
	// Client must have its own connection pool, because WAIT blocks a connection, and must
	// not retry commands.
	Client   redis.UniversalClient
	Mode     Mode
	Replicas int           // REDIS_WAIT_REPLICAS, or EveryReplica
	Timeout  time.Duration // of WAIT and of WAITAOF; 0: DefaultTimeout or EverySecTimeout
	// Key is a key in the slot of the writes. The Writer keeps a hash there with what it
	// knows of the replicas.
	Key string
	Now func() time.Time
	Log *slog.Logger
}

// Writer writes durably to the primary of one slot. It is safe for concurrent use.
type Writer struct {
	options Options
	calls   *groupcommit.Group[Call, *redis.Cmd]

	observe    func(Status) // see Observe; may be nil
	inspecting sync.Mutex   // held during inspectPrimary

	mu      sync.Mutex
	state   primaryState // as of the latest inspection
	stale   bool         // state must not be used
	changes int          // of the primary
	paused  string       // why claims are paused; empty: they are not
	skewed  bool         // a warning about clock skew was logged
}

// New returns a Writer. It sends nothing to Redis yet.
func New(o Options) *Writer {
	w := &Writer{options: o}
	w.calls = groupcommit.New(w.tryOnce)
	return w
}

// Call is a script with its keys and arguments. The script may run more than once for one
// Call, so its arguments must have a request id, by which it recognises a repetition and
// returns its first result. It must write something each time, because WAIT only covers
// writes of its connection.
type Call struct {
	Script *redis.Script
	Keys   []string
	Args   []any
}

// Do runs scripts, in order, in one round trip, and waits until their writes are as durable
// as the mode requires. Calls of Do that come while others are under way share a round trip
// and its WAIT. The replies have the order of the calls; a reply may be an error,
// for example because Redis' memory is full. If Do returns no error, all writes are
// acknowledged. If it returns ErrNotAcknowledged, it returns the replies too. With any other
// error it is unknown which scripts have run.
//
// During a failover or the migration of a slot, and after a broken connection, Do sends
// scripts and WAIT again, together, until the context ends.
func (w *Writer) Do(ctx context.Context, calls ...Call) ([]*redis.Cmd, error) {
	var replies []*redis.Cmd
	backoff := retry.WithCappedDuration(500*time.Millisecond, retry.NewFibonacci(20*time.Millisecond))
	err := retry.Do(ctx, backoff, func(ctx context.Context) (err error) {
		replies, err = w.calls.Do(ctx, calls...)
		if isTransient(err) {
			if cluster, ok := w.options.Client.(*redis.ClusterClient); ok {
				cluster.ReloadState(ctx)
			}
			return retry.RetryableError(err)
		}
		return err
	})
	if err != nil && !errors.Is(err, ErrNotAcknowledged) {
		return nil, fmt.Errorf("durable: %w", err)
	}
	return replies, err
}

// tryOnce sends the scripts and their WAIT once, or twice if the node has not cached a
// script.
func (w *Writer) tryOnce(ctx context.Context, calls []Call) ([]*redis.Cmd, error) {
	state, err := w.currentState(ctx)
	if err != nil {
		return nil, err
	}
	if state.unfit != nil {
		return nil, state.unfit
	}
	node, err := w.primary(ctx)
	if err != nil {
		return nil, err
	}
	sent := w.send(ctx, node, state, calls)
	if missing := missingScripts(calls, sent.replies); len(missing) > 0 {
		for _, script := range missing {
			if err := script.Load(ctx, node).Err(); err != nil {
				return nil, err
			}
		}
		sent = w.send(ctx, node, state, calls)
	}
	for _, r := range sent.replies {
		if err := r.Err(); isTransient(err) || redis.HasErrorPrefix(err, "NOSCRIPT") {
			return nil, transientError{err}
		}
	}
	for _, wait := range sent.waits {
		n, err := wait.acknowledged()
		switch {
		case isTransient(err):
			return nil, transientError{err}
		case err != nil:
			return sent.replies, fmt.Errorf("%w: %s: %w", ErrNotAcknowledged, wait.cmd.Name(), err)
		case n < wait.want:
			return sent.replies, fmt.Errorf("%w: %s", ErrNotAcknowledged, wait.failure)
		}
	}
	if sent.role != nil {
		// A replica that joined after the inspection may have acknowledged the write in
		// place of a replica that lags. So the number in WAIT must be that of all replicas
		// that are connected now.
		n, err := replicasInRole(sent.role)
		switch {
		case err != nil:
			return nil, transientError{err}
		case n > w.needed(state):
			w.invalidate()
			return nil, transientError{errors.New("a replica has joined")}
		}
	}
	return sent.replies, nil
}

// replicasInRole returns the number of replicas in a primary's reply to ROLE.
func replicasInRole(cmd *redis.Cmd) (int, error) {
	role, err := cmd.Slice()
	if err != nil {
		return 0, err
	}
	if len(role) == 3 && role[0] == "master" {
		if replicas, ok := role[2].([]any); ok {
			return len(replicas), nil
		}
	}
	return 0, errors.New("the node is no longer a primary")
}

// pipeline is what send has sent.
type pipeline struct {
	replies []*redis.Cmd // of the scripts
	waits   []waitCommand
	role    *redis.Cmd // nil: not sent
}

// waitCommand is a WAIT or a WAITAOF.
type waitCommand struct {
	cmd     *redis.Cmd
	want    int    // the number that acknowledges the writes
	failure string // what a lower number means
}

// acknowledged returns the number of replicas, or with WAITAOF of local fsyncs, that have
// the writes.
func (c waitCommand) acknowledged() (int, error) {
	if c.cmd.Name() != "waitaof" {
		return c.cmd.Int()
	}
	counts, err := c.cmd.Int64Slice() // local fsyncs, replicas
	if err != nil {
		return 0, err
	}
	if len(counts) == 0 {
		return 0, errors.New("empty answer")
	}
	return int(counts[0]), nil
}

// send sends the scripts, the WAIT and WAITAOF that the mode requires and, if all connected
// replicas must acknowledge, ROLE. It is one pipeline on one connection.
func (w *Writer) send(ctx context.Context, node *redis.Client, state primaryState, calls []Call) (sent pipeline) {
	timeout := w.timeout(state).Milliseconds()
	// The error of the pipeline is the first error of its commands: read each command's own.
	_, _ = node.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, c := range calls {
			sent.replies = append(sent.replies, c.Script.EvalSha(ctx, pipe, c.Keys, c.Args...))
		}
		if n := w.needed(state); n > 0 {
			sent.waits = append(sent.waits, waitCommand{pipe.Do(ctx, "wait", n, timeout), n, fmt.Sprintf("fewer than %d replicas have it", n)})
		}
		if w.options.Mode != None && w.options.Replicas < 0 && state.replid != "" {
			sent.role = pipe.Do(ctx, "role")
		}
		if state.waitAOF {
			sent.waits = append(sent.waits, waitCommand{pipe.Do(ctx, "waitaof", 1, 0, timeout), 1, "it is not fsynced"})
		}
		return nil
	})
	return sent
}

// missingScripts returns the scripts that the node has not cached.
func missingScripts(calls []Call, replies []*redis.Cmd) []*redis.Script {
	missing := map[*redis.Script]bool{}
	for i, r := range replies {
		if redis.HasErrorPrefix(r.Err(), "NOSCRIPT") {
			missing[calls[i].Script] = true
		}
	}
	var scripts []*redis.Script
	for script := range missing {
		scripts = append(scripts, script)
	}
	return scripts
}

// primary returns the node that holds the slot, as far as the client knows.
func (w *Writer) primary(ctx context.Context) (*redis.Client, error) {
	switch client := w.options.Client.(type) {
	case *redis.ClusterClient:
		node, err := client.MasterForKey(ctx, w.options.Key)
		if err != nil {
			return nil, transientError{err}
		}
		return node, nil
	case *redis.Client:
		return client, nil
	default:
		return nil, fmt.Errorf("clients of type %T are not supported", client)
	}
}

// transientError marks an error as one that may not occur in the next try.
type transientError struct{ err error }

func (e transientError) Error() string { return e.err.Error() }
func (e transientError) Unwrap() error { return e.err }

// isTransient reports whether the error may not occur in the next try: the node is no longer,
// or not yet, the primary, or the connection failed.
func isTransient(err error) bool {
	var redisErr redis.Error // an error that Redis returned
	switch {
	case err == nil, errors.Is(err, ErrNotAcknowledged), errors.Is(err, ErrUnfit),
		errors.Is(err, context.Canceled), redis.IsAuthError(err):
		return false
	case errors.As(err, new(transientError)), !errors.As(err, &redisErr):
		return true
	}
	text := redisErr.Error()
	for _, prefix := range []string{
		"MOVED ", "ASK ", "TRYAGAIN ", "CLUSTERDOWN ", "LOADING ", "MASTERDOWN ", "UNBLOCKED ", "NOREPLICAS ", "BUSY ",
	} {
		if strings.HasPrefix(text, prefix) {
			return true
		}
	}
	return redisconn.IsReadOnly(text)
}
