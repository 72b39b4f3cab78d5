// Package retrypolicy says what follows an answer of a gateway, and after how
// long. It is a pure function of code and count: it reads no clock and does no
// I/O beyond the one reading of the overrides at start-up.
//
// A policy is a list of rules per gateway. Rules with a match come before those
// without one, overrides (a YAML file, see interface.md, "Retry policy file")
// before the built-in rules, and then the most exact code wins. A code that no
// rule lists is Verify: what is not known to have failed has not failed.
//
// No file can make money unsafe: an override chooses among the actions that are
// sound for every code it takes in (see class.go).
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

// Action is what follows an answer.
type Action string

// The six actions.
const (
	Accept       Action = "accept"        // it went through
	Retry        Action = "retry"         // certainly not processed: send again, same payment reference
	RefreshToken Action = "refresh_token" // drop the access token, take a new one, send again
	Verify       Action = "verify"        // outcome unknown: look it up before anything else
	Reject       Action = "reject"        // refused for good
	Review       Action = "review"        // stop and wait for a person
)

// actions lists every action, in the order in which errors name them.
var actions = []Action{Accept, Retry, RefreshToken, Verify, Reject, Review}

// Schedule says how often something may be done and how long to wait before
// doing it again. For Retry and RefreshToken it is about submits, for Verify
// about lookups; the other actions have none.
type Schedule struct {
	Backoff     Backoff
	MaxAttempts int           // for submits the first one counts too; 0: the action has no attempts
	MaxElapsed  time.Duration // since the first submit, or since the outcome is unknown; 0: no limit
}

// exhausted reports whether nothing more may be done after so many attempts in
// that time.
func (s Schedule) exhausted(attempts int, age time.Duration) bool {
	return attempts >= s.MaxAttempts || s.MaxElapsed > 0 && age >= s.MaxElapsed
}

// BuiltIn is the Source of what no policy file has changed.
const BuiltIn = "built-in"

// Rule is one row of a policy.
type Rule struct {
	Gateway payment.Gateway
	Code    string // a code, or a pattern with x for any digit, e.g. "401xx01"
	Match   string // a regular expression on the gateway's message; "": whatever it says
	Action  Action
	Schedule
	Meaning        string // what the code says, in a few words
	Source         string // BuiltIn, or file:line of the override
	VendorConfirms string // who said, when, that the rule may leave its code's class; "": it does not
}

// Verification says when the answer "no such payment" to the lookups of an
// unknown outcome is believed, and what follows then.
type Verification struct {
	Settle  time.Duration // counted from the end of the attempt
	Lookups int           // how many lookups must have said "not found"
	Then    Action        // Retry or Review
	Source  string        // BuiltIn, or file:line of the override

	VendorConfirms string // who said, when, that it may be sent again; "" only where Then is Review
}

// Policy is the retry policy in force. It never changes once made, and is safe
// for concurrent use.
type Policy struct {
	rules         map[payment.Gateway][]Rule // in order of precedence
	verifications map[payment.Gateway]Verification
	matchers      map[string]*regexp.Regexp // by Rule.Match
}

// Decision is what follows a submit.
type Decision struct {
	Action    Action
	Delay     time.Duration // until the next submit (Retry, RefreshToken) or the first lookup (Verify)
	Rule      Rule          // the rule that the code fell under
	Exhausted bool          // Action is Review because the rule's attempts are used up
	NewLogin  bool          // the access token that was used may be void: it must not be used again, whatever the action
	Reason    string        // of a Review: why a person must look, in words
}

