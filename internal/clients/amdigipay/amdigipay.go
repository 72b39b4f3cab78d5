// Package amdigipay is the client of AM Digital Payment (h2h.amdigipay.com): login,
// create-transaction, list-transaction and detail-transaction. Each call sends its request
// once; the caller decides what to do after the answer.
package amdigipay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/v1" // behaves like encoding/json, in a third of the time

	"terbayar/internal/clients"
	"terbayar/internal/order"
	"terbayar/internal/payment"
	"terbayar/internal/secret"
)

// The operations, as errors name them.
const (
	opLogin  = "login"
	opCreate = "create-transaction"
	opList   = "list-transaction"
	opDetail = "detail-transaction"
)

// maxPage is the maximum size of a page of list-transaction in bytes. A row has about 1 KiB.
const maxPage = 16 << 20

// Options are the settings of the client. BaseURL, Username and Password are required.
type Options struct {
	BaseURL  string // e.g. https://h2h.amdigipay.com/api
	Username string
	Password secret.Text

	SignatureScheme string      // SchemeSHA256 or SchemeHMAC; default SchemeSHA256
	SignatureKey    secret.Text // of SchemeHMAC
	SignatureFields []string    // of SchemeHMAC: fields of the create body, in signing order

	LoginEncoding string    // "json" (documented) or "form" (used by integrators); default "json"
	ListMethod    string    // AM does not document the method; default "GET", used by integrators
	StatusMap     StatusMap // default: DefaultStatusMap

	TokenMargin time.Duration // default: clients.DefaultTokenMargin
	Timeout     time.Duration // of one operation, including a login; default: clients.DefaultTimeout
	// Transport sends the requests; default: clients.NewTransport(). A wrapper must pass
	// on the request's context.
	Transport http.RoundTripper
	Now       func() time.Time // default: time.Now
}

// Client is a client of AM. It is safe for concurrent use.
type Client struct {
	options Options
	sender  *clients.Sender
	session *clients.Session
	sign    signer
}

var _ clients.Gateway = (*Client)(nil)

