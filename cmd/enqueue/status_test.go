package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jedib0t/go-pretty/v6/text"

	"terbayar/internal/payment"
	"terbayar/internal/retention"
)

// TestStatusTable: the table is at most 80 columns wide except for values that are to be
// copied, and escape sequences in foreign text are escaped.
func TestStatusTable(t *testing.T) {
	at := time.Date(2026, 5, 21, 3, 0, 0, 0, time.UTC)
	qr := "00020101021226" + strings.Repeat("5", 200)
	p := &payment.Payment{
		Gateway: payment.Paydia, TransactionID: "b57d8895-790b-4da3-a9e7-0387176de9bf", Status: payment.NeedsReview,
		GatewayStatus: "\x1b]0;owned\x07Terbayar\u202e", GatewayReference: strings.Repeat("9", 64), Amount: 13000, CreatedAt: at, UpdatedAt: at,
		Reason:       "given up after 12 lookups: the gateway knew no such payment, and it is not known whether the request arrived; ask it",
		PaymentLinks: "https://example.com/" + strings.Repeat("x", 100), PaymentCode: "8808 1234\x9b2J", QRCode: qr,
		Attempts: []payment.Attempt{
			{
				At: at, Kind: payment.KindSubmit, Code: "net:unknown", Action: "verify", DurationMS: 15000,
				ExternalID: "260521100000123456789012345678901234",
			},
			{
				At: at, Kind: payment.KindLookup, Code: "body:unreadable-and-more", HTTPStatus: 200, Action: "refresh_token", DurationMS: 1234567,
				Message: strings.Repeat("Saldo tidak cukup. ", 8) + "\x1b[2J" + strings.Repeat("支付", 40), ExternalID: "1",
			},
		},
	}
	const want = `gateway            paydia
transaction id     b57d8895-790b-4da3-a9e7-0387176de9bf
status             needs_review
reason             given up after 12 lookups: the gateway knew no such payment,
                   and it is not known whether the request arrived; ask it
gateway status     \u001b]0;owned\u0007Terbayar\u202e
gateway reference
9999999999999999999999999999999999999999999999999999999999999999
amount             Rp 13000
created at         2026-05-21T03:00:00Z
updated at         2026-05-21T03:00:00Z
payment links
https://example.com/LINK
payment code       8808 1234\x9b2J
QR code
QR

  # at                   kind     code            http action             ms
  1 2026-05-21T03:00:00Z submit   net:unknown          verify          15000
    external id  260521100000123456789012345678901234
  2 2026-05-21T03:00:00Z lookup   body:unreadabl~  200 refresh_token 1234567
    external id  1
    message      Saldo tidak cukup. Saldo tidak cukup. Saldo tidak cukup. Saldo
                 tidak cukup. Saldo tidak cukup. Saldo tidak cukup. Saldo tidak
                 cukup. Saldo tidak cukup.
                 \u001b[2J支付支付支付支付支付支付支付支付支付支付支付支付支付支
                 付支付支付支付支付支付支付支付支付支付支付支付支付支付支付支付
                 支付支付支付支付支付支付支付支付支付支付支付
`
	got := statusTable(&retention.Status{Payment: *p})
	if diff := cmp.Diff(strings.NewReplacer("LINK", strings.Repeat("x", 100), "\nQR\n", "\n"+qr+"\n").Replace(want), got); diff != "" {
		t.Error(diff)
	}
	for line := range strings.Lines(got) {
		line = strings.TrimSuffix(line, "\n")
		if text.StringWidth(line) > lineWidth && line != qr && line != p.PaymentLinks {
			t.Errorf("wider than %d: %s", lineWidth, line)
		}
	}
}
