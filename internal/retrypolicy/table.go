package retrypolicy

import (
	"fmt"
	"io"

	"github.com/jedib0t/go-pretty/v6/table"

	"terbayar/internal/payment"
)

// WriteTable prints the policy in force, one row per gateway and code, as "worker
// policies" shows it.
func WriteTable(w io.Writer, p *Policy) error {
	rules := table.NewWriter()
	rules.AppendHeader(table.Row{"gateway", "code", "action", "backoff", "max attempts", "source", "meaning"})
	for _, r := range p.Rules() {
		backoff, attempts := "", ""
		if r.MaxAttempts > 0 {
			backoff, attempts = r.Backoff.String(), fmt.Sprint(r.MaxAttempts)
			if r.MaxElapsed > 0 {
				attempts += " in " + short(r.MaxElapsed)
			}
		}
		rules.AppendRow(table.Row{r.Gateway, r.Code, r.Action, backoff, attempts, r.Source, r.Meaning})
	}
	verifications := table.NewWriter()
	verifications.AppendHeader(table.Row{"gateway", "settle", "lookups", "then", "source"})
	for _, g := range payment.Gateways() {
		c := p.Verify(g)
		verifications.AppendRow(table.Row{g, short(c.Settle), c.Lookups, c.Then, c.Source})
	}
	_, err := fmt.Fprintf(w, `%s

The first row that fits a code decides; x is any digit. A code in no row is
%s (%s, max attempts %d): what is not known to have failed has not failed.
When the attempts run out: review.

An unknown outcome is looked up; "no such payment" is believed once it was
answered to so many lookups, over at least settle from the end of the attempt:

%s
`, rules.Render(), unlisted.Action, unlisted.Backoff, unlisted.MaxAttempts, verifications.Render())
	return err
}
