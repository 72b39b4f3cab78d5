// Package retention deletes result events that are older than EVENTS_RETENTION.
package retention

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// maxDeleted is the highest number of events that one script deletes: that blocks Redis
// for about 2 ms.
const maxDeleted = 10_000

// A consumer group is logged when the age of its oldest unread event is more than this part of
// EVENTS_RETENTION.
const maxLag = 0.8

// trimScript deletes the events of a stream that are older than the retention. It keeps every
// event that an active consumer group has not been given or has not acknowledged. A group is
// active if Redis reports one of its consumers as idle for less than the retention. Before Redis
// 7.2, only a read that returns events ends the idle time: so a group that reads an empty
// stream may be inactive, but then it has nothing to lose. A group without consumers is
// inactive: it has read nothing since the time of its last-delivered-id, and keeping what is
// younger than that is the same as keeping nothing.
//
// It also keeps every event that an enabled webhook endpoint needs.
//
// It deletes whole nodes of the stream (~), usually 100 events or fewer, so a few events that
// are older may stay.
//
//	KEYS[1] stream
//	KEYS[2...] for each enabled webhook endpoint: cursor, heads, ... (webhooks.Deliverer.Hold)
//	ARGV[1] retention (ms)
//	ARGV[2] highest number of events to delete
//	result[1] number of events that were deleted
//	result[2...] for each consumer group: name, age of its oldest unread event (ms; 0: there is
//	    none), time since a consumer has read (ms; "": no consumers), "1" (active) or "", ...
var trimScript = redis.NewScript(`
local t = redis.call('TIME')
local now, retention = t[1] * 1000 + math.floor(t[2] / 1000), tonumber(ARGV[1])
local function text(n) return string.format('%.0f', n) end
local function fields(list) -- of one group or consumer in a reply of XINFO
  local map = {}
  for i = 1, #list, 2 do map[list[i]] = list[i + 1] end
  return map
end
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
if not first then return {'0'} end
local keep, answer = now - retention, {''}
for _, reply in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group, idle, oldest = fields(reply), math.huge, now
  for _, reply in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], group.name)) do
    idle = math.min(idle, fields(reply).idle)
  end
  -- Not from '-': events that were deleted stay pending.
  local pending = redis.call('XPENDING', KEYS[1], group.name, first[1], '+', 1)[1]
  local undelivered = redis.call('XRANGE', KEYS[1], '(' .. group['last-delivered-id'], '+', 'COUNT', 1)[1]
  for _, entry in ipairs({pending or {}, undelivered or {}}) do
    if entry[1] then oldest = math.min(oldest, tonumber(string.match(entry[1], '^%d+'))) end
  end
  local active = idle < retention
  if active then keep = math.min(keep, oldest) end
  for _, word in ipairs({group.name, text(now - oldest), idle < math.huge and text(idle) or '', active and '1' or ''}) do
    table.insert(answer, word)
  end
end
for i = 2, #KEYS, 2 do
  local head = redis.call('ZRANGE', KEYS[i + 1], 0, 0, 'WITHSCORES')[2]
  local unread = redis.call('XRANGE', KEYS[1], '(' .. (redis.call('GET', KEYS[i]) or '0-0'), '+', 'COUNT', 1)[1]
  for _, ms in ipairs({head or now, unread and string.match(unread[1], '^%d+') or now}) do
    keep = math.min(keep, tonumber(ms))
  end
end
answer[1] = text(redis.call('XTRIM', KEYS[1], 'MINID', '~', text(math.max(keep, 0)), 'LIMIT', ARGV[2]))
return answer
`)

// Trimmer trims the event streams of a ledger. Several workers may trim the same streams.
type Trimmer struct {
	Redis     redis.UniversalClient
	Streams   []string      // ledger.StreamNames
	Retention time.Duration // EVENTS_RETENTION
	Log       *slog.Logger
	OnGroups  func(map[string]Group) // receives, after each trim, all consumer groups by name
	// Hold returns the keys of the webhook endpoints that need events of a stream; nil: there
	// are none.
	Hold func(stream string) []string
}

// Group is the state of a consumer group, over all streams.
type Group struct {
	Lag  time.Duration // age of its oldest unread event
	Idle bool          // it has unread events in a stream where no events are kept for it
}

// Interval returns the time between two trims: an hour, less for a short retention.
func (t *Trimmer) Interval() time.Duration {
	return min(time.Hour, max(time.Second, t.Retention/10))
}

