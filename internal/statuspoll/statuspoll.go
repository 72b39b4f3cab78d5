// Package statuspoll asks the gateways where open payments stand, until each is
// final. A poll takes what is due from the ledger, asks the gateway for all of
// it together, and records what it positively found. An error, or a payment
// that was not seen, changes nothing.
package statuspoll

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"terbayar/internal/clients"
	"terbayar/internal/gate"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/retrypolicy"
	"terbayar/internal/submit"
)

// Asker asks one gateway about many payments at once.
type Asker interface {
	// Ask looks for the wanted payments and returns a finding for each, at its
	// index. prove asks it to take no short cut: somebody is about to believe that
	// a payment is not there. The error says why the gateway could not be asked, or
	// not on to the end: it cannot be logged in to, or is not to be asked now. What
	// was found before stands.
	Ask(ctx context.Context, wanted []*ledger.Record, prove bool) ([]Finding, error)
	// Together reports whether asking about one more payment costs nothing: then a
	// poll for some looks out for every unknown outcome.
	Together() bool
	// Round is how many payments one round of a poll takes; the rounds go on until
	// nothing is due.
	Round() int
}

// Finding is what a look-up learned of one payment: a receipt when it was found,
// Absent when the gateway positively knows no such payment, otherwise what went
// wrong. The zero value means that it was not asked about after all.
type Finding struct {
	Answer     clients.Answer
	ExternalID string // the look-up's own X-EXTERNAL-ID, Paydia only
	Twice      string // in words, when the gateway has the payment twice
	Proven     bool   // an Absent that rests on no short cut: it may be believed
}

// Poller polls gateways. Its fields are set once, before its first use.
type Poller struct {
	Ledger    *ledger.Ledger
	Submitter *submit.Submitter // for claims whose holder is gone
	Askers    map[payment.Gateway]Asker
	Policy    *retrypolicy.Policy
	// Requeue puts the tasks of payments of one gateway into its queue; one that waits
	// there already stays the only one.
	Requeue func(ctx context.Context, payments []*payment.Payment) error

	Interval    time.Duration // the grid of the poll
	Sweep       time.Duration // how long polls may take short cuts before one must not
	ExpiryGrace time.Duration // how long after expired_date an unpaid payment is expired
	LateWindow  time.Duration // how long expired and lost payments are still looked for
	Now         func() time.Time
	Sleep       func(ctx context.Context, d time.Duration) error // until then, or the context ends
	// OnAttempt is told of every look-up that stands in the ledger, with what its
	// client had to add.
	OnAttempt func(r *ledger.Record, a payment.Attempt, detail error)

	mu    sync.Mutex
	swept map[payment.Gateway]time.Time // when a poll last took no short cut
}

// hide is how long what a poll has taken is hidden from other polls; while it
// asks, it keeps hiding it. A poll that dies delays its payments by as much.
const hide = 10 * time.Second

// Poll settles everything that is due at a gateway. Once the gateway cannot be asked
// any more, whatever else is due is put off in the order it stands in: where every poll
// is cut short, somebody would otherwise wait for ever.
func (p *Poller) Poll(ctx context.Context, g payment.Gateway) error {
	round := p.Askers[g].Round()
	var halt halt
	for {
		hidden := p.Now().Add(hide)
		taken, err := p.Ledger.Take(ctx, g, hidden, round)
		errs := []error{err}
		var queued, wanted []*ledger.Record
		for _, r := range taken {
			switch r.Status {
			case payment.Queued:
				queued = append(queued, r)
			case payment.Submitting:
				err := p.Submitter.Abandon(ctx, r.Key())
				if errors.As(err, new(*ledger.Held)) {
					wanted, err = append(wanted, r), nil // to be asked about meanwhile
				}
				errs = append(errs, err)
			default:
				wanted = append(wanted, r)
			}
		}
		errs = append(errs, p.requeue(ctx, g, queued, hidden))
		if halt.until.IsZero() {
			halt, err = p.lookUp(ctx, g, wanted)
		} else {
			err = p.putOff(ctx, g, ids(wanted), &halt)
		}
		err = errors.Join(append(errs, err)...)
		if err != nil || len(taken) < round || halt.over(p.Now()) {
			if err = errors.Join(halt.why, err); err != nil {
				err = fmt.Errorf("statuspoll: %s: %w", g, err)
			}
			return err
		}
	}
}

