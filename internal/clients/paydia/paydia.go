// Package paydia is the client of Paydia SNAP (api.paydia.id): the B2B access
// token (service 73), auth-payment (63) and payment query (64). Each call is one
// honest attempt; what follows from its answer is for others to decide.
package paydia

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"time"

	"terbayar/internal/clients"
	"terbayar/internal/payment"
	"terbayar/internal/secret"
)

// The operations, as errors name them.
const (
	opToken  = "access-token"
	opSubmit = "auth-payment"
	opQuery  = "payment-query"
)

// The service codes: digits 4 and 5 of a responseCode.
const (
	serviceToken  = "73"
	serviceSubmit = "63"
	serviceQuery  = "64"
)

// defaultChannelID is that of both of Paydia's own SDKs, and of the sample on
// its Auth Payment page.
const defaultChannelID = "12345"

// Options are the settings of the client. BaseURL, ClientID, ClientSecret and
// PrivateKey have no default; the zero value of every other field is the default
// it names.
type Options struct {
	BaseURL      string // e.g. https://api.paydia.id/snap/v1.0; its path is part of what is signed
	ClientID     string // X-PARTNER-ID and X-CLIENT-KEY
	ClientSecret secret.Text
	PrivateKey   secret.Text // RSA, PEM, PKCS#8 or PKCS#1
	ChannelID    string      // CHANNEL-ID; default "12345"

	// CustomerTokenPrefix stands before the customer token in
	// Authorization-Customer. Paydia's sample has none, ASPI's has "Bearer ".
	CustomerTokenPrefix string
	// SendEmptyReference sends originalReferenceNo as an empty string in a query
	// that does not know it, instead of leaving it out: Paydia's page calls it
	// mandatory (gateways.md 2.7).
	SendEmptyReference bool

	TokenMargin time.Duration // default: clients.DefaultTokenMargin
	Timeout     time.Duration // of one operation, the login it may need included; default: clients.DefaultTimeout
	// Transport makes the exchanges; default: clients.NewTransport(). What wraps
	// that one, to measure it, must pass the request's context on.
	Transport http.RoundTripper
	Now       func() time.Time // default: time.Now
}

// Client speaks to Paydia. It may be used from many goroutines.
type Client struct {
	options Options
	sender  *clients.Sender
	session *clients.Session
	key     *rsa.PrivateKey
}

var _ clients.Gateway = (*Client)(nil)

// New makes a client. It makes no request. The error names the setting that is
// wrong and never its value.
func New(o Options) (*Client, error) {
	o.ChannelID = cmp.Or(o.ChannelID, defaultChannelID)
	sender, err := clients.NewSender(payment.Paydia, o.BaseURL, o.Transport, o.Now)
	switch {
	case err != nil:
		return nil, fmt.Errorf("paydia: PAYDIA_BASE_URL %w", err)
	case o.ClientID == "":
		return nil, errors.New("paydia: PAYDIA_CLIENT_ID is missing")
	case o.ClientSecret.Empty():
		return nil, errors.New("paydia: PAYDIA_CLIENT_SECRET is missing")
	}
	key, err := parseKey(o.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("paydia: PAYDIA_PRIVATE_KEY %w", err)
	}
	sender.Redact([]secret.Text{o.ClientSecret, o.PrivateKey, secret.NewText(o.ClientID)})
	c := &Client{options: o, sender: sender, key: key}
	c.session = clients.NewSession(sender, c.login, o.Timeout, o.TokenMargin)
	return c, nil
}

// Authenticate implements clients.Gateway.
func (c *Client) Authenticate(ctx context.Context) error {
	_, err := c.session.Token(ctx)
	return err
}

// DropToken implements clients.Gateway.
func (c *Client) DropToken(g clients.TokenGeneration) { c.session.Drop(g) }

// RenewToken implements clients.Gateway.
func (c *Client) RenewToken(g clients.TokenGeneration) { c.session.Renew(g) }

// externalIDs is how many numbers can follow the date in an X-EXTERNAL-ID.
var externalIDs = new(big.Int).Exp(big.NewInt(10), big.NewInt(28), nil)

// NewExternalID implements clients.Gateway: the Jakarta date and 28 random
// digits. It has to be numeric, at most 36 long, and unique within the day over
// all messages of a partner (Paydia, Auth Payment, header 6), whoever sends them:
// the SDKs' clock readings collide.
func (c *Client) NewExternalID() string {
	n, err := rand.Int(rand.Reader, externalIDs)
	if err != nil {
		panic(err) // crypto/rand never fails: it ends the program instead
	}
	return fmt.Sprintf("%s%028d", c.sender.Now().In(payment.Jakarta).Format("20060102"), n)
}

