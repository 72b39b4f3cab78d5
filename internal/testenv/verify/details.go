package verify

import (
	"fmt"
	"strings"

	"terbayar/internal/payment"
)

// String lists the findings, and once for each payment its details.
func (v *Report) String() string {
	var b strings.Builder
	shown := map[payment.Key]bool{{}: true}
	for _, f := range v.Findings {
		fmt.Fprintf(&b, "%s\n", f)
		if !shown[f.Key] {
			shown[f.Key] = true
			b.WriteString(v.Details(f.Key))
		}
	}
	return b.String()
}

// Details lists everything that is known about a payment: its record, its events, and the
// requests and rows at the gateway.
func (v *Report) Details(key payment.Key) string {
	const clock = "15:04:05.000"
	var b strings.Builder
	if p := v.run.Records[key]; p != nil {
		fmt.Fprintf(&b, "  ledger: %s %q, created %s, updated %s\n", p.Status, p.Reason, p.CreatedAt.Format(clock), p.UpdatedAt.Format(clock))
		for _, a := range p.Attempts {
			fmt.Fprintf(&b, "  %s %s %s (HTTP %d) > %s, %d ms\n", a.At.Format(clock), a.Kind, a.Code, a.HTTPStatus, a.Action, a.DurationMS)
		}
	}
	for _, e := range eventsByPayment(v.run.Stream)[key] {
		fmt.Fprintf(&b, "  %s event %s\n", e.Time.Format(clock), e.ID)
	}
	last, repeats := "", 0
	flush := func() {
		if repeats > 0 {
			fmt.Fprintf(&b, "    and %d times more\n", repeats)
		}
		repeats = 0
	}
	for _, e := range v.run.Journal {
		if keyAt(e.Operation, e.Reference) != key {
			continue
		}
		line := fmt.Sprintf("gateway: %s answered with %d %s, fault %q %v", e.Operation, e.Status, e.Code, e.Fault, e.Violations)
		if line == last { // an open payment is looked up until the end of the run
			repeats++
			continue
		}
		flush()
		last = line
		fmt.Fprintf(&b, "  %s %s\n", e.At.UTC().Format(clock), line)
	}
	flush()
	for _, row := range v.rows[key] {
		fmt.Fprintf(&b, "  gateway has %+v\n", row)
	}
	return b.String()
}
