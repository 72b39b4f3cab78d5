package gatewaysim

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestAMSignatureVectors computes the vectors of docs/gateways.md 1.5.
func TestAMSignatureVectors(t *testing.T) {
	for _, row := range []struct{ username, id, want string }{
		{"2LOMCMIUV6", "0030c97b-5ccc-4482-b4af-9ffdb4a039b1", "23f7cef3b8ed22222125d88b53d3db650aa60f4aae7ccb9f6dfc9695ae640b35"},
		{"mitra-x", "TXN-1", "b1e0b2455f0732bd7061402d400a022eafac78c7cda4e013183edeb2d1992a35"},
	} {
		if got := sha256Signature(row.username, row.id); got != row.want {
			t.Errorf("%s %s: %s", row.username, row.id, got)
		}
	}
}

// TestQRISMatchesTheVendorsSamples computes the three samples of the vendor's page.
func TestQRISMatchesTheVendorsSamples(t *testing.T) {
	const merchant = "00020101021226670016COM.NOBUBANK.WWW01189360050300000842770214080500006791870303UKE51440014ID.CO.QRIS.WWW0215ID20210844664510303UKE520454995303360"
	const place = "5802ID5909BISATOPUP6015Jakarta Selatan610512540"
	for _, row := range []struct {
		id     int64
		ref    string
		amount int64
		number string
		want   string
	}{
		{5, "EV-INV-1-3096", 100805, "07270013122957", merchant + "5406100805" + place + "62550114072700131229570513EV-INV-1-30960609PAYMENT-50703A016304838E"},
		{4, "TEST12345", 10250, "07270013112990", merchant + "540510250" + place + "62510114072700131129900509TEST123450609PAYMENT-40703A016304320B"},
		{1, "7", 10060, "07250012923911", merchant + "540510060" + place + "6243011407250012923911050170609PAYMENT-10703A0163048D10"},
	} {
		if diff := cmp.Diff(row.want, qris(row.id, row.ref, row.amount, row.number)); diff != "" {
			t.Errorf("id %d:\n%s", row.id, diff)
		}
	}
}

func TestClip(t *testing.T) {
	if got := clip("0030c97b-5ccc-4482-b4af-9ffdb4a039b1", 25); got != "0030c97b-5ccc-4482-b4af-9" {
		t.Error(got)
	}
	if got := clip(strings.Repeat("é", 13), 25); got != strings.Repeat("é", 12) {
		t.Error(got)
	}
}

func TestAMLogin(t *testing.T) {
	form := map[string]string{"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
	for _, row := range []struct {
		name, body string
		header     map[string]string
		status     int
		path       string
		want       any
	}{
		{"json", `{"username":"SIMULATED1","password":"simulated-am-password"}`, jsonHeader, 200, "data.expires_in", 3600.0},
		{"form", `username=SIMULATED1&password=simulated-am-password`, form, 200, "data.token_type", "bearer"},
		{"wrong password", `{"username":"SIMULATED1","password":"x"}`, jsonHeader, 401, "status", "error"},
		{"no password", `{"username":"SIMULATED1"}`, jsonHeader, 422, "errors.password", []any{"The password field is required."}},
		{"no content type", `{"username":"SIMULATED1","password":"simulated-am-password"}`, nil, 401, "message", "Invalid username or password"},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newCaller(t).do("POST", "/api/login", row.body, row.header)
			if diff := cmp.Diff(row.want, r.at(row.path)); r.status != row.status || diff != "" {
				t.Errorf("%d %s\n%s", r.status, r.text, diff)
			}
		})
	}
}

