package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"terbayar/internal/events"
	"terbayar/internal/gatewaysim"
	"terbayar/internal/ledger"
	"terbayar/internal/order"
	"terbayar/internal/payment"
)

// Scenario is one payment, what the customer and the gateway do, and the expected events.
type Scenario struct {
	Key      payment.Key
	Text     string
	Order    []byte
	Customer gatewaysim.Customer
	Fault    *gatewaysim.FaultRule
	Refusal  *gatewaysim.Refusal
	Events   []payment.Status // the statuses of the expected events, in order
}

// final returns the status in which the payment must end.
func (s Scenario) final() payment.Status { return s.Events[len(s.Events)-1] }

// Scenarios returns the demo's payments.
func Scenarios(now time.Time) []Scenario {
	var (
		pays     = gatewaysim.Customer{Behaviour: gatewaysim.Pays, After: time.Second, UpTo: 3 * time.Second}
		slow     = gatewaysim.Customer{Behaviour: gatewaysim.Pays, After: 6 * time.Second}
		cancels  = gatewaysim.Customer{Behaviour: gatewaysim.Cancels, After: 2 * time.Second}
		late     = gatewaysim.Customer{Behaviour: gatewaysim.PaysLate, After: 4 * time.Second}
		never    = gatewaysim.Customer{Behaviour: gatewaysim.NeverPays}
		tomorrow = now.Add(24 * time.Hour)
		soon     = now.Add(4 * time.Second)
	)
	am := func(id, text string, expires time.Time, c gatewaysim.Customer, fault gatewaysim.Fault, events ...payment.Status) Scenario {
		return Scenario{
			Key: payment.Key{Gateway: payment.AMDigiPay, TransactionID: id}, Text: text, Order: amOrder(id, expires),
			Customer: c, Fault: once(fault, gatewaysim.AMCreate, id), Events: events,
		}
	}
	paydia := func(id, text string, c gatewaysim.Customer, fault gatewaysim.Fault, events ...payment.Status) Scenario {
		return Scenario{
			Key: payment.Key{Gateway: payment.Paydia, TransactionID: id}, Text: text, Order: paydiaOrder(id),
			Customer: c, Fault: once(fault, gatewaysim.PaydiaPayment, id), Events: events,
		}
	}
	refused := am("INV-4", "refused: error:true with HTTP 200", tomorrow, pays, "", payment.Rejected)
	refused.Refusal = &gatewaysim.Refusal{Gateway: gatewaysim.AM, Prefix: "INV-4", Code: "Transaction refused"}
	insufficient := paydia("ORD-2", "refused: insufficient funds", pays, "", payment.Rejected)
	insufficient.Refusal = &gatewaysim.Refusal{Gateway: gatewaysim.Paydia, Prefix: "ORD-2", Code: "4036314"}
	return []Scenario{
		am("INV-1", "QRIS, paid after some seconds", tomorrow, pays, "", payment.OnProcessing, payment.Paid),
		am("INV-2", "no answer; a lookup finds the payment", tomorrow, slow, gatewaysim.FaultLostAfter, payment.OnProcessing, payment.Paid),
		am("INV-3", "the access token is invalid; new login, sent again", tomorrow, pays, gatewaysim.FaultTokenLost, payment.OnProcessing, payment.Paid),
		refused,
		am("INV-5", "too many requests (429); sent again later", tomorrow, pays, gatewaysim.FaultBusy, payment.OnProcessing, payment.Paid),
		am("INV-6", "the customer cancels", tomorrow, cancels, "", payment.OnProcessing, payment.Cancelled),
		am("INV-7", "not paid before it expires", soon, never, "", payment.OnProcessing, payment.Expired),
		am("INV-8", "paid after it expired", soon, late, "", payment.OnProcessing, payment.Expired, payment.Paid),
		paydia("ORD-1", "paid immediately", pays, "", payment.Paid),
		insufficient,
		paydia("ORD-3", "no answer; a lookup finds the payment", pays, gatewaysim.FaultLostAfter, payment.Paid),
		paydia("ORD-4", "error 500, but it was processed; a lookup finds it", pays, gatewaysim.Fault500After, payment.Paid),
		paydia("ORD-5", "the access token is invalid; new login, sent again", pays, gatewaysim.FaultTokenLost, payment.Paid),
		paydia("ORD-6", "no answer; lookups find nothing: manual review", pays, gatewaysim.FaultLostBefore, payment.NeedsReview),
	}
}

