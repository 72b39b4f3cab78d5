package durable

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sethvargo/go-retry"
)

// Start looks at the primary for the first time, and checks its settings. The error is
// ErrUnfit, or that of a Redis that cannot be asked.
func (w *Writer) Start(ctx context.Context) error {
	v, err := w.view(ctx)
	if err == nil {
		err = v.unfit
	}
	if err != nil {
		return fmt.Errorf("durable: %w", err)
	}
	return nil
}

// Warnings are sentences about what the mode, or the number of replicas, leaves open.
// Call it after Start.
func (w *Writer) Warnings() []string {
	w.mu.Lock()
	v := w.seen
	w.mu.Unlock()
	var warnings []string
	if w.options.Mode == None {
		warnings = append(warnings, "REDIS_DURABILITY is none: what Redis loses in a crash or a failover is lost, or sent twice; for development only")
	}
	if n := w.options.Replicas; n >= 0 && n < v.replicas && w.options.Mode != None {
		warnings = append(warnings, fmt.Sprintf(
			"REDIS_WAIT_REPLICAS is %d and %d replicas are connected: one that lags may be promoted, and then what was acknowledged is lost", n, v.replicas))
	}
	if v.skew.Abs() > MaxSkew {
		warnings = append(warnings, fmt.Sprintf(
			"this process' clock and Redis' differ by %s: gateways and expired_date need real time", v.skew.Abs().Round(time.Millisecond)))
	}
	return warnings
}

// Time is a reading of Redis' clock: what it showed, and when that was by this process'
// clock. Only the time since is measured here, so the two clocks are never compared.
type Time struct{ redis, local time.Time }

// NewTime is what Redis' clock showed at a moment of this process' clock.
func NewTime(redis, local time.Time) Time { return Time{redis, local} }

// At is what Redis' clock showed, at least, at a later moment of this process' clock.
func (t Time) At(local time.Time) time.Time { return t.redis.Add(local.Sub(t.local)) }

// Time is the latest reading of Redis' clock.
func (w *Writer) Time() Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Time{w.seen.redis, w.seen.answered}
}

// Primary tells one primary from another, as of the latest look: it changes with a
// failover and a restart. Empty where Redis does not tell.
func (w *Writer) Primary() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen.replid
}

// Status is what metrics and checks show of a Writer.
type Status struct {
	Mode           Mode
	Replicas       int           // that are connected
	Needed         int           // replicas that a write waits for
	Fsync          bool          // an fsync is waited for
	Skew           time.Duration // Redis' clock less this process'
	PrimaryChanges int           // how often the primary has changed
	Paused         string        // why nothing is claimed; empty: it is
}

// Status is the state as of the latest look.
func (w *Writer) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.seen
	return Status{w.options.Mode, v.replicas, w.needed(v), v.waitAOF, v.skew, w.changes, w.paused}
}

// Observe has the state told after every look of Watch. Call it before Watch.
func (w *Writer) Observe(told func(Status)) { w.told = told }

// Pause stops claims after one that was not acknowledged, until Watch has had a write
// acknowledged.
func (w *Writer) Pause(why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.paused == "" {
		w.paused = "redis has not acknowledged a claim"
		w.options.Log.Error("nothing is claimed until redis acknowledges writes again", "error", why)
	}
}

// Paused says why nothing may be claimed now; empty: it may.
func (w *Writer) Paused() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.paused
}

// Clocks says by how much the clocks of Redis' nodes are ahead of this process': those of
// a Cluster, or of a primary and the replicas that can be reached where it names them.
func (w *Writer) Clocks(ctx context.Context) map[string]time.Duration {
	var mu sync.Mutex
	clocks := map[string]time.Duration{}
	read := func(ctx context.Context, node *redis.Client, name string) {
		before := w.options.Now()
		now, err := node.Time(ctx).Result()
		if err != nil {
			return // whether a node can be reached is not the question
		}
		mu.Lock()
		defer mu.Unlock()
		clocks[name] = now.Sub(before.Add(w.options.Now().Sub(before) / 2))
	}
	if cluster, ok := w.options.Client.(*redis.ClusterClient); ok {
		_ = cluster.ForEachShard(ctx, func(ctx context.Context, node *redis.Client) error {
			read(ctx, node, node.Options().Addr)
			return nil
		})
		return clocks
	}
	node, err := w.primary(ctx)
	if err != nil {
		return clocks
	}
	read(ctx, node, "primary")
	for _, m := range replicaAddress.FindAllStringSubmatch(node.Info(ctx, "replication").Val(), -1) {
		options := *node.Options()
		options.Addr, options.Dialer = net.JoinHostPort(m[1], m[2]), nil
		replica := redis.NewClient(&options)
		read(ctx, replica, options.Addr)
		_ = replica.Close() // it was opened for this one question
	}
	return clocks
}

var replicaAddress = regexp.MustCompile(`(?m)^slave\d+:ip=([^,]*),port=([1-9]\d*),`)

// Watch looks at the primary every second, and while claims are paused tries whether a
// write is acknowledged, until the context ends.
func (w *Writer) Watch(ctx context.Context) {
	const every time.Duration = lookEvery * 4 / 5 // before a write would have to look
	wait := time.NewTimer(0)
	defer wait.Stop()
	backoff := probeBackoff()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		w.looking.Lock()
		looking, cancel := context.WithTimeout(ctx, 2*lookEvery)
		_, _ = w.look(looking) // what it could not see the next one will
		cancel()
		w.looking.Unlock()
		if w.told != nil {
			w.told(w.Status())
		}
		next := every
		if w.Paused() == "" {
			backoff = probeBackoff()
		} else if !w.probe(ctx) {
			next, _ = backoff.Next()
		}
		wait.Reset(next)
	}
}

func probeBackoff() retry.Backoff {
	return retry.WithCappedDuration(2*time.Second, retry.NewFibonacci(100*time.Millisecond))
}

// probeScript makes a write that says nothing.
//
//	KEYS Options.Key
//	returns the number of probes so far
var probeScript = redis.NewScript(`return redis.call('HINCRBY', KEYS[1], 'probes', 1)`)

// probe tries whether a write is acknowledged; if so claims go on.
func (w *Writer) probe(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*EverySecTimeout)
	defer cancel()
	replies, err := w.Do(ctx, Call{Script: probeScript, Keys: []string{w.options.Key}})
	if err == nil {
		err = replies[0].Err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			w.options.Log.Debug("redis still does not acknowledge", "error", err)
		}
		return false
	}
	w.paused = ""
	w.options.Log.Info("redis acknowledges writes again: claims go on")
	return true
}