func TestAMCreateAnswersAsTheVendorsSample(t *testing.T) {
	c := newCaller(t)
	r := c.create("INV-1", map[string]any{"payment_id": 37, "customer_email": "a@example.com"})
	link := r.at("data.payment_links")
	want := map[string]any{
		"error": false, "message": "success", "data": map[string]any{
			"id": r.at("data.id"), "payment_id": 37.0, "payment_name": "GOPAY", "status_id": 2.0, "status": "On processing",
			"transaction_id": "INV-1", "transaction_total": "13000", "expired_date": "2026-05-21 10:00:00",
			"transaction_name": "testing", "transaction_desc": "testing", "customer_number": "085925065195",
			"customer_name": "testing", "customer_email": "a@example.com",
			"payment_links": link, "payment_code": nil, "qr_code": nil,
			"item_details": []any{
				map[string]any{"item_id": "testing", "item_price": "10000", "item_quantity": "1", "item_total_price": "10000", "item_name": "testing"},
				map[string]any{"item_id": "fee", "item_price": "3000", "item_quantity": "1", "item_total_price": "3000", "item_name": "fee"},
			},
		},
	}
	if diff := cmp.Diff(want, r.body); diff != "" {
		t.Error(diff)
	}
	if !strings.HasPrefix(fmt.Sprint(link), "https://app.midtrans.com/snap/v3/redirection/") {
		t.Errorf("payment_links %v", link)
	}
	if code, _ := c.create("INV-2", nil).at("data.qr_code").(string); !strings.Contains(code, "0505INV-2") {
		t.Errorf("qr_code %q", code)
	}
	if code := c.create("INV-3", map[string]any{"payment_id": 22}).at("data.payment_code"); code == nil {
		t.Error("no payment_code for method 22")
	}
	c.wantViolations()
}

func TestAMCreateIsStrict(t *testing.T) {
	for _, row := range []struct {
		name      string
		edits     map[string]any
		status    int
		message   string
		violation string
	}{
		{"missing", map[string]any{"nominal": nil}, 422, "The given data was invalid.", "field nominal is missing or empty"},
		{"text for int", map[string]any{"nominal": "10000"}, 422, "The given data was invalid.", "field nominal is malformed"},
		{"fraction", map[string]any{"nominal": 10000.5}, 422, "The given data was invalid.", "field nominal is malformed"},
		{"date", map[string]any{"expired_date": "2026-05-21T10:00:00"}, 422, "The given data was invalid.", "field expired_date is malformed"},
		{"too long", map[string]any{"transaction_name": strings.Repeat("é", 256)}, 422, "The given data was invalid.", "field transaction_name is malformed"},
		{"no items", map[string]any{"item_details": []any{}}, 422, "The given data was invalid.", "field item_details is malformed"},
		{"item total", map[string]any{"item_details": []any{map[string]any{
			"item_id": "x", "item_price": 6000, "item_total_price": 13000, "item_quantity": 2, "item_name": "x",
		}}}, 422, "The given data was invalid.", "field item_details.0.item_total_price is malformed"},
		{"upper-case signature", map[string]any{"signature": strings.Repeat("A", 64)}, 422, "The given data was invalid.", "field signature is malformed"},
		{"wrong signature", map[string]any{"signature": strings.Repeat("a", 64)}, 200, "Invalid signature", "signature is wrong"},
		{"username", map[string]any{"username": "X"}, 200, "Invalid username", "Invalid username"},
		{"method", map[string]any{"payment_id": 99}, 200, "Payment method not found", "Payment method not found"},
		{"sum", map[string]any{"nominal": 9999}, 200, "transaction_total is not nominal + admin_fee", "transaction_total is not nominal + admin_fee"},
		{"unknown field", map[string]any{"colour": "red"}, 200, "success", "field colour is unknown"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := newCaller(t)
			r := c.create("INV-1", row.edits)
			if r.status != row.status || r.at("message") != row.message {
				t.Errorf("%d %s", r.status, r.text)
			}
			c.wantViolations(row.violation)
			want := 0
			if row.message == "success" {
				want = 1
			}
			c.wantRows(AM, "INV-1", want)
		})
	}
}

func TestAMCreateRequiresJSON(t *testing.T) {
	c := newCaller(t)
	c.login()
	header := with(jsonHeader, "Authorization", "Bearer "+c.amToken, "Content-Type", "text/plain")
	if r := c.do("POST", "/api/payment/transaction", order("INV-1", nil), header); r.status != 422 {
		t.Errorf("%d %s", r.status, r.text)
	}
	c.wantRows(AM, "INV-1", 0)
	c.wantViolations("header Content-Type is not application/json")
}

