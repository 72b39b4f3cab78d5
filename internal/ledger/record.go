package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"terbayar/internal/durable"
	"terbayar/internal/payment"
)

// version is the version of the records that this code reads and writes. It ignores
// records of other versions: ErrOtherVersion.
const version = 2

// Record is a payment in the ledger: the payment as others see it, what the worker needs
// to continue with it, and the fencing token that it was read with. Change it and Save it.
//
// Its times, except those in Attempts, are by Redis' clock: compare them with Now only.
type Record struct {
	payment.Payment

	Order          []byte    // the gateway's part of the order, JSON; only from Claim and Read
	EncryptedToken string    // the customer token, encrypted; deleted when the payment is final
	MerchantID     string    // Paydia's merchantId
	ExpiresAt      time.Time // until then the customer can pay; zero: no limit
	FirstClaim     time.Time // time of the first claim; zero: never claimed
	LowestID       int64     // lowest possible gateway reference: the highest known at the first claim; 0: unknown

	Due       Due           // the next lookup; set it before Save, it is not read back
	NotBefore time.Duration // a queued payment cannot be claimed for that long; set it before Save, it is not read back

	Retries      int       // submits that were certainly not processed
	Refreshes    int       // submits whose access token was rejected
	Unknowns     int       // submits whose outcome was unknown
	UnknownCode  string    // the code of the submit whose outcome is being looked up
	UnknownSince time.Time // when the outcome became unknown, or when the primary last changed since
	Lookups      int       // lookups so far; MarkUnknown resets it
	NotFound     int       // of these, answered "no such payment" since the primary last changed
	BadToken     bool      // no worker could decrypt the customer token; set it before Save, it is not read back
	Contradicted bool      // it is in needs_review because the gateway's answer contradicts the order

	clock        durable.Time // Redis' clock when the record was read
	claimStarted time.Time    // when the claim was sent, by this process' clock
	readStatus   payment.Status
	readReason   string
	rev          int64  // with request: the fencing token
	request      string // the id of the request that wrote this revision
	primary      string // the primary whose clock UnknownSince is from
	events       int64
	attempts     int // the number of attempts in the ledger

	// The next Save.
	saveID         string           // its request id; a second try uses the same one
	attempt        *payment.Attempt // the attempt to write
	attemptNumber  int
	restartUnknown bool // set UnknownSince to the time of the save
	onlyIfExpired  bool // save only if the claim has expired
}

// Due is the time of the next lookup. The zero value means never.
type Due struct {
	set  bool
	in   time.Duration
	grid time.Duration
}

// In returns the time that is d from now.
func In(d time.Duration) Due { return Due{set: true, in: max(d, 0)} }

// OnGrid returns the next multiple of the interval, by Redis' clock: payments that become
// due together share one poll.
func OnGrid(interval time.Duration) Due { return Due{set: true, grid: interval} }

// Never reports whether there is no next lookup.
func (d Due) Never() bool { return !d.set }

// Now converts a time of this process' clock, after the record was read, to Redis' clock.
func (r *Record) Now(local time.Time) time.Time { return r.clock.At(local) }

// NextAttempt returns when the payment is next sent or looked up if it is saved at the given
// time of this process' clock. It computes the same as saveScript. The zero time: never.
func (r *Record) NextAttempt(local time.Time) time.Time {
	now := r.Now(local)
	switch {
	case r.Status.Final():
		return time.Time{}
	case r.Status == payment.Queued:
		return now.Add(r.NotBefore)
	case r.Due.Never():
		return time.Time{}
	case r.Due.grid > 0:
		grid := r.Due.grid.Milliseconds()
		return time.UnixMilli(now.UnixMilli()/grid*grid + grid).UTC()
	default:
		return now.Add(r.Due.in)
	}
}

// FinishAttempt replaces the attempt that Claim has added, with the next Save.
func (r *Record) FinishAttempt(a payment.Attempt) { r.attempt, r.attemptNumber = &a, r.attempts }

// AddAttempt adds an attempt, such as a lookup, with the next Save.
func (r *Record) AddAttempt(a payment.Attempt) { r.attempt, r.attemptNumber = &a, r.attempts+1 }

// MarkUnknown sets the status to verifying: the outcome of the submit that ended with the code
// is unknown.
func (r *Record) MarkUnknown(code string) {
	r.Status = payment.Verifying
	r.Unknowns++
	r.UnknownCode, r.Lookups, r.NotFound, r.restartUnknown = code, 0, 0, true
}

// RestartCount sets NotFound to zero and UnknownSince to now if the primary has changed
// since they began: the clock of one primary cannot measure a time from another's. local
// is the time by this process' clock.
func (r *Record) RestartCount(primary string, local time.Time) {
	if r.Status == payment.Verifying && r.primary != primary {
		r.NotFound, r.UnknownSince = 0, r.Now(local)
		r.restartUnknown, r.primary = true, primary
	}
}

// SinceClaim returns the time since the claim was sent: the longer of what the monotonic
// clock and the wall clock measure. Either may have stopped while the process or the machine
// was frozen.
func (r *Record) SinceClaim(now time.Time) time.Duration {
	return max(now.Sub(r.claimStarted), now.Round(0).Sub(r.claimStarted.Round(0)))
}

