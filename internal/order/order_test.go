package order_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"terbayar/internal/order"
	"terbayar/internal/payment"
)

// The two payments of interface.md.
const (
	amOrder     = `{"gateway":"amdigipay","payment":{"payment_id":33,"expired_date":"2026-05-21 18:23:10","nominal":10000,"admin_fee":3000,"transaction_id":"INV-1","transaction_total":13000,"transaction_name":"testing","transaction_desc":"testing","customer_number":"085925065195","customer_name":"testing","customer_email":"a@example.com","item_details":[{"item_id":"testing","item_price":10000,"item_total_price":10000,"item_quantity":1,"item_name":"testing"},{"item_id":"fee","item_price":3000,"item_total_price":3000,"item_quantity":1,"item_name":"fee"}]}}`
	paydiaOrder = `{"gateway":"paydia","customer_token":"eyJ.secret","payment":{"partnerReferenceNo":"b57d8895-790b-4da3-a9e7-0387176de9bf","merchantId":"240327001000000","amount":{"value":"10000.00","currency":"IDR"},"title":"Payment"}}`
)

// edit replaces one piece of a document, which must be there.
func edit(t *testing.T, doc, old, replacement string) string {
	t.Helper()
	if !strings.Contains(doc, old) {
		t.Fatalf("%s is not in the sample", old)
	}
	return strings.Replace(doc, old, replacement, 1)
}

func TestParseSamples(t *testing.T) {
	am, err := order.Parse([]byte(amOrder), order.Defaults{})
	if err != nil {
		t.Fatal(err)
	}
	if am.Key().String() != "amdigipay:INV-1" || am.Amount() != 13000 || am.ExpiresAt().UTC().String() != "2026-05-21 11:23:10 +0000 UTC" {
		t.Errorf("%v %v %v", am.Key(), am.Amount(), am.ExpiresAt())
	}
	pd, err := order.Parse([]byte(paydiaOrder), order.Defaults{})
	if err != nil {
		t.Fatal(err)
	}
	if pd.Amount() != 10000 || !pd.ExpiresAt().IsZero() || pd.CustomerToken.Reveal() != "eyJ.secret" {
		t.Errorf("%v %v", pd.Amount(), pd.ExpiresAt())
	}
	content, err := pd.Content()
	if err != nil || strings.Contains(string(content), "secret") {
		t.Errorf("%s %v", content, err)
	}
}

