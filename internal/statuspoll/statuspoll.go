// Package statuspoll asks the gateways for the status of open payments, until each is
// final. A poll takes what is due from the ledger, asks the gateway for all of it
// together, and records what it positively found. An error, or a payment that was not
// seen, changes nothing.
package statuspoll

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"terbayar/internal/admission"
	"terbayar/internal/clients"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/retrypolicy"
	"terbayar/internal/submit"
)

// Asker asks one gateway about many payments at once.
type Asker interface {
	// Ready logs in if need be. The error says why the gateway cannot be asked now.
	Ready(ctx context.Context) error
	// Ask looks for the wanted payments and returns a finding for each, at its
	// index. full asks it to take no short cut: somebody is about to believe that
	// a payment is not there. The error says why the gateway could not be asked, or
	// not on to the end. What was found before stands.
	Ask(ctx context.Context, wanted []*ledger.Record, full bool) ([]Finding, error)
	// Together reports whether asking about one more payment costs nothing: then a
	// poll for some looks out for every unknown outcome.
	Together() bool
	// Round is how many payments one round of a poll takes; the rounds go on until
	// nothing is due.
	Round() int
}

// Finding is what a lookup learned of one payment: a receipt when it was found,
// Absent when the gateway positively knows no such payment, otherwise what went
// wrong. The zero value means that it was not asked about after all.
type Finding struct {
	Answer     clients.Answer
	ExternalID string // the lookup's own X-EXTERNAL-ID, Paydia only
	Duplicate  string // in words, when the gateway has the payment twice
	Conclusive bool   // an Absent that rests on no short cut: it may be believed
}

// Poller polls gateways. Its fields are set once, before its first use.
type Poller struct {
	Ledger    *ledger.Ledger
	Submitter *submit.Submitter // for claims that have expired, and payments that were not sent in time
	Askers    map[payment.Gateway]Asker
	Policy    *retrypolicy.Policy
	// Requeue puts the tasks of payments of one gateway into its queue; one that waits
	// there already stays the only one.
	Requeue func(ctx context.Context, payments []*payment.Payment) error

	Interval    time.Duration // the grid of the poll
	FullScan    time.Duration // how long polls may take short cuts before one must not
	ExpiryGrace time.Duration // how long after expired_date an unpaid payment is expired
	LateWindow  time.Duration // how long expired and lost payments are still looked for
	Now         func() time.Time
	// OnAttempt is told of every lookup that the ledger has, with what its client had
	// to add.
	OnAttempt func(r *ledger.Record, a payment.Attempt, detail error)
	// OnUnreadable is told of records that cannot be read, or are of another version:
	// they are put off, and nothing else is done with them.
	OnUnreadable func(g payment.Gateway, ids []string, why error)

	mu           sync.Mutex
	lastFullScan map[payment.Gateway]time.Time
}

// hide is how long what a poll has taken is hidden from other polls; while it
// asks, it keeps hiding it. A poll that dies delays its payments by as much.
const hide = 10 * time.Second

// sendingRound is how many payments that are queued or submitting are seen to at once.
const sendingRound = 1000

// Poll sees to everything that is due at a gateway. What the gateway cannot be asked
// about now stays due, for a worker that can ask.
func (p *Poller) Poll(ctx context.Context, g payment.Gateway) error {
	if err := errors.Join(p.attendSending(ctx, g), p.lookUpDue(ctx, g)); err != nil {
		return fmt.Errorf("statuspoll: %s: %w", g, err)
	}
	return nil
}

// attendSending sees to payments whose task should have come, or whose claim has
// expired.
func (p *Poller) attendSending(ctx context.Context, g payment.Gateway) error {
	for {
		taken, err := p.Ledger.TakeDue(ctx, ledger.Sending, g, hide, sendingRound)
		if err != nil {
			return err
		}
		errs := []error{p.putOffUnreadable(ctx, g, taken)}
		var queued []*ledger.Record
		for _, r := range taken.Records {
			switch {
			case r.Status == payment.Submitting:
				errs = append(errs, p.Submitter.ExpireClaim(ctx, r.Key()))
			case r.Status == payment.Queued && p.Submitter.TooLate(r):
				_, err := p.Submitter.ExpirePayment(ctx, r)
				errs = append(errs, err)
			case r.Status == payment.Queued:
				queued = append(queued, r)
			}
		}
		errs = append(errs, p.requeue(ctx, taken, queued))
		if err := errors.Join(errs...); err != nil || taken.Len() < sendingRound {
			return err
		}
	}
}

// requeue brings back payments whose tasks should have come long ago.
func (p *Poller) requeue(ctx context.Context, taken *ledger.Batch, queued []*ledger.Record) error {
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
	return p.Ledger.Reschedule(ctx, taken, ids(queued), ledger.In(ledger.TaskGrace))
}

// putOffUnreadable keeps records that cannot be read out of the way of the others.
func (p *Poller) putOffUnreadable(ctx context.Context, g payment.Gateway, taken *ledger.Batch) error {
	if len(taken.Unreadable) == 0 {
		return nil
	}
	p.OnUnreadable(g, taken.Unreadable, taken.Err)
	return p.Ledger.Reschedule(ctx, taken, taken.Unreadable, ledger.In(p.Interval))
}

