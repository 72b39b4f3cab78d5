package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

	shop          sync.Mutex                // the shop runs one enqueue at a time; guards what it knows:
	taken         map[payment.Key]time.Time // when enqueue answered for a payment, and so for good
	forgotten     time.Time                 // since when Redis has forgotten what it was told; zero: it never has
	runAgain      int                       // enqueue, since it could not take all
	handedInAgain int                       // payments taken in the time that Redis has forgotten

	kills, terms int
	outages      []span // of Redis
	down         span   // of the gateway that was down
	crashes      []string
	settled      time.Duration

	records map[payment.Key]*ledger.Record
	rows    map[payment.Key][]gatewaysim.Row
	events  map[payment.Key][]event // each once, as a consumer takes them
	repeats int                     // events that the consumer has dropped
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
		flags: f, payments: newPayments(f.Seed, f.Payments), taken: map[payment.Key]time.Time{},
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
	c.take(heard)
	for _, p := range c.payments {
		r, err := s.book.Read(ctx, p.key)
		switch {
		case errors.Is(err, ledger.ErrNotFound):
			if _, taken := c.taken[p.key]; taken {
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

// take sorts events by payment and drops repeats by their id. A repeat must be of
// the same type, and there is none where Redis forgets nothing; what counts is the
// latest, whose record stands in the ledger.
func (c *evidence) take(heard []event) {
	at := map[string]int{}
	for _, e := range heard {
		key := e.key()
		i, repeated := at[e.ID]
		switch {
		case !repeated:
			at[e.ID] = len(c.events[key])
			c.events[key] = append(c.events[key], e)
		case c.RedisForgets == 0:
			c.accuse("events", key, "event %s comes twice", e.ID)
		case c.events[key][i].Type != e.Type:
			c.accuse("events", key, "event %s was a %s and comes again as a %s", e.ID, c.events[key][i].Type, e.Type)
		default:
			c.repeats++
			c.events[key][i] = e
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
		if is == was || !is.Public() || !payment.CanMove(was, is) && !hidden {
			c.accuse("events", r.Key(), "event %s moves it from %s to %s", e.ID, was, is)
		}
		if e.Type != "terbayar.payment."+string(is) {
			c.accuse("events", r.Key(), "event %s is a %s and tells of %s", e.ID, e.Type, is)
		}
		was = is
	}
	switch {
	case len(told) == 0 && r.Status.Public():
		c.accuse("events", r.Key(), "it stands in %s without an event", r.Status)
	case len(told) > 0 && r.Status.Public():
		last := told[len(told)-1].Data
		last.Attempts = r.Attempts // no event has them
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
