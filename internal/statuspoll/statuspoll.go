// Package statuspoll looks up open payments at the gateways until each has a final status.
//
// A poll takes the payments of one gateway that are due from the ledger, looks them up
// together, and records what the gateway reported. A lookup that fails leaves the payment
// unchanged. Absence alone never ends a payment: an open payment stays open, and for a
// payment of unknown outcome "no such payment" must be confirmed (see update.go).
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

// Asker looks up many payments of one gateway.
type Asker interface {
	// Ready logs in if necessary. The error says why the gateway cannot be asked now.
	Ready(ctx context.Context) error
	// Ask looks up the wanted payments and returns one finding per payment, at the same
	// index. With fullScan it takes no shortcut, so that absence is conclusive. The error
	// says why the gateway could not be asked, or not about all payments; the findings
	// made before the error are valid.
	Ask(ctx context.Context, wanted []*ledger.Record, fullScan bool) ([]Finding, error)
	// Shared reports whether one lookup serves any number of payments. If so, every round
	// also looks for all payments of unknown outcome.
	Shared() bool
	// RoundSize is the maximum number of payments that one round takes from the ledger.
	RoundSize() int
}

// Finding is the result of the lookup of one payment. The Answer carries a receipt if the
// payment was found, and Absent if the gateway reported that it has no such payment. If
// Answer.At is zero, the payment was not looked up.
type Finding struct {
	Answer     clients.Answer
	ExternalID string // the X-EXTERNAL-ID of the lookup, Paydia only
	Duplicate  string // an explanation, if the gateway has the payment twice
	Conclusive bool   // no shortcut was taken, so Absent may count as confirmed
}

// Poller polls gateways. Set its fields before the first use.
type Poller struct {
	Ledger    *ledger.Ledger
	Submitter *submit.Submitter // handles expired claims and payments that were not sent in time
	Askers    map[payment.Gateway]Asker
	Policy    *retrypolicy.Policy
	// Requeue enqueues the tasks of payments of one gateway. A task that is already in
	// the queue is not duplicated.
	Requeue func(ctx context.Context, payments []*payment.Payment) error

	Interval    time.Duration // between two polls of a gateway
	FullScan    time.Duration // maximum time between two full scans
	ExpiryGrace time.Duration // an unpaid payment expires this long after its expired_date
	LateWindow  time.Duration // how long expired payments, and those in review, are still looked up
	Now         func() time.Time
	// OnAttempt is called after a lookup was recorded, with the client's error if any.
	OnAttempt func(r *ledger.Record, a payment.Attempt, detail error)
	// OnUnreadable is called for records that are malformed or of another version. They
	// are postponed by one Interval and otherwise ignored.
	OnUnreadable func(g payment.Gateway, ids []string, why error)

	mu           sync.Mutex
	lastFullScan map[payment.Gateway]time.Time
}

const (
	// hideFor is how long a poll hides the payments it has taken from other polls. While
	// it waits for the gateway it renews this time. If its process dies, the payments are
	// due again after at most this time.
	hideFor = 10 * time.Second
	// sendingRound is the maximum number of queued and submitting payments per round.
	sendingRound = 1000
)

// Poll handles every payment of a gateway that is due. If the gateway cannot be asked now,
// its open payments stay due, so that another worker can look them up.
func (p *Poller) Poll(ctx context.Context, g payment.Gateway) error {
	if err := errors.Join(p.pollSending(ctx, g), p.pollOpen(ctx, g)); err != nil {
		return fmt.Errorf("statuspoll: %s: %w", g, err)
	}
	return nil
}

