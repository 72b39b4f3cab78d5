// Package clients has the common parts of the two gateway clients: the interface Gateway,
// the Answer to a request, and the HTTP sender and login session. A client sends every
// request once and reports the result. It never retries and does not use the ledger.
package clients

import (
	"context"
	"fmt"
	"time"

	"terbayar/internal/order"
	"terbayar/internal/payment"
	"terbayar/internal/secret"
)

// Gateway is the client interface that the submitter uses. Both clients implement it, and
// the contract tests of clientstest check both.
type Gateway interface {
	// Authenticate logs in unless there is a valid access token, so that a failing login
	// is noticed before a payment is claimed. Concurrent callers share one request. The
	// error is a *Error.
	Authenticate(ctx context.Context) error
	// NewExternalID returns the X-EXTERNAL-ID of the next message, to be recorded before
	// the message is sent; "" if the gateway uses none.
	NewExternalID() string
	// Submit sends the money-moving request once. It always returns an Answer.
	Submit(ctx context.Context, s Submission) Answer
	// DropToken drops the access token of that generation, which the gateway has refused,
	// if it is still in use. If many goroutines drop the same token, one logs in. If the
	// tokens of new logins are refused too, the delay before the next login grows.
	DropToken(g TokenGeneration)
	// RenewToken drops the access token of that generation if it is still in use. The
	// gateway has not refused it: the caller wants to know whether a login succeeds.
	RenewToken(g TokenGeneration)
}

// Submission is everything a client needs to send one payment.
type Submission struct {
	Order         *order.Order
	CustomerToken secret.Text // Paydia: Authorization-Customer
	ExternalID    string      // Paydia: X-EXTERNAL-ID, from NewExternalID
	// BeforeSend is called immediately before the first byte is sent. If it returns an
	// error, nothing is sent (net:unsent). It may be nil.
	BeforeSend func() error
}

// TokenGeneration numbers the access tokens of a client, from 1.
type TokenGeneration int64

// Answer is the result of one request. Code is always set; the retry policy decides by it
// and by Message.
type Answer struct {
	Code       string        // see package retrypolicy
	HTTPStatus int           // 0 if no answer arrived
	Message    string        // the gateway's message, cut and redacted so that it may be stored and logged; "" if it gave none
	RetryAfter time.Duration // from a Retry-After header; 0 if there was none
	Receipt    *Receipt      // set only if the gateway reported the payment's status
	Absent     bool          // of a lookup: the gateway reported that it has no such payment
	Token      TokenGeneration
	At         time.Time     // start of the request
	Duration   time.Duration // until the result was known
	Err        error         // a *Error with more detail for the log; nil if there is none
}

// Receipt is a payment as the gateway reports it.
type Receipt struct {
	TransactionID string         // our reference, echoed by the gateway; "" if missing
	Reference     string         // AM's id as text, Paydia's referenceNo; "" if missing
	GatewayStatus string         // AM's status word, Paydia's code or latestTransactionStatus
	Status        payment.Status // our status for GatewayStatus
	Amount        Number         // the zero value if missing
	Currency      string         // ISO 4217; "" if missing
	PaymentLinks  string
	PaymentCode   string
	QRCode        string
}

// Apply updates a payment from the receipt. If the receipt contradicts the order, the
// payment goes to review; Apply returns the contradiction, which is also the payment's
// Reason. A payment with a final status is not changed.
func (r *Receipt) Apply(p *payment.Payment) (contradiction string) {
	contradiction = r.Contradiction(p)
	if p.Status.Final() {
		return contradiction
	}
	status := r.Status
	if contradiction != "" {
		status = payment.NeedsReview
	}
	p.Status, p.Reason = payment.NextStatus(p.Status, status), contradiction
	if r.isOtherPayment(p) {
		return contradiction
	}
	p.GatewayStatus = r.GatewayStatus
	if p.GatewayReference == "" {
		p.GatewayReference = r.Reference
	}
	if contradiction != "" {
		return contradiction // do not show the customer how to pay a wrong amount
	}
	// A missing field keeps its value: a row of AM's list may lack the QR code that the
	// answer to create-transaction had.
	for field, value := range map[*string]string{
		&p.PaymentLinks: r.PaymentLinks,
		&p.PaymentCode:  r.PaymentCode,
		&p.QRCode:       r.QRCode,
	} {
		if value != "" {
			*field = value
		}
	}
	return ""
}

// Contradiction returns what in the receipt disagrees with the order; "" if nothing does. A
// missing field agrees with anything. The clients return no receipt with a malformed field.
// (docs/gateways.md 3.4, rule 7.)
func (r *Receipt) Contradiction(p *payment.Payment) string {
	switch {
	case r.isOtherPayment(p):
		return "the gateway's answer is about another transaction"
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

// isOtherPayment reports whether the receipt is for another payment.
func (r *Receipt) isOtherPayment(p *payment.Payment) bool {
	return r.TransactionID != "" && r.TransactionID != p.TransactionID
}

// Error describes the failure of one request. It can be logged: it contains no URL, header
// or body, and the gateway's message only as redacted in Answer.Message, so no secret and
// no customer data.
type Error struct {
	Gateway    payment.Gateway
	Operation  string // e.g. "login", "create-transaction", "auth-payment"
	Code       string // as in Answer
	HTTPStatus int
	RetryAfter time.Duration // as in Answer
	Detail     string        // our description, e.g. "dial: connection refused"
	NextTry    time.Time     // of a failed login: no other login is made before
	Message    string        // as in Answer
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s %s: %s", e.Gateway, e.Operation, e.Code)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s + quoted(e.Message)
}