// once returns a rule that applies the fault to the first request for a payment; nil without
// a fault.
func once(fault gatewaysim.Fault, op gatewaysim.Operation, id string) *gatewaysim.FaultRule {
	if fault == "" {
		return nil
	}
	return &gatewaysim.FaultRule{Fault: fault, Operation: op, Reference: id, Count: 1}
}

func amOrder(id string, expires time.Time) []byte {
	return document(map[string]any{"gateway": payment.AMDigiPay, "payment": order.AMDigiPay{
		PaymentID: 33, ExpiredDate: expires.In(payment.Jakarta).Format(time.DateTime),
		Nominal: 10000, AdminFee: 3000, TransactionID: id, TransactionTotal: 13000,
		TransactionName: "Kopi & roti", TransactionDesc: "demo",
		CustomerNumber: "085925065195", CustomerName: "Siti", CustomerEmail: "siti@example.com",
		ItemDetails: []order.Item{
			{ItemID: "kopi", ItemPrice: 5000, ItemTotalPrice: 10000, ItemQuantity: 2, ItemName: "Kopi"},
			{ItemID: "fee", ItemPrice: 3000, ItemTotalPrice: 3000, ItemQuantity: 1, ItemName: "fee"},
		},
	}})
}

func paydiaOrder(id string) []byte {
	return document(map[string]any{"gateway": payment.Paydia, "customer_token": "eyJ0eXAi.demo." + id, "payment": order.Paydia{
		PartnerReferenceNo: id, MerchantID: gatewaysim.DefaultConfig().Paydia.MerchantID,
		Amount: order.Amount{Value: "10000.00", Currency: "IDR"}, Title: "Kopi & roti",
	}})
}

func document(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain structs: cannot fail
	}
	return b
}

// printResults prints what happened to each payment. It returns the number of payments with
// the expected status and events.
func printResults(ctx context.Context, out io.Writer, records *ledger.Ledger, stream *events.Streams, scenarios []Scenario) (int, error) {
	received := map[string][]string{} // by transaction id: the statuses of its events
	err := stream.Each(ctx, "", false, func(event []byte, _ string) error {
		var e struct {
			Subject string
			Data    struct{ Status string }
		}
		if err := json.Unmarshal(event, &e); err != nil {
			return err
		}
		received[e.Subject] = append(received[e.Subject], e.Data.Status)
		return nil
	})
	if err != nil {
		return 0, err
	}
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Options.SeparateRows = true
	t.AppendHeader(table.Row{"payment", "what happens", "attempts", "status", "events", "expected"})
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 2, WidthMax: 26, WidthMaxEnforcer: text.WrapSoft}})
	expected := 0
	for _, s := range scenarios {
		r, err := records.Read(ctx, s.Key)
		if err != nil {
			return 0, err
		}
		got, mark := received[s.Key.TransactionID], "NO"
		if r.Status == s.final() && slices.Equal(got, texts(s.Events)) {
			mark = "yes"
			expected++
		}
		t.AppendRow(table.Row{
			fmt.Sprintf("%s\n%s", s.Key.TransactionID, s.Key.Gateway), s.Text, attempts(r.Attempts), status(r.Status),
			strings.Join(got, "\n"), mark,
		})
	}
	_, err = fmt.Fprintln(out, t.Render()+`
attempts: each request to the gateway; its answer: an HTTP status, Paydia's code of 7
digits, error:true (AM refused), or net:unknown (no answer); > what the worker decided`)
	return expected, err
}

// attempts returns a line for each attempt: kind, code, and the worker's decision.
func attempts(all []payment.Attempt) string {
	lines := make([]string, len(all))
	for i, a := range all {
		lines[i] = fmt.Sprintf("%s %s > %s", a.Kind, a.Code, a.Action)
	}
	return strings.Join(lines, "\n")
}

// status returns the status; "Terbayar" is the Indonesian word for paid.
func status(s payment.Status) string {
	if s == payment.Paid {
		return "paid\n(Terbayar)"
	}
	return string(s)
}

func texts(statuses []payment.Status) []string {
	texts := make([]string, len(statuses))
	for i, s := range statuses {
		texts[i] = string(s)
	}
	return texts
}
