package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"terbayar/internal/payment"
)

// version of the records this code writes. A record of a newer version is left
// alone: ErrNewer.
const version = 2

// Record is a payment as the ledger keeps it: what the outside sees, what the
// worker needs to go on with it, and the revision that fences off whoever read
// an older one. Change it and hand it to Save.
type Record struct {
	payment.Payment

	Order       []byte    // the gateway's part of the order, JSON; only from Claim and Read
	SealedToken string    // the customer token, sealed; gone once the payment is final
	MerchantID  string    // Paydia's merchantId
	ExpiresAt   time.Time // until when the customer can pay; zero: no such date
	Due         time.Time // when it is next looked at, zero: never again; for Save to set, not read back
	After       time.Time // a queued payment is not claimed before; for Save to set, not read back
	Floor       int64     // the highest numeric reference known when it was first sent; 0: none

	Retries   int       // submits so far that were certainly not processed
	Refreshes int       // submits so far whose access token was void
	Doubts    int       // submits so far whose outcome nobody knew
	Doubt     string    // the code of the submit whose outcome is being looked up
	Since     time.Time // since when its outcome is unknown: the end of that attempt
	Lookups   int       // look-ups of it so far
	NotFound  int       // of these, how many were answered "no such payment"

	was      payment.Status // as read
	rev      int64
	nonce    string // of the call that wrote that revision
	saving   string // the nonce of the save under way: tried again, it is the same one
	events   int64
	attempts int // how many stand in the ledger
	lease    time.Time
	changed  *payment.Attempt // the attempt to write with the next Save
	number   int              // its number
}

// Close writes the outcome of the submit that Claim opened.
func (r *Record) Close(a payment.Attempt) { r.changed, r.number = &a, r.attempts }

// Append adds an attempt of its own: a look-up.
func (r *Record) Append(a payment.Attempt) { r.changed, r.number = &a, r.attempts+1 }

// Lapsed reports whether the payment was claimed by somebody who has not come
// back in time: a request may have left, and nobody knows what became of it.
func (r *Record) Lapsed(now time.Time) bool {
	return r.Status == payment.Submitting && !r.lease.After(now)
}

// LeaseEnd is until when the claim on the payment is held; zero without one.
func (r *Record) LeaseEnd() time.Time { return r.lease }

// numeric is the gateway's reference where that is a number that Lua can compare
// exactly, as AM's ids are; 0 where it is not.
func (r *Record) numeric() int64 {
	n, err := strconv.ParseInt(r.GatewayReference, 10, 64)
	if err != nil || n < 0 || n > 1<<53 {
		return 0
	}
	return n
}

// facts is the part of a record that only this code reads: one field of the
// hash, JSON. Scripts have no use for it.
type facts struct {
	Amount           payment.Rupiah `json:"amount"`
	CreatedAt        time.Time      `json:"created_at"`
	ExpiresAt        time.Time      `json:"expires_at,omitzero"`
	MerchantID       string         `json:"merchant_id,omitempty"`
	GatewayStatus    string         `json:"gateway_status,omitempty"`
	GatewayReference string         `json:"gateway_reference,omitempty"`
	Reason           string         `json:"reason,omitempty"`
	PaymentLinks     string         `json:"payment_links,omitempty"`
	PaymentCode      string         `json:"payment_code,omitempty"`
	QRCode           string         `json:"qr_code,omitempty"`
	Retries          int            `json:"retries,omitempty"`
	Refreshes        int            `json:"refreshes,omitempty"`
	Doubts           int            `json:"doubts,omitempty"`
	Doubt            string         `json:"doubt,omitempty"`
	Since            time.Time      `json:"since,omitzero"`
	Lookups          int            `json:"lookups,omitempty"`
	NotFound         int            `json:"not_found,omitempty"`
}

func (r *Record) facts() ([]byte, error) {
	return json.Marshal(facts{
		Amount: r.Amount, CreatedAt: r.CreatedAt, ExpiresAt: r.ExpiresAt, MerchantID: r.MerchantID,
		GatewayStatus: r.GatewayStatus, GatewayReference: r.GatewayReference, Reason: r.Reason,
		PaymentLinks: r.PaymentLinks, PaymentCode: r.PaymentCode, QRCode: r.QRCode,
		Retries: r.Retries, Refreshes: r.Refreshes, Doubts: r.Doubts, Doubt: r.Doubt, Since: r.Since,
		Lookups: r.Lookups, NotFound: r.NotFound,
	})
}

// decode reads a record from the fields of its hash; absent ones stay empty.
func decode(key payment.Key, fields map[string]string) (r *Record, err error) {
	if fields["v"] == "" {
		return nil, fmt.Errorf("ledger: read %s: %w", key, ErrNotFound)
	}
	if fields["v"] != strconv.Itoa(version) {
		return nil, fmt.Errorf("ledger: %s has version %q: %w", key, fields["v"], ErrNewer)
	}
	var f facts
	rev, err1 := strconv.ParseInt(fields["rev"], 10, 64)
	events, err2 := strconv.ParseInt(fields["events"], 10, 64)
	attempts, err3 := strconv.Atoi(fields["attempts"])
	updated, err4 := strconv.ParseInt(fields["updated"], 10, 64)
	err5 := json.Unmarshal([]byte(fields["facts"]), &f)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return nil, fmt.Errorf("ledger: %s is damaged: %w", key, err)
	}
	r = &Record{
		Payment: payment.Payment{
			Gateway: key.Gateway, TransactionID: key.TransactionID,
			Status: payment.Status(fields["status"]), Amount: f.Amount,
			GatewayStatus: f.GatewayStatus, GatewayReference: f.GatewayReference, Reason: f.Reason,
			PaymentLinks: f.PaymentLinks, PaymentCode: f.PaymentCode, QRCode: f.QRCode,
			CreatedAt: f.CreatedAt, UpdatedAt: time.UnixMilli(updated).UTC(),
			Attempts: []payment.Attempt{},
		},
		Order: []byte(fields["order"]), SealedToken: fields["token"],
		MerchantID: f.MerchantID, ExpiresAt: f.ExpiresAt,
		Retries: f.Retries, Refreshes: f.Refreshes, Doubts: f.Doubts, Doubt: f.Doubt, Since: f.Since,
		Lookups: f.Lookups, NotFound: f.NotFound,
		was: payment.Status(fields["status"]), rev: rev, nonce: fields["nonce"], events: events, attempts: attempts,
	}
	if floor := fields["floor"]; floor != "" {
		if r.Floor, err = strconv.ParseInt(floor, 10, 64); err != nil {
			return nil, fmt.Errorf("ledger: %s is damaged: floor: %w", key, err)
		}
	}
	if lease := fields["lease"]; lease != "" {
		ms, err := strconv.ParseInt(lease, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("ledger: %s is damaged: lease: %w", key, err)
		}
		r.lease = time.UnixMilli(ms).UTC()
	}
	for n := 1; n <= attempts; n++ {
		text, ok := fields["a:"+strconv.Itoa(n)]
		if !ok { // not asked for
			continue
		}
		var a payment.Attempt
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			return nil, fmt.Errorf("ledger: %s is damaged: attempt %d: %w", key, n, err)
		}
		r.Attempts = append(r.Attempts, a)
	}
	return r, nil
}
