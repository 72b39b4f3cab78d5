package durable

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/redisconn"
)

// lookEvery is how long a look at the primary holds. A write looks again where the last
// look is older: a process that was frozen does not go by what was true before.
const lookEvery = time.Second

// MaxSkew is how far a process' clock may be away from Redis' before it is a warning.
const MaxSkew = 2 * time.Second

// replicaSeen is the field of Options.Key that says that a replica was once seen.
const replicaSeen = "replica_seen"

// view is what a look at the primary has shown.
type view struct {
	at       time.Time // when it was begun, by this process' clock
	answered time.Time // when the answer was there, by this process' clock
	redis    time.Time // what Redis' clock showed between the two
	skew     time.Duration
	replid   string // of the data set: another one when the primary has changed
	replicas int    // that are connected
	seen     bool   // a replica was once connected, whoever saw it
	waitAOF  bool   // an fsync is to be waited for
	unfit    error  // what the settings do not give; nil: all that is wanted
}

// needed is how many replicas must have a write.
func (w *Writer) needed(v view) int {
	switch {
	case w.options.Mode == None:
		return 0
	case w.options.Replicas >= 0:
		return w.options.Replicas
	case w.options.Mode == Replicas, w.options.Mode == Auto && v.seen:
		return max(1, v.replicas)
	default:
		return v.replicas
	}
}

func (w *Writer) timeout(v view) time.Duration {
	switch {
	case w.options.Timeout > 0:
		return w.options.Timeout
	case v.waitAOF:
		return EverySecTimeout
	default:
		return DefaultTimeout
	}
}

// view is the latest look, or a new one where that is too old.
func (w *Writer) view(ctx context.Context) (view, error) {
	if v, ok := w.fresh(); ok {
		return v, nil
	}
	w.looking.Lock()
	defer w.looking.Unlock()
	if v, ok := w.fresh(); ok { // another goroutine has just looked
		return v, nil
	}
	return w.look(ctx)
}

func (w *Writer) fresh() (view, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	age := w.options.Now().Sub(w.seen.at)
	return w.seen, !w.seen.at.IsZero() && age >= 0 && age < lookEvery
}

// look asks the primary who it is, what time it has, and which replicas are connected;
// of a primary that is new, also for its settings.
func (w *Writer) look(ctx context.Context) (view, error) {
	node, err := w.primary(ctx)
	if err != nil {
		return view{}, err
	}
	var info *redis.StringCmd
	var clock *redis.TimeCmd
	var seen *redis.BoolCmd
	before := w.options.Now()
	_, _ = node.Pipelined(ctx, func(pipe redis.Pipeliner) error { // each command carries its own error
		info = pipe.Info(ctx, "replication")
		clock = pipe.Time(ctx)
		seen = pipe.HExists(ctx, w.options.Key, replicaSeen)
		return nil
	})
	after := w.options.Now()
	if err := errors.Join(clock.Err(), seen.Err()); err != nil {
		if passing(clock.Err()) || passing(seen.Err()) {
			err = passingError{err}
		}
		return view{}, err
	}
	if err := info.Err(); err != nil && !errors.As(err, new(redis.Error)) {
		return view{}, passingError{err}
	}
	// A service that hides INFO shows neither its replicas nor that its primary changes.
	facts := redisconn.InfoFields(info.Val())
	if facts["role"] == "slave" {
		return view{}, passingError{errors.New("the node asked is a replica")}
	}
	v := view{
		at: before, answered: after, redis: clock.Val(), replid: facts["master_replid"],
		replicas: connectedReplicas(facts), seen: seen.Val(),
	}
	// Redis read its clock at some moment between the two.
	v.skew = v.redis.Sub(before.Add(after.Sub(before) / 2))
	w.mu.Lock()
	last := w.seen
	w.mu.Unlock()
	if v.replid == last.replid && !last.at.IsZero() && last.unfit == nil {
		v.waitAOF = last.waitAOF
	} else if v.waitAOF, v.unfit = w.inspect(ctx, node, facts, v); v.unfit != nil && !errors.Is(v.unfit, ErrUnfit) {
		return view{}, v.unfit
	}
	if v.replicas > 0 && !v.seen && w.options.Mode == Auto {
		if err := w.noteReplica(ctx, node); err != nil {
			return view{}, err
		}
		v.seen = true
	}
	w.keep(v, last)
	return v, nil
}

