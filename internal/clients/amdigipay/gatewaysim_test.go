package amdigipay_test

import (
	"fmt"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"terbayar/internal/clients"
	"terbayar/internal/clients/amdigipay"
	"terbayar/internal/gatewaysim"
	"terbayar/internal/order"
	"terbayar/internal/payment"
	"terbayar/internal/secret"
)

// TestAgainstGatewaysim runs the client against the simulator, which checks every request, in
// every way in which AM may work.
func TestAgainstGatewaysim(t *testing.T) {
	for _, row := range []struct {
		name   string
		sim    func(*gatewaysim.AMConfig)
		client func(*amdigipay.Options)
	}{
		{"defaults", func(*gatewaysim.AMConfig) {}, func(*amdigipay.Options) {}},
		{"login by form", func(*gatewaysim.AMConfig) {}, func(o *amdigipay.Options) { o.LoginEncoding = "form" }},
		{
			"list by POST",
			func(c *gatewaysim.AMConfig) { c.ListVerb = "POST" },
			func(o *amdigipay.Options) { o.ListMethod = "POST" },
		},
		{
			"HMAC",
			func(c *gatewaysim.AMConfig) {
				c.SignatureScheme, c.SignatureKey = gatewaysim.SchemeHMAC, "hush-key"
				c.SignatureFields = []string{"username", "transaction_id", "transaction_total", "transaction_name"}
			},
			func(o *amdigipay.Options) {
				o.SignatureScheme, o.SignatureKey = amdigipay.SchemeHMAC, secret.NewText("hush-key")
				o.SignatureFields = []string{"username", "transaction_id", "transaction_total", "transaction_name"}
			},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			config := gatewaysim.DefaultConfig()
			row.sim(&config.AM)
			config.Customers = []gatewaysim.CustomerRule{{Customer: gatewaysim.Customer{Behaviour: gatewaysim.Pays, After: time.Hour}}}
			now := time.Now()
			sim := gatewaysim.New(config, func() time.Time { return now })
			server := httptest.NewServer(sim.Handler())
			defer server.Close()
			c := newClient(t, server.URL, func(o *amdigipay.Options) {
				o.Username, o.Password = config.AM.Username, secret.NewText(config.AM.Password)
				row.client(o)
			})

			titles := []string{"plain", `a & b`, `<b>bold</b>`, "café é", `"quoted" 'twice' \ /`, "支払い 결제 付款", "😀\u2028\u00a0"}
			references := map[string]string{} // AM's ids by transaction id
			for i, title := range titles {
				o := *ordered
				o.TransactionID, o.TransactionName, o.TransactionDesc, o.CustomerName = fmt.Sprintf("INV-%d", i), title, title, title
				o.ItemDetails = slices.Clone(o.ItemDetails)
				o.ItemDetails[0].ItemName = title
				o.ExpiredDate = now.Add(24 * time.Hour).In(payment.Jakarta).Format(time.DateTime)
				a := c.Submit(t.Context(), clients.Submission{Order: &order.Order{Gateway: payment.AMDigiPay, AMDigiPay: &o}})
				if a.Code != "http:200" || a.Receipt == nil || a.Receipt.Status != payment.OnProcessing || a.Receipt.Amount != clients.WholeNumber(13000) {
					t.Fatalf("submit of %q: %+v", title, a)
				}
				references[o.TransactionID] = a.Receipt.Reference
			}

			now = now.Add(2 * time.Hour)
			c.DropToken(1) // it has expired by the simulator's clock, but not by the client's
			found := map[string]string{}
			for n := 1; n <= len(titles); n++ {
				page, a := c.List(t.Context(), amdigipay.ListQuery{StatusID: 3, Limit: 2, Page: n})
				if a.Code != "http:200" {
					t.Fatalf("page %d: %+v", n, a)
				}
				for _, r := range page.Rows {
					if r.Status != payment.Paid || r.GatewayStatus != "Terbayar" || r.Amount != clients.WholeNumber(13000) || fmt.Sprint(r.ID) != r.Reference {
						t.Errorf("row %+v, want it paid", r)
					}
					found[r.TransactionID] = r.Reference
				}
				if n >= page.TotalPage {
					break
				}
			}
			for id, reference := range references {
				if found[id] != reference {
					t.Errorf("%s is listed with reference %q, want %q", id, found[id], reference)
				}
				if a := c.Detail(t.Context(), reference); a.Receipt == nil || a.Receipt.TransactionID != id || a.Receipt.Status != payment.Paid {
					t.Errorf("detail of %s: %+v", id, a)
				}
			}
			for _, v := range sim.Violations() {
				t.Errorf("violation: %+v", v)
			}
		})
	}
}
