package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"time"

	"terbayar/internal/clients"
	"terbayar/internal/ledger"
	"terbayar/internal/order"
	"terbayar/internal/payment"
	"terbayar/internal/testenv"
)

const (
	minID = 20 // shorter ids could be equal
	maxID = 64 // Paydia's limit
)

// Everything about a payment follows from its number.

// random returns a number below n.
func random(n int) int {
	return rand.IntN(n) //nolint:gosec // not a secret
}

// some returns k different numbers below n, in random order; all if there are no more.
func some(k, n int) []int {
	return rand.Perm(n)[:min(k, n)] //nolint:gosec // not a secret
}

// hash returns random hex digits for a payment.
func hash(what string, i int) string {
	sum := sha256.Sum256(fmt.Append(nil, what, " ", i))
	return hex.EncodeToString(sum[:])
}

func uuid(hash string) string {
	return hash[:8] + "-" + hash[8:12] + "-4" + hash[13:16] + "-8" + hash[17:20] + "-" + hash[20:32]
}

// key returns the key of a payment: even numbers go to AM, odd ones to Paydia.
func (o options) key(i int) payment.Key {
	id := hash("id", i)
	if o.ids == 36 {
		id = uuid(id)
	}
	return payment.Key{Gateway: payment.Gateways()[i%2], TransactionID: id[:o.ids]}
}

func amount(i int) payment.Rupiah { return payment.Rupiah(10_000 + i%977*500) }

// newPayment returns a payment as package intake records it. With other, its content differs.
func (o options) newPayment(i int, other bool) (ledger.NewPayment, error) {
	key := o.key(i)
	submitted := testenv.NewOrder(key)
	submitted.Amount = amount(i)
	submitted.Title = fmt.Sprintf("Tagihan internet %06d", i)
	submitted.Name = fmt.Sprintf("Budi Santoso %d", i)
	submitted.Number = fmt.Sprintf("08%010d", i)
	submitted.Email = fmt.Sprintf("budi.%d@example.com", i)
	submitted.Method = methodGopay
	if other {
		submitted.Title += " (2)"
	}
	parsed, err := order.Parse(submitted.Line(), time.Now(), order.Defaults{})
	if err != nil {
		return ledger.NewPayment{}, err
	}
	content, err := parsed.Content()
	p := ledger.NewPayment{Key: key, Amount: parsed.Amount(), Order: content, Digest: order.Digest(content), ExpiresAt: parsed.ExpiresAt()}
	if parsed.Paydia != nil {
		p.MerchantID = parsed.Paydia.MerchantID
	}
	return p, err
}

// methodGopay is the payment method for which AM returns a payment link.
const methodGopay = 37

// reference returns the gateway's reference: AM counts up, Paydia's is random.
func (o options) reference(i int) string {
	if o.key(i).Gateway == payment.AMDigiPay {
		return fmt.Sprint(3_000_000 + i)
	}
	return hash("reference", i)
}

// receipt returns the gateway's answer to a submit, or with paid to a lookup.
func (o options) receipt(i int, paid bool) *clients.Receipt {
	receipt := &clients.Receipt{
		TransactionID: o.key(i).TransactionID, Reference: o.reference(i), Amount: clients.WholeNumber(int64(amount(i))),
		Status: payment.OnProcessing,
	}
	switch isAM := o.key(i).Gateway == payment.AMDigiPay; {
	case isAM:
		receipt.GatewayStatus = "Menunggu Pembayaran"
		receipt.PaymentLinks = "https://app.midtrans.com/snap/v3/redirection/" + uuid(hash("link", i))
	default:
		receipt.Currency, receipt.GatewayStatus = "IDR", "03"
	}
	if paid {
		receipt.Status = payment.Paid
		receipt.GatewayStatus = map[payment.Gateway]string{payment.AMDigiPay: "Terbayar", payment.Paydia: "00"}[o.key(i).Gateway]
	}
	return receipt
}

// attempt returns an attempt without its result.
func attempt(g payment.Gateway, kind payment.Kind, i int) payment.Attempt {
	a := payment.Attempt{At: time.Now().UTC().Truncate(time.Millisecond), Kind: kind}
	if g == payment.Paydia {
		a.ExternalID = fmt.Sprintf("20261126%028d", i)
	}
	return a
}

// accept sets the result of an attempt.
func accept(g payment.Gateway, a payment.Attempt) payment.Attempt {
	a.Code, a.Message, a.HTTPStatus, a.Action, a.DurationMS = "http:200", "success", 200, "accept", 120
	if g == payment.Paydia {
		a.Code, a.Message = "2006300", "Request has been processed successfully"
	}
	return a
}
