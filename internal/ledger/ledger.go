// Package ledger is the one true record of every payment, in Redis. What asynq
// holds are reminders; what is so stands here.
//
// A payment is claimed before anything is sent for it, and every change names
// the revision it was made from: whoever read an older one is fenced off. A
// change of status and its event are one script.
package ledger

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sethvargo/go-retry"

	"terbayar/internal/events"
	"terbayar/internal/payment"
)

var (
	// ErrNotFound says that the ledger has no such payment.
	ErrNotFound = errors.New("no such payment")
	// ErrFenced says that somebody else has changed the payment since it was read.
	ErrFenced = errors.New("changed by somebody else meanwhile")
	// ErrIllegal says that payment's table of moves has no such move.
	ErrIllegal = errors.New("no legal move")
	// ErrNewer says that the record was written by a newer version of this code.
	ErrNewer = errors.New("written by another version")
)

// Ledger keeps the payments. It is safe for concurrent use.
type Ledger struct {
	// OnReturn, if set, is told of a Redis that has restarted or failed over: how
	// many payments it had forgotten, which are put back, and for how long nothing
	// is claimed. Set it before the first use.
	OnReturn func(forgotten int, hold time.Duration)

	redis  redis.UniversalClient
	stream string
	now    func() time.Time
	memory memory
}

// New makes a ledger that writes its events to the given stream.
func New(client redis.UniversalClient, stream string, now func() time.Time) *Ledger {
	return &Ledger{redis: client, stream: stream, now: now}
}

// TaskGrace is how long past its time the task of a queued payment may be before
// it is taken for lost: the payment is due then, and gets a new one.
const TaskGrace = 20 * time.Second

// Entry is a payment to be written down for the first time.
type Entry struct {
	Key         payment.Key
	Amount      payment.Rupiah
	Order       []byte // the gateway's part of the order, JSON
	Digest      string // tells the same content from other content
	SealedToken string
	MerchantID  string
	ExpiresAt   time.Time
}

// Creation says what became of an Entry.
type Creation string

// The creations; their words are those of "enqueue create".
const (
	Created   Creation = "created"
	Duplicate Creation = "duplicate" // the same id and content stood there: nothing done
	Conflict  Creation = "conflict"  // the same id with other content stood there: nothing done
)

// CreateResult is the answer to one Entry.
type CreateResult struct {
	Creation Creation
	Status   payment.Status // where the payment stands now
	Err      error
}

// Create writes payments down, in order, in one round trip. Each result stands
// at its entry's index.
func (l *Ledger) Create(ctx context.Context, entries []Entry) []CreateResult {
	results := make([]CreateResult, len(entries))
	calls := make([]call, 0, len(entries))
	now := l.now().Truncate(time.Millisecond).UTC()
	for i, e := range entries {
		r := Record{
			Payment:    payment.Payment{Amount: e.Amount, CreatedAt: now},
			MerchantID: e.MerchantID, ExpiresAt: e.ExpiresAt,
		}
		facts, err := r.facts()
		if err != nil {
			results[i].Err = fmt.Errorf("ledger: create %s: %w", e.Key, err)
			continue
		}
		g := e.Key.Gateway
		calls = append(calls, call{
			index: i, script: createScript,
			keys: []string{paymentKey(e.Key), openKey(g), countsKey(g)},
			args: []any{
				rand.Text(), e.Digest, e.Key.TransactionID, now.Add(TaskGrace).UnixMilli(),
				version, e.Order, e.SealedToken, facts, now.UnixMilli(),
			},
		})
	}
	l.runAll(ctx, calls, func(c call, cmd *redis.Cmd) {
		i := c.index
		words, err := cmd.StringSlice()
		if err == nil && len(words) != 2 {
			err = errors.New("unexpected answer of a script")
		}
		if err != nil {
			results[i].Err = fmt.Errorf("ledger: create %s: %w", entries[i].Key, err)
			return
		}
		results[i].Creation, results[i].Status = Creation(words[0]), payment.Status(words[1])
	})
	return results
}

// Verdict says what became of a claim.
type Verdict string

// The verdicts.
const (
	Claimed Verdict = "claimed" // yours: send, and Save what came of it
	Busy    Verdict = "busy"    // somebody else is sending it right now
	Lapsed  Verdict = "lapsed"  // somebody claimed it and did not come back: its outcome is unknown
	Settled Verdict = "settled" // it is past being sent
	Missing Verdict = "missing" // the ledger has no such payment

	// These do not get outside.
	verdictHeld     Verdict = "held"     // it may not be claimed now: a *Held
	verdictEarly    Verdict = "early"    // it may not be claimed yet: a *Held
	verdictStranger Verdict = "stranger" // this is not the Redis that was met: errStranger
)