func TestAMSignatureSettings(t *testing.T) {
	bad := map[string]any{"signature": strings.Repeat("a", 64)}
	c := newCaller(t, func(config *Config) { config.AM.IgnoreSignature = true })
	if r := c.create("INV-1", bad); r.at("message") != "success" {
		t.Errorf("ignored signature: %s", r.text)
	}
	c.wantViolations("signature is wrong")

	mac := hmac.New(sha256.New, []byte("key"))
	mac.Write([]byte("INV-113000SIMULATED1"))
	c = newCaller(t, func(config *Config) {
		config.AM.SignatureScheme, config.AM.SignatureKey = SchemeHMAC, "key"
		config.AM.SignatureFields = []string{"transaction_id", "transaction_total", "username"}
	})
	if r := c.create("INV-1", map[string]any{"signature": hex.EncodeToString(mac.Sum(nil))}); r.at("error") != false {
		t.Errorf("hmac: %s", r.text)
	}
	c.wantViolations()
}

func TestAMUnauthenticated(t *testing.T) {
	const path = "/api/payment/payment-list"
	c := newCaller(t)
	if r := c.do("GET", path, "", jsonHeader); r.status != 401 || r.text != `{"message":"Unauthenticated."}` {
		t.Errorf("%d %s", r.status, r.text)
	}
	if r := c.do("GET", path, "", nil); r.status != http.StatusFound || r.header.Get("Location") != "/login" {
		t.Errorf("without Accept: %d %s", r.status, r.text)
	}
	c.login()
	header := with(jsonHeader, "Authorization", "Bearer "+c.amToken)
	if r := c.do("GET", path, "", header); r.status != 200 {
		t.Errorf("with a token: %d %s", r.status, r.text)
	}
	before := len(c.sim.Violations())
	c.clock.forward(time.Hour)
	if r := c.do("GET", path, "", header); r.status != 401 {
		t.Errorf("expired: %d %s", r.status, r.text)
	}
	if len(c.sim.Violations()) != before {
		t.Error("an expired token counts as a violation")
	}
	c = newCaller(t, func(config *Config) { config.AM.EnvelopeUnauthorized = true })
	if r := c.do("GET", path, "", jsonHeader); r.status != 401 || r.at("status") != "error" {
		t.Errorf("envelope: %d %s", r.status, r.text)
	}
}

func TestAMDuplicates(t *testing.T) {
	for _, row := range []struct {
		policy DuplicatePolicy
		failed bool
		rows   int
		sameID bool
	}{
		{DuplicateReject, true, 1, false},
		{DuplicateSame, false, 1, true},
		{DuplicateSecond, false, 2, false},
	} {
		t.Run(string(row.policy), func(t *testing.T) {
			c := newCaller(t, func(config *Config) { config.AM.Duplicates = row.policy })
			first, second := c.create("INV-1", nil), c.create("INV-1", nil)
			if second.status != 200 || second.at("error") != row.failed {
				t.Errorf("%d %s", second.status, second.text)
			}
			if same := first.at("data.id") == second.at("data.id"); same != row.sameID {
				t.Errorf("same id: %v", same)
			}
			c.wantRows(AM, "INV-1", row.rows)
			if n := len(c.sim.Summary().Duplicates); n != row.rows-1 {
				t.Errorf("%d duplicates in the summary", n)
			}
		})
	}
}

func TestAMListPages(t *testing.T) {
	c := newCaller(t, func(config *Config) { config.AM.IDStep = 5 })
	for i := range 7 {
		c.create(fmt.Sprint("T-", i), nil)
	}
	c.sim.SetCustomer(AM, "T-3", Customer{Behaviour: Pays})
	if diff := cmp.Diff([]string{"T-3 3", "T-2 2", "T-1 2"}, c.statuses("?limit=3&current_page=2")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"T-3 3"}, c.statuses("?status=3")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{}, c.statuses("?limit=3&current_page=9")); diff != "" {
		t.Error(diff)
	}
	want := map[string]any{"total_found": 7.0, "limit": 3.0, "current_page": 1.0, "total_page": 3.0}
	r := c.list("?limit=3")
	if diff := cmp.Diff(want, r.at("pagination")); diff != "" || r.at("status") != nil {
		t.Errorf("status %v\n%s", r.at("status"), diff)
	}
	if r := c.list("?status=2&limit=1000"); r.at("status") != 2.0 || r.at("pagination.limit") != 100.0 {
		t.Error(r.text[:100])
	}
	c.wantViolations()
	if r := c.list("?limit=x"); r.status != 422 {
		t.Errorf("limit=x: %d", r.status)
	}
	c.list("?transaction_id=T-1")
	c.wantViolations("field limit is malformed", "parameter transaction_id is unknown")
}

