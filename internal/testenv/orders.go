package testenv

import (
	"bytes"
	"encoding/json"
	"time"

	"terbayar/internal/order"
	"terbayar/internal/payment"
)

// Order is a payment that an order system submits.
type Order struct {
	Key        payment.Key
	Amount     payment.Rupiah // with the fee
	Title      string
	EscapeHTML bool // writes &, < and > as encoding/json does by default

	// AM only.
	Method  int64 // payment_id
	Fee     payment.Rupiah
	Expires time.Time
	Name    string // of the customer
	Number  string // telephone number of the customer
	Email   string // of the customer

	Token string // of the customer, Paydia only
}

// NewOrder returns an order of 13000 rupiah to AM that can be paid for a day from Start, or
// of 10000 rupiah to Paydia. Its title contains what a signature could get wrong.
func NewOrder(key payment.Key) Order {
	o := Order{
		Key: key, Amount: 13000, Title: `a/b & <c> é "q" 支付`,
		Method: 33, Fee: 3000, Expires: Start.Add(24 * time.Hour), Name: "testing", Number: "085925065195",
	}
	if key.Gateway == payment.Paydia {
		o.Amount, o.Token = 10000, "eyJ.customer."+key.TransactionID
	}
	return o
}

// AMOrder returns the input line of a payment to AM.
func AMOrder(id string) []byte {
	return NewOrder(payment.Key{Gateway: payment.AMDigiPay, TransactionID: id}).Line()
}

// PaydiaOrder returns the input line of a payment to Paydia.
func PaydiaOrder(id string) []byte {
	return NewOrder(payment.Key{Gateway: payment.Paydia, TransactionID: id}).Line()
}

// Line returns the order as one line of the input of "enqueue create", without a newline.
func (o Order) Line() []byte {
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(o.EscapeHTML)
	if err := enc.Encode(struct {
		Gateway payment.Gateway `json:"gateway"`
		Token   string          `json:"customer_token,omitempty"`
		Payment any             `json:"payment"`
	}{o.Key.Gateway, o.Token, o.body()}); err != nil {
		panic(err) // our own types
	}
	return bytes.TrimSuffix(line.Bytes(), []byte("\n"))
}

func (o Order) body() any {
	if o.Key.Gateway == payment.Paydia {
		return order.Paydia{
			PartnerReferenceNo: o.Key.TransactionID, MerchantID: "240327001000000", Title: o.Title,
			Amount: order.Amount{Value: o.Amount.Decimal(), Currency: "IDR"},
		}
	}
	nominal := o.Amount - o.Fee
	return order.AMDigiPay{
		PaymentID: o.Method, ExpiredDate: o.Expires.In(payment.Jakarta).Format(time.DateTime),
		Nominal: nominal, AdminFee: o.Fee, TransactionID: o.Key.TransactionID, TransactionTotal: o.Amount,
		TransactionName: o.Title, TransactionDesc: "testing",
		CustomerNumber: o.Number, CustomerName: o.Name, CustomerEmail: o.Email,
		ItemDetails: []order.Item{
			{ItemID: "testing", ItemPrice: nominal, ItemTotalPrice: nominal, ItemQuantity: 1, ItemName: "testing"},
			{ItemID: "fee", ItemPrice: o.Fee, ItemTotalPrice: o.Fee, ItemQuantity: 1, ItemName: "fee"},
		},
	}
}
