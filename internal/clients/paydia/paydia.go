// Package paydia is the client of Paydia SNAP (api.paydia.id): the B2B access token (service
// 73), auth-payment (63) and payment query (64). Each call sends its request once; the
// caller decides what to do after the answer.
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

// defaultChannelID is the CHANNEL-ID of both of Paydia's own SDKs, and of the sample on its
// Auth Payment page.
const defaultChannelID = "12345"

// Options are the settings of the client. BaseURL, ClientID, ClientSecret and PrivateKey are
// required.
type Options struct {
	BaseURL      string // e.g. https://api.paydia.id/snap/v1.0; its path is part of the signed text
	ClientID     string // X-PARTNER-ID and X-CLIENT-KEY
	ClientSecret secret.Text
	PrivateKey   secret.Text // RSA, PEM, PKCS#8 or PKCS#1
	ChannelID    string      // CHANNEL-ID; default "12345"

	// CustomerTokenPrefix is put before the customer token in Authorization-Customer.
	// Paydia's sample has none, ASPI's has "Bearer ".
	CustomerTokenPrefix string
	// SendEmptyReference sends originalReferenceNo as an empty string in a query if it is
	// unknown, instead of leaving it out. Paydia documents it as mandatory
	// (docs/gateways.md 2.7).
	SendEmptyReference bool

	TokenMargin time.Duration // default: clients.DefaultTokenMargin
	Timeout     time.Duration // of one operation, including a login; default: clients.DefaultTimeout
	// Transport sends the requests; default: clients.NewTransport(). A wrapper must pass
	// on the request's context.
	Transport http.RoundTripper
	Now       func() time.Time // default: time.Now
}

// Client is a client of Paydia. It is safe for concurrent use.
type Client struct {
	options Options
	sender  *clients.Sender
	session *clients.Session
	key     *rsa.PrivateKey
}

var _ clients.Gateway = (*Client)(nil)

// New returns a client. It sends no request. The error names the wrong setting and does not
// contain its value.
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

// externalIDs is the number of different X-EXTERNAL-IDs per day.
var externalIDs = new(big.Int).Exp(big.NewInt(10), big.NewInt(28), nil)

// NewExternalID implements clients.Gateway. It returns the Jakarta date and 28 random digits.
// The id must be numeric, at most 36 digits long, and unique per day among all messages of
// a partner (Paydia, Auth Payment, header 6), from any process. The ids of Paydia's SDKs are
// clock readings, which collide.
func (c *Client) NewExternalID() string {
	n, err := rand.Int(rand.Reader, externalIDs)
	if err != nil {
		panic(err) // unreachable: if crypto/rand fails, it ends the program
	}
	return fmt.Sprintf("%s%028d", c.sender.Now().In(payment.Jakarta).Format("20060102"), n)
}

// Submit implements clients.Gateway: POST /auth/payment. The code is 2006300, with a receipt
// of a paid payment, for success.
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
		// paidTime is not read: its sample has the wrong sign, and it is not needed.
	}
	if !c.read(&answer, opSubmit, serviceSubmit, content, &paid) {
		return answer
	}
	if isOther(paid.PartnerReferenceNo, s.Order.Paydia.PartnerReferenceNo) {
		c.sender.Unreadable(&answer, opSubmit, "the answer is about another transaction")
		return answer
	}
	if why := malformed(paid.ReferenceNo, paid.Amount); why != "" {
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

// Query identifies the payment of a payment query.
type Query struct {
	Key           payment.Key
	Reference     string // Paydia's referenceNo; "" if unknown, for example after a timeout
	MerchantID    string
	CustomerToken secret.Text
	ExternalID    string // from NewExternalID: every query needs a new one
}

// queryBody is the body of a payment query (docs/gateways.md 2.7).
type queryBody struct {
	OriginalPartnerReferenceNo string  `json:"originalPartnerReferenceNo"`
	OriginalReferenceNo        *string `json:"originalReferenceNo,omitempty"`
	MerchantID                 string  `json:"merchantId"`
}

// Query looks up one payment: POST /auth/query. The answer's code is that of the query. The
// payment's status is in the receipt, whose GatewayStatus is latestTransactionStatus. Absent
// is set if Paydia has no such payment, by the code or by latestTransactionStatus.
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
		// ignores case.
		OriginalPartnerReferenceNo clients.Identifier `json:"originalPartnerReferenceNo"`
		OriginalReferenceNo        clients.Identifier `json:"originalReferenceNo"`
		LatestTransactionStatus    clients.Scalar     `json:"latestTransactionStatus"`
		Amount                     money              `json:"amount"`
	}
	ok := c.read(&answer, opQuery, serviceQuery, content, &found)
	switch {
	case ok && isOther(found.OriginalPartnerReferenceNo, q.Key.TransactionID):
		c.sender.Unreadable(&answer, opQuery, "the answer is about another transaction")
		return answer
	case answer.Code == codeNotFound, ok && found.LatestTransactionStatus == statusNotFound:
		answer.Absent = true
		return answer
	case !ok:
		return answer
	}
	status, known := statuses[string(found.LatestTransactionStatus)]
	if !known {
		c.sender.Unreadable(&answer, opQuery, "latestTransactionStatus is not defined by SNAP")
		return answer
	}
	if why := malformed(found.OriginalReferenceNo, found.Amount); why != "" {
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

// call sends one signed request with the access token.
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

// timestamp returns the time of a request in SNAP's format: Jakarta time, whole seconds, 25
// characters.
func (c *Client) timestamp() string { return c.sender.Now().In(payment.Jakarta).Format(time.RFC3339) }
