package amdigipay

import (
	"encoding/json"
	"strconv"

	"terbayar/internal/clients"
	"terbayar/internal/retrypolicy"
)

// envelope is what surrounds every answer of AM's. Documented are
// {"error":false,...} for success and {"status":"error",...} for what is not
// HTTP 200; {"error":true,...} under HTTP 200 is what integrators meet.
type envelope struct {
	Error  clients.Scalar  `json:"error"`
	Status clients.Scalar  `json:"status"` // list-transaction echoes its filter here
	Data   json.RawMessage `json:"data"`
}

// read takes the data out of a successful answer. It returns nil where there is
// none, and the answer then says why. Under another status than 2xx nothing but
// the message counts.
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
		c.sender.NoVerdict(a, operation, "the answer is not a JSON object")
	case e.Error == "true":
		c.sender.Conclude(a, operation, retrypolicy.CodeRefused, "")
	case e.Error != "false" && (e.Error != "" || e.Status != "success"):
		c.sender.NoVerdict(a, operation, "the answer says neither success nor error:true")
	case len(e.Data) == 0 || string(e.Data) == "null":
		c.sender.Unreadable(a, operation, "success without data")
	default:
		c.session.Worked(a.Token)
		return e.Data
	}
	return nil
}

// transaction is the data of create and detail, and a row of list (AM "Create
// Transaction", success response).
type transaction struct {
	ID               clients.Scalar `json:"id"`
	StatusID         clients.Scalar `json:"status_id"`
	Status           clients.Scalar `json:"status"`
	TransactionID    clients.Scalar `json:"transaction_id"`
	TransactionTotal clients.Scalar `json:"transaction_total"`
	PaymentLinks     clients.Scalar `json:"payment_links"`
	PaymentCode      clients.Scalar `json:"payment_code"`
	QRCode           clients.Scalar `json:"qr_code"`
}

// row reads one transaction. Without a status_id it says nothing: ok is false.
func (c *Client) row(raw json.RawMessage) (row Row, ok bool) {
	var t transaction
	if err := json.Unmarshal(raw, &t); err != nil {
		return Row{}, false
	}
	statusID, err := strconv.Atoi(string(t.StatusID))
	if err != nil {
		return Row{}, false
	}
	id, err := strconv.ParseInt(string(t.ID), 10, 64)
	if err != nil {
		id = 0
	}
	word := string(t.Status)
	if word == "" {
		word = string(t.StatusID)
	}
	return Row{
		ID:       id,
		StatusID: statusID,
		Receipt: clients.Receipt{
			TransactionID: string(t.TransactionID),
			Reference:     string(t.ID),
			GatewayStatus: word,
			Status:        c.options.StatusMap.status(statusID),
			Amount:        t.TransactionTotal.Rupiah(),
			PaymentLinks:  string(t.PaymentLinks),
			PaymentCode:   string(t.PaymentCode),
			QRCode:        string(t.QRCode),
		},
	}, true
}

// pagination reads the counts of a list. What is missing or no number is 0.
func pagination(content []byte) Page {
	var list struct {
		Pagination struct {
			TotalFound  clients.Scalar `json:"total_found"`
			Limit       clients.Scalar `json:"limit"`
			CurrentPage clients.Scalar `json:"current_page"`
			TotalPage   clients.Scalar `json:"total_page"`
		} `json:"pagination"`
	}
	if err := json.Unmarshal(content, &list); err != nil {
		return Page{}
	}
	count := func(s clients.Scalar) int {
		n, err := strconv.Atoi(string(s))
		if err != nil {
			return 0
		}
		return n
	}
	p := list.Pagination
	return Page{
		TotalFound:  count(p.TotalFound),
		Limit:       count(p.Limit),
		CurrentPage: count(p.CurrentPage),
		TotalPage:   count(p.TotalPage),
	}
}
