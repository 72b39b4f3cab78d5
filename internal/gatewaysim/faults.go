package gatewaysim

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Fault names one way in which a gateway misbehaves.
type Fault string

// The faults (gateways.md 1.11, 2.6, 3.1; issue 2). "Processed" means that the
// payment exists at the gateway afterwards, whatever the caller saw. At an
// operation that makes no payment, the late faults are lost-after and 500-after,
// and pending changes nothing but Payment Query's answer.
const (
	// FaultLostBefore closes the connection; nothing was processed.
	FaultLostBefore Fault = "lost-before"
	// FaultLostAfter processes the request, then closes the connection without an answer.
	FaultLostAfter Fault = "lost-after"
	// FaultLateLost closes the connection; the payment appears after Delay (10 s).
	FaultLateLost Fault = "late-lost"
	// FaultLate500 answers 500; the payment appears after Delay (10 s).
	FaultLate500 Fault = "late-500"
	// Fault500Before answers the vendor's 500; nothing was processed.
	Fault500Before Fault = "500-before"
	// Fault500After processes the request, then answers the vendor's 500.
	Fault500After Fault = "500-after"
	// FaultHTMLBefore answers an HTML page under Status (500); nothing was processed.
	FaultHTMLBefore Fault = "html-before"
	// FaultHTMLAfter processes the request, then answers an HTML page under Status (500).
	FaultHTMLAfter Fault = "html-after"
	// FaultEmpty processes the request, then answers Status (200) with an empty body.
	FaultEmpty Fault = "empty"
	// FaultCutShort processes the request and closes the connection in the middle of the answer.
	FaultCutShort Fault = "cut-short"
	// FaultSlow processes the request, then holds the true answer back for Delay (6 s).
	FaultSlow Fault = "slow"
	// FaultTokenLost voids every access token of the gateway, then goes on: the request is answered 401.
	FaultTokenLost Fault = "token-lost"
	// FaultBusy answers 429 with Retry-After of Delay (1 s); nothing was processed.
	FaultBusy Fault = "busy"
	// FaultRefuse refuses for a business reason: Code at Paydia (4036314), error:true
	// under HTTP 200 at AM; or in any other words, under any Status.
	FaultRefuse Fault = "refuse"
	// FaultPending processes the request and answers 202, "in progress" (2026300 at Paydia).
	FaultPending Fault = "pending"
	// FaultDisagree processes the request, then sends the true body under an HTTP
	// status that contradicts it: success under 500, refusal under 200.
	FaultDisagree Fault = "disagree"
)

// faults says of each fault in one sentence what it does, for --help, and which
// delay it has when the rule gives none.
var faults = []struct {
	fault Fault
	help  string
	delay time.Duration
}{
	{FaultLostBefore, "connection closed, nothing processed", 0},
	{FaultLostAfter, "processed, connection closed without an answer", 0},
	{FaultLateLost, "connection closed, the payment appears after delay", 10 * time.Second},
	{FaultLate500, "500, the payment appears after delay", 10 * time.Second},
	{Fault500Before, "500, nothing processed", 0},
	{Fault500After, "processed, then 500", 0},
	{FaultHTMLBefore, "an HTML page under status, nothing processed", 0},
	{FaultHTMLAfter, "processed, then an HTML page under status", 0},
	{FaultEmpty, "processed, then an empty body under status", 0},
	{FaultCutShort, "processed, connection closed in the middle of the answer", 0},
	{FaultSlow, "processed, the answer held back for delay", 6 * time.Second},
	{FaultTokenLost, "every access token of the gateway is void from now on", 0},
	{FaultBusy, "429 with Retry-After of delay, nothing processed", time.Second},
	{FaultRefuse, "refusal, nothing processed: code at Paydia, error:true at AM, or message or body, under status", 0},
	{FaultPending, "processed, 202 in progress", 0},
	{FaultDisagree, "processed, HTTP status and body contradict each other", 0},
}

// Faults lists every fault, in the order of the documentation.
func Faults() []Fault {
	names := make([]Fault, len(faults))
	for i, f := range faults {
		names[i] = f.fault
	}
	return names
}