// Claim takes a queued payment for one submit. The attempt is written down
// before the request leaves. The lease says how long the holder may take; the
// record's revision is its fence. Except for Missing the record is returned. The
// error is a *Held while it may not be claimed.
func (l *Ledger) Claim(ctx context.Context, key payment.Key, a payment.Attempt, lease time.Duration) (*Record, Verdict, error) {
	attempt, err := json.Marshal(a)
	if err != nil {
		return nil, "", fmt.Errorf("ledger: claim %s: %w", key, err)
	}
	nonce := rand.Text()
	for range 5 {
		record, verdict, err := l.claim(ctx, key, nonce, attempt, lease)
		if !errors.Is(err, errStranger) {
			return record, verdict, err
		}
		if err := l.Meet(ctx); err != nil {
			return nil, "", err
		}
	}
	return nil, "", fmt.Errorf("ledger: claim %s: %w, again and again", key, errStranger)
}

// claim runs claimScript once, and remembers a payment that it has claimed. The
// error is errStranger when another Redis is there now, or meanwhile: what the former
// one answered counts no more.
func (l *Ledger) claim(ctx context.Context, key payment.Key, nonce string, attempt []byte, lease time.Duration) (*Record, Verdict, error) {
	now, lineage, held := l.now(), l.memory.known(), ""
	wait := l.memory.hold(now)
	if wait > 0 {
		held = "1"
	}
	answer, err := claimScript.Run(ctx, l.redis,
		[]string{paymentKey(key), openKey(key.Gateway), countsKey(key.Gateway), newestKey(key.Gateway)},
		nonce, now.UnixMilli(), now.Add(lease).UnixMilli(), attempt, key.TransactionID, lineage, held,
	).StringSlice()
	if err != nil {
		return nil, "", fmt.Errorf("ledger: claim %s: %w", key, err)
	}
	verdict, answer := Verdict(answer[0]), answer[1:]
	switch verdict {
	case Missing:
		return nil, Missing, nil
	case verdictHeld:
		return nil, "", vigilHeld(wait)
	case verdictEarly:
		after, err := strconv.ParseInt(answer[0], 10, 64)
		if err != nil {
			return nil, "", fmt.Errorf("ledger: %s is damaged: after: %w", key, err)
		}
		return nil, "", &Held{Wait: time.UnixMilli(after).Sub(now), Reason: "its time has not come"}
	case verdictStranger:
		return nil, "", errStranger
	}
	fields := make(map[string]string, len(answer)/2)
	for i := 0; i+1 < len(answer); i += 2 {
		fields[answer[i]] = answer[i+1]
	}
	record, err := decode(key, fields)
	if err == nil && verdict == Claimed {
		// A claim is kept in mind as long as its request may be under way.
		keep := now.Add(max(lease, memorySpan))
		if !l.memory.remember(lineage, now, deed{putBack(key, record, answer), keep}) {
			return nil, "", errStranger
		}
	}
	return record, verdict, err
}

// Read returns a payment with all its attempts.
func (l *Ledger) Read(ctx context.Context, key payment.Key) (*Record, error) {
	fields, err := l.redis.HGetAll(ctx, paymentKey(key)).Result()
	if err != nil {
		return nil, fmt.Errorf("ledger: read %s: %w", key, err)
	}
	if len(fields) == 0 {
		return nil, fmt.Errorf("ledger: read %s: %w", key, ErrNotFound)
	}
	return decode(key, fields)
}

// Save is for who holds the claim: it records what was changed in the record. The
// error is ErrFenced when somebody else was first. While Redis does not answer, Save
// goes on trying until the context ends: what a gateway said must not be forgotten.
func (l *Ledger) Save(ctx context.Context, r *Record) error {
	save, err := l.save(r)
	if err != nil {
		return err
	}
	return retry.Do(ctx, retry.WithCappedDuration(time.Second, retry.NewFibonacci(50*time.Millisecond)),
		func(ctx context.Context) error {
			lineage := l.memory.known()
			c := save.under(lineage)
			err := r.saved(c.script.Run(ctx, l.redis, c.keys, c.args...))
			if err == nil && !l.remember(save, lineage) {
				err = errStranger
			}
			switch {
			case err == nil || errors.Is(err, ErrFenced) || errors.Is(err, ErrNotFound):
				return err
			case errors.Is(err, errStranger):
				err = errors.Join(err, l.Meet(ctx))
			}
			return retry.RetryableError(err)
		})
}

