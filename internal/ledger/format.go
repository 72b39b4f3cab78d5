package ledger

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"terbayar/internal/durable"
	"terbayar/internal/payment"
)

// A payment is one Redis string: four lines and the order.
//
//	3 STATUS REVISION REQUEST HELD UNKNOWN UPDATED CLAIMED LOWEST CREATED EXPIRES DIGEST FLAG
//	the attempts, oldest first, each JSON, separated by tabs
//	facts: JSON, see the type facts
//	the encrypted customer token, or nothing
//	the order: the gateway's part of it, JSON, compressed
//
// The first line is what the scripts read. Its times are Unix milliseconds by Redis' clock; 0
// means none.
//
//	3         the version of this format
//	REVISION  incremented by every change
//	REQUEST   the id of the request that wrote this revision; with it: the fencing token
//	HELD      until when: submitting: the claim is valid; queued: it cannot be claimed
//	UNKNOWN   since when the outcome of a submit is unknown
//	UPDATED   when it reached its status
//	CLAIMED   the first claim
//	LOWEST    the lowest possible gateway reference: the highest known at the first claim
//	EXPIRES   until when the customer can pay
//	DIGEST    of the order, see shortDigest
//	FLAG      badToken, compressed, or noFlag
//
// JSON contains neither line ends nor tabs. The order is deleted as soon as it can no longer
// be sent: it contains the customer's name, phone number and e-mail address. From then on
// everything after the first line is compressed, because no script has to change it.
const version = "3"

const (
	badToken   = "bad-token" // no worker could decrypt the customer token
	compressed = "s2"        // everything after the first line is, by S2
	noFlag     = "-"
)

// headFields is the number of words of the first line.
const headFields = 13

// keepsOrder reports whether a payment of that status may still be sent.
func keepsOrder(s payment.Status) bool {
	switch s {
	case payment.Queued, payment.Submitting, payment.Verifying, payment.NeedsReview:
		return true
	default:
		return false
	}
}

// facts are the parts of a record that no script reads.
type facts struct {
	Amount           payment.Rupiah   `json:"amount"`
	Priority         payment.Priority `json:"priority,omitempty"` // until it can no longer be sent
	MerchantID       string           `json:"merchant,omitempty"`
	GatewayStatus    string           `json:"state,omitempty"`
	GatewayReference string           `json:"ref,omitempty"`
	Reason           string           `json:"reason,omitempty"`
	PaymentLinks     string           `json:"links,omitempty"`
	PaymentCode      string           `json:"code,omitempty"`
	QRCode           string           `json:"qr,omitempty"`
	Retries          int              `json:"retries,omitempty"`
	Refreshes        int              `json:"refreshes,omitempty"`
	Unknowns         int              `json:"unknowns,omitempty"`
	UnknownCode      string           `json:"unknown_code,omitempty"`
	Lookups          int              `json:"lookups,omitempty"`
	NotFound         int              `json:"not_found,omitempty"`
	Contradicted     bool             `json:"contradicted,omitempty"`
	Events           int64            `json:"events,omitempty"`
	Primary          string           `json:"primary,omitempty"`
}

// storedAttempt is a payment.Attempt as it is stored.
type storedAttempt struct {
	At         int64        `json:"at"` // Unix ms
	Kind       payment.Kind `json:"kind"`
	Code       string       `json:"code,omitempty"`
	Message    string       `json:"msg,omitempty"`
	HTTPStatus int          `json:"http,omitempty"`
	Action     string       `json:"do,omitempty"`
	DurationMS int64        `json:"ms,omitempty"`
	ExternalID string       `json:"ext,omitempty"`
}

func encodeAttempt(a payment.Attempt) ([]byte, error) {
	return json.Marshal(storedAttempt{
		a.At.UnixMilli(), a.Kind, a.Code, a.Message, a.HTTPStatus, a.Action, a.DurationMS, a.ExternalID,
	})
}

