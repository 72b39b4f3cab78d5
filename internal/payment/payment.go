// Package payment defines a payment, its statuses, and which changes of status are
// legal. It imports only the standard library: nothing here depends on Redis, HTTP or
// queues.
package payment

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Gateway names a payment gateway.
type Gateway string

// The gateways, as order systems write them in the "gateway" field.
const (
	AMDigiPay Gateway = "amdigipay" // AM Digital Payment, h2h.amdigipay.com
	Paydia    Gateway = "paydia"    // Paydia SNAP, api.paydia.id
)

// Gateways lists every gateway, in the order in which tables show them.
func Gateways() []Gateway { return []Gateway{AMDigiPay, Paydia} }

// ParseGateway parses the "gateway" field of a payment.
func ParseGateway(s string) (Gateway, error) {
	for _, g := range Gateways() {
		if s == string(g) {
			return g, nil
		}
	}
	return "", fmt.Errorf("unknown gateway %q (want amdigipay or paydia)", s)
}

// Key identifies a payment: a transaction id is unique within its gateway.
type Key struct {
	Gateway       Gateway
	TransactionID string // AM's transaction_id, Paydia's partnerReferenceNo
}

// String returns the key as logs and task ids show it, e.g. "amdigipay:INV-1".
func (k Key) String() string { return string(k.Gateway) + ":" + k.TransactionID }

// Rupiah is an amount of money in whole rupiah. Neither gateway uses sen (1/100
// rupiah), so an integer is exact.
type Rupiah int64

// ErrNotRupiah is returned by ParseRupiah and ParseDecimal for text that is not a whole,
// non-negative amount of rupiah.
var ErrNotRupiah = errors.New("not a whole amount of rupiah")

// maxRupiah is the largest amount, so that sums of amounts cannot overflow. It is far
// above what either gateway accepts.
const maxRupiah = 1_000_000_000_000_000

// ParseRupiah parses a plain decimal integer such as "13000", the form of amounts in AM's
// answers.
func ParseRupiah(s string) (Rupiah, error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, fmt.Errorf("%q: %w", s, ErrNotRupiah)
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n > maxRupiah {
		return 0, fmt.Errorf("%q: %w", s, ErrNotRupiah)
	}
	return Rupiah(n), nil
}

// ParseDecimal parses an amount with exactly two decimals that are both zero, such as
// "10000.00": SNAP's amount.value (Paydia, Auth Payment, body field 3, "including the
// cents").
func ParseDecimal(s string) (Rupiah, error) {
	whole, ok := strings.CutSuffix(s, ".00")
	if !ok {
		return 0, fmt.Errorf("%q does not end in .00: %w", s, ErrNotRupiah)
	}
	return ParseRupiah(whole)
}

// Decimal returns the amount in SNAP's form, e.g. "10000.00".
func (r Rupiah) Decimal() string { return strconv.FormatInt(int64(r), 10) + ".00" }

// Valid reports whether the amount is positive, and small enough that sums of amounts
// cannot overflow.
func (r Rupiah) Valid() bool { return r > 0 && r <= maxRupiah }

// Jakarta is the time zone of both gateways (UTC+7, no daylight saving time). It is a
// fixed zone so that container images need no tzdata.
var Jakarta = time.FixedZone("WIB", 7*60*60)

// Priority says which payments of a gateway are sent first.
type Priority string

// The priorities.
const (
	Normal      Priority = ""            // as order systems write it: "normal", or nothing
	Interactive Priority = "interactive" // a customer waits: sent before what is normal
)

// Payment is a payment with its status, in the form that "enqueue status --json" prints.
// A result event carries the same object without Attempts.
type Payment struct {
	Gateway          Gateway   `json:"gateway"`
	TransactionID    string    `json:"transaction_id"`
	Status           Status    `json:"status"`
	GatewayStatus    string    `json:"gateway_status"`    // the gateway's own status word or code, e.g. "Terbayar"
	GatewayReference string    `json:"gateway_reference"` // AM's id as text, Paydia's referenceNo
	Amount           Rupiah    `json:"amount"`
	CreatedAt        time.Time `json:"created_at"`
	UpdatedAt        time.Time `json:"updated_at"`
	Reason           string    `json:"reason,omitempty"`        // why it is in needs_review, in words
	PaymentLinks     string    `json:"payment_links,omitempty"` // URL to redirect the customer to
	PaymentCode      string    `json:"payment_code,omitempty"`  // number with which the customer pays in a shop or at a bank
	QRCode           string    `json:"qr_code,omitempty"`       // QRIS payload (EMV) for the customer to scan
	NextAt           time.Time `json:"next_at,omitzero"`        // when it is next sent or looked up; zero in events
	Attempts         []Attempt `json:"attempts"`
	Priority         Priority  `json:"-"`
}

// Key returns the payment's identity.
func (p *Payment) Key() Key { return Key{p.Gateway, p.TransactionID} }

// Kind is the kind of an attempt.
type Kind string

// The kinds of attempt.
const (
	KindSubmit Kind = "submit" // create-transaction or auth-payment: may move money
	KindLookup Kind = "lookup" // list-transaction or payment query: never moves money
)

// Attempt is one request to a gateway about a payment. The ledger records a submit before
// the request leaves; Code is empty until its outcome is recorded.
type Attempt struct {
	At         time.Time `json:"at"`
	Kind       Kind      `json:"kind"`
	Code       string    `json:"code"`        // Paydia's 7 digits, http:NNN, net:unknown, ...
	Message    string    `json:"message"`     // the gateway's message, truncated and masked; "": none
	HTTPStatus int       `json:"http_status"` // 0: no answer
	Action     string    `json:"action"`      // what the retry policy decided
	DurationMS int64     `json:"duration_ms"`
	ExternalID string    `json:"external_id,omitempty"` // X-EXTERNAL-ID, Paydia only
}

// End returns the time when the attempt's outcome was known.
func (a Attempt) End() time.Time { return a.At.Add(time.Duration(a.DurationMS) * time.Millisecond) }
