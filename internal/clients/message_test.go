package clients

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

var budi = redactor{
	secrets: []string{"hush-password", "Sécret Two"},
	names:   []string{"Budi Santoso", "Ada Merchant", "12345", "", "mitra"},
}

// TestMessage reads messages of gateways, frameworks and proxies, and redacts them.
func TestMessage(t *testing.T) {
	for _, row := range []struct{ body, want string }{
		// The fields that contain the message.
		{`{"error":true,"message":"Saldo tidak cukup"}`, "Saldo tidak cukup"},
		{`{"error":false,"message":"success","data":{"message":"x"}}`, "success; x"},
		{`{"error":"token_expired"}`, "token_expired"},
		{`{"error":"invalid_token","error_description":"The token expired"}`, "invalid_token; The token expired"},
		{`{"status":"error","message":"Internal server error","data":null}`, "Internal server error"},
		{`{"status":"Token is Expired"}`, "Token is Expired"},
		{`{"status":3,"message":null}`, ""},
		{`{"message":"The given data was invalid.","errors":{"transaction_id":["The transaction id has already been taken."]}}`, "The given data was invalid.; transaction_id: The transaction id has already been taken."},
		{`{"errors":{"signature":["is invalid"]}}`, "signature: is invalid"},
		{`{"errors":[{"message":"a"},{"detail":"b"},"c"]}`, "a; b; c"},
		{`{"message":{"transaction_id":["sudah ada"]}}`, "transaction_id: sudah ada"},
		{`{"error":{"code":401,"message":"Token expired"}}`, "Token expired"},
		{`{"Error_Message":"no","code":"E_NO"}`, "no; E_NO"},
		{`{"responseCode":"4016300","responseMessage":"Unauthorized. Signature"}`, "Unauthorized. Signature"},
		{`{"code":"40101","message":"no"}`, "no"},
		{`{"message":"no","error":"no"}`, "no"},
		{`{"message":"no","exception":"X","file":"/var/www/x.php","trace":[{"file":"y"}]}`, "no"},
		{`"jwt expired"`, "jwt expired"},
		{"token expired\n", "token expired"},
		{``, ""},
		{`null`, ""},
		{`[]`, ""},
		{`{}`, ""},
		{`["a"]`, ""},
		{`{"message":7}`, ""},
		{"\xff", ""},
		{`<html><body>Forbidden</body></html>`, ""},
		{`{"error":true,"message":"x"}trailing`, ""},
		{`{"errors":{"a":{"b":{"c":{"d":{"e":{"f":"deep"}}}}}}}`, ""},
		{strings.Repeat("a ", 600), ""}, // a web page

		// One line, without control and invisible characters.
		{`{"message":"a\n\tb\u0000\u001b[31m\u202e\u200bc\ufe0f\u3164d  e"}`, "a b[31mcd e"},
		{`{"message":"` + strings.Repeat("ab ", 100) + `"}`, strings.TrimSpace(strings.Repeat("ab ", 49)) + "..."},

		// Secrets, in any case, also with an invisible character in between.
		{`{"message":"password HUSH-PASSWORD wrong"}`, "password *** wrong"},
		{`{"message":"password hush-\u200bpassword wrong"}`, "password *** wrong"},
		{`{"message":"xhush-passwordx sécret  two"}`, "x***x ***"},
		{`{"message":"` + strings.Repeat("ab ", 47) + `hush-password"}`, strings.TrimSpace(strings.Repeat("ab ", 47)) + " ***"},
		{`{"message":"` + strings.Repeat("abc ", 36) + `hush-password"}`, strings.TrimSpace(strings.Repeat("abc ", 36)) + " ***"},
		{`{"message":"Bearer abc.def-1 expired"}`, "*** expired"},
		{`{"message":"bearer token expired"}`, "bearer token expired"},
		{`{"message":"token eyJ0eXAiOiJKV1QifQ.eyJhIjoxfQ.sig-x is invalid"}`, "token *** is invalid"},
		{`{"message":"expected signature: 9f8e, got signature=1a2b"}`, "expected signature: ***, got signature= ***"},
		{`{"message":"signature: is invalid"}`, "signature: is invalid"},
		{`{"message":"sign 23f7cef3b8ed22222125d88b53d3db650aa60f4aae7ccb9f6dfc9695ae640b35"}`, "sign ***"},
		{`{"message":"sign 8yG0z8OuxLNavcajr/we30Hs5zBiWuBp1KdTg73Qyfp9mcfCjtu/vFaTkgjj3GdJZC96ycfgg12q44eYEcqwRw=="}`, "sign ***"},

		// Numbers.
		{`{"message":"phone 085925065195 unknown"}`, "phone *** unknown"},
		{`{"message":"phone +62 859-2506-5195, (0859) 2506.5195"}`, "phone ***"},
		{`{"message":"phone ٠٨٥٩٢٥٠٦٥١٩٥"}`, "phone ***"},
		{`{"message":"card 4111 1111 1111 1111 and 411111******1111"}`, "card *** and ***"},
		{`{"message":"min 10000, max 10.000.000,00, or 250,000.00"}`, "min 10000, max 10.000.000,00, or 250,000.00"},
		{`{"message":"no 081.234.567.890"}`, "no ***"},

		// Addresses and people.
		{`{"message":"mail <a.b@example.com> or C@D"}`, "mail <***> or ***"},
		{`{"message":"BUDI SANTOSO, Mr Santoso and budi's account, not Budiman"}`, "***, Mr *** and ***'s account, not Budiman"},
		{`{"message":"12345 is not 123456"}`, "*** is not ***"},
		// A word that a policy rule matches is not redacted, even if it is a name.
		{`{"message":"merchant sudah ada; mitra"}`, "merchant sudah ada; mitra"},

		// Text that is not a key is not redacted.
		{`{"message":"transaction_id_4711_already_exists"}`, "transaction_id_4711_already_exists"},
		{`{"message":"insufficient-funds-of-customer TokenExpiredExceptionHandler"}`, "insufficient-funds-of-customer TokenExpiredExceptionHandler"},
		{`{"message":"transaction b57d8895-790b-4da3-a9e7-0387176de9bf already exists"}`, "transaction *** already exists"},
	} {
		if got := budi.message([]byte(row.body)); got != row.want {
			t.Errorf("%s\n got %q\nwant %q", row.body, got, row.want)
		}
	}
}

