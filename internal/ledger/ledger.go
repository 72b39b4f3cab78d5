// Package ledger stores every payment in Redis. Its records are authoritative; a task in
// asynq is only a reminder to work on one.
//
// A payment is one Redis string. Each change is one Lua script, which also writes the
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
// # Tombstones
//
// Long after a payment is over, its record may be replaced by a tombstone, which is a tenth of
// its size and stays: see tombstone.go. Before that, the record is written to the archive, see
// archived.go and package retention.
//
// "Step [claim]" and the like in comments name the steps of the model in docs/model.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/durable"
	"terbayar/internal/groupcommit"
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
	// ErrCreatedAgain means that a program of an older version has created a payment again of
	// which only the tombstone was left.
	ErrCreatedAgain = errors.New("an old version of enqueue has created it again: its id belongs to an earlier payment, which is over")
	// ErrNotDurable means that a write is not known to be durable: it may exist, and a
	// payment that exists is sent.
	ErrNotDurable = errors.New("not known to be durable")

	errUnexpectedAnswer = errors.New("unexpected answer of a script")
)

// Ledger stores the payments. It is safe for concurrent use.
type Ledger struct {
	redis      redis.UniversalClient
	partitions []*partition
	saves      *groupcommit.Group[durable.Call, *redis.Cmd] // those that need not be durable
	now        func() time.Time
	log        *slog.Logger

	onLateResult func(payment.Gateway)

	partitionsChecked atomic.Bool
	background        sync.WaitGroup // releases and saves that are repeated until acknowledged
}

// Options configure a Ledger.
type Options struct {
	Redis      redis.UniversalClient // for reads, and for writes that need not be durable
	Writes     durable.Writers
	Stream     string // EVENTS_STREAM
	Partitions int    // LEDGER_PARTITIONS; 0: 1
	Now        func() time.Time
	Log        *slog.Logger
	// OnLateResult is called when a result cannot be recorded because only the payment's tombstone
	// is left. May be nil.
	OnLateResult func(payment.Gateway)
}

// New returns a Ledger.
func New(o Options) *Ledger {
	l := &Ledger{redis: o.Redis, now: o.Now, log: o.Log, onLateResult: o.OnLateResult}
	if l.onLateResult == nil {
		l.onLateResult = func(payment.Gateway) {}
	}
	for i := range max(o.Partitions, 1) {
		l.partitions = append(l.partitions, &partition{tag: partitionTag(i), stream: StreamName(o.Stream, i), writes: o.Writes.Partition(i)})
	}
	l.saves = groupcommit.New(func(ctx context.Context, calls []durable.Call) ([]*redis.Cmd, error) {
		return l.runScripts(ctx, calls), nil
	})
	return l
}