// lookUpDue looks up what is due, round by round, as long as the gateway can be asked.
func (p *Poller) lookUpDue(ctx context.Context, g payment.Gateway) error {
	asker := p.Askers[g]
	for {
		due, err := p.Ledger.TakeDue(ctx, ledger.Open, g, hide, asker.Round())
		if err != nil {
			return err
		}
		if due.Len() == 0 {
			return nil
		}
		q, err := p.gather(ctx, g, due)
		if err != nil {
			return err
		}
		if err := p.putOffUnreadable(ctx, g, due); err != nil {
			return err
		}
		if why := asker.Ready(ctx); why != nil {
			return errors.Join(p.Ledger.Release(ctx, due, ids(q.due)), p.notAsked(g, why))
		}
		findings, why := p.ask(ctx, g, q)
		if err := errors.Join(p.apply(ctx, q, findings), p.notAsked(g, why)); err != nil || why != nil || due.Len() < asker.Round() {
			return err
		}
	}
}

// question is what one round asks about: first the payments that are due, then unknown
// outcomes that may be found on the way.
type question struct {
	taken  *ledger.Batch
	due    []*ledger.Record
	wanted []*ledger.Record // due, and after them the others
}

// gather says what a round asks about.
func (p *Poller) gather(ctx context.Context, g payment.Gateway, taken *ledger.Batch) (question, error) {
	q := question{taken: taken, due: taken.Records, wanted: taken.Records}
	if p.Askers[g].Together() && len(q.due) > 0 {
		unknown, err := p.Ledger.UnknownOutcomes(ctx, taken)
		if err != nil {
			return question{}, err
		}
		q.wanted = join(q.due, unknown)
	}
	for _, r := range q.wanted {
		r.RestartCount(taken.Primary(), p.Now())
	}
	return q, nil
}

// ask asks about all of them together, and keeps them hidden meanwhile. (Model step
// [lookup].)
func (p *Poller) ask(ctx context.Context, g payment.Gateway, q question) ([]Finding, error) {
	if len(q.wanted) == 0 {
		return nil, nil
	}
	full := p.wantsFullScan(g, q.due)
	release := p.keepHidden(ctx, q.taken)
	findings, err := p.Askers[g].Ask(ctx, q.wanted, full)
	release()
	if full && err == nil {
		p.scanned(g)
	}
	return findings, err
}

// apply records what was found.
func (p *Poller) apply(ctx context.Context, q question, findings []Finding) error {
	var unchanged, unasked []string
	var changes []change
	for i, f := range findings {
		r, isDue := q.wanted[i], i < len(q.due)
		switch {
		case f.Answer.At.IsZero():
			if isDue {
				unasked = append(unasked, r.TransactionID)
			}
			continue
		case !isDue && f.Answer.Receipt == nil && !(f.Conclusive && p.confirmable(r, f.Answer.At)):
			continue // not due, and not found: that does not count
		}
		if c, ok := p.settle(r, f); ok {
			changes = append(changes, c)
		} else {
			unchanged = append(unchanged, r.TransactionID)
		}
	}
	return errors.Join(
		p.Ledger.Release(ctx, q.taken, unasked),
		p.Ledger.Reschedule(ctx, q.taken, unchanged, ledger.OnGrid(p.Interval)),
		p.save(ctx, changes),
	)
}

// notAsked is what follows where a gateway could not be asked: what was due stays due.
// That it cannot be logged in to is told; why it is paused its gate has told.
func (p *Poller) notAsked(g payment.Gateway, why error) error {
	var closed *admission.DeniedError
	var login *clients.Error
	switch {
	case why == nil, errors.As(why, &closed):
		return nil
	case errors.As(why, &login):
		p.Submitter.OnLogin(g, why)
		return nil
	default:
		return why
	}
}

// keepHidden hides payments for as long as they are asked about. A time it fails is no
// harm: another poll may then ask about them too.
func (p *Poller) keepHidden(ctx context.Context, taken *ledger.Batch) (release func()) {
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
				_ = p.Ledger.Hide(ctx, taken, hide)
			}
		}
	})
	return func() {
		cancel()
		keeping.Wait()
	}
}

// wantsFullScan decides whether a poll takes no short cut: when a payment may be about
// to be believed lost, though not with every poll, or when the last such poll was too
// long ago. One full scan serves all that wait for it.
func (p *Poller) wantsFullScan(g payment.Gateway, due []*ledger.Record) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lastFullScan == nil {
		p.lastFullScan = make(map[payment.Gateway]time.Time)
	}
	now := p.Now()
	if p.lastFullScan[g].IsZero() { // just started: that is no reason to read everything
		p.lastFullScan[g] = now.Add(-p.Interval)
	}
	since := now.Sub(p.lastFullScan[g])
	return since >= p.FullScan || since >= p.Interval && slices.ContainsFunc(due, func(r *ledger.Record) bool { return p.confirmable(r, now) })
}

func (p *Poller) scanned(g payment.Gateway) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastFullScan[g] = p.Now()
}

// save records the changes, all in one round trip.
func (p *Poller) save(ctx context.Context, changes []change) error {
	records := make([]*ledger.Record, len(changes))
	for i, c := range changes {
		records[i] = c.record
	}
	var errs []error
	for i, err := range p.Ledger.SaveAll(ctx, records) {
		switch {
		case errors.Is(err, ledger.ErrFenced): // somebody else was first; it is looked at again when due
		case err != nil:
			errs = append(errs, err)
		default:
			errs = append(errs, p.saved(ctx, changes[i]))
		}
	}
	return errors.Join(errs...)
}

// saved does what follows from a change that is recorded.
func (p *Poller) saved(ctx context.Context, c change) error {
	if c.attempt != nil {
		p.OnAttempt(c.record, *c.attempt, c.detail)
	}
	if c.record.Status == payment.Queued {
		return p.Requeue(ctx, []*payment.Payment{&c.record.Payment})
	}
	return nil
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
