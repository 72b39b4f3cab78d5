package gatewaysim

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestSymmetricSignatureVectors computes the vectors of docs/gateways.md section 4.
func TestSymmetricSignatureVectors(t *testing.T) {
	const seedToken = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJQYXlkaWEiLCJpYXQiOjE3MjQxMjI2NzgsImV4cCI6MTcyNDIwOTA3OCwiZGF0YSI6eyJlbnYiOiJwcm9kdWN0aW9uIn19.qejS3HEFtioUn0fZ5txN2Vr1o_fHF_GWYd1H5a3ePAk"
	const b3 = `{"partnerReferenceNo":"b57d8895-790b-4da3-a9e7-0387176de9bf","merchantId":"240327001000000","amount":{"value":"10000.00","currency":"IDR"},"title":"Payment"}`
	for _, row := range []struct{ name, token, body, timestamp, want string }{
		{"P1", seedToken, b3, "2024-08-20T03:48:09+07:00", "8yG0z8OuxLNavcajr/we30Hs5zBiWuBp1KdTg73Qyfp9mcfCjtu/vFaTkgjj3GdJZC96ycfgg12q44eYEcqwRw=="},
		{"P3", "test-token", `{"title":"a/b & <c> é"}`, "2024-08-20T10:48:30+07:00", "N1Z8T/iAvtGAU5nY9XU4mTxwFQc6Fr7VrgDM1rcX1o5TbkOAsTcolQjtUWwSJHJqNrZCK3LARyskGZ8KmAft8w=="},
	} {
		got := symmetricSignature("test-secret", "POST", "/snap/v1.0/auth/payment", row.token, []byte(row.body), row.timestamp)
		if got != row.want {
			t.Errorf("%s: %s", row.name, got)
		}
	}
}

func TestPaydiaToken(t *testing.T) {
	for _, row := range []struct {
		name      string
		edits     []string
		code      string
		violation []string
	}{
		{"good", nil, "2007300", nil},
		{"no timestamp", []string{"X-TIMESTAMP", ""}, "4007302", []string{"header X-TIMESTAMP is missing", "header X-SIGNATURE is wrong"}},
		{"client", []string{"X-CLIENT-KEY", "x"}, "4017300", []string{"header X-CLIENT-KEY is not the client id"}},
		{"signature", []string{"X-SIGNATURE", "AAAA"}, "4017300", []string{"header X-SIGNATURE is wrong"}},
		{"content type", []string{"Content-Type", "text/plain"}, "4007301", []string{"header Content-Type is not application/json"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := newCaller(t)
			if r := c.b2b(row.edits...); r.at("responseCode") != row.code {
				t.Errorf("%d %s", r.status, r.text)
			}
			c.wantViolations(row.violation...)
		})
	}
}

func TestPaydiaExpiresIn(t *testing.T) {
	for form, want := range map[ExpiresIn]any{ExpiresInText: "900", ExpiresInNumber: 900.0, ExpiresInAbsent: nil} {
		c := newCaller(t, func(config *Config) {
			config.Paydia.ExpiresIn, config.Paydia.TokenLifetime = form, 15*time.Minute
		})
		r := c.b2b()
		if got := r.at("expiresIn"); got != want {
			t.Errorf("%s: %v", form, got)
		}
		claims, err := base64.RawURLEncoding.DecodeString(strings.Split(r.at("accessToken").(string), ".")[1])
		if err != nil {
			t.Fatal(err)
		}
		var life struct{ Iat, Exp int64 }
		if err := json.Unmarshal(claims, &life); err != nil || life.Exp-life.Iat != 900 {
			t.Errorf("%s: claims %s %v", form, claims, err)
		}
	}
}

func TestPaydiaPaymentAnswersAsTheVendorsSample(t *testing.T) {
	c := newCaller(t)
	r := c.pay("REF-1")
	want := map[string]any{
		"responseCode": "2006300", "responseMessage": "Request has been processed successfully",
		"referenceNo": r.at("referenceNo"), "partnerReferenceNo": "REF-1",
		"amount": map[string]any{"value": "10000.00", "currency": "IDR"}, "paidTime": "2026-05-20T10:00:00-07:00",
	}
	if diff := cmp.Diff(want, r.body); diff != "" || r.status != 200 {
		t.Errorf("%d %s", r.status, diff)
	}
	if reference, _ := r.at("referenceNo").(string); len(reference) != 64 {
		t.Errorf("referenceNo %q", reference)
	}
	c.wantViolations()
}

