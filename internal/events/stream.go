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

// ErrNoEvent says that the stream has no event of that id.
var ErrNoEvent = errors.New("no such event in the stream")

// Stream reads the result events.
type Stream struct {
	redis redis.UniversalClient
	name  string
}

// NewStream reads the Redis stream of that name (EVENTS_STREAM).
func NewStream(client redis.UniversalClient, name string) *Stream {
	return &Stream{redis: client, name: name}
}

const (
	page = 1000 // entries a read; bounds memory
	// block is how long a read waits for the next event, and so how long the end of
	// the program may have to wait for the read.
	block     = time.Second
	retryWait = time.Second
)

// entryID is what Redis calls the entries of a stream: milliseconds, and a
// number within them. An event id starts with the name of a gateway.
var entryID = regexp.MustCompile(`^\d+(-\d+)?$`)

// Each hands every event to emit, the oldest first, from the given place on
// (included): an event's id or an entry's id; empty means the beginning. With
// follow it goes on with what is yet to come, through any outage of Redis, until
// the context ends.
func (s *Stream) Each(ctx context.Context, from string, follow bool, emit func(event []byte) error) error {
	last := "" // the id of the entry read last
	skipTo := ""
	start := "-"
	switch {
	case entryID.MatchString(from):
		start = from
	case from != "":
		skipTo = from
	}
	each := func(entries []redis.XMessage) error {
		for _, e := range entries {
			last = e.ID
			event, ok := e.Values[Field].(string)
			if !ok { // somebody else's entry
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
		entries, err := s.redis.XRangeN(ctx, s.name, start, "+", page).Result()
		if err != nil {
			return fmt.Errorf("events: read %s: %w", s.name, err)
		}
		if err := each(entries); err != nil {
			return err
		}
		if len(entries) < page {
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
		if err := each(entries); err != nil {
			return err
		}
	}
}

// next waits for entries behind the given one, however long Redis is away.
func (s *Stream) next(ctx context.Context, last string) ([]redis.XMessage, error) {
	return retry.DoValue(ctx, retry.NewConstant(retryWait), func(ctx context.Context) ([]redis.XMessage, error) {
		streams, err := s.redis.XRead(ctx, &redis.XReadArgs{
			Streams: []string{s.name, last}, Count: page, Block: block,
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

// id is an event's own id; empty when it is none of ours.
func id(event string) string {
	var e struct {
		ID string `json:"id"`
	}
	if json.Unmarshal([]byte(event), &e) != nil {
		return ""
	}
	return e.ID
}
