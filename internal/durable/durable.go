// Package durable writes to Redis so that what was acknowledged survives the loss of
// the node that took it. How, is Redis' own: an append-only file that is synced
// before the answer, and WAIT for the replicas, or WAITAOF, sent with the script on
// the same connection (interface.md, "Durability").
//
// An acknowledgement is what one node says on one connection: that it has run the
// script, and then that so many replicas have all that this connection wrote. A
// WAIT on another connection, or on another node than the script ran on, waits for
// something else and may well succeed.
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

	"terbayar/internal/redisconn"
)

// Mode is what Redis must guarantee: the values of REDIS_DURABILITY.
type Mode string

// The modes.
const (
	// Auto wants each write on the primary's disk, and in every connected replica.
	Auto Mode = "auto"
	// Replicas wants each write in every connected replica, at least one; no disk.
	Replicas Mode = "replicas"
	// Trusted checks nothing; replicas that are there are waited for.
	Trusted Mode = "trusted"
	// None waits for nothing. For development.
	None Mode = "none"
)

// EveryReplica is the number of replicas that waits for all that are connected.
const EveryReplica = -1

// The default timeouts of WAIT and WAITAOF. With appendfsync everysec Redis syncs once
// a second, or up to two when the disk is busy.
const (
	DefaultTimeout  = time.Second
	EverySecTimeout = 2500 * time.Millisecond
)

var (
	// ErrNotAcknowledged says that the scripts have run and Redis did not acknowledge
	// their writes in time: they may or may not survive.
	ErrNotAcknowledged = errors.New("redis has not acknowledged the write in time")
	// ErrUnfit says that Redis' settings do not give what the mode wants.
	ErrUnfit = errors.New("redis does not give what REDIS_DURABILITY wants")
)

// Options are the settings of a Writer.
type Options struct {
	// Client must have a pool of its own, since its connections are blocked while
	// Redis waits, and must not send commands again by itself.
	Client   redis.UniversalClient
	Mode     Mode
	Replicas int           // REDIS_WAIT_REPLICAS; EveryReplica: those that are connected
	Timeout  time.Duration // of WAIT and of WAITAOF; 0: DefaultTimeout or EverySecTimeout
	// Key is a key in the slot that is written to. It holds, in a hash, that a replica
	// was once seen.
	Key string
	Now func() time.Time
	Log *slog.Logger
}

// Writer writes durably to the primary of one slot. It is safe for concurrent use.
type Writer struct {
	options Options

	told    func(Status) // nil: nobody wants to know
	looking sync.Mutex   // one look at a time

	mu      sync.Mutex
	seen    view   // the latest look at the primary
	stale   bool   // it no longer holds
	changes int    // how often the primary has changed
	paused  string // why nothing may be claimed; empty: it may
	skewed  bool   // the clocks differ too much, and it was said
}

// New makes a Writer. It asks nothing of Redis yet.
func New(o Options) *Writer { return &Writer{options: o} }

// Call is one run of a script. A script may run more than once for one Call, so it
// must recognise its own request (by a request id among its arguments) and then
// answer as before. It must make a write each time: WAIT covers what the connection
// has written.
type Call struct {
	Script *redis.Script
	Keys   []string
	Args   []any
}