// FuzzMessage: every message is one short printable line without a secret.
func FuzzMessage(f *testing.F) {
	for _, body := range []string{
		`{"error":true,"message":"Budi Santoso hush-password 085925065195"}`, `{"errors":{"a":["b"]}}`, "plain", `{"message":"hush-\u200bpassword"}`,
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		for _, b := range []string{body, `{"message":` + body + `}`, `{"message":"` + body + ` hush-password ` + body + `"}`} {
			m := budi.message([]byte(b))
			if utf8.RuneCountInString(m) > maxMessage || !utf8.ValidString(m) || strings.ContainsFunc(m, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%q is not one short printable line", m)
			}
			if strings.Contains(strings.ToLower(m), "hush-password") {
				t.Errorf("%q holds the secret", m)
			}
			for _, word := range strings.FieldsFunc(m, func(r rune) bool { return !unicode.IsDigit(r) }) {
				if utf8.RuneCountInString(word) > 5 {
					t.Errorf("%q holds a number", m)
				}
			}
		}
	})
}

// BenchmarkMessage reads the message of a success, which nearly every answer is.
func BenchmarkMessage(b *testing.B) {
	body := []byte(`{"error":false,"message":"success","data":{"id":6,"payment_id":37,"payment_name":"GOPAY",` +
		`"status_id":2,"status":"On processing","transaction_id":"INV-1","transaction_total":"13000",` +
		`"payment_links":"https://app.midtrans.com/snap/v3/redirection/1","payment_code":null,"qr_code":null}}`)
	b.ReportAllocs()
	for b.Loop() {
		if m := budi.message(body); m != "success" {
			b.Fatal(m)
		}
	}
}
