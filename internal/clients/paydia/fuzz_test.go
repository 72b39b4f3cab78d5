package paydia_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"terbayar/internal/clients/paydia"
	"terbayar/internal/payment"
	"terbayar/internal/retrypolicy"
)

// answers is a gateway that accepts every login and gives the same answer to all other requests.
type answers struct {
	status int
	body   string
}

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	status, body := a.status, a.body
	if strings.HasSuffix(r.URL.Path, "/b2b") {
		status, body = 200, `{"responseCode":"2007300","accessToken":"token-1","expiresIn":"900"}`
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
}

// FuzzAnswer: any answer of Paydia gives a consistent result. Only a success with the matching
// HTTP status has a receipt and is accepted, and no payment is both found and absent.
func FuzzAnswer(f *testing.F) {
	for _, body := range []string{
		processed, `{"responseCode":"2006400","originalPartnerReferenceNo":"` + reference + `","latestTransactionStatus":"00"}`,
		`{"responseCode":"2006400","latestTransactionStatus":"07"}`, `{"responseCode":"4046401"}`, `{"responseCode":5006301}`,
		`{"responseCode":"2006300","amount":{"value":10000.5,"currency":7},"paidTime":[]}`, `{"responseCode":2.0063e6,"amount":{"value":"10.000","currency":"idr"}}`, `{"responseCode":"20063"}`, "<html>", "", "null", "[]", "\xff",
	} {
		for _, status := range []int{200, 202, 404, 500} {
			f.Add(status, body)
		}
	}
	f.Fuzz(func(t *testing.T, status int, body string) {
		if status < 200 || status > 599 {
			return
		}
		o := settings("http://paydia.test")
		o.Transport = answers{status, body}
		c, err := paydia.New(o)
		if err != nil {
			t.Fatal(err)
		}
		answer := c.Submit(t.Context(), submission)
		action := retrypolicy.Builtin().Decide(payment.Paydia, answer.Code, answer.Message, 1, 0).Action
		if answer.Code == "" || answer.Absent || (action == retrypolicy.Accept) != (answer.Receipt != nil) || answer.Receipt != nil && status != 200 {
			t.Errorf("%d: code %q, %s, receipt %+v", status, answer.Code, action, answer.Receipt)
		}
		if answer.Receipt != nil && answer.Receipt.Amount.Unreadable() {
			t.Errorf("a receipt with an unreadable amount: %s", body)
		}
		answer = c.Query(t.Context(), paydia.Query{Key: submission.Order.Key(), MerchantID: merchantID, CustomerToken: submission.CustomerToken, ExternalID: "1"})
		if answer.Code == "" || answer.Receipt != nil && (answer.Absent || status != 200 || answer.Receipt.Status == "" || answer.Receipt.Amount.Unreadable()) {
			t.Errorf("query: %+v", answer)
		}
	})
}