// Decide says what follows a submit that came to the given code, with the
// gateway's own words (Answer.Message; "" where it gave none). The attempt, at
// least 1, is how many submits of the payment have come to the same action, this
// one included; whoever counts all its submits together only gives up sooner.
// When a rule that sends again has used up its attempts, the decision is Review.
// The age is how long ago the first submit was made.
func (p *Policy) Decide(g payment.Gateway, code, message string, attempt int, age time.Duration) Decision {
	r := p.rule(g, code, message)
	d := Decision{Action: r.Action, Rule: r, NewLogin: r.Action == RefreshToken || refusesLogin(g, code) ||
		r.Action != Accept && strings.Contains(code, ":") && InvalidToken(message)} // SNAP's codes are exact, and have no colon
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

// quoted is the gateway's message within a reason.
func quoted(message string) string {
	if message == "" {
		return ""
	}
	return fmt.Sprintf(": %q", message)
}

// LookupSchedule is the schedule of the lookups that follow a submit of unknown
// outcome: the time to wait before the next one when some have been made, and
// whether the rule has no more of them. The code is that of the submit; one that
// is empty (the worker died before it knew) or that an edited policy no longer
// verifies is looked up as an unlisted one. The age is since when the outcome is
// unknown.
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

// Verify says when a gateway's "no such payment" is believed.
func (p *Policy) Verify(g payment.Gateway) Verification { return p.verifications[g] }

// Rules lists the rules in force, per gateway in order of precedence. A built-in
// rule whose every code an override decides is not among them.
func (p *Policy) Rules() []Rule {
	var all []Rule
	for _, g := range payment.Gateways() {
		all = append(all, p.rules[g]...)
	}
	return all
}

func (p *Policy) rule(g payment.Gateway, code, message string) Rule {
	for _, r := range p.rules[g] {
		if fits(r.Code, code) && (r.Match == "" || p.matchers[r.Match].MatchString(message)) {
			return r
		}
	}
	r := unlisted
	r.Gateway = g
	return r
}

// order puts a gateway's rules into order of precedence: those with a match first;
// overrides before built-in ones; fewest x first; then as listed. So an override
// without a match, error:true say, leaves the built-in rules for error:true with
// one in force: what it says of a code was not said of those messages.
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

// Check looks at what depends on the gateway time-out: a request that is sent
// again while the first one may still be under way is sent twice. The error names
// file, line and value.
func (p *Policy) Check(gatewayTimeout time.Duration) error {
	for _, g := range payment.Gateways() {
		v := p.verifications[g]
		if least := 2 * gatewayTimeout; v.Then == Retry && v.Settle < least {
			return fmt.Errorf("%s: gateways.%s.verify.settle: %s is too short for then: retry (GATEWAY_TIMEOUT is %s: want at least two of it, %s)",
				v.Source, g, short(v.Settle), short(gatewayTimeout), short(least))
		}
	}
	return nil
}

// Confirmation is what a policy file does on a vendor's word, outside of what is
// sound by itself.
type Confirmation struct {
	Gateway payment.Gateway
	What    string // e.g. `4036304: accept`, `verify, then: retry`
	Words   string // who, when, what they said
	Source  string // file:line
}

func (c Confirmation) String() string {
	return fmt.Sprintf("%s %s (%s), the vendor confirms: %s", c.Gateway, c.What, c.Source, c.Words)
}

// VendorConfirmed lists everything that is in force on a vendor's word, for the
// start-up log and for whoever checks a policy.
func (p *Policy) VendorConfirmed() []Confirmation {
	var all []Confirmation
	for _, g := range payment.Gateways() {
		for _, r := range p.rules[g] {
			what := fmt.Sprintf("%s: %s", r.Code, r.Action)
			if r.Match != "" {
				what = fmt.Sprintf("%s with match %q: %s", r.Code, r.Match, r.Action)
			}
			if r.VendorConfirms != "" {
				all = append(all, Confirmation{g, what, r.VendorConfirms, r.Source})
			}
		}
		if v := p.verifications[g]; v.VendorConfirms != "" {
			all = append(all, Confirmation{g, "verify, then: " + string(v.Then), v.VendorConfirms, v.Source})
		}
	}
	return all
}

// fits reports whether a code falls under a pattern. Only x stands for a digit:
// an answer's code that holds an x itself falls under none.
func fits(pattern, code string) bool {
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

// covers reports whether every code under the second pattern falls under the
// first: two codes that differ wherever the second has an x tell.
func covers(pattern, other string) bool {
	return fits(pattern, strings.ReplaceAll(other, "x", "0")) && fits(pattern, strings.ReplaceAll(other, "x", "1"))
}
