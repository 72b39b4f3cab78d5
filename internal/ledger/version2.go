package ledger

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/durable"
	"terbayar/internal/payment"
)

// Version 2 stored a payment as a hash, under the same key and in the same sets. Workers of
// that version may run beside this one during an upgrade. Such a record is read as it is, and
// rewritten before it is claimed or saved. A worker of version 2 gets an error for a record of
// version 3, and leaves the payment and its task to this version.

// facts2 is the field facts of version 2.
type facts2 struct {
	Amount           payment.Rupiah `json:"amount"`
	MerchantID       string         `json:"merchant_id"`
	GatewayStatus    string         `json:"gateway_status"`
	GatewayReference string         `json:"gateway_reference"`
	Reason           string         `json:"reason"`
	PaymentLinks     string         `json:"payment_links"`
	PaymentCode      string         `json:"payment_code"`
	QRCode           string         `json:"qr_code"`
	Retries          int            `json:"retries"`
	Refreshes        int            `json:"refreshes"`
	Unknowns         int            `json:"unknowns"`
	UnknownCode      string         `json:"unknown_code"`
	Lookups          int            `json:"lookups"`
	NotFound         int            `json:"not_found"`
	Contradicted     bool           `json:"contradicted"`
}

// decode2 returns the record of a hash of version 2.
func decode2(key payment.Key, fields map[string]string, clock durable.Time) (*Record, error) {
	if len(fields) == 0 {
		return nil, fmt.Errorf("ledger: read %s: %w", key, ErrNotFound)
	}
	if fields["v"] != "2" {
		return nil, fmt.Errorf("ledger: %s has version %.8q: %w", key, fields["v"], ErrOtherVersion)
	}
	var n numbers
	var f facts2
	if err := json.Unmarshal([]byte(fields["facts"]), &f); err != nil {
		n.errs = append(n.errs, fmt.Errorf("facts: %w", err))
	}
	number := func(name string) int64 {
		if fields[name] == "" {
			return 0
		}
		return n.number(name, fields[name])
	}
	status := payment.Status(fields["status"])
	r := &Record{
		Payment: payment.Payment{
			Gateway: key.Gateway, TransactionID: key.TransactionID, Status: status, Amount: f.Amount,
			GatewayStatus: f.GatewayStatus, GatewayReference: f.GatewayReference, Reason: f.Reason,
			PaymentLinks: f.PaymentLinks, PaymentCode: f.PaymentCode, QRCode: f.QRCode,
			CreatedAt: fromUnixMilli(number("created")), UpdatedAt: fromUnixMilli(number("updated")),
			Attempts: []payment.Attempt{},
		},
		storedOrder: compressOrder([]byte(fields["order"])), digest: shortDigest(fields["digest"]), EncryptedToken: fields["token"], MerchantID: f.MerchantID,
		ExpiresAt: fromUnixMilli(number("expires")), FirstClaim: fromUnixMilli(number("first_claim")), LowestID: number("lowest_id"),
		Retries: f.Retries, Refreshes: f.Refreshes, Unknowns: f.Unknowns, UnknownCode: f.UnknownCode,
		UnknownSince: fromUnixMilli(number("unknown_since")), Lookups: f.Lookups, NotFound: f.NotFound,
		BadToken: fields["bad_token"] == "1", Contradicted: f.Contradicted,
		clock: clock, readStatus: status, readReason: f.Reason,
		rev: number("rev"), request: fields["request"], primary: fields["primary"], events: number("events"),
	}
	switch status {
	case payment.Submitting:
		r.heldUntil = fromUnixMilli(number("lease"))
	case payment.Queued:
		r.heldUntil = fromUnixMilli(number("after"))
	default:
	}
	for i := int64(1); i <= number("attempts"); i++ {
		text, ok := fields["a:"+strconv.FormatInt(i, 10)]
		if !ok {
			n.errs = append(n.errs, fmt.Errorf("attempt %d is missing", i))
			break
		}
		var a payment.Attempt
		err := json.Unmarshal([]byte(text), &a)
		if err == nil {
			r.storedAttempts, err = r.withAttempt(a, false)
		}
		if err != nil {
			n.errs = append(n.errs, fmt.Errorf("attempt %d: %w", i, err))
		}
	}
	for _, name := range []string{"status", "request", "digest"} {
		if word := fields[name]; word == "" || strings.ContainsAny(word, " \n") {
			n.errs = append(n.errs, fmt.Errorf("%s: %q is not one word", name, word))
		}
	}
	var err error
	if r.version2, err = r.encode(); err != nil {
		n.errs = append(n.errs, err)
	}
	if err := errors.Join(n.errs...); err != nil {
		return nil, fmt.Errorf("ledger: %s: %w: %w", key, ErrDamaged, err)
	}
	return r, nil
}

