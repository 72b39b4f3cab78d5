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

// version of the records this code writes. A record of another version is left
// alone: ErrVersion.
const version = 2

// Record is a payment as the ledger keeps it: what the outside sees, what the
// worker needs to go on with it, and the revision that fences off whoever read
// an older one. Change it and hand it to Save.
//
// Its times but CreatedAt's and UpdatedAt's siblings in attempts are Redis' own: compare
// them with Now only.
type Record struct {
	payment.Payment

	Order          []byte    // the gateway's part of the order, JSON; only from Claim and Read
	EncryptedToken string    // the customer token, encrypted; gone once the payment is final
	MerchantID     string    // Paydia's merchantId
	ExpiresAt      time.Time // until when the customer can pay; zero: no such date
	FirstClaim     time.Time // when it was first claimed; zero: never
	LowestID       int64     // the highest numeric reference known when it was first claimed; 0: none

	Due       Due           // when it is next looked up; for Save to set, not read back
	NotBefore time.Duration // a queued payment is not claimed for so long; for Save to set, not read back

	Retries      int       // submits so far that were certainly not processed
	Refreshes    int       // submits so far whose access token was refused
	Unknowns     int       // submits so far whose outcome was unknown
	UnknownCode  string    // the code of the submit whose outcome is being looked up
	UnknownSince time.Time // since when; counted anew when the primary changes
	Lookups      int       // lookups of it so far
	NotFound     int       // of these, how many were answered "no such payment"
	BadToken     bool      // no worker could decrypt its customer token; for Save to set, not read back
	Contradicted bool      // it is in review because the gateway's answer contradicts the order

	clock    durable.Time // Redis' clock, when the record was read
	claimed  time.Time    // this process' clock, before the claim that holds it left
	previous payment.Status
	reason   string // as read
	rev      int64
	request  string // the id of the request that wrote this revision
	primary  string // under which UnknownSince was counted
	events   int64
	attempts int  // how many the ledger has
	restart  bool // UnknownSince is to be counted from now

	saving        string           // the id of the save under way: tried again, it is the same one
	changed       *payment.Attempt // the attempt to write with the next Save
	number        int              // its number
	onlyIfExpired bool             // save it only if the claim has expired
}

// Due says when a payment is next looked up. The zero value: never again.
type Due struct {
	set  bool
	in   time.Duration
	grid time.Duration
}

// In is so long from now.
func In(d time.Duration) Due { return Due{set: true, in: max(d, 0)} }

// OnGrid is the next point of a grid of that width, by Redis' clock: so that one poll
// serves all payments that are due with it.
func OnGrid(interval time.Duration) Due { return Due{set: true, grid: interval} }

// Never reports whether it is not looked up again.
func (d Due) Never() bool { return !d.set }

// Now is Redis' clock at a moment of this process' clock after the record was read.
func (r *Record) Now(local time.Time) time.Time { return r.clock.At(local) }

// NextAttempt returns when the payment is next sent or looked up, as a Save at that moment
// of this process' clock schedules it (see saveScript). The zero time: never.
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

// FinishAttempt writes the outcome of the submit that Claim opened.
func (r *Record) FinishAttempt(a payment.Attempt) { r.changed, r.number = &a, r.attempts }

// AddAttempt adds an attempt of its own: a lookup.
func (r *Record) AddAttempt(a payment.Attempt) { r.changed, r.number = &a, r.attempts+1 }

// Unknown says that the outcome of the submit that came to the code is unknown.
func (r *Record) Unknown(code string) {
	r.Status = payment.Verifying
	r.Unknowns++
	r.UnknownCode, r.Lookups, r.NotFound, r.restart = code, 0, 0, true
}

// RestartCount begins the waiting time and the count of "not found" again, at a moment of
// this process' clock, where the primary has changed since they began: another node's
// clock says nothing about how long ago that was.
func (r *Record) RestartCount(primary string, local time.Time) {
	if r.Status == payment.Verifying && r.primary != primary {
		r.NotFound, r.UnknownSince = 0, r.Now(local)
		r.restart, r.primary = true, primary
	}
}

// SinceClaim is how long ago the claim left, at a moment of this process' clock: the
// longer of what its monotonic and its wall clock say, since either may have stood
// still while the process or the machine was frozen.
func (r *Record) SinceClaim(now time.Time) time.Duration {
	return max(now.Sub(r.claimed), now.Round(0).Sub(r.claimed.Round(0)))
}

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

// decode reads a record from the fields of its hash; absent ones stay empty.
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
		clock: clock, previous: payment.Status(fields["status"]), reason: f.Reason,
		rev: d.number("rev"), request: fields["request"], primary: fields["primary"],
		events: d.number("events"), attempts: int(d.number("attempts")),
	}
	for n := 1; n <= r.attempts; n++ {
		text, ok := fields["a:"+strconv.Itoa(n)]
		if !ok { // not asked for
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

// decoder reads numbers and times, and gathers what cannot be read.
type decoder struct {
	fields map[string]string
	errs   []error
}

// number reads a whole number; a field that is not there is 0.
func (d *decoder) number(name string) int64 {
	text := d.fields[name]
	if text == "" {
		return 0
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > maxNumber {
		d.errs = append(d.errs, fmt.Errorf("%s: %q is not a number of ours", name, text))
		return 0
	}
	return n
}

// maxNumber bounds every number that is read, so that a damaged one cannot make a
// program count to it.
const maxNumber = 1 << 53

// time reads a time in Unix milliseconds; a field that is not there is the zero time.
func (d *decoder) time(name string) time.Time {
	ms := d.number(name)
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
