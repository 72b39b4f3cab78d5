package order_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"terbayar/internal/order"
	"terbayar/internal/payment"
)

// The two payments of docs/interface.md.
const (
	amOrder     = `{"gateway":"amdigipay","payment":{"payment_id":33,"expired_date":"2026-05-21 18:23:10","nominal":10000,"admin_fee":3000,"transaction_id":"INV-1","transaction_total":13000,"transaction_name":"testing","transaction_desc":"testing","customer_number":"085925065195","customer_name":"testing","customer_email":"a@example.com","item_details":[{"item_id":"testing","item_price":10000,"item_total_price":10000,"item_quantity":1,"item_name":"testing"},{"item_id":"fee","item_price":3000,"item_total_price":3000,"item_quantity":1,"item_name":"fee"}]}}`
	paydiaOrder = `{"gateway":"paydia","customer_token":"eyJ.secret","payment":{"partnerReferenceNo":"b57d8895-790b-4da3-a9e7-0387176de9bf","merchantId":"240327001000000","amount":{"value":"10000.00","currency":"IDR"},"title":"Payment"}}`
)

// before is a day before amOrder's expired_date.
var before = time.Date(2026, 5, 20, 11, 0, 0, 0, time.UTC)

// edit replaces the first occurrence of a text, which must exist.
func edit(t *testing.T, doc, old, replacement string) string {
	t.Helper()
	if !strings.Contains(doc, old) {
		t.Fatalf("the document does not contain %s", old)
	}
	return strings.Replace(doc, old, replacement, 1)
}

