package gatewaysim

import (
	"fmt"
	"testing"
	"time"
)

// TestCustomers checks every behaviour at both gateways, with a clock that the test moves. The
// expired_date is 24 h after the creation.
func TestCustomers(t *testing.T) {
	const m = time.Minute
	for _, row := range []struct {
		customer Customer
		forward  time.Duration
		am       int
		first    string // the answer of Auth Payment
		status   string // of Payment Query
	}{
		{Customer{Behaviour: Pays, After: 2 * m}, 1 * m, 2, "2006300", "00"},
		{Customer{Behaviour: Pays, After: 2 * m}, 2 * m, 3, "2006300", "00"},
		{Customer{Behaviour: Pays, StatusID: 4}, 0, 4, "2006300", "00"},
		{Customer{Behaviour: PaysLate, After: 2 * m}, 24*time.Hour + 1*m, 2, "2026300", "00"},
		{Customer{Behaviour: PaysLate, After: 2 * m}, 24*time.Hour + 2*m, 3, "2026300", "00"},
		{Customer{Behaviour: NeverPays}, 999 * time.Hour, 2, "2026300", "03"},
		{Customer{Behaviour: NeverPays, StatusID: 13}, 0, 13, "2026300", "03"},
		{Customer{Behaviour: Cancels, After: 2 * m}, 1 * m, 2, "2026300", "03"},
		{Customer{Behaviour: Cancels, After: 2 * m}, 2 * m, 5, "2026300", "05"},
		{Customer{Behaviour: Fails, After: 2 * m}, 2 * m, 14, "2026300", "06"},
		{Customer{Behaviour: Refunds, After: 2 * m}, 1 * m, 2, "2006300", "00"},
		{Customer{Behaviour: Refunds, After: 2 * m}, 2 * m, 3, "2006300", "04"},
		{Customer{Behaviour: Refunds, After: 2 * m}, 4 * m, 6, "2006300", "04"},
		{Customer{Behaviour: Fails, StatusID: 99}, 0, 99, "2026300", "06"},
	} {
		t.Run(fmt.Sprintf("%s after %s", row.customer.Behaviour, row.forward), func(t *testing.T) {
			c := newCaller(t, func(config *Config) {
				config.AM.TokenLifetime, config.Paydia.TokenLifetime = 9999*time.Hour, 9999*time.Hour
				config.Customers = []CustomerRule{{Prefix: "X-", Customer: row.customer}}
			})
			c.create("X-1", nil)
			if r := c.pay("X-1"); r.at("responseCode") != row.first {
				t.Error(r.text)
			}
			c.clock.forward(row.forward)
			if got, want := c.statuses("")[0], fmt.Sprintf("X-1 %d", row.am); got != want {
				t.Errorf("AM: %s, want %s", got, want)
			}
			if got := c.query("X-1").at("latestTransactionStatus"); got != row.status {
				t.Errorf("Paydia: %v, want %s", got, row.status)
			}
		})
	}
}

func TestRefundedPaymentIsPaidAtOnce(t *testing.T) {
	c := newCaller(t)
	c.sim.SetCustomer(Paydia, "X", Customer{Behaviour: Refunds, After: time.Minute})
	c.pay("X")
	if got := c.query("X").at("latestTransactionStatus"); got != "00" {
		t.Errorf("right after 2006300: %v", got)
	}
}

func TestSetCustomer(t *testing.T) {
	c := newCaller(t)
	c.sim.SetCustomer(AM, "BEFORE", Customer{Behaviour: Cancels})
	c.create("BEFORE", nil)
	c.create("AFTER", nil)
	c.sim.SetCustomer(AM, "AFTER", Customer{Behaviour: Fails})
	c.sim.SetCustomer(Paydia, "P", Customer{Behaviour: Cancels, After: time.Minute})
	if r := c.pay("P"); r.status != 202 {
		t.Error(r.text)
	}
	c.sim.SetCustomer(Paydia, "P", Customer{Behaviour: Pays})
	if got := fmt.Sprint(c.statuses("")); got != "[AFTER 14 BEFORE 5]" {
		t.Error(got)
	}
	if got := c.query("P").at("latestTransactionStatus"); got != "00" {
		t.Error(got)
	}
}

func TestCustomerShares(t *testing.T) {
	s := New(Config{Seed: 9, Customers: []CustomerRule{
		{Prefix: "SURE-", Customer: Customer{Behaviour: Cancels}},
		{Gateway: AM, Share: 0.25, Customer: Customer{Behaviour: NeverPays}},
		{Share: 0.25, Customer: Customer{Behaviour: Fails}},
	}}, time.Now)
	count := map[Behaviour]int{}
	for i := range 4000 {
		count[s.customer(AM, fmt.Sprint("T-", i)).Behaviour]++
	}
	for behaviour, want := range map[Behaviour]int{NeverPays: 1000, Fails: 1000, Pays: 2000} {
		if got := count[behaviour]; got < want-150 || got > want+150 {
			t.Errorf("%s: %d of 4000, want about %d", behaviour, got, want)
		}
	}
	if got := s.customer(AM, "SURE-1").Behaviour; got != Cancels {
		t.Errorf("SURE-1 %s", got)
	}
}

func TestCustomersPayBetweenAfterAndUpTo(t *testing.T) {
	s := New(DefaultConfig(), time.Now)
	low, high := time.Hour, time.Duration(0)
	for i := range 200 {
		after := s.customer(AM, fmt.Sprint("T-", i)).After
		low, high = min(low, after), max(high, after)
	}
	if low < time.Second || low > 1200*time.Millisecond || high > 3*time.Second || high < 2800*time.Millisecond {
		t.Errorf("between %s and %s", low, high)
	}
}
