package webhooks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/payment"
)

// Admin is what an operator can see and do. It needs no settings of endpoints: it knows those
// to which workers have delivered.
type Admin struct {
	Redis   redis.UniversalClient
	Streams []string // ledger.StreamNames
}

// EndpointState describes an endpoint.
type EndpointState struct {
	Name         string     `json:"endpoint"`
	Pending      int        `json:"pending"`                  // payments with events that are not delivered
	GivenUp      int        `json:"given_up"`                 // events whose last try has failed
	Oldest       float64    `json:"oldest_seconds,omitempty"` // age of the oldest event that is not delivered
	FailingSince *time.Time `json:"failing_since,omitempty"`  // every try has failed since
	DisabledAt   *time.Time `json:"disabled_at,omitempty"`
	Reason       string     `json:"reason,omitempty"` // why it is disabled
}

// The states of a delivery.
const (
	StateWaiting = "waiting"  // for its next try, or for an earlier event of the payment
	StateSending = "sending"  // a worker sends it
	StateGivenUp = "given_up" // the last try has failed
)

// Delivery is an event that is not delivered.
type Delivery struct {
	Endpoint      string          `json:"endpoint"`
	Gateway       payment.Gateway `json:"gateway"`
	TransactionID string          `json:"transaction_id"`
	EventID       string          `json:"event_id,omitempty"` // "": the event is no longer in the stream
	WebhookID     string          `json:"webhook_id,omitempty"`
	Type          string          `json:"type,omitempty"`
	State         string          `json:"state"`
	Tries         int             `json:"tries"`            // that have failed
	Result        string          `json:"result,omitempty"` // of the last one
	TriedAt       *time.Time      `json:"tried_at,omitempty"`
	NextAt        *time.Time      `json:"next_at,omitempty"`
}

// ErrNoEndpoint says that no worker has delivered to an endpoint of that name.
var ErrNoEndpoint = errors.New("no worker has used an endpoint of that name")

func (a *Admin) queues(endpoint string) []*queue {
	queues := make([]*queue, len(a.Streams))
	for i, stream := range a.Streams {
		queues[i] = &queue{redis: a.Redis, stream: stream, endpoint: endpoint}
	}
	return queues
}

// Endpoints returns the endpoints, by name.
func (a *Admin) Endpoints(ctx context.Context) ([]EndpointState, error) {
	states, err := a.Redis.HGetAll(ctx, healthKey(a.Streams)).Result()
	if err != nil {
		return nil, fmt.Errorf("webhooks: read the endpoints: %w", err)
	}
	var all []EndpointState
	for name, value := range states {
		h := parseHealth(value)
		e := EndpointState{Name: name, FailingSince: pointer(h.failingSince), DisabledAt: pointer(h.disabledAt)}
		if !h.disabledAt.IsZero() {
			e.Reason = disabledReason(h.reason)
		}
		for _, q := range a.queues(name) {
			n, err := q.stats(ctx)
			if err != nil {
				return nil, err
			}
			e.Pending, e.GivenUp, e.Oldest = e.Pending+n.pending, e.GivenUp+n.givenUp, max(e.Oldest, n.oldest.Seconds())
		}
		all = append(all, e)
	}
	slices.SortFunc(all, func(x, y EndpointState) int { return strings.Compare(x.Name, y.Name) })
	return all, nil
}

