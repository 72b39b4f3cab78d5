package webhooks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/events"
	"terbayar/internal/payment"
)

// hashTag returns the hash tag of a stream's slot, with braces.
func hashTag(stream string) string {
	if _, rest, ok := strings.Cut(stream, "{"); ok {
		if tag, _, closed := strings.Cut(rest, "}"); closed && tag != "" {
			return "{" + tag + "}"
		}
	}
	return "{" + stream + "}"
}

// queue is the deliveries of one endpoint from one stream.
type queue struct {
	redis    redis.UniversalClient
	stream   string
	endpoint string
	seen     string // the cursor that was last seen
}

// key returns one of the keys that scripts.go lists.
func (q *queue) key(part string) string {
	return hashTag(q.stream) + ":webhook:" + q.endpoint + ":" + part
}

func (q *queue) cursor() string   { return q.key("cursor") }
func (q *queue) payments() string { return q.key("payments") }
func (q *queue) due() string      { return q.key("due") }
func (q *queue) heads() string    { return q.key("heads") }
func (q *queue) givenUp() string  { return q.key("given_up") }

// start creates the cursor, if there is none.
func (q *queue) start(ctx context.Context) error {
	cursor, err := startScript.Run(ctx, q.redis, []string{q.cursor(), q.stream}, q.seen).Text()
	if err != nil {
		return fmt.Errorf("webhooks: start %s: %w", q.endpoint, err)
	}
	q.seen = cursor
	return nil
}

// pageSize is how many entries of a stream one read returns: it bounds memory, and the time
// that a script blocks Redis.
const pageSize = 200

// create creates the deliveries of the next entries of the stream. It reports whether there
// may be more entries.
func (q *queue) create(ctx context.Context, wants func(event) bool) (more bool, err error) {
	cursor, err := q.redis.Get(ctx, q.cursor()).Result()
	if errors.Is(err, redis.Nil) { // Redis has lost its data since the start
		return true, q.start(ctx)
	}
	if err != nil {
		return false, fmt.Errorf("webhooks: read the cursor of %s: %w", q.endpoint, err)
	}
	q.seen = cursor
	entries, err := q.redis.XRangeN(ctx, q.stream, "("+cursor, "+", pageSize).Result()
	if err != nil {
		return false, fmt.Errorf("webhooks: read %s: %w", q.stream, err)
	}
	if len(entries) == 0 {
		return false, nil
	}
	args := []any{cursor, entries[len(entries)-1].ID}
	for _, entry := range entries {
		if e, ok := parseEvent(entry.Values); ok && wants(e) {
			args = append(args, e.key().String(), entry.ID)
		}
	}
	keys := []string{q.payments(), q.due(), q.heads(), q.cursor()}
	if err := createScript.Run(ctx, q.redis, keys, args...).Err(); err != nil {
		return false, fmt.Errorf("webhooks: create deliveries of %s: %w", q.endpoint, err)
	}
	return len(entries) == pageSize, nil
}

// delivery is one event that a worker has taken in order to send it.
type delivery struct {
	queue   *queue
	payment string // payment.Key
	entry   string // id of the stream entry
	lease   string // until when (Unix ms, by Redis' clock) no other worker takes it
	tries   int    // that have failed
	event   event
	valid   bool // the stream entry is an event
}

// take takes up to limit deliveries that are due, for the time of the lease. dropped is the
// number of events that are no longer in the stream, because somebody has deleted them.
func (q *queue) take(ctx context.Context, limit int, lease time.Duration) (taken []delivery, dropped int, err error) {
	keys := []string{q.payments(), q.due(), q.heads(), q.stream}
	reply, err := takeScript.Run(ctx, q.redis, keys, limit, lease.Milliseconds()).Slice()
	if err == nil && len(reply)%5 != 1 {
		err = errors.New("unexpected answer of the script")
	}
	if err != nil {
		return nil, 0, fmt.Errorf("webhooks: take deliveries of %s: %w", q.endpoint, err)
	}
	for i := 1; i < len(reply); i += 5 {
		d := delivery{queue: q, payment: text(reply[i]), entry: text(reply[i+1]), lease: text(reply[i+2])}
		d.tries, _ = strconv.Atoi(text(reply[i+3])) // the script made it
		fields, _ := reply[i+4].([]any)
		values := map[string]any{}
		for j := 0; j+1 < len(fields); j += 2 {
			values[text(fields[j])] = fields[j+1]
		}
		d.event, d.valid = parseEvent(values)
		taken = append(taken, d)
	}
	n, _ := reply[0].(int64)
	return taken, int(n), nil
}

func text(reply any) string {
	s, _ := reply.(string)
	return s
}

// The outcomes of a try.
const (
	outcomeDelivered = "delivered"
	outcomeSkipped   = "skipped" // the endpoint no longer selects the event
	outcomeFailed    = "failed"  // it is tried again
	outcomeGaveUp    = "gave_up" // the last try has failed
)