// pollSending handles queued payments whose task is overdue, and submitting payments whose
// claim has expired, round by round.
func (p *Poller) pollSending(ctx context.Context, g payment.Gateway) error {
	for {
		batch, err := p.Ledger.TakeDue(ctx, ledger.Sending, g, hideFor, sendingRound)
		if err != nil {
			return err
		}
		errs := []error{p.postponeUnreadable(ctx, g, batch)}
		var queued []*ledger.Record
		for _, r := range batch.Records {
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
		errs = append(errs, p.requeue(ctx, batch, queued))
		if err := errors.Join(errs...); err != nil || batch.Len() < sendingRound {
			return err
		}
	}
}

// requeue enqueues the tasks of queued payments again: they may be lost.
func (p *Poller) requeue(ctx context.Context, batch *ledger.Batch, queued []*ledger.Record) error {
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
	return p.Ledger.Reschedule(ctx, batch, ids(queued), ledger.In(ledger.TaskGrace))
}

// postponeUnreadable makes unreadable records due later, so that they do not fill every
// round.
func (p *Poller) postponeUnreadable(ctx context.Context, g payment.Gateway, batch *ledger.Batch) error {
	if len(batch.Unreadable) == 0 {
		return nil
	}
	p.OnUnreadable(g, batch.Unreadable, batch.Err)
	return p.Ledger.Reschedule(ctx, batch, batch.Unreadable, ledger.In(p.Interval))
}

// pollOpen looks up open payments, round by round, until none is due or the gateway cannot
// be asked.
func (p *Poller) pollOpen(ctx context.Context, g payment.Gateway) error {
	asker := p.Askers[g]
	for {
		batch, err := p.Ledger.TakeDue(ctx, ledger.Open, g, hideFor, asker.RoundSize())
		if err != nil {
			return err
		}
		if batch.Len() == 0 {
			return nil
		}
		wanted, err := p.gather(ctx, g, batch)
		if err != nil {
			return err
		}
		if err := p.postponeUnreadable(ctx, g, batch); err != nil {
			return err
		}
		if why := asker.Ready(ctx); why != nil {
			return errors.Join(p.Ledger.Release(ctx, batch, ids(batch.Records)), p.cannotAsk(g, why))
		}
		findings, why := p.ask(ctx, g, batch, wanted)
		err = errors.Join(p.apply(ctx, batch, wanted, findings), p.cannotAsk(g, why))
		if err != nil || why != nil || batch.Len() < asker.RoundSize() {
			return err
		}
	}
}

// gather returns the payments to look up in one round: those of the batch, which are due,
// and if the lookup is shared also every other payment of unknown outcome.
func (p *Poller) gather(ctx context.Context, g payment.Gateway, batch *ledger.Batch) ([]*ledger.Record, error) {
	wanted := batch.Records
	if p.Askers[g].Shared() && len(wanted) > 0 {
		unknown, err := p.Ledger.UnknownOutcomes(ctx, batch)
		if err != nil {
			return nil, err
		}
		wanted = appendMissing(wanted, unknown)
	}
	for _, r := range wanted {
		p.Ledger.RestartCount(batch, r, p.Now())
	}
	return wanted, nil
}

// ask looks up the wanted payments, and keeps the batch hidden from other polls meanwhile.
// (Model step [lookup].)
func (p *Poller) ask(ctx context.Context, g payment.Gateway, batch *ledger.Batch, wanted []*ledger.Record) ([]Finding, error) {
	if len(wanted) == 0 {
		return nil, nil
	}
	fullScan := p.wantsFullScan(g, batch.Records)
	stop := p.keepHidden(ctx, batch)
	findings, err := p.Askers[g].Ask(ctx, wanted, fullScan)
	stop()
	if fullScan && err == nil {
		p.fullScanDone(g)
	}
	return findings, err
}

// apply records the findings. A payment of the batch is due again if it was not looked up,
// and due at the next poll if the finding changes nothing. For the other payments, which
// are not due, only a finding that counts is recorded: the payment was found, or its
// absence is now confirmed.
func (p *Poller) apply(ctx context.Context, batch *ledger.Batch, wanted []*ledger.Record, findings []Finding) error {
	var (
		notLookedUp, unchanged []string
		changes                []change
	)
	due := recordSet(batch.Records)
	for i, f := range findings {
		r := wanted[i]
		lookedUp := !f.Answer.At.IsZero()
		counts := lookedUp && (f.Answer.Receipt != nil || f.Conclusive && p.confirmable(r, f.Answer.At))
		switch {
		case due[r.TransactionID] && !lookedUp:
			notLookedUp = append(notLookedUp, r.TransactionID)
			continue
		case !due[r.TransactionID] && !counts:
			continue
		}
		if c, ok := p.update(r, f); ok {
			changes = append(changes, c)
		} else {
			unchanged = append(unchanged, r.TransactionID)
		}
	}
	return errors.Join(
		p.Ledger.Release(ctx, batch, notLookedUp),
		p.Ledger.Reschedule(ctx, batch, unchanged, ledger.OnGrid(p.Interval)),
		p.save(ctx, changes),
	)
}

// cannotAsk handles the reason why a gateway could not be asked. It returns only errors of
// our own, such as those of Redis. A denied request is no error: package admission logs its
// pauses itself. A failed login is reported to the submitter.
func (p *Poller) cannotAsk(g payment.Gateway, why error) error {
	var denied *admission.DeniedError
	var login *clients.Error
	switch {
	case why == nil, errors.As(why, &denied):
		return nil
	case errors.As(why, &login):
		p.Submitter.OnLogin(g, why)
		return nil
	default:
		return why
	}
}

// keepHidden hides a batch from other polls until stop is called. A failure is harmless:
// another poll may then look up the same payments.
func (p *Poller) keepHidden(ctx context.Context, batch *ledger.Batch) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var renewing sync.WaitGroup
	renewing.Go(func() {
		renew := time.NewTicker(hideFor / 3)
		defer renew.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-renew.C:
				_ = p.Ledger.Hide(ctx, batch, hideFor)
			}
		}
	})
	return func() {
		cancel()
		renewing.Wait()
	}
}