// Run trims the streams at once and at every interval, until the context ends.
func (t *Trimmer) Run(ctx context.Context) {
	ticker := time.NewTicker(t.Interval())
	defer ticker.Stop()
	for {
		if err := t.Trim(ctx); err != nil && ctx.Err() == nil {
			t.Log.Warn("trimming the events failed, will retry", "error", err, "in", t.Interval().String())
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// group is a consumer group of a stream.
type group struct {
	stream string
	lag    time.Duration // age of its oldest unread event
	idle   string        // time since one of its consumers has read; empty: no consumers
	active bool
}

// warn logs a group. One message for a group, even if it lags in several streams.
func (t *Trimmer) warn(message, name string, g group) {
	t.Log.Warn(message, "group", name, "stream", g.stream, "oldest_unread", g.lag.String(), "idle", g.idle, "retention", t.Retention.String())
}

// Trim trims every stream once, and logs the consumer groups that lag. It does not wait until
// the deletions are durable. If a failover loses some, the events are back, and so is the state
// of the groups from before the deletions, because a replica applies writes in order; the next
// trim deletes the events again.
func (t *Trimmer) Trim(ctx context.Context) error {
	slowest, idle := map[string]group{}, map[string]group{} // by name, over all streams
	slower := func(of map[string]group, name string, g group) {
		if before, seen := of[name]; !seen || g.lag > before.lag {
			of[name] = g
		}
	}
	var errs []error
	for _, stream := range t.Streams {
		groups, deleted, err := t.trimStream(ctx, stream)
		if err != nil {
			errs = append(errs, err)
		}
		if deleted > 0 {
			t.Log.Info("events deleted: older than EVENTS_RETENTION", "stream", stream, "deleted", deleted, "retention", t.Retention.String())
		}
		for name, g := range groups {
			slower(slowest, name, g)
			if !g.active && g.lag > t.Interval() { // its consumers may be about to read younger events
				slower(idle, name, g)
			}
		}
	}
	groups := map[string]Group{}
	for name, g := range slowest {
		i, isIdle := idle[name]
		groups[name] = Group{Lag: g.lag, Idle: isIdle}
		switch {
		case isIdle:
			t.warn("consumer group is idle: events that it has not read are deleted once they are older than EVENTS_RETENTION", name, i)
		case g.lag.Seconds() > maxLag*t.Retention.Seconds():
			t.warn("consumer group lags: events are kept for it, until its consumers are idle for EVENTS_RETENTION", name, g)
		}
	}
	t.OnGroups(groups)
	return errors.Join(errs...)
}

// trimStream trims a stream until nothing is left to delete. It returns the groups as they were
// before.
func (t *Trimmer) trimStream(ctx context.Context, stream string) (groups map[string]group, deleted int, err error) {
	keys := []string{stream}
	if t.Hold != nil {
		keys = append(keys, t.Hold(stream)...)
	}
	for {
		answer, err := trimScript.Run(ctx, t.Redis, keys, t.Retention.Milliseconds(), maxDeleted).StringSlice()
		var n int
		var now map[string]group
		if err == nil {
			n, now, err = parse(stream, answer)
		}
		if err != nil {
			return groups, deleted, fmt.Errorf("retention: trim %s: %w", stream, err)
		}
		if groups == nil {
			groups = now
		}
		deleted += n
		if n == 0 {
			return groups, deleted, nil
		}
	}
}

// parse parses the result of trimScript.
func parse(stream string, answer []string) (deleted int, groups map[string]group, err error) {
	if len(answer)%4 != 1 {
		return 0, nil, errors.New("unexpected answer of the script")
	}
	if deleted, err = strconv.Atoi(answer[0]); err != nil {
		return 0, nil, err
	}
	groups = map[string]group{}
	for i := 1; i < len(answer); i += 4 {
		lag, err := millis(answer[i+1])
		if err != nil {
			return 0, nil, err
		}
		g := group{stream: stream, lag: lag, active: answer[i+3] != ""}
		if answer[i+2] != "" {
			idle, err := millis(answer[i+2])
			if err != nil {
				return 0, nil, err
			}
			g.idle = idle.String()
		}
		groups[answer[i]] = g
	}
	return deleted, groups, nil
}

func millis(text string) (time.Duration, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	return time.Duration(n) * time.Millisecond, err
}