func TestAMListVerbAndOrder(t *testing.T) {
	c := newCaller(t, func(config *Config) { config.AM.ListVerb, config.AM.ListOrder = "POST", OrderAsc })
	c.create("T-1", nil)
	c.create("T-2", nil)
	if r := c.list(""); r.status != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", r.status)
	}
	r := c.do("POST", "/api/payment/list-transaction", `{"limit":1}`, with(jsonHeader, "Authorization", "Bearer "+c.amToken))
	rows, _ := r.at("data").([]any)
	if len(rows) != 1 || rows[0].(map[string]any)["transaction_id"] != "T-1" {
		t.Errorf("POST: %s", r.text)
	}
}

func TestAMDetail(t *testing.T) {
	c := newCaller(t)
	id := c.create("INV-1", nil).at("data.id")
	get := func(id any) reply {
		return c.do("GET", fmt.Sprintf("/api/payment/detail-transaction/%v", id), "", with(jsonHeader, "Authorization", "Bearer "+c.amToken))
	}
	if r := get(id); r.at("data.transaction_id") != "INV-1" {
		t.Error(r.text)
	}
	if r := get(999); r.at("error") != true {
		t.Error(r.text)
	}
	c.wantViolations()
	get("INV-1")
	c.wantViolations("detail-transaction needs the numeric id, not the transaction_id")
}

func TestListMotion(t *testing.T) {
	c := newCaller(t)
	c.create("OURS", nil)
	c.sim.AddOtherTransactions(3, time.Hour, Customer{Behaviour: NeverPays})
	c.sim.SetListMotion(ListMotion{NewRows: 2, PaidRows: 1})
	if got := c.statuses("?limit=1"); got[0] != "OTHER-3 2" {
		t.Error(got)
	}
	if got := c.statuses("?limit=2"); got[0] != "OTHER-5 3" || got[1] != "OTHER-4 2" {
		t.Error(got)
	}
	if n := c.list("").at("pagination.total_found"); n != 8.0 {
		t.Errorf("%v rows after two pages, want 8", n)
	}
	if rows := c.sim.Rows(); len(rows) != 1 {
		t.Errorf("%d rows of callers, want 1", len(rows))
	}
}

func TestAMLongHistory(t *testing.T) {
	c := newCaller(t)
	c.sim.AddOtherTransactions(2000, 24*time.Hour, Customer{Behaviour: Pays})
	c.create("OURS", nil)
	if n := c.list("?status=3&limit=100").at("pagination.total_page"); n != 20.0 {
		t.Errorf("%v pages of paid rows, want 20", n)
	}
	if got := c.statuses("?status=2"); len(got) != 1 || got[0] != "OURS 2" {
		t.Error(got)
	}
}

func TestAMOtherSettings(t *testing.T) {
	c := newCaller(t, func(config *Config) {
		config.AM.FreeQRIS, config.AM.QRISSurcharge, config.AM.ListOrder = true, 60, OrderScrambled
	})
	if r := c.create("FEE", nil); r.at("message") != "admin_fee must be 0 for QRIS" {
		t.Error(r.text)
	}
	free := map[string]any{"nominal": 13000, "admin_fee": 0}
	if code, _ := c.create("INV-0", free).at("data.qr_code").(string); !strings.Contains(code, "5405130605802ID") {
		t.Errorf("qr_code %s", code)
	}
	for i := 1; i < 6; i++ {
		c.create(fmt.Sprint("INV-", i), free)
	}
	asc := "[INV-0 2 INV-1 2 INV-2 2 INV-3 2 INV-4 2 INV-5 2]"
	desc := "[INV-5 2 INV-4 2 INV-3 2 INV-2 2 INV-1 2 INV-0 2]"
	if got := fmt.Sprint(c.statuses("")); got == asc || got == desc || got != fmt.Sprint(c.statuses("")) {
		t.Error(got)
	}
}

func TestHeaderSentTwice(t *testing.T) {
	c := newCaller(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url+"/api/payment/payment-list", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header["Authorization"] = []string{"Bearer a", "Bearer b"}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	c.wantViolations("header Authorization is sent 2 times", "header Authorization has a token that was never issued")
}
