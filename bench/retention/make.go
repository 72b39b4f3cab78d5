package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
)

const (
	batch   = 500 // payments of a Create, and of a poll
	batches = 4   // under way at the same time
	claims  = 64  // of a batch, at the same time
)

// make makes the payments, from the order to the lookup that reports them as paid.
func (r *retentionRun) make() {
	r.with(func(s *store) { // Redis allocates 250 KB or more when a script is used for the first time
		r.require(r.makePayments(s, 1))
	})
	r.redis.flush()
	r.empty = r.redis.memory()

	r.require(r.redis.client.ConfigSet(r.t.Context(), "auto-aof-rewrite-percentage", "100").Err())
	ctx, stop := context.WithCancel(r.t.Context())
	trimmed := make(chan struct{})
	go func() {
		defer close(trimmed)
		r.trim(ctx)
	}()
	begun := time.Now()
	r.with(func(s *store) { r.require(r.makePayments(s, r.o.payments)) })
	took := time.Since(begun)
	stop()
	<-trimmed
	r.require(r.redis.client.ConfigSet(r.t.Context(), "auto-aof-rewrite-percentage", "0").Err())
	r.redis.rewrite()
	r.rate("made", fmt.Sprintf("Create, Claim, Save, lookup; %d at a time", batches*claims), took)
	r.deleteEvents(r.t.Context())
	r.row("  used_memory of Redis a payment (bytes)", "without the event stream, which is deleted", "%.0f", r.per(float64(r.redis.memory()-r.empty)))
	keys := r.redis.keys("*:payment:*", r.o.keys)
	r.row("  MEMORY USAGE of its key (bytes)", fmt.Sprintf("mean of %d", len(keys)), "%.0f", float64(r.redis.memoryUsage(keys))/float64(len(keys)))

	r.with(func(s *store) {
		r.expect(s, "made", int64(r.o.payments), 0)
		for _, i := range some(r.o.sample, r.o.payments) {
			record, err := s.Read(r.t.Context(), r.o.key(i))
			r.require(err)
			r.sampled[i], err = record.ArchiveLine()
			r.require(err)
		}
	})
}

// trim deletes the events every second, as a very short EVENTS_RETENTION would.
func (r *retentionRun) trim(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			r.deleteEvents(ctx)
		}
	}
}

func (r *retentionRun) deleteEvents(ctx context.Context) {
	for _, stream := range ledger.StreamNames(ledger.DefaultStream, r.o.partitions) {
		_ = r.redis.client.Del(ctx, stream).Err() // else the next one does, or measured memory is too high
	}
}

// expect compares the numbers of paid payments and of tombstones.
func (r *retentionRun) expect(s *store, when string, records, tombstones int64) {
	r.t.Helper()
	var paid, all, dead int64
	for _, g := range payment.Gateways() {
		stats, err := s.Stats(r.t.Context(), g)
		r.require(err)
		paid, all, dead = paid+stats.Counts[payment.Paid], all+stats.Payments(), dead+stats.Tombstones
	}
	if paid != records || all != records || dead != tombstones {
		r.wrong("%s: the ledger counts %d records, %d of them paid, and %d tombstones instead of %d paid and %d",
			when, all, paid, dead, records, tombstones)
	}
}

// makePayments makes the first n payments.
func (r *retentionRun) makePayments(s *store, n int) error {
	submits, ctx := errgroup.WithContext(r.t.Context())
	submits.SetLimit(batches)
	for from := 0; from < n; from += batch {
		submits.Go(func() error { return r.o.submit(ctx, s, from, min(from+batch, n)) })
	}
	if err := submits.Wait(); err != nil {
		return err
	}
	polls, ctx := errgroup.WithContext(r.t.Context())
	for range batches / 2 {
		for _, g := range payment.Gateways() {
			polls.Go(func() error { return r.o.poll(ctx, s, g, r.numbers) })
		}
	}
	return polls.Wait()
}

// submit creates payments and records that the gateway has accepted them.
func (o options) submit(ctx context.Context, s *store, from, to int) error {
	entries := make([]ledger.NewPayment, 0, to-from)
	for i := from; i < to; i++ {
		e, err := o.newPayment(i, false)
		if err != nil {
			return err
		}
		entries = append(entries, e)
	}
	for i, result := range s.Create(ctx, entries) {
		if result.Err != nil || result.Creation != ledger.Created {
			return fmt.Errorf("create %s: %s, %w", entries[i].Key, result.Creation, result.Err)
		}
	}
	each, ctx := errgroup.WithContext(ctx)
	each.SetLimit(claims)
	for i := from; i < to; i++ {
		each.Go(func() error {
			key := o.key(i)
			r, result, err := s.Claim(ctx, key, ledger.Claim{Attempt: attempt(key.Gateway, payment.KindSubmit, i), Lease: time.Minute, Timeout: 10 * time.Second})
			if err != nil || result != ledger.Claimed {
				return fmt.Errorf("claim %s: %s, %w", key, result, err)
			}
			if why := o.receipt(i, false).Apply(&r.Payment); why != "" {
				return errors.New(why)
			}
			r.Due = ledger.In(0)
			r.FinishAttempt(accept(key.Gateway, r.Attempts[0]))
			return s.Save(ctx, r)
		})
	}
	return each.Wait()
}

// poll looks up payments until none is open.
func (o options) poll(ctx context.Context, s *store, g payment.Gateway, numbers map[payment.Key]int) error {
	for ctx.Err() == nil {
		due, err := s.TakeDue(ctx, ledger.Open, g, time.Minute, batch)
		if err != nil {
			return err
		}
		if due.Len() == 0 {
			return nil
		}
		for _, r := range due.Records {
			i := numbers[r.Key()]
			if why := o.receipt(i, true).Apply(&r.Payment); why != "" {
				return errors.New(why)
			}
			r.AddAttempt(accept(g, attempt(g, payment.KindLookup, o.payments+i)))
		}
		if err := errors.Join(s.SaveAll(ctx, due.Records)...); err != nil {
			return err
		}
		if due.Err != nil {
			return due.Err
		}
	}
	return ctx.Err()
}
