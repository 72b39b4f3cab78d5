package amdigipay_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"terbayar/internal/clients"
	"terbayar/internal/clients/amdigipay"
	"terbayar/internal/order"
	"terbayar/internal/payment"
	"terbayar/internal/retrypolicy"
	"terbayar/internal/secret"
)

// answers is a gateway that accepts every login and gives the same answer to all other requests.
type answers struct {
	status int
	body   string
}

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	status, body := a.status, a.body
	if strings.HasSuffix(r.URL.Path, "/login") {
		status, body = 200, loggedIn
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
}

// FuzzAnswer: any answer of AM gives a consistent result. Only a success has a receipt, and the
// policy accepts a payment only with a receipt.
func FuzzAnswer(f *testing.F) {
	for _, body := range []string{
		created, `{"error":true,"message":"no"}`, `{"status":"error","message":"x","data":null}`, `{"error":false,"data":null}`,
		`{"error":false,"data":[]}`, `{"error":"0","data":{"id":6.0,"status_id":"3e0","transaction_total":"Rp 13.000"}}`, `{"error":false,"data":{"id":"6","status_id":"3","transaction_total":13000.5}}`,
		`{"pagination":{"total_found":"x"},"error":false,"data":[{},{"id":1,"status_id":2,"transaction_id":"INV-1"}]}`, "<html>", "", "null", "\xff",
	} {
		for _, status := range []int{200, 202, 401, 500} {
			f.Add(status, body)
		}
	}
	f.Fuzz(func(t *testing.T, status int, body string) {
		if status < 200 || status > 599 {
			return
		}
		c, err := amdigipay.New(amdigipay.Options{
			BaseURL: "http://am.test/api", Username: "mitra-x", Password: secret.NewText("p"), Transport: answers{status, body},
		})
		if err != nil {
			t.Fatal(err)
		}
		answer := c.Submit(t.Context(), clients.Submission{Order: &order.Order{Gateway: payment.AMDigiPay, AMDigiPay: ordered}})
		action := retrypolicy.Builtin().Decide(payment.AMDigiPay, answer.Code, answer.Message, 1, 0).Action
		if answer.Code == "" || (action == retrypolicy.Accept) != (answer.Receipt != nil && status == 200) {
			t.Errorf("%d: code %q, %s, receipt %+v", status, answer.Code, action, answer.Receipt)
		}
		if answer.Receipt != nil && answer.Receipt.Amount.Unreadable() {
			t.Errorf("a receipt with an unreadable amount: %s", body)
		}
		page, answer := c.List(t.Context(), amdigipay.ListQuery{})
		if answer.Receipt != nil || answer.Absent || status/100 != 2 && page.Rows != nil {
			t.Errorf("list: %+v, %+v", page, answer)
		}
		for _, r := range page.Rows {
			if (r.Unreadable == "") != (r.Status != "") || r.Amount.Unreadable() || r.Unreadable == "" && r.TransactionID == "" {
				t.Errorf("row %+v", r)
			}
		}
		if answer = c.Detail(t.Context(), "6"); answer.Receipt != nil && (status/100 != 2 || answer.Receipt.Status == "") {
			t.Errorf("detail: %+v", answer)
		}
	})
}
