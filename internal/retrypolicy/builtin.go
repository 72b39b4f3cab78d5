package retrypolicy

import (
	"maps"
	"slices"
	"time"

	"terbayar/internal/payment"
)

// The schedules of the built-in rules. Per action they are also what an override
// inherits where it leaves something out: see inherited.
var (
	none      = Schedule{}
	renew     = Schedule{Backoff: Backoff{Exponential, time.Second, time.Minute, 20}, MaxAttempts: 8} // tokens void again and again need a person
	throttled = Schedule{Backoff: Backoff{Exponential, 2 * time.Second, 2 * time.Minute, 20}, MaxAttempts: 100}
	unsent    = Schedule{Backoff: Backoff{Exponential, time.Second, 5 * time.Minute, 20}, MaxAttempts: 100}     // nothing left: patience costs nothing
	otherKeys = Schedule{Backoff: Backoff{Exponential, 5 * time.Second, 10 * time.Minute, 20}, MaxAttempts: 60} // for hours: another worker may have the key, or this one get it
	later     = Schedule{Backoff: Backoff{Exponential, time.Minute, 30 * time.Minute, 20}, MaxAttempts: 10}     // limits of the hour or the day
	look      = Schedule{Backoff: Backoff{Exponential, 5 * time.Second, 10 * time.Minute, 10}, MaxAttempts: 24}
)

// inherited is the schedule of an override that leaves it out, in whole or in
// part.
var inherited = map[Action]Schedule{
	Accept: none, Retry: throttled, RefreshToken: renew, Verify: look, Reject: none, Review: none,
}

// unlisted is the rule of every code that no other rule takes in.
var unlisted = Rule{Code: "unlisted", Action: Verify, Schedule: look, Meaning: "not in the policy: outcome unknown", Source: BuiltIn}

// verification is the built-in one of both gateways. Holding is the only sound
// end: AM does not say what it does with a repeated transaction_id, and Paydia's
// customer may be charged by a first request that is merely late (gateways.md
// 1.4, 3.4).
var verification = Verification{Settle: 2 * time.Minute, Lookups: 3, Then: Review, Source: BuiltIn}

type row struct {
	code    string
	match   string // a pattern of words.go, or none
	action  Action
	pace    Schedule
	meaning string
}

// transport is what both gateways have in common: no answer, or one that speaks
// by its HTTP status alone, or by that and some words. A login that is refused is
// asked for again a few times: where a new token does not help, a person must look.
var transport = slices.Concat([]row{
	{CodeUnsent, "", Retry, unsent, "failed before a byte went out"},
	{CodeUnknown, "", Verify, look, "time-out or reset after a byte went out"},
	{CodeUnreadable, "", Verify, look, "an answer that cannot be read"},
	{"http:3xx", "", Verify, look, "redirect, not followed"},
	{"http:401", "", RefreshToken, renew, "unauthorized: access token void"},
	{"http:403", "", Review, none, "forbidden: access settings, or a firewall"},
	{"http:404", "", Review, none, "no such address: check the base URL"},
	{"http:405", "", Review, none, "method not allowed: check the base URL"},
	{"http:408", "", Verify, look, "the gateway's side timed out"},
	{"http:409", "", Verify, look, "conflict: an earlier request may have reached it"},
	{"http:429", "", Retry, throttled, "too many requests"},
	{"http:5xx", "", Verify, look, "server error: may have been processed"},
},
	worded("http:401", repeated, voidToken, settings),
	worded("http:403", repeated, voidToken, unauthorized),
	worded("http:404", repeated, voidToken, unauthorized),
)

// amdigipay is AM Digital Payment's part (gateways.md 1.4). A Laravel service
// answers 422 to what its validation refuses, before anything is done. Its
// refusals say in words alone whether they are of the order.
var amdigipay = slices.Concat(
	[]row{
		{"http:200", "", Accept, none, "success"},
		{CodeRefused, "", Reject, none, "refused (error:true)"},
		{"http:400", "", Reject, none, "bad request"},
		{"http:422", "", Reject, none, "refused by validation"},
	},
	worded(CodeRefused, repeated, voidToken, unauthorized, trouble, settings, credentials, already),
	worded("http:400", repeated, voidToken, unauthorized, trouble, settings, credentials, already),
	worded("http:422", repeated, voidToken, unauthorized, trouble, settings, credentials, already),
)

