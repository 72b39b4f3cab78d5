// Package verify is the verifier: it decides whether a run of the programs was correct.
// It compares the answers of enqueue with the ledger, the events, and the requests that the
// simulated gateways have received. Tests and bench/chaos use it.
package verify

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
)

// Kind is the kind of a finding.
type Kind string

// The kinds of findings.
const (
	DuplicateCharge  Kind = "duplicate charge"  // the customer can pay twice
	Lost             Kind = "lost"              // acknowledged, and missing or stuck
	WrongStatus      Kind = "wrong status"      // not what the gateway or the customer did
	WrongEvents      Kind = "wrong events"      // against docs/interface.md, "Result events"
	MalformedRequest Kind = "malformed request" // a gateway found a mistake in it
	CrashedWorker    Kind = "crashed worker"    // ended by itself, too late, or with an exit code other than 0
	OutageDamage     Kind = "affected by a gateway outage"
)

// Kinds lists the kinds of findings, the gravest first.
func Kinds() []Kind {
	return []Kind{DuplicateCharge, Lost, WrongStatus, WrongEvents, MalformedRequest, CrashedWorker, OutageDamage}
}

// Finding is one mistake.
type Finding struct {
	Kind Kind
	Key  payment.Key // zero if it is not about one payment
	Text string
}

func (f Finding) String() string {
	if f.Key == (payment.Key{}) {
		return fmt.Sprintf("%s: %s", f.Kind, f.Text)
	}
	return fmt.Sprintf("%s: %s: %s", f.Kind, f.Key, f.Text)
}

// Payment is a payment that was submitted, and what is expected of it.
type Payment struct {
	Key    payment.Key
	Amount payment.Rupiah
	// Ends is the status that it must reach.
	Ends payment.Status
	// MayNeedReview allows needs_review instead, if the gateway does not have the payment.
	MayNeedReview bool
	// Acknowledged: the answer was "enqueued" or "duplicate".
	Acknowledged bool
	// AcceptedTwice: the answer was "enqueued" although it had been acknowledged before.
	AcceptedTwice bool
}

// Run is what is known about a run after its end.
type Run struct {
	Payments []Payment
	Records  map[payment.Key]*payment.Payment // as the ledger has them

	Stream     []Event // what the stream contains
	Received   []Event // what a consumer has received during the run
	NoConsumer bool    // there was no consumer

	Rows       []gatewaysim.Row
	Journal    []gatewaysim.Entry
	Violations []gatewaysim.Violation

	// Failover: a replica was promoted, so Redis may have lost writes that were not
	// acknowledged, and their events.
	Failover bool
	// SentOnce: no gateway failed, so no payment may be sent a second time.
	SentOnce bool
	// Crashed names the workers that did not end as they should.
	Crashed []string
	// Outage is set if one gateway was down and nothing else failed.
	Outage *Outage
}

// Outage is the time for which one gateway was down.
type Outage struct {
	Gateway  payment.Gateway
	From, To time.Time
}

// Report is the result of Verify.
type Report struct {
	Findings []Finding

	RepeatedEvents  int // received more than once
	WithdrawnEvents int // received, and removed from the stream by a failover
	// WithdrawnRefusals counts the withdrawn events that reported a refusal, where the ledger
	// has lost the refusal too: these payments are in manual review.
	WithdrawnRefusals int

	run  *Run
	rows map[payment.Key][]gatewaysim.Row
}

// Verify checks the run and returns everything that it has found.
func (r *Run) Verify() *Report {
	v := &Report{run: r, rows: RowsByPayment(r.Rows)}
	submitted := map[payment.Key]bool{}
	for _, p := range r.Payments {
		submitted[p.Key] = true
		v.checkLedger(p)
	}
	v.checkGateways(submitted)
	v.checkEvents(submitted)
	v.checkOutage()
	for _, name := range r.Crashed {
		v.add(CrashedWorker, payment.Key{}, "%s ended by itself, too late, or with an exit code other than 0", name)
	}
	return v
}

func (v *Report) add(kind Kind, key payment.Key, format string, args ...any) {
	v.Findings = append(v.Findings, Finding{kind, key, fmt.Sprintf(format, args...)})
}

// Clean reports whether nothing was found.
func (v *Report) Clean() bool { return len(v.Findings) == 0 }

// Count returns how many findings of a kind there are.
func (v *Report) Count(kind Kind) int {
	n := 0
	for _, f := range v.Findings {
		if f.Kind == kind {
			n++
		}
	}
	return n
}

// Summary returns "0 duplicate charges, 0 lost, ...".
func (v *Report) Summary() string {
	var counts []string
	for _, kind := range Kinds() {
		name := string(kind)
		if kind == DuplicateCharge || kind == MalformedRequest || kind == CrashedWorker {
			name += "s"
		}
		counts = append(counts, fmt.Sprintf("%d %s", v.Count(kind), name))
	}
	return strings.Join(counts, ", ")
}

// checkLedger compares a payment's record with the answers of enqueue, with what the customer
// did, and with the gateway's rows.
func (v *Report) checkLedger(p Payment) {
	if p.AcceptedTwice {
		v.add(Lost, p.Key, "it was acknowledged, and later accepted as new")
	}
	record := v.run.Records[p.Key]
	switch {
	case record != nil:
		if kind, text := p.fault(record, v.rows[p.Key]); kind != "" {
			v.add(kind, p.Key, "%s", text)
		}
	case p.Acknowledged:
		v.add(Lost, p.Key, "it was acknowledged, and the ledger does not contain it")
	}
}

