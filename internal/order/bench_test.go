package order_test

import (
	"strings"
	"testing"

	"terbayar/internal/order"
)

// BenchmarkParse does what intake does with each line: it parses and checks the payment, and
// computes the content and its digest.
func BenchmarkParse(b *testing.B) {
	for _, c := range []struct{ name, doc string }{
		{"amdigipay", strings.NewReplacer(
			`"INV-1"`, `"INV-2026-05-20-0000000001"`,
			`"transaction_name":"testing"`, `"transaction_name":"Pembelian kopi arabika 250 g"`,
			`"customer_name":"testing"`, `"customer_name":"Siti Rahmawati"`,
			`"a@example.com"`, `"siti.rahmawati@example.com"`,
		).Replace(amOrder)},
		{"paydia", strings.Replace(paydiaOrder, "eyJ.secret", "eyJ"+strings.Repeat("x", 600), 1)},
	} {
		b.Run(c.name, func(b *testing.B) {
			doc := []byte(c.doc)
			b.ReportAllocs()
			for b.Loop() {
				o, err := order.Parse(doc, before, order.Defaults{})
				if err != nil {
					b.Fatal(err)
				}
				content, err := o.Content()
				if err != nil {
					b.Fatal(err)
				}
				order.Digest(content)
			}
		})
	}
}