// NewReader returns a Ledger for programs that only read.
func NewReader(client redis.UniversalClient, partitions int) *Ledger {
	log := slog.New(slog.DiscardHandler)
	return New(Options{
		Redis: client, Stream: DefaultStream, Partitions: partitions, Now: time.Now, Log: log,
		Writes: durable.NewWriters(durable.Options{Client: client, Mode: durable.None, Now: time.Now, Log: log}, DurabilityKeys(client, partitions)),
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
	Priority       payment.Priority // of the first submission
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

// Create writes payments durably, in order, in one round trip for each partition. The results
// have the order of the entries. (Step [create].)
func (l *Ledger) Create(ctx context.Context, entries []NewPayment) []CreateResult {
	results := make([]CreateResult, len(entries))
	if len(entries) == 0 {
		return results
	}
	ctx, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	calls := map[*partition][]durable.Call{}
	indexes := map[*partition][]int{} // of each call's entry
	for i, e := range entries {
		r := Record{
			Payment: payment.Payment{Amount: e.Amount, Status: payment.Queued, Priority: e.Priority}, MerchantID: e.MerchantID,
			storedOrder: compressOrder(e.Order), digest: shortDigest(e.Digest), EncryptedToken: e.EncryptedToken, ExpiresAt: e.ExpiresAt,
		}
		body, err := r.encodeBody()
		if err != nil {
			results[i].Err = fmt.Errorf("ledger: create %s: %w", e.Key, err)
			continue
		}
		p := l.partitionOf(e.Key)
		calls[p] = append(calls[p], p.createCall(createArgs{
			key: e.Key, request: newRequestID(), grace: TaskGrace, body: body, digest: r.digest, encryptedToken: e.EncryptedToken,
		}))
		indexes[p] = append(indexes[p], i)
	}
	if err := l.checkPartitionsOnce(ctx); err != nil {
		for j := range results {
			results[j].Err = fmt.Errorf("ledger: create %s: %w: %w", entries[j].Key, ErrNotDurable, err)
		}
		return results
	}
	var group sync.WaitGroup
	for p, calls := range calls {
		group.Go(func() {
			replies, err := p.writes.Do(ctx, calls...)
			for j, i := range indexes[p] {
				if err != nil {
					results[i].Err = fmt.Errorf("ledger: create %s: %w: %w", entries[i].Key, ErrNotDurable, err)
				} else {
					results[i] = l.readCreateReply(ctx, entries[i], replies[j])
				}
			}
		})
	}
	group.Wait()
	return results
}

// readCreateReply returns the result in a reply of createScript.
func (l *Ledger) readCreateReply(ctx context.Context, e NewPayment, reply *redis.Cmd) CreateResult {
	answer, err := readWords(reply, 2)
	if err == nil && answer[0] == string(isVersion2) {
		return l.createAgain2(ctx, e)
	}
	if err == nil && answer[0] == string(OtherVersion) {
		err = ErrOtherVersion
	}
	if err == nil && answer[0] == "tombstone" {
		var r *Record
		if r, err = decodeTombstone(e.Key, answer[1]); err == nil {
			return r.createdAgain(e.Digest)
		}
	}
	if err != nil {
		return CreateResult{Err: fmt.Errorf("ledger: create %s: %w", e.Key, err)}
	}
	return CreateResult{Creation: Creation(answer[0]), Status: payment.Status(answer[1])}
}

// createdAgain returns the result of Create for a payment that exists.
func (r *Record) createdAgain(digest string) CreateResult {
	if r.HasDigest(digest) {
		return CreateResult{Creation: Duplicate, Status: r.Status}
	}
	return CreateResult{Creation: Conflict, Status: r.Status}
}

// Read returns a payment with all its attempts, or what its tombstone has.
func (l *Ledger) Read(ctx context.Context, key payment.Key) (*Record, error) {
	p := l.partitionOf(key)
	var text *redis.StringCmd
	var due *redis.FloatCmd
	// Each command has its own error.
	_, _ = l.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		text = pipe.Get(ctx, p.payment(key))
		due = pipe.ZScore(ctx, p.open(key.Gateway), key.TransactionID)
		return nil
	})
	r, err := l.decode(ctx, p, key, text)
	if errors.Is(err, ErrNotFound) {
		return l.readTombstone(ctx, key)
	}
	if err == nil {
		err = r.unpack()
	}
	if err == nil && due.Err() != nil && !errors.Is(due.Err(), redis.Nil) { // redis.Nil: no lookup is due
		err = fmt.Errorf("ledger: read %s: %w", key, due.Err())
	}
	if err != nil {
		return nil, err
	}
	r.setNextAt(due.Val())
	return r, nil
}

// decode returns the record of a payment, whatever its version.
func (l *Ledger) decode(ctx context.Context, p *partition, key payment.Key, reply *redis.StringCmd) (*Record, error) {
	text, err := reply.Result()
	if redis.HasErrorPrefix(err, "WRONGTYPE") {
		var fields map[string]string
		if fields, err = l.redis.HGetAll(ctx, p.payment(key)).Result(); err == nil {
			return decode2(key, fields, p.writes.Time())
		}
	}
	if errors.Is(err, redis.Nil) {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("ledger: read %s: %w", key, err)
	}
	return decode(key, text, p.writes.Time())
}

// AttemptCount returns the number of a payment's attempts; 0 if the ledger has no such
// payment.
func (l *Ledger) AttemptCount(ctx context.Context, key payment.Key) (int, error) {
	r, err := l.Read(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return len(r.Attempts), nil
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
