package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sethvargo/go-retry"
)

var (
	// ErrNoEvent says that the stream has no event with that id.
	ErrNoEvent = errors.New("no such event in the stream")
	// ErrPosition says that a position cannot be used with this number of streams.
	ErrPosition = errors.New("not a position in the events")
)

// Streams reads the result events of a ledger: one Redis stream for each of its partitions.
type Streams struct {
	redis redis.UniversalClient
	names []string
}

// NewStreams returns a reader of the Redis streams of these names, see ledger.StreamNames.
func NewStreams(client redis.UniversalClient, names []string) *Streams {
	return &Streams{redis: client, names: names}
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

// entry is an entry of one of the streams.
type entry struct {
	stream int
	id     string // Redis' id
	event  string // "": another program's entry
	last   bool   // not an entry: the stream has been read to its present end
	err    error  // not an entry: the stream cannot be read
}

// Each calls emit for every event, starting with from, until the present end. With follow it
// then waits for new events, also while Redis is down, until the context ends. It stops at the
// first error of emit and returns it.
//
// One stream is read oldest first. Of several, the present entries are merged by their time,
// and new ones come as they arrive; the events of one payment are in one stream.
//
// Positions that start with an event, for from: with one stream the event's id, or the id of
// its stream entry; with several the event's cursor, which emit gets with it. With one stream
// the cursor is the id of the stream entry. "" is the beginning.
func (s *Streams) Each(ctx context.Context, from string, follow bool, emit func(event []byte, cursor string) error) error {
	after, skipTo, err := s.parse(from)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m := &merger{after: after, skipTo: skipTo, emit: emit}
	present, live := make([]chan entry, len(s.names)), make(chan entry)
	for i := range s.names {
		present[i] = make(chan entry, 1)
		go s.read(ctx, i, after[i], follow, present[i], live)
	}
	if err := m.mergePresent(ctx, present); err != nil {
		return err
	}
	if m.skipTo != "" {
		return fmt.Errorf("events: %s: %w", m.skipTo, ErrNoEvent)
	}
	for follow {
		select {
		case e := <-live:
			if err := m.pass(e); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// parse returns after which entry of each stream to begin, "" for the beginning, or the id of
// the event to begin with.
func (s *Streams) parse(from string) (after []string, skipTo string, err error) {
	after = make([]string, len(s.names))
	switch {
	case from == "":
		return after, "", nil
	case len(s.names) > 1:
		if after = strings.Split(from, ","); len(after) != len(s.names) {
			return nil, "", fmt.Errorf("events: %w: with %d partitions it is an event's cursor, which has %d parts", ErrPosition, len(s.names), len(s.names))
		}
		for _, id := range after {
			if id != "" && !entryID.MatchString(id) {
				return nil, "", fmt.Errorf("events: %w: %q is not the id of a stream entry", ErrPosition, id)
			}
		}
		return after, "", nil
	case entryID.MatchString(from):
		ms, seq := parseID(from)
		after[0] = previousID(ms, seq)
		return after, "", nil
	default:
		return after, from, nil
	}
}

// parseID returns the two numbers of an entry's id.
func parseID(id string) (ms, seq uint64) {
	first, second, _ := strings.Cut(id, "-")
	ms, _ = strconv.ParseUint(first, 10, 64)   // Redis makes them, or entryID has matched
	seq, _ = strconv.ParseUint(second, 10, 64) // 0 without a sequence number
	return ms, seq
}

// previousID returns the highest id before an id; "" if there is none.
func previousID(ms, seq uint64) string {
	switch {
	case seq > 0:
		return fmt.Sprintf("%d-%d", ms, seq-1)
	case ms > 0:
		return fmt.Sprintf("%d-%d", ms-1, uint64(1<<64-1))
	default:
		return ""
	}
}

// read sends the present entries of a stream to present, then an entry with last. With follow
// it then sends new entries to live until the context ends.
func (s *Streams) read(ctx context.Context, i int, after string, follow bool, present, live chan<- entry) {
	send := func(to chan<- entry, messages []redis.XMessage) bool {
		for _, m := range messages {
			event, _ := m.Values[Field].(string)
			select {
			case to <- entry{stream: i, id: m.ID, event: event}:
			case <-ctx.Done():
				return false
			}
			after = m.ID
		}
		return true
	}
	for more := true; more; {
		start := "-"
		if after != "" {
			start = "(" + after
		}
		messages, err := s.redis.XRangeN(ctx, s.names[i], start, "+", pageSize).Result()
		if err != nil {
			select {
			case present <- entry{err: fmt.Errorf("events: read %s: %w", s.names[i], err)}:
			case <-ctx.Done():
			}
			return
		}
		if !send(present, messages) {
			return
		}
		more = len(messages) == pageSize
	}
	select {
	case present <- entry{last: true}:
	case <-ctx.Done():
	}
	for follow {
		messages, err := s.next(ctx, s.names[i], after)
		if err != nil || !send(live, messages) { // the context has ended
			return
		}
	}
}

// next waits for entries after the given one, also while Redis is down. It may return none.
// The error is the context's.
func (s *Streams) next(ctx context.Context, name, after string) ([]redis.XMessage, error) {
	if after == "" {
		after = "0"
	}
	return retry.DoValue(ctx, retry.NewConstant(retryWait), func(ctx context.Context) ([]redis.XMessage, error) {
		streams, err := s.redis.XRead(ctx, &redis.XReadArgs{Streams: []string{name, after}, Count: pageSize, Block: blockTimeout}).Result()
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, redis.Nil):
			return nil, nil // nothing yet
		case err != nil:
			return nil, retry.RetryableError(err)
		default:
			return streams[0].Messages, nil
		}
	})
}

// merger passes the entries of several streams on to emit.
type merger struct {
	after  []string // of each stream: the last entry that was passed on
	skipTo string   // id of the event to begin with; "": it was passed on
	emit   func(event []byte, cursor string) error
}

// mergePresent passes the present entries on, oldest first.
func (m *merger) mergePresent(ctx context.Context, present []chan entry) error {
	heads := make([]entry, len(present)) // the next entry of each stream
	receive := func(i int) error {
		select {
		case heads[i] = <-present[i]:
			return heads[i].err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for i := range present {
		if err := receive(i); err != nil {
			return err
		}
	}
	for {
		oldest := -1
		for i, e := range heads {
			if !e.last && (oldest < 0 || isBefore(e.id, heads[oldest].id)) {
				oldest = i
			}
		}
		if oldest < 0 {
			return nil
		}
		if err := m.pass(heads[oldest]); err != nil {
			return err
		}
		if err := receive(oldest); err != nil {
			return err
		}
	}
}

func isBefore(id, other string) bool {
	ms, seq := parseID(id)
	otherMS, otherSeq := parseID(other)
	return ms < otherMS || ms == otherMS && seq < otherSeq
}

// pass passes one entry on, unless it is not an event or before the one to begin with.
func (m *merger) pass(e entry) error {
	cursor := e.id
	if len(m.after) > 1 {
		cursor = strings.Join(m.after, ",")
	}
	m.after[e.stream] = e.id
	if e.event == "" {
		return nil
	}
	if m.skipTo != "" {
		if id(e.event) != m.skipTo {
			return nil
		}
		m.skipTo = ""
	}
	return m.emit([]byte(e.event), cursor)
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
