// Package webhooks delivers result events to HTTP endpoints (docs/interface.md, "Webhooks").
//
// The state of the deliveries is in Redis beside the stream of events, see scripts.go. There
// are no asynq tasks: every worker takes what is due from there, with a lease, so a worker that
// crashes delays its deliveries until their leases end, and loses none.
package webhooks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// checkInterval is how often a worker looks for work. Wake makes it look at once.
	checkInterval = time.Second
	// wakePause is the shortest time between two looks: events are often written together.
	wakePause = 50 * time.Millisecond
	// statsInterval is how often the number of pending deliveries is read.
	statsInterval = 10 * time.Second
	// slots is the number of requests that one worker has open at an endpoint.
	slots = 10
	// lease is the time for which a delivery is taken: the longest try and its record.
	lease = sendTimeout + 15*time.Second
	// recordTimeout is how long a worker tries to record the outcome of a try. If it cannot,
	// the event is sent again after the lease.
	recordTimeout = 5 * time.Second
	// maxRetryAfter is the longest Retry-After that is obeyed.
	maxRetryAfter = 24 * time.Hour
	// disableAfter is the time of nothing but failures after which an endpoint is disabled.
	disableAfter = 5 * 24 * time.Hour
	// warnAt is the part of EVENTS_RETENTION after which warnOfTrim warns.
	warnAt = 0.8
)

// Options are the options of New.
type Options struct {
	Redis     redis.UniversalClient
	Streams   []string // ledger.StreamNames
	Endpoints []*Endpoint
	Schedule  Schedule
	Allow     []netip.Prefix // WEBHOOK_ALLOW
	Retention time.Duration  // EVENTS_RETENTION; 0: events are not deleted
	Now       func() time.Time
	Log       *slog.Logger
	Metrics   Metrics
}

// Metrics receives what is measured.
type Metrics interface {
	// WebhookTry counts a try; the outcome is delivered, failed, gave_up or skipped.
	WebhookTry(endpoint, outcome string, took time.Duration)
	// WebhookStats sets the payments with pending deliveries, the age of the oldest event that
	// is not delivered, and the deliveries that were given up.
	WebhookStats(endpoint string, pending int, oldest time.Duration, givenUp int)
	// WebhookDisabled sets whether an endpoint is disabled.
	WebhookDisabled(endpoint string, disabled bool)
}

// Deliverer delivers the events of a ledger to endpoints. Every worker runs one.
type Deliverer struct {
	Options
	client  *http.Client
	senders []*sender
	wake    chan struct{}
}

// New returns a Deliverer. It sends nothing yet.
func New(o Options) *Deliverer {
	d := &Deliverer{Options: o, client: newClient(o.Allow), wake: make(chan struct{}, 1)}
	for _, e := range o.Endpoints {
		if e.Disabled {
			continue
		}
		s := &sender{deliverer: d, endpoint: e, free: make(chan struct{}, slots), work: make(chan struct{}, 1)}
		for _, stream := range o.Streams {
			s.queues = append(s.queues, &queue{redis: o.Redis, stream: stream, endpoint: e.Name})
		}
		d.senders = append(d.senders, s)
	}
	return d
}

