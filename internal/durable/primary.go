package durable

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// maxStateAge is how long the result of an inspection is used. A write inspects the primary
// first if the result is older, for example because the process was frozen.
const maxStateAge = time.Second

// MaxSkew is the difference between this process' clock and Redis' that causes a warning.
const MaxSkew = 2 * time.Second

// replicaSeenField is the field of Options.Key that is set when a replica is seen.
const replicaSeenField = "replica_seen"

// shrinkAfter is how long fewer replicas must have been connected to the same primary
// before a write waits for fewer. When a replica is promoted, it leaves its former primary.
// The former primary may learn of the failover late or, in a partition, never, and writes
// that only its remaining replicas acknowledge are lost. So a write waits for the former
// number of replicas for longer than a failover takes.
const shrinkAfter = 35 * time.Second

// inspectScript reads the node's role and its number of connected replicas, and stores that
// number, so that a process that has just started knows how many were connected before.
//
// INFO also lists a backup by redis-cli --rdb as a replica, with port 0. It cannot be
// promoted and does not count.
//
//	KEYS[1] Options.Key
//	ARGV[1] shrinkAfter (ms)
//	result[1] now (us)
//	result[2] role: "master" or "slave"; "" if INFO does not show it
//	result[3] replication id: changes with the primary, and when it restarts; "" if INFO does not show it
//	result[4] connected replicas
//	result[5] replicas to wait for: result[4], or a higher former number for shrinkAfter
//	result[6] "1" if any process has ever seen a replica
var inspectScript = redis.NewScript(`
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local micros = string.format('%.0f', t[1] * 1000000 + t[2])
local info = redis.pcall('INFO', 'replication')
if type(info) ~= 'string' then info = '' end
local role, replid = info:match('role:(%a+)') or '', info:match('master_replid:(%x+)') or ''
local connected = 0
for port in info:gmatch('slave%d+:ip=[^,]*,port=(%d+)') do
  if port ~= '0' then connected = connected + 1 end
end
local seen, old_replid, replicas, replicas_at = unpack(
  redis.call('HMGET', KEYS[1], 'replica_seen', 'replid', 'replicas', 'replicas_at'))
local recent = connected
if role ~= 'slave' then
  local was, at = tonumber(replicas or '0'), tonumber(replicas_at or '0')
  if old_replid == replid and connected < was and now - at < tonumber(ARGV[1]) then
    recent = was
  elseif old_replid ~= replid or connected ~= was or now - at > 5000 then
    redis.call('HSET', KEYS[1], 'replid', replid, 'replicas', connected, 'replicas_at', string.format('%.0f', now))
  end
end
return {micros, role, replid, tostring(connected), tostring(recent), seen or ''}
`)

// primaryState is the result of an inspection of the primary.
type primaryState struct {
	asked          time.Time // when the inspection began, by this process' clock
	answered       time.Time // when it ended, by this process' clock
	redisTime      time.Time // Redis' clock between the two
	skew           time.Duration
	replid         string // replication id: changes with the primary, and when it restarts
	replicas       int    // connected replicas
	recentReplicas int    // replicas, or a higher former number for shrinkAfter
	replicaSeen    bool   // any process has ever seen a replica
	waitAOF        bool   // a write has to wait for an fsync
	unfit          error  // ErrUnfit and the reason, or nil
}

// needed returns the number of replicas that must acknowledge a write.
func (w *Writer) needed(s primaryState) int {
	switch {
	case w.options.Mode == None:
		return 0
	case w.options.Replicas >= 0:
		return w.options.Replicas
	case w.options.Mode == Replicas, w.options.Mode == Auto && s.replicaSeen:
		return max(1, s.recentReplicas)
	default:
		return s.recentReplicas
	}
}

// timeout returns the timeout of WAIT and of WAITAOF.
func (w *Writer) timeout(s primaryState) time.Duration {
	switch {
	case w.options.Timeout > 0:
		return w.options.Timeout
	case s.waitAOF:
		return EverySecTimeout
	default:
		return DefaultTimeout
	}
}

// currentState returns the state of the primary. It inspects the primary if the latest
// inspection is too old.
func (w *Writer) currentState(ctx context.Context) (primaryState, error) {
	if s, ok := w.cachedState(); ok {
		return s, nil
	}
	w.inspecting.Lock()
	defer w.inspecting.Unlock()
	if s, ok := w.cachedState(); ok { // another goroutine has just inspected it
		return s, nil
	}
	return w.inspectPrimary(ctx)
}

// cachedState returns the result of the latest inspection, and whether it can still be used.
func (w *Writer) cachedState() (primaryState, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	age := w.options.Now().Sub(w.state.asked)
	return w.state, !w.stale && !w.state.asked.IsZero() && age >= 0 && age < maxStateAge
}

// invalidate makes the next write inspect the primary first.
func (w *Writer) invalidate() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stale = true
}