func pointer(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// Pending calls emit for the deliveries of an endpoint that wait, are being sent or were given
// up, those of one payment in order. It stops at the first error of emit.
func (a *Admin) Pending(ctx context.Context, endpoint string, emit func(Delivery) error) error {
	if err := a.requireEndpoint(ctx, endpoint); err != nil {
		return err
	}
	for _, q := range a.queues(endpoint) {
		if err := q.eachPending(ctx, emit); err != nil {
			return err
		}
		if err := q.eachGivenUp(ctx, emit); err != nil {
			return err
		}
	}
	return nil
}

func (a *Admin) requireEndpoint(ctx context.Context, endpoint string) error {
	known, err := a.Redis.HExists(ctx, healthKey(a.Streams), endpoint).Result()
	switch {
	case err != nil:
		return fmt.Errorf("webhooks: read the endpoints: %w", err)
	case !known:
		return fmt.Errorf("webhooks: %s: %w", endpoint, ErrNoEndpoint)
	default:
		return nil
	}
}

// eachPending emits the deliveries of the hash of payments, which may change while it is read.
func (q *queue) eachPending(ctx context.Context, emit func(Delivery) error) error {
	var position uint64
	for {
		page, next, err := q.redis.HScan(ctx, q.payments(), position, "", pageSize).Result()
		if err != nil {
			return fmt.Errorf("webhooks: read the deliveries of %s: %w", q.endpoint, err)
		}
		var payments, values []string
		for i := 0; i+1 < len(page); i += 2 {
			payments, values = append(payments, page[i]), append(values, page[i+1])
		}
		var due []float64
		if len(payments) > 0 {
			if due, err = q.redis.ZMScore(ctx, q.due(), payments...).Result(); err != nil {
				return fmt.Errorf("webhooks: read the deliveries of %s: %w", q.endpoint, err)
			}
		}
		var deliveries []Delivery
		var entries []string
		for i, value := range values {
			words := strings.Fields(value) // see scripts.go
			if len(words) < 5 {
				continue
			}
			for j, entry := range words[4:] {
				d := Delivery{Endpoint: q.endpoint, State: StateWaiting}
				d.Gateway, d.TransactionID = splitKey(payments[i])
				if j == 0 {
					d.addTries(words, due[i])
				}
				deliveries, entries = append(deliveries, d), append(entries, entry)
			}
		}
		if err := q.emit(ctx, deliveries, entries, emit); err != nil {
			return err
		}
		if position = next; position == 0 {
			return nil
		}
	}
}

// addTries adds what is known of the tries: words of the payment's field, and when it is due.
func (d *Delivery) addTries(words []string, due float64) {
	if d.Tries, _ = strconv.Atoi(words[0]); d.Tries > 0 {
		d.Result, d.TriedAt = words[2], pointer(millis(words[3]))
	}
	if words[1] != "0" {
		d.State = StateSending
	} else if due > 0 {
		d.NextAt = pointer(time.UnixMilli(int64(due)).UTC())
	}
}

// eachGivenUp emits the deliveries that were given up, oldest first.
func (q *queue) eachGivenUp(ctx context.Context, emit func(Delivery) error) error {
	for start := int64(0); ; start += pageSize {
		members, err := q.redis.ZRange(ctx, q.givenUp(), start, start+pageSize-1).Result()
		if err != nil {
			return fmt.Errorf("webhooks: read the deliveries of %s: %w", q.endpoint, err)
		}
		var deliveries []Delivery
		var entries []string
		for _, member := range members {
			entry, key, _ := strings.Cut(member, " ")
			d := Delivery{Endpoint: q.endpoint, State: StateGivenUp}
			d.Gateway, d.TransactionID = splitKey(key)
			deliveries, entries = append(deliveries, d), append(entries, entry)
		}
		if err := q.emit(ctx, deliveries, entries, emit); err != nil || len(members) < pageSize {
			return err
		}
	}
}

// emit adds the events to the deliveries, and emits them.
func (q *queue) emit(ctx context.Context, deliveries []Delivery, entries []string, emit func(Delivery) error) error {
	cmds := make([]*redis.XMessageSliceCmd, len(entries))
	if len(entries) > 0 {
		_, _ = q.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error { // each command has its own error
			for i, entry := range entries {
				cmds[i] = pipe.XRange(ctx, q.stream, entry, entry)
			}
			return nil
		})
	}
	for i, d := range deliveries {
		messages, err := cmds[i].Result()
		if err != nil {
			return fmt.Errorf("webhooks: read %s: %w", q.stream, err)
		}
		if len(messages) > 0 {
			if e, ok := parseEvent(messages[0].Values); ok {
				d.EventID, d.WebhookID, d.Type = e.ID, WebhookID(e.ID), e.Type
			}
		}
		if err := emit(d); err != nil {
			return err
		}
	}
	return nil
}

