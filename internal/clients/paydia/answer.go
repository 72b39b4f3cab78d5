package paydia

import (
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/v1" // behaves like encoding/json, in a third of the time

	"terbayar/internal/clients"
	"terbayar/internal/payment"
	"terbayar/internal/retrypolicy"
)

// A query answers with one of these if Paydia has no such payment: codeNotFound as the
// responseCode, or statusNotFound as the latestTransactionStatus.
const (
	codeNotFound   = "4046401"
	statusNotFound = "07"
)

// statuses maps latestTransactionStatus, except 07, to our statuses (ASPI; docs/gateways.md
// 2.7). It must be a string of two digits: many services write the number 0 for a missing
// value, which must not be taken for paid.
var statuses = map[string]payment.Status{
	"00": payment.Paid,         // success
	"01": payment.OnProcessing, // initiated
	"02": payment.OnProcessing, // paying
	"03": payment.OnProcessing, // pending
	"04": payment.Refunded,
	"05": payment.Cancelled,
	"06": payment.Failed,
}

// ReportedStatuses returns the statuses that an answer to a query can have.
func ReportedStatuses() []payment.Status { return slices.Collect(maps.Values(statuses)) }

// read sets the code of an answer. If the code is the success of the service, it decodes the
// answer into v and returns true.
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
	case !wellFormed: // keep the code of the HTTP status
	case retrypolicy.HTTPCode(a.HTTPStatus) != "http:"+code[:3]:
		c.sender.SetCode(a, operation, a.Code, "the responseCode does not match the HTTP status")
	case success && code[3:5] != service:
		c.sender.Unreadable(a, operation, "the responseCode is of another service")
	default:
		c.sender.SetCode(a, operation, code, "")
	}
	if a.Code != "200"+service+"00" {
		return false
	}
	c.session.TokenAccepted(a.Token)
	if json.Unmarshal(content, v) != nil {
		c.sender.Unreadable(a, operation, "malformed answer")
		return false
	}
	return true
}

// isOther reports whether an answer is about another payment than the wanted one, or its
// reference is malformed. An answer without a reference is about the wanted payment.
func isOther(echoed clients.Identifier, wanted string) bool {
	return echoed.Unreadable || echoed.Text != "" && echoed.Text != wanted
}

// malformed returns which field of an answer is malformed; "" if none is.
func malformed(reference clients.Identifier, m money) string {
	switch {
	case reference.Unreadable:
		return "the reference number is malformed"
	case m.unreadable:
		return "the amount is malformed"
	default:
		return ""
	}
}

// money is SNAP's amount, {"value":"10000.00","currency":"IDR"}. Any other form is unreadable:
// a plain 1000000, for example, may be in sen, a hundredth of a rupiah.
type money struct {
	value      clients.Number
	currency   string // "" if missing
	unreadable bool
}

// UnmarshalJSON implements json.Unmarshaler. It never fails.
func (m *money) UnmarshalJSON(b []byte) error {
	var fields struct {
		Value    clients.Number     `json:"value"`
		Currency clients.Identifier `json:"currency"`
	}
	isObject := json.Unmarshal(b, &fields) == nil
	currency := strings.ToUpper(strings.TrimSpace(fields.Currency.Text))
	known := currency == "" && !fields.Currency.Unreadable || len(currency) == 3 && strings.Trim(currency, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
	*m = money{value: fields.Value, currency: currency}
	if !isObject || !known || fields.Value.Unreadable() {
		*m = money{unreadable: true}
	}
	return nil
}
