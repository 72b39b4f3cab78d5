package retrypolicy

import (
	"maps"
	"slices"
	"time"

	"terbayar/internal/payment"
)

// The schedules of the built-in rules.
var (
	none          = Schedule{}
	newToken      = Schedule{Backoff: Backoff{Exponential, time.Second, time.Minute, 20}, MaxAttempts: 8} // if new tokens keep being refused, retrying does not help
	rateLimited   = Schedule{Backoff: Backoff{Exponential, 2 * time.Second, 2 * time.Minute, 20}, MaxAttempts: 100}
	unsent        = Schedule{Backoff: Backoff{Exponential, time.Second, 5 * time.Minute, 20}, MaxAttempts: 100}     // nothing was sent: many attempts are safe
	undecryptable = Schedule{Backoff: Backoff{Exponential, 5 * time.Second, 10 * time.Minute, 20}, MaxAttempts: 60} // hours: another worker may have the key, or this one may get it
	quota         = Schedule{Backoff: Backoff{Exponential, time.Minute, 30 * time.Minute, 20}, MaxAttempts: 10}     // limits per hour or per day
	lookups       = Schedule{Backoff: Backoff{Exponential, 5 * time.Second, 10 * time.Minute, 10}, MaxAttempts: 24}
)

// inherited is the schedule, per action, that an override inherits where it leaves out
// backoff or max_attempts.
var inherited = map[Action]Schedule{
	Accept: none, Retry: rateLimited, RefreshToken: newToken, Verify: lookups, Reject: none, Review: none,
}

// unlisted is the rule for every code without a rule.
var unlisted = Rule{Code: "unlisted", Action: Verify, Schedule: lookups, Meaning: "not in the policy: unknown outcome", Source: BuiltIn}

// verification is the built-in Verification of both gateways. Only Review is safe: AM does
// not document what it does with a repeated transaction_id, and at Paydia a delayed first
// request may still charge the customer (docs/gateways.md 1.4, 3.4).
var verification = Verification{Settle: 2 * time.Minute, Lookups: 3, Then: Review, Source: BuiltIn}

type row struct {
	code     string
	match    string // the pattern of a messageKind, or ""
	action   Action
	schedule Schedule
	meaning  string
}

// transport holds the rules of both gateways for missing answers, and for answers that
// carry an HTTP status and perhaps a message, but no code.
var transport = slices.Concat([]row{
	{CodeUnsent, "", Retry, unsent, "failed before the first byte was sent"},
	{CodeUnknown, "", Verify, lookups, "timeout or reset after the first byte was sent"},
	{CodeUnreadable, "", Verify, lookups, "malformed answer"},
	{"http:3xx", "", Verify, lookups, "redirect, not followed"},
	{"http:401", "", RefreshToken, newToken, "unauthorized: access token expired or invalid"},
	{"http:403", "", Review, none, "forbidden: access rights or a firewall"},
	{"http:404", "", Review, none, "no such URL: check the base URL"},
	{"http:405", "", Review, none, "method not allowed: check the base URL"},
	{"http:408", "", Verify, lookups, "timeout at the gateway"},
	{"http:409", "", Verify, lookups, "conflict, perhaps with an earlier request"},
	{"http:429", "", Retry, rateLimited, "too many requests"},
	{"http:5xx", "", Verify, lookups, "server error: may have been processed"},
},
	rulesFor("http:401", repeated, invalidToken, settings),
	rulesFor("http:403", repeated, invalidToken, unauthorized),
	rulesFor("http:404", repeated, invalidToken, unauthorized),
)

// amdigipay holds the rules of AM Digital Payment (docs/gateways.md 1.4). AM appears to be
// a Laravel service, which answers 422 when its validation fails, before it processes
// anything. Only the message says whether AM refused the order or our credentials and
// settings.
var amdigipay = slices.Concat(
	[]row{
		{"http:200", "", Accept, none, "success"},
		{CodeRefused, "", Reject, none, "refused (error:true)"},
		{"http:400", "", Reject, none, "bad request"},
		{"http:422", "", Reject, none, "refused by validation"},
	},
	rulesFor(CodeRefused, repeated, invalidToken, unauthorized, trouble, settings, credentials, already),
	rulesFor("http:400", repeated, invalidToken, unauthorized, trouble, settings, credentials, already),
	rulesFor("http:422", repeated, invalidToken, unauthorized, trouble, settings, credentials, already),
)