func TestPaydiaHeadersAreStrict(t *testing.T) {
	missing := func(name string) []string { return []string{name, ""} }
	for _, row := range []struct {
		name       string
		edits      []string
		code       string
		message    string
		violations []string
	}{
		{"content type", []string{"Content-Type", "application/json; charset=utf-8"}, "4006301", "Invalid Field Format Content-Type", []string{"header Content-Type is not application/json"}},
		{"accept", missing("Accept"), "2006300", "Request has been processed successfully", []string{"header Accept is not application/json"}},
		{"no authorization", missing("Authorization"), "4006302", "Invalid Mandatory Field Authorization", []string{"header Authorization is missing"}},
		{"no bearer", []string{"Authorization", "x"}, "4016301", "Invalid Token (B2B)", []string{"header Authorization is missing or not of the form Bearer <token>"}},
		{"unknown token", []string{"Authorization", "Bearer x"}, "4016301", "Invalid Token (B2B)", []string{"header Authorization has a token that was never issued", "header X-SIGNATURE is wrong"}},
		{"no customer", missing("Authorization-Customer"), "4006302", "Invalid Mandatory Field Authorization-Customer", []string{"header Authorization-Customer is missing"}},
		{"customer bearer", []string{"Authorization-Customer", "Bearer customer"}, "4016302", "Invalid Customer Token", []string{`header Authorization-Customer does not have the form "raw"`}},
		{"zone", []string{"X-TIMESTAMP", "2026-05-20T03:00:00+00:00"}, "4006301", "Invalid Field Format X-TIMESTAMP", []string{"header X-TIMESTAMP is not of the form YYYY-MM-DDTHH:mm:ss+07:00", "header X-SIGNATURE is wrong"}},
		{"milliseconds", []string{"X-TIMESTAMP", "2026-05-20T10:00:00.000+07:00"}, "4006301", "Invalid Field Format X-TIMESTAMP", []string{"header X-TIMESTAMP is not of the form YYYY-MM-DDTHH:mm:ss+07:00", "header X-SIGNATURE is wrong"}},
		{"UTC labelled +07", []string{"X-TIMESTAMP", "2026-05-20T03:00:00+07:00"}, "4016300", "Unauthorized. X-TIMESTAMP is too far from now", []string{"header X-TIMESTAMP is off by 7h0m0s", "header X-SIGNATURE is wrong"}},
		{"partner", []string{"X-PARTNER-ID", "x"}, "4016300", "Unauthorized. Unknown Client", []string{"header X-PARTNER-ID is not the client id"}},
		{"external id letters", []string{"X-EXTERNAL-ID", "12a"}, "4006301", "Invalid Field Format X-EXTERNAL-ID", []string{"header X-EXTERNAL-ID is not numeric"}},
		{"external id long", []string{"X-EXTERNAL-ID", strings.Repeat("1", 37)}, "4006301", "Invalid Field Format X-EXTERNAL-ID", []string{"header X-EXTERNAL-ID is longer than 36", "header X-EXTERNAL-ID is not numeric"}},
		{"channel", []string{"CHANNEL-ID", "123456"}, "4006301", "Invalid Field Format CHANNEL-ID", []string{"header CHANNEL-ID is longer than 5"}},
		{"signature", []string{"X-SIGNATURE", "x"}, "4016300", "Unauthorized. Signature", []string{"header X-SIGNATURE is wrong"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := newCaller(t)
			r := c.pay("REF-1", row.edits...)
			if r.at("responseCode") != row.code || r.at("responseMessage") != row.message {
				t.Errorf("%d %s", r.status, r.text)
			}
			c.wantViolations(row.violations...)
		})
	}
}

func TestPaydiaFieldsAreStrict(t *testing.T) {
	for _, row := range []struct{ name, old, replacement, code, message, violation string }{
		{"no title", `,"title":"a/b & <c> é"`, ``, "4006302", "Invalid Mandatory Field title", "field title is missing or empty"},
		{"long title", `a/b`, strings.Repeat("é", 257), "4006301", "Invalid Field Format title", "field title is malformed"},
		{"one decimal", `10000.00`, `10000.0`, "4006301", "Invalid Field Format amount.value", "field amount.value is malformed"},
		{"number", `"10000.00"`, `10000.00`, "4006301", "Invalid Field Format amount.value", "field amount.value is malformed"},
		{"currency", `IDR`, `USD`, "4006301", "Invalid Field Format amount.currency", "field amount.currency is malformed"},
		{"empty reference", `"REF-1"`, `""`, "4006302", "Invalid Mandatory Field partnerReferenceNo", "field partnerReferenceNo is missing or empty"},
		{"given twice", `{"partnerReferenceNo"`, `{"title":"x","partnerReferenceNo"`, "4006300", "Bad Request", "body is not a JSON object"},
		{"unknown", `{"partner`, `{"colour":"red","partner`, "2006300", "Request has been processed successfully", "field colour is unknown"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := newCaller(t)
			r := c.snap("/snap/v1.0/auth/payment", strings.Replace(authBody("REF-1"), row.old, row.replacement, 1))
			if r.at("responseCode") != row.code || r.at("responseMessage") != row.message {
				t.Errorf("%d %s", r.status, r.text)
			}
			c.wantViolations(row.violation)
		})
	}
}