func splitKey(key string) (payment.Gateway, string) {
	gateway, id, _ := strings.Cut(key, ":")
	return payment.Gateway(gateway), id
}

// Selection selects events for Replay. The zero value selects all.
type Selection struct {
	GivenUp  bool // only those that were given up
	EventIDs []string
	Payment  *payment.Key
	Statuses []payment.Status
	Since    time.Time
	Until    time.Time // zero: now
}

func (s Selection) selects(e event) bool {
	return (len(s.EventIDs) == 0 || slices.Contains(s.EventIDs, e.ID)) &&
		(s.Payment == nil || *s.Payment == e.key()) &&
		(len(s.Statuses) == 0 || slices.Contains(s.Statuses, e.status()))
}

// Replay delivers events of the stream again, also such as were delivered, with the same
// webhook-id; an endpoint ignores those that it does not select. It returns how many. What
// waits for its next try is tried at once.
func (a *Admin) Replay(ctx context.Context, endpoint string, s Selection) (n int, err error) {
	if err := a.requireEndpoint(ctx, endpoint); err != nil {
		return 0, err
	}
	for _, q := range a.queues(endpoint) {
		replayed, err := q.replay(ctx, s)
		if n += replayed; err != nil {
			return n, err
		}
	}
	return n, nil
}

func (q *queue) replay(ctx context.Context, s Selection) (n int, err error) {
	start, end := "-", "+"
	if !s.Since.IsZero() {
		start = strconv.FormatInt(s.Since.UnixMilli(), 10)
	}
	if !s.Until.IsZero() {
		end = strconv.FormatInt(s.Until.UnixMilli(), 10)
	}
	for {
		entries, err := q.redis.XRangeN(ctx, q.stream, start, end, pageSize).Result()
		if err != nil {
			return n, fmt.Errorf("webhooks: read %s: %w", q.stream, err)
		}
		args, err := q.selected(ctx, entries, s)
		if err != nil {
			return n, err
		}
		if len(args) > 0 {
			keys := []string{q.payments(), q.due(), q.heads(), q.givenUp()}
			if err := replayScript.Run(ctx, q.redis, keys, args...).Err(); err != nil {
				return n, fmt.Errorf("webhooks: replay to %s: %w", q.endpoint, err)
			}
			n += len(args) / 2
		}
		if len(entries) < pageSize {
			return n, nil
		}
		start = "(" + entries[len(entries)-1].ID
	}
}

// selected returns the arguments of replayScript for those of the entries that are selected.
func (q *queue) selected(ctx context.Context, entries []redis.XMessage, s Selection) (args []any, err error) {
	for _, entry := range entries {
		e, ok := parseEvent(entry.Values)
		if !ok || !s.selects(e) {
			continue
		}
		if s.GivenUp {
			err := q.redis.ZScore(ctx, q.givenUp(), entry.ID+" "+e.key().String()).Err()
			if errors.Is(err, redis.Nil) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("webhooks: read the deliveries of %s: %w", q.endpoint, err)
			}
		}
		args = append(args, e.key().String(), entry.ID)
	}
	return args, nil
}

// Enable enables an endpoint that was disabled because it could not be reached. Its deliveries
// are due at once.
func (a *Admin) Enable(ctx context.Context, endpoint string) error {
	if err := a.requireEndpoint(ctx, endpoint); err != nil {
		return err
	}
	for _, q := range a.queues(endpoint) {
		err := a.Redis.ZUnionStore(ctx, q.due(), &redis.ZStore{Keys: []string{q.due()}, Weights: []float64{0}}).Err()
		if err != nil {
			return fmt.Errorf("webhooks: enable %s: %w", endpoint, err)
		}
	}
	_, _, err := recordHealth(ctx, a.Redis, a.Streams, endpoint, healthEnable)
	return err
}
