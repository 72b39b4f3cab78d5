package retrypolicy

import (
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"

	"terbayar/internal/payment"
)

// WriteTable prints the policy in force, one row per gateway and code, as "worker
// policies" shows it.
func WriteTable(w io.Writer, p *Policy) error {
	rules := table.NewWriter()
	rules.AppendHeader(table.Row{"gateway", "code", "match", "action", "backoff", "max attempts", "source", "meaning"})
	for _, r := range p.Rules() {
		backoff, attempts := "", ""
		if r.MaxAttempts > 0 {
			backoff, attempts = r.Backoff.String(), fmt.Sprint(r.MaxAttempts)
			if r.MaxElapsed > 0 {
				attempts += " in " + short(r.MaxElapsed)
			}
		}
		match := r.Match
		if name := wordingName(r); name != "" {
			match = "<" + name + ">"
		}
		rules.AppendRow(table.Row{r.Gateway, r.Code, match, r.Action, backoff, attempts, r.Source, r.Meaning})
	}
	var words strings.Builder
	for _, w := range wordings {
		fmt.Fprintf(&words, "<%s>\n  %s\n", w.name, strings.Join(w.alternatives, "\n  "))
	}
	var confirmed strings.Builder
	for _, c := range p.VendorConfirmed() {
		fmt.Fprintf(&confirmed, "\n%s", c)
	}
	if confirmed.Len() > 0 {
		confirmed.WriteByte('\n')
	}
	verifications := table.NewWriter()
	verifications.AppendHeader(table.Row{"gateway", "settle", "lookups", "then", "source"})
	for _, g := range payment.Gateways() {
		c := p.Verify(g)
		verifications.AppendRow(table.Row{g, short(c.Settle), c.Lookups, c.Then, c.Source})
	}
	_, err := fmt.Fprintf(w, `%s

The first row that fits code and message decides; x is any digit. A code in no row
is %s (%s, max attempts %d): what is not known to have failed has not failed.
When the attempts run out: review.

An unknown outcome is looked up; "no such payment" is believed once it was
answered to so many lookups, over at least settle from the end of the attempt:

%s
%s
The match of a built-in row is one of these; a line each is an alternative (a
regular expression), and case does not count:

%s`, rules.Render(), unlisted.Action, unlisted.Backoff, unlisted.MaxAttempts, verifications.Render(), &confirmed, &words)
	return err
}

// wordingName is the name of a built-in rule's match.
func wordingName(r Rule) string {
	for _, w := range wordings {
		if r.Source == BuiltIn && r.Match == w.pattern() {
			return w.name
		}
	}
	return ""
}
