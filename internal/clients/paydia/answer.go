package paydia

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"terbayar/internal/clients"
	"terbayar/internal/payment"
	"terbayar/internal/retrypolicy"
)

// codeNotFound is a query's "transaction not found". statusNotFound says the
// same as a latestTransactionStatus.
const (
	codeNotFound   = "4046401"
	statusNotFound = "07"
)

// meanings of latestTransactionStatus, less 07 (ASPI; gateways.md 2.7). It is a
// code of two digits in quotes, and no number: a bare 0 is what many services
// write for "nothing", and must not pass for paid.
var meanings = map[string]payment.Status{
	"00": payment.Paid,         // success
	"01": payment.OnProcessing, // initiated
	"02": payment.OnProcessing, // paying
	"03": payment.OnProcessing, // pending
	"04": payment.Refunded,
	"05": payment.Cancelled,
	"06": payment.Failed,
}

// Meanings lists what the answer to a query can mean.
func Meanings() []payment.Status { return slices.Collect(maps.Values(meanings)) }

// read finds the code of an answer and, when that is the success of the service,
// decodes the answer into v and reports true.
func (c *Client) read(a *clients.Answer, operation, service string, content []byte, v any) bool {
	if content == nil {
		return false
	}
	var head struct {
		ResponseCode clients.Number `json:"responseCode"`
	}
	readable := json.Unmarshal(content, &head) == nil
	code := head.ResponseCode.Digits()
	wellFormed := readable && len(code) == 7
	success := a.HTTPStatus/100 == 2
	switch {
	case !wellFormed && success:
		c.sender.Inconclusive(a, operation, "the answer has no responseCode")
	case !wellFormed: // the HTTP status is all there is
	case retrypolicy.HTTPCode(a.HTTPStatus) != "http:"+code[:3]:
		c.sender.Conclude(a, operation, a.Code, "the responseCode is of another HTTP status")
	case success && code[3:5] != service:
		c.sender.Unreadable(a, operation, "the responseCode is of another service")
	default:
		c.sender.Conclude(a, operation, code, "")
	}
	if a.Code != "200"+service+"00" {
		return false
	}
	c.session.Worked(a.Token)
	if json.Unmarshal(content, v) != nil {
		c.sender.Unreadable(a, operation, "the answer cannot be read")
		return false
	}
	return true
}

// other reports whether an answer speaks of another payment than the one asked
// about, or does not say legibly of which. One that names none is taken for an
// answer to what was asked.
func other(echoed clients.Identifier, asked string) bool {
	return echoed.Unreadable || echoed.Text != "" && echoed.Text != asked
}

// illegible says what of an answer cannot be read; empty when all of it can.
func illegible(reference clients.Identifier, m money) string {
	switch {
	case reference.Unreadable:
		return "the reference number cannot be read"
	case m.unreadable:
		return "the amount cannot be read"
	default:
		return ""
	}
}

// money is SNAP's amount, {"value":"10000.00","currency":"IDR"}. What has another
// shape (a plain 1000000 may count sen) or other contents is unreadable.
type money struct {
	value      clients.Number
	currency   string // empty when not told
	unreadable bool
}

// UnmarshalJSON implements json.Unmarshaler. It never fails.
func (m *money) UnmarshalJSON(b []byte) error {
	var told struct {
		Value    clients.Number     `json:"value"`
		Currency clients.Identifier `json:"currency"`
	}
	shaped := json.Unmarshal(b, &told) == nil
	currency := strings.ToUpper(strings.TrimSpace(told.Currency.Text))
	known := currency == "" && !told.Currency.Unreadable || len(currency) == 3 && strings.Trim(currency, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
	*m = money{value: told.Value, currency: currency}
	if !shaped || !known || told.Value.Unreadable() {
		*m = money{unreadable: true}
	}
	return nil
}
