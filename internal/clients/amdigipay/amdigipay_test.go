package amdigipay_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"terbayar/internal/clients"
	"terbayar/internal/clients/amdigipay"
	"terbayar/internal/clients/clientstest"
	"terbayar/internal/order"
	"terbayar/internal/payment"
	"terbayar/internal/secret"
)

// loggedIn is the answer to a login.
const loggedIn = `{"error":false,"data":{"access_token":"token-1","expires_in":3600}}`

// serve starts a server that accepts every login and answers all other requests with the body.
func serve(t *testing.T, status int, body string) *clientstest.Server {
	t.Helper()
	return clientstest.Serve(t, func(r clientstest.Received) clientstest.Reply {
		if strings.HasSuffix(r.Path, "/login") {
			return clientstest.JSON(200, loggedIn)
		}
		return clientstest.JSON(status, body)
	})
}

// newClient returns a client with changed options.
func newClient(t *testing.T, baseURL string, change func(*amdigipay.Options)) *amdigipay.Client {
	t.Helper()
	o := amdigipay.Options{BaseURL: baseURL + "/api", Username: "mitra-x", Password: secret.NewText(password)}
	if change != nil {
		change(&o)
	}
	c, err := amdigipay.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSubmitOnTheWire(t *testing.T) {
	server := serve(t, 200, created)
	titled := *ordered
	titled.TransactionName = `a/b & <c> "é" 支払い`
	c := newClient(t, server.URL, nil)
	c.Submit(t.Context(), clients.Submission{Order: &order.Order{Gateway: payment.AMDigiPay, AMDigiPay: &titled}})
	got := server.Received("/payment/transaction")[0]
	// AM "Create Transaction", example request: the same fields in the same order.
	want := `{"payment_id":33,"username":"mitra-x","signature":"` + amdigipay.SHA256("mitra-x", "INV-1") + `",` +
		`"expired_date":"2026-05-21 18:23:10","nominal":10000,"admin_fee":3000,"transaction_id":"INV-1",` +
		`"transaction_total":13000,"transaction_name":"a/b & <c> \"é\" 支払い","transaction_desc":"testing",` +
		`"customer_number":"085925065195","customer_name":"testing","item_details":[` +
		`{"item_id":"testing","item_price":10000,"item_total_price":10000,"item_quantity":1,"item_name":"testing"},` +
		`{"item_id":"fee","item_price":3000,"item_total_price":3000,"item_quantity":1,"item_name":"fee"}]}`
	if diff := cmp.Diff(want, got.Body); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Accept": "application/json", "Authorization": "Bearer token-1",
	} {
		if got := got.Header.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q, want %q once", name, got, want)
		}
	}
}

