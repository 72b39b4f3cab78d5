// Package ledger is the one true record of every payment, in Redis. What asynq holds
// are reminders.
//
// A payment is claimed before anything is sent for it, and the claim is durable before
// the request leaves. Every change names the revision it was made from: whoever read an
// older one is fenced off. A change of status and its event are one script.
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
	// ErrNotFound says that the ledger has no such payment.
	ErrNotFound = errors.New("no such payment")
	// ErrFenced says that somebody else has changed the payment since it was read.
	ErrFenced = errors.New("changed by somebody else meanwhile")
	// ErrIllegalMove says that payment's table of moves has no such move.
	ErrIllegalMove = errors.New("no legal move")
	// ErrOtherVersion says that the record was written by another version of this code, most
	// likely a newer one.
	ErrOtherVersion = errors.New("written by another version")
	// ErrDamaged says that a record cannot be read.
	ErrDamaged = errors.New("the record is damaged")
	// ErrNotDurable says that a payment is not known to be durably recorded: it may be
	// recorded, and is then sent.
	ErrNotDurable = errors.New("not known to be durable")
)

// Ledger keeps the payments. It is safe for concurrent use.
type Ledger struct {
	redis  redis.UniversalClient
	writes *durable.Writer
	stream string
	now    func() time.Time
	log    *slog.Logger

	repeating sync.WaitGroup // what has yet to be acknowledged, or released
}

// Options are what a Ledger needs.
type Options struct {
	Redis  redis.UniversalClient // for what need not be durable
	Writes *durable.Writer
	Stream string // EVENTS_STREAM
	Now    func() time.Time
	Log    *slog.Logger
}

// New makes a ledger.
func New(o Options) *Ledger {
	return &Ledger{redis: o.Redis, writes: o.Writes, stream: o.Stream, now: o.Now, log: o.Log}
}

// NewReader makes a ledger for those who only read.
func NewReader(client redis.UniversalClient) *Ledger {
	log := slog.New(slog.DiscardHandler)
	return New(Options{
		Redis: client, Stream: DefaultStream, Now: time.Now, Log: log,
		Writes: durable.New(durable.Options{Client: client, Mode: durable.None, Key: DurabilityKey, Now: time.Now, Log: log}),
	})
}

// TaskGrace is how long past its time the task of a queued payment may be before
// it is taken for lost, and the payment gets a new one.
const TaskGrace = 20 * time.Second

// NewPayment is a payment to be written down for the first time.
type NewPayment struct {
	Key            payment.Key
	Amount         payment.Rupiah
	Order          []byte // the gateway's part of the order, JSON
	Digest         string // tells the same content from other content
	EncryptedToken string
	MerchantID     string
	ExpiresAt      time.Time
}

// Creation is the result of an Entry.
type Creation string

// The creations.
const (
	Created   Creation = "created"
	Duplicate Creation = "duplicate" // the same id and content already exist: nothing done
	Conflict  Creation = "conflict"  // the same id with other content already exists: nothing done
)

// CreateResult is the answer to one Entry.
type CreateResult struct {
	Creation Creation
	Status   payment.Status // the payment's status now
	Err      error          // ErrNotDurable, or why Redis refused it
}

// createPatience is how long Create goes on trying: longer than a failover takes.
const createTimeout = 6 * time.Second

// Create writes payments down, in order and durably, in one round trip. Each result
// stands at its entry's index. (Model step [create].)
func (l *Ledger) Create(ctx context.Context, entries []NewPayment) []CreateResult {
	results := make([]CreateResult, len(entries))
	var calls []durable.Call
	var index []int
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
		words, err := replies[j].StringSlice()
		if err == nil && len(words) != 2 {
			err = errors.New("unexpected answer of a script")
		}
		if err != nil {
			results[i].Err = fmt.Errorf("ledger: create %s: %w", entries[i].Key, err)
			continue
		}
		results[i].Creation, results[i].Status = Creation(words[0]), payment.Status(words[1])
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
	if err != nil && !errors.Is(err, redis.Nil) { // it is not looked up
		return nil, fmt.Errorf("ledger: read %s: %w", key, err)
	}
	r, err := decode(key, fields.Val(), l.writes.Time())
	if err != nil {
		return nil, err
	}
	switch at := due.Val(); {
	case r.Status == payment.Queued:
		after := decoder{fields: fields.Val()}
		r.NextAt = after.time("after")
	case at > 0:
		r.NextAt = time.UnixMilli(int64(at)).UTC()
	}
	return r, nil
}

// AttemptCount is how many attempts a payment has had; 0 when the ledger has no
// such payment.
func (l *Ledger) AttemptCount(ctx context.Context, key payment.Key) (int, error) {
	n, err := l.redis.HGet(ctx, paymentKey(key), "attempts").Int()
	if err != nil && !errors.Is(err, redis.Nil) {
		return 0, fmt.Errorf("ledger: attempts of %s: %w", key, err)
	}
	return n, nil
}

// Flush waits until all that is still to be acknowledged or released is, or the
// context ends.
func (l *Ledger) Flush(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		l.repeating.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
