package amdigipay_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"terbayar/internal/clients"
	"terbayar/internal/clients/amdigipay"
	"terbayar/internal/clients/clientstest"
	"terbayar/internal/order"
	"terbayar/internal/secret"
)

const password = "hush-amdigipay-password"

var ordered = &order.AMDigiPay{
	PaymentID: 33, ExpiredDate: "2026-05-21 18:23:10", Nominal: 10000, AdminFee: 3000,
	TransactionID: "INV-1", TransactionTotal: 13000, TransactionName: "testing", TransactionDesc: "testing",
	CustomerNumber: "085925065195", CustomerName: "testing",
	ItemDetails: []order.Item{
		{ItemID: "testing", ItemPrice: 10000, ItemTotalPrice: 10000, ItemQuantity: 1, ItemName: "testing"},
		{ItemID: "fee", ItemPrice: 3000, ItemTotalPrice: 3000, ItemQuantity: 1, ItemName: "fee"},
	},
}

// ofBudi returns the same order with a customer's name and e-mail address.
func ofBudi() *order.AMDigiPay {
	o := *ordered
	o.CustomerName, o.CustomerEmail = "Budi Santoso", "budi.s@example.co.id"
	return &o
}

// created is the answer to create-transaction in AM's documentation, without the fields that are
// not read.
const created = `{"error":false,"message":"success","data":{"id":6,"payment_id":37,"payment_name":"GOPAY",` +
	`"status_id":2,"status":"On processing","transaction_id":"INV-1","transaction_total":"13000",` +
	`"payment_links":"https://app.midtrans.com/snap/v3/redirection/1","payment_code":null,"qr_code":null}}`

var subject = clientstest.Subject{
	New: func(t testing.TB, s clientstest.Setup) clients.Gateway {
		c, err := amdigipay.New(amdigipay.Options{
			BaseURL: s.BaseURL + "/api", Username: "mitra-x", Password: secret.NewText(password),
			SignatureScheme: amdigipay.SchemeHMAC, SignatureKey: secret.NewText("hush-signature-key"),
			SignatureFields: []string{"username", "transaction_id"},
			Timeout:         s.Timeout, Transport: s.Transport, Now: s.Now,
		})
		if err != nil {
			t.Fatal(err)
		}
		return c
	},
	LoginPath: "/api/login",
	Login: func(token string, lifetime time.Duration) string {
		return fmt.Sprintf(`{"error":false,"message":"Login success","data":{"access_token":%q,"token_type":"bearer","expires_in":%d}}`,
			token, int(lifetime.Seconds()))
	},
	SubmitPath: "/api/payment/transaction",
	Submission: clients.Submission{Order: &order.Order{Gateway: "amdigipay", AMDigiPay: ofBudi()}},
	Accepted:   created,
	Success:    "http:200",
	Secrets:    []string{password, "hush-signature-key", amdigipay.HMAC(secret.NewText("hush-signature-key"), "mitra-x", "INV-1")},
	Personal:   []string{"Budi Santoso", "Santoso", "085925065195", "budi.s@example.co.id"},
	Lookup: func(ctx context.Context, g clients.Gateway) clients.Answer {
		page, answer := g.(*amdigipay.Client).List(ctx, amdigipay.ListQuery{Limit: 10, Page: 1})
		if answer.Code != "http:200" && len(page.Rows) != 0 {
			panic("rows without success")
		}
		return answer
	},
	LookupPath: "/api/payment/list-transaction",
	MaxAnswer:  16 << 20,
}

func TestContract(t *testing.T) { clientstest.Run(t, subject) }

func BenchmarkSubmit(b *testing.B) { clientstest.Benchmark(b, subject) }
