package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/retrypolicy"
)

// charges is what a run can be found guilty of.
var charges = []string{"twice", "lost", "wrong", "events", "malformed", "crashed"}

// recoveryLimit is how long after a killed worker's claim its payment should be
// looked up. Gateways that fail and a Redis that is away may make it longer, so it
// is shown and not held against anybody.
const recoveryLimit = 15 * time.Second

// evidence is what happened in a run, and what is held against it.
type evidence struct {
	flags

	payments []entry
	taken    map[payment.Key]bool // enqueue answered for them

	kills, terms, restarts, runAgain int
	crashes                          []string
	settled                          time.Duration

	records map[payment.Key]*ledger.Record
	rows    map[payment.Key][]gatewaysim.Row
	events  map[payment.Key][]event
	journal []gatewaysim.Entry
	seen    gatewaysim.Summary

	accusations []accusation
}

// accusation is one thing that must not be; a zero key is no payment's.
type accusation struct {
	charge string
	key    payment.Key
	what   string
}

// event is a result event, as far as it is judged.
type event struct {
	ID      string          `json:"id"`
	Source  string          `json:"source"`
	Type    string          `json:"type"`
	Subject string          `json:"subject"`
	Time    time.Time       `json:"time"`
	Data    payment.Payment `json:"data"`
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

// gather takes the evidence from the ledger, the stream and the gateways, and
// holds one against the other.
func (c *evidence) gather(ctx context.Context, s *stage) error {
	c.rows, c.journal, c.seen = s.rows(), s.sim.Journal(), s.sim.Summary()
	stream, code, err := s.enqueue(ctx, "", "events")
	if err != nil {
		return err
	}
	if code != 0 {
		return fmt.Errorf("enqueue events ended with %d", code)
	}
	for dec := json.NewDecoder(bytes.NewReader(stream)); dec.More(); {
		var e event
		if err := dec.Decode(&e); err != nil {
			return fmt.Errorf("an event: %w", err)
		}
		key := payment.Key{Gateway: payment.Gateway(strings.TrimPrefix(e.Source, "terbayar/")), TransactionID: e.Subject}
		c.events[key] = append(c.events[key], e)
	}
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

// judge holds where a payment stands against what the gateway has.
func (c *evidence) judge(p entry, r *ledger.Record) {
	switch {
	case r.Status == payment.Queued || r.Status == payment.Submitting || r.Status == payment.Confirming:
		c.accuse("lost", p.key, "it is stuck in %s", r.Status)
	case r.Status != payment.Attention && r.Status != p.ends:
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
		if want := fmt.Sprintf("%s:%d", r.Key(), i+1); e.ID != want {
			c.accuse("events", r.Key(), "event %s where %s should be", e.ID, want)
		}
		is := e.Data.Status
		// Between two events the payment may have been where no event tells of.
		hidden := payment.CanMove(was, payment.Confirming) && payment.CanMove(payment.Confirming, is)
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

func asJSON(p payment.Payment) string {
	text, err := json.Marshal(p)
	if err != nil {
		panic(err) // our own type
	}
	return string(text)
}

// recovery is how long a payment whose claim had lapsed waited to be looked up.
type recovery struct {
	key  payment.Key
	took time.Duration
}

// unknowns are the submits whose outcome nobody knew: how many look-ups each took,
// and after those that a lapsed claim left behind, how long the first one took.
func (c *evidence) unknowns() (lookups []int, recoveries []recovery) {
	for _, r := range c.records {
		for i, a := range r.Attempts {
			if a.Kind != payment.KindSubmit || a.Action != string(retrypolicy.Confirm) {
				continue
			}
			n := 0
			for _, next := range r.Attempts[i+1:] {
				if next.Kind != payment.KindLookup {
					break
				}
				n++
				if next.Action != string(retrypolicy.Confirm) {
					break
				}
			}
			lookups = append(lookups, n)
			if n > 0 && a.DurationMS == claimLease.Milliseconds() { // written by whoever found the claim lapsed
				recoveries = append(recoveries, recovery{r.Key(), r.Attempts[i+1].At.Sub(a.End())})
			}
		}
	}
	slices.Sort(lookups)
	slices.SortFunc(recoveries, func(a, b recovery) int { return cmp.Compare(a.took, b.took) })
	return lookups, recoveries
}

// figures is what happened, as one table.
func (c *evidence) figures() string {
	statuses := map[payment.Status]int{}
	attempts := map[payment.Kind]int{}
	for _, r := range c.records {
		statuses[r.Status]++
		for _, a := range r.Attempts {
			attempts[a.Kind]++
		}
	}
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.SetTitle("seed %d: %d payments, %d workers, %s, fault rate %v", c.Seed, c.Payments, c.Workers, c.Duration, c.FaultRate)
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 2, Align: text.AlignRight}})
	section := func(name string, counts [][2]any) {
		t.AppendSeparator()
		t.AppendRow(table.Row{name, ""})
		for _, n := range counts {
			t.AppendRow(table.Row{fmt.Sprint("  ", n[0]), n[1]})
		}
	}
	section("payments", counted(statuses))
	section("done to them", [][2]any{
		{"workers killed with kill -9", c.kills},
		{"workers told to end with SIGTERM", c.terms},
		{"Redis killed and restarted", c.restarts},
		{"enqueue run again", c.runAgain},
	})
	section("faults", counted(c.seen.Faults))
	section("requests", counted(c.seen.Requests))
	section("attempts in the ledger", counted(attempts))
	lookups, recoveries := c.unknowns()
	section("recovery", [][2]any{
		{"submits of unknown outcome", len(lookups)},
		{"look-ups of each: median, worst", fmt.Sprintf("%d, %d", median(lookups), worst(lookups))},
		{"claims left behind", len(recoveries)},
		{"from a claim's end to the first look-up: median, worst", fmt.Sprintf("%s, %s",
			median(recoveries).took.Round(10*time.Millisecond), worst(recoveries).took.Round(10*time.Millisecond))},
		{"from the end of the storm until all had settled", c.settled.Round(100 * time.Millisecond)},
	})
	return t.Render()
}

// counted lists counts by their names.
func counted[K cmp.Ordered](counts map[K]int) [][2]any {
	var all [][2]any
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		all = append(all, [2]any{name, counts[name]})
	}
	return all
}