func decodeAttempt(text string) (payment.Attempt, error) {
	var a storedAttempt
	err := json.Unmarshal([]byte(text), &a)
	return payment.Attempt{
		At: time.UnixMilli(a.At).UTC(), Kind: a.Kind, Code: a.Code, Message: a.Message,
		HTTPStatus: a.HTTPStatus, Action: a.Action, DurationMS: a.DurationMS, ExternalID: a.ExternalID,
	}, err
}

// encodeBody returns the part of the stored text that begins with EXPIRES. The create and save
// scripts write what is before it.
func (r *Record) encodeBody() ([]byte, error) {
	priority := r.Priority
	if !keepsOrder(r.Status) {
		priority = payment.Normal
	}
	f, err := json.Marshal(facts{
		Amount: r.Amount, Priority: priority, MerchantID: r.MerchantID,
		GatewayStatus: r.GatewayStatus, GatewayReference: r.GatewayReference, Reason: r.Reason,
		PaymentLinks: r.PaymentLinks, PaymentCode: r.PaymentCode, QRCode: r.QRCode,
		Retries: r.Retries, Refreshes: r.Refreshes, Unknowns: r.Unknowns, UnknownCode: r.UnknownCode,
		Lookups: r.Lookups, NotFound: r.NotFound, Contradicted: r.Contradicted,
		Events: r.events, Primary: r.primary,
	})
	if err != nil {
		return nil, err
	}
	flag, token := noFlag, r.EncryptedToken
	if r.Status.Final() {
		token = ""
	}
	lines := slices.Concat(r.storedAttempts, []byte("\n"), f, []byte("\n"), []byte(token), []byte("\n"))
	switch {
	case !keepsOrder(r.Status):
		flag, lines = compressed, linesDictionary.Encode(nil, lines)
	case r.BadToken:
		flag, lines = badToken, append(lines, r.storedOrder...)
	default:
		lines = append(lines, r.storedOrder...)
	}
	return slices.Concat(fmt.Appendf(nil, "%d %s %s\n", unixMilli(r.ExpiresAt), r.digest, flag), lines), nil
}

// encode returns the stored text of a record that has not been changed since it was read.
func (r *Record) encode() ([]byte, error) {
	body, err := r.encodeBody()
	if err != nil {
		return nil, err
	}
	head := fmt.Sprintf("%s %s %d %s %d %d %d %d %d %d ", version, r.Status, r.rev, r.request, unixMilli(r.heldUntil),
		unixMilli(r.UnknownSince), unixMilli(r.UpdatedAt), unixMilli(r.FirstClaim), r.LowestID, unixMilli(r.CreatedAt))
	return append([]byte(head), body...), nil
}

// digestSize is the number of bytes of an order's digest that are kept: two orders have the same
// 15 bytes by chance once in 2^120.
const digestSize = 15

// shortDigest returns a digest, a SHA-256 in hex, as it is stored: the first 15 bytes in base64,
// 20 characters. Any other text is hashed first.
func shortDigest(digest string) string {
	b, err := hex.DecodeString(digest)
	if err != nil || len(b) != sha256.Size {
		hash := sha256.Sum256([]byte(digest))
		b = hash[:]
	}
	return base64.RawURLEncoding.EncodeToString(b[:digestSize])
}

// newRequestID returns a random request id: 80 bits.
func newRequestID() string { return rand.Text()[:16] }

