package statuspoll

import (
	"context"
	"log/slog"
	"time"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
)

// Ticker looks into the ledger at every tick and enqueues a poll for each
// gateway that has something due. Every replica has one: the tick is the same
// for all of them, and so is the task's id.
type Ticker struct {
	Ledger   *ledger.Ledger
	Gateways []payment.Gateway
	Enqueue  func(ctx context.Context, g payment.Gateway, tick time.Time) error
	Every    time.Duration
	Now      func() time.Time
	Log      *slog.Logger
}

// Run ticks until the context ends. An error is logged and left to the next
// tick; of an outage only its beginning and its end are told.
func (t *Ticker) Run(ctx context.Context) {
	if len(t.Gateways) == 0 {
		return
	}
	clock := time.NewTicker(t.Every)
	defer clock.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-clock.C:
		}
		switch err := t.tick(ctx); {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			t.Log.Error("the ledger cannot be asked what is due", "error", err)
			failing = true
		case err == nil && failing:
			t.Log.Info("the ledger can be asked again")
			failing = false
		}
	}
}

func (t *Ticker) tick(ctx context.Context) error {
	due, err := t.Ledger.Due(ctx, t.Gateways)
	if err != nil {
		return err
	}
	for _, g := range due {
		if err := t.Enqueue(ctx, g, t.Now().Truncate(t.Every)); err != nil {
			return err
		}
	}
	return nil
}
