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

// Story is one payment: what happens to it, and how it must end.
type Story struct {
	Key      payment.Key
	What     string
	Order    []byte
	Customer gatewaysim.Customer
	Fault    *gatewaysim.FaultRule
	Refusal  *gatewaysim.Refusal
	Ends     []payment.Status // the events it must have, in order; the last is where it ends
}

// Stories are the demo's payments.
func Stories(now time.Time) []Story {
	var (
		pays     = gatewaysim.Customer{Behaviour: gatewaysim.Pays, After: time.Second, UpTo: 3 * time.Second}
		slow     = gatewaysim.Customer{Behaviour: gatewaysim.Pays, After: 6 * time.Second}
		cancels  = gatewaysim.Customer{Behaviour: gatewaysim.Cancels, After: 2 * time.Second}
		late     = gatewaysim.Customer{Behaviour: gatewaysim.PaysLate, After: 4 * time.Second}
		never    = gatewaysim.Customer{Behaviour: gatewaysim.NeverPays}
		tomorrow = now.Add(24 * time.Hour)
		soon     = now.Add(4 * time.Second)
	)
	am := func(id, what string, expires time.Time, c gatewaysim.Customer, fault gatewaysim.Fault, ends ...payment.Status) Story {
		return Story{
			Key: payment.Key{Gateway: payment.AMDigiPay, TransactionID: id}, What: what, Order: amOrder(id, expires),
			Customer: c, Fault: once(fault, gatewaysim.AMCreate, id), Ends: ends,
		}
	}
	paydia := func(id, what string, c gatewaysim.Customer, fault gatewaysim.Fault, ends ...payment.Status) Story {
		return Story{
			Key: payment.Key{Gateway: payment.Paydia, TransactionID: id}, What: what, Order: paydiaOrder(id),
			Customer: c, Fault: once(fault, gatewaysim.PaydiaPayment, id), Ends: ends,
		}
	}
	refused := am("INV-4", "refused (error:true under HTTP 200)", tomorrow, pays, "", payment.Rejected)
	refused.Refusal = &gatewaysim.Refusal{Gateway: gatewaysim.AM, Prefix: "INV-4", Code: "Transaction refused"}
	insufficient := paydia("ORD-2", "insufficient funds", pays, "", payment.Rejected)
	insufficient.Refusal = &gatewaysim.Refusal{Gateway: gatewaysim.Paydia, Prefix: "ORD-2", Code: "4036314"}
	return []Story{
		am("INV-1", "QRIS, paid after a moment", tomorrow, pays, "", payment.OnProcessing, payment.Paid),
		am("INV-2", "the answer is lost: unknown, then found", tomorrow, slow, gatewaysim.FaultLostAfter, payment.OnProcessing, payment.Paid),
		am("INV-3", "the access token is void", tomorrow, pays, gatewaysim.FaultTokenLost, payment.OnProcessing, payment.Paid),
		refused,
		am("INV-5", "the gateway is busy (429)", tomorrow, pays, gatewaysim.FaultBusy, payment.OnProcessing, payment.Paid),
		am("INV-6", "the customer cancels", tomorrow, cancels, "", payment.OnProcessing, payment.Cancelled),
		am("INV-7", "never paid", soon, never, "", payment.OnProcessing, payment.Expired),
		am("INV-8", "paid after it had expired", soon, late, "", payment.OnProcessing, payment.Expired, payment.Paid),
		paydia("ORD-1", "paid at once", pays, "", payment.Paid),
		insufficient,
		paydia("ORD-3", "the answer is lost: unknown, then found", pays, gatewaysim.FaultLostAfter, payment.Paid),
		paydia("ORD-4", "internal server error, and yet processed", pays, gatewaysim.Fault500After, payment.Paid),
		paydia("ORD-5", "the access token is void", pays, gatewaysim.FaultTokenLost, payment.Paid),
		paydia("ORD-6", "the request is lost: a person decides", pays, gatewaysim.FaultLostBefore, payment.NeedsReview),
	}
}

// once strikes the first request for a payment; no fault, no rule.
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
		panic(err) // plain structs: found by the first run
	}
	return b
}

// tell prints what happened to each payment and counts those that ended as they
// should: in the right place, by the right events.
func tell(ctx context.Context, out io.Writer, book *ledger.Ledger, stream *events.Stream, stories []Story) (int, error) {
	told := map[string][]string{} // statuses by subject, as the events told them
	err := stream.Each(ctx, "", false, func(event []byte) error {
		var e struct {
			Subject string
			Data    struct{ Status string }
		}
		if err := json.Unmarshal(event, &e); err != nil {
			return err
		}
		told[e.Subject] = append(told[e.Subject], e.Data.Status)
		return nil
	})
	if err != nil {
		return 0, err
	}
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Options.SeparateRows = true
	t.AppendHeader(table.Row{"payment", "what happens", "attempts", "status", "events", ""})
	t.SetColumnConfigs([]table.ColumnConfig{
		{Number: 2, WidthMax: 26, WidthMaxEnforcer: text.WrapSoft},
		{Number: 5, WidthMax: 22, WidthMaxEnforcer: text.WrapSoft},
	})
	right := 0
	for _, s := range stories {
		r, err := book.Read(ctx, s.Key)
		if err != nil {
			return 0, err
		}
		mark := "wrong"
		if slices.Equal(told[s.Key.TransactionID], words(s.Ends)) && r.Status == s.Ends[len(s.Ends)-1] {
			mark = "ok"
			right++
		}
		t.AppendRow(table.Row{
			fmt.Sprintf("%s\n%s", s.Key.TransactionID, s.Key.Gateway), s.What, attempts(r.Attempts), status(r.Status),
			fmt.Sprintf("%d: %s", len(told[s.Key.TransactionID]), strings.Join(told[s.Key.TransactionID], ", ")), mark,
		})
	}
	_, err = fmt.Fprintln(out, t.Render())
	return right, err
}

// attempts tells each attempt in a line: kind, code, what followed.
func attempts(all []payment.Attempt) string {
	lines := make([]string, len(all))
	for i, a := range all {
		lines[i] = fmt.Sprintf("%s %s > %s", a.Kind, a.Code, a.Action)
	}
	return strings.Join(lines, "\n")
}

// status is the status, with the word that the whole thing is named after.
func status(s payment.Status) string {
	if s == payment.Paid {
		return "paid\n(Terbayar)"
	}
	return string(s)
}
