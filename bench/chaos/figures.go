package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/payment"
	"terbayar/internal/retrypolicy"
)

// recoveryLimit is how long after a killed worker's claim its payment should be
// looked up. Gateways that fail may make it longer, so it is shown and not held
// against anybody.
const recoveryLimit = 15 * time.Second

// recovery is how long a payment whose claim had lapsed waited to be looked up, the
// time that Redis was away taken off.
type recovery struct {
	key  payment.Key
	took time.Duration
}

// unknowns are the submits whose outcome nobody knew: how many look-ups each took,
// and after those that a lapsed claim left behind, how long the first one took.
func (c *evidence) unknowns() (lookups []int, recoveries []recovery) {
	for _, r := range c.records {
		for i, a := range r.Attempts {
			if a.Kind != payment.KindSubmit || a.Action != string(retrypolicy.Verify) {
				continue
			}
			n := 0
			for _, next := range r.Attempts[i+1:] {
				if next.Kind != payment.KindLookup {
					break
				}
				n++
				if next.Action != string(retrypolicy.Verify) {
					break
				}
			}
			lookups = append(lookups, n)
			if n > 0 && a.DurationMS == claimLease.Milliseconds() { // written by whoever found the claim lapsed
				waited := span{a.End(), c.firstLookup(r.Key(), a.End(), r.Attempts[i+1].At)}
				took := waited.to.Sub(waited.from)
				for _, outage := range c.outages {
					took -= waited.within(outage)
				}
				recoveries = append(recoveries, recovery{r.Key(), took})
			}
		}
	}
	slices.Sort(lookups)
	slices.SortFunc(recoveries, func(a, b recovery) int { return cmp.Compare(a.took, b.took) })
	return lookups, recoveries
}

// firstLookup is when a payment was first looked up after a claim's end. The
// ledger says when it got an answer that was recorded; Paydia, whose queries name
// their payment, may have been asked before.
func (c *evidence) firstLookup(key payment.Key, claimEnd, recorded time.Time) time.Time {
	for _, e := range c.journal {
		if e.Operation == gatewaysim.PaydiaQuery && e.Reference == key.TransactionID && e.At.After(claimEnd) && e.At.Before(recorded) {
			return e.At
		}
	}
	return recorded
}

// figures is what happened, as one table.
func (c *evidence) figures() string {
	statuses := map[payment.Status]int{}
	held := map[string]int{}
	attempts := map[payment.Kind]int{}
	ways := map[payment.Gateway][]time.Duration{}
	for _, r := range c.records {
		statuses[r.Status]++
		if r.Status == payment.NeedsReview {
			held[because(r.Reason)]++
		}
		for _, a := range r.Attempts {
			attempts[a.Kind]++
		}
		ways[r.Gateway] = append(ways[r.Gateway], r.UpdatedAt.Sub(r.CreatedAt))
	}
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	title := fmt.Sprintf("seed %d: %d payments, %d workers, %s, fault rate %v", c.Seed, c.Payments, c.Workers, c.Duration, c.FaultRate)
	if c.GatewayDown != "" {
		title += fmt.Sprintf(", %s down", c.GatewayDown)
	}
	title += ", Redis " + c.Redis
	if c.Durability != "" || c.WaitReplicas != "" {
		title += fmt.Sprintf(" (durability %q, replicas %q)", c.Durability, c.WaitReplicas)
	}
	t.SetTitle(title)
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 2, Align: text.AlignRight}})
	section := func(name string, counts [][2]any) {
		t.AppendSeparator()
		t.AppendRow(table.Row{name, ""})
		for _, n := range counts {
			t.AppendRow(table.Row{fmt.Sprint("  ", n[0]), n[1]})
		}
	}
	section("payments", counted(statuses))
	section("held for a person, because", counted(held))
	section("done to them", [][2]any{
		{"workers killed with kill -9", c.kills},
		{"workers told to end with SIGTERM", c.terms},
		{"of these, in the moment in which Redis failed", c.coincidences},
		{"times that Redis failed", len(c.outages)},
		{"of these, failovers to the replica that lagged", c.lateWon},
		{"enqueue run again", c.runAgain},
		{"events that came again", c.repeats},
		{"events that were heard and taken away by a failover", c.gone},
		{"of these, refusals that nobody knows of any more", c.undone},
	})
	section("faults", counted(c.seen.Faults))
	section("requests", counted(c.seen.Requests))
	section("attempts in the ledger", counted(attempts))
	var pace [][2]any
	for _, g := range payment.Gateways() {
		slices.Sort(ways[g])
		pace = append(pace, [2]any{g, fmt.Sprintf("%s, %s",
			median(ways[g]).Round(10*time.Millisecond), worst(ways[g]).Round(10*time.Millisecond))})
	}
	section("from created to the last change: median, worst", pace)
	lookups, recoveries := c.unknowns()
	section("recovery", [][2]any{
		{"submits of unknown outcome", len(lookups)},
		{"look-ups of each: median, worst", fmt.Sprintf("%d, %d", median(lookups), worst(lookups))},
		{"claims left behind", len(recoveries)},
		{"from a claim's end to the first look-up, while Redis was there: median, worst", fmt.Sprintf("%s, %s",
			median(recoveries).took.Round(10*time.Millisecond), worst(recoveries).took.Round(10*time.Millisecond))},
		{"from the end of the storm until all had settled", c.settled.Round(100 * time.Millisecond)},
	})
	return t.Render()
}

// because makes one of the reasons that differ by code and count only.
func because(reason string) string {
	const unknown = "the gateway knew no such payment"
	if strings.Contains(reason, unknown) {
		return unknown
	}
	return reason
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
	_, recoveries := c.unknowns()
	if worst(recoveries).took > recoveryLimit {
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
	fmt.Fprintf(out, "seed %d: %s: %s; %d kill -9, %d SIGTERM, %s failed %d times (%d failovers to a replica that lagged, %d ends of workers in that moment); recovery median %s, worst %s; settled after %s\n",
		c.Seed, verdict, strings.Join(counts, ", "), c.kills, c.terms, c.Redis, len(c.outages), c.lateWon, c.coincidences,
		median(recoveries).took.Round(10*time.Millisecond), worst(recoveries).took.Round(10*time.Millisecond), c.settled.Round(time.Second))
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
