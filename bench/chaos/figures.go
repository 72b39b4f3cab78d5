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

// recoveryLimit is how long after the end of a killed worker's claim its payment should be
// looked up. Misbehaving gateways may make it longer, so that is shown and is no finding.
const recoveryLimit = 15 * time.Second

// recovery is the time that a payment with an expired claim waited for its first lookup,
// without the time in which Redis was down.
type recovery struct {
	key  payment.Key
	took time.Duration
}

// unknownOutcomes returns, for the submits of unknown outcome, the numbers of lookups, and the
// recoveries of those with an expired claim. Both are sorted.
func (r *chaosRun) unknownOutcomes() (lookups []int, recoveries []recovery) {
	for _, p := range r.result.Records {
		for i, a := range p.Attempts {
			if a.Kind != payment.KindSubmit || a.Action != string(retrypolicy.Verify) {
				continue
			}
			n := 0
			for _, next := range p.Attempts[i+1:] {
				if next.Kind != payment.KindLookup {
					break
				}
				n++
				if next.Action != string(retrypolicy.Verify) {
					break
				}
			}
			lookups = append(lookups, n)
			if n > 0 && a.DurationMS == claimLease.Milliseconds() { // written by the worker that found the claim expired
				waited := span{a.End(), r.firstLookup(p.Key(), a.End(), p.Attempts[i+1].At)}
				took := waited.to.Sub(waited.from)
				for _, outage := range r.outages {
					took -= waited.overlap(outage)
				}
				recoveries = append(recoveries, recovery{p.Key(), took})
			}
		}
	}
	slices.Sort(lookups)
	slices.SortFunc(recoveries, func(a, b recovery) int { return cmp.Compare(a.took, b.took) })
	return lookups, recoveries
}

// firstLookup returns when a payment was first looked up after the end of its claim. The
// ledger has the first lookup with a recorded answer. The journal may have an earlier one:
// Paydia's queries contain the payment's id.
func (r *chaosRun) firstLookup(key payment.Key, claimEnd, recorded time.Time) time.Time {
	for _, e := range r.result.Journal {
		if e.Operation == gatewaysim.PaydiaQuery && e.Reference == key.TransactionID && e.At.After(claimEnd) && e.At.Before(recorded) {
			return e.At
		}
	}
	return recorded
}

// figures returns a table of what happened.
func (r *chaosRun) figures() string {
	statuses := map[payment.Status]int{}
	reviews := map[string]int{}
	attempts := map[payment.Kind]int{}
	durations := map[payment.Gateway][]time.Duration{}
	for _, p := range r.result.Records {
		statuses[p.Status]++
		if p.Status == payment.NeedsReview {
			reviews[reviewReason(p.Reason)]++
		}
		for _, a := range p.Attempts {
			attempts[a.Kind]++
		}
		durations[p.Gateway] = append(durations[p.Gateway], p.UpdatedAt.Sub(p.CreatedAt))
	}
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	title := fmt.Sprintf("seed %d: %d payments, %d workers, %s, fault rate %v", r.f.Seed, r.f.Payments, r.f.Workers, r.f.Duration, r.f.FaultRate)
	if r.f.GatewayDown != "" {
		title += fmt.Sprintf(", %s down", r.f.GatewayDown)
	}
	title += ", Redis " + r.f.Redis
	if r.f.Durability != "" || r.f.WaitReplicas != "" {
		title += fmt.Sprintf(" (durability %q, replicas %q)", r.f.Durability, r.f.WaitReplicas)
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
	sum := r.Sim.Summary()
	section("payments", counted(statuses))
	section("reasons for manual review", counted(reviews))
	section("failures", [][2]any{
		{"workers killed with kill -9", r.kills},
		{"workers stopped with SIGTERM", r.terms},
		{"of these two, at the moment at which Redis failed", r.sameMoment},
		{"failures of Redis", len(r.outages)},
		{"of these, promotions of a replica that lagged", r.latePromotions},
		{"lines submitted again", r.orders.Retries()},
		{"events received more than once", r.report.RepeatedEvents},
		{"events received, and removed by a failover", r.report.WithdrawnEvents},
		{"of these, refusals that the ledger has lost too", r.report.WithdrawnRefusals},
		{"tombstones, see --retention", r.tombstones()},
	})
	section("faults", counted(sum.Faults))
	section("requests", counted(sum.Requests))
	section("attempts in the ledger", counted(attempts))
	var perGateway [][2]any
	for _, g := range payment.Gateways() {
		slices.Sort(durations[g])
		perGateway = append(perGateway, [2]any{g, fmt.Sprintf("%s, %s",
			median(durations[g]).Round(10*time.Millisecond), worst(durations[g]).Round(10*time.Millisecond))})
	}
	section("from creation to the last change: median, worst", perGateway)
	lookups, recoveries := r.unknownOutcomes()
	section("recovery", [][2]any{
		{"submits of unknown outcome", len(lookups)},
		{"lookups of each: median, worst", fmt.Sprintf("%d, %d", median(lookups), worst(lookups))},
		{"expired claims", len(recoveries)},
		{"from a claim's end to the first lookup, while Redis was up: median, worst", fmt.Sprintf("%s, %s",
			median(recoveries).took.Round(10*time.Millisecond), worst(recoveries).took.Round(10*time.Millisecond))},
		{"from the last failure until every payment had ended", r.settled.Round(100 * time.Millisecond)},
	})
	return t.Render()
}

// reviewReason unites the reasons that differ only by code and count.
func reviewReason(reason string) string {
	const unknown = "the gateway knew no such payment"
	if strings.Contains(reason, unknown) {
		return unknown
	}
	return reason
}

// counted lists counts by name.
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

// writeResult writes the findings with the details of each payment, and one line with the
// result.
func (r *chaosRun) writeResult(out io.Writer) {
	if !r.report.Clean() {
		fmt.Fprintf(out, "\n%s", r.report)
	}
	_, recoveries := r.unknownOutcomes()
	if w := worst(recoveries); w.took > recoveryLimit {
		fmt.Fprintf(out, "\nno finding, but the longest recovery: %s: %s\n%s", w.key, w.took, r.report.Details(w.key))
	}
	result := "clean"
	if !r.report.Clean() {
		result = "NOT CLEAN"
	}
	fmt.Fprintf(out, "seed %d: %s: %s; %d kill -9, %d SIGTERM, %s failed %d times (%d promotions of a replica that lagged, %d workers ended at that moment); recovery median %s, worst %s; every payment had ended after %s\n",
		r.f.Seed, result, r.report.Summary(), r.kills, r.terms, r.f.Redis, len(r.outages), r.latePromotions, r.sameMoment,
		median(recoveries).took.Round(10*time.Millisecond), worst(recoveries).took.Round(10*time.Millisecond), r.settled.Round(time.Second))
}

// tombstones returns the number of payments of which only a tombstone is left.
func (r *chaosRun) tombstones() (n int64) {
	for _, g := range payment.Gateways() {
		s, err := r.Ledger.Stats(r.Context(), g)
		if err != nil {
			r.t.Fatal(err)
		}
		n += s.Tombstones
	}
	return n
}
