// Package clients is the common ground of the two gateway clients: what one
// request to a gateway comes to, and how the request itself is made. A client
// makes one honest attempt and says what happened; it never sends twice and
// knows nothing of retries or of the ledger.
package clients

import (
	"context"
	"fmt"
	"time"

	"terbayar/internal/order"
	"terbayar/internal/payment"
	"terbayar/internal/secret"
)

// Gateway is what the submitter needs of a gateway. Both clients implement it,
// and clientstest holds both to the same contract.
type Gateway interface {
	// Authenticate makes sure that an access token is at hand, so that a gateway
	// that cannot be logged in to is noticed before a payment is claimed. However
	// many callers ask, one request is made. The error is a *Error.
	Authenticate(ctx context.Context) error
	// NewExternalID makes the X-EXTERNAL-ID of the next message, to be written
	// down before it is sent; empty where the gateway has no such thing.
	NewExternalID() string
	// Submit sends the money-moving request once. It always returns an Answer.
	Submit(ctx context.Context, s Submission) Answer
	// DropToken forgets the access token of that generation, which the gateway has
	// refused, if it is still the one in use: when fifty workers learn at once that it
	// is void, one logs in. Where new ones are refused, too, logins are made later and
	// later.
	DropToken(g TokenGeneration)
	// RenewToken forgets the access token of that generation, if it is still the one
	// in use, with nothing known against it: to see whether one can log in.
	RenewToken(g TokenGeneration)
}

// Submission is everything a client needs to send one payment.
type Submission struct {
	Order         *order.Order
	CustomerToken secret.Text // Paydia: Authorization-Customer
	ExternalID    string      // Paydia: X-EXTERNAL-ID, from NewExternalID
	// MayLeave is asked right before the first byte leaves; an error keeps the request
	// from leaving (net:unsent). Nil: it may.
	BeforeSend func() error
}

// TokenGeneration numbers the access tokens a client has had, from 1.
type TokenGeneration int64

// Answer is what one request came to. Code is always set; it alone decides what
// follows.
type Answer struct {
	Code       string        // what the retry policy is asked about
	HTTPStatus int           // 0 when no answer came
	Message    string        // the gateway's own words, cut and masked: fit to be kept and shown; "" when it gave none
	RetryAfter time.Duration // from a Retry-After header; 0 when there was none
	Receipt    *Receipt      // set only when the gateway positively said where the payment stands
	Absent     bool          // a lookup: the gateway positively said that it knows no such payment
	Token      TokenGeneration
	At         time.Time     // when the request was begun
	Duration   time.Duration // until its outcome was known
	Err        error         // a *Error with more detail for the log; nil when there is nothing to add
}

// Receipt is where a payment stands at the gateway, in the gateway's own words
// and in ours.
type Receipt struct {
	TransactionID string         // our reference, as the gateway echoed it; empty when it did not
	Reference     string         // AM's id as text, Paydia's referenceNo; empty when not told
	GatewayStatus string         // AM's status word, Paydia's code or latestTransactionStatus
	Status        payment.Status // what that means for us
	Amount        Number         // the zero value when not told
	Currency      string         // ISO 4217; empty when not told
	PaymentLinks  string
	PaymentCode   string
	QRCode        string
}

// Apply brings a payment to where the receipt says it stands. Where the receipt
// contradicts what was ordered the payment goes to a person instead; the
// contradiction is returned, in words, and is the payment's Reason. A payment at
// its end is left alone.
func (r *Receipt) Apply(p *payment.Payment) (contradiction string) {
	contradiction = r.Contradiction(p)
	if p.Status.Final() {
		return contradiction
	}
	told := r.Status
	if contradiction != "" {
		told = payment.NeedsReview
	}
	p.Status, p.Reason = payment.NextStatus(p.Status, told), contradiction
	if r.ofAnother(p) {
		return contradiction
	}
	p.GatewayStatus = r.GatewayStatus
	if p.GatewayReference == "" {
		p.GatewayReference = r.Reference
	}
	if contradiction != "" {
		return contradiction // nobody is to pay a sum that was not ordered
	}
	// What an answer leaves out is still so: a list row without the QR code of
	// the create answer must not take it away from the customer.
	for field, told := range map[*string]string{
		&p.PaymentLinks: r.PaymentLinks,
		&p.PaymentCode:  r.PaymentCode,
		&p.QRCode:       r.QRCode,
	} {
		if told != "" {
			*field = told
		}
	}
	return ""
}

// Contradiction compares a receipt with what was ordered and returns, in words,
// what does not agree; empty when all does. What the gateway did not tell
// contradicts nothing, and neither does what cannot be read: the clients give no
// receipt for it. (gateways.md 3.4, rule 7.)
func (r *Receipt) Contradiction(p *payment.Payment) string {
	switch {
	case r.ofAnother(p):
		return "the gateway's answer speaks of another transaction"
	case p.GatewayReference != "" && r.Reference != "" && r.Reference != p.GatewayReference:
		return fmt.Sprintf("the gateway has it as %.80q and as %.80q", p.GatewayReference, r.Reference)
	case r.Currency != "" && r.Currency != "IDR":
		return fmt.Sprintf("ordered in IDR, the gateway has currency %.3q", r.Currency)
	case r.Amount.Present() && r.Amount != WholeNumber(int64(p.Amount)):
		return fmt.Sprintf("ordered %d rupiah, the gateway has %s", p.Amount, r.Amount)
	default:
		return ""
	}
}

// ofAnother reports whether the receipt is for another payment.
func (r *Receipt) ofAnother(p *payment.Payment) bool {
	return r.TransactionID != "" && r.TransactionID != p.TransactionID
}

// Error is what went wrong with one request, fit for logs: it holds no URL, no
// header, no body, and of the gateway's own words only what Answer.Message keeps
// of them, so nothing secret and nothing of a customer's.
type Error struct {
	Gateway    payment.Gateway
	Operation  string // e.g. "login", "create-transaction", "auth-payment"
	Code       string // as in Answer
	HTTPStatus int
	RetryAfter time.Duration // as in Answer
	Detail     string        // in our own words, e.g. "dial: connection refused"
	NextTry    time.Time     // of a login: no other one is made before; set when the login has failed
	Message    string        // as in Answer
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s %s: %s", e.Gateway, e.Operation, e.Code)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s + quoted(e.Message)
}
