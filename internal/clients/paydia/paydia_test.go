package paydia_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"terbayar/internal/clients"
	"terbayar/internal/clients/clientstest"
	"terbayar/internal/clients/paydia"
	"terbayar/internal/order"
	"terbayar/internal/payment"
	"terbayar/internal/secret"
)

// at returns the time of the test clocks. In UTC it is the day before that in Jakarta.
func at() time.Time { return time.Date(2024, 8, 19, 20, 48, 9, 999_000_000, time.UTC) }

const loggedIn = `{"responseCode":"2007300","responseMessage":"Successful","accessToken":"test-token","tokenType":"Bearer","expiresIn":"900"}`

// serve starts a server that accepts every login and answers all other requests with the body.
func serve(t *testing.T, status int, body string) *clientstest.Server {
	t.Helper()
	return clientstest.Serve(t, func(r clientstest.Received) clientstest.Reply {
		if strings.HasSuffix(r.Path, "/access-token/b2b") {
			return clientstest.JSON(200, loggedIn)
		}
		return clientstest.JSON(status, body)
	})
}

// newClient returns a client with changed options.
func newClient(t *testing.T, baseURL string, change func(*paydia.Options)) *paydia.Client {
	t.Helper()
	o := settings(baseURL)
	o.Now = at
	if change != nil {
		change(&o)
	}
	c, err := paydia.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestSign computes the vectors of docs/gateways.md, section 4.
func TestSign(t *testing.T) {
	const seedToken = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJQYXlkaWEiLCJpYXQiOjE3MjQxMjI2NzgsImV4cCI6MTcyNDIwOTA3OCwiZGF0YSI6eyJlbnYiOiJwcm9kdWN0aW9uIn19.qejS3HEFtioUn0fZ5txN2Vr1o_fHF_GWYd1H5a3ePAk"
	for _, row := range []struct{ name, token, body, timestamp, want string }{
		{
			"P1", seedToken,
			`{"partnerReferenceNo":"b57d8895-790b-4da3-a9e7-0387176de9bf","merchantId":"240327001000000","amount":{"value":"10000.00","currency":"IDR"},"title":"Payment"}`,
			"2024-08-20T03:48:09+07:00", "8yG0z8OuxLNavcajr/we30Hs5zBiWuBp1KdTg73Qyfp9mcfCjtu/vFaTkgjj3GdJZC96ycfgg12q44eYEcqwRw==",
		},
		{
			"P3", "test-token", `{"title":"a/b & <c> é"}`,
			"2024-08-20T10:48:30+07:00", "N1Z8T/iAvtGAU5nY9XU4mTxwFQc6Fr7VrgDM1rcX1o5TbkOAsTcolQjtUWwSJHJqNrZCK3LARyskGZ8KmAft8w==",
		},
	} {
		got := paydia.Sign(secret.NewText("test-secret"), "POST", "/snap/v1.0/auth/payment", secret.NewText(row.token), []byte(row.body), row.timestamp)
		if got != row.want {
			t.Errorf("%s: %s, want %s", row.name, got, row.want)
		}
	}
}

func TestSubmitOnTheWire(t *testing.T) {
	server := serve(t, 200, processed)
	c := newClient(t, server.URL, nil)
	o := *submission.Order.Paydia
	o.Title = `a/b & <c> "é" 支払い`
	s := submission
	s.Order = &order.Order{Gateway: payment.Paydia, Paydia: &o}
	c.Submit(t.Context(), s)
	got := server.Received("/auth/payment")[0]

	// Paydia "Auth Payment", request sample: B3 of docs/gateways.md with another title.
	want := `{"partnerReferenceNo":"b57d8895-790b-4da3-a9e7-0387176de9bf","merchantId":"240327001000000",` +
		`"amount":{"value":"10000.00","currency":"IDR"},"title":"a/b & <c> \"é\" 支払い"}`
	if diff := cmp.Diff(want, got.Body); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
	for name, want := range map[string]string{
		"Content-Type":           "application/json",
		"Accept":                 "application/json",
		"Authorization":          "Bearer test-token",
		"Authorization-Customer": customerToken,
		"X-TIMESTAMP":            "2024-08-20T03:48:09+07:00",
		"X-PARTNER-ID":           clientID,
		"X-EXTERNAL-ID":          submission.ExternalID,
		"CHANNEL-ID":             "12345",
		"X-SIGNATURE": paydia.Sign(secret.NewText(clientSecret), "POST", "/snap/v1.0/auth/payment",
			secret.NewText("test-token"), []byte(got.Body), "2024-08-20T03:48:09+07:00"),
	} {
		if values := got.Header.Values(name); len(values) != 1 || values[0] != want {
			t.Errorf("%s: %q, want %q once", name, values, want)
		}
	}
}

func TestSettings(t *testing.T) {
	server := serve(t, 200, processed)
	c := newClient(t, server.URL, func(o *paydia.Options) {
		o.BaseURL = server.URL + "/proxy/snap/v1.0/"
		o.CustomerTokenPrefix, o.ChannelID = "Bearer ", "95221"
	})
	c.Submit(t.Context(), submission)
	received := server.Received("/proxy/snap/v1.0/auth/payment")
	if len(received) != 1 {
		t.Fatal("no request with the path of the base URL")
	}
	got := received[0]
	for name, want := range map[string]string{
		"Authorization-Customer": "Bearer " + customerToken,
		"CHANNEL-ID":             "95221",
		"X-SIGNATURE": paydia.Sign(secret.NewText(clientSecret), "POST", "/proxy/snap/v1.0/auth/payment",
			secret.NewText("test-token"), []byte(got.Body), "2024-08-20T03:48:09+07:00"),
	} {
		if got.Header.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, got.Header.Get(name), want)
		}
	}
}