// paydia is Paydia's part: first the eleven codes of its Auth Payment page, then
// the codes of SNAP BI in general (gateways.md 3.1), xx being the service. They are
// exact, so words matter only where a code leaves open whose fault it is.
var paydia = slices.Concat([]row{
	{"2006300", "", Accept, none, "processed"},
	{"4006301", "", Reject, none, "invalid field format"},
	{"4006302", "", Reject, none, "invalid mandatory field"},
	{"4016300", "", Review, none, "unauthorized: signature or client settings"},
	{"4016301", "", RefreshToken, renew, "invalid token (B2B)"},
	{"4036302", "", Reject, none, "exceeds transaction amount limit"},
	{"4036314", "", Reject, none, "insufficient funds"},
	{"4046308", "", Reject, none, "invalid merchant"},
	{"4096300", "", Verify, look, "X-EXTERNAL-ID used twice: an earlier request reached it"},
	{"4096301", "", Verify, look, "duplicate reference: an earlier request succeeded"},
	{"5006301", "", Verify, look, "internal server error: may have been processed"},

	{CodeUndecryptable, "", Retry, otherKeys, "no key of PAYLOAD_KEYS decrypts the customer token"},

	{"200xx00", "", Accept, none, "successful"},
	{"202xx00", "", Verify, look, "request in progress"},
	{"400xx00", "", Reject, none, "bad request"},
	{"400xx01", "", Reject, none, "invalid field format"},
	{"400xx02", "", Reject, none, "invalid or missing mandatory field"},
	{"401xx00", "", Review, none, "unauthorized: signature or client settings"},
	{"401xx01", "", RefreshToken, renew, "B2B token invalid"},
	{"401xx02", "", Reject, none, "customer token invalid: customer must bind again"},
	{"401xx03", "", RefreshToken, renew, "B2B token not found"},
	{"401xx04", "", Reject, none, "customer token not found: customer must bind again"},
	{"401xxxx", "", RefreshToken, renew, "unauthorized, in a way that SNAP does not know"},
	{"403xx00", "", Reject, none, "transaction expired"},
	{"403xx01", "", Reject, none, "feature not allowed"},
	{"403xx02", "", Reject, none, "exceeds transaction amount limit"},
	{"403xx03", "", Reject, none, "suspected fraud"},
	{"403xx04", "", Retry, later, "activity count limit: later"},
	{"403xx05", "", Reject, none, "do not honor"},
	{"403xx06", "", Retry, later, "not allowed at this time (cut-off): later"},
	{"403xx07", "", Reject, none, "card blocked"},
	{"403xx08", "", Reject, none, "card expired"},
	{"403xx09", "", Reject, none, "dormant account"},
	{"403xx10", "", Reject, none, "token limit"},
	{"403xx11", "", Reject, none, "OTP blocked"},
	{"403xx12", "", Reject, none, "OTP expired"},
	{"403xx13", "", Reject, none, "OTP sent: customer must act"},
	{"403xx14", "", Reject, none, "insufficient funds"},
	{"403xx15", "", Reject, none, "transaction not permitted"},
	{"403xx16", "", Reject, none, "suspended"},
	{"403xx17", "", Reject, none, "token limit exceeded"},
	{"403xx18", "", Reject, none, "inactive card, account or customer"},
	{"403xx19", "", Reject, none, "merchant blacklisted"},
	{"403xx20", "", Reject, none, "merchant limit exceeded"},
	{"403xx21", "", Reject, none, "set limit not allowed"},
	{"403xx22", "", Reject, none, "token limit invalid"},
	{"403xx23", "", Reject, none, "account limit exceeded"},
	{"404xx00", "", Reject, none, "invalid transaction status"},
	{"404xx01", "", Verify, look, "transaction not found: no answer to a submit"},
	{"404xx02", "", Reject, none, "invalid routing"},
	{"404xx03", "", Reject, none, "bank not supported by switch"},
	{"404xx04", "", Reject, none, "cancelled by customer"},
	{"404xx05", "", Reject, none, "merchant not registered"},
	{"404xx06", "", Reject, none, "OTP needed"},
	{"404xx07", "", Reject, none, "journey not found"},
	{"404xx08", "", Reject, none, "invalid merchant"},
	{"404xx09", "", Reject, none, "no issuer"},
	{"404xx10", "", Reject, none, "invalid API transition"},
	{"404xx11", "", Reject, none, "invalid account or virtual account"},
	{"404xx12", "", Reject, none, "invalid bill"},
	{"404xx13", "", Reject, none, "invalid amount"},
	{"404xx14", "", Verify, look, "paid bill: perhaps by an earlier request"},
	{"404xx15", "", Reject, none, "invalid OTP"},
	{"404xx16", "", Reject, none, "partner not found"},
	{"404xx17", "", Reject, none, "invalid terminal"},
	{"404xx18", "", Verify, look, "same reference, different content: an earlier request reached it"},
	{"404xx19", "", Reject, none, "expired bill"},
	{"405xx00", "", Reject, none, "function not supported"},
	{"405xx01", "", Reject, none, "operation not allowed"},
	{"409xx00", "", Verify, look, "X-EXTERNAL-ID used twice: an earlier request reached it"},
	{"409xx01", "", Verify, look, "duplicate reference: an earlier request succeeded"},
	{"429xx00", "", Retry, throttled, "too many requests"},
	{"500xx00", "", Verify, look, "general error: may have been processed"},
	{"500xx01", "", Verify, look, "internal server error: may have been processed"},
	{"500xx02", "", Verify, look, "external server error: may have been processed"},
	{"504xx00", "", Verify, look, "time-out at the issuer"},
},
	worded("http:400", repeated, voidToken, unauthorized, settings, credentials),
	worded("http:422", repeated, voidToken, unauthorized, settings, credentials),
	worded("400xx00", repeated, voidToken, settings, credentials, headers),
	worded("400xx01", headers),
	worded("400xx02", headers),
	worded("401xx00", voidToken),
	worded("403xx00", voidToken),
	worded("403xx01", voidToken),
	// Cases that other services of SNAP's use for more than their names say.
	worded("403xx05", voidToken),
	worded("403xx15", voidToken),
	worded("403xx19", voidToken),
	worded("404xx00", voidToken),
	worded("404xx07", voidToken),
	worded("404xx16", voidToken),
	worded("405xx00", voidToken),
	worded("405xx01", voidToken),
)

// Builtin is the policy without any override.
func Builtin() *Policy {
	p := &Policy{
		rules:         make(map[payment.Gateway][]Rule),
		verifications: make(map[payment.Gateway]Verification),
		matchers:      maps.Clone(compiled),
	}
	for g, rows := range map[payment.Gateway][]row{
		payment.AMDigiPay: slices.Concat(amdigipay, transport),
		payment.Paydia:    slices.Concat(paydia, transport),
	} {
		for _, r := range rows {
			p.rules[g] = append(p.rules[g], Rule{
				Gateway: g, Code: r.code, Match: r.match, Action: r.action, Schedule: r.pace, Meaning: r.meaning, Source: BuiltIn,
			})
		}
		order(p.rules[g])
		p.verifications[g] = verification
	}
	return p
}
