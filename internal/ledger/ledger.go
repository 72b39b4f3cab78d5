// Package ledger stores every payment in Redis. Its records are authoritative; a task in
// asynq is only a reminder to work on one.
//
// A payment is one Redis hash. Each change is one Lua script, which also writes the
// change's event to the stream, so a change and its event cannot exist without each other.
//
// # Claim and lease
//
// A worker claims a payment before it sends it. The claim sets the status to submitting,
// adds an attempt, and starts a lease. Until the lease ends, other claims return Busy. The
// claim is durable before the request leaves, so every request that a gateway may have
// received is in the ledger.
//
// If the lease ends before the worker saves a result, the payment is not claimed again,
// because the worker may have sent the request. Other claims return ClaimExpired: the
// outcome is unknown, and the payment is looked up at the gateway.
//
// # Fencing token
//
// A worker can be frozen for longer than its lease and save its result afterwards. So each
// record has a fencing token of two parts: a revision, which every change increments, and
// the request id of the latest change, which is random. A save names the token that it has
// read; if the record's token has changed since, the script writes nothing and Save returns
// ErrFenced. The revision alone is not enough: after a failover that loses a change, Redis
// counts up to the same revision again.
//
// # Repeated scripts
//
// A script whose reply is lost is run again. It finds its own request id in the record and
// returns its first result without a second change.
//
// "Step [claim]" and the like in comments name the steps of the model in docs/model.
package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/durable"
	"terbayar/internal/payment"
)

var (
	// ErrNotFound means that the ledger has no such payment.
	ErrNotFound = errors.New("no such payment")
	// ErrFenced means that the payment has changed since it was read.
	ErrFenced = errors.New("the payment has changed since it was read")
	// ErrIllegalMove means that package payment does not allow the change of status.
	ErrIllegalMove = errors.New("illegal change of status")
	// ErrOtherVersion means that another version of this code, most likely a newer one,
	// wrote the record.
	ErrOtherVersion = errors.New("written by another version")
	// ErrDamaged means that a record cannot be read.
	ErrDamaged = errors.New("the record is damaged")
	// ErrNotDurable means that a write is not known to be durable: it may exist, and a
	// payment that exists is sent.
	ErrNotDurable = errors.New("not known to be durable")

	errUnexpectedAnswer = errors.New("unexpected answer of a script")
)

// Ledger stores the payments. It is safe for concurrent use.
type Ledger struct {
	redis  redis.UniversalClient
	writes *durable.Writer
	stream string
	now    func() time.Time
	log    *slog.Logger

	background sync.WaitGroup // releases and saves that are repeated until acknowledged
}

// Options configure a Ledger.
type Options struct {
	Redis  redis.UniversalClient // for reads, and for writes that need not be durable
	Writes *durable.Writer
	Stream string // EVENTS_STREAM
	Now    func() time.Time
	Log    *slog.Logger
}

// New returns a Ledger.
func New(o Options) *Ledger {
	return &Ledger{redis: o.Redis, writes: o.Writes, stream: o.Stream, now: o.Now, log: o.Log}
}

// NewReader returns a Ledger for programs that only read.
func NewReader(client redis.UniversalClient) *Ledger {
	log := slog.New(slog.DiscardHandler)
	return New(Options{
		Redis: client, Stream: DefaultStream, Now: time.Now, Log: log,
		Writes: durable.New(durable.Options{Client: client, Mode: durable.None, Key: DurabilityKey, Now: time.Now, Log: log}),
	})
}

// TaskGrace is how late the task of a queued payment may be. After that the task counts
// as lost, and the payment gets a new one.
const TaskGrace = 20 * time.Second

// NewPayment is a payment for Create.
type NewPayment struct {
	Key            payment.Key
	Amount         payment.Rupiah
	Order          []byte // the gateway's part of the order, JSON
	Digest         string // of the order's content: distinguishes a duplicate from a conflict
	EncryptedToken string
	MerchantID     string
	ExpiresAt      time.Time
}

// Creation is what Create did with a payment.
type Creation string

// The values of Creation.
const (
	Created   Creation = "created"
	Duplicate Creation = "duplicate" // the same id with the same content exists: nothing changed
	Conflict  Creation = "conflict"  // the same id with other content exists: nothing changed
)

// CreateResult is the result of Create for one payment.
type CreateResult struct {
	Creation Creation
	Status   payment.Status // the payment's status now
	Err      error          // ErrNotDurable, or the error that Redis returned
}

// createTimeout bounds Create. It is longer than a failover.
const createTimeout = 6 * time.Second

// Create writes payments durably, in order, in one round trip. The results have the order
// of the entries. (Step [create].)
func (l *Ledger) Create(ctx context.Context, entries []NewPayment) []CreateResult {
	results := make([]CreateResult, len(entries))
	var calls []durable.Call
	var index []int // of each call's entry
	for i, e := range entries {
		r := Record{Payment: payment.Payment{Amount: e.Amount}, MerchantID: e.MerchantID}
		facts, err := r.facts()
		if err != nil {
			results[i].Err = fmt.Errorf("ledger: create %s: %w", e.Key, err)
			continue
		}
		calls = append(calls, createCall(e.Key.Gateway, createArgs{
			request: rand.Text(), digest: e.Digest, transactionID: e.Key.TransactionID,
			order: e.Order, token: e.EncryptedToken, facts: facts, expires: e.ExpiresAt, grace: TaskGrace,
		}))
		index = append(index, i)
	}
	if len(calls) == 0 {
		return results
	}
	ctx, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	replies, err := l.writes.Do(ctx, calls...)
	for j, i := range index {
		if err != nil {
			results[i].Err = fmt.Errorf("ledger: create %s: %w: %w", entries[i].Key, ErrNotDurable, err)
			continue
		}
		answer, err := replies[j].StringSlice()
		if err == nil && len(answer) != 2 {
			err = errUnexpectedAnswer
		}
		if err != nil {
			results[i].Err = fmt.Errorf("ledger: create %s: %w", entries[i].Key, err)
			continue
		}
		results[i].Creation, results[i].Status = Creation(answer[0]), payment.Status(answer[1])
	}
	return results
}

// Read returns a payment with all its attempts.
func (l *Ledger) Read(ctx context.Context, key payment.Key) (*Record, error) {
	var fields *redis.MapStringStringCmd
	var due *redis.FloatCmd
	_, err := l.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		fields = pipe.HGetAll(ctx, paymentKey(key))
		due = pipe.ZScore(ctx, openKey(key.Gateway), key.TransactionID)
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) { // redis.Nil: no lookup is due
		return nil, fmt.Errorf("ledger: read %s: %w", key, err)
	}
	r, err := decode(key, fields.Val(), l.writes.Time())
	if err != nil {
		return nil, err
	}
	switch at := due.Val(); {
	case r.Status == payment.Queued:
		d := decoder{fields: fields.Val()}
		r.NextAt = d.time("after")
	case at > 0:
		r.NextAt = time.UnixMilli(int64(at)).UTC()
	}
	return r, nil
}

// AttemptCount returns the number of a payment's attempts; 0 if the ledger has no such
// payment.
func (l *Ledger) AttemptCount(ctx context.Context, key payment.Key) (int, error) {
	n, err := l.redis.HGet(ctx, paymentKey(key), "attempts").Int()
	if err != nil && !errors.Is(err, redis.Nil) {
		return 0, fmt.Errorf("ledger: attempts of %s: %w", key, err)
	}
	return n, nil
}

// Flush waits until the releases and saves that run in the background have ended, or the
// context ends.
func (l *Ledger) Flush(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		l.background.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
