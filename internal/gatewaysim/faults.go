package gatewaysim

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Fault names one kind of misbehaviour of a gateway.
type Fault string

// The faults (docs/gateways.md 1.11, 2.6, 3.1). "Processed" means that the payment exists at
// the gateway afterwards, whatever answer the caller got. For an operation that creates no
// payment, late-lost is the same as lost-after and late-500 the same as 500-after; pending
// changes only the answer of Payment Query.
const (
	// FaultLostBefore closes the connection; nothing is processed.
	FaultLostBefore Fault = "lost-before"
	// FaultLostAfter processes the request, then closes the connection without an answer.
	FaultLostAfter Fault = "lost-after"
	// FaultLateLost closes the connection; the payment appears after Delay (10 s).
	FaultLateLost Fault = "late-lost"
	// FaultLate500 answers 500; the payment appears after Delay (10 s).
	FaultLate500 Fault = "late-500"
	// Fault500Before answers the vendor's 500; nothing is processed.
	Fault500Before Fault = "500-before"
	// Fault500After processes the request, then answers the vendor's 500.
	Fault500After Fault = "500-after"
	// FaultHTMLBefore answers an HTML page with Status (500); nothing is processed.
	FaultHTMLBefore Fault = "html-before"
	// FaultHTMLAfter processes the request, then answers an HTML page with Status (500).
	FaultHTMLAfter Fault = "html-after"
	// FaultEmpty processes the request, then answers Status (200) with an empty body.
	FaultEmpty Fault = "empty"
	// FaultCutShort processes the request, then closes the connection after half of the answer.
	FaultCutShort Fault = "cut-short"
	// FaultSlow processes the request, then sends the answer after Delay (6 s).
	FaultSlow Fault = "slow"
	// FaultTokenLost revokes every access token of the gateway: the request is answered 401.
	FaultTokenLost Fault = "token-lost"
	// FaultBusy answers 429 with a Retry-After of Delay (1 s); nothing is processed.
	FaultBusy Fault = "busy"
	// FaultRefuse answers a business refusal; nothing is processed. At Paydia the answer
	// has Code (4036314), at AM it is error:true under HTTP 200. Message, Body and Status
	// replace parts of it.
	FaultRefuse Fault = "refuse"
	// FaultPending processes the request and answers 202, "in progress" (2026300 at Paydia).
	FaultPending Fault = "pending"
	// FaultDisagree processes the request, then sends the correct body with an HTTP status
	// that contradicts it: a success with 500, a refusal of Paydia with 200.
	FaultDisagree Fault = "disagree"
)

// faultSpec defines one fault.
type faultSpec struct {
	fault     Fault
	help      string        // for --help
	delay     time.Duration // the default of FaultRule.Delay
	processed bool          // false: the request is checked, and not processed

	// prepare, if set, runs before the request is checked.
	prepare func(*Sim, *exchange, FaultRule)
	// deliver, if set, replaces or changes the answer. The answer that it gets is zero
	// when the request was not processed.
	deliver func(answer, Operation, FaultRule) delivery
}

// faultSpecs defines every fault, in the order of the documentation.
var faultSpecs = []faultSpec{
	{fault: FaultLostBefore, help: "the connection is closed; nothing is processed", deliver: noAnswer},
	{fault: FaultLostAfter, help: "processed; the connection is closed without an answer", processed: true, deliver: noAnswer},
	{
		fault: FaultLateLost, help: "the connection is closed; the payment appears after delay", delay: 10 * time.Second,
		processed: true, prepare: appearLate, deliver: noAnswer,
	},
	{
		fault: FaultLate500, help: "answered 500; the payment appears after delay", delay: 10 * time.Second,
		processed: true, prepare: appearLate, deliver: answer500,
	},
	{fault: Fault500Before, help: "answered 500; nothing is processed", deliver: answer500},
	{fault: Fault500After, help: "processed; answered 500", processed: true, deliver: answer500},
	{fault: FaultHTMLBefore, help: "answered with an HTML page and status (500); nothing is processed", deliver: answerHTML},
	{fault: FaultHTMLAfter, help: "processed; answered with an HTML page and status (500)", processed: true, deliver: answerHTML},
	{
		fault: FaultEmpty, help: "processed; answered with an empty body and status (200)", processed: true,
		deliver: func(_ answer, _ Operation, r FaultRule) delivery {
			return delivery{answer: answer{status: cmp.Or(r.Status, http.StatusOK)}}
		},
	},
	{
		fault: FaultCutShort, help: "processed; the connection is closed after half of the answer", processed: true,
		deliver: func(a answer, _ Operation, _ FaultRule) delivery { return delivery{answer: a, cutShort: true} },
	},
	{
		fault: FaultSlow, help: "processed; the answer is sent after delay", delay: 6 * time.Second, processed: true,
		deliver: func(a answer, _ Operation, r FaultRule) delivery { return delivery{answer: a, delay: r.Delay} },
	},
	{
		fault: FaultTokenLost, help: "every access token of the gateway is revoked; answered 401", processed: true,
		prepare: func(s *Sim, x *exchange, _ FaultRule) { s.revokeTokens(x.op.gateway()) },
	},
	{
		fault: FaultBusy, help: "answered 429 with Retry-After: delay; nothing is processed", delay: time.Second,
		deliver: func(_ answer, op Operation, r FaultRule) delivery { return delivery{answer: tooBusy(op, r.Delay)} },
	},
	{
		fault: FaultRefuse, help: "answered with a refusal (code, message, status, body); nothing is processed",
		deliver: func(_ answer, op Operation, r FaultRule) delivery { return delivery{answer: refusal(op, r)} },
	},
	{
		fault: FaultPending, help: "processed; answered 202, in progress", processed: true,
		prepare: func(_ *Sim, x *exchange, _ FaultRule) { x.pending = true },
	},
	{
		fault: FaultDisagree, help: "processed; HTTP status and body contradict each other", processed: true,
		deliver: func(a answer, _ Operation, _ FaultRule) delivery { return delivery{answer: contradict(a)} },
	},
}