func TestTokenRequest(t *testing.T) {
	pkcs8 := func(key any) string {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	for name, text := range map[string]string{"PKCS#1": pkcs1, "PKCS#8": pkcs8(key)} {
		server := serve(t, 200, processed)
		c := newClient(t, server.URL, func(o *paydia.Options) { o.PrivateKey = secret.NewText(text) })
		if err := c.Authenticate(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := server.Received("/snap/v1.0/access-token/b2b")[0]
		if want := `{"grantType":"client_credentials"}`; got.Body != want || got.Method != "POST" {
			t.Errorf("%s: %s %s, want a POST of %s", name, got.Method, got.Body, want)
		}
		if got.Header.Get("X-CLIENT-KEY") != clientID || got.Header.Get("X-TIMESTAMP") != "2024-08-20T03:48:09+07:00" {
			t.Errorf("%s: headers %v", name, got.Header)
		}
		signature, err := base64.StdEncoding.DecodeString(got.Header.Get("X-SIGNATURE"))
		if err != nil {
			t.Fatal(err)
		}
		hash := sha256.Sum256([]byte(clientID + "|2024-08-20T03:48:09+07:00"))
		if err := rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, hash[:], signature); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTokenAnswers(t *testing.T) {
	for _, row := range []struct {
		name, body string
		status     int
		code       string // in the error; "": no error
	}{
		{"SNAP's", loggedIn, 200, ""},
		{"expiresIn as a number", `{"responseCode":"2007300","accessToken":"t","expiresIn":900}`, 200, ""},
		{"no expiresIn", `{"responseCode":"2007300","accessToken":"t"}`, 200, ""},
		{"no responseCode", `{"accessToken":"t","expiresIn":900}`, 200, ""},
		{"no token", `{"responseCode":"2007300"}`, 200, "2007300"},
		{"another service's", `{"responseCode":"2006300","accessToken":"t"}`, 200, "body:unreadable"},
		{"an error with a token", `{"responseCode":"5007300","accessToken":"t"}`, 200, "http:200"},
		{"unauthorized", `{"responseCode":"4017300","responseMessage":"Unauthorized. Signature"}`, 401, "4017300"},
		{"a token under 401", loggedIn, 401, "http:401"},
	} {
		server := clientstest.Serve(t, func(clientstest.Received) clientstest.Reply { return clientstest.JSON(row.status, row.body) })
		err := newClient(t, server.URL, nil).Authenticate(t.Context())
		if (err == nil) != (row.code == "") || err != nil && !strings.Contains(err.Error(), ": "+row.code+": ") {
			t.Errorf("%s: error %v, want code %q", row.name, err, row.code)
		}
	}
}

// TestSubmitAnswers reads answers to auth-payment.
func TestSubmitAnswers(t *testing.T) {
	receipt := func(change func(*clients.Receipt)) *clients.Receipt {
		r := &clients.Receipt{
			TransactionID: reference, Reference: "c407177ce0842a3f", GatewayStatus: "2006300",
			Status: payment.Paid, Amount: clients.WholeNumber(10000), Currency: "IDR",
		}
		if change != nil {
			change(r)
		}
		return r
	}
	// with returns the documented answer with one text replaced.
	with := func(old, replacement string) string {
		if !strings.Contains(processed, old) {
			t.Fatalf("the documented answer has no %s", old)
		}
		return strings.Replace(processed, old, replacement, 1)
	}
	withCode := func(code string) string {
		return `{"responseCode":"` + code + `","responseMessage":"any message"}`
	}
	for _, row := range []struct {
		name, body string
		status     int
		code       string
		receipt    *clients.Receipt
	}{
		{"as documented", processed, 200, "2006300", receipt(nil)},
		{"malformed paidTime", with(`"2024-08-20T10:48:15-07:00"`, `{"x":[]}`), 200, "2006300", receipt(nil)},
		{"keys in another case", with(`partnerReferenceNo`, `partnerreferenceno`), 200, "2006300", receipt(nil)},
		{"responseCode as a number", with(`"2006300"`, `2006300`), 200, "2006300", receipt(nil)},
		{"no echo", with(`"`+reference+`"`, `null`), 200, "2006300", receipt(func(r *clients.Receipt) { r.TransactionID = "" })},
		{"responseCode with fraction .0", with(`"2006300"`, `2006300.0`), 200, "2006300", receipt(nil)},
		{"responseCode with an exponent", with(`"2006300"`, `2.0063e6`), 200, "2006300", receipt(nil)},
		{"value as a number", with(`"10000.00"`, `10000`), 200, "2006300", receipt(nil)},
		{"value with fraction .0", with(`"10000.00"`, `10000.0`), 200, "2006300", receipt(nil)},
		{"value without cents", with(`"10000.00"`, `"10000"`), 200, "2006300", receipt(nil)},
		{"value with an exponent", with(`"10000.00"`, `"1E+4"`), 200, "2006300", receipt(nil)},
		{"currency in small letters", with(`IDR`, `idr`), 200, "2006300", receipt(nil)},
		{"no value", with(`"10000.00"`, `null`), 200, "2006300", receipt(func(r *clients.Receipt) { r.Amount = clients.Number{} })},
		{"no currency", with(`"IDR"`, `null`), 200, "2006300", receipt(func(r *clients.Receipt) { r.Currency = "" })},
		{"reference as a number", with(`"c407177ce0842a3f"`, `407177`), 200, "2006300", receipt(func(r *clients.Receipt) { r.Reference = "407177" })},
		{"another amount", with(`10000.00`, `10000.01`), 200, "2006300", receipt(func(r *clients.Receipt) { r.Amount = clients.ParseNumber("10000.01") })},
		{"another currency", with(`IDR`, `USD`), 200, "2006300", receipt(func(r *clients.Receipt) { r.Currency = "USD" })},
		{
			"amount is null", with(`{"value":"10000.00","currency":"IDR"}`, `null`), 200, "2006300",
			receipt(func(r *clients.Receipt) { r.Amount, r.Currency = clients.Number{}, "" }),
		},

		{"another transaction", with(reference, "INV-2"), 200, "body:unreadable", nil},
		{"malformed partnerReferenceNo", with(`"`+reference+`"`, `true`), 200, "body:unreadable", nil},
		{"reference is no text", with(`"c407177ce0842a3f"`, `{}`), 200, "body:unreadable", nil},
		{"amount is no object", with(`{"value":"10000.00","currency":"IDR"}`, `"10000.00"`), 200, "body:unreadable", nil},
		{"amount is a number", with(`{"value":"10000.00","currency":"IDR"}`, `1000000`), 200, "body:unreadable", nil},
		{"amount is a list", with(`{"value":"10000.00","currency":"IDR"}`, `[]`), 200, "body:unreadable", nil},
		{"formatted value", with(`"10000.00"`, `"Rp 10.000"`), 200, "body:unreadable", nil},
		{"value with thousands separators", with(`"10000.00"`, `"10,000.00"`), 200, "body:unreadable", nil},
		{"value with a possible thousands separator", with(`"10000.00"`, `"10.000"`), 200, "body:unreadable", nil},
		{"value is an object", with(`"10000.00"`, `{}`), 200, "body:unreadable", nil},
		{"currency is a symbol", with(`IDR`, `Rp`), 200, "body:unreadable", nil},
		{"currency is a number", with(`"IDR"`, `360`), 200, "body:unreadable", nil},
		{"currency is false", with(`"IDR"`, `false`), 200, "body:unreadable", nil},
		{"success of another service", with(`2006300`, `2006400`), 200, "body:unreadable", nil},
		{"success under 500", processed, 500, "http:500", nil},
		{"success under 202", processed, 202, "http:202", nil},
		{"error under 200", withCode("5006301"), 200, "http:200", nil},
		{"another error than the HTTP status", withCode("4036314"), 500, "http:500", nil},
		{"six digits", withCode("200630"), 200, "body:unreadable", nil},
		{"six digits under 403", withCode("403631"), 403, "http:403", nil},
		{"no digits", withCode("2006x00"), 200, "body:unreadable", nil},
		{"no code under 400", `{"message":"x"}`, 400, "http:400", nil},
		{"in progress", withCode("2026300"), 202, "2026300", nil},
		{"another case of 200", withCode("2006399"), 200, "2006399", nil},
		{"of the general service", withCode("4010001"), 401, "4010001", nil},

		{"documented code 2", withCode("4006301"), 400, "4006301", nil},
		{"documented code 3", withCode("4006302"), 400, "4006302", nil},
		{"documented code 4", withCode("4016300"), 401, "4016300", nil},
		{"documented code 5", withCode("4016301"), 401, "4016301", nil},
		{"documented code 6", withCode("4036302"), 403, "4036302", nil},
		{"documented code 7", withCode("4036314"), 403, "4036314", nil},
		{"documented code 8", withCode("4046308"), 404, "4046308", nil},
		{"documented code 9", withCode("4096300"), 409, "4096300", nil},
		{"documented code 10", withCode("4096301"), 409, "4096301", nil},
		{"documented code 11", withCode("5006301"), 500, "5006301", nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := newClient(t, serve(t, row.status, row.body).URL, nil).Submit(t.Context(), submission)
			if a.Code != row.code || a.HTTPStatus != row.status || a.Absent {
				t.Errorf("code %s, HTTP %d, absent %t (%v); want %s", a.Code, a.HTTPStatus, a.Absent, a.Err, row.code)
			}
			if diff := cmp.Diff(row.receipt, a.Receipt, cmpopts.EquateComparable(clients.Number{})); diff != "" {
				t.Errorf("receipt (-want +got):\n%s", diff)
			}
		})
	}
}

func TestQueryAnswers(t *testing.T) {
	// found returns ASPI's sample, which spells the first key in its own way.
	found := func(status string) string {
		return `{"responseCode":"2006400","responseMessage":"Successful","originalpartnerReferenceNo":"` + reference + `",` +
			`"originalReferenceNo":"R-1","amount":{"value":"10000.00","currency":"IDR"},"paidTime":"never",` +
			`"latestTransactionStatus":"` + status + `","transactionStatusDesc":"x"}`
	}
	for _, row := range []struct {
		name, body string
		http       int
		code       string
		status     payment.Status // "": no receipt
		absent     bool
	}{
		{"success", found("00"), 200, "2006400", payment.Paid, false},
		{"initiated", found("01"), 200, "2006400", payment.OnProcessing, false},
		{"paying", found("02"), 200, "2006400", payment.OnProcessing, false},
		{"pending", found("03"), 200, "2006400", payment.OnProcessing, false},
		{"refunded", found("04"), 200, "2006400", payment.Refunded, false},
		{"cancelled", found("05"), 200, "2006400", payment.Cancelled, false},
		{"failed", found("06"), 200, "2006400", payment.Failed, false},
		{"not found", found("07"), 200, "2006400", "", true},
		{"not found by code", `{"responseCode":"4046401","responseMessage":"Transaction Not Found"}`, 404, "4046401", "", true},

		{"unknown status", found("08"), 200, "body:unreadable", "", false},
		{"the number 0 is not 00", strings.Replace(found("00"), `"00"`, `0`, 1), 200, "body:unreadable", "", false},
		{"the text 0 is not 00", found("0"), 200, "body:unreadable", "", false},
		{"the number 7 is not 07", strings.Replace(found("07"), `"07"`, `7`, 1), 200, "body:unreadable", "", false},
		{"the text 6 is not 06", found("6"), 200, "body:unreadable", "", false},
		{"status is false", strings.Replace(found("00"), `"00"`, `false`, 1), 200, "body:unreadable", "", false},
		{"paid, malformed amount", strings.Replace(found("00"), `10000.00`, `Rp 10.000`, 1), 200, "body:unreadable", "", false},
		{"failed, malformed amount", strings.Replace(found("06"), `10000.00`, `10,000.00`, 1), 200, "body:unreadable", "", false},
		{"not found, malformed amount", strings.Replace(found("07"), `10000.00`, `-`, 1), 200, "2006400", "", true},
		{"paid, malformed reference", strings.Replace(found("00"), `"R-1"`, `["R-1"]`, 1), 200, "body:unreadable", "", false},
		{"paid, malformed transaction id", strings.Replace(found("00"), `"`+reference+`"`, `{}`, 1), 200, "body:unreadable", "", false},
		{"not found, malformed transaction id", strings.Replace(found("07"), `"`+reference+`"`, `{}`, 1), 200, "body:unreadable", "", false},
		{"value as a number", strings.Replace(found("00"), `"10000.00"`, `1e4`, 1), 200, "2006400", payment.Paid, false},
		{"no status", found(""), 200, "body:unreadable", "", false},
		{"another transaction", strings.Replace(found("00"), reference, "INV-2", 1), 200, "body:unreadable", "", false},
		{"another transaction, not found", strings.Replace(found("07"), reference, "INV-2", 1), 200, "body:unreadable", "", false},
		{"not found under 200", `{"responseCode":"4046401"}`, 200, "http:200", "", false},
		{"not found of another service", `{"responseCode":"4046301"}`, 404, "4046301", "", false},
		{"404 of a proxy", `<html>`, 404, "http:404", "", false},
		{"paid under 500", found("00"), 500, "http:500", "", false},
		{"an auth-payment's success", processed, 200, "body:unreadable", "", false},
		{"invalid mandatory field", `{"responseCode":"4006402"}`, 400, "4006402", "", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := subject.Lookup(t.Context(), newClient(t, serve(t, row.http, row.body).URL, nil))
			if a.Code != row.code || a.Absent != row.absent {
				t.Errorf("code %s, absent %t (%v); want %s, %t", a.Code, a.Absent, a.Err, row.code, row.absent)
			}
			var want *clients.Receipt
			if row.status != "" {
				want = &clients.Receipt{
					TransactionID: reference, Reference: "R-1", GatewayStatus: a.Receipt.GatewayStatus,
					Status: row.status, Amount: clients.WholeNumber(10000), Currency: "IDR",
				}
				if !strings.Contains(row.body, `"latestTransactionStatus":"`+want.GatewayStatus+`"`) {
					t.Errorf("gateway status %q, want the latestTransactionStatus", want.GatewayStatus)
				}
			}
			if diff := cmp.Diff(want, a.Receipt, cmpopts.EquateComparable(clients.Number{})); diff != "" {
				t.Errorf("receipt (-want +got):\n%s", diff)
			}
		})
	}
}

func TestQueryOnTheWire(t *testing.T) {
	for _, row := range []struct {
		reference string
		sendEmpty bool
		want      string
	}{
		{"", false, `{"originalPartnerReferenceNo":"A&B","merchantId":"240327001000000"}`},
		{"", true, `{"originalPartnerReferenceNo":"A&B","originalReferenceNo":"","merchantId":"240327001000000"}`},
		{"R-1", false, `{"originalPartnerReferenceNo":"A&B","originalReferenceNo":"R-1","merchantId":"240327001000000"}`},
		{"R-1", true, `{"originalPartnerReferenceNo":"A&B","originalReferenceNo":"R-1","merchantId":"240327001000000"}`},
	} {
		server := serve(t, 200, "{}")
		c := newClient(t, server.URL, func(o *paydia.Options) { o.SendEmptyReference = row.sendEmpty })
		c.Query(t.Context(), paydia.Query{
			Key: payment.Key{Gateway: payment.Paydia, TransactionID: "A&B"}, Reference: row.reference,
			MerchantID: merchantID, CustomerToken: secret.NewText(customerToken), ExternalID: "2",
		})
		got := server.Received("/snap/v1.0/auth/query")[0]
		if got.Body != row.want || got.Method != "POST" {
			t.Errorf("%s %s, want a POST of %s", got.Method, got.Body, row.want)
		}
		signature := paydia.Sign(secret.NewText(clientSecret), "POST", "/snap/v1.0/auth/query",
			secret.NewText("test-token"), []byte(got.Body), got.Header.Get("X-TIMESTAMP"))
		if got.Header.Get("X-SIGNATURE") != signature || got.Header.Get("Authorization-Customer") != customerToken ||
			got.Header.Get("X-EXTERNAL-ID") != "2" {
			t.Errorf("headers %v, want those of an auth-payment", got.Header)
		}
	}
}

func TestNewExternalID(t *testing.T) {
	c := newClient(t, "http://gateway.example", nil)
	form := regexp.MustCompile(`^20240820[0-9]{28}$`) // the Jakarta date, which is not that of UTC
	var mu sync.Mutex
	seen := map[string]bool{}
	var making sync.WaitGroup
	for range 10 {
		making.Go(func() {
			for range 1000 {
				id := c.NewExternalID()
				mu.Lock()
				if !form.MatchString(id) || seen[id] {
					t.Errorf("external id %q, want it new and of the form %v", id, form)
				}
				seen[id] = true
				mu.Unlock()
			}
		})
	}
	making.Wait()
}

func TestWrongOptions(t *testing.T) {
	elliptical, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(elliptical)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, der []byte) secret.Text {
		return secret.NewText(string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
	}
	for _, row := range []struct {
		change func(*paydia.Options)
		want   string
	}{
		{func(o *paydia.Options) { o.BaseURL = "hush" }, "PAYDIA_BASE_URL is not"},
		{func(o *paydia.Options) { o.ClientID = "" }, "PAYDIA_CLIENT_ID is missing"},
		{func(o *paydia.Options) { o.ClientSecret = secret.Text{} }, "PAYDIA_CLIENT_SECRET is missing"},
		{func(o *paydia.Options) { o.PrivateKey = secret.Text{} }, "PAYDIA_PRIVATE_KEY is missing"},
		{func(o *paydia.Options) { o.PrivateKey = secret.NewText("hush") }, "PAYDIA_PRIVATE_KEY is not PEM"},
		{func(o *paydia.Options) { o.PrivateKey = encode("PRIVATE KEY", []byte("hush")) }, "PAYDIA_PRIVATE_KEY is neither"},
		{func(o *paydia.Options) { o.PrivateKey = encode("PRIVATE KEY", der) }, "PAYDIA_PRIVATE_KEY is not an RSA key"},
	} {
		o := settings("http://gateway.example")
		row.change(&o)
		_, err := paydia.New(o)
		if err == nil || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("error %v, want %q and no secret", err, row.want)
		}
	}
}