// noteReplica writes down that this Redis has a replica: from then on a write needs
// one, also when it has gone.
func (w *Writer) noteReplica(ctx context.Context, node *redis.Client) error {
	var wait *redis.Cmd
	_, err := node.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.HSet(ctx, w.options.Key, replicaSeen, 1)
		wait = pipe.Do(ctx, "wait", 1, w.timeout(view{}).Milliseconds())
		return nil
	})
	if err != nil {
		return passingError{err}
	}
	if n, err := wait.Int(); err != nil || n < 1 {
		return passingError{errors.New("no replica has acknowledged that there is one")}
	}
	return nil
}

// keep takes a look for the latest one, and tells what has changed.
func (w *Writer) keep(v, last view) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = v
	log := w.options.Log
	if !last.at.IsZero() && v.replid != last.replid {
		w.changes++
		log.Warn("redis has another primary, or was restarted: its settings are checked again",
			"was", last.replid, "is", v.replid)
	}
	if v.unfit != nil && last.unfit == nil && !last.at.IsZero() {
		log.Error("nothing is claimed", "error", v.unfit)
	}
	switch skewed := v.skew.Abs() > MaxSkew; {
	case skewed && !w.skewed:
		log.Warn("this process' clock and Redis' differ: gateways and expired_date need real time", "redis_is_ahead_by", v.skew.Round(time.Millisecond).String())
		w.skewed = true
	case !skewed && w.skewed:
		log.Info("this process' clock and Redis' agree again")
		w.skewed = false
	}
}

// inspect says whether an fsync has to be waited for, and what the settings lack; the
// error is ErrUnfit, or that of a primary that cannot be asked.
func (w *Writer) inspect(ctx context.Context, node *redis.Client, facts map[string]string, v view) (waitAOF bool, err error) {
	unfit := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s: %s", ErrUnfit, w.options.Mode, fmt.Sprintf(format, args...))
	}
	switch w.options.Mode {
	case Replicas:
		if v.replicas == 0 && w.options.Replicas < 0 {
			return false, unfit("no replica is connected; connect one, or choose another REDIS_DURABILITY")
		}
		return false, nil
	case Trusted, None:
		return false, nil
	}
	if facts["master_replid"] == "" {
		return false, unfit("INFO does not show its replicas; where the service itself keeps every write, set REDIS_DURABILITY=trusted")
	}
	settings, err := node.ConfigGet(ctx, "append*").Result()
	if err == nil {
		var more map[string]string
		if more, err = node.ConfigGet(ctx, "no-appendfsync-on-rewrite").Result(); err == nil {
			settings["no-appendfsync-on-rewrite"] = more["no-appendfsync-on-rewrite"]
		}
	}
	if err != nil {
		if errors.As(err, new(redis.Error)) && !passing(err) {
			return false, unfit("CONFIG GET is refused, so nobody knows whether a write is on disk; where the service itself keeps every write, set REDIS_DURABILITY=trusted")
		}
		return false, passingError{err}
	}
	fsync, delayed := settings["appendfsync"], settings["no-appendfsync-on-rewrite"] == "yes"
	switch {
	case settings["appendonly"] != "yes":
		return false, unfit("appendonly is %s; set appendonly yes and appendfsync always (or REDIS_DURABILITY=replicas, where a failed primary never comes back as primary)", settings["appendonly"])
	case fsync == "always" && !delayed:
		return false, nil
	case fsync != "no" && knowsWaitAOF(ctx, node):
		return true, nil
	case fsync != "always":
		return false, unfit("appendfsync is %s, so a Redis that dies loses its last writes; set appendfsync always (Redis 7.2 and later can wait for everysec, too)", fsync)
	default:
		return false, unfit("no-appendfsync-on-rewrite is yes, so writes are not synced while the file is rewritten; set it to no")
	}
}

func knowsWaitAOF(ctx context.Context, node *redis.Client) bool {
	commands, err := node.Do(ctx, "command", "info", "waitaof").Slice()
	return err == nil && len(commands) == 1 && commands[0] != nil
}

// connectedReplicas counts the replicas in INFO's section replication. A copy that
// redis-cli makes (--rdb, for a backup) is listed too, without a port, and is no
// replica that could be promoted.
func connectedReplicas(facts map[string]string) int {
	n := 0
	for name, value := range facts {
		number, isReplica := strings.CutPrefix(name, "slave")
		if _, err := strconv.Atoi(number); isReplica && err == nil && !strings.Contains(value, ",port=0,") {
			n++
		}
	}
	return n
}
