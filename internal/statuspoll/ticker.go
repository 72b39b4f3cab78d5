package statuspoll

import (
	"context"
	"log/slog"
	"time"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
)

// Ticker enqueues a poll at every tick for each gateway that has something due in the
// ledger. Every replica of the worker runs one. Their ticks have the same times and their
// tasks the same ids, so each poll is enqueued once.
type Ticker struct {
	Ledger   *ledger.Ledger
	Gateways []payment.Gateway
	Enqueue  func(ctx context.Context, g payment.Gateway, tick time.Time) error
	Every    time.Duration
	Now      func() time.Time
	Log      *slog.Logger
}

// Run ticks until the context ends. After an error it tries again at the next tick. It logs
// the first of several errors in a row, and the recovery.
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
			t.Log.Error("enqueueing polls failed", "error", err)
			failing = true
		case err == nil && failing:
			t.Log.Info("enqueueing polls works again")
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
