package statuspoll

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
)

// LookUpAsked looks up the payments of a gateway that a callback has asked for (ledger.Ask).
//
// Callbacks can be forged. So only a payment that is found is recorded, with the rules of every
// other lookup. In all other cases record and schedule stay as they are: a lookup that a callback
// has asked for is no attempt, does not count as "no such payment", and neither delays nor replaces
// a scheduled one. Admission decides, as for every request, whether the gateway may be asked.
func (p *Poller) LookUpAsked(ctx context.Context, g payment.Gateway) error {
	asker := p.Askers[g]
	for {
		batch, err := p.Ledger.TakeDue(ctx, ledger.Asked, g, hideFor, asker.RoundSize())
		var why error
		if err == nil && batch.Len() > 0 {
			why, err = p.lookUpBatch(ctx, g, batch)
		}
		if err = errors.Join(err, p.cannotAsk(g, why)); err != nil {
			return fmt.Errorf("statuspoll: after callbacks of %s: %w", g, err)
		}
		if why != nil || batch.Len() < asker.RoundSize() {
			return nil
		}
	}
}

// lookUpBatch looks up one batch of the list Asked. If the gateway cannot be asked, why is the
// reason, and the payments that were not looked up stay in the list.
func (p *Poller) lookUpBatch(ctx context.Context, g payment.Gateway, batch *ledger.Batch) (why, err error) {
	var wanted []*ledger.Record
	done := slices.Clone(batch.Unreadable) // a poll reports them
	for _, r := range batch.Records {
		switch r.Status {
		case payment.OnProcessing, payment.Verifying, payment.Expired, payment.NeedsReview:
			p.Ledger.RestartCount(batch, r, p.Now())
			wanted = append(wanted, r)
		default: // its status has changed since the callback
			done = append(done, r.TransactionID)
		}
	}
	if len(wanted) == 0 {
		return nil, p.Ledger.Finish(ctx, batch, done)
	}
	if why = p.Askers[g].Ready(ctx); why != nil {
		return why, errors.Join(p.Ledger.Finish(ctx, batch, done), p.Ledger.Release(ctx, batch, ids(wanted)))
	}
	stop := p.keepHidden(ctx, batch)
	findings, why := p.Askers[g].Ask(ctx, wanted, false)
	stop()
	var notLookedUp []string
	var changes []change
	for i, f := range findings {
		r := wanted[i]
		if f.Answer.At.IsZero() {
			notLookedUp = append(notLookedUp, r.TransactionID)
			continue
		}
		done = append(done, r.TransactionID)
		if f.Answer.Receipt == nil {
			continue
		}
		before := r.Payment
		if c, _ := p.update(r, f); c.attempt != nil || r.GatewayStatus != before.GatewayStatus || r.GatewayReference != before.GatewayReference {
			changes = append(changes, c)
		}
	}
	return why, errors.Join(
		p.save(ctx, changes),
		p.Ledger.Finish(ctx, batch, done),
		p.Ledger.Release(ctx, batch, notLookedUp),
	)
}
