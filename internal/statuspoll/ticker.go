package statuspoll

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
)

// Ticker enqueues a poll at every tick for each gateway that has something due in the
// ledger. Every replica of the worker runs one. Their ticks have the same times and their
// tasks the same ids, so each poll is enqueued once.
//
// It also looks up the payments that a callback has asked for. That is no task: it must not wait
// for a poll that runs, and the ledger gives each payment to one worker.
type Ticker struct {
	Ledger   *ledger.Ledger
	Gateways []payment.Gateway
	Enqueue  func(ctx context.Context, g payment.Gateway, tick time.Time) error
	LookUp   func(ctx context.Context, g payment.Gateway) error // see Poller.LookUpAsked
	Every    time.Duration
	Now      func() time.Time
	Log      *slog.Logger

	lookups sync.WaitGroup
	mu      sync.Mutex
	busy    map[payment.Gateway]bool // LookUp runs
}

// Run ticks until the context ends. After an error it tries again at the next tick. It logs
// the first of several errors in a row, and the recovery.
func (t *Ticker) Run(ctx context.Context) {
	if len(t.Gateways) == 0 {
		return
	}
	clock := time.NewTicker(t.Every)
	defer clock.Stop()
	defer t.lookups.Wait()
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
	due, asked, err := t.Ledger.Due(ctx, t.Gateways)
	if err != nil {
		return err
	}
	for _, g := range asked {
		t.lookUp(ctx, g)
	}
	for _, g := range due {
		if err := t.Enqueue(ctx, g, t.Now().Truncate(t.Every)); err != nil {
			return err
		}
	}
	return nil
}

// lookUp calls LookUp in the background, once at a time for each gateway. At the end of the context
// it breaks off: other workers then find the payments that it has not looked up.
func (t *Ticker) lookUp(ctx context.Context, g payment.Gateway) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.busy[g] {
		return
	}
	if t.busy == nil {
		t.busy = map[payment.Gateway]bool{}
	}
	t.busy[g] = true
	t.lookups.Go(func() {
		if err := t.LookUp(ctx, g); err != nil && ctx.Err() == nil {
			t.Log.Error("lookups after callbacks failed", "gateway", g, "error", err)
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.busy[g] = false
	})
}