// unixMilli returns a time as it is stored: 0 for the zero time.
func unixMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// decode returns the record of a stored text. It leaves out what unpack adds.
func decode(key payment.Key, text string, clock durable.Time) (*Record, error) {
	if !strings.HasPrefix(text, version+" ") {
		written, _, _ := strings.Cut(text, " ")
		return nil, fmt.Errorf("ledger: %s has version %.8q: %w", key, written, ErrOtherVersion)
	}
	first, rest, _ := strings.Cut(text, "\n")
	head := strings.Fields(first)
	if len(head) == headFields && head[12] == compressed {
		plain, err := linesDictionary.Decode(nil, []byte(rest))
		if err != nil {
			return nil, fmt.Errorf("ledger: %s: %w: %w", key, ErrDamaged, err)
		}
		rest = string(plain)
	}
	lines := strings.SplitN(rest, "\n", 4) // attempts, facts, token, order
	if len(lines) != 4 || len(head) != headFields {
		return nil, fmt.Errorf("ledger: %s: %w: it has %d lines, and the first one %d words", key, ErrDamaged, len(lines)+1, len(head))
	}
	var n numbers
	var f facts
	if err := json.Unmarshal([]byte(lines[1]), &f); err != nil {
		n.errs = append(n.errs, fmt.Errorf("facts: %w", err))
	}
	status := payment.Status(head[1])
	r := &Record{
		Payment: payment.Payment{
			Gateway: key.Gateway, TransactionID: key.TransactionID, Status: status, Amount: f.Amount, Priority: f.Priority,
			GatewayStatus: f.GatewayStatus, GatewayReference: f.GatewayReference, Reason: f.Reason,
			PaymentLinks: f.PaymentLinks, PaymentCode: f.PaymentCode, QRCode: f.QRCode,
			UpdatedAt: n.time("updated", head[6]), CreatedAt: n.time("created", head[9]),
			Attempts: []payment.Attempt{},
		},
		storedOrder: []byte(lines[3]), digest: head[11], EncryptedToken: lines[2], MerchantID: f.MerchantID,
		ExpiresAt: n.time("expires", head[10]), FirstClaim: n.time("claimed", head[7]), LowestID: n.number("lowest", head[8]),
		Retries: f.Retries, Refreshes: f.Refreshes, Unknowns: f.Unknowns, UnknownCode: f.UnknownCode,
		UnknownSince: n.time("unknown", head[5]), Lookups: f.Lookups, NotFound: f.NotFound,
		BadToken: head[12] == badToken, Contradicted: f.Contradicted,
		clock: clock, readStatus: status, readReason: f.Reason,
		rev: n.number("revision", head[2]), request: head[3], heldUntil: n.time("held", head[4]),
		primary: f.Primary, events: f.Events, storedAttempts: []byte(lines[0]),
	}
	if err := errors.Join(n.errs...); err != nil {
		return nil, fmt.Errorf("ledger: %s: %w: %w", key, ErrDamaged, err)
	}
	return r, nil
}

const attemptSeparator = "\t"

// unpack sets Order and Attempts.
func (r *Record) unpack() (err error) {
	if len(r.storedOrder) > 0 {
		if r.Order, err = orderDictionary.Decode(nil, r.storedOrder); err != nil {
			return fmt.Errorf("ledger: %s: %w: order: %w", r.Key(), ErrDamaged, err)
		}
	}
	if len(r.storedAttempts) == 0 {
		return nil
	}
	for text := range strings.SplitSeq(string(r.storedAttempts), attemptSeparator) {
		a, err := decodeAttempt(text)
		if err != nil {
			return fmt.Errorf("ledger: %s: %w: attempt %d: %w", r.Key(), ErrDamaged, len(r.Attempts)+1, err)
		}
		r.Attempts = append(r.Attempts, a)
	}
	return nil
}

// withAttempt returns the stored attempts with one more, or with another last one.
func (r *Record) withAttempt(a payment.Attempt, replaceLast bool) ([]byte, error) {
	text, err := encodeAttempt(a)
	if err != nil {
		return nil, err
	}
	before := r.storedAttempts
	if replaceLast {
		before = before[:max(0, bytes.LastIndexByte(before, attemptSeparator[0]))]
	}
	if len(before) == 0 {
		return text, nil
	}
	return slices.Concat(before, []byte(attemptSeparator), text), nil
}

// maxNumber bounds the numbers that are read: Lua is exact up to it.
const maxNumber = 1 << 53

// numbers parses numbers and times, and collects the errors.
type numbers struct{ errs []error }

// number parses a number that is not negative.
func (n *numbers) number(name, text string) int64 {
	x, err := strconv.ParseInt(text, 10, 64)
	if err != nil || x < 0 || x > maxNumber {
		n.errs = append(n.errs, fmt.Errorf("%s: %q is not a number from 0 to 2^53", name, text))
		return 0
	}
	return x
}

func (n *numbers) time(name, text string) time.Time { return fromUnixMilli(n.number(name, text)) }

// fromUnixMilli is the reverse of unixMilli.
func fromUnixMilli(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
