package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sethvargo/go-retry"
)

// ErrNoEvent says that the stream has no event with that id.
var ErrNoEvent = errors.New("no such event in the stream")

// Stream reads result events.
type Stream struct {
	redis redis.UniversalClient
	name  string
}

// NewStream returns a reader of the Redis stream of that name (EVENTS_STREAM).
func NewStream(client redis.UniversalClient, name string) *Stream {
	return &Stream{redis: client, name: name}
}

const (
	pageSize = 1000 // entries per read; bounds memory
	// blockTimeout is how long one read waits for a new event. It may delay a shutdown by as
	// much.
	blockTimeout = time.Second
	retryWait    = time.Second
)

// entryID matches Redis' ids of stream entries: milliseconds, optionally a dash and a
// sequence number. Event ids never match: they start with the name of a gateway.
var entryID = regexp.MustCompile(`^\d+(-\d+)?$`)

// Each calls emit for every event, oldest first, starting with from: an event id, a stream
// entry id, or "" for the oldest event. With follow it then waits for new events, also
// while Redis is down, until the context ends. It stops at the first error of emit and
// returns it.
func (s *Stream) Each(ctx context.Context, from string, follow bool, emit func(event []byte) error) error {
	last := "" // id of the last entry that was read
	skipTo := ""
	start := "-"
	switch {
	case entryID.MatchString(from):
		start = from
	case from != "":
		skipTo = from
	}
	emitAll := func(entries []redis.XMessage) error {
		for _, e := range entries {
			last = e.ID
			event, ok := e.Values[Field].(string)
			if !ok { // another program's entry
				continue
			}
			if skipTo != "" {
				if id(event) != skipTo {
					continue
				}
				skipTo = ""
			}
			if err := emit([]byte(event)); err != nil {
				return err
			}
		}
		return nil
	}
	for {
		entries, err := s.redis.XRangeN(ctx, s.name, start, "+", pageSize).Result()
		if err != nil {
			return fmt.Errorf("events: read %s: %w", s.name, err)
		}
		if err := emitAll(entries); err != nil {
			return err
		}
		if len(entries) < pageSize {
			break
		}
		start = "(" + last
	}
	if skipTo != "" {
		return fmt.Errorf("events: %s: %w", skipTo, ErrNoEvent)
	}
	if !follow {
		return nil
	}
	if last == "" {
		last = "0"
		if start != "-" {
			last = start
		}
	}
	for {
		entries, err := s.next(ctx, last)
		if err != nil {
			return err
		}
		if err := emitAll(entries); err != nil {
			return err
		}
	}
}

// next waits for entries after the given one, also while Redis is down. It may return none.
func (s *Stream) next(ctx context.Context, last string) ([]redis.XMessage, error) {
	return retry.DoValue(ctx, retry.NewConstant(retryWait), func(ctx context.Context) ([]redis.XMessage, error) {
		streams, err := s.redis.XRead(ctx, &redis.XReadArgs{
			Streams: []string{s.name, last}, Count: pageSize, Block: blockTimeout,
		}).Result()
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, redis.Nil):
			return nil, nil // nothing yet
		case err != nil:
			return nil, retry.RetryableError(fmt.Errorf("events: follow %s: %w", s.name, err))
		default:
			return streams[0].Messages, nil
		}
	})
}

// id returns an event's id; "" if the text is not an event.
func id(event string) string {
	var e struct {
		ID string `json:"id"`
	}
	if json.Unmarshal([]byte(event), &e) != nil {
		return ""
	}
	return e.ID
}