// Do runs scripts, in order, in one round trip, and waits until their writes are as
// safe as the mode wants. Without an error all of them are acknowledged, and each
// reply stands at its call's index; a reply may be an error of its own (a full
// memory). With ErrNotAcknowledged the replies are there too. Any other error means
// that nobody knows what has run.
//
// While the node is not, or not yet, the one to write to - a failover, a slot that
// migrates, a broken connection - scripts and WAIT go again, together, until the
// context ends.
func (w *Writer) Do(ctx context.Context, calls ...Call) ([]*redis.Cmd, error) {
	var replies []*redis.Cmd
	backoff := retry.WithCappedDuration(500*time.Millisecond, retry.NewFibonacci(20*time.Millisecond))
	err := retry.Do(ctx, backoff, func(ctx context.Context) (err error) {
		replies, err = w.once(ctx, calls)
		if passing(err) {
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

// once makes one try: the scripts and their acknowledgement on one connection.
func (w *Writer) once(ctx context.Context, calls []Call) ([]*redis.Cmd, error) {
	v, err := w.view(ctx)
	if err != nil {
		return nil, err
	}
	if v.unfit != nil {
		return nil, v.unfit
	}
	node, err := w.primary(ctx)
	if err != nil {
		return nil, err
	}
	replies, acknowledgements, listed := w.send(ctx, node, v, calls)
	if missing := missingScripts(calls, replies); len(missing) > 0 {
		for _, script := range missing {
			if err := script.Load(ctx, node).Err(); err != nil {
				return nil, err
			}
		}
		replies, acknowledgements, listed = w.send(ctx, node, v, calls)
	}
	for _, r := range replies {
		if err := r.Err(); passing(err) || redis.HasErrorPrefix(err, "NOSCRIPT") {
			return nil, passingError{err}
		}
	}
	for _, a := range acknowledgements {
		n, err := a.cmd.Int()
		if a.cmd.Name() == "waitaof" {
			n, err = firstInt(a.cmd)
		}
		switch {
		case passing(err):
			return nil, passingError{err}
		case err != nil:
			return replies, fmt.Errorf("%w: %s: %w", ErrNotAcknowledged, a.cmd.Name(), err)
		case n < a.want:
			return replies, fmt.Errorf("%w: %s", ErrNotAcknowledged, a.what)
		}
	}
	if listed != nil {
		// A replica that has joined since the look may have acknowledged in place of one
		// that lags, so all that are there now must have.
		n, err := replicasInRole(listed)
		switch {
		case err != nil:
			return nil, passingError{err}
		case n > w.needed(v):
			w.lookAgain()
			return nil, passingError{errors.New("a replica has joined")}
		}
	}
	return replies, nil
}

// replicasInRole is how many replicas a primary lists in its answer to ROLE.
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
	return 0, errors.New("the node asked is no primary any more")
}

// acknowledgement is a WAIT or WAITAOF, and what it must come to.
type acknowledgement struct {
	cmd  *redis.Cmd
	want int
	what string
}

// send sends scripts and acknowledgements in one pipeline, which is one connection, and,
// where all replicas are waited for, asks which there are.
func (w *Writer) send(ctx context.Context, node *redis.Client, v view, calls []Call) (replies []*redis.Cmd, acks []acknowledgement, listed *redis.Cmd) {
	timeout := w.timeout(v).Milliseconds()
	// Each command carries its own error, and the pipeline's is the first of them.
	_, _ = node.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, c := range calls {
			replies = append(replies, c.Script.EvalSha(ctx, pipe, c.Keys, c.Args...))
		}
		if n := w.needed(v); n > 0 {
			acks = append(acks, acknowledgement{pipe.Do(ctx, "wait", n, timeout), n, fmt.Sprintf("not every one of %d replicas has it", n)})
		}
		if w.options.Mode != None && w.options.Replicas < 0 && v.replid != "" {
			listed = pipe.Do(ctx, "role")
		}
		if v.waitAOF {
			acks = append(acks, acknowledgement{pipe.Do(ctx, "waitaof", 1, 0, timeout), 1, "it is not synced to disk"})
		}
		return nil
	})
	return replies, acks, listed
}

func firstInt(cmd *redis.Cmd) (int, error) {
	counts, err := cmd.Int64Slice()
	if err != nil {
		return 0, err
	}
	if len(counts) == 0 {
		return 0, errors.New("an empty answer")
	}
	return int(counts[0]), nil
}

// missingScripts are the scripts that the node does not know.
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

// primary is the node that holds the slot, by the client's latest knowledge.
func (w *Writer) primary(ctx context.Context) (*redis.Client, error) {
	switch client := w.options.Client.(type) {
	case *redis.ClusterClient:
		node, err := client.MasterForKey(ctx, w.options.Key)
		if err != nil {
			return nil, passingError{err}
		}
		return node, nil
	case *redis.Client:
		return client, nil
	default:
		return nil, fmt.Errorf("a client of type %T has no primary", client)
	}
}

// passingError is an error that the next try may not meet.
type passingError struct{ err error }

func (e passingError) Error() string { return e.err.Error() }
func (e passingError) Unwrap() error { return e.err }

// passing reports whether the next try may not meet this error: the node asked is not,
// or not yet, the one to write to, or the connection has failed.
func passing(err error) bool {
	var refusal redis.Error
	switch {
	case err == nil, errors.Is(err, ErrNotAcknowledged), errors.Is(err, ErrUnfit),
		errors.Is(err, context.Canceled), redis.IsAuthError(err):
		return false
	case errors.As(err, new(passingError)), !errors.As(err, &refusal):
		return true
	}
	text := refusal.Error()
	for _, prefix := range []string{
		"MOVED ", "ASK ", "TRYAGAIN ", "CLUSTERDOWN ", "LOADING ", "MASTERDOWN ", "UNBLOCKED ", "NOREPLICAS ", "BUSY ",
	} {
		if strings.HasPrefix(text, prefix) {
			return true
		}
	}
	return redisconn.ReadOnly(text)
}
