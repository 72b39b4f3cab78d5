package programs

import (
	"fmt"
	"slices"
	"time"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/payment"
	"terbayar/internal/testenv"
)

// Kind is a kind of payment: what its customer does, which the simulators derive from the
// beginning of its id, and the status in which it ends.
type Kind struct {
	Prefix   string
	Gateway  payment.Gateway
	Customer gatewaysim.Customer
	Expires  time.Duration // AM only; 0: a day
	Ends     payment.Status
	Weight   int
}

// soon is the time until a payment expires that has to expire during a test: long enough to
// send it first.
const soon = 15 * time.Second

// kinds are all kinds. A Paydia customer who pays, pays at once; the others are looked up
// until they have decided.
var kinds = []Kind{
	{"PAY", payment.AMDigiPay, gatewaysim.Customer{Behaviour: gatewaysim.Pays, After: time.Second, UpTo: 3 * time.Second}, 0, payment.Paid, 8},
	{"LATE", payment.AMDigiPay, gatewaysim.Customer{Behaviour: gatewaysim.PaysLate, After: 4 * time.Second}, soon, payment.Paid, 1},
	{"NEVER", payment.AMDigiPay, gatewaysim.Customer{Behaviour: gatewaysim.NeverPays}, 0, payment.OnProcessing, 1},
	{"EXPIRE", payment.AMDigiPay, gatewaysim.Customer{Behaviour: gatewaysim.NeverPays}, soon, payment.Expired, 1},
	{"CANCEL", payment.AMDigiPay, gatewaysim.Customer{Behaviour: gatewaysim.Cancels, After: time.Second}, 0, payment.Cancelled, 1},
	{"FAIL", payment.AMDigiPay, gatewaysim.Customer{Behaviour: gatewaysim.Fails, After: time.Second}, 0, payment.Failed, 1},
	{"REFUND", payment.AMDigiPay, gatewaysim.Customer{Behaviour: gatewaysim.Refunds, After: time.Millisecond}, 0, payment.Refunded, 1},
	{"REFUSE", payment.AMDigiPay, gatewaysim.Customer{Behaviour: gatewaysim.Pays}, 0, payment.Rejected, 1},

	{"PAY", payment.Paydia, gatewaysim.Customer{Behaviour: gatewaysim.Pays}, 0, payment.Paid, 8},
	{"LATE", payment.Paydia, gatewaysim.Customer{Behaviour: gatewaysim.PaysLate, After: 3 * time.Second}, 0, payment.Paid, 2},
	{"NEVER", payment.Paydia, gatewaysim.Customer{Behaviour: gatewaysim.NeverPays}, 0, payment.OnProcessing, 1},
	{"CANCEL", payment.Paydia, gatewaysim.Customer{Behaviour: gatewaysim.Cancels, After: time.Second}, 0, payment.Cancelled, 1},
	{"FAIL", payment.Paydia, gatewaysim.Customer{Behaviour: gatewaysim.Fails, After: time.Second}, 0, payment.Failed, 1},
	{"REFUSE", payment.Paydia, gatewaysim.Customer{Behaviour: gatewaysim.Pays}, 0, payment.Rejected, 2},
}

// KindsWith returns the kinds with these prefixes; without prefixes, all kinds.
func KindsWith(prefixes ...string) []Kind {
	return slices.DeleteFunc(slices.Clone(kinds), func(k Kind) bool {
		return len(prefixes) > 0 && !slices.Contains(prefixes, k.Prefix)
	})
}

// UseKinds makes the simulated customers, and the refusals of the gateways, those of the
// kinds.
func UseKinds(c *gatewaysim.Config) {
	c.Customers = nil
	for _, k := range kinds {
		c.Customers = append(c.Customers, gatewaysim.CustomerRule{
			Gateway: gatewaysim.Gateway(k.Gateway), Prefix: k.Prefix + "-", Customer: k.Customer,
		})
	}
	c.Refusals = []gatewaysim.Refusal{
		{Gateway: gatewaysim.AM, Prefix: "REFUSE", Code: "Saldo tidak cukup"},
		{Gateway: gatewaysim.Paydia, Prefix: "REFUSE", Code: "4036314"},
	}
}

// NewMix returns n payments, alternately to AM and Paydia, each kind by its weight. The id of
// the payment with the index i is PREFIX-i. The edit may change the orders.
func NewMix(n int, kinds []Kind, edit func(i int, o *testenv.Order)) []Payment {
	byGateway := map[payment.Gateway][]Kind{}
	for _, k := range kinds {
		byGateway[k.Gateway] = append(byGateway[k.Gateway], slices.Repeat([]Kind{k}, k.Weight)...)
	}
	all := make([]Payment, n)
	for i := range all {
		gateway := payment.Gateways()[i%2]
		choice := byGateway[gateway]
		k := choice[i/2%len(choice)]
		o := testenv.NewOrder(payment.Key{Gateway: gateway, TransactionID: fmt.Sprintf("%s-%d", k.Prefix, i)})
		o.Amount = payment.Rupiah(10_000 + i)
		o.Expires = time.Now().Add(24 * time.Hour)
		if k.Expires != 0 {
			o.Expires = time.Now().Add(k.Expires)
		}
		if edit != nil {
			edit(i, &o)
		}
		all[i] = NewPayment(o, k.Ends)
	}
	return all
}