// finish records the outcome of a try; wait is the time until the next one.
func (d delivery) finish(ctx context.Context, outcome, result string, wait time.Duration) error {
	q := d.queue
	keys := []string{q.payments(), q.due(), q.heads(), q.givenUp()}
	err := finishScript.Run(ctx, q.redis, keys, d.payment, d.entry, d.lease, outcome, result, wait.Milliseconds()).Err()
	if err != nil {
		return fmt.Errorf("webhooks: record a delivery of %s: %w", q.endpoint, err)
	}
	return nil
}

// event is a result event, and what of it decides whether an endpoint wants it.
type event struct {
	body string // JSON, as it is in the stream and is sent

	ID      string `json:"id"`
	Source  string `json:"source"`
	Type    string `json:"type"`
	Subject string `json:"subject"`
}

// parseEvent returns the event of a stream entry. It is not ok if the entry is not an event of
// a payment: another program may write to the stream.
func parseEvent(values map[string]any) (e event, ok bool) {
	body := text(values[events.Field])
	if json.Unmarshal([]byte(body), &e) != nil {
		return event{}, false
	}
	e.body = body
	return e, e.ID != "" && e.Subject != "" && e.gateway() != "" && e.status() != ""
}

func (e event) gateway() payment.Gateway {
	g, _ := strings.CutPrefix(e.Source, "terbayar/")
	return payment.Gateway(g)
}

// status returns the status that the event reports; "" if it reports something else.
func (e event) status() payment.Status {
	status, ok := strings.CutPrefix(e.Type, events.TypePrefix)
	if !ok {
		return ""
	}
	return payment.Status(status)
}

func (e event) key() payment.Key {
	return payment.Key{Gateway: e.gateway(), TransactionID: e.Subject}
}

// health says whether an endpoint can be reached.
type health struct {
	failingSince time.Time // every try has failed since; zero: the last one has not
	disabledAt   time.Time // zero: it is enabled
	reason       string    // why it is disabled: "gone" or "failing"
}

// newHealth is the field of a new endpoint, see healthScript.
const newHealth = "0 0 -"

func parseHealth(value string) (h health) {
	words := strings.Fields(value)
	if len(words) != 3 {
		return health{}
	}
	h.failingSince, h.disabledAt = millis(words[0]), millis(words[1])
	if h.reason = words[2]; h.reason == "-" {
		h.reason = ""
	}
	return h
}

// millis returns the time of Unix milliseconds; the zero time for 0.
func millis(word string) time.Time {
	ms, err := strconv.ParseInt(word, 10, 64)
	if err != nil || ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// healthKey returns the key of the hash of all endpoints to their health. It is in the slot of
// the first stream.
func healthKey(streams []string) string { return hashTag(streams[0]) + ":webhooks" }

// What healthScript is called for.
const (
	healthDelivered = "delivered"
	healthFailed    = "failed"
	healthGone      = "gone"
	healthEnable    = "enable"
)

// recordHealth records a change of an endpoint's health. It reports whether that has disabled
// the endpoint.
func recordHealth(ctx context.Context, client redis.UniversalClient, streams []string, endpoint, change string) (h health, disabled bool, err error) {
	reply, err := healthScript.Run(ctx, client, []string{healthKey(streams)}, endpoint, change, disableAfter.Milliseconds()).StringSlice()
	if err == nil && len(reply) != 2 {
		err = errors.New("unexpected answer of the script")
	}
	if err != nil {
		return health{}, false, fmt.Errorf("webhooks: record whether %s can be reached: %w", endpoint, err)
	}
	return parseHealth(reply[0]), reply[1] != "", nil
}

// queueStats are the numbers of an endpoint's deliveries from one stream.
type queueStats struct {
	pending int           // payments with deliveries that are pending
	oldest  time.Duration // age of the oldest event that is not delivered; 0: all are
	givenUp int           // deliveries that were given up
}

func (q *queue) stats(ctx context.Context) (queueStats, error) {
	keys := []string{q.payments(), q.heads(), q.givenUp(), q.cursor(), q.stream}
	reply, err := statsScript.Run(ctx, q.redis, keys).Slice()
	if err == nil && len(reply) != 3 {
		err = errors.New("unexpected answer of the script")
	}
	if err != nil {
		return queueStats{}, fmt.Errorf("webhooks: count the deliveries of %s: %w", q.endpoint, err)
	}
	pending, _ := reply[0].(int64)
	oldest, _ := strconv.ParseInt(text(reply[1]), 10, 64)
	givenUp, _ := reply[2].(int64)
	return queueStats{pending: int(pending), oldest: time.Duration(oldest) * time.Millisecond, givenUp: int(givenUp)}, nil
}