func TestPaydiaBusinessAnswers(t *testing.T) {
	refuse := func(config *Config) {
		config.Refusals = []Refusal{
			{Gateway: Paydia, Prefix: "POOR-", Code: "4036314"},
			{Gateway: Paydia, Prefix: "BIG-", MinAmount: 10_000, Code: "4036302"},
			{Gateway: Paydia, MinAmount: 10_001, Code: "4036302"},
		}
		config.Paydia.CustomerTokens = []string{"customer"}
	}
	c := newCaller(t, refuse)
	for _, row := range []struct {
		name, code string
		r          reply
	}{
		{"funds", "4036314", c.pay("POOR-1")},
		{"limit", "4036302", c.pay("BIG-1")},
		{"merchant", "4046308", c.snap("/snap/v1.0/auth/payment", strings.Replace(authBody("M"), "240327001000000", "1", 1))},
		{"customer token", "4016304", c.pay("TOKEN", "Authorization-Customer", "other")},
		{"first", "2006300", c.pay("REF-1")},
		{"second", "4096301", c.pay("REF-1")},
		{"found", "2006400", c.query("REF-1")},
		{"not found", "4046401", c.query("POOR-1")},
	} {
		if got := row.r.at("responseCode"); got != row.code {
			t.Errorf("%s: %s", row.name, row.r.text)
		}
		if status := row.code[:3]; status != row.r.text[17:20] || int(status[0]-'0') != row.r.status/100 {
			t.Errorf("%s: HTTP status %d", row.name, row.r.status)
		}
	}
	c.wantRows(Paydia, "REF-1", 1)
	c.wantRows(Paydia, "POOR-1", 0)
	c.wantViolations()
}

func TestExternalIDIsUniquePerDay(t *testing.T) {
	c := newCaller(t)
	c.pay("REF-1", "X-EXTERNAL-ID", "77")
	c.messageID = 76
	if r := c.query("REF-1"); r.at("responseCode") != "4096400" {
		t.Error(r.text)
	}
	if r := c.pay("REF-2", "X-EXTERNAL-ID", "77"); r.at("responseCode") != "4096300" || r.at("responseMessage") != "Conflict" {
		t.Error(r.text)
	}
	c.wantRows(Paydia, "REF-2", 0)
	c.wantViolations("X-EXTERNAL-ID 77 was already used today, by paydia.auth-payment", "X-EXTERNAL-ID 77 was already used today, by paydia.auth-payment")
	c.clock.forward(14 * time.Hour) // 10:00 -> midnight in Jakarta; in UTC it is still the same day
	if r := c.pay("REF-2", "X-EXTERNAL-ID", "77"); r.at("responseCode") != "2006300" {
		t.Errorf("next day: %s", r.text)
	}
}

func TestPaydiaQuery(t *testing.T) {
	c := newCaller(t)
	paid := c.pay("REF-1")
	want := map[string]any{
		"responseCode": "2006400", "responseMessage": "Request has been processed successfully",
		"originalPartnerReferenceNo": "REF-1", "originalReferenceNo": paid.at("referenceNo"),
		"amount": map[string]any{"value": "10000.00", "currency": "IDR"}, "paidTime": "2026-05-20T10:00:00-07:00",
		"latestTransactionStatus": "00", "transactionStatusDesc": "paid",
	}
	if diff := cmp.Diff(want, c.query("REF-1").body); diff != "" {
		t.Error(diff)
	}
	ask := func(referenceNo string) any {
		return c.snap("/snap/v1.0/auth/query", `{"originalPartnerReferenceNo":"REF-1","originalReferenceNo":"`+referenceNo+
			`","merchantId":"240327001000000"}`).at("responseCode")
	}
	if got := ask("other"); got != "4046418" {
		t.Error(got)
	}
	if got := ask(""); got != "2006400" {
		t.Error(got)
	}
	c.sim.config.Paydia.RequireReferenceNo = true
	if got := ask(""); got != "4006402" {
		t.Error(got)
	}
	c.sim.config.Paydia.RequireReferenceNo = false
	c.sim.config.Paydia.NotFoundAs07 = true
	if got := c.query("NONE").at("latestTransactionStatus"); got != "07" {
		t.Error(got)
	}
	c.sim.config.Paydia.LowerCasePartner = true
	if got := c.query("REF-1").at("originalpartnerReferenceNo"); got != "REF-1" {
		t.Error(got)
	}
	c.sim.config.Paydia.CorrectPaidTime = true
	if got := c.query("REF-1").at("paidTime"); got != "2026-05-20T10:00:00+07:00" {
		t.Error(got)
	}
	c.wantViolations()
}

func TestPaydiaIgnoredErrorsAreViolations(t *testing.T) {
	c := newCaller(t, func(config *Config) {
		config.Paydia.IgnoreSignature, config.Paydia.IgnoreStaleness = true, true
		config.Paydia.CustomerPrefix = CustomerBearer
	})
	r := c.pay("REF-1", "X-TIMESTAMP", "2026-05-20T03:00:00+07:00", "Authorization-Customer", "Bearer customer")
	if r.at("responseCode") != "2006300" {
		t.Error(r.text)
	}
	c.wantViolations("header X-TIMESTAMP is off by 7h0m0s", "header X-SIGNATURE is wrong")
}

func TestPaydiaTokenExpires(t *testing.T) {
	c := newCaller(t)
	c.pay("REF-1")
	c.clock.forward(24 * time.Hour)
	if r := c.pay("REF-2"); r.at("responseCode") != "4016301" {
		t.Error(r.text)
	}
	c.wantViolations()
}