// rewriteScript rewrites a record of version 2, if it has not changed since it was read. A
// valid claim belongs to a worker of version 2, which could not save the result any more: its
// record stays.
//
//	KEYS[1] payment
//	ARGV[1] revision read
//	ARGV[2] request id read
//	ARGV[3] the record in version 3
//	result  "rewritten" | "busy"; also if it has changed
var rewriteScript = redis.NewScript(clock + `
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then return 'rewritten' end
local status, rev, request, lease, digest = unpack(redis.call('HMGET', KEYS[1], 'status', 'rev', 'request', 'lease', 'digest'))
if status == 'submitting' and tonumber(lease) > now then
  redis.call('HSET', KEYS[1], 'digest', digest)
  return 'busy'
end
if rev == ARGV[1] and request == ARGV[2] then redis.call('SET', KEYS[1], ARGV[3]) end
return 'rewritten'
`)

// rewrite rewrites a record of version 2 durably. It reports false if a worker of version 2
// has a valid claim on the payment. A queued payment that has a tombstone was created again by a
// program of version 2, which does not know of tombstones: the error is ErrCreatedAgain, and it
// is not sent.
func (l *Ledger) rewrite(ctx context.Context, r *Record) (rewritten bool, err error) {
	if r.readStatus == payment.Queued {
		if _, err := l.readTombstone(ctx, r.Key()); !errors.Is(err, ErrNotFound) {
			return false, cmp.Or(err, fmt.Errorf("ledger: rewrite %s: %w", r.Key(), ErrCreatedAgain))
		}
	}
	p := l.partitionOf(r.Key())
	replies, err := p.writes.Do(ctx, durable.Call{
		Script: rewriteScript, Keys: []string{p.payment(r.Key())}, Args: []any{r.rev, r.request, r.version2},
	})
	if err != nil {
		return false, fmt.Errorf("ledger: rewrite %s: %w", r.Key(), err)
	}
	result, err := replies[0].Text()
	if err != nil {
		return false, fmt.Errorf("ledger: rewrite %s: %w", r.Key(), err)
	}
	return result == "rewritten", nil
}

// rewriteAll rewrites those of the records that are of version 2, before they are saved.
func (l *Ledger) rewriteAll(ctx context.Context, records []*Record) error {
	for _, r := range records {
		if r.version2 == nil {
			continue
		}
		if _, err := l.rewrite(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// rewriteForClaim rewrites the record of a payment of version 2. The result is empty if the
// payment can be claimed then.
func (l *Ledger) rewriteForClaim(ctx context.Context, key payment.Key) (*Record, ClaimResult, error) {
	r, err := l.Read(ctx, key)
	if errors.Is(err, ErrOtherVersion) {
		return nil, OtherVersion, nil
	}
	if err != nil || r.version2 == nil { // another worker has rewritten it
		return nil, "", err
	}
	rewritten, err := l.rewrite(ctx, r)
	if err == nil && !rewritten {
		return r, Busy, nil
	}
	return nil, "", err
}

// createAgain2 returns the result of creating a payment whose record is of version 2. It
// rewrites the record first, or makes it durable as it is.
func (l *Ledger) createAgain2(ctx context.Context, e NewPayment) CreateResult {
	r, err := l.Read(ctx, e.Key)
	rewritten := true
	if err == nil && r.version2 != nil {
		rewritten, err = l.rewrite(ctx, r)
	}
	switch {
	case err != nil:
		return CreateResult{Err: fmt.Errorf("ledger: create %s: %w: %w", e.Key, ErrNotDurable, err)}
	case rewritten:
		return l.Create(ctx, []NewPayment{e})[0]
	default:
		return r.createdAgain(e.Digest)
	}
}
