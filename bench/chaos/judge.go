package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"terbayar/internal/events"
	"terbayar/internal/gatewaysim"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
)

// charges is what a run can be found guilty of.
var charges = []string{"twice", "lost", "wrong", "events", "malformed", "crashed", "harmed"}

// evidence is what happened in a run, and what is held against it.
type evidence struct {
	flags

	payments []entry

	shop     sync.Mutex           // the shop runs one enqueue at a time; guards what it knows:
	taken    map[payment.Key]bool // enqueue has answered for a payment, and so for good
	runAgain int                  // enqueue, since it could not take all

	kills, terms int
	coincidences int    // of these, in the moment in which Redis failed
	outages      []span // of Redis
	lateWon      int    // of these, failovers to a replica that lagged
	down         span   // of the gateway that was down
	crashes      []string
	settled      time.Duration

	records map[payment.Key]*ledger.Record
	rows    map[payment.Key][]gatewaysim.Row
	events  map[payment.Key][]event // that stand in the stream
	repeats int                     // events that the consumer has heard before
	gone    int                     // events that it has heard and that a failover took out of the stream
	undone  int                     // of these, refusals after which a person is asked, since the refusal was lost too
	journal []gatewaysim.Entry
	seen    gatewaysim.Summary

	accusations []accusation
}

// span is a time in which something was away; zero: it never was.
type span struct{ from, to time.Time }

// within is how much of the span lies in another one.
func (s span) within(o span) time.Duration {
	from, to := s.from, s.to
	if o.from.After(from) {
		from = o.from
	}
	if o.to.Before(to) {
		to = o.to
	}
	return max(to.Sub(from), 0)
}

// accusation is one thing that must not be; a zero key is no payment's.
type accusation struct {
	charge string
	key    payment.Key
	what   string
}

func newCase(f flags) *evidence {
	return &evidence{
		flags: f, payments: newPayments(f.Seed, f.Payments), taken: map[payment.Key]bool{},
		records: map[payment.Key]*ledger.Record{}, events: map[payment.Key][]event{},
	}
}

func (c *evidence) accuse(charge string, key payment.Key, format string, args ...any) {
	c.accusations = append(c.accusations, accusation{charge, key, fmt.Sprintf(format, args...)})
}

// rows is what both gateways have, by payment.
func (s *stage) rows() map[payment.Key][]gatewaysim.Row {
	rows := map[payment.Key][]gatewaysim.Row{}
	for _, r := range s.sim.Rows() {
		key := payment.Key{Gateway: payment.Gateway(r.Gateway), TransactionID: r.Reference}
		rows[key] = append(rows[key], r)
	}
	return rows
}

// gather takes the evidence from the ledger, the consumer and the gateways, and
// holds one against the other.
func (c *evidence) gather(ctx context.Context, s *stage, consumer *consumer) error {
	c.rows, c.journal, c.seen = s.rows(), s.sim.Journal(), s.sim.Summary()
	heard, err := consumer.everything(ctx, s)
	if err != nil {
		return err
	}
	standing, err := s.standing(ctx)
	if err != nil {
		return err
	}
	c.take(heard, standing)
	for _, p := range c.payments {
		r, err := s.book.Read(ctx, p.key)
		switch {
		case errors.Is(err, ledger.ErrNotFound):
			if c.taken[p.key] {
				c.accuse("lost", p.key, "enqueue has taken it, and the ledger does not know it")
			}
			continue
		case err != nil:
			return err
		}
		c.records[p.key] = r
		c.judge(p, r)
		c.judgeEvents(r)
		if c.GatewayDown != "" {
			c.judgeOutage(r)
		}
	}
	for key := range c.events {
		if c.records[key] == nil {
			c.accuse("events", key, "events of a payment that the ledger does not know")
		}
	}
	for key, rows := range c.rows {
		if len(rows) > 1 {
			c.accuse("twice", key, "the gateway has it %d times", len(rows))
		}
	}
	for _, v := range s.sim.Violations() {
		c.accuse("malformed", payment.Key{Gateway: payment.Gateway(strings.Split(string(v.Operation), ".")[0]), TransactionID: v.Reference},
			"%s: %s", v.Operation, v.What)
	}
	for _, name := range c.crashes {
		c.accuse("crashed", payment.Key{}, "%s ended by itself, not in time, or not well", name)
	}
	return nil
}

