package retrypolicy

import (
	"iter"
	"slices"
	"strings"

	"terbayar/internal/payment"
)

// class is the set of actions that are safe for a code. A policy file may choose only
// among these (docs/interface.md, "Retry policy file"), so no file can cause a duplicate
// charge or lose a payment.
type class struct {
	name    string
	allowed []Action
}

var (
	// success: the payment was processed. Rejecting it would lose the money, sending it
	// again would charge the customer twice.
	success = class{"success", []Action{Accept, Verify, Review}}
	// unknown: the payment may or may not have been processed.
	unknown = class{"outcome unknown", []Action{Verify, Review}}
	// refusalOfUs: nothing was processed, because of our credentials, settings or
	// network. Rejecting the order for that would be wrong.
	refusalOfUs = class{"refusal of ourselves", []Action{Retry, RefreshToken, Verify, Review}}
	// refusalOfOrder: nothing was processed, because of the order.
	refusalOfOrder = class{"refusal of the order", []Action{Retry, RefreshToken, Verify, Reject, Review}}
)

// classes lists the codes of each class. The first row that matches decides. A row without
// a gateway applies to both.
var classes = []struct {
	class   class
	gateway payment.Gateway
	codes   string
}{
	{success, payment.AMDigiPay, "http:200"},
	{success, payment.Paydia, "200xx00"},
	{unknown, "", "net:unknown body:unreadable"},
	{unknown, payment.Paydia, "202xxxx 409xxxx 5xxxxxx 404xx01 404xx14 404xx18"},
	{refusalOfOrder, payment.Paydia, "401xx02 401xx04"}, // the customer's token, not our access token
	{refusalOfUs, "", "net:unsent http:401 http:403 http:404 http:405 http:429"},
	{refusalOfUs, payment.Paydia, "401xxxx 429xxxx " + CodeUndecryptable},
	{refusalOfOrder, payment.AMDigiPay, CodeRefused},
	{refusalOfOrder, "", "http:400 http:413 http:415 http:422"},
	{refusalOfOrder, payment.Paydia, strings.Join(listed4xx(), " ")},
	// Every other code is unknown.
}

// listed4xx returns the 4xx codes of the built-in table: the refusals that SNAP defines. A
// code that SNAP does not define may mean anything.
func listed4xx() []string {
	var codes []string
	for _, r := range paydia {
		if r.code[0] == '4' {
			codes = append(codes, r.code)
		}
	}
	return codes
}

// classCodes holds the codes of each row of classes as a list.
var classCodes = func() (all [][]string) {
	for _, row := range classes {
		all = append(all, strings.Fields(row.codes))
	}
	return all
}()

func classOf(g payment.Gateway, code string) class {
	for i, row := range classes {
		if row.gateway != "" && row.gateway != g {
			continue
		}
		if slices.ContainsFunc(classCodes[i], func(pattern string) bool { return matches(pattern, code) }) {
			return row.class
		}
	}
	return unknown
}

// checkSafe reports whether an action is safe for every code that matches a pattern. It
// also returns the first code for which it is not, and the actions that are safe for all
// of the codes.
func checkSafe(g payment.Gateway, pattern string, action Action) (unsafeFor string, safe []Action, ok bool) {
	safe = slices.Clone(actions)
	for code := range codesOf(pattern) {
		c := classOf(g, code)
		if unsafeFor == "" && !slices.Contains(c.allowed, action) {
			unsafeFor = code
		}
		safe = slices.DeleteFunc(safe, func(a Action) bool { return !slices.Contains(c.allowed, a) })
	}
	return unsafeFor, safe, unsafeFor == ""
}

// codesOf yields the codes that match a pattern. If a pattern leaves the service open
// (digits 4 and 5 of Paydia's codes), only the codes of auth-payment (63) are yielded: no
// class depends on the service.
func codesOf(pattern string) iter.Seq[string] {
	return func(yield func(string) bool) {
		code := []byte(pattern)
		if len(code) == 7 {
			for i, digit := range map[int]byte{3: '6', 4: '3'} {
				if code[i] == 'x' {
					code[i] = digit
				}
			}
		}
		var open []int
		for i := range code {
			if code[i] == 'x' { // in a valid pattern every x is a placeholder
				open = append(open, i)
				code[i] = '0'
			}
		}
		for {
			if !yield(string(code)) {
				return
			}
			i := len(open) - 1
			for ; i >= 0 && code[open[i]] == '9'; i-- {
				code[open[i]] = '0'
			}
			if i < 0 {
				return
			}
			code[open[i]]++
		}
	}
}

// vendorCode reports whether a pattern matches codes that the vendor's answers carry. Codes
// of missing or malformed answers are ours: no vendor can confirm anything about them.
func vendorCode(pattern string) bool {
	return !strings.HasPrefix(pattern, "net:") && !strings.HasPrefix(pattern, "body:") && pattern != CodeUndecryptable
}

// refusesLogin reports whether a code means that the gateway did not accept our
// credentials: the access token may be expired or invalid, whatever happens to the payment.
func refusesLogin(g payment.Gateway, code string) bool {
	if code == HTTPCode(401) || code == HTTPCode(403) {
		return true
	}
	return g == payment.Paydia && matches("401xxxx", code) && classOf(g, code).name == refusalOfUs.name
}