func median[T any](sorted []T) (m T) {
	if len(sorted) > 0 {
		m = sorted[len(sorted)/2]
	}
	return m
}

func worst[T any](sorted []T) (w T) {
	if len(sorted) > 0 {
		w = sorted[len(sorted)-1]
	}
	return w
}

// verdict says what was found, with the full story of every payment that
// something is held against, and reports whether nothing is.
func (c *evidence) verdict(out io.Writer) (clean bool) {
	told := map[payment.Key]bool{}
	for _, a := range c.accusations {
		if a.key == (payment.Key{}) {
			fmt.Fprintf(out, "\n%s: %s\n", strings.ToUpper(a.charge), a.what)
			continue
		}
		fmt.Fprintf(out, "\n%s: %s: %s\n", strings.ToUpper(a.charge), a.key, a.what)
		if !told[a.key] {
			told[a.key] = true
			c.tell(out, a.key)
		}
	}
	if _, recoveries := c.unknowns(); worst(recoveries).took > recoveryLimit {
		fmt.Fprintf(out, "\nno charge, but the longest recovery: %s: %s\n", worst(recoveries).key, worst(recoveries).took)
		c.tell(out, worst(recoveries).key)
	}
	var counts []string
	for _, charge := range charges {
		n := 0
		for _, a := range c.accusations {
			if a.charge == charge {
				n++
			}
		}
		counts = append(counts, fmt.Sprintf("%d %s", n, charge))
	}
	verdict := "clean"
	if len(c.accusations) > 0 {
		verdict = "NOT CLEAN"
	}
	fmt.Fprintf(out, "seed %d: %s: %s\n", c.Seed, verdict, strings.Join(counts, ", "))
	return len(c.accusations) == 0
}

// tell tells everything of a payment: the ledger's side, the stream's and the
// gateway's.
func (c *evidence) tell(out io.Writer, key payment.Key) {
	const clock = "15:04:05.000"
	if r := c.records[key]; r != nil {
		fmt.Fprintf(out, "  ledger: %s %q, created %s, updated %s\n", r.Status, r.Reason, r.CreatedAt.Format(clock), r.UpdatedAt.Format(clock))
		for _, a := range r.Attempts {
			fmt.Fprintf(out, "  %s %s %s (HTTP %d) > %s, %d ms\n", a.At.Format(clock), a.Kind, a.Code, a.HTTPStatus, a.Action, a.DurationMS)
		}
	}
	for _, e := range c.events[key] {
		fmt.Fprintf(out, "  %s event %s %s\n", e.Time.Format(clock), e.ID, e.Type)
	}
	last, again := "", 0
	for _, e := range c.journal {
		if e.Reference != key.TransactionID || !strings.HasPrefix(string(e.Operation), string(key.Gateway)) {
			continue
		}
		what := fmt.Sprintf("the gateway saw %s, answered %d %s, fault %q %v", e.Operation, e.Status, e.Code, e.Fault, e.Violations)
		if what == last { // a payment that stays open is asked about to the end
			again++
			continue
		}
		if again > 0 {
			fmt.Fprintf(out, "    and %d times more\n", again)
		}
		last, again = what, 0
		fmt.Fprintf(out, "  %s %s\n", e.At.UTC().Format(clock), what)
	}
	if again > 0 {
		fmt.Fprintf(out, "    and %d times more\n", again)
	}
	for _, row := range c.rows[key] {
		fmt.Fprintf(out, "  the gateway has %+v\n", row)
	}
}