// numericReference returns the gateway reference if it is a number that Lua can compare
// exactly, as AM's ids are; otherwise 0.
func (r *Record) numericReference() int64 {
	n, err := strconv.ParseInt(r.GatewayReference, 10, 64)
	if err != nil || n < 0 || n > maxNumber {
		return 0
	}
	return n
}

// facts are the parts of a record that no script reads. They are one field of the hash, as
// JSON.
type facts struct {
	Amount           payment.Rupiah `json:"amount"`
	MerchantID       string         `json:"merchant_id,omitempty"`
	GatewayStatus    string         `json:"gateway_status,omitempty"`
	GatewayReference string         `json:"gateway_reference,omitempty"`
	Reason           string         `json:"reason,omitempty"`
	PaymentLinks     string         `json:"payment_links,omitempty"`
	PaymentCode      string         `json:"payment_code,omitempty"`
	QRCode           string         `json:"qr_code,omitempty"`
	Retries          int            `json:"retries,omitempty"`
	Refreshes        int            `json:"refreshes,omitempty"`
	Unknowns         int            `json:"unknowns,omitempty"`
	UnknownCode      string         `json:"unknown_code,omitempty"`
	Lookups          int            `json:"lookups,omitempty"`
	NotFound         int            `json:"not_found,omitempty"`
	Contradicted     bool           `json:"contradicted,omitempty"`
}

func (r *Record) facts() ([]byte, error) {
	return json.Marshal(facts{
		Amount: r.Amount, MerchantID: r.MerchantID,
		GatewayStatus: r.GatewayStatus, GatewayReference: r.GatewayReference, Reason: r.Reason,
		PaymentLinks: r.PaymentLinks, PaymentCode: r.PaymentCode, QRCode: r.QRCode,
		Retries: r.Retries, Refreshes: r.Refreshes, Unknowns: r.Unknowns, UnknownCode: r.UnknownCode,
		Lookups: r.Lookups, NotFound: r.NotFound, Contradicted: r.Contradicted,
	})
}

// decode returns the record with the fields of its hash. Missing fields stay empty.
func decode(key payment.Key, fields map[string]string, clock durable.Time) (*Record, error) {
	if fields["v"] == "" {
		return nil, fmt.Errorf("ledger: read %s: %w", key, ErrNotFound)
	}
	if fields["v"] != strconv.Itoa(version) {
		return nil, fmt.Errorf("ledger: %s has version %q: %w", key, fields["v"], ErrOtherVersion)
	}
	d := decoder{fields: fields}
	var f facts
	if err := json.Unmarshal([]byte(fields["facts"]), &f); err != nil {
		d.errs = append(d.errs, fmt.Errorf("facts: %w", err))
	}
	r := &Record{
		Payment: payment.Payment{
			Gateway: key.Gateway, TransactionID: key.TransactionID,
			Status: payment.Status(fields["status"]), Amount: f.Amount,
			GatewayStatus: f.GatewayStatus, GatewayReference: f.GatewayReference, Reason: f.Reason,
			PaymentLinks: f.PaymentLinks, PaymentCode: f.PaymentCode, QRCode: f.QRCode,
			CreatedAt: d.time("created"), UpdatedAt: d.time("updated"),
			Attempts: []payment.Attempt{},
		},
		Order: []byte(fields["order"]), EncryptedToken: fields["token"], MerchantID: f.MerchantID,
		ExpiresAt: d.time("expires"), FirstClaim: d.time("first_claim"), LowestID: d.number("lowest_id"),
		Retries: f.Retries, Refreshes: f.Refreshes, Unknowns: f.Unknowns, UnknownCode: f.UnknownCode,
		UnknownSince: d.time("unknown_since"), Lookups: f.Lookups, NotFound: f.NotFound, Contradicted: f.Contradicted,
		clock: clock, readStatus: payment.Status(fields["status"]), readReason: f.Reason,
		rev: d.number("rev"), request: fields["request"], primary: fields["primary"],
		events: d.number("events"), attempts: int(d.number("attempts")),
	}
	for n := 1; n <= r.attempts; n++ {
		text, ok := fields["a:"+strconv.Itoa(n)]
		if !ok { // it was not read
			continue
		}
		var a payment.Attempt
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			d.errs = append(d.errs, fmt.Errorf("attempt %d: %w", n, err))
		}
		r.Attempts = append(r.Attempts, a)
	}
	if err := errors.Join(d.errs...); err != nil {
		return nil, fmt.Errorf("ledger: %s: %w: %w", key, ErrDamaged, err)
	}
	return r, nil
}

// decoder parses numbers and times, and collects the errors.
type decoder struct {
	fields map[string]string
	errs   []error
}

// number parses a number that is not negative. A missing field is 0.
func (d *decoder) number(name string) int64 {
	text := d.fields[name]
	if text == "" {
		return 0
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > maxNumber {
		d.errs = append(d.errs, fmt.Errorf("%s: %q is not a number from 0 to 2^53", name, text))
		return 0
	}
	return n
}

// maxNumber bounds the numbers that are read: decode counts to the number of attempts,
// which must end for a damaged record too. Lua is exact up to it.
const maxNumber = 1 << 53

// time parses a time in Unix milliseconds. A missing field is the zero time.
func (d *decoder) time(name string) time.Time {
	ms := d.number(name)
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