// Start creates the state of endpoints that are new: they receive the events from now on. It
// must be called before this worker writes events.
func (d *Deliverer) Start(ctx context.Context) error {
	for _, s := range d.senders {
		for _, q := range s.queues {
			if err := q.start(ctx); err != nil {
				return err
			}
		}
		if err := s.register(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Hold returns the keys that say up to which event the endpoints need a stream: cursor and heads
// of each endpoint. A disabled endpoint needs nothing.
func (d *Deliverer) Hold(stream string) (keys []string) {
	for _, s := range d.senders {
		if s.getHealth().disabledAt.IsZero() {
			q := &queue{redis: d.Redis, stream: stream, endpoint: s.endpoint.Name}
			keys = append(keys, q.cursor(), q.heads())
		}
	}
	return keys
}

// Wake makes the Deliverer look for work now, because an event was written.
func (d *Deliverer) Wake() { signal(d.wake) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it has been signaled
	}
}

// Run delivers until the context ends. It returns when the requests in flight have ended and
// are recorded. After an error of Redis it tries again; it logs the first of several errors in a
// row, and the recovery.
func (d *Deliverer) Run(ctx context.Context) {
	var senders sync.WaitGroup
	defer senders.Wait()
	for _, s := range d.senders {
		senders.Go(func() { s.run(ctx) })
	}
	check := time.NewTicker(checkInterval)
	defer check.Stop()
	var stats time.Time
	failing := false
	for {
		err := d.check(ctx)
		if now := d.Now(); err == nil && now.Sub(stats) >= statsInterval {
			stats = now
			err = d.stats(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			d.Log.Error("looking for webhooks to deliver failed, will retry", "error", err)
			failing = true
		case err == nil && failing:
			d.Log.Info("looking for webhooks to deliver works again")
			failing = false
		}
		pause := time.NewTimer(wakePause)
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		select {
		case <-ctx.Done():
			return
		case <-check.C:
		case <-d.wake:
		}
	}
}

// check signals the senders that have work, and reads which endpoints are disabled.
func (d *Deliverer) check(ctx context.Context) error {
	var states *redis.MapStringStringCmd
	replies := make([]*redis.Cmd, len(d.Streams))
	_, err := d.Redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		states = pipe.HGetAll(ctx, healthKey(d.Streams))
		for i, stream := range d.Streams {
			keys := []string{stream}
			for _, s := range d.senders {
				keys = append(keys, s.queues[i].cursor(), s.queues[i].due())
			}
			replies[i] = workScript.Eval(ctx, pipe, keys)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("webhooks: look for work: %w", err)
	}
	work := make([]bool, len(d.senders))
	for _, reply := range replies {
		has, err := reply.StringSlice()
		if err == nil && len(has) != len(d.senders) {
			err = errors.New("unexpected answer of the script")
		}
		if err != nil {
			return fmt.Errorf("webhooks: look for work: %w", err)
		}
		for i := range has {
			work[i] = work[i] || has[i] != ""
		}
	}
	for i, s := range d.senders {
		value, known := states.Val()[s.endpoint.Name]
		if !known { // Redis has lost its data
			if err := s.register(ctx); err != nil {
				return err
			}
		}
		h := parseHealth(value)
		s.setHealth(h)
		d.Metrics.WebhookDisabled(s.endpoint.Name, !h.disabledAt.IsZero())
		if work[i] && h.disabledAt.IsZero() {
			signal(s.work)
		}
	}
	return nil
}

// stats reads the numbers of deliveries for the metrics.
func (d *Deliverer) stats(ctx context.Context) error {
	for _, s := range d.senders {
		var pending, givenUp int
		var oldest time.Duration
		for _, q := range s.queues {
			n, err := q.stats(ctx)
			if err != nil {
				return err
			}
			pending, givenUp, oldest = pending+n.pending, givenUp+n.givenUp, max(oldest, n.oldest)
		}
		d.Metrics.WebhookStats(s.endpoint.Name, pending, oldest, givenUp)
		s.warnOfTrim(oldest)
	}
	return nil
}

// warnOfTrim logs, at most once an hour, that events may be deleted before they are delivered.
// That happens to a disabled endpoint only: events are kept for the others.
func (s *sender) warnOfTrim(oldest time.Duration) {
	o, now := s.deliverer, s.deliverer.Now()
	late := o.Retention > 0 && oldest.Seconds() > warnAt*o.Retention.Seconds()
	if !late || s.getHealth().disabledAt.IsZero() || now.Sub(s.warned) < time.Hour {
		return
	}
	s.warned = now
	o.Log.Warn("webhook endpoint is disabled: events that it has not received are deleted after EVENTS_RETENTION",
		"endpoint", s.endpoint.Name, "oldest", oldest.Round(time.Second).String(), "retention", o.Retention.String())
}

// sender sends the deliveries of one endpoint. Endpoints share no slots, so one that hangs
// delays no other.
type sender struct {
	deliverer *Deliverer
	endpoint  *Endpoint
	queues    []*queue      // one for each stream
	first     int           // the queue that is served first the next time
	free      chan struct{} // an element for each request in flight
	work      chan struct{} // there may be work
	warned    time.Time     // when warnOfTrim has last logged

	mu      sync.Mutex
	health  health
	failing bool // the first failure of several in a row was logged
}

// register makes the endpoint known to operators.
func (s *sender) register(ctx context.Context) error {
	o := s.deliverer
	if err := o.Redis.HSetNX(ctx, healthKey(o.Streams), s.endpoint.Name, newHealth).Err(); err != nil {
		return fmt.Errorf("webhooks: start %s: %w", s.endpoint.Name, err)
	}
	return nil
}

func (s *sender) setHealth(h health) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.health = h
}

func (s *sender) getHealth() health {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.health
}

func (s *sender) run(ctx context.Context) {
	var sending sync.WaitGroup
	defer sending.Wait()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.work:
		}
		switch err := s.deliver(ctx, &sending); {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			s.deliverer.Log.Error("taking webhooks to deliver failed, will retry", "endpoint", s.endpoint.Name, "error", err)
			failing = true
		case err == nil && failing:
			s.deliverer.Log.Info("taking webhooks to deliver works again", "endpoint", s.endpoint.Name)
			failing = false
		}
	}
}

