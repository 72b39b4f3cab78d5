package main

import (
	"encoding/json"
	"fmt"
	"time"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/order"
	"terbayar/internal/payment"
)

// kind is what becomes of a payment: its customer's doing, told by the beginning
// of its id, and where it ends unless a person has to look.
type kind struct {
	prefix   string
	gateway  payment.Gateway
	customer gatewaysim.Customer
	ends     payment.Status
	weight   int
}

var kinds = []kind{
	{"PAY", payment.AMDigiPay, gatewaysim.Customer{Behaviour: gatewaysim.Pays, After: time.Second, UpTo: 3 * time.Second}, payment.Paid, 8},
	{"NEVER", payment.AMDigiPay, gatewaysim.Customer{Behaviour: gatewaysim.NeverPays}, payment.OnProcessing, 1},
	{"CANCEL", payment.AMDigiPay, gatewaysim.Customer{Behaviour: gatewaysim.Cancels, After: time.Second}, payment.Cancelled, 1},
	{"FAIL", payment.AMDigiPay, gatewaysim.Customer{Behaviour: gatewaysim.Fails, After: time.Second}, payment.Failed, 1},
	{"REFUSE", payment.AMDigiPay, gatewaysim.Customer{Behaviour: gatewaysim.Pays}, payment.Rejected, 1},

	{"PAY", payment.Paydia, gatewaysim.Customer{Behaviour: gatewaysim.Pays}, payment.Paid, 6},
	{"LATE", payment.Paydia, gatewaysim.Customer{Behaviour: gatewaysim.PaysLate, After: 3 * time.Second}, payment.Paid, 2},
	{"NEVER", payment.Paydia, gatewaysim.Customer{Behaviour: gatewaysim.NeverPays}, payment.OnProcessing, 1},
	{"CANCEL", payment.Paydia, gatewaysim.Customer{Behaviour: gatewaysim.Cancels, After: time.Second}, payment.Cancelled, 1},
	{"FAIL", payment.Paydia, gatewaysim.Customer{Behaviour: gatewaysim.Fails, After: time.Second}, payment.Failed, 1},
	{"REFUSE", payment.Paydia, gatewaysim.Customer{Behaviour: gatewaysim.Pays}, payment.Rejected, 1},
}

// gateways is how the simulated gateways behave.
func gateways(f flags) gatewaysim.Config {
	c := gatewaysim.DefaultConfig()
	c.Seed = f.Seed
	c.AM.Duplicates = gatewaysim.DuplicateSecond // a second request is a second payment
	c.Customers = nil
	for _, k := range kinds {
		c.Customers = append(c.Customers, gatewaysim.CustomerRule{
			Gateway: gatewaysim.Gateway(k.gateway), Prefix: k.prefix, Customer: k.customer,
		})
	}
	c.Refusals = []gatewaysim.Refusal{
		{Gateway: gatewaysim.AM, Prefix: "REFUSE", Code: "Saldo tidak cukup"},
		{Gateway: gatewaysim.Paydia, Prefix: "REFUSE", Code: "4036314"},
	}
	c.Faults = gatewaysim.EvenFaults(f.FaultRate)
	for i, rule := range c.Faults {
		switch rule.Fault {
		case gatewaysim.FaultLateLost, gatewaysim.FaultLate500:
			c.Faults[i].Delay = settleTime / 2 // what is later than the policy waits cannot be found
		case gatewaysim.FaultSlow:
			c.Faults[i].Delay = gatewayTimeout * 3 / 2
		}
	}
	return c
}

// entry is one payment of a run.
type entry struct {
	kind

	key    payment.Key
	amount int64
	line   string // as an order system writes it
}

// newPayments makes n payments, the kinds by their weight.
func newPayments(seed uint64, n int) []entry {
	decks := map[payment.Gateway][]kind{}
	for _, k := range kinds {
		for range k.weight {
			decks[k.gateway] = append(decks[k.gateway], k)
		}
	}
	all := make([]entry, n)
	for i := range all {
		gateway := payment.Gateways()[i%2]
		k := decks[gateway][i/2%len(decks[gateway])]
		key := payment.Key{Gateway: gateway, TransactionID: fmt.Sprintf("%s-%d-%d", k.prefix, seed, i)}
		amount := payment.Rupiah(10_000 + i)
		all[i] = entry{kind: k, key: key, amount: int64(amount), line: line(key, amount)}
	}
	return all
}

func line(key payment.Key, amount payment.Rupiah) string {
	var body any
	token := ""
	if key.Gateway == payment.Paydia {
		token = "token-of-" + key.TransactionID
		body = order.Paydia{
			PartnerReferenceNo: key.TransactionID, MerchantID: "240327001000000", Title: "chaos",
			Amount: order.Amount{Value: amount.Decimal(), Currency: "IDR"},
		}
	} else {
		body = order.AMDigiPay{
			PaymentID: 33, ExpiredDate: time.Now().Add(24 * time.Hour).In(payment.Jakarta).Format(time.DateTime),
			Nominal: amount, TransactionID: key.TransactionID, TransactionTotal: amount,
			TransactionName: "chaos", TransactionDesc: "chaos", CustomerNumber: "085925065195", CustomerName: "chaos",
			ItemDetails: []order.Item{{ItemID: "item", ItemPrice: amount, ItemTotalPrice: amount, ItemQuantity: 1, ItemName: "item"}},
		}
	}
	text, err := json.Marshal(struct {
		Gateway payment.Gateway `json:"gateway"`
		Token   string          `json:"customer_token,omitempty"`
		Payment any             `json:"payment"`
	}{key.Gateway, token, body})
	if err != nil {
		panic(err) // our own types
	}
	return string(text) + "\n"
}

// states says which statuses tell the truth about a row.
var states = map[gatewaysim.State]payment.Status{
	gatewaysim.Open:      payment.OnProcessing,
	gatewaysim.Paid:      payment.Paid,
	gatewaysim.Cancelled: payment.Cancelled,
	gatewaysim.Failed:    payment.Failed,
}

// agrees reports whether a payment stands where the gateway has it.
func agrees(p *payment.Payment, amount int64, rows []gatewaysim.Row) bool {
	switch {
	case int64(p.Amount) != amount:
		return false
	case p.Status == payment.NeedsReview: // a person is asked only about what the gateway does not have
		return p.Reason != "" && len(rows) == 0
	case p.Status == payment.Rejected:
		return len(rows) == 0
	default:
		return len(rows) == 1 && states[rows[0].State] == p.Status &&
			p.GatewayReference == rows[0].GatewayReference && amount == rows[0].Amount
	}
}