// Settled reports whether a payment has ended: a run can be verified when all have. For a
// payment in manual review, if that is allowed, it does not check the gateway's rows.
func (p Payment) Settled(record *payment.Payment, rows []gatewaysim.Row) bool {
	if p.MayNeedReview && record.Status == payment.NeedsReview {
		return true
	}
	kind, _ := p.fault(record, rows)
	return kind == ""
}

// statusOf lists the statuses that agree with the state of a gateway's row.
var statusOf = map[gatewaysim.State][]payment.Status{
	gatewaysim.Open:      {payment.OnProcessing, payment.Expired},
	gatewaysim.Paid:      {payment.Paid},
	gatewaysim.Cancelled: {payment.Cancelled},
	gatewaysim.Failed:    {payment.Failed},
	gatewaysim.Refunded:  {payment.Refunded},
}

// fault returns what is wrong with a payment's status, amount or reference; empty if
// nothing is.
func (p Payment) fault(record *payment.Payment, rows []gatewaysim.Row) (Kind, string) {
	status := record.Status
	switch {
	case record.Amount != p.Amount:
		return WrongStatus, fmt.Sprintf("its amount is %d, %d was submitted", record.Amount, p.Amount)
	case status == payment.Queued || status == payment.Submitting || status == payment.Verifying:
		return Lost, fmt.Sprintf("it is stuck in %s", status)
	case status == p.Ends && status == payment.NeedsReview:
		if record.Reason == "" {
			return WrongStatus, "it is in needs_review without a reason"
		}
		return "", ""
	case status == payment.NeedsReview && p.MayNeedReview:
		if record.Reason == "" || len(rows) > 0 {
			return WrongStatus, fmt.Sprintf("it is in needs_review (%q), the gateway has it %d times", record.Reason, len(rows))
		}
		return "", ""
	case status != p.Ends:
		return WrongStatus, fmt.Sprintf("it is %s (%q), it should be %s", status, record.Reason, p.Ends)
	case status == payment.Rejected && len(rows) == 0:
		return "", ""
	case status == payment.Cancelled && record.Reason == ledger.ReasonCancelled:
		if len(rows) > 0 {
			return DuplicateCharge, fmt.Sprintf("it was cancelled before it was sent, and the gateway has it %d times", len(rows))
		}
		return "", ""
	case len(rows) != 1:
		return WrongStatus, fmt.Sprintf("it is %s, the gateway has it %d times", status, len(rows))
	}
	row := rows[0]
	switch {
	case !slices.Contains(statusOf[row.State], status):
		return WrongStatus, fmt.Sprintf("it is %s, at the gateway it is %s", status, row.State)
	case record.GatewayReference != row.GatewayReference:
		return WrongStatus, fmt.Sprintf("its gateway reference is %q, at the gateway %q", record.GatewayReference, row.GatewayReference)
	case int64(record.Amount) != row.Amount:
		return WrongStatus, fmt.Sprintf("its amount is %d, at the gateway %d", record.Amount, row.Amount)
	}
	return "", ""
}

// checkGateways reports payments that a gateway has twice or that were sent twice, and
// malformed requests.
func (v *Report) checkGateways(submitted map[payment.Key]bool) {
	for key, rows := range v.rows {
		switch {
		case !submitted[key]:
			v.add(DuplicateCharge, key, "the gateway has it %d times, and it was never submitted", len(rows))
		case len(rows) > 1:
			v.add(DuplicateCharge, key, "the gateway has it %d times", len(rows))
		}
	}
	if v.run.SentOnce {
		sent := map[payment.Key]int{}
		for _, e := range v.run.Journal {
			if e.Operation == gatewaysim.AMCreate || e.Operation == gatewaysim.PaydiaPayment {
				sent[keyAt(e.Operation, e.Reference)]++
			}
		}
		for key, n := range sent {
			if n > 1 {
				v.add(DuplicateCharge, key, "it was sent %d times", n)
			}
		}
	}
	for _, m := range v.run.Violations {
		v.add(MalformedRequest, keyAt(m.Operation, m.Reference), "%s: %s", m.Operation, m.What)
	}
}

// While one gateway is down its payments wait, and those of the other gateway are not
// affected. Both limits leave room for a busy machine.
const (
	unaffected   = 30 * time.Second // from creation to the last change of a payment of the other gateway
	breakerOpens = 30 * time.Second // until the circuit breaker of every worker is open
)

// checkOutage checks what the outage of one gateway did to the payments of both.
func (v *Report) checkOutage() {
	outage := v.run.Outage
	if outage == nil {
		return
	}
	for _, p := range v.run.Payments {
		record := v.run.Records[p.Key]
		switch {
		case record == nil: // reported as lost
		case p.Key.Gateway != outage.Gateway:
			if took := record.UpdatedAt.Sub(record.CreatedAt); took > unaffected {
				v.add(OutageDamage, p.Key, "it took %s while the other gateway was down", took)
			}
		case slices.ContainsFunc(record.Attempts, func(a payment.Attempt) bool {
			return a.At.After(outage.From.Add(breakerOpens)) && a.At.Before(outage.To)
		}):
			v.add(OutageDamage, p.Key, "an attempt was spent while its gateway was down")
		}
	}
}

// RowsByPayment sorts a gateway's rows by payment.
func RowsByPayment(rows []gatewaysim.Row) map[payment.Key][]gatewaysim.Row {
	sorted := map[payment.Key][]gatewaysim.Row{}
	for _, r := range rows {
		key := payment.Key{Gateway: payment.Gateway(r.Gateway), TransactionID: r.Reference}
		sorted[key] = append(sorted[key], r)
	}
	return sorted
}

// keyAt is the payment of a request to a gateway.
func keyAt(op gatewaysim.Operation, reference string) payment.Key {
	gateway, _, _ := strings.Cut(string(op), ".")
	return payment.Key{Gateway: payment.Gateway(gateway), TransactionID: reference}
}
