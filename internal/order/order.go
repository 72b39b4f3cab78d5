// Package order parses and checks payments in the form in which order systems submit them
// (docs/interface.md, "A payment, as order systems write it"). It rejects, with the name of
// the field, what a gateway would refuse or misread, and what could turn one order into two
// payments: unknown fields, wrong sums, values that are too long, amounts that are not whole
// rupiah, dates that have passed, invisible characters.
package order

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"

	"terbayar/internal/payment"
	"terbayar/internal/secret"
)

// Order is one payment to be made. AMDigiPay or Paydia is set, the one of the Gateway.
type Order struct {
	Gateway       payment.Gateway
	CustomerToken secret.Text // Paydia's Authorization-Customer
	Priority      payment.Priority
	AMDigiPay     *AMDigiPay
	Paydia        *Paydia
}

// AMDigiPay is the body of AM's create-transaction without what the worker adds (username,
// signature). Source: AM "Create Transaction", the example request, with its order of
// fields. (The parameter table on that page is a copy of the login page's.)
type AMDigiPay struct {
	PaymentID        int64          `json:"payment_id" validate:"gt=0"` // payment method, e.g. 33 is QRIS
	ExpiredDate      string         `json:"expired_date" validate:"required,date"`
	Nominal          payment.Rupiah `json:"nominal" validate:"gt=0,lte=1000000000000"`
	AdminFee         payment.Rupiah `json:"admin_fee" validate:"gte=0,lte=1000000000000"`
	TransactionID    string         `json:"transaction_id" validate:"required,max=255,id"`
	TransactionTotal payment.Rupiah `json:"transaction_total" validate:"gt=0,lte=1000000000000"`
	TransactionName  string         `json:"transaction_name" validate:"required,max=255,text"`
	TransactionDesc  string         `json:"transaction_desc" validate:"max=255,text"`
	CustomerNumber   string         `json:"customer_number" validate:"required,max=255,text"`
	CustomerName     string         `json:"customer_name" validate:"required,max=255,text"`
	CustomerEmail    string         `json:"customer_email,omitempty" validate:"omitempty,max=255,id,email"`
	ItemDetails      []Item         `json:"item_details" validate:"min=1,max=1000"`
}

// Item is one entry of AM's item_details. The platform fee is an entry too, with item_id
// "fee".
type Item struct {
	ItemID         string         `json:"item_id" validate:"required,max=255,id"`
	ItemPrice      payment.Rupiah `json:"item_price" validate:"gte=0,lte=1000000000000"`
	ItemTotalPrice payment.Rupiah `json:"item_total_price" validate:"gte=0,lte=1000000000000"`
	ItemQuantity   int64          `json:"item_quantity" validate:"gt=0,lte=1000000"`
	ItemName       string         `json:"item_name" validate:"required,max=255,text"`
}

// Paydia is the body of SNAP Auth Payment (service 63). Source: Paydia "Auth
// Payment", body: lengths and mandatory fields.
type Paydia struct {
	PartnerReferenceNo string `json:"partnerReferenceNo" validate:"required,max=64,id"`
	MerchantID         string `json:"merchantId" validate:"required,max=64,id"`
	Amount             Amount `json:"amount"`
	Title              string `json:"title" validate:"required,max=256,text"`
}

// Amount is SNAP's amount of money: a decimal with two places, and an ISO 4217 currency.
type Amount struct {
	Value    string `json:"value" validate:"required,rupiah"`
	Currency string `json:"currency" validate:"required,eq=IDR"`
}

// Rupiah returns the amount as an integer. It never fails for an amount that Parse accepted.
func (a Amount) Rupiah() (payment.Rupiah, error) { return payment.ParseDecimal(a.Value) }

// Key returns the identity of the payment.
func (o *Order) Key() payment.Key {
	if o.Paydia != nil {
		return payment.Key{Gateway: o.Gateway, TransactionID: o.Paydia.PartnerReferenceNo}
	}
	return payment.Key{Gateway: o.Gateway, TransactionID: o.AMDigiPay.TransactionID}
}

// Amount returns the total that the customer pays.
func (o *Order) Amount() payment.Rupiah {
	if o.Paydia != nil {
		amount, err := o.Paydia.Amount.Rupiah()
		if err != nil { // an order that Parse did not check; 0 is rejected everywhere
			return 0
		}
		return amount
	}
	return o.AMDigiPay.TransactionTotal
}

// ExpiresAt returns the time until which the customer can pay; zero for Paydia, which has no
// such date. AM's expired_date has no time zone; it is Jakarta time.
func (o *Order) ExpiresAt() time.Time {
	if o.AMDigiPay == nil {
		return time.Time{}
	}
	t, err := time.ParseInLocation(time.DateTime, o.AMDigiPay.ExpiredDate, payment.Jakarta)
	if err != nil {
		return time.Time{}
	}
	return t
}

// Content returns the order's "payment" object as compact JSON, with the fields in the
// vendor's order. The ledger stores it, and Restore reads it. It does not contain the
// customer token.
func (o *Order) Content() ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	var body any = o.AMDigiPay
	if o.Paydia != nil {
		body = o.Paydia
	}
	if err := enc.Encode(body); err != nil {
		return nil, err
	}
	return bytes.TrimRight(buf.Bytes(), "\n"), nil
}

// Digest returns the SHA-256 of Content, in hex. Two submissions of one order have the same
// digest, even if their white space, order of keys or customer token differ.
func Digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