func appearLate(_ *Sim, x *exchange, r FaultRule) { x.visibleAfter = r.Delay }

func noAnswer(answer, Operation, FaultRule) delivery { return delivery{drop: true} }

func answer500(_ answer, op Operation, r FaultRule) delivery {
	return delivery{answer: internalError(op, r.Code)}
}

func answerHTML(_ answer, _ Operation, r FaultRule) delivery {
	return delivery{answer: htmlPage(cmp.Or(r.Status, http.StatusInternalServerError))}
}

// Faults lists every fault, in the order of the documentation.
func Faults() []Fault {
	names := make([]Fault, len(faultSpecs))
	for i, f := range faultSpecs {
		names[i] = f.fault
	}
	return names
}

// FaultHelp returns the help text of all faults, one indented line each.
func FaultHelp() string {
	var b strings.Builder
	for _, f := range faultSpecs {
		fmt.Fprintf(&b, "  %-12s %s", f.fault, f.help)
		if f.delay > 0 {
			fmt.Fprintf(&b, " (%s)", f.delay)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// FaultRule applies a fault to some requests. One rule applies to a request: the first that
// matches it.
type FaultRule struct {
	Fault Fault `json:"fault"`
	// Operation is one Operation, or the name of a gateway for all of its
	// operations; empty: any.
	Operation Operation `json:"operation,omitzero"`
	// Reference limits the rule to requests for this payment (AM's transaction_id,
	// Paydia's partnerReferenceNo); empty: any. A request for AM's list or details
	// contains no reference.
	Reference string `json:"reference,omitzero"`
	// Count is the number of requests that the rule still applies to; 0: no limit.
	Count int `json:"count,omitzero"`
	// Probability is the share of the matching requests that get the fault; 0: all.
	Probability float64 `json:"probability,omitzero"`
	// Delay is used by slow, late-lost, late-500 and busy; 0: the fault's default.
	Delay time.Duration `json:"delay,omitzero"`
	// Status is the HTTP status of html-before, html-after, empty and refuse; 0: the
	// fault's default.
	Status int `json:"status,omitzero"`
	// Code is, at Paydia, the responseCode of refuse and of the faults that answer 500:
	// seven digits, the first three are the HTTP status. At AM it is the message of refuse.
	Code string `json:"code,omitzero"`
	// Message is the message of refuse; "": the gateway's usual message.
	Message string `json:"message,omitzero"`
	// Body is the whole response body of refuse and replaces the vendor's envelope.
	Body string `json:"body,omitzero"`
}

// Check returns an error if the rule is invalid.
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
		return fmt.Errorf("code %q is not seven digits; other texts need an operation of amdigipay", r.Code)
	case r.Status != 0 && (r.Status < 200 || r.Status > 599):
		return fmt.Errorf("status %d is not between 200 and 599", r.Status)
	}
	return nil
}

// Inject adds a fault rule. It panics if rule.Check fails: that is a mistake of the test.
func (s *Sim) Inject(rule FaultRule) {
	if err := rule.Check(); err != nil {
		panic("gatewaysim: inject: " + err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &rule)
}

// ClearFaults removes every fault rule: from now on there are no faults.
func (s *Sim) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// ActiveFaults returns the active fault rules, with the remaining Count of each.
func (s *Sim) ActiveFaults() []FaultRule {
	s.mu.Lock()
	defer s.mu.Unlock()
	rules := make([]FaultRule, len(s.faults))
	for i, rule := range s.faults {
		rules[i] = *rule
	}
	return rules
}

// pickFault returns the first rule that applies to a request, or nil, and counts down its
// Count.
func (s *Sim) pickFault(op Operation, reference string) *FaultRule {
	key := string(op) + " " + reference
	s.occurrences[key]++
	for i, rule := range s.faults {
		scope := rule.Operation
		if scope != "" && scope != op && scope != Operation(op.gateway()) {
			continue
		}
		if rule.Reference != "" && rule.Reference != reference {
			continue
		}
		if rule.Probability > 0 && s.chance("fault", i, rule.Fault, key, s.occurrences[key]) >= rule.Probability {
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

// applyFault checks and processes a request. If a rule applies to it, the rule's fault
// changes how it is processed and answered.
func (s *Sim) applyFault(x *exchange, rule *FaultRule, validate validator) delivery {
	if rule == nil {
		return delivery{answer: validate(x)()}
	}
	r, spec := *rule, faultSpecs[slices.IndexFunc(faultSpecs, func(f faultSpec) bool { return f.fault == rule.Fault })]
	r.Delay = cmp.Or(r.Delay, spec.delay)
	if spec.prepare != nil {
		spec.prepare(s, x, r)
	}
	process := validate(x) // the caller's mistakes are recorded with any fault
	var a answer
	if spec.processed {
		a = process()
	}
	if spec.deliver == nil {
		return delivery{answer: a}
	}
	return spec.deliver(a, x.op, r)
}

// contradict replaces the status of an answer by one that contradicts the body. A refusal
// of AM has status 200 already, so it gets 500 too.
func contradict(a answer) answer {
	if a.status < 300 {
		a.status = http.StatusInternalServerError
	} else {
		a.status = http.StatusOK
	}
	return a
}

// internalError returns the vendor's documented 500.
func internalError(op Operation, code string) answer {
	if op.gateway() == Paydia {
		return snapError(op, cmp.Or(code, "500"+serviceCode(op)+"01"), "Internal Server Error")
	}
	return amError(http.StatusInternalServerError, "Internal server error")
}

// tooBusy returns a 429: SNAP's at Paydia, Laravel's at AM.
func tooBusy(op Operation, retryAfter time.Duration) answer {
	a := laravel(http.StatusTooManyRequests, "Too Many Attempts.")
	if op.gateway() == Paydia {
		a = snapError(op, "429"+serviceCode(op)+"00", "Too Many Requests")
	}
	a.retryAfter = retryAfter
	return a
}

// refusal returns the answer of FaultRefuse.
func refusal(op Operation, rule FaultRule) answer {
	var a answer
	switch message := rule.Message; {
	case rule.Body != "":
		a = answer{status: http.StatusOK, code: cmp.Or(message, "refused"), body: []byte(rule.Body)}
	case op.gateway() == Paydia && message != "":
		code := cmp.Or(rule.Code, "403"+serviceCode(op)+"14")
		a = snapError(op, code, "")
		a = jsonAnswer(a.status, code, snapHead{code, message})
	case op.gateway() == Paydia:
		a = snapError(op, cmp.Or(rule.Code, "403"+serviceCode(op)+"14"), "")
	case rule.Status/100 > 2:
		a = amError(rule.Status, cmp.Or(message, rule.Code, "Transaction refused"))
	default:
		a = amRefusal(cmp.Or(message, rule.Code, "Transaction refused"))
	}
	a.status = cmp.Or(rule.Status, a.status)
	return a
}

// htmlPage returns an error page like that of a proxy or of an unhandled exception.
func htmlPage(status int) answer {
	title := http.StatusText(status)
	return answer{status: status, code: "html", html: true, body: []byte(
		"<!DOCTYPE html>\n<html><head><title>" + title + "</title></head><body><h1>" +
			strconv.Itoa(status) + " | " + title + "</h1></body></html>\n")}
}

// EvenFaults returns rules that together apply to the given share of all requests, each
// fault equally often. FaultRefuse is left out: it is not a technical fault.
func EvenFaults(share float64) []FaultRule {
	var rules []FaultRule
	kinds := slices.DeleteFunc(Faults(), func(f Fault) bool { return f == FaultRefuse })
	left := 1.0 // the share of requests that no earlier rule applies to
	for _, f := range kinds {
		part := share / float64(len(kinds))
		if part > 0 {
			rules = append(rules, FaultRule{Fault: f, Probability: min(1, part/left)})
		}
		left -= part
	}
	return rules
}