// deliver creates the deliveries of new events, and sends those that are due, until there are
// none or all slots are in use. A request that ends signals work again. A disabled endpoint
// gets nothing.
func (s *sender) deliver(ctx context.Context, sending *sync.WaitGroup) error {
	if !s.getHealth().disabledAt.IsZero() {
		return nil
	}
	s.first++
	for i := range s.queues {
		q := s.queues[(s.first+i)%len(s.queues)]
		for more := true; more; {
			var err error
			if more, err = q.create(ctx, s.endpoint.wants); err != nil {
				return err
			}
		}
		free := slots - len(s.free)
		if free == 0 {
			return nil
		}
		taken, dropped, err := q.take(ctx, free, lease)
		if err != nil {
			return err
		}
		if dropped > 0 {
			s.deliverer.Log.Error("events were deleted before they were delivered", "endpoint", s.endpoint.Name, "events", dropped)
		}
		for _, d := range taken {
			s.free <- struct{}{} // at most slots were taken: it does not block
			sending.Go(func() {
				s.try(ctx, d)
				<-s.free
				signal(s.work)
			})
		}
	}
	return nil
}

// try sends one delivery and records the outcome. When the worker shuts down it has the time
// of one try to end.
func (s *sender) try(ctx context.Context, d delivery) {
	o := s.deliverer
	ctx = context.WithoutCancel(ctx)
	outcome, a, wait := outcomeSkipped, answer{result: "-"}, time.Duration(0)
	started := o.Now()
	if d.valid && s.endpoint.wants(d.event) {
		a = o.send(ctx, s.endpoint, d.event)
		outcome, wait = s.outcome(d, a)
	}
	took := o.Now().Sub(started)
	record, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	err := d.finish(record, outcome, a.result, wait)
	if err == nil && outcome != outcomeSkipped {
		err = s.recordHealth(record, a)
	}
	if err != nil {
		o.Log.Error("the outcome of a webhook was not recorded: it may be sent again", "endpoint", s.endpoint.Name, "event", d.event.ID, "outcome", outcome, "error", err)
	}
	o.Metrics.WebhookTry(s.endpoint.Name, outcome, took)
	s.log(d, a, outcome, wait, took)
}

// outcome returns the outcome of a try, and the time until the next one.
func (s *sender) outcome(d delivery, a answer) (outcome string, wait time.Duration) {
	if a.delivered() {
		return outcomeDelivered, 0
	}
	wait, again := s.deliverer.Schedule.next(d.tries+1, a.retryAfter, rand.Float64()) //nolint:gosec // jitter
	switch {
	case again:
		return outcomeFailed, wait
	case a.status == http.StatusGone:
		return outcomeFailed, s.deliverer.Schedule[len(s.deliverer.Schedule)-1] // the endpoint is disabled, the event waits
	default:
		return outcomeGaveUp, 0
	}
}

// recordHealth records that the endpoint can be reached, or not. Most tries change nothing.
func (s *sender) recordHealth(ctx context.Context, a answer) error {
	o, known := s.deliverer, s.getHealth()
	change := healthFailed
	switch {
	case a.delivered():
		change = healthDelivered
	case a.status == http.StatusGone:
		change = healthGone
	}
	if change == healthDelivered && known.failingSince.IsZero() {
		return nil
	}
	h, disabled, err := recordHealth(ctx, o.Redis, o.Streams, s.endpoint.Name, change)
	if err != nil {
		return err
	}
	s.setHealth(h)
	if disabled {
		o.Metrics.WebhookDisabled(s.endpoint.Name, true)
		o.Log.Error("webhook endpoint disabled: its events wait until an operator enables it", "endpoint", s.endpoint.Name,
			"reason", disabledReason(h.reason), "enable", "enqueue webhooks enable "+s.endpoint.Name)
	}
	return nil
}

// disabledReason returns why an endpoint is disabled, in words.
func disabledReason(reason string) string {
	if reason == "gone" {
		return "it answered 410 Gone"
	}
	return fmt.Sprintf("every try has failed for %.0f days", disableAfter.Hours()/24)
}

// log logs the first of several failures in a row, the recovery, and every delivery that was
// given up; others at debug level.
func (s *sender) log(d delivery, a answer, outcome string, wait, took time.Duration) {
	log := s.deliverer.Log
	attrs := []any{"endpoint", s.endpoint.Name, "event", d.event.ID, "webhook_id", WebhookID(d.event.ID), "try", d.tries + 1, "result", a.result, "duration_ms", took.Milliseconds()}
	if a.err != nil {
		attrs = append(attrs, "error", a.err)
	}
	if wait > 0 {
		attrs = append(attrs, "next_in", wait.Round(time.Millisecond).String())
	}
	s.mu.Lock()
	first := outcome == outcomeFailed && !s.failing
	recovered := outcome == outcomeDelivered && s.failing
	if outcome != outcomeSkipped {
		s.failing = outcome != outcomeDelivered
	}
	s.mu.Unlock()
	switch {
	case outcome == outcomeGaveUp:
		log.Error("webhook given up: the last try has failed", attrs...)
	case first:
		log.Warn("webhook failed, will retry", attrs...)
	case recovered:
		log.Info("webhook delivered again", attrs...)
	default:
		log.Debug("webhook sent", append(attrs, "outcome", outcome)...)
	}
}
