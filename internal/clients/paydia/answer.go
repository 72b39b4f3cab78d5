package paydia

import (
	"encoding/json"
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

// meanings of latestTransactionStatus, less 07 (ASPI; gateways.md 2.7).
var meanings = map[string]payment.Status{
	"00": payment.Paid,         // success
	"01": payment.OnProcessing, // initiated
	"02": payment.OnProcessing, // paying
	"03": payment.OnProcessing, // pending
	"04": payment.Refunded,
	"05": payment.Cancelled,
	"06": payment.Failed,
}

// read finds the code of an answer and, when that is the success of the service,
// decodes the answer into v and reports true.
func (c *Client) read(a *clients.Answer, operation, service string, content []byte, v any) bool {
	if content == nil {
		return false
	}
	var head struct {
		ResponseCode clients.Scalar `json:"responseCode"`
	}
	readable := json.Unmarshal(content, &head) == nil
	code := string(head.ResponseCode)
	wellFormed := readable && len(code) == 7 && strings.Trim(code, "0123456789") == ""
	success := a.HTTPStatus/100 == 2
	switch {
	case !wellFormed && success:
		c.sender.NoVerdict(a, operation, "the answer has no responseCode")
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
// about. One that names none is taken for an answer to what was asked.
func other(echoed clients.Scalar, asked string) bool {
	return echoed != "" && string(echoed) != asked
}

// amount reads SNAP's money object. It never fails: a payment is no less paid
// when its amount is odd, and the odd amount is told as such.
type amount struct {
	rupiah   payment.Rupiah
	currency string
}

// UnmarshalJSON implements json.Unmarshaler.
func (m *amount) UnmarshalJSON(b []byte) error {
	var money struct {
		Value    clients.Scalar `json:"value"`
		Currency clients.Scalar `json:"currency"`
	}
	if json.Unmarshal(b, &money) != nil {
		m.rupiah = -1
		return nil
	}
	m.rupiah, m.currency = money.Value.Rupiah(), string(money.Currency)
	return nil
}