// Submit implements clients.Gateway: POST /auth/payment. Success is 2006300 with
// a receipt that says paid.
func (c *Client) Submit(ctx context.Context, s clients.Submission) clients.Answer {
	body, err := s.Order.Content()
	if err != nil {
		return c.sender.Unsent(opSubmit, "the body cannot be encoded")
	}
	answer, content := c.call(ctx, opSubmit, clients.Request{Path: "/auth/payment", Body: body, BeforeSend: s.BeforeSend}, s.CustomerToken, s.ExternalID)
	var paid struct {
		ReferenceNo        clients.Identifier `json:"referenceNo"`
		PartnerReferenceNo clients.Identifier `json:"partnerReferenceNo"`
		Amount             money              `json:"amount"`
		// paidTime is not read: its sample has the wrong sign, and nothing hangs on it.
	}
	if !c.read(&answer, opSubmit, serviceSubmit, content, &paid) {
		return answer
	}
	if other(paid.PartnerReferenceNo, s.Order.Paydia.PartnerReferenceNo) {
		c.sender.Unreadable(&answer, opSubmit, "the answer speaks of another transaction")
		return answer
	}
	if why := illegible(paid.ReferenceNo, paid.Amount); why != "" {
		c.sender.Unreadable(&answer, opSubmit, why)
		return answer
	}
	answer.Receipt = &clients.Receipt{
		TransactionID: paid.PartnerReferenceNo.Text,
		Reference:     paid.ReferenceNo.Text,
		GatewayStatus: answer.Code,
		Status:        payment.Paid,
		Amount:        paid.Amount.value,
		Currency:      paid.Amount.currency,
	}
	return answer
}

// Query asks where one payment stands.
type Query struct {
	Key           payment.Key
	Reference     string // Paydia's referenceNo; empty when unknown, as after a time-out
	MerchantID    string
	CustomerToken secret.Text
	ExternalID    string // from NewExternalID: a query is a message of its own
}

// queryBody is the body of a payment query (gateways.md 2.7).
type queryBody struct {
	OriginalPartnerReferenceNo string  `json:"originalPartnerReferenceNo"`
	OriginalReferenceNo        *string `json:"originalReferenceNo,omitempty"`
	MerchantID                 string  `json:"merchantId"`
}

// Query asks where one payment stands: POST /auth/query. The answer's code is
// that of the query; where the payment stands is in its receipt, and its
// GatewayStatus is the latestTransactionStatus. Absent is set when Paydia says
// that it knows no such payment, by its code or by that status.
func (c *Client) Query(ctx context.Context, q Query) clients.Answer {
	asked := queryBody{OriginalPartnerReferenceNo: q.Key.TransactionID, MerchantID: q.MerchantID}
	if q.Reference != "" || c.options.SendEmptyReference {
		asked.OriginalReferenceNo = &q.Reference
	}
	body, err := clients.EncodeJSON(asked)
	if err != nil {
		return c.sender.Unsent(opQuery, "the body cannot be encoded")
	}
	answer, content := c.call(ctx, opQuery, clients.Request{Path: "/auth/query", Body: body}, q.CustomerToken, q.ExternalID)
	var found struct {
		// ASPI's own sample spells this key originalpartnerReferenceNo; encoding/json
		// does not mind.
		OriginalPartnerReferenceNo clients.Identifier `json:"originalPartnerReferenceNo"`
		OriginalReferenceNo        clients.Identifier `json:"originalReferenceNo"`
		LatestTransactionStatus    clients.Scalar     `json:"latestTransactionStatus"`
		Amount                     money              `json:"amount"`
	}
	ok := c.read(&answer, opQuery, serviceQuery, content, &found)
	switch {
	case ok && other(found.OriginalPartnerReferenceNo, q.Key.TransactionID):
		c.sender.Unreadable(&answer, opQuery, "the answer speaks of another transaction")
		return answer
	case answer.Code == codeNotFound, ok && found.LatestTransactionStatus == statusNotFound:
		answer.Absent = true
		return answer
	case !ok:
		return answer
	}
	status, known := meanings[string(found.LatestTransactionStatus)]
	if !known {
		c.sender.Unreadable(&answer, opQuery, "the latestTransactionStatus is none of SNAP's")
		return answer
	}
	if why := illegible(found.OriginalReferenceNo, found.Amount); why != "" {
		c.sender.Unreadable(&answer, opQuery, why)
		return answer
	}
	answer.Receipt = &clients.Receipt{
		TransactionID: found.OriginalPartnerReferenceNo.Text,
		Reference:     found.OriginalReferenceNo.Text,
		GatewayStatus: string(found.LatestTransactionStatus),
		Status:        status,
		Amount:        found.Amount.value,
		Currency:      found.Amount.currency,
	}
	return answer
}

// call makes one signed request with the access token.
func (c *Client) call(ctx context.Context, operation string, r clients.Request, customer secret.Text, externalID string) (clients.Answer, []byte) {
	r.Method = http.MethodPost
	return c.session.Call(ctx, operation, func(token clients.Token) clients.Request {
		timestamp := c.timestamp()
		// The eight headers of Paydia's Auth Payment page, and Accept.
		r.Header = http.Header{
			"Accept":                 {"application/json"},
			"Content-Type":           {"application/json"},
			"Authorization":          {"Bearer " + token.Text.Reveal()},
			"Authorization-Customer": {c.options.CustomerTokenPrefix + customer.Reveal()},
			"X-TIMESTAMP":            {timestamp},
			"X-PARTNER-ID":           {c.options.ClientID},
			"X-EXTERNAL-ID":          {externalID},
			"CHANNEL-ID":             {c.options.ChannelID},
			"X-SIGNATURE":            {Sign(c.options.ClientSecret, r.Method, c.sender.Path(r.Path), token.Text, r.Body, timestamp)},
		}
		return r
	})
}

// timestamp is the time of a request as SNAP writes it: Jakarta time, whole
// seconds, 25 characters.
func (c *Client) timestamp() string { return c.sender.Now().In(payment.Jakarta).Format(time.RFC3339) }
