package paydia_test

import (
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"terbayar/internal/clients"
	"terbayar/internal/clients/paydia"
	"terbayar/internal/gatewaysim"
	"terbayar/internal/order"
	"terbayar/internal/payment"
	"terbayar/internal/secret"
)

// TestAgainstGatewaysim runs the client against the simulator, which checks every request, in
// every way in which Paydia may work.
func TestAgainstGatewaysim(t *testing.T) {
	for _, row := range []struct {
		name   string
		sim    func(*gatewaysim.PaydiaConfig)
		client func(*paydia.Options)
	}{
		{"defaults", func(*gatewaysim.PaydiaConfig) {}, func(*paydia.Options) {}},
		{
			"the other choice everywhere",
			func(c *gatewaysim.PaydiaConfig) {
				c.ExpiresIn, c.CustomerPrefix = gatewaysim.ExpiresInNumber, gatewaysim.CustomerBearer
				c.NotFoundAs07, c.LowerCasePartner, c.CorrectPaidTime = true, true, true
			},
			func(o *paydia.Options) { o.CustomerTokenPrefix, o.SendEmptyReference = "Bearer ", true },
		},
		{"no expiresIn", func(c *gatewaysim.PaydiaConfig) { c.ExpiresIn = gatewaysim.ExpiresInAbsent }, func(*paydia.Options) {}},
	} {
		t.Run(row.name, func(t *testing.T) {
			config := gatewaysim.DefaultConfig()
			config.Paydia.PublicKey = &key.PublicKey
			row.sim(&config.Paydia)
			sim := gatewaysim.New(config, time.Now)
			server := httptest.NewServer(sim.Handler())
			defer server.Close()
			c := newClient(t, server.URL, func(o *paydia.Options) {
				o.ClientID, o.ClientSecret = config.Paydia.ClientID, secret.NewText(config.Paydia.ClientSecret)
				o.Now = time.Now
				row.client(o)
			})
			query := func(id, reference string) clients.Answer {
				return c.Query(t.Context(), paydia.Query{
					Key: payment.Key{Gateway: payment.Paydia, TransactionID: id}, Reference: reference,
					MerchantID: config.Paydia.MerchantID, CustomerToken: secret.NewText(customerToken), ExternalID: c.NewExternalID(),
				})
			}

			for i, title := range []string{"plain", `a & b`, `<b>bold</b>`, "café é", `"quoted" 'twice' \ /`, "支払い 결제 付款", "😀\u2028\u00a0"} {
				id := fmt.Sprintf("INV-%d", i)
				if a := query(id, ""); !a.Absent || a.Receipt != nil {
					t.Errorf("query before the submit of %s: %+v, want it absent", id, a)
				}
				a := c.Submit(t.Context(), clients.Submission{
					Order: &order.Order{Gateway: payment.Paydia, Paydia: &order.Paydia{
						PartnerReferenceNo: id, MerchantID: config.Paydia.MerchantID,
						Amount: order.Amount{Value: "10000.00", Currency: "IDR"}, Title: title,
					}},
					CustomerToken: secret.NewText(customerToken), ExternalID: c.NewExternalID(),
				})
				if a.Code != "2006300" || a.Receipt == nil || a.Receipt.Status != payment.Paid || a.Receipt.Amount != clients.WholeNumber(10000) {
					t.Fatalf("submit of %q: %+v", title, a)
				}
				for _, reference := range []string{"", a.Receipt.Reference} {
					found := query(id, reference)
					if r := found.Receipt; r == nil || r.Status != payment.Paid || r.TransactionID != id || r.Reference != a.Receipt.Reference {
						t.Errorf("query of %s: %+v, want it paid", id, found)
					}
				}
			}
			for _, v := range sim.Violations() {
				t.Errorf("violation: %+v", v)
			}
		})
	}
}
