package events

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Beginning is the position before the first event, in any number of streams.
const Beginning = ""

// Positioned is an event, and the position right after it.
type Positioned struct {
	Event []byte
	After string
}

// Page returns up to limit entries that follow a position, merged by their time, without those
// that are no events, and the position after them. It never skips an event, in any number of
// streams. atEnd reports whether there were no more.
//
// A position names the entry of each stream that was read last: with one stream it is the id of
// the entry, as in Each. With several streams it is not a position for Each, which begins with
// the event that its position names.
func (s *Streams) Page(ctx context.Context, after string, limit int) (page []Positioned, next string, atEnd bool, err error) {
	position, err := s.parsePosition(after)
	if err != nil {
		return nil, "", false, err
	}
	replies, err := s.readAfter(ctx, position, limit+1) // one more, to know whether it is the end
	if err != nil {
		return nil, "", false, err
	}
	for n := 0; ; n++ {
		oldest := -1
		for i, messages := range replies {
			if len(messages) > 0 && (oldest < 0 || isBefore(messages[0].ID, replies[oldest][0].ID)) {
				oldest = i
			}
		}
		if oldest < 0 || n == limit {
			return page, strings.Join(position, ","), oldest < 0, nil
		}
		m := replies[oldest][0]
		replies[oldest] = replies[oldest][1:]
		position[oldest] = m.ID
		if event, _ := m.Values[Field].(string); event != "" {
			page = append(page, Positioned{Event: []byte(event), After: strings.Join(position, ",")})
		}
	}
}

// readAfter reads up to limit entries of each stream, in one round trip for each node.
func (s *Streams) readAfter(ctx context.Context, position []string, limit int) ([][]redis.XMessage, error) {
	cmds := make([]*redis.XMessageSliceCmd, len(s.names))
	_, _ = s.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error { // each command has its own error
		for i, name := range s.names {
			cmds[i] = pipe.XRangeN(ctx, name, "("+position[i], "+", int64(limit))
		}
		return nil
	})
	replies := make([][]redis.XMessage, len(cmds))
	for i, cmd := range cmds {
		var err error
		if replies[i], err = cmd.Result(); err != nil {
			return nil, fmt.Errorf("events: read %s: %w", s.names[i], err)
		}
	}
	return replies, nil
}

// End returns the position after the last event.
func (s *Streams) End(ctx context.Context) (string, error) {
	cmds := make([]*redis.XMessageSliceCmd, len(s.names))
	_, _ = s.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error { // each command has its own error
		for i, name := range s.names {
			cmds[i] = pipe.XRevRangeN(ctx, name, "+", "-", 1)
		}
		return nil
	})
	position := slices.Repeat([]string{firstID}, len(s.names))
	for i, cmd := range cmds {
		switch last, err := cmd.Result(); {
		case err != nil && !errors.Is(err, redis.Nil):
			return "", fmt.Errorf("events: read %s: %w", s.names[i], err)
		case len(last) > 0:
			position[i] = last[0].ID
		}
	}
	return strings.Join(position, ","), nil
}

// pageID matches ids of stream entries that Redis accepts: both numbers have 64 bits.
var pageID = regexp.MustCompile(`^\d{1,19}-\d{1,19}$`)

// firstID is before the ids of all entries.
const firstID = "0-0"

// Valid reports whether a position can be used with Page.
func (s *Streams) Valid(position string) bool {
	_, err := s.parsePosition(position)
	return err == nil
}

func (s *Streams) parsePosition(text string) ([]string, error) {
	if text == Beginning {
		return slices.Repeat([]string{firstID}, len(s.names)), nil
	}
	position := strings.Split(text, ",")
	if len(position) != len(s.names) {
		return nil, fmt.Errorf("events: %w", ErrPosition)
	}
	for _, id := range position {
		if !pageID.MatchString(id) {
			return nil, fmt.Errorf("events: %w", ErrPosition)
		}
	}
	return position, nil
}

// Before returns the position before the events that were written at a time, by Redis' clock.
func (s *Streams) Before(at time.Time) string {
	if at.UnixMilli() <= 0 {
		return Beginning
	}
	id := fmt.Sprintf("%d-%d", at.UnixMilli()-1, int64(math.MaxInt64)) // Redis counts from 0 in each millisecond
	return strings.Join(slices.Repeat([]string{id}, len(s.names)), ",")
}

// DeletedBefore returns the time before which events may be deleted, by Redis' clock: that of the
// oldest event that every stream still has. It is zero if none was ever deleted. A Redis older than
// 7.0 does not know whether it has deleted some.
func (s *Streams) DeletedBefore(ctx context.Context) (time.Time, error) {
	var latest time.Time
	for _, name := range s.names {
		info, err := s.redis.XInfoStream(ctx, name).Result()
		if err != nil && strings.Contains(err.Error(), "no such key") {
			continue
		}
		if err != nil {
			return time.Time{}, fmt.Errorf("events: %s: %w", name, err)
		}
		if info.Length == info.EntriesAdded {
			continue
		}
		first := time.Now()
		messages, err := s.redis.XRangeN(ctx, name, "-", "+", 1).Result()
		if err != nil {
			return time.Time{}, fmt.Errorf("events: read %s: %w", name, err)
		}
		if len(messages) > 0 {
			ms, _ := parseID(messages[0].ID)
			first = time.UnixMilli(int64(min(ms, math.MaxInt64)))
		}
		if first.After(latest) {
			latest = first
		}
	}
	return latest, nil
}