// paydia holds the rules of Paydia: first the eleven codes of its Auth Payment page
// (docs/gateways.md 2.6), then the general codes of SNAP BI (docs/gateways.md 3.1), where xx
// is the service. SNAP's codes are exact. The message matters only for the few codes that
// do not say whether the order or our settings were refused.
var paydia = slices.Concat([]row{
	{"2006300", "", Accept, none, "processed"},
	{"4006301", "", Reject, none, "invalid field format"},
	{"4006302", "", Reject, none, "invalid mandatory field"},
	{"4016300", "", Review, none, "unauthorized: signature or client settings"},
	{"4016301", "", RefreshToken, newToken, "invalid token (B2B)"},
	{"4036302", "", Reject, none, "exceeds transaction amount limit"},
	{"4036314", "", Reject, none, "insufficient funds"},
	{"4046308", "", Reject, none, "invalid merchant"},
	{"4096300", "", Verify, lookups, "X-EXTERNAL-ID used twice: an earlier request arrived"},
	{"4096301", "", Verify, lookups, "duplicate reference: an earlier request succeeded"},
	{"5006301", "", Verify, lookups, "internal server error: may have been processed"},

	{CodeUndecryptable, "", Retry, undecryptable, "no key of PAYLOAD_KEYS decrypts the customer token"},

	{"200xx00", "", Accept, none, "successful"},
	{"202xx00", "", Verify, lookups, "request in progress"},
	{"400xx00", "", Reject, none, "bad request"},
	{"400xx01", "", Reject, none, "invalid field format"},
	{"400xx02", "", Reject, none, "invalid or missing mandatory field"},
	{"401xx00", "", Review, none, "unauthorized: signature or client settings"},
	{"401xx01", "", RefreshToken, newToken, "B2B token invalid"},
	{"401xx02", "", Reject, none, "customer token invalid: customer must bind again"},
	{"401xx03", "", RefreshToken, newToken, "B2B token not found"},
	{"401xx04", "", Reject, none, "customer token not found: customer must bind again"},
	{"401xxxx", "", RefreshToken, newToken, "unauthorized, with a case code that SNAP does not define"},
	{"403xx00", "", Reject, none, "transaction expired"},
	{"403xx01", "", Reject, none, "feature not allowed"},
	{"403xx02", "", Reject, none, "exceeds transaction amount limit"},
	{"403xx03", "", Reject, none, "suspected fraud"},
	{"403xx04", "", Retry, quota, "activity count limit: may be accepted later"},
	{"403xx05", "", Reject, none, "do not honor"},
	{"403xx06", "", Retry, quota, "not allowed at this time (cut-off): may be accepted later"},
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
	{"404xx01", "", Verify, lookups, "transaction not found: makes no sense for a submit"},
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
	{"404xx14", "", Verify, lookups, "bill already paid, perhaps by an earlier request"},
	{"404xx15", "", Reject, none, "invalid OTP"},
	{"404xx16", "", Reject, none, "partner not found"},
	{"404xx17", "", Reject, none, "invalid terminal"},
	{"404xx18", "", Verify, lookups, "same reference, different content: an earlier request arrived"},
	{"404xx19", "", Reject, none, "expired bill"},
	{"405xx00", "", Reject, none, "function not supported"},
	{"405xx01", "", Reject, none, "operation not allowed"},
	{"409xx00", "", Verify, lookups, "X-EXTERNAL-ID used twice: an earlier request arrived"},
	{"409xx01", "", Verify, lookups, "duplicate reference: an earlier request succeeded"},
	{"429xx00", "", Retry, rateLimited, "too many requests"},
	{"500xx00", "", Verify, lookups, "general error: may have been processed"},
	{"500xx01", "", Verify, lookups, "internal server error: may have been processed"},
	{"500xx02", "", Verify, lookups, "external server error: may have been processed"},
	{"504xx00", "", Verify, lookups, "timeout at the issuer"},
},
	rulesFor("http:400", repeated, invalidToken, unauthorized, settings, credentials),
	rulesFor("http:422", repeated, invalidToken, unauthorized, settings, credentials),
	rulesFor("400xx00", repeated, invalidToken, settings, credentials, headers),
	rulesFor("400xx01", headers),
	rulesFor("400xx02", headers),
	rulesFor("401xx00", invalidToken),
	rulesFor("403xx00", invalidToken),
	rulesFor("403xx01", invalidToken),
	// Codes that other SNAP services also use for an invalid token.
	rulesFor("403xx05", invalidToken),
	rulesFor("403xx15", invalidToken),
	rulesFor("403xx19", invalidToken),
	rulesFor("404xx00", invalidToken),
	rulesFor("404xx07", invalidToken),
	rulesFor("404xx16", invalidToken),
	rulesFor("405xx00", invalidToken),
	rulesFor("405xx01", invalidToken),
)

// builtinRules holds the built-in rules of each gateway in order of precedence.
var builtinRules = func() map[payment.Gateway][]Rule {
	rules := make(map[payment.Gateway][]Rule)
	for g, rows := range map[payment.Gateway][]row{
		payment.AMDigiPay: slices.Concat(amdigipay, transport),
		payment.Paydia:    slices.Concat(paydia, transport),
	} {
		for _, r := range rows {
			rules[g] = append(rules[g], Rule{
				Gateway: g, Code: r.code, Match: r.match, Action: r.action, Schedule: r.schedule, Meaning: r.meaning, Source: BuiltIn,
			})
		}
		order(rules[g])
	}
	return rules
}()

// Builtin returns the policy without overrides.
func Builtin() *Policy {
	p := &Policy{
		rules:         make(map[payment.Gateway][]Rule),
		verifications: make(map[payment.Gateway]Verification),
		matchers:      maps.Clone(compiled),
	}
	for g, rules := range builtinRules {
		p.rules[g] = slices.Clone(rules)
		p.verifications[g] = verification
	}
	return p
}