// requeue brings back payments whose tasks should have come long ago. Who has been
// claimed meanwhile stays due when the claim ends.
func (p *Poller) requeue(ctx context.Context, g payment.Gateway, queued []*ledger.Record, hidden time.Time) error {
	if len(queued) == 0 {
		return nil
	}
	payments := make([]*payment.Payment, len(queued))
	for i, r := range queued {
		payments[i] = &r.Payment
	}
	if err := p.Requeue(ctx, payments); err != nil {
		return err
	}
	return p.Ledger.PostponeHidden(ctx, g, ids(queued), hidden, p.Now().Add(ledger.TaskGrace))
}

// halt is until when a gateway cannot be asked, and why (nil: its gate is closed, and has
// said so). The zero value: it can.
type halt struct {
	until time.Time
	why   error
}

func (h halt) over(now time.Time) bool { return !h.until.IsZero() && !h.until.After(now) }

// putOff says that payments, which were not asked about, are due when the gateway can
// be asked again: behind those that were put off before.
func (p *Poller) putOff(ctx context.Context, g payment.Gateway, unasked []string, halt *halt) error {
	halt.until = halt.until.Add(time.Duration(len(unasked)) * ledger.Apart)
	return p.Ledger.Postpone(ctx, g, unasked, halt.until)
}

// lookUp asks for the payments that are due and records what was found.
func (p *Poller) lookUp(ctx context.Context, g payment.Gateway, due []*ledger.Record) (halt, error) {
	var halt halt
	if len(due) == 0 {
		return halt, nil
	}
	asker := p.Askers[g]
	wanted := due
	if asker.Together() {
		unknown, err := p.Ledger.Unknown(ctx, g)
		if err != nil {
			return halt, err
		}
		wanted = join(due, unknown)
	}
	prove := p.prove(g, due)
	release := p.keep(ctx, g, due)
	findings, err := asker.Ask(ctx, wanted, prove)
	release()
	if prove && err == nil {
		p.proved(g)
	}
	heldErr := p.abandonHeld(ctx, wanted)
	var unchanged, unasked []string
	var changes []change
	for i, r := range wanted {
		f := findings[i]
		if r.Status == payment.Submitting {
			continue // there is more to know of it than when it was asked about
		}
		if f.Answer.At.IsZero() {
			if i < len(due) {
				unasked = append(unasked, r.TransactionID)
			}
			continue
		}
		if i >= len(due) && f.Answer.Receipt == nil && !(f.Proven && p.ripe(r, f.Answer.At)) {
			continue // not its turn, and not found: that does not count
		}
		if c, ok := p.settle(r, f); ok {
			changes = append(changes, c)
		} else {
			unchanged = append(unchanged, r.TransactionID)
		}
	}
	next := submit.DueAfter(payment.OnProcessing, p.Now(), p.Interval)
	if err != nil {
		later := submit.LoginPause
		if closed, ok := errors.AsType[*gate.Closed](err); ok {
			later, err = closed.Wait, nil
		}
		halt.until, halt.why = p.Now().Add(later), err
		// Who was asked about stands behind those who were not. (Not behind a rest of
		// hours: other workers may be let through before.)
		behind := p.Now().Add(min(later, p.Interval) + time.Second)
		next = latest(next, behind)
		for _, c := range changes {
			if !c.record.Due.IsZero() {
				c.record.Due = latest(c.record.Due, behind)
			}
		}
	}
	err = errors.Join(heldErr, p.putOff(ctx, g, unasked, &halt), p.Ledger.Postpone(ctx, g, unchanged, next))
	return halt, errors.Join(err, p.save(ctx, changes))
}