func TestParseSamples(t *testing.T) {
	am, err := order.Parse([]byte(amOrder), before, order.Defaults{})
	if err != nil {
		t.Fatal(err)
	}
	if am.Key().String() != "amdigipay:INV-1" || am.Amount() != 13000 || am.ExpiresAt().UTC().String() != "2026-05-21 11:23:10 +0000 UTC" {
		t.Errorf("%v %v %v", am.Key(), am.Amount(), am.ExpiresAt())
	}
	pd, err := order.Parse([]byte(paydiaOrder), before, order.Defaults{})
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

// TestContent checks that an order written differently has the same content, and that
// Restore returns its texts unchanged.
func TestContent(t *testing.T) {
	title := `a/b & <c> é "q" 支付`
	quoted, err := json.Marshal(title)
	if err != nil {
		t.Fatal(err)
	}
	doc := edit(t, paydiaOrder, `"Payment"`, string(quoted))
	a, err := order.Parse([]byte(doc), before, order.Defaults{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := order.Parse([]byte(`{"payment": {"title":`+string(quoted)+`,"amount":{"currency":"IDR","value":"10000.00"},
		"partnerReferenceNo":"b57d8895-790b-4da3-a9e7-0387176de9bf"}, "customer_token":"newer", "gateway":"paydia"}`),
		before, order.Defaults{MerchantID: "240327001000000"})
	if err != nil {
		t.Fatal(err)
	}
	contentA, _ := a.Content()
	contentB, _ := b.Content()
	if order.Digest(contentA) != order.Digest(contentB) {
		t.Errorf("%s\n%s", contentA, contentB)
	}
	restored, err := order.Restore(payment.Paydia, contentA)
	if err != nil || restored.Paydia.Title != title {
		t.Errorf("%+v %v", restored.Paydia, err)
	}
}

func TestParseRejects(t *testing.T) {
	am := func(old, replacement string) string { return edit(t, amOrder, old, replacement) }
	pd := func(old, replacement string) string { return edit(t, paydiaOrder, old, replacement) }
	date := func(d string) string { return am("2026-05-21 18:23:10", d) }
	value := func(v string) string { return pd("10000.00", v) }
	upToItems, _, _ := strings.Cut(amOrder, `"item_details"`)
	const form, whole, rupiah = "of the form YYYY-MM-DD HH:mm:ss", "must be a whole number in plain digits", "must be a whole amount of rupiah with two decimals"
	for _, c := range []struct{ doc, field, detail string }{
		{`{`, "", "unexpected end at byte 2"},
		{``, "", "broken JSON"},
		{`[]`, "", "must be a JSON object"},
		{`"x"`, "", "must be a JSON object"},
		{`x`, "", "broken JSON at byte 1"},
		{amOrder + "{}", "", "more than one JSON value"},
		{amOrder + ",", "", "broken JSON at byte"},
		{"{\"gateway\":\"\xff\"}", "gateway", "not valid UTF-8 at byte"},
		{am(`"nominal":10000`, `"nominal":010000`), "payment", "broken JSON at byte"},
		{am(`"item_price":3000`, `"item_price":+3000`), "payment.item_details[1].item_price", "broken JSON at byte"},
		{am(`"2026-05-21 18:23:10"`, `x`), "payment.expired_date", "broken JSON at byte 66"},
		{`{"payment":{}}`, "gateway", "missing"},
		{`{"gateway":"gopay","payment":{}}`, "gateway", "unknown gateway (want amdigipay or paydia)"},
		{`{"gateway":5,"payment":{}}`, "gateway", "must be a string"},
		{pd(`"gateway":"paydia"`, `"gateway":"Paydia"`), "gateway", "unknown gateway"},
		{`{"gateway":"amdigipay"}`, "payment", "missing"},
		{`{"gateway":"amdigipay","payment":[]}`, "payment", "not an object"},
		{am(`"gateway"`, `"note":1,"gateway"`), "note", "unknown field"},
		{am(`"gateway"`, `"priority":"urgent","gateway"`), "priority", "must be normal or interactive"},
		{am(`"gateway"`, `"priority":"Interactive","gateway"`), "priority", "must be normal or interactive"},
		{am(`"gateway"`, `"priority":1,"gateway"`), "priority", "must be a string"},
		{am(`"gateway"`, `"Priority":"interactive","gateway"`), "Priority", "unknown field"},
		{am(`"nominal"`, `"nominl":1,"nominal"`), "payment.nominl", "unknown field"},
		{am(`"nominal"`, `"nominal":1,"nominal"`), "payment.nominal", "given twice"},
		{am(`"gateway":`, `"gateway":"amdigipay","gateway":`), "gateway", "given twice"},
		{am(`"item_id":"fee"`, `"item_id":"fee","item_id":"fee"`), "payment.item_details[1].item_id", "given twice"},
		{am(`"nominal"`, `"\u001b]0;\u202e`+strings.Repeat("x", 100)+`":{"a":[1]},"nominal"`), `payment."\x1b]0;\u202e` + strings.Repeat("x", 59) + `..."`, "unknown field"},

		{am(`"nominal":10000`, `"nominal":10000.0`), "payment.nominal", whole},
		{am(`"nominal":10000`, `"nominal":1e4`), "payment.nominal", whole},
		{am(`"nominal":10000`, `"nominal":-0`), "payment.nominal", whole},
		{am(`"nominal":10000`, `"nominal":10000000000000000000000`), "payment.nominal", whole},
		{am(`"nominal":10000`, `"nominal":"10000"`), "payment.nominal", whole},
		{am(`"nominal":10000`, `"nominal":null`), "payment.nominal", whole},
		{am(`"nominal":10000`, `"nominal":true`), "payment.nominal", whole},
		{am(`"payment_id":33`, `"payment_id":33.5`), "payment.payment_id", whole},
		{am(`"nominal":10000`, `"nominal":10001`), "payment.transaction_total", "must equal nominal + admin_fee"},
		{am(`"nominal":10000`, `"nominal":0`), "payment.nominal", "greater than 0"},
		{am(`"admin_fee":3000`, `"admin_fee":-1`), "payment.admin_fee", "at least 0"},
		{am(`"transaction_total":13000`, `"transaction_total":9223372036854775807`), "payment.transaction_total", "at most 1000000000000"},
		{am(`"item_total_price":3000`, `"item_total_price":2999`), "payment.item_details[1].item_total_price", "must equal item_price x item_quantity"},
		{am(`"item_price":3000,"item_total_price":3000`, `"item_price":2999,"item_total_price":2999`), "payment.item_details", "must equal transaction_total"},
		{am(`"item_price":3000`, `"item_price":3000.5`), "payment.item_details[1].item_price", whole},
		{am(`"item_quantity":1`, `"item_quantity":0`), "payment.item_details[0].item_quantity", "greater than 0"},
		{upToItems + `"item_details":[]}}`, "payment.item_details", "must not be empty"},
		{upToItems + `"item_details":[` + strings.Repeat("{},", 1000) + `{}]}}`, "payment.item_details", "more than 1000 entries"},

		{date("2026-05-21T18:23:10"), "payment.expired_date", form},
		{date("2026-05-21 18:23:10.5"), "payment.expired_date", form},
		{date("2026-05-21 18:23:10,000"), "payment.expired_date", form},
		{date("2026-05-21 8:23:10"), "payment.expired_date", form},
		{date("2026-5-21 18:23:10"), "payment.expired_date", form},
		{date("2026-05-21 18:23"), "payment.expired_date", form},
		{date("2026-05-21 18:23:10 "), "payment.expired_date", form},
		{date("2026-05-21  18:23:10"), "payment.expired_date", form},
		{date("2026-05-21 18:23:10Z"), "payment.expired_date", form},
		{date("2026-05-21 18:23:10 +0700"), "payment.expired_date", form},
		{date("2026-02-30 18:23:10"), "payment.expired_date", form},
		{date("2026-13-21 18:23:10"), "payment.expired_date", form},
		{date("2026-05-21 24:00:00"), "payment.expired_date", form},
		{date("2026-05-21 18:23:60"), "payment.expired_date", form},
		{date("12026-05-21 18:23:10"), "payment.expired_date", form},
		{date("２０２６-05-21 18:23:10"), "payment.expired_date", form},
		{date("tomorrow"), "payment.expired_date", form},
		{date(""), "payment.expired_date", "missing"},
		{date("0001-01-01 00:00:00"), "payment.expired_date", "has passed"},
		{date("2026-05-20 18:00:00"), "payment.expired_date", "has passed"}, // now, in Jakarta
		{date("2026-05-20 17:59:59"), "payment.expired_date", "has passed"},

		{am(`"a@example.com"`, `"example"`), "payment.customer_email", "e-mail"},
		{am(`"a@example.com"`, `"a\u200b@example.com"`), "payment.customer_email", "U+200B"},
		{pd(`"eyJ.secret"`, `""`), "customer_token", "missing or empty"},
		{pd(`"eyJ.secret"`, `null`), "customer_token", "missing or empty"},
		{pd(`"eyJ.secret"`, `["eyJ.secret"]`), "customer_token", "must be a string"},
		{pd(`"eyJ.secret"`, `"a\r\nX-Evil: 1"`), "customer_token", "header"},
		{pd(`"eyJ.secret"`, `"eyJ.secret "`), "customer_token", "header"},
		{pd(`"eyJ.secret"`, `"eyJ.secret\u200b"`), "customer_token", "header"},
		{pd(`"eyJ.secret"`, `"`+strings.Repeat("x", 8193)+`"`), "customer_token", "longer than 8192"},
		{am(`"gateway"`, `"customer_token":"secret secret","gateway"`), "customer_token", "header"},
		{pd(`"10000.00"`, `10000.00`), "payment.amount.value", "must be a string"},
		{pd(`{"value":"10000.00","currency":"IDR"}`, `"10000.00"`), "payment.amount", "must be an object"},
		{value("010000.00"), "payment.amount.value", rupiah},
		{value("10000.50"), "payment.amount.value", rupiah},
		{value("10000"), "payment.amount.value", rupiah},
		{value("10000.0"), "payment.amount.value", rupiah},
		{value("10000.000"), "payment.amount.value", rupiah},
		{value("0.00"), "payment.amount.value", rupiah},
		{value("00.00"), "payment.amount.value", rupiah},
		{value(".00"), "payment.amount.value", rupiah},
		{value("+10000.00"), "payment.amount.value", rupiah},
		{value("-10000.00"), "payment.amount.value", rupiah},
		{value("1e4.00"), "payment.amount.value", rupiah},
		{value("10,000.00"), "payment.amount.value", rupiah},
		{value("10000,00"), "payment.amount.value", rupiah},
		{value("10000.00 "), "payment.amount.value", rupiah},
		{value(" 10000.00"), "payment.amount.value", rupiah},
		{value("１0000.00"), "payment.amount.value", rupiah},
		{value("99999999999999999.00"), "payment.amount.value", rupiah},
		{pd(`"IDR"`, `"USD"`), "payment.amount.currency", "must be IDR"},
		{pd(`"IDR"`, `"idr"`), "payment.amount.currency", "must be IDR"},
		{pd(`"IDR"`, `"IDR "`), "payment.amount.currency", "must be IDR"},
		{pd(`"240327001000000"`, `""`), "payment.merchantId", "missing or empty"},
		{pd(`"240327001000000"`, `240327001000000`), "payment.merchantId", "must be a string"},
		{pd(`"240327001000000"`, `"240327001000000\n"`), "payment.merchantId", "U+000A"},
		{pd(`"Payment"`, `"`+strings.Repeat("é", 257)+`"`), "payment.title", "longer than 256"},
		{pd(`"b57d8895-790b-4da3-a9e7-0387176de9bf"`, `"`+strings.Repeat("x", 65)+`"`), "payment.partnerReferenceNo", "longer than 64"},
		{am(`"INV-1"`, `"`+strings.Repeat("x", 256)+`"`), "payment.transaction_id", "longer than 255"},
		{am(`"INV-1"`, `""`), "payment.transaction_id", "missing or empty"},
		{am(`"INV-1"`, `"INV-\ud800"`), "payment.transaction_id", "not valid UTF-8"},
	} {
		_, err := order.Parse([]byte(c.doc), before, order.Defaults{})
		var errs order.FieldErrors
		if !errors.As(err, &errs) || len(errs) != 1 || errs[0].Field != c.field || !strings.Contains(errs[0].Detail, c.detail) {
			t.Errorf("%.80s:\n got %v\nwant %s: %s", c.doc, err, c.field, c.detail)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%q contains the customer token", err)
		}
		if late := strings.Contains(c.detail, "has passed"); errors.Is(err, order.ErrLate) != late {
			t.Errorf("%v: is ErrLate: %v, want %v", err, !late, late)
		}
	}
}

// TestParseReturnsAllErrors checks that a document with several mistakes gets all its errors
// at once.
func TestParseReturnsAllErrors(t *testing.T) {
	for _, c := range []struct {
		doc  string
		want []string
	}{
		{
			`{"gateway":"amdigipay","colour":"red","payment":{"payment_id":"33","expired_date":"2026-05-19 18:23:10","Nominal":1,"nominal":10000.5,"admin_fee":3000,` +
				`"transaction_id":"INV-1\u200b","transaction_total":13000,"transaction_name":"\u202etesting","customer_number":"0","customer_name":["x"],` +
				`"item_details":[{"item_id":"a","item_price":1e4,"item_total_price":10000,"item_quantity":1,"item_name":"a","colour":1},` +
				`{"item_id":"fee","item_price":3000,"item_total_price":3001,"item_quantity":1},7]},"Gateway":null}`,
			[]string{
				"colour", "Gateway", "payment.payment_id", "payment.Nominal", "payment.nominal", "payment.customer_name",
				"payment.item_details[0].item_price", "payment.item_details[0].colour", "payment.item_details[2]",
				"payment.transaction_id", "payment.transaction_name", "payment.item_details[1].item_name",
				"payment.item_details[1].item_total_price", "payment.expired_date",
			},
		},
		{
			`{"gateway":"amdigipay","payment":{"payment_id":33,"expired_date":"2026-05-21 18:23:10","nominal":10000,"admin_fee":3000,"x":1,` +
				`"transaction_id":" INV-1","transaction_total":13001,"transaction_name":"t","customer_number":"0","customer_name":"n",` +
				`"item_details":[{"item_id":"a","item_price":13000,"item_total_price":13000,"item_quantity":1,"item_name":"a","y":{}}]}}`,
			[]string{"payment.x", "payment.item_details[0].y", "payment.transaction_id", "payment.transaction_total"},
		},
		{
			`{"gateway":"paydia","payment":{"title":"","partnerReferenceNo":5,"amount":{"value":"1","sen":0}}}`,
			[]string{
				"payment.partnerReferenceNo", "payment.amount.sen", "payment.merchantId", "payment.amount.value",
				"payment.amount.currency", "payment.title", "customer_token",
			},
		},
		{
			`{"gateway":"amdigipay","payment":{"payment_id":33,"expired_date":"2026-05-21 18:23:10","nominal":10000,"admin_fee":3000,` +
				`"transaction_id":"INV-1","transaction_total":13001,"transaction_name":"t","customer_number":"0","customer_name":"n",` +
				`"item_details":[{"item_id":"a","item_price":12999,"item_total_price":12999,"item_quantity":1,"item_name":"a"}]}}`,
			[]string{"payment.transaction_total", "payment.item_details"},
		},
		{
			`{"gateway":"amdigipay","payment":{"payment_id":33,"expired_date":"2026-05-21 18:23:10","nominal":10000,"admin_fee":3000,` +
				`"transaction_id":"INV-1","transaction_name":"t","customer_number":"0","customer_name":"n",` +
				`"item_details":[{"item_id":"a","item_price":12999,"item_total_price":12999,"item_quantity":1,"item_name":"a"}]}}`,
			[]string{"payment.transaction_total", "payment.item_details"},
		},
		{
			`{"gateway":"amdigipay","payment":{"payment_id":33,"expired_date":"2026-05-21 18:23:10","nominal":10000,"admin_fee":3000,` +
				`"transaction_id":"INV-1","transaction_total":13000,"transaction_name":"t","customer_number":"0","customer_name":"n",` +
				`"item_details":[` + strings.Repeat(`{"item_id":"a","item_price":0,"item_total_price":0,"item_quantity":1,"item_name":"a"},`, 1000) + `7]}}`,
			[]string{"payment.item_details[1000]", "payment.item_details"},
		},
		{`{"gateway":"paydia","paymnt":{}}`, []string{"paymnt", "payment", "customer_token"}},
		{`{"gatway":"paydia","payment":{}}`, []string{"gatway", "gateway"}},
	} {
		_, err := order.Parse([]byte(c.doc), before, order.Defaults{})
		var errs order.FieldErrors
		if !errors.As(err, &errs) {
			t.Fatal(err)
		}
		var got []string
		for _, e := range errs {
			got = append(got, e.Field)
			if e.Detail == "" {
				t.Errorf("%s: no detail", e.Field)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s\n%v", diff, err)
		}
		if errors.Is(err, order.ErrLate) {
			t.Error("is ErrLate, although there are other errors")
		}
	}
}

// TestParseReturnsEveryError checks that no mistake hides another: every set of mistakes gets
// exactly the fields that its mistakes have alone.
func TestParseReturnsEveryError(t *testing.T) {
	type mistake struct{ old, replacement, field string }
	for doc, mistakes := range map[string][]mistake{
		amOrder: {
			{`{"gateway"`, `{"colour":"red","gateway"`, "colour"},
			{`"gateway":"amdigipay"`, `"gateway":"amdigipay","Payment":{}`, "Payment"},
			{`"payment":{`, `"customer_token":"a b","payment":{`, "customer_token"},
			{`"payment_id":33`, `"payment_id":"33"`, "payment.payment_id"},
			{`"2026-05-21 18:23:10"`, `"2026-05-21T18:23:10"`, "payment.expired_date"},
			{`"admin_fee":3000`, `"admin_fee":3000,"admin_fee":3000`, "payment.admin_fee"},
			{`"transaction_id":"INV-1"`, `"transaction_id":"INV-1 "`, "payment.transaction_id"},
			{`"transaction_total":13000`, `"transaction_total":13000,"Transaction_total":13000`, "payment.Transaction_total"},
			{`"transaction_name":"testing"`, `"transaction_name":null`, "payment.transaction_name"},
			{`"transaction_desc":"testing"`, `"transaction_desc":["testing"]`, "payment.transaction_desc"},
			{`"customer_number":"085925065195"`, `"customer_number":85925065195`, "payment.customer_number"},
			{`"customer_name":"testing"`, `"customer_name":"` + strings.Repeat("x", 256) + `"`, "payment.customer_name"},
			{`"a@example.com"`, `"a@"`, "payment.customer_email"},
			{`"item_id":"fee",`, ``, "payment.item_details[1].item_id"},
			{`"item_quantity":1,"item_name":"fee"`, `"item_quantity":0,"item_name":"fee"`, "payment.item_details[1].item_quantity"},
			{`"item_price":10000`, `"item_price":10001`, "payment.item_details[0].item_total_price"},
			{`"item_name":"fee"`, `"item_name":"fee","x":[{"y":1}]`, "payment.item_details[1].x"},
		},
		paydiaOrder: {
			{`{"gateway"`, `{"colour":"red","gateway"`, "colour"},
			{`"customer_token":"eyJ.secret",`, ``, "customer_token"},
			{`"partnerReferenceNo":"b`, `"partnerReferenceNo":"\tb`, "payment.partnerReferenceNo"},
			{`"merchantId":"240327001000000"`, `"merchantId":240327001000000`, "payment.merchantId"},
			{`"value":"10000.00"`, `"value":"10000"`, "payment.amount.value"},
			{`"currency":"IDR"`, `"currency":"USD"`, "payment.amount.currency"},
			{`"currency"`, `"x":{},"currency"`, "payment.amount.x"},
			{`"title":"Payment"`, `"title":""`, "payment.title"},
		},
	} {
		rapid.Check(t, func(r *rapid.T) {
			made := rapid.SliceOfNDistinct(rapid.SampledFrom(mistakes), 1, len(mistakes), func(m mistake) string { return m.field }).Draw(r, "mistakes")
			wrong := doc
			var want []string
			for _, m := range made {
				wrong, want = edit(t, wrong, m.old, m.replacement), append(want, m.field)
			}
			_, err := order.Parse([]byte(wrong), before, order.Defaults{})
			var got []string
			if errs, ok := errors.AsType[order.FieldErrors](err); ok {
				for _, e := range errs {
					got = append(got, e.Field)
				}
			}
			slices.Sort(want)
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" || strings.Contains(err.Error(), "secret") {
				r.Fatalf("%s\n%v", diff, err)
			}
		})
	}
}

// TestParseBoundsErrors checks that the errors of a large malformed document are bounded.
func TestParseBoundsErrors(t *testing.T) {
	_, err := order.Parse([]byte(`{`+strings.Repeat(`"a":1,`, 100_000)+`"gateway":"paydia"}`), before, order.Defaults{})
	var errs order.FieldErrors
	if !errors.As(err, &errs) || len(errs) > 1001 || len(err.Error()) > 300 || strings.Contains(err.Error(), "\n") {
		t.Errorf("%d errors: %.300s", len(errs), err)
	}
}

func FuzzParse(f *testing.F) {
	for _, doc := range []string{amOrder, paydiaOrder, `{"gateway":"paydia","payment":{}}`, `{}`, `[`, "\xff"} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		o, err := order.Parse(doc, before, order.Defaults{})
		if err != nil {
			return
		}
		// An accepted order can be stored and restored.
		content, err := o.Content()
		if err != nil {
			t.Fatal(err)
		}
		restored, err := order.Restore(o.Gateway, content)
		if err != nil || restored.Key() != o.Key() || restored.Amount() != o.Amount() {
			t.Fatalf("%s: %v", content, err)
		}
		if !o.Amount().Valid() || o.Key().TransactionID == "" {
			t.Fatalf("accepted with amount %d, id %q", o.Amount(), o.Key().TransactionID)
		}
	})
}

// TestPriority: the priority is not part of the content, so it does not make a conflict.
func TestPriority(t *testing.T) {
	t.Parallel()
	parse := func(text string) *order.Order {
		t.Helper()
		o, err := order.Parse([]byte(strings.Replace(amOrder, `{"gateway"`, `{`+text+`"gateway"`, 1)), before, order.Defaults{})
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return o
	}
	content, err := parse("").Content()
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]payment.Priority{
		"": payment.Normal, `"priority":"normal",`: payment.Normal, `"priority":null,`: payment.Normal, `"priority":"interactive",`: payment.Interactive,
	} {
		o := parse(text)
		if same, err := o.Content(); err != nil || string(same) != string(content) || o.Priority != want {
			t.Errorf("%s: priority %q, content %s, %v", text, o.Priority, same, err)
		}
	}
}