// New returns a client. It sends no request. The error names the wrong setting and does not
// contain its value.
func New(o Options) (*Client, error) {
	o.LoginEncoding = cmp.Or(o.LoginEncoding, "json")
	o.ListMethod = cmp.Or(o.ListMethod, http.MethodGet)
	if o.StatusMap == nil {
		o.StatusMap = defaultStatusMap
	}
	sender, err := clients.NewSender(payment.AMDigiPay, o.BaseURL, o.Transport, o.Now)
	switch {
	case err != nil:
		return nil, fmt.Errorf("amdigipay: AMDIGIPAY_BASE_URL %w", err)
	case o.Username == "":
		return nil, errors.New("amdigipay: AMDIGIPAY_USERNAME is missing")
	case o.Password.Empty():
		return nil, errors.New("amdigipay: AMDIGIPAY_PASSWORD is missing")
	case o.LoginEncoding != "json" && o.LoginEncoding != "form":
		return nil, errors.New("amdigipay: the login encoding is neither json nor form")
	case o.ListMethod != http.MethodGet && o.ListMethod != http.MethodPost:
		return nil, errors.New("amdigipay: the list method is neither GET nor POST")
	}
	sign, err := newSigner(o)
	if err != nil {
		return nil, fmt.Errorf("amdigipay: %w", err)
	}
	sender.Redact([]secret.Text{o.Password, o.SignatureKey}, o.Username)
	c := &Client{options: o, sender: sender, sign: sign}
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

// NewExternalID implements clients.Gateway. AM uses no such id.
func (c *Client) NewExternalID() string { return "" }

// createBody is the body of create-transaction, with its fields in the order of AM's sample.
// PaymentID hides that of the embedded order, so that it comes first.
type createBody struct {
	PaymentID int64  `json:"payment_id"`
	Username  string `json:"username"`
	Signature string `json:"signature"`
	*order.AMDigiPay
}

// Submit implements clients.Gateway: POST /payment/transaction. The code is http:200, with a
// receipt, for success, and error:true if AM rejects the order under HTTP 200.
func (c *Client) Submit(ctx context.Context, s clients.Submission) clients.Answer {
	ordered := s.Order.AMDigiPay
	body, err := clients.EncodeJSON(createBody{
		PaymentID: ordered.PaymentID, Username: c.options.Username, Signature: c.sign(ordered), AMDigiPay: ordered,
	})
	if err != nil {
		return c.sender.Unsent(opCreate, "the body cannot be encoded")
	}
	answer, content := c.call(ctx, opCreate, clients.Request{
		Method: http.MethodPost, Path: "/payment/transaction", Body: body, BeforeSend: s.BeforeSend,
		Redact: []string{ordered.CustomerName, ordered.CustomerNumber, ordered.CustomerEmail},
	})
	data := c.read(&answer, opCreate, content)
	if data == nil {
		return answer
	}
	row := c.row(data)
	switch {
	case row.Unreadable != "":
		c.sender.Unreadable(&answer, opCreate, "success, but "+row.Unreadable)
	case row.TransactionID != "" && row.TransactionID != ordered.TransactionID:
		c.sender.Unreadable(&answer, opCreate, "the answer is about another transaction")
	default:
		answer.Receipt = &row.Receipt
	}
	return answer
}

// ListQuery selects one page of list-transaction. A zero field is not sent, so that AM's
// default applies (10 rows, page 1, all statuses).
type ListQuery struct {
	StatusID int
	Limit    int
	Page     int // from 1
}

// Page is one page of list-transaction. The counts are AM's own, 0 if missing. Neither the
// counts nor the order of the rows (newest first, as far as known) can be relied on.
type Page struct {
	TotalFound, Limit, CurrentPage, TotalPage int
	// Rows has one entry for every row of the page, readable or not.
	Rows []Row
}

// Row is one transaction of a list. If it is Unreadable, only ID, Unquoted, TransactionID and
// Reference are set, as far as they can be read.
type Row struct {
	clients.Receipt

	ID         int64 // AM's numeric id, which grows; 0 if missing
	StatusID   int
	Unquoted   bool   // the transaction id was a JSON number: see clients.Identifier
	Unreadable string // which field is malformed; "" if the row can be read
}

// List reads one page of list-transaction. The page is valid only if the answer's code is
// http:200. The answer never has a receipt.
func (c *Client) List(ctx context.Context, q ListQuery) (Page, clients.Answer) {
	query := url.Values{}
	for name, value := range map[string]int{"status": q.StatusID, "limit": q.Limit, "current_page": q.Page} {
		if value != 0 {
			query.Set(name, strconv.Itoa(value))
		}
	}
	answer, content := c.call(ctx, opList, clients.Request{
		Method: c.options.ListMethod, Path: "/payment/list-transaction", Query: query, MaxAnswer: maxPage,
	})
	data := c.read(&answer, opList, content)
	if data == nil {
		return Page{}, answer
	}
	var rows []json.RawMessage
	if err := json.Unmarshal(data, &rows); err != nil {
		c.sender.Unreadable(&answer, opList, "data is not a list")
		return Page{}, answer
	}
	answer.Message = "" // "success" is not about one payment
	page := pagination(content)
	page.Rows = make([]Row, len(rows))
	for i, raw := range rows {
		row := c.row(raw)
		if row.TransactionID == "" && row.Unreadable == "" {
			row = unreadable(row, "transaction_id is missing")
		}
		page.Rows[i] = row
	}
	return page, answer
}

// Detail looks up one transaction by AM's own id: GET /payment/detail-transaction/{id}.
func (c *Client) Detail(ctx context.Context, reference string) clients.Answer {
	answer, content := c.call(ctx, opDetail, clients.Request{
		Method: http.MethodGet, Path: "/payment/detail-transaction/" + url.PathEscape(reference),
	})
	data := c.read(&answer, opDetail, content)
	if data == nil {
		return answer
	}
	row := c.row(data)
	switch {
	case row.Unreadable != "":
		c.sender.Unreadable(&answer, opDetail, "success, but "+row.Unreadable)
	case row.Reference != "" && row.Reference != reference:
		c.sender.Unreadable(&answer, opDetail, "the answer is about another transaction")
	default:
		answer.Receipt = &row.Receipt
	}
	return answer
}

// call sends one request with the access token.
func (c *Client) call(ctx context.Context, operation string, r clients.Request) (clients.Answer, []byte) {
	return c.session.Call(ctx, operation, func(token clients.Token) clients.Request {
		r.Header = http.Header{
			"Accept":        {"application/json"}, // without it Laravel may answer an error with HTML or a redirect
			"Authorization": {"Bearer " + token.Text.Reveal()},
			"Content-Type":  {"application/json"},
		}
		return r
	})
}