// inspectPrimary reads the primary's role, clock and replicas and, if the primary has
// changed, its settings. The caller holds w.inspecting.
func (w *Writer) inspectPrimary(ctx context.Context) (primaryState, error) {
	node, err := w.primary(ctx)
	if err != nil {
		return primaryState{}, err
	}
	asked := w.options.Now()
	// Not EVALSHA: if the node has not cached the script, a second round trip would make the
	// reading of its clock less exact.
	answer, err := inspectScript.Eval(ctx, node, []string{w.options.Key}, shrinkAfter.Milliseconds()).StringSlice()
	answered := w.options.Now()
	if err == nil && len(answer) != 6 {
		err = errors.New("unexpected answer of a script")
	}
	if err != nil {
		if isTransient(err) {
			err = transientError{err}
		}
		return primaryState{}, err
	}
	// A managed service may not show INFO. Then role and replid are empty: its replicas and
	// its failovers are invisible.
	role := answer[1]
	s := primaryState{
		asked: asked, answered: answered, redisTime: time.UnixMicro(int64(number(answer[0]))), replid: answer[2],
		replicas: number(answer[3]), recentReplicas: number(answer[4]), replicaSeen: answer[5] == "1",
	}
	if role == "slave" {
		return primaryState{}, transientError{errors.New("the node is a replica")}
	}
	// The best guess of when Redis read its clock is the middle.
	s.skew = s.redisTime.Sub(asked.Add(answered.Sub(asked) / 2))
	w.mu.Lock()
	last := w.state
	w.mu.Unlock()
	if s.replid == last.replid && !last.asked.IsZero() && last.unfit == nil {
		s.waitAOF = last.waitAOF
	} else if s.waitAOF, s.unfit = w.checkSettings(ctx, node, s); s.unfit != nil && !errors.Is(s.unfit, ErrUnfit) {
		return primaryState{}, s.unfit
	}
	if s.replicas > 0 && !s.replicaSeen && w.options.Mode == Auto {
		if err := w.recordReplicaSeen(ctx, node); err != nil {
			return primaryState{}, err
		}
		s.replicaSeen = true
	}
	w.setState(s, last)
	return s, nil
}

// recordReplicaSeen records in Redis, and in a replica, that a replica exists. From then on
// a write needs at least one replica, even if none is connected.
func (w *Writer) recordReplicaSeen(ctx context.Context, node *redis.Client) error {
	var wait *redis.Cmd
	_, err := node.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.HSet(ctx, w.options.Key, replicaSeenField, 1)
		wait = pipe.Do(ctx, "wait", 1, w.timeout(primaryState{}).Milliseconds())
		return nil
	})
	if err != nil {
		return transientError{err}
	}
	if n, err := wait.Int(); err != nil || n < 1 {
		return transientError{errors.New("no replica acknowledged the record that a replica exists")}
	}
	return nil
}

// setState stores the result of an inspection, and logs what has changed.
func (w *Writer) setState(s, last primaryState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state, w.stale = s, false
	log := w.options.Log
	if !last.asked.IsZero() && s.replid != last.replid {
		w.changes++
		log.Warn("redis primary changed or restarted, settings checked again", "was", last.replid, "is", s.replid)
	}
	if s.unfit != nil && last.unfit == nil && !last.asked.IsZero() {
		log.Error("claims stopped", "error", s.unfit)
	}
	switch skewed := s.skew.Abs() > MaxSkew; {
	case skewed && !w.skewed:
		log.Warn("clock skew between this process and redis: gateways and expired_date need real time", "redis_is_ahead_by", s.skew.Round(time.Millisecond).String())
		w.skewed = true
	case !skewed && w.skewed:
		log.Info("clock skew ended")
		w.skewed = false
	}
}

// checkSettings reports whether a write has to wait for an fsync. The error is ErrUnfit if
// the settings are not enough for the mode, or a transient one if they cannot be read.
func (w *Writer) checkSettings(ctx context.Context, node *redis.Client, s primaryState) (waitAOF bool, err error) {
	switch w.options.Mode {
	case Trusted, None:
		return false, nil
	case Replicas:
		if s.replicas == 0 && w.options.Replicas < 0 {
			return false, w.unfitError("no replica is connected; connect one, or choose another REDIS_DURABILITY")
		}
		return false, nil
	case Auto:
	}
	if s.replid == "" {
		return false, w.unfitError("INFO does not show the replicas; if the service makes every write durable by itself, set REDIS_DURABILITY=trusted")
	}
	settings, err := node.ConfigGet(ctx, "append*").Result()
	if err == nil {
		var more map[string]string
		if more, err = node.ConfigGet(ctx, "no-appendfsync-on-rewrite").Result(); err == nil {
			settings["no-appendfsync-on-rewrite"] = more["no-appendfsync-on-rewrite"]
		}
	}
	if err != nil {
		if errors.As(err, new(redis.Error)) && !isTransient(err) {
			return false, w.unfitError("CONFIG GET is not allowed, so the fsync settings are unknown; if the service makes every write durable by itself, set REDIS_DURABILITY=trusted")
		}
		return false, transientError{err}
	}
	fsync, delayed := settings["appendfsync"], settings["no-appendfsync-on-rewrite"] == "yes"
	switch {
	case settings["appendonly"] != "yes":
		return false, w.unfitError("appendonly is %s; set appendonly yes and appendfsync always (or REDIS_DURABILITY=replicas, if a failed primary never returns as primary)", settings["appendonly"])
	case fsync == "always" && !delayed:
		return false, nil
	case fsync != "no" && hasWaitAOF(ctx, node):
		return true, nil
	case fsync != "always":
		return false, w.unfitError("appendfsync is %s, so a Redis that crashes loses its last writes; set appendfsync always (from Redis 7.2 everysec works, too)", fsync)
	default:
		return false, w.unfitError("no-appendfsync-on-rewrite is yes, so writes are not fsynced while the file is rewritten; set it to no")
	}
}

// unfitError returns an ErrUnfit with the reason.
func (w *Writer) unfitError(format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrUnfit, w.options.Mode, fmt.Sprintf(format, args...))
}

// hasWaitAOF reports whether Redis has the command WAITAOF, which is new in 7.2.
func hasWaitAOF(ctx context.Context, node *redis.Client) bool {
	commands, err := node.Do(ctx, "command", "info", "waitaof").Slice()
	return err == nil && len(commands) == 1 && commands[0] != nil
}

// number parses a number in the answer of inspectScript.
func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}
