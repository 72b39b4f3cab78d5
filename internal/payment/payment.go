// Package payment holds the nouns of Terbayar: what a payment is, where it can
// stand, and which moves between those places are legal. It knows nothing of
// Redis, HTTP or queues and imports only the standard library.
package payment

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Gateway names one of the payment gateways Terbayar speaks to.
type Gateway string

// The gateways, as order systems write them in the "gateway" field.
const (
	AMDigiPay Gateway = "amdigipay" // AM Digital Payment, h2h.amdigipay.com
	Paydia    Gateway = "paydia"    // Paydia SNAP, api.paydia.id
)

// Gateways lists every gateway, in the order in which tables show them.
func Gateways() []Gateway { return []Gateway{AMDigiPay, Paydia} }

// ParseGateway turns the "gateway" field of a payment into a Gateway.
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

// String is the key as logs and task ids show it, e.g. "amdigipay:INV-1".
func (k Key) String() string { return string(k.Gateway) + ":" + k.TransactionID }

// Rupiah is an amount of money in whole rupiah. Neither gateway moves sen, so
// an integer says everything and never rounds.
type Rupiah int64

// ErrNotRupiah is what the parsers of this package return for text that is not
// a whole, non-negative amount of rupiah.
var ErrNotRupiah = errors.New("not a whole amount of rupiah")

// maxRupiah bounds every amount so that sums of amounts cannot overflow. It is
// far above what either gateway accepts.
const maxRupiah = 1_000_000_000_000_000

// ParseRupiah reads a plain decimal integer such as "13000", as AM writes
// amounts in its answers.
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

// ParseDecimal reads an amount with exactly two decimals that are both zero,
// such as "10000.00": SNAP's amount.value (Paydia, Auth Payment, body field 3,
// "including the cents").
func ParseDecimal(s string) (Rupiah, error) {
	whole, ok := strings.CutSuffix(s, ".00")
	if !ok {
		return 0, fmt.Errorf("%q does not end in .00: %w", s, ErrNotRupiah)
	}
	return ParseRupiah(whole)
}

// Decimal writes the amount as SNAP does: "10000.00".
func (r Rupiah) Decimal() string { return strconv.FormatInt(int64(r), 10) + ".00" }

// Valid reports whether the amount is one Terbayar handles: positive, and small
// enough that no sum of amounts overflows.
func (r Rupiah) Valid() bool { return r > 0 && r <= maxRupiah }

// Jakarta is the zone of both gateways' times (UTC+7, no summer time). It is a
// fixed zone so that no image needs tzdata.
var Jakarta = time.FixedZone("WIB", 7*60*60)

// Payment is where a payment stands, in the shape that "enqueue status --json"
// prints. A result event carries the same object less Attempts.
type Payment struct {
	Gateway          Gateway   `json:"gateway"`
	TransactionID    string    `json:"transaction_id"`
	Status           Status    `json:"status"`
	GatewayStatus    string    `json:"gateway_status"`    // the gateway's own word or code, e.g. "Terbayar"
	GatewayReference string    `json:"gateway_reference"` // AM's id as text, Paydia's referenceNo
	Amount           Rupiah    `json:"amount"`
	CreatedAt        time.Time `json:"created_at"`
	UpdatedAt        time.Time `json:"updated_at"`
	Reason           string    `json:"reason,omitempty"`        // why it stands in review, in words
	PaymentLinks     string    `json:"payment_links,omitempty"` // where the customer pays, by redirect
	PaymentCode      string    `json:"payment_code,omitempty"`  // what the customer types at a till or bank
	QRCode           string    `json:"qr_code,omitempty"`       // the QRIS payload (EMV) the customer scans
	NextAt           time.Time `json:"next_at,omitzero"`        // when it is next sent or looked up; not in events
	Attempts         []Attempt `json:"attempts"`
}

// Key is the payment's identity.
func (p *Payment) Key() Key { return Key{p.Gateway, p.TransactionID} }

// Kind says what an attempt set out to do.
type Kind string

// The kinds of attempt.
const (
	KindSubmit Kind = "submit" // create-transaction or auth-payment: may move money
	KindLookup Kind = "lookup" // list-transaction or payment query: never moves money
)

// Attempt is one request to a gateway about a payment. A submit stands in the
// ledger from before the request leaves; until its outcome is recorded Code is
// empty.
type Attempt struct {
	At         time.Time `json:"at"`
	Kind       Kind      `json:"kind"`
	Code       string    `json:"code"`        // Paydia's 7 digits, http:NNN, net:unknown, ...
	Message    string    `json:"message"`     // the gateway's own words, cut and masked; "" when it gave none
	HTTPStatus int       `json:"http_status"` // 0: no answer came
	Action     string    `json:"action"`      // what the retry policy made of Code
	DurationMS int64     `json:"duration_ms"`
	ExternalID string    `json:"external_id,omitempty"` // X-EXTERNAL-ID, Paydia only
}

// End is when the attempt's outcome was known.
func (a Attempt) End() time.Time { return a.At.Add(time.Duration(a.DurationMS) * time.Millisecond) }
