// Package retrypolicy decides what the worker does after an answer of a gateway, and
// after what delay. A decision is a pure function of gateway, code, message, attempt
// number and age: the package reads no clock, and its only I/O is reading the policy file
// at start-up.
//
// A policy is a list of rules per gateway. The first rule that matches decides. Rules with
// a match on the message come before rules without one, then overrides (a YAML file, see
// docs/interface.md, "Retry policy file") come before built-in rules, then the rule with
// the fewest x in its code comes first. A code without a rule gets the action Verify: the
// payment may have been processed, so it is looked up and never sent again blindly.
//
// An override cannot cause a duplicate charge: it may only use the actions that are safe
// for every code its pattern covers (see class.go).
package retrypolicy

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"terbayar/internal/payment"
)

// Action is what the worker does after an answer.
type Action string

// The six actions.
const (
	Accept       Action = "accept"        // the gateway processed it
	Retry        Action = "retry"         // certainly not processed: send it again with the same payment reference
	RefreshToken Action = "refresh_token" // drop the access token, log in, send it again
	Verify       Action = "verify"        // unknown outcome: look it up before anything else
	Reject       Action = "reject"        // rejected by the gateway, permanently
	Review       Action = "review"        // stop: manual review
)

// actions lists every action, in the order in which errors name them.
var actions = []Action{Accept, Retry, RefreshToken, Verify, Reject, Review}

// Schedule limits and spaces the repetitions of an action: submits for Retry and
// RefreshToken, lookups for Verify. The other actions are not repeated and have the zero
// Schedule.
type Schedule struct {
	Backoff     Backoff
	MaxAttempts int           // submits including the first, or lookups; 0: the action is not repeated
	MaxElapsed  time.Duration // since the first submit, or since the outcome became unknown; 0: no limit
}

// exhausted reports whether the schedule allows no further attempt.
func (s Schedule) exhausted(attempts int, age time.Duration) bool {
	return attempts >= s.MaxAttempts || s.MaxElapsed > 0 && age >= s.MaxElapsed
}

// BuiltIn is the Source of a rule or Verification that does not come from a policy file.
const BuiltIn = "built-in"

// Rule is one row of a policy.
type Rule struct {
	Gateway payment.Gateway
	Code    string // a code, or a pattern with x for any digit, e.g. "401xx01"
	Match   string // a regular expression on the gateway's message; "": any message
	Action  Action
	Schedule
	Meaning        string // of the code, in a few words
	Source         string // BuiltIn, or file:line of the override
	VendorConfirms string // who at the vendor confirmed, and when, that an action outside the code's class is safe; "": not needed
}

// Verification sets when "no such payment" counts as confirmed for a payment of unknown
// outcome, and which action follows.
type Verification struct {
	Settle  time.Duration // minimum time since the end of the submit
	Lookups int           // minimum number of lookups that found no such payment
	Then    Action        // Retry or Review
	Source  string        // BuiltIn, or file:line of the override

	VendorConfirms string // who at the vendor confirmed, and when, that sending again is safe; "" only if Then is Review
}

// Policy is the retry policy in force. It is immutable and safe for concurrent use.
type Policy struct {
	rules         map[payment.Gateway][]Rule // in order of precedence
	verifications map[payment.Gateway]Verification
	matchers      map[string]*regexp.Regexp // by Rule.Match
}

// Decision is what the worker does after an answer.
type Decision struct {
	Action    Action
	Delay     time.Duration // until the next submit (Retry, RefreshToken) or the first lookup (Verify)
	Rule      Rule          // the rule that decided
	Exhausted bool          // Action is Review because the rule's attempts are used up
	NewLogin  bool          // the access token may be expired or invalid: drop it, whatever the action
	Reason    string        // why a manual review is needed; "" unless Action is Review
}

// Decide returns what to do after an answer with the given code and the gateway's message
// (Answer.Message; "" if it gave none). The attempt, at least 1, is how many submits of
// this payment have led to the same action, including this one. The age is the time since
// the first submit. When the rule's attempts are used up, the action is Review.
func (p *Policy) Decide(g payment.Gateway, code, message string, attempt int, age time.Duration) Decision {
	r := p.rule(g, code, message)
	// A SNAP code is exact, so its message is not checked. It is the only code without a colon.
	tokenByMessage := r.Action != Accept && strings.Contains(code, ":") && InvalidToken(message)
	d := Decision{Action: r.Action, Rule: r, NewLogin: r.Action == RefreshToken || refusesLogin(g, code) || tokenByMessage}
	switch r.Action {
	case Verify:
		d.Delay = r.Backoff.Delay(1)
	case Retry, RefreshToken:
		if !r.exhausted(attempt, age) {
			d.Delay = r.Backoff.Delay(attempt)
			break
		}
		d.Action, d.Exhausted = Review, true
		d.Reason = fmt.Sprintf("%s (%s): given up after %d submits in %s", code, r.Meaning, attempt, short(age.Round(time.Second))) + quoted(message)
	case Review:
		d.Reason = fmt.Sprintf("%s: %s", code, r.Meaning) + quoted(message)
	case Accept, Reject:
	}
	return d
}