// FaultHelp is one indented line a fault, for people.
func FaultHelp() string {
	var b strings.Builder
	for _, f := range faults {
		fmt.Fprintf(&b, "  %-12s %s", f.fault, f.help)
		if f.delay > 0 {
			fmt.Fprintf(&b, " (%s)", f.delay)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// FaultRule says when a fault strikes. The first rule that strikes a request
// wins.
type FaultRule struct {
	Fault Fault `json:"fault"`
	// Operation is one Operation, or the name of a gateway for all of its
	// operations; empty: any.
	Operation Operation `json:"operation,omitzero"`
	// Reference limits the rule to requests that name this payment (AM's
	// transaction_id, Paydia's partnerReferenceNo); empty: any. AM's list names
	// no payment.
	Reference string `json:"reference,omitzero"`
	// Count is how many requests it still strikes; 0: no limit.
	Count int `json:"count,omitzero"`
	// Probability is the share of the matching requests that it strikes; 0: all.
	Probability float64 `json:"probability,omitzero"`
	// Delay is of slow, late-lost, late-500 and busy; 0: the fault's own.
	Delay time.Duration `json:"delay,omitzero"`
	// Status is the HTTP status of html-before, html-after, empty and refuse; 0: the
	// fault's own.
	Status int `json:"status,omitzero"`
	// Code is the answer of refuse, and at Paydia that of the two 500 faults:
	// seven digits, of which the first three are the HTTP status. At AM it is the
	// message of refuse.
	Code string `json:"code,omitzero"`
	// Message is in the gateway's own words why it refuses; "": the fault's own.
	Message string `json:"message,omitzero"`
	// Body is the whole answer of refuse, in the place of the vendor's envelope.
	Body string `json:"body,omitzero"`
}

// Check says what is wrong with a rule; nil when nothing is.
func (r FaultRule) Check() error {
	known := r.Operation == "" || r.Operation == Operation(AM) || r.Operation == Operation(Paydia) ||
		slices.Contains(Operations(), r.Operation)
	switch {
	case !slices.Contains(Faults(), r.Fault):
		return fmt.Errorf("unknown fault %q", r.Fault)
	case !known:
		return fmt.Errorf("unknown operation %q", r.Operation)
	case r.Probability < 0 || r.Probability > 1:
		return fmt.Errorf("probability %v is not between 0 and 1", r.Probability)
	case r.Count < 0 || r.Delay < 0:
		return fmt.Errorf("count and delay cannot be negative")
	case r.Code != "" && r.Operation.gateway() != AM && !isDigits(r.Code, 7, 7):
		return fmt.Errorf("code %q is not seven digits, and the rule is not AM's alone", r.Code)
	case r.Status != 0 && (r.Status < 200 || r.Status > 599):
		return fmt.Errorf("status %d is not an HTTP status of an answer", r.Status)
	}
	return nil
}

// Inject adds a fault rule. It panics on a rule that does not pass Check: in a
// test that is a mistake of the test.
func (s *Sim) Inject(rule FaultRule) {
	if err := rule.Check(); err != nil {
		panic("gatewaysim: inject: " + err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &rule)
}

// ClearFaults drops every fault rule: from now on the gateways behave.
func (s *Sim) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// ActiveFaults lists the fault rules in force, with what is left of their counts.
func (s *Sim) ActiveFaults() []FaultRule {
	s.mu.Lock()
	defer s.mu.Unlock()
	rules := make([]FaultRule, len(s.faults))
	for i, rule := range s.faults {
		rules[i] = *rule
	}
	return rules
}

// pickFault finds the rule that strikes a request; nil when none does.
func (s *Sim) pickFault(op Operation, reference string) *FaultRule {
	key := string(op) + " " + reference
	s.draws[key]++
	for i, rule := range s.faults {
		scope := rule.Operation
		if scope != "" && scope != op && scope != Operation(op.gateway()) {
			continue
		}
		if rule.Reference != "" && rule.Reference != reference {
			continue
		}
		if rule.Probability > 0 && s.chance("fault", i, rule.Fault, key, s.draws[key]) >= rule.Probability {
			continue
		}
		if rule.Count == 1 {
			s.faults = slices.Delete(s.faults, i, i+1)
		} else if rule.Count > 1 {
			rule.Count--
		}
		return rule
	}
	return nil
}

// undergo takes a request through examination and processing, with the fault
// that strikes it, if any.
func (s *Sim) undergo(x *exchange, rule *FaultRule, examine examiner) delivery {
	if rule == nil {
		return delivery{answer: examine(x)()}
	}
	gateway := x.op.gateway()
	if rule.Fault == FaultTokenLost {
		s.voidTokens(gateway)
	}
	process := examine(x) // what the caller did wrong is noted, whatever the fault
	switch rule.Fault {
	case FaultLostBefore:
		return delivery{drop: true}
	case Fault500Before:
		return delivery{answer: internalError(x.op, rule.Code)}
	case FaultHTMLBefore:
		return delivery{answer: htmlPage(or(rule.Status, http.StatusInternalServerError))}
	case FaultBusy:
		return delivery{answer: tooBusy(x.op, rule.delay())}
	case FaultRefuse:
		return delivery{answer: refusal(x.op, rule)}
	case FaultLateLost, FaultLate500:
		x.late = rule.delay()
	case FaultPending:
		x.pending = true
	}

	a := process()
	switch rule.Fault {
	case FaultLostAfter, FaultLateLost:
		return delivery{answer: a, drop: true}
	case FaultLate500, Fault500After:
		return delivery{answer: internalError(x.op, rule.Code)}
	case FaultHTMLAfter:
		return delivery{answer: htmlPage(or(rule.Status, http.StatusInternalServerError))}
	case FaultEmpty:
		return delivery{answer: answer{status: or(rule.Status, http.StatusOK)}}
	case FaultCutShort:
		return delivery{answer: a, cutShort: true}
	case FaultSlow:
		return delivery{answer: a, delay: rule.delay()}
	case FaultDisagree:
		return delivery{answer: contradicted(a)}
	}
	return delivery{answer: a}
}

func (r *FaultRule) delay() time.Duration {
	if r.Delay > 0 {
		return r.Delay
	}
	for _, f := range faults {
		if f.fault == r.Fault {
			return f.delay
		}
	}
	return 0
}

// contradicted sends an answer's body under a status that says the opposite.
// AM's own refusals come under 200 already, so they go under 500 too.
func contradicted(a answer) answer {
	if a.status < 300 {
		a.status = http.StatusInternalServerError
	} else {
		a.status = http.StatusOK
	}
	return a
}

// internalError is the vendor's documented 500.
func internalError(op Operation, code string) answer {
	if op.gateway() == Paydia {
		return snapError(op, or(code, "500"+serviceCode(op)+"01"), "Internal Server Error")
	}
	return amError(http.StatusInternalServerError, "Internal server error")
}

// tooBusy is SNAP's 429 general answer, and Laravel's.
func tooBusy(op Operation, retryAfter time.Duration) answer {
	a := laravel(http.StatusTooManyRequests, "Too Many Attempts.")
	if op.gateway() == Paydia {
		a = snapError(op, "429"+serviceCode(op)+"00", "Too Many Requests")
	}
	a.retryAfter = retryAfter
	return a
}

// refusal is a refusal by rule, of nothing that the caller did wrong.
func refusal(op Operation, rule *FaultRule) answer {
	var a answer
	switch message := rule.Message; {
	case rule.Body != "":
		a = answer{status: http.StatusOK, code: or(message, "refused"), body: []byte(rule.Body)}
	case op.gateway() == Paydia && message != "":
		code := or(rule.Code, "403"+serviceCode(op)+"14")
		a = snapError(op, code, "")
		a = jsonAnswer(a.status, code, snapHead{code, message})
	case op.gateway() == Paydia:
		a = snapError(op, or(rule.Code, "403"+serviceCode(op)+"14"), "")
	case rule.Status/100 > 2:
		a = amError(rule.Status, or(message, or(rule.Code, "Transaction refused")))
	default:
		a = amRefusal(or(message, or(rule.Code, "Transaction refused")))
	}
	a.status = or(rule.Status, a.status)
	return a
}

// htmlPage is what a proxy or an unhandled exception shows.
func htmlPage(status int) answer {
	title := http.StatusText(status)
	return answer{status: status, code: "html", html: true, body: []byte(
		"<!DOCTYPE html>\n<html><head><title>" + title + "</title></head><body><h1>" +
			strconv.Itoa(status) + " | " + title + "</h1></body></html>\n")}
}

// or is the value, or the fallback where the value is zero.
func or[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

// EvenFaults makes rules that together strike the given share of all requests,
// every fault alike. Refuse is left out: a refused payment is not a technical
// fault.
func EvenFaults(share float64) []FaultRule {
	var rules []FaultRule
	kinds := slices.DeleteFunc(Faults(), func(f Fault) bool { return f == FaultRefuse })
	left := 1.0 // of the requests, those that no earlier rule strikes
	for _, f := range kinds {
		part := share / float64(len(kinds))
		if part > 0 {
			rules = append(rules, FaultRule{Fault: f, Probability: min(1, part/left)})
		}
		left -= part
	}
	return rules
}