// SaveAll is for who holds no claim: it records what was changed in many records, in
// one round trip; each error stands at its record's index. It does not try again:
// look-ups can be repeated. A *Held says that Redis has just come back, and somebody
// may know better: try again when it is over, and the revision tells.
func (l *Ledger) SaveAll(ctx context.Context, records []*Record) []error {
	errs := make([]error, len(records))
	calls := make([]call, 0, len(records))
	lineage, hold := l.memory.known(), l.memory.hold(l.now())
	for i, r := range records {
		save, err := l.save(r)
		switch {
		case err != nil:
			errs[i] = err
			continue
		case hold > 0:
			errs[i] = vigilHeld(hold)
			continue
		}
		save.index = i
		calls = append(calls, save.under(lineage))
	}
	var strange []int
	l.runAll(ctx, calls, func(c call, cmd *redis.Cmd) {
		err := records[c.index].saved(cmd)
		if err == nil {
			l.remember(c, lineage) // if another Redis was met meanwhile, it will be asked about again
		}
		if errors.Is(err, errStranger) {
			strange = append(strange, c.index)
		}
		errs[c.index] = err
	})
	if len(strange) > 0 {
		err := l.Meet(ctx)
		if err == nil {
			err = vigilHeld(l.memory.hold(l.now()))
		}
		for _, i := range strange {
			errs[i] = err
		}
	}
	return errs
}

// remember keeps a save in mind.
func (l *Ledger) remember(save call, lineage string) bool {
	now := l.now()
	return l.memory.remember(lineage, now, deed{save, now.Add(memorySpan)})
}

// saved reads saveScript's answer.
func (r *Record) saved(cmd *redis.Cmd) error {
	word, err := cmd.Text()
	switch {
	case err != nil:
		return fmt.Errorf("ledger: save %s: %w", r.Key(), err)
	case word == "fenced":
		return fmt.Errorf("ledger: save %s: %w", r.Key(), ErrFenced)
	case word == "stranger":
		return fmt.Errorf("ledger: save %s: %w", r.Key(), errStranger)
	case word == "missing":
		return fmt.Errorf("ledger: save %s: %w", r.Key(), ErrNotFound)
	default:
		r.saving = ""
		return nil
	}
}

// save turns a changed record into a run of saveScript.
func (l *Ledger) save(r *Record) (call, error) {
	fail := func(err error) (call, error) {
		return call{}, fmt.Errorf("ledger: save %s: %w", r.Key(), err)
	}
	if !payment.CanMove(r.was, r.Status) || r.Status == payment.Submitting { // only Claim leads there
		return fail(fmt.Errorf("from %s to %s: %w", r.was, r.Status, ErrIllegal))
	}
	if r.saving == "" {
		r.saving = rand.Text()
		if r.Status != r.was {
			r.UpdatedAt = l.now().Truncate(time.Millisecond).UTC()
		}
	}
	facts, err := r.facts()
	if err != nil {
		return fail(err)
	}
	var event, attempt []byte
	if r.Status != r.was && r.Status.Public() {
		if event, err = events.Marshal(&r.Payment, r.events+1); err != nil {
			return fail(err)
		}
	}
	number := ""
	if r.changed != nil {
		if attempt, err = json.Marshal(r.changed); err != nil {
			return fail(err)
		}
		number = strconv.Itoa(r.number)
	}
	since := ""
	if r.Status == payment.Verifying {
		since = strconv.FormatInt(r.Since.UnixMilli(), 10)
	}
	due := ""
	if !r.Due.IsZero() {
		due = strconv.FormatInt(r.Due.UnixMilli(), 10)
	}
	after := ""
	if r.Status == payment.Queued && !r.After.IsZero() {
		after = strconv.FormatInt(r.After.UnixMilli(), 10)
	}
	forget := ""
	if r.Status.Final() {
		forget = "1"
	}
	g := r.Gateway
	return call{
		script: saveScript,
		keys:   []string{paymentKey(r.Key()), openKey(g), unknownKey(g), countsKey(g), l.stream, newestKey(g)},
		args: []any{
			r.saving, r.rev, r.TransactionID, string(r.Status), facts, r.UpdatedAt.UnixMilli(),
			number, attempt, due, since, event, forget, r.numeric(), r.nonce, after,
		},
	}, nil
}
