package retrypolicy

import (
	"iter"
	"slices"
	"strings"

	"terbayar/internal/payment"
)

// class is what a code can be trusted to mean, whatever a policy file says: it
// bounds the actions that are sound for the code (interface.md, "Retry policy
// file"). A file chooses among these; it cannot make money unsafe.
type class struct {
	name    string
	allowed []Action
}

var (
	// success: whoever refuses or repeats what went through loses money or takes
	// it twice.
	success = class{"success", []Action{Accept, Verify, Review}}
	// unknown: it may have been processed, and it may not.
	unknown = class{"outcome unknown", []Action{Verify, Review}}
	// ourselves: nothing was processed, for a reason that is not the order's. To
	// reject the order would be to blame it for our settings.
	ourselves = class{"refusal of ourselves", []Action{Retry, RefreshToken, Verify, Review}}
	// ofOrder: nothing was processed.
	ofOrder = class{"refusal of the order", []Action{Retry, RefreshToken, Verify, Reject, Review}}
)

// classes is the table: the first row that fits decides. Without a gateway a row
// is of both.
var classes = []struct {
	class   class
	gateway payment.Gateway
	codes   string
}{
	{success, payment.AMDigiPay, "http:200"},
	{success, payment.Paydia, "200xx00"},
	{unknown, "", "net:unknown body:unreadable"},
	{unknown, payment.Paydia, "202xxxx 409xxxx 5xxxxxx 404xx01 404xx14 404xx18"},
	{ofOrder, payment.Paydia, "401xx02 401xx04"}, // the customer's token, not ours
	{ourselves, "", "net:unsent http:401 http:403 http:404 http:405 http:429"},
	{ourselves, payment.Paydia, "401xxxx 429xxxx " + CodeUndecryptable},
	{ofOrder, payment.AMDigiPay, CodeRefused},
	{ofOrder, "", "http:400 http:413 http:415 http:422"},
	{ofOrder, payment.Paydia, strings.Join(listed4xx(), " ")},
	// Every other code is unknown.
}

// listed4xx are the 4xx codes of the built-in table: what SNAP defines as a
// refusal. One that it does not define may mean anything.
func listed4xx() []string {
	var codes []string
	for _, r := range paydia {
		if r.code[0] == '4' {
			codes = append(codes, r.code)
		}
	}
	return codes
}

// patternsOf has the codes of each row of classes.
var patternsOf = func() (all [][]string) {
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
		if slices.ContainsFunc(patternsOf[i], func(pattern string) bool { return fits(pattern, code) }) {
			return row.class
		}
	}
	return unknown
}

// unsound is the first code under a pattern for which an action is not sound, and
// what is sound for every code under it; ok when the action is.
func unsound(g payment.Gateway, pattern string, action Action) (code string, sound []Action, ok bool) {
	sound = slices.Clone(actions)
	for each := range under(pattern) {
		c := classOf(g, each)
		if code == "" && !slices.Contains(c.allowed, action) {
			code = each
		}
		sound = slices.DeleteFunc(sound, func(a Action) bool { return !slices.Contains(c.allowed, a) })
	}
	return code, sound, code == ""
}

// under lists the codes that fall under a pattern. Of Paydia's the service (digits
// 4 and 5) is that of auth-payment where the pattern leaves it open: no class
// depends on it.
func under(pattern string) iter.Seq[string] {
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
			if code[i] == 'x' { // no other code has an x in it
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

// vendors reports whether a pattern is of codes that the vendor's answer carries.
// What no answer came to, and what cannot be read, no vendor can speak for.
func vendors(pattern string) bool {
	return !strings.HasPrefix(pattern, "net:") && !strings.HasPrefix(pattern, "body:") && pattern != CodeUndecryptable
}

// refusesLogin reports whether a code says that the gateway does not take us for
// who we are: whatever follows for the payment, the access token may be void.
func refusesLogin(g payment.Gateway, code string) bool {
	if code == HTTPCode(401) || code == HTTPCode(403) {
		return true
	}
	return g == payment.Paydia && fits("401xxxx", code) && classOf(g, code).name == ourselves.name
}
