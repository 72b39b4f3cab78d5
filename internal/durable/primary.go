package durable

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// lookEvery is how long a look at the primary holds. A write looks again where the last
// look is older: a process that was frozen does not go by what was true before.
const lookEvery = time.Second

// MaxSkew is how far a process' clock may be away from Redis' before it is a warning.
const MaxSkew = 2 * time.Second

// replicaSeen is the field of Options.Key that says that a replica was once seen.
const replicaSeen = "replica_seen"

// shrinkAfter is how long fewer replicas must have been connected to the same primary
// before fewer are waited for. A replica that was promoted leaves its former primary,
// which may not have noticed yet, or never does where it is cut off: what the replicas
// that are left acknowledge then is lost. So the number is kept for longer than a
// failover takes.
const shrinkAfter = 35 * time.Second

// lookScript says who the node is and how many replicas are connected, and keeps how many
// there lately were: a process that has just started must know, too.
//
// A copy that redis-cli makes (--rdb, for a backup) is listed like a replica, without a
// port, and is none that could be promoted.
//
//	KEYS[1] Options.Key
//	ARGV[1] how long fewer must have been connected before fewer count (ms)
//	result[1] now (us)
//	result[2] role: "master" or "slave"; "" if Redis does not tell
//	result[3] which data set this is: another one when the primary has changed; "" if Redis does not tell
//	result[4] replicas that are connected
//	result[5] how many there lately were
//	result[6] "1" if a replica was once seen, whoever saw it
var lookScript = redis.NewScript(`
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
local p = redis.call('HMGET', KEYS[1], 'replica_seen', 'replid', 'replicas', 'replicas_at')
local most = connected
if role ~= 'slave' then
  local was, at = tonumber(p[3] or '0'), tonumber(p[4] or '0')
  if p[2] == replid and connected < was and now - at < tonumber(ARGV[1]) then
    most = was
  elseif p[2] ~= replid or connected ~= was or now - at > 5000 then
    redis.call('HSET', KEYS[1], 'replid', replid, 'replicas', connected, 'replicas_at', string.format('%.0f', now))
  end
end
return {micros, role, replid, tostring(connected), tostring(most), p[1] or ''}
`)

// view is what a look at the primary has shown.
type view struct {
	at       time.Time // when it was begun, by this process' clock
	answered time.Time // when the answer was there, by this process' clock
	redis    time.Time // what Redis' clock showed between the two
	skew     time.Duration
	replid   string // of the data set: another one when the primary has changed
	replicas int    // that are connected
	most     int    // of them, lately: at least as many as are connected
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
		return max(1, v.most)
	default:
		return v.most
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
	return w.seen, !w.stale && !w.seen.at.IsZero() && age >= 0 && age < lookEvery
}

// lookAgain lets the next write look first.
func (w *Writer) lookAgain() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stale = true
}

// look asks the primary who it is, what time it has, and which replicas are connected;
// of a primary that is new, also for its settings.
func (w *Writer) look(ctx context.Context) (view, error) {
	node, err := w.primary(ctx)
	if err != nil {
		return view{}, err
	}
	before := w.options.Now()
	// Not EVALSHA: while a node is new to this process it does not know the script, and a
	// second round trip would make the reading of its clock worse.
	answer, err := lookScript.Eval(ctx, node, []string{w.options.Key}, shrinkAfter.Milliseconds()).StringSlice()
	after := w.options.Now()
	if err == nil && len(answer) != 6 {
		err = errors.New("unexpected answer of a script")
	}
	if err != nil {
		if passing(err) {
			err = passingError{err}
		}
		return view{}, err
	}
	// A service that hides INFO shows neither its replicas nor that its primary changes.
	v := view{
		at: before, answered: after, redis: time.UnixMicro(int64(number(answer[0]))), replid: answer[2],
		replicas: number(answer[3]), most: number(answer[4]), seen: answer[5] == "1",
	}
	if answer[1] == "slave" {
		return view{}, passingError{errors.New("the node asked is a replica")}
	}
	// Redis read its clock at some moment between the two.
	v.skew = v.redis.Sub(before.Add(after.Sub(before) / 2))
	w.mu.Lock()
	last := w.seen
	w.mu.Unlock()
	if v.replid == last.replid && !last.at.IsZero() && last.unfit == nil {
		v.waitAOF = last.waitAOF
	} else if v.waitAOF, v.unfit = w.inspect(ctx, node, v); v.unfit != nil && !errors.Is(v.unfit, ErrUnfit) {
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
	w.seen, w.stale = v, false
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
func (w *Writer) inspect(ctx context.Context, node *redis.Client, v view) (waitAOF bool, err error) {
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
	if v.replid == "" {
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

// number reads a number of the script's own.
func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}