// wantsFullScan reports whether the next lookup of a gateway must be a full scan: if the
// last one is FullScan ago, or if it is Interval ago and a due payment is confirmable. One
// full scan serves all payments that wait for it.
func (p *Poller) wantsFullScan(g payment.Gateway, due []*ledger.Record) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lastFullScan == nil {
		p.lastFullScan = make(map[payment.Gateway]time.Time)
	}
	now := p.Now()
	if p.lastFullScan[g].IsZero() { // a start of the worker alone is no reason for a full scan
		p.lastFullScan[g] = now.Add(-p.Interval)
	}
	since := now.Sub(p.lastFullScan[g])
	return since >= p.FullScan || since >= p.Interval && slices.ContainsFunc(due, func(r *ledger.Record) bool { return p.confirmable(r, now) })
}

func (p *Poller) fullScanDone(g payment.Gateway) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastFullScan[g] = p.Now()
}

// save writes the changes to the ledger in one round trip.
func (p *Poller) save(ctx context.Context, changes []change) error {
	records := make([]*ledger.Record, len(changes))
	for i, c := range changes {
		records[i] = c.record
	}
	var errs []error
	for i, err := range p.Ledger.SaveAll(ctx, records) {
		switch {
		case errors.Is(err, ledger.ErrFenced): // another process changed it first; it is looked up again when due
		case err != nil:
			errs = append(errs, err)
		default:
			errs = append(errs, p.saved(ctx, changes[i]))
		}
	}
	return errors.Join(errs...)
}

// saved reports a recorded change, and enqueues the payment if it is to be sent again.
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

// recordSet returns the transaction ids of records of one gateway.
func recordSet(records []*ledger.Record) map[string]bool {
	set := make(map[string]bool, len(records))
	for _, r := range records {
		set[r.TransactionID] = true
	}
	return set
}

// appendMissing returns records and after them the others that are not among them.
func appendMissing(records, others []*ledger.Record) []*ledger.Record {
	has := recordSet(records)
	all := slices.Clip(records)
	for _, r := range others {
		if !has[r.TransactionID] {
			all = append(all, r)
		}
	}
	return all
}
