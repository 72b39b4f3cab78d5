package amdigipay

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"terbayar/internal/order"
	"terbayar/internal/payment"
	"terbayar/internal/secret"
)

// The signature schemes. AM does not publish how a request is signed (docs/gateways.md 1.5),
// so the scheme is a setting: AMDIGIPAY_SIGNATURE_SCHEME.
const (
	SchemeSHA256 = "sha256-username-transaction-id" // SHA256
	SchemeHMAC   = "hmac-sha256"                    // HMAC
)

// signer returns the signature of one order.
type signer func(o *order.AMDigiPay) string

// SHA256 returns the signature that a live integration requires: the lower-case hex SHA-256
// of username and transaction_id, concatenated. It contains no secret and covers neither
// amount nor status.
func SHA256(username, transactionID string) string {
	sum := sha256.Sum256([]byte(username + transactionID))
	return hex.EncodeToString(sum[:])
}

// HMAC returns the signature of the other scheme: the lower-case hex HMAC-SHA256 of the
// concatenated values.
func HMAC(key secret.Text, values ...string) string {
	mac := hmac.New(sha256.New, []byte(key.Reveal()))
	mac.Write([]byte(strings.Join(values, "")))
	return hex.EncodeToString(mac.Sum(nil))
}

// signable has the fields of the create body that HMAC can cover. A number is signed as its
// decimal text.
var signable = map[string]func(username string, o *order.AMDigiPay) string{
	"payment_id":        func(_ string, o *order.AMDigiPay) string { return strconv.FormatInt(o.PaymentID, 10) },
	"username":          func(username string, _ *order.AMDigiPay) string { return username },
	"expired_date":      func(_ string, o *order.AMDigiPay) string { return o.ExpiredDate },
	"nominal":           func(_ string, o *order.AMDigiPay) string { return decimal(o.Nominal) },
	"admin_fee":         func(_ string, o *order.AMDigiPay) string { return decimal(o.AdminFee) },
	"transaction_id":    func(_ string, o *order.AMDigiPay) string { return o.TransactionID },
	"transaction_total": func(_ string, o *order.AMDigiPay) string { return decimal(o.TransactionTotal) },
	"transaction_name":  func(_ string, o *order.AMDigiPay) string { return o.TransactionName },
	"transaction_desc":  func(_ string, o *order.AMDigiPay) string { return o.TransactionDesc },
	"customer_number":   func(_ string, o *order.AMDigiPay) string { return o.CustomerNumber },
	"customer_name":     func(_ string, o *order.AMDigiPay) string { return o.CustomerName },
	"customer_email":    func(_ string, o *order.AMDigiPay) string { return o.CustomerEmail },
}

func decimal(r payment.Rupiah) string { return strconv.FormatInt(int64(r), 10) }

// newSigner returns the signer of the scheme in the options.
func newSigner(o Options) (signer, error) {
	fields := slices.Clone(o.SignatureFields)
	for _, name := range fields {
		if signable[name] == nil {
			return nil, fmt.Errorf("AMDIGIPAY_SIGNATURE_FIELDS: %q is not a field of create-transaction that can be signed", name)
		}
	}
	switch o.SignatureScheme {
	case "", SchemeSHA256:
		return func(p *order.AMDigiPay) string { return SHA256(o.Username, p.TransactionID) }, nil
	case SchemeHMAC:
	default:
		return nil, fmt.Errorf("AMDIGIPAY_SIGNATURE_SCHEME is neither %s nor %s", SchemeSHA256, SchemeHMAC)
	}
	if o.SignatureKey.Empty() {
		return nil, errors.New("AMDIGIPAY_SIGNATURE_KEY is missing")
	}
	if len(fields) == 0 {
		return nil, errors.New("AMDIGIPAY_SIGNATURE_FIELDS is missing")
	}
	return func(p *order.AMDigiPay) string {
		values := make([]string, len(fields))
		for i, name := range fields {
			values[i] = signable[name](o.Username, p)
		}
		return HMAC(o.SignatureKey, values...)
	}, nil
}
