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

// Start inspects the primary and checks its settings. The error is ErrUnfit, or another one
// if Redis cannot be reached.
func (w *Writer) Start(ctx context.Context) error {
	s, err := w.currentState(ctx)
	if err == nil {
		err = s.unfit
	}
	if err != nil {
		return fmt.Errorf("durable: %w", err)
	}
	return nil
}

// Warnings returns sentences about risks of the mode, the number of replicas and the clock.
// Call it after Start.
func (w *Writer) Warnings() []string {
	w.mu.Lock()
	s := w.state
	w.mu.Unlock()
	var warnings []string
	if w.options.Mode == None {
		warnings = append(warnings, "REDIS_DURABILITY is none: payments that Redis loses in a crash or a failover are lost or sent twice; for development only")
	}
	if n := w.options.Replicas; n >= 0 && n < s.replicas && w.options.Mode != None {
		warnings = append(warnings, fmt.Sprintf(
			"REDIS_WAIT_REPLICAS is %d and %d replicas are connected: if one that lags is promoted, acknowledged writes are lost", n, s.replicas))
	}
	if s.skew.Abs() > MaxSkew {
		warnings = append(warnings, fmt.Sprintf(
			"this process' clock and Redis' differ by %s: gateways and expired_date need real time", s.skew.Abs().Round(time.Millisecond)))
	}
	return warnings
}

// Time is a reading of Redis' clock with the time of the reading by this process' clock.
// This process' clock only measures the time since the reading, so the clocks may differ.
type Time struct{ redis, local time.Time }

// NewTime returns the reading redis, which arrived at local by this process' clock.
func NewTime(redis, local time.Time) Time { return Time{redis, local} }

// At converts a time of this process' clock to Redis' clock. The result may be slightly too
// early, by the time that the reading took to arrive.
func (t Time) At(local time.Time) time.Time { return t.redis.Add(local.Sub(t.local)) }

// Time returns the latest reading of Redis' clock.
func (w *Writer) Time() Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Time{w.state.redisTime, w.state.answered}
}

// Primary returns the replication id of the primary as of the latest inspection. It changes
// with a failover and with a restart. It is empty if INFO does not show it.
func (w *Writer) Primary() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state.replid
}

// Status is the state of a Writer for metrics and checks.
type Status struct {
	Mode           Mode
	Replicas       int           // connected replicas
	Needed         int           // replicas that must acknowledge a write
	Fsync          bool          // a write waits for an fsync
	Skew           time.Duration // Redis' clock minus this process' clock
	PrimaryChanges int           // changes of the primary since the start
	Paused         string        // why claims are paused; empty: they are not
}

// Status returns the state as of the latest inspection.
func (w *Writer) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.state
	return Status{w.options.Mode, s.replicas, w.needed(s), s.waitAOF, s.skew, w.changes, w.paused}
}

// Observe makes Watch call a function after each inspection. Call it before Watch.
func (w *Writer) Observe(observe func(Status)) { w.observe = observe }

// Pause pauses claims because a claim was not acknowledged. Watch resumes them when Redis
// acknowledges a test write.
func (w *Writer) Pause(cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.paused == "" {
		w.paused = "redis did not acknowledge a claim"
		w.options.Log.Error("claims paused: redis did not acknowledge a claim", "error", cause)
	}
}

// Paused returns why claims are paused; empty means that they are not.
func (w *Writer) Paused() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.paused
}

// ClockSkews returns, by node, how far Redis' clocks are ahead of this process' clock. The nodes
// are those of the Cluster, or the primary and its replicas. It leaves out nodes that it
// cannot reach at the addresses that Redis reports.
func (w *Writer) ClockSkews(ctx context.Context) map[string]time.Duration {
	var mu sync.Mutex
	skews := map[string]time.Duration{}
	read := func(ctx context.Context, node *redis.Client, name string) {
		before := w.options.Now()
		now, err := node.Time(ctx).Result()
		if err != nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		skews[name] = now.Sub(before.Add(w.options.Now().Sub(before) / 2))
	}
	if cluster, ok := w.options.Client.(*redis.ClusterClient); ok {
		_ = cluster.ForEachShard(ctx, func(ctx context.Context, node *redis.Client) error {
			read(ctx, node, node.Options().Addr)
			return nil
		})
		return skews
	}
	node, err := w.primary(ctx)
	if err != nil {
		return skews
	}
	read(ctx, node, "primary")
	for _, m := range replicaAddress.FindAllStringSubmatch(node.Info(ctx, "replication").Val(), -1) {
		options := *node.Options()
		options.Addr, options.Dialer = net.JoinHostPort(m[1], m[2]), nil
		replica := redis.NewClient(&options)
		read(ctx, replica, options.Addr)
		_ = replica.Close() // no command is left to fail
	}
	return skews
}

var replicaAddress = regexp.MustCompile(`(?m)^slave\d+:ip=([^,]*),port=([1-9]\d*),`)

// Watch inspects the primary about once a second until the context ends, so that writes
// need not. While claims are paused it also sends test writes, and resumes claims when one
// is acknowledged.
func (w *Writer) Watch(ctx context.Context) {
	const interval time.Duration = maxStateAge * 4 / 5
	timer := time.NewTimer(0)
	defer timer.Stop()
	backoff := probeBackoff()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		w.inspectForWatch(ctx)
		if w.observe != nil {
			w.observe(w.Status())
		}
		next := interval
		if w.Paused() == "" {
			backoff = probeBackoff()
		} else if !w.probe(ctx) {
			next, _ = backoff.Next()
		}
		timer.Reset(next)
	}
}

func (w *Writer) inspectForWatch(ctx context.Context) {
	w.inspecting.Lock()
	defer w.inspecting.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 2*maxStateAge)
	defer cancel()
	_, _ = w.inspectPrimary(ctx) // Watch tries again soon
}

func probeBackoff() retry.Backoff {
	return retry.WithCappedDuration(2*time.Second, retry.NewFibonacci(100*time.Millisecond))
}

// probeScript is the test write.
//
//	KEYS[1] Options.Key
//	result  number of test writes so far
var probeScript = redis.NewScript(`return redis.call('HINCRBY', KEYS[1], 'probes', 1)`)

// probe sends a test write. If it is acknowledged, probe resumes claims and returns true.
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
			w.options.Log.Debug("test write not acknowledged", "error", err)
		}
		return false
	}
	w.paused = ""
	w.options.Log.Info("claims resumed: redis acknowledged a test write")
	return true
}
