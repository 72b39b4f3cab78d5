package amdigipay

import (
	"cmp"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json/v1" // behaves like encoding/json, in a third of the time

	"terbayar/internal/clients"
	"terbayar/internal/retrypolicy"
)

// envelope has the common fields of AM's answers. AM documents {"error":false,...} for
// success, and {"status":"error",...} for answers that are not HTTP 200. Integrators also
// get {"error":true,...} under HTTP 200.
type envelope struct {
	Error  clients.Flag    `json:"error"`
	Status clients.Scalar  `json:"status"` // list-transaction repeats its filter here
	Data   json.RawMessage `json:"data"`
}

// read returns the data of a successful answer. If there is none, it returns nil and sets the
// code of the answer. In an answer that is not 2xx the body does not change the code.
func (c *Client) read(a *clients.Answer, operation string, content []byte) json.RawMessage {
	if content == nil || a.HTTPStatus/100 != 2 {
		return nil
	}
	var e envelope
	err := json.Unmarshal(content, &e)
	switch {
	case len(content) == 0:
		c.sender.Unreadable(a, operation, "the answer is empty")
	case err != nil:
		c.sender.Inconclusive(a, operation, "the answer is not a JSON object")
	case e.Error == clients.True:
		c.sender.SetCode(a, operation, retrypolicy.CodeRefused, "")
	case e.Error != clients.False && (e.Error != clients.Unset || e.Status != "success"), e.Status == "error":
		c.sender.Inconclusive(a, operation, "the answer reports neither success nor error:true")
	case len(e.Data) == 0 || string(e.Data) == "null":
		c.sender.Unreadable(a, operation, "success without data")
	default:
		c.session.TokenAccepted(a.Token)
		return e.Data
	}
	return nil
}

// transaction is the data of create-transaction and detail-transaction, and a row of
// list-transaction (AM "Create Transaction", success response).
type transaction struct {
	ID               reference          `json:"id"`
	StatusID         clients.Number     `json:"status_id"`
	Status           clients.Text       `json:"status"`
	TransactionID    clients.Identifier `json:"transaction_id"`
	TransactionTotal clients.Number     `json:"transaction_total"`
	PaymentLinks     clients.Text       `json:"payment_links"`
	PaymentCode      clients.Text       `json:"payment_code"`
	QRCode           clients.Text       `json:"qr_code"`
}

// reference is AM's own id of a transaction: a number, read by its value. A text is accepted
// too, in case AM introduces such ids.
type reference struct {
	text       string // "" if missing
	id         int64  // 0 if it is no number, or too large
	unreadable bool
}

// UnmarshalJSON implements json.Unmarshaler. It never fails.
func (r *reference) UnmarshalJSON(b []byte) error {
	var (
		number clients.Number
		name   clients.Identifier
	)
	_, _ = number.UnmarshalJSON(b), name.UnmarshalJSON(b) // neither ever fails
	id, fits := number.Int()
	switch digits := number.Digits(); {
	case !number.Present():
		*r = reference{}
	case digits != "" && digits != "0":
		*r = reference{text: digits}
		if fits {
			r.id = id
		}
	case number.Unreadable() && strings.ContainsFunc(name.Text, unicode.IsLetter):
		*r = reference{text: name.Text}
	default: // 0, -6, 6.5, "6.000", {}
		*r = reference{unreadable: true}
	}
	return nil
}

// row reads one transaction. If a field that the worker relies on is malformed, the row has
// no other data than Unreadable and the identifiers.
func (c *Client) row(raw json.RawMessage) Row {
	var t transaction
	if err := json.Unmarshal(raw, &t); err != nil {
		return Row{Unreadable: "it is not an object"}
	}
	row := Row{
		ID: t.ID.id, Unquoted: t.TransactionID.Unquoted,
		Receipt: clients.Receipt{
			TransactionID: t.TransactionID.Text,
			Reference:     t.ID.text,
			GatewayStatus: cmp.Or(string(t.Status), t.StatusID.String()),
			Amount:        t.TransactionTotal,
			PaymentLinks:  string(t.PaymentLinks),
			PaymentCode:   string(t.PaymentCode),
			QRCode:        string(t.QRCode),
		},
	}
	statusID, ok := t.StatusID.Int()
	switch {
	case t.TransactionID.Unreadable:
		return unreadable(row, "transaction_id is malformed")
	case t.ID.unreadable:
		return unreadable(row, "id is malformed")
	case !t.StatusID.Present():
		return unreadable(row, "status_id is missing")
	case !ok:
		return unreadable(row, "status_id is malformed")
	case t.TransactionTotal.Unreadable():
		return unreadable(row, "transaction_total is malformed")
	}
	row.StatusID = int(statusID)
	row.Status = c.options.StatusMap.status(row.StatusID)
	return row
}

// unreadable returns the usable part of a row with a malformed field.
func unreadable(r Row, why string) Row {
	return Row{
		ID: r.ID, Unquoted: r.Unquoted, Unreadable: why,
		Receipt: clients.Receipt{TransactionID: r.TransactionID, Reference: r.Reference},
	}
}

// pagination reads the counts of a list. A count that is missing, negative or no whole number
// is 0.
func pagination(content []byte) Page {
	var list struct {
		Pagination struct {
			TotalFound  clients.Number `json:"total_found"`
			Limit       clients.Number `json:"limit"`
			CurrentPage clients.Number `json:"current_page"`
			TotalPage   clients.Number `json:"total_page"`
		} `json:"pagination"`
	}
	if err := json.Unmarshal(content, &list); err != nil {
		return Page{}
	}
	count := func(n clients.Number) int {
		i, ok := n.Int()
		if !ok || i < 0 {
			return 0
		}
		return int(i)
	}
	p := list.Pagination
	return Page{
		TotalFound:  count(p.TotalFound),
		Limit:       count(p.Limit),
		CurrentPage: count(p.CurrentPage),
		TotalPage:   count(p.TotalPage),
	}
}