// abandonHeld abandons the claims that could not be abandoned before. Where the claim is
// the one that was asked about, what was found holds for the payment as it stands then.
func (p *Poller) abandonHeld(ctx context.Context, wanted []*ledger.Record) error {
	var errs []error
	for i, r := range wanted {
		if r.Status != payment.Submitting {
			continue
		}
		err := p.patiently(ctx, func() error { return p.Submitter.Abandon(ctx, r.Key()) })
		if err == nil {
			r, err = p.Ledger.Read(ctx, r.Key())
		}
		if err == nil && r.Status == payment.Verifying && r.Since.Equal(wanted[i].LeaseEnd()) {
			wanted[i] = r
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// keep hides payments for as long as they are asked about. A time it fails is no
// harm: another poll may then ask about them too.
func (p *Poller) keep(ctx context.Context, g payment.Gateway, due []*ledger.Record) (release func()) {
	ctx, cancel := context.WithCancel(ctx)
	var keeping sync.WaitGroup
	keeping.Go(func() {
		again := time.NewTicker(hide / 3)
		defer again.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-again.C:
				_ = p.Ledger.Postpone(ctx, g, ids(due), p.Now().Add(hide))
			}
		}
	})
	return func() {
		cancel()
		keeping.Wait()
	}
}

// prove decides whether a poll takes no short cut: when a payment may be about
// to be believed lost, though not with every poll, or when the last such poll
// was too long ago. One proof serves all who are ripe for it.
func (p *Poller) prove(g payment.Gateway, due []*ledger.Record) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.swept == nil {
		p.swept = make(map[payment.Gateway]time.Time)
	}
	now := p.Now()
	if p.swept[g].IsZero() { // just started: that is no reason to read everything
		p.swept[g] = now.Add(-p.Interval)
	}
	since := now.Sub(p.swept[g])
	return since >= p.Sweep || since >= p.Interval && slices.ContainsFunc(due, func(r *ledger.Record) bool { return p.ripe(r, now) })
}

func (p *Poller) proved(g payment.Gateway) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.swept[g] = p.Now()
}

// patiently does what a Redis that has just come back puts off, until it is done.
func (p *Poller) patiently(ctx context.Context, do func() error) error {
	for {
		err := do()
		held, ok := errors.AsType[*ledger.Held](err)
		if !ok {
			return err
		}
		if err := p.Sleep(ctx, held.Wait); err != nil {
			return err
		}
	}
}

// save records the changes, all in one round trip. What is put off is not asked about
// again: hide is longer than that takes, unless Redis comes back once more.
func (p *Poller) save(ctx context.Context, changes []change) error {
	var errs []error
	err := p.patiently(ctx, func() (held error) {
		records := make([]*ledger.Record, len(changes))
		for i, c := range changes {
			records[i] = c.record
		}
		var putOff []change
		for i, err := range p.Ledger.SaveAll(ctx, records) {
			switch {
			case errors.As(err, new(*ledger.Held)):
				putOff, held = append(putOff, changes[i]), err
			case errors.Is(err, ledger.ErrFenced): // somebody else was first; it is looked at again when due
			default:
				if err == nil {
					err = p.saved(ctx, changes[i])
				}
				errs = append(errs, err)
			}
		}
		changes = putOff
		return held
	})
	return errors.Join(append(errs, err)...)
}

// saved does what follows from a change that stands in the ledger.
func (p *Poller) saved(ctx context.Context, c change) error {
	if c.attempt != nil {
		p.OnAttempt(c.record, *c.attempt, c.detail)
	}
	if c.record.Status == payment.Queued {
		return p.Requeue(ctx, []*payment.Payment{&c.record.Payment})
	}
	return nil
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func ids(records []*ledger.Record) []string {
	ids := make([]string, len(records))
	for i, r := range records {
		ids[i] = r.TransactionID
	}
	return ids
}

// join appends to due what of others is not in it already.
func join(due, others []*ledger.Record) []*ledger.Record {
	there := make(map[string]bool, len(due))
	for _, r := range due {
		there[r.TransactionID] = true
	}
	all := due[:len(due):len(due)]
	for _, r := range others {
		if !there[r.TransactionID] {
			all = append(all, r)
		}
	}
	return all
}