// take sorts the events that stand in the stream by payment, and holds what the consumer
// has heard against them. While no replica is promoted, that is the same, and each once.
// A failover may take events out of the stream that were heard (interface.md, "Result
// events"): then the same comes again under the same id, or under another n, but for
// on_processing and needs_review, which may be passed over.
func (c *evidence) take(heard, standing []event) {
	for _, e := range standing {
		c.events[e.key()] = append(c.events[e.key()], e)
	}
	failedOver := c.Redis != "standalone" && len(c.outages) > 0
	known := map[string]bool{}
	for _, e := range heard {
		key := e.key()
		if known[e.ID] {
			c.repeats++
			if !failedOver {
				c.accuse("events", key, "event %s comes twice", e.ID)
			}
			continue
		}
		known[e.ID] = true
		if slices.ContainsFunc(c.events[key], func(s event) bool { return s.ID == e.ID }) {
			continue
		}
		c.gone++
		is := e.Data.Status
		again := slices.ContainsFunc(c.events[key], func(s event) bool { return s.Type == e.Type })
		asked := slices.ContainsFunc(c.events[key], func(s event) bool { return s.Data.Status == payment.NeedsReview })
		switch {
		case !failedOver:
			c.accuse("events", key, "event %s was heard and is not in the stream", e.ID)
		case again || is == payment.OnProcessing || is == payment.NeedsReview:
		case is == payment.Rejected && asked:
			// Who was refused was ended before the refusal was acknowledged, and nobody
			// else knows of it.
			c.undone++
		default:
			c.accuse("events", key, "event %s was heard and has never come again", e.ID)
		}
	}
	for _, e := range standing {
		if !known[e.ID] {
			c.accuse("events", e.key(), "event %s stands in the stream and its consumer never heard it", e.ID)
		}
	}
}

// judge holds where a payment stands against what the gateway has.
func (c *evidence) judge(p entry, r *ledger.Record) {
	switch {
	case r.Status == payment.Queued || r.Status == payment.Submitting || r.Status == payment.Verifying:
		c.accuse("lost", p.key, "it is stuck in %s", r.Status)
	case r.Status != payment.NeedsReview && r.Status != p.ends:
		c.accuse("wrong", p.key, "it stands in %s, its customer has brought it to %s", r.Status, p.ends)
	case !agrees(&r.Payment, p.amount, c.rows[p.key]):
		c.accuse("wrong", p.key, "it stands in %s, the gateway has it %d times", r.Status, len(c.rows[p.key]))
	}
}

// judgeEvents wants a payment's events numbered without a gap, each once, no move
// against the table of moves, and the last one to say where the payment stands.
func (c *evidence) judgeEvents(r *ledger.Record) {
	told := c.events[r.Key()]
	was := payment.Submitting
	for i, e := range told {
		if want := events.ID(r.Key(), int64(i+1), e.Data.Status); e.ID != want {
			c.accuse("events", r.Key(), "event %s where %s should be", e.ID, want)
		}
		is := e.Data.Status
		// Between two events the payment may have been where no event tells of.
		hidden := payment.CanMove(was, payment.Verifying) && payment.CanMove(payment.Verifying, is)
		if is == was || !is.HasEvent() || !payment.CanMove(was, is) && !hidden {
			c.accuse("events", r.Key(), "event %s moves it from %s to %s", e.ID, was, is)
		}
		if e.Type != "terbayar.payment."+string(is) {
			c.accuse("events", r.Key(), "event %s is a %s and tells of %s", e.ID, e.Type, is)
		}
		was = is
	}
	switch {
	case len(told) == 0 && r.Status.HasEvent():
		c.accuse("events", r.Key(), "it stands in %s without an event", r.Status)
	case len(told) > 0 && r.Status.HasEvent():
		last := told[len(told)-1].Data
		last.Attempts, last.NextAt = r.Attempts, r.NextAt // no event has them
		if want, got := asJSON(r.Payment), asJSON(last); want != got {
			c.accuse("events", r.Key(), "the last event says %s, the ledger %s", got, want)
		}
	}
}

// Where a gateway is down, its payments wait and those of the other one do not
// notice; both with room for a busy machine.
const (
	unharmed  = 30 * time.Second // a payment's way, from being created to where it ends
	noticedIn = 30 * time.Second // every worker's circuit breaker has had its failures
)

// judgeOutage looks at what it cost a payment that one of the gateways was down.
func (c *evidence) judgeOutage(r *ledger.Record) {
	if r.Gateway != c.GatewayDown {
		if took := r.UpdatedAt.Sub(r.CreatedAt); took > unharmed {
			c.accuse("harmed", r.Key(), "it took %s, while the other gateway was down", took)
		}
		return
	}
	for _, a := range r.Attempts {
		if a.At.After(c.down.from.Add(noticedIn)) && a.At.Before(c.down.to) {
			c.accuse("harmed", r.Key(), "an attempt was spent while its gateway was down")
			return
		}
	}
}

func asJSON(p payment.Payment) string {
	text, err := json.Marshal(p)
	if err != nil {
		panic(err) // our own type
	}
	return string(text)
}