// TestContent: the same order in another hand is the same content, and the text
// survives to the letter.
func TestContent(t *testing.T) {
	title := `a/b & <c> é "q" 支付`
	quoted, err := json.Marshal(title)
	if err != nil {
		t.Fatal(err)
	}
	doc := edit(t, paydiaOrder, `"Payment"`, string(quoted))
	a, err := order.Parse([]byte(doc), order.Defaults{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := order.Parse([]byte(`{"payment": {"title":`+string(quoted)+`,"amount":{"currency":"IDR","value":"10000.00"},
		"partnerReferenceNo":"b57d8895-790b-4da3-a9e7-0387176de9bf"}, "customer_token":"newer", "gateway":"paydia"}`),
		order.Defaults{MerchantID: "240327001000000"})
	if err != nil {
		t.Fatal(err)
	}
	contentA, _ := a.Content()
	contentB, _ := b.Content()
	if order.Digest(contentA) != order.Digest(contentB) {
		t.Errorf("%s\n%s", contentA, contentB)
	}
	back, err := order.Restore(payment.Paydia, contentA)
	if err != nil || back.Paydia.Title != title {
		t.Errorf("%+v %v", back.Paydia, err)
	}
}

func TestParseRefuses(t *testing.T) {
	am := func(old, replacement string) string { return edit(t, amOrder, old, replacement) }
	pd := func(old, replacement string) string { return edit(t, paydiaOrder, old, replacement) }
	for _, c := range []struct{ doc, field, detail string }{
		{`{`, "", "broken JSON at byte 2"},
		{`[]`, "", "not a JSON object"},
		{`"x"`, "", "not a JSON object"},
		{amOrder + "{}", "", "broken JSON at byte"},
		{"{\"gateway\":\"\xff\"}", "", "broken JSON at byte"},
		{`{"payment":{}}`, "gateway", "missing"},
		{`{"gateway":"gopay","payment":{}}`, "gateway", `unknown gateway "gopay"`},
		{`{"gateway":"paydia"}`, "payment", "missing"},
		{`{"gateway":"paydia","payment":[]}`, "payment", "not an object"},
		{am(`"gateway"`, `"note":1,"gateway"`), "note", "unknown field"},
		{am(`"nominal"`, `"nominl"`), "payment.nominl", "unknown field"},
		{am(`"nominal"`, `"Nominal"`), "payment.Nominal", "unknown field"},
		{am(`"nominal"`, `"nominal":1,"nominal"`), "payment.nominal", "given twice"},
		{am(`"nominal":10000`, `"nominal":10000.0`), "payment.nominal", "whole number"},
		{am(`"nominal":10000`, `"nominal":1e4`), "payment.nominal", "whole number"},
		{am(`"nominal":10000`, `"nominal":"10000"`), "payment.nominal", "whole number"},
		{am(`"nominal":10000`, `"nominal":10001`), "payment.transaction_total", "nominal + admin_fee is 13001"},
		{am(`"nominal":10000`, `"nominal":0`), "payment.nominal", "more than 0"},
		{am(`"admin_fee":3000`, `"admin_fee":-1`), "payment.admin_fee", "less than 0"},
		{am(`"transaction_total":13000`, `"transaction_total":9223372036854775807`), "payment.transaction_total", "more than 1000000000000"},
		{am(`"item_total_price":3000`, `"item_total_price":2999`), "payment.item_details[1].item_total_price", "item_price x item_quantity is 3000"},
		{am(`"item_price":3000,"item_total_price":3000`, `"item_price":2999,"item_total_price":2999`), "payment.item_details", "add up to 12999"},
		{am(`"item_price":3000`, `"item_price":3000.5`), "payment.item_details[1].item_price", "whole number"},
		{am(`"item_quantity":1`, `"item_quantity":0`), "payment.item_details[0].item_quantity", "more than 0"},
		{am(`"2026-05-21 18:23:10"`, `"2026-05-21T18:23:10"`), "payment.expired_date", "YYYY-MM-DD HH:mm:ss"},
		{am(`"2026-05-21 18:23:10"`, `"2026-13-21 18:23:10"`), "payment.expired_date", "YYYY-MM-DD HH:mm:ss"},
		{am(`"INV-1"`, `""`), "payment.transaction_id", "missing or empty"},
		{am(`"INV-1"`, `"INV\n1"`), "payment.transaction_id", "control characters"},
		{am(`"INV-1"`, `"`+strings.Repeat("x", 256)+`"`), "payment.transaction_id", "longer than 255"},
		{am(`"a@example.com"`, `"nobody"`), "payment.customer_email", "e-mail"},
		{pd(`"eyJ.secret"`, `""`), "customer_token", "missing or empty"},
		{pd(`"eyJ.secret"`, `"a\r\nX-Evil: 1"`), "customer_token", "header"},
		{pd(`"10000.00"`, `10000.00`), "payment.amount.value", "not a text"},
		{pd(`"10000.00"`, `"10000.50"`), "payment.amount.value", "whole amount of rupiah"},
		{pd(`"10000.00"`, `"0.00"`), "payment.amount.value", "whole amount of rupiah"},
		{pd(`"IDR"`, `"USD"`), "payment.amount.currency", "must be IDR"},
		{pd(`"240327001000000"`, `""`), "payment.merchantId", "missing or empty"},
		{pd(`"Payment"`, `"`+strings.Repeat("é", 257)+`"`), "payment.title", "longer than 256"},
		{pd(`"b57d8895-790b-4da3-a9e7-0387176de9bf"`, `"`+strings.Repeat("x", 65)+`"`), "payment.partnerReferenceNo", "longer than 64"},
	} {
		_, err := order.Parse([]byte(c.doc), order.Defaults{})
		var fe *order.FieldError
		if !errors.As(err, &fe) || fe.Field != c.field || !strings.Contains(fe.Detail, c.detail) {
			t.Errorf("%.80s:\n got %v\nwant %s: %s", c.doc, err, c.field, c.detail)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the customer token stands in %q", err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, doc := range []string{amOrder, paydiaOrder, `{"gateway":"paydia","payment":{}}`, `{}`, `[`, "\xff"} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		o, err := order.Parse(doc, order.Defaults{})
		if err != nil {
			return
		}
		// What passes can be kept, restored and sent.
		content, err := o.Content()
		if err != nil {
			t.Fatal(err)
		}
		back, err := order.Restore(o.Gateway, content)
		if err != nil || back.Key() != o.Key() || back.Amount() != o.Amount() {
			t.Fatalf("%s: %v", content, err)
		}
		if !o.Amount().Valid() || o.Key().TransactionID == "" {
			t.Fatalf("passed with amount %d, id %q", o.Amount(), o.Key().TransactionID)
		}
	})
}