// quoted returns the gateway's message as the end of a reason.
func quoted(message string) string {
	if message == "" {
		return ""
	}
	return fmt.Sprintf(": %q", message)
}

// LookupSchedule returns the delay before the next lookup of a payment of unknown outcome,
// given the number of lookups already made, and whether the rule allows no more lookups.
// The code is that of the submit. The schedule of an unlisted code applies if the code is
// empty (the worker crashed before it recorded one) or if an edited policy no longer verifies it. The
// age is the time since the outcome became unknown.
func (p *Policy) LookupSchedule(g payment.Gateway, submitCode string, lookups int, age time.Duration) (delay time.Duration, exhausted bool) {
	r := p.rule(g, submitCode, "")
	if r.Action != Verify {
		r = unlisted
	}
	if r.exhausted(lookups, age) {
		return 0, true
	}
	return r.Backoff.Delay(lookups + 1), false
}

// Verify returns when a gateway's "no such payment" counts as confirmed.
func (p *Policy) Verify(g payment.Gateway) Verification { return p.verifications[g] }

// Rules returns the rules in force, per gateway in order of precedence. It omits a built-in
// rule if an override decides all of its codes.
func (p *Policy) Rules() []Rule {
	var all []Rule
	for _, g := range payment.Gateways() {
		all = append(all, p.rules[g]...)
	}
	return all
}

func (p *Policy) rule(g payment.Gateway, code, message string) Rule {
	for _, r := range p.rules[g] {
		if matches(r.Code, code) && (r.Match == "" || p.matchers[r.Match].MatchString(message)) {
			return r
		}
	}
	r := unlisted
	r.Gateway = g
	return r
}

// order sorts a gateway's rules by precedence: with a match first; overrides before
// built-in rules; fewest x first; then as listed. An override without a match, for
// error:true say, therefore does not replace the built-in rules for error:true that match
// a message.
func order(rules []Rule) {
	first := func(yes bool) int {
		if yes {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(rules, func(a, b Rule) int {
		return cmp.Or(
			cmp.Compare(first(a.Match != ""), first(b.Match != "")),
			cmp.Compare(first(a.Source != BuiltIn), first(b.Source != BuiltIn)),
			cmp.Compare(strings.Count(a.Code, "x"), strings.Count(b.Code, "x")),
		)
	})
}

// Check reports whether the policy is safe with this gateway timeout: with then: retry a
// payment must not be sent again while its first request may still be in flight. The error
// names file, line and value.
func (p *Policy) Check(gatewayTimeout time.Duration) error {
	for _, g := range payment.Gateways() {
		v := p.verifications[g]
		if least := 2 * gatewayTimeout; v.Then == Retry && v.Settle < least {
			return fmt.Errorf("%s: gateways.%s.verify.settle: %s is too short for then: retry (GATEWAY_TIMEOUT is %s: want at least twice that, %s)",
				v.Source, g, short(v.Settle), short(gatewayTimeout), short(least))
		}
	}
	return nil
}

// Confirmation is a setting of a policy file that is safe only because the vendor
// confirmed it.
type Confirmation struct {
	Gateway payment.Gateway
	What    string // the setting, e.g. `4036304: accept`, `verify, then: retry`
	Words   string // vendor_confirms: who confirmed it, when, what they said
	Source  string // file:line
}

func (c Confirmation) String() string {
	return fmt.Sprintf("%s %s (%s), the vendor confirms: %s", c.Gateway, c.What, c.Source, c.Words)
}

// VendorConfirmed returns every setting in force that relies on a vendor's confirmation,
// for the start-up log, "worker check" and "worker policies".
func (p *Policy) VendorConfirmed() []Confirmation {
	var all []Confirmation
	for _, g := range payment.Gateways() {
		for _, r := range p.rules[g] {
			setting := fmt.Sprintf("%s: %s", r.Code, r.Action)
			if r.Match != "" {
				setting = fmt.Sprintf("%s with match %q: %s", r.Code, r.Match, r.Action)
			}
			if r.VendorConfirms != "" {
				all = append(all, Confirmation{g, setting, r.VendorConfirms, r.Source})
			}
		}
		if v := p.verifications[g]; v.VendorConfirms != "" {
			all = append(all, Confirmation{g, "verify, then: " + string(v.Then), v.VendorConfirms, v.Source})
		}
	}
	return all
}

// matches reports whether a code matches a pattern. An x in the pattern matches any digit.
func matches(pattern, code string) bool {
	if len(pattern) != len(code) {
		return false
	}
	for i := range len(pattern) {
		p, c := pattern[i], code[i]
		if p != c && p != 'x' || p == 'x' && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// covers reports whether every code that matches other also matches pattern. It tries two
// codes that differ at every x of other: pattern matches both only if it has an x there too.
func covers(pattern, other string) bool {
	return matches(pattern, strings.ReplaceAll(other, "x", "0")) && matches(pattern, strings.ReplaceAll(other, "x", "1"))
}