// TestSubmitAnswers reads answers to create-transaction.
func TestSubmitAnswers(t *testing.T) {
	receipt := func(change func(*clients.Receipt)) *clients.Receipt {
		r := &clients.Receipt{
			TransactionID: "INV-1", Reference: "6", GatewayStatus: "On processing", Status: payment.OnProcessing,
			Amount: clients.WholeNumber(13000), PaymentLinks: "https://app.midtrans.com/snap/v3/redirection/1",
		}
		if change != nil {
			change(r)
		}
		return r
	}
	// with returns the documented answer with one text replaced.
	with := func(old, replacement string) string {
		if !strings.Contains(created, old) {
			t.Fatalf("the documented answer has no %s", old)
		}
		return strings.Replace(created, old, replacement, 1)
	}
	for _, row := range []struct {
		name, body string
		status     int
		code       string
		receipt    *clients.Receipt
	}{
		{"as documented", created, 200, "http:200", receipt(nil)},
		{"another 2xx", created, 201, "http:201", receipt(nil)},
		{"status:success", with(`"error":false`, `"status":"success"`), 200, "http:200", receipt(nil)},
		{"error as text", with(`false`, `"false"`), 200, "http:200", receipt(nil)},
		{"error as a number", with(`false`, `0`), 200, "http:200", receipt(nil)},
		{"error as a quoted number", with(`false`, `"0"`), 200, "http:200", receipt(nil)},
		{"amount as a number", with(`"13000"`, `13000`), 200, "http:200", receipt(nil)},
		{"amount with fraction .0", with(`"13000"`, `13000.0`), 200, "http:200", receipt(nil)},
		{"amount with fraction .00", with(`"13000"`, `"13000.00"`), 200, "http:200", receipt(nil)},
		{"amount with an exponent", with(`"13000"`, `1.3e4`), 200, "http:200", receipt(nil)},
		{"amount with an exponent, quoted", with(`"13000"`, `"1.3E+4"`), 200, "http:200", receipt(nil)},
		{"id as text", with(`"id":6,`, `"id":"6",`), 200, "http:200", receipt(nil)},
		{"id with fraction .0", with(`"id":6,`, `"id":6.0,`), 200, "http:200", receipt(nil)},
		{"id with an exponent", with(`"id":6,`, `"id":1.0e3,`), 200, "http:200", receipt(func(r *clients.Receipt) { r.Reference = "1000" })},
		{
			"a long id", with(`"id":6,`, `"id":98765432109876543210,`), 200, "http:200",
			receipt(func(r *clients.Receipt) { r.Reference = "98765432109876543210" }),
		},
		{"an id of letters", with(`"id":6,`, `"id":"AM-6",`), 200, "http:200", receipt(func(r *clients.Receipt) { r.Reference = "AM-6" })},
		{"no id", with(`"id":6,`, ``), 200, "http:200", receipt(func(r *clients.Receipt) { r.Reference = "" })},
		{"status_id as text", with(`"status_id":2`, `"status_id":"2"`), 200, "http:200", receipt(nil)},
		{"status_id with fraction .0", with(`"status_id":2`, `"status_id":2.0`), 200, "http:200", receipt(nil)},
		{"status_id with fraction .0, quoted", with(`"status_id":2`, `"status_id":"2.0"`), 200, "http:200", receipt(nil)},
		{
			"paid at once", with(`"status_id":2,"status":"On processing"`, `"status_id":3,"status":"Terbayar"`), 200, "http:200",
			receipt(func(r *clients.Receipt) { r.Status, r.GatewayStatus = payment.Paid, "Terbayar" }),
		},
		{"unknown status_id", with(`"status_id":2`, `"status_id":99`), 200, "http:200", receipt(nil)},
		{
			"no status word", with(`"status":"On processing"`, `"status":null`), 200, "http:200",
			receipt(func(r *clients.Receipt) { r.GatewayStatus = "2" }),
		},
		{
			"status word is no text", with(`"status":"On processing"`, `"status":{"x":1}`), 200, "http:200",
			receipt(func(r *clients.Receipt) { r.GatewayStatus = "2" }),
		},
		{"another amount", with(`"13000"`, `"13060"`), 200, "http:200", receipt(func(r *clients.Receipt) { r.Amount = clients.WholeNumber(13060) })},
		{"amount with sen", with(`"13000"`, `"13000.50"`), 200, "http:200", receipt(func(r *clients.Receipt) { r.Amount = clients.ParseNumber("13000.5") })},
		{"amount 0", with(`"13000"`, `0`), 200, "http:200", receipt(func(r *clients.Receipt) { r.Amount = clients.WholeNumber(0) })},
		{"no amount", with(`"13000"`, `null`), 200, "http:200", receipt(func(r *clients.Receipt) { r.Amount = clients.Number{} })},
		{"no echo", with(`"INV-1"`, `null`), 200, "http:200", receipt(func(r *clients.Receipt) { r.TransactionID = "" })},
		{
			"payment codes", with(`"payment_code":null,"qr_code":null`, `"payment_code":8808,"qr_code":"000201"`), 200, "http:200",
			receipt(func(r *clients.Receipt) { r.PaymentCode, r.QRCode = "8808", "000201" }),
		},
		{"missing payment codes, in PHP", with(`"payment_code":null,"qr_code":null`, `"payment_code":false,"qr_code":[]`), 200, "http:200", receipt(nil)},

		{"another transaction", with(`"INV-1"`, `"INV-2"`), 200, "body:unreadable", nil},
		{"no status_id", with(`"status_id":2,`, ``), 200, "body:unreadable", nil},
		{"data is null", `{"error":false,"message":"success","data":null}`, 200, "body:unreadable", nil},
		{"data is a list", `{"error":false,"message":"success","data":[]}`, 200, "body:unreadable", nil},
		{"data is a list of one", with(`"data":{`, `"data":[{`)[:len(created)] + `]}`, 200, "body:unreadable", nil},
		{"formatted amount", with(`"13000"`, `"Rp 13.000"`), 200, "body:unreadable", nil},
		{"amount with thousands separators", with(`"13000"`, `"13,000.00"`), 200, "body:unreadable", nil},
		{"amount with a possible thousands separator", with(`"13000"`, `"13.000"`), 200, "body:unreadable", nil},
		{"amount is no number", with(`"13000"`, `true`), 200, "body:unreadable", nil},
		{"amount is an object", with(`"13000"`, `{"value":13000}`), 200, "body:unreadable", nil},
		{"id is no id", with(`"id":6,`, `"id":{},`), 200, "body:unreadable", nil},
		{"id with a fraction", with(`"id":6,`, `"id":6.5,`), 200, "body:unreadable", nil},
		{"id 0", with(`"id":6,`, `"id":0,`), 200, "body:unreadable", nil},
		{"id with a possible thousands separator", with(`"id":6,`, `"id":"6.000",`), 200, "body:unreadable", nil},
		{"status_id with a fraction", with(`"status_id":2`, `"status_id":2.5`), 200, "body:unreadable", nil},
		{"status_id is a word", with(`"status_id":2`, `"status_id":"Terbayar"`), 200, "body:unreadable", nil},
		{"status_id is true", with(`"status_id":2`, `"status_id":true`), 200, "body:unreadable", nil},
		{"transaction_id is no text", with(`"INV-1"`, `{"id":"INV-1"}`), 200, "body:unreadable", nil},
		{"transaction_id with an exponent", with(`"INV-1"`, `1e3`), 200, "body:unreadable", nil},
		{"error is missing", with(`"error":false,`, ``), 200, "body:unreadable", nil},
		{"error is another number", with(`false`, `2`), 200, "body:unreadable", nil},
		{"error is a word", with(`false`, `"none"`), 200, "body:unreadable", nil},
		{"error is a list", with(`false`, `[]`), 200, "body:unreadable", nil},
		{"error:false with status:error", with(`"error":false`, `"error":false,"status":"error"`), 200, "body:unreadable", nil},
		{"refused", `{"error":true,"message":"nominal minimal 10000"}`, 200, "error:true", nil},
		{"refused with data", with(`false`, `true`), 200, "error:true", nil},
		{"refused, as text", with(`false`, `"true"`), 200, "error:true", nil},
		{"refused, as a number", with(`false`, `1`), 200, "error:true", nil},
		{"refused, as a quoted number", with(`false`, `"1"`), 200, "error:true", nil},
		{"error envelope under 200", `{"status":"error","message":"Internal server error","data":null}`, 200, "body:unreadable", nil},
		{"unauthorized", `{"status":"error","message":"Invalid username or password","data":null}`, 401, "http:401", nil},
		{"Laravel's unauthorized", `{"message":"Unauthenticated."}`, 401, "http:401", nil},
		{"server error", `{"status":"error","message":"Internal server error","data":null}`, 500, "http:500", nil},
		{"error:true under 422", `{"error":true,"message":"x"}`, 422, "http:422", nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := newClient(t, serve(t, row.status, row.body).URL, nil).Submit(t.Context(), subject.Submission)
			if a.Code != row.code || a.HTTPStatus != row.status {
				t.Errorf("code %s, HTTP %d (%v); want %s", a.Code, a.HTTPStatus, a.Err, row.code)
			}
			if diff := cmp.Diff(row.receipt, a.Receipt, cmpopts.EquateComparable(clients.Number{})); diff != "" {
				t.Errorf("receipt (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLogin(t *testing.T) {
	for _, row := range []struct {
		name, encoding, body, sent string
	}{
		{"data", "", loggedIn, `{"password":"` + password + `","username":"mitra-x"}`},
		{
			"data under status:success", "json", `{"status":"success","data":{"access_token":"token-1","expires_in":"3600"}}`,
			`{"password":"` + password + `","username":"mitra-x"}`,
		},
		{"flat", "form", `{"access_token":"token-1","token_type":"bearer","expires_in":3600}`, "password=" + password + "&username=mitra-x"},
		{"flat under status:success", "form", `{"status":"success","access_token":"token-1"}`, "password=" + password + "&username=mitra-x"},
	} {
		t.Run(row.name, func(t *testing.T) {
			server := clientstest.Serve(t, func(clientstest.Received) clientstest.Reply { return clientstest.JSON(200, row.body) })
			c := newClient(t, server.URL, func(o *amdigipay.Options) { o.LoginEncoding = row.encoding })
			if err := c.Authenticate(t.Context()); err != nil {
				t.Fatal(err)
			}
			c.Detail(t.Context(), "6")
			if got := server.Received("/login")[0]; got.Body != row.sent || got.Method != http.MethodPost {
				t.Errorf("%s %s, want a POST of %s", got.Method, got.Body, row.sent)
			}
			if got := server.Received("/6")[0].Header.Get("Authorization"); got != "Bearer token-1" {
				t.Errorf("Authorization %q, want the token of the login", got)
			}
		})
	}
}

func TestList(t *testing.T) {
	const body = `{"pagination":{"total_found":"4.0","limit":1e1,"current_page":1,"total_page":1.0},"status":3,"error":false,"message":"success","data":[` +
		`{"id":6,"status_id":2,"status":"On processing","transaction_id":"0030c97b","transaction_total":"13000","payment_links":"https://x"},` +
		`{"id":"5","status_id":"3","status":"Terbayar","transaction_id":"EV-INV-1-3096","transaction_total":100805,"qr_code":"000201"},` +
		`{"id":4.0,"status_id":14.0,"transaction_id":7,"transaction_total":1e4},` +
		`{"id":3,"status_id":3,"transaction_id":"INV-3","transaction_total":"Rp 13.000","qr_code":"000201"},` +
		`{"id":2,"status_id":[],"transaction_id":"INV-2"},` +
		`{"id":{},"status_id":3,"transaction_id":"INV-1"},` +
		`{"id":1,"status_id":3,"transaction_id":1e3},` +
		`{"id":1,"status_id":3},` +
		`null,` +
		`"no row at all"]}`
	unreadable := func(id int64, transactionID, reference, why string) amdigipay.Row {
		return amdigipay.Row{ID: id, Receipt: clients.Receipt{TransactionID: transactionID, Reference: reference}, Unreadable: why}
	}
	want := amdigipay.Page{TotalFound: 4, Limit: 10, CurrentPage: 1, TotalPage: 1, Rows: []amdigipay.Row{
		{ID: 6, StatusID: 2, Receipt: clients.Receipt{
			TransactionID: "0030c97b", Reference: "6", GatewayStatus: "On processing", Status: payment.OnProcessing,
			Amount: clients.WholeNumber(13000), PaymentLinks: "https://x",
		}},
		{ID: 5, StatusID: 3, Receipt: clients.Receipt{
			TransactionID: "EV-INV-1-3096", Reference: "5", GatewayStatus: "Terbayar", Status: payment.Paid,
			Amount: clients.WholeNumber(100805), QRCode: "000201",
		}},
		{ID: 4, StatusID: 14, Unquoted: true, Receipt: clients.Receipt{
			TransactionID: "7", Reference: "4", GatewayStatus: "14", Status: payment.Failed, Amount: clients.WholeNumber(10000),
		}},
		unreadable(3, "INV-3", "3", "transaction_total is malformed"),
		unreadable(2, "INV-2", "2", "status_id is malformed"),
		unreadable(0, "INV-1", "", "id is malformed"),
		unreadable(1, "", "1", "transaction_id is malformed"),
		unreadable(1, "", "1", "transaction_id is missing"),
		unreadable(0, "", "", "status_id is missing"),
		unreadable(0, "", "", "it is not an object"),
	}}
	server := serve(t, 200, body)
	for _, row := range []struct {
		method string
		query  amdigipay.ListQuery
		sent   string
	}{
		{"", amdigipay.ListQuery{StatusID: 3, Limit: 100, Page: 2}, "current_page=2&limit=100&status=3"},
		{"POST", amdigipay.ListQuery{Limit: 1}, "limit=1"},
		{"GET", amdigipay.ListQuery{}, ""},
	} {
		var seen *url.URL
		var method string
		wrapped := clients.NewTransport()
		c := newClient(t, server.URL, func(o *amdigipay.Options) {
			o.ListMethod = row.method
			o.Transport = observer(func(r *http.Request) (*http.Response, error) {
				seen, method = r.URL, r.Method
				return wrapped.RoundTrip(r)
			})
		})
		page, a := c.List(t.Context(), row.query)
		if a.Code != "http:200" || a.Receipt != nil {
			t.Fatalf("answer %+v, want http:200 without a receipt", a)
		}
		if diff := cmp.Diff(want, page, cmpopts.EquateComparable(clients.Number{})); diff != "" {
			t.Errorf("page (-want +got):\n%s", diff)
		}
		if seen.RawQuery != row.sent || seen.Path != "/api/payment/list-transaction" {
			t.Errorf("asked %s, want the query %s", seen, row.sent)
		}
		if row.method != "" && method != row.method {
			t.Errorf("method %s, want %s", method, row.method)
		}
	}
}

// observer is a function as a transport.
type observer func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f observer) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestMalformedList(t *testing.T) {
	for _, row := range []struct{ body, code string }{
		{`{"error":false,"data":{}}`, "body:unreadable"},
		{`{"error":false,"data":{"id":6,"status_id":2,"transaction_id":"INV-1"}}`, "body:unreadable"}, // a single transaction is not a list
		{`{"error":false,"data":{"0":{"id":6,"status_id":2,"transaction_id":"INV-1"}}}`, "body:unreadable"},
		{`{"error":false,"data":null}`, "body:unreadable"},
		{`{"error":false}`, "body:unreadable"},
		{`{"error":true,"message":"x","data":[]}`, "error:true"},
	} {
		page, a := newClient(t, serve(t, 200, row.body).URL, nil).List(t.Context(), amdigipay.ListQuery{})
		if a.Code != row.code || page.Rows != nil {
			t.Errorf("%s: code %s with rows %v, want %s and none", row.body, a.Code, page.Rows, row.code)
		}
	}
	for _, row := range []struct {
		total string
		want  int
	}{
		{`null`, 0}, {`"x"`, 0}, {`-3`, 0}, {`2.5`, 0}, {`[]`, 0}, {`true`, 0}, {`1e400`, 0}, {`"1,000"`, 0}, {`1e3`, 1000}, {`"1000.0"`, 1000},
	} {
		body := `{"pagination":{"total_found":` + row.total + `,"total_page":` + row.total + `},"error":false,"data":[]}`
		page, a := newClient(t, serve(t, 200, body).URL, nil).List(t.Context(), amdigipay.ListQuery{})
		if a.Code != "http:200" || page.TotalFound != row.want || page.TotalPage != row.want {
			t.Errorf("total_found %s: code %s, page %+v, want %d", row.total, a.Code, page, row.want)
		}
	}
	page, a := newClient(t, serve(t, 200, `{"error":false,"data":[]}`).URL, nil).List(t.Context(), amdigipay.ListQuery{})
	if a.Code != "http:200" || len(page.Rows) != 0 || page.TotalPage != 0 {
		t.Errorf("an empty list without counts: code %s, page %+v", a.Code, page)
	}
}

func TestDetail(t *testing.T) {
	for _, row := range []struct{ reference, path, code string }{
		{"6", "/api/payment/detail-transaction/6", "http:200"},
		{"7", "/api/payment/detail-transaction/7", "body:unreadable"}, // the answer is about 6
		{"6/../7?x", "/api/payment/detail-transaction/6/../7?x", "body:unreadable"},
	} {
		server := serve(t, 200, created)
		a := newClient(t, server.URL, nil).Detail(t.Context(), row.reference)
		if a.Code != row.code || (a.Receipt != nil) != (row.code == "http:200") {
			t.Errorf("%s: code %s (%v), receipt %v; want %s", row.reference, a.Code, a.Err, a.Receipt, row.code)
		}
		if got := server.Received(row.path); len(got) != 1 || got[0].Method != http.MethodGet {
			t.Errorf("%s: received %v, want one GET of %s", row.reference, got, row.path)
		}
	}
}

func TestSignatures(t *testing.T) {
	// The vectors of docs/gateways.md 1.5.
	for _, row := range []struct{ username, id, want string }{
		{"2LOMCMIUV6", "0030c97b-5ccc-4482-b4af-9ffdb4a039b1", "23f7cef3b8ed22222125d88b53d3db650aa60f4aae7ccb9f6dfc9695ae640b35"},
		{"mitra-x", "TXN-1", "b1e0b2455f0732bd7061402d400a022eafac78c7cda4e013183edeb2d1992a35"},
	} {
		if got := amdigipay.SHA256(row.username, row.id); got != row.want {
			t.Errorf("SHA256(%q, %q) = %s, want %s", row.username, row.id, got, row.want)
		}
	}
	// RFC 4231, test case 2.
	if got, want := amdigipay.HMAC(secret.NewText("Jefe"), "what do ya ", "want for nothing?"),
		"5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"; got != want {
		t.Errorf("HMAC = %s, want %s", got, want)
	}
}

// TestSignedFields signs every field that can be signed.
func TestSignedFields(t *testing.T) {
	o := *ordered
	o.CustomerEmail = "a@example.com"
	server := serve(t, 200, created)
	key := secret.NewText("hush-key")
	c := newClient(t, server.URL, func(options *amdigipay.Options) {
		options.SignatureScheme, options.SignatureKey = amdigipay.SchemeHMAC, key
		options.SignatureFields = []string{
			"customer_email", "username", "payment_id", "expired_date", "nominal", "admin_fee", "transaction_id",
			"transaction_total", "transaction_name", "transaction_desc", "customer_number", "customer_name",
		}
	})
	c.Submit(t.Context(), clients.Submission{Order: &order.Order{Gateway: payment.AMDigiPay, AMDigiPay: &o}})
	var sent struct{ Signature string }
	if err := json.Unmarshal([]byte(server.Received("/payment/transaction")[0].Body), &sent); err != nil {
		t.Fatal(err)
	}
	want := amdigipay.HMAC(key, "a@example.commitra-x332026-05-21 18:23:10100003000INV-113000testingtesting085925065195testing")
	if sent.Signature != want {
		t.Errorf("signature %s, want %s", sent.Signature, want)
	}
}

func TestWrongOptions(t *testing.T) {
	for _, row := range []struct {
		change func(*amdigipay.Options)
		want   string
	}{
		{func(o *amdigipay.Options) { o.BaseURL = "hush" }, "AMDIGIPAY_BASE_URL is not"},
		{func(o *amdigipay.Options) { o.Username = "" }, "AMDIGIPAY_USERNAME is missing"},
		{func(o *amdigipay.Options) { o.Password = secret.Text{} }, "AMDIGIPAY_PASSWORD is missing"},
		{func(o *amdigipay.Options) { o.SignatureScheme = "md5" }, "AMDIGIPAY_SIGNATURE_SCHEME is neither"},
		{func(o *amdigipay.Options) { o.SignatureScheme = amdigipay.SchemeHMAC }, "AMDIGIPAY_SIGNATURE_KEY is missing"},
		{func(o *amdigipay.Options) {
			o.SignatureScheme, o.SignatureKey = amdigipay.SchemeHMAC, secret.NewText("hush")
		}, "AMDIGIPAY_SIGNATURE_FIELDS is missing"},
		{func(o *amdigipay.Options) {
			o.SignatureScheme, o.SignatureKey = amdigipay.SchemeHMAC, secret.NewText("hush")
			o.SignatureFields = []string{"username", "item_details"}
		}, `AMDIGIPAY_SIGNATURE_FIELDS: "item_details"`},
		{func(o *amdigipay.Options) { o.SignatureFields = []string{"total"} }, `AMDIGIPAY_SIGNATURE_FIELDS: "total"`},
		{func(o *amdigipay.Options) { o.LoginEncoding = "xml" }, "login encoding"},
		{func(o *amdigipay.Options) { o.ListMethod = "PUT" }, "list method"},
	} {
		o := amdigipay.Options{BaseURL: "http://h/api", Username: "u", Password: secret.NewText("hush")}
		row.change(&o)
		_, err := amdigipay.New(o)
		if err == nil || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("error %v, want %q and no secret", err, row.want)
		}
	}
}

func TestParseStatusMap(t *testing.T) {
	for _, row := range []struct {
		text string
		want amdigipay.StatusMap // nil: an error
	}{
		{"2=on_processing,3=paid", amdigipay.StatusMap{2: payment.OnProcessing, 3: payment.Paid}},
		{" 7=expired , 5=cancelled", amdigipay.StatusMap{7: payment.Expired, 5: payment.Cancelled}},
		{amdigipay.DefaultStatusMap, amdigipay.StatusMap{
			1: payment.OnProcessing, 2: payment.OnProcessing, 3: payment.Paid, 4: payment.Paid,
			5: payment.Cancelled, 6: payment.Refunded, 13: payment.OnProcessing, 14: payment.Failed,
		}},
		{"", nil},
		{"3", nil},
		{"x=paid", nil},
		{"3=terbayar", nil},
		{"3=needs_review", nil},
		{"3=queued", nil},
		{"3=paid,3=failed", nil},
		{"3=paid,", nil},
	} {
		got, err := amdigipay.ParseStatusMap(row.text)
		if diff := cmp.Diff(row.want, got); diff != "" || (err == nil) != (row.want != nil) {
			t.Errorf("%q: error %v (-want +got):\n%s", row.text, err, diff)
		}
	}
}

// TestTimeout: the client's own timeout applies if the caller sets none.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, "http://gateway.example", func(o *amdigipay.Options) {
			o.Timeout = 3 * time.Second
			o.Transport = observer(func(r *http.Request) (*http.Response, error) {
				if strings.HasSuffix(r.URL.Path, "/login") {
					return answers{200, loggedIn}.RoundTrip(r)
				}
				<-r.Context().Done()
				return nil, r.Context().Err()
			})
		})
		if a := c.Submit(t.Context(), subject.Submission); a.Code != "net:unknown" || a.Duration != 3*time.Second {
			t.Errorf("code %s after %v, want net:unknown after 3s", a.Code, a.Duration)
		}
	})
}
