package retrypolicy

import (
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"

	"terbayar/internal/payment"
)

// WriteTable writes the policy in force as "worker policies" prints it, one row per rule.
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
		if name := matchName(r); name != "" {
			match = "<" + name + ">"
		}
		rules.AppendRow(table.Row{r.Gateway, r.Code, match, r.Action, backoff, attempts, r.Source, r.Meaning})
	}
	var matches strings.Builder
	for _, k := range messageKinds {
		fmt.Fprintf(&matches, "<%s>\n  %s\n", k.name, strings.Join(k.alternatives, "\n  "))
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

The first row that matches code and message decides; x is any digit. A code without a
row: %s (%s, max attempts %d), because the payment may have
been processed. When the attempts are used up: review.

A payment of unknown outcome is looked up. "No such payment" is confirmed when at least
this many lookups returned it and at least settle has passed since the end of the submit.
Then this action follows:

%s
%s
The match of a built-in row is one of these. Each line is an alternative: a regular
expression that ignores case.

%s`, rules.Render(), unlisted.Action, unlisted.Backoff, unlisted.MaxAttempts, verifications.Render(), &confirmed, &matches)
	return err
}

// matchName returns the name of a built-in rule's match; "" for any other rule.
func matchName(r Rule) string {
	for _, k := range messageKinds {
		if r.Source == BuiltIn && r.Match == k.pattern() {
			return k.name
		}
	}
	return ""
}
