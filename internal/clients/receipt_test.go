package clients_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/clients"
	"terbayar/internal/clients/amdigipay"
	"terbayar/internal/clients/paydia"
	"terbayar/internal/payment"
)

// ordered returns a payment of 13,000 rupiah.
func ordered(status payment.Status, reference string) payment.Payment {
	return payment.Payment{
		Gateway: payment.AMDigiPay, TransactionID: "INV-1", Status: status, Amount: 13000,
		GatewayStatus: "On processing", GatewayReference: reference, QRCode: "old",
	}
}

// TestContradiction compares receipts with an order.
func TestContradiction(t *testing.T) {
	amount := func(raw string) clients.Receipt { return clients.Receipt{Amount: readNumber(t, raw)} }
	for _, row := range []struct {
		receipt clients.Receipt
		want    string
	}{
		{clients.Receipt{}, ""},
		{amount(`13000`), ""},
		{amount(`"13000.00"`), ""},
		{amount(`1.3e4`), ""},
		{amount(`null`), ""},
		{amount(`99`), "ordered 13000 rupiah, the gateway has 99"},
		{amount(`13000.5`), "ordered 13000 rupiah, the gateway has 13000.5"},
		{amount(`0`), "ordered 13000 rupiah, the gateway has 0"},
		{amount(`"-13000"`), "ordered 13000 rupiah, the gateway has -13000"},
		{amount(`1e1000000`), "ordered 13000 rupiah, the gateway has 1e1000000"},
		{clients.Receipt{TransactionID: "INV-1", Reference: "6", Currency: "IDR"}, ""},
		{clients.Receipt{TransactionID: "INV-2"}, "the gateway's answer is about another transaction"},
		{clients.Receipt{Reference: "7"}, `the gateway has it as "6" and as "7"`},
		{clients.Receipt{Currency: "USD"}, `ordered in IDR, the gateway has currency "USD"`},
	} {
		p := ordered(payment.OnProcessing, "6")
		if got := row.receipt.Contradiction(&p); got != row.want {
			t.Errorf("%+v: %q, want %q", row.receipt, got, row.want)
		}
		row.receipt.Status = payment.Paid
		want := payment.Paid
		if row.want != "" {
			want = payment.NeedsReview
		}
		if got := row.receipt.Apply(&p); got != row.want || p.Status != want || p.Reason != row.want || p.GatewayReference != "6" {
			t.Errorf("%+v: %q, %+v; want %s", row.receipt, got, p, want)
		}
	}
}

// TestApply checks which fields of a receipt a payment gets.
func TestApply(t *testing.T) {
	paid := clients.Receipt{
		TransactionID: "INV-1", Reference: "6", GatewayStatus: "Terbayar", Status: payment.Paid,
		Amount: clients.WholeNumber(13000), QRCode: "new", PaymentCode: "8808",
	}
	for _, row := range []struct {
		name          string
		status        payment.Status
		reference     string // known before
		receipt       func(*clients.Receipt)
		want          payment.Status
		gatewayStatus string
		wantRef       string
		qr            string
		contradicted  bool
	}{
		{"paid", payment.OnProcessing, "6", func(*clients.Receipt) {}, payment.Paid, "Terbayar", "6", "new", false},
		{"its reference was unknown", payment.Verifying, "", func(*clients.Receipt) {}, payment.Paid, "Terbayar", "6", "new", false},
		{"fields are missing", payment.OnProcessing, "6", func(r *clients.Receipt) { r.QRCode, r.Reference = "", "" }, payment.Paid, "Terbayar", "6", "old", false},
		{"another amount", payment.OnProcessing, "", func(r *clients.Receipt) { r.Amount = clients.WholeNumber(99) }, payment.NeedsReview, "Terbayar", "6", "old", true},
		{"in review, no contradiction", payment.NeedsReview, "6", func(*clients.Receipt) {}, payment.Paid, "Terbayar", "6", "new", false},
		{"in review, still a contradiction", payment.NeedsReview, "6", func(r *clients.Receipt) { r.Currency = "USD" }, payment.NeedsReview, "Terbayar", "6", "old", true},
		{"another reference", payment.OnProcessing, "5", func(*clients.Receipt) {}, payment.NeedsReview, "Terbayar", "5", "old", true},
		{"another transaction", payment.OnProcessing, "", func(r *clients.Receipt) { r.TransactionID = "INV-2" }, payment.NeedsReview, "On processing", "", "old", true},
		{"expired, still open", payment.Expired, "6", func(r *clients.Receipt) { r.Status = payment.OnProcessing }, payment.Expired, "Terbayar", "6", "new", false},
		{"final", payment.Refunded, "6", func(*clients.Receipt) {}, payment.Refunded, "On processing", "6", "old", false},
		{"final, with a contradiction", payment.Paid, "6", func(r *clients.Receipt) { r.Amount = clients.WholeNumber(1) }, payment.Paid, "On processing", "6", "old", true},
	} {
		p, receipt := ordered(row.status, row.reference), paid
		row.receipt(&receipt)
		why := receipt.Apply(&p)
		if (why != "") != row.contradicted || p.Reason != "" && p.Reason != why {
			t.Errorf("%s: contradiction %q, reason %q", row.name, why, p.Reason)
		}
		got := []string{string(p.Status), p.GatewayStatus, p.GatewayReference, p.QRCode}
		if diff := cmp.Diff([]string{string(row.want), row.gatewayStatus, row.wantRef, row.qr}, got); diff != "" {
			t.Errorf("%s:\n%s", row.name, diff)
		}
	}
}

// TestEveryReportedStatus: a payment that is looked up can change to every status that a status
// map or a query can report, except that an expired payment does not become open again.
func TestEveryReportedStatus(t *testing.T) {
	for _, reported := range slices.Concat(amdigipay.ReportedStatuses(), paydia.ReportedStatuses()) {
		if !slices.Contains(payment.GatewayStatuses(), reported) {
			t.Errorf("a client can report %s, which payment.GatewayStatuses does not list", reported)
		}
		for _, from := range payment.LookupStatuses() {
			p := ordered(from, "6")
			receipt := clients.Receipt{Status: reported, GatewayStatus: "x"}
			why := receipt.Apply(&p)
			stays := from == payment.Expired && reported == payment.OnProcessing
			if why != "" || !payment.CanMove(from, p.Status) || p.Status != reported && !stays {
				t.Errorf("%s becomes %s when the gateway reports %s", from, p.Status, reported)
			}
		}
	}
}
