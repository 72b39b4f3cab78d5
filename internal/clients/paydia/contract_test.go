package paydia_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"testing"
	"time"

	"terbayar/internal/clients"
	"terbayar/internal/clients/clientstest"
	"terbayar/internal/clients/paydia"
	"terbayar/internal/order"
	"terbayar/internal/payment"
	"terbayar/internal/secret"
)

const (
	clientSecret  = "hush-client-secret"
	customerToken = "hush-customer-token"
	clientID      = "4abbcb6ce30229994c76169006e0dc9c"
	merchantID    = "240327001000000"
	reference     = "b57d8895-790b-4da3-a9e7-0387176de9bf"
)

// key is the client's RSA key.
var key = func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
}()

// pkcs1 is the key as PKCS#1 PEM.
var pkcs1 = string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))

// settings returns valid options.
func settings(baseURL string) paydia.Options {
	return paydia.Options{
		BaseURL: baseURL + "/snap/v1.0", ClientID: clientID,
		ClientSecret: secret.NewText(clientSecret), PrivateKey: secret.NewText(pkcs1),
	}
}

var submission = clients.Submission{
	Order: &order.Order{Gateway: payment.Paydia, Paydia: &order.Paydia{
		PartnerReferenceNo: reference, MerchantID: merchantID,
		Amount: order.Amount{Value: "10000.00", Currency: "IDR"}, Title: "Payment",
	}},
	CustomerToken: secret.NewText(customerToken),
	ExternalID:    "202605200000000000000000000000000001",
}

// processed is the answer to auth-payment in Paydia's documentation, including the wrong sign of
// paidTime.
const processed = `{"responseCode":"2006300","responseMessage":"Request has been processed successfully",` +
	`"referenceNo":"c407177ce0842a3f","partnerReferenceNo":"` + reference + `",` +
	`"amount":{"value":"10000.00","currency":"IDR"},"paidTime":"2024-08-20T10:48:15-07:00"}`

var subject = clientstest.Subject{
	New: func(t testing.TB, s clientstest.Setup) clients.Gateway {
		o := settings(s.BaseURL)
		o.Timeout, o.Transport, o.Now = s.Timeout, s.Transport, s.Now
		c, err := paydia.New(o)
		if err != nil {
			t.Fatal(err)
		}
		return c
	},
	LoginPath: "/snap/v1.0/access-token/b2b",
	Login: func(token string, lifetime time.Duration) string {
		return fmt.Sprintf(`{"responseCode":"2007300","responseMessage":"Successful","accessToken":%q,"tokenType":"Bearer","expiresIn":"%d"}`,
			token, int(lifetime.Seconds()))
	},
	SubmitPath: "/snap/v1.0/auth/payment",
	Submission: submission,
	Accepted:   processed,
	Success:    "2006300",
	Secrets:    []string{clientSecret, customerToken, pkcs1[100:160]},
	Lookup: func(ctx context.Context, g clients.Gateway) clients.Answer {
		return g.(*paydia.Client).Query(ctx, paydia.Query{
			Key: submission.Order.Key(), MerchantID: merchantID,
			CustomerToken: submission.CustomerToken, ExternalID: "202605200000000000000000000000000002",
		})
	},
	LookupPath: "/snap/v1.0/auth/query",
	MaxAnswer:  1 << 20,
}

func TestContract(t *testing.T) { clientstest.Run(t, subject) }

func BenchmarkSubmit(b *testing.B) { clientstest.Benchmark(b, subject) }
