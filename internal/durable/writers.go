package durable

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// Writers are the Writers of the slots of a ledger. In a Redis Cluster each slot has its own,
// because each may be on another node; elsewhere one serves all.
type Writers []*Writer

// NewWriters returns a Writer for each key. The options' Key is not used.
func NewWriters(o Options, keys []string) Writers {
	ws := make(Writers, len(keys))
	for i, key := range keys {
		o.Key = key
		ws[i] = New(o)
	}
	return ws
}

// Partition returns the Writer of the ith partition.
func (ws Writers) Partition(i int) *Writer { return ws[i%len(ws)] }

// Start calls Start of all Writers.
func (ws Writers) Start(ctx context.Context) error {
	errs := make([]error, len(ws))
	ws.each(func(i int, w *Writer) { errs[i] = w.Start(ctx) })
	return errors.Join(errs...)
}

// Watch calls Watch of all Writers, and returns when the context ends.
func (ws Writers) Watch(ctx context.Context) {
	ws.each(func(_ int, w *Writer) { w.Watch(ctx) })
}

func (ws Writers) each(f func(i int, w *Writer)) {
	var group sync.WaitGroup
	for i, w := range ws {
		group.Go(func() { f(i, w) })
	}
	group.Wait()
}

// Observe makes Watch call a function with Status after each inspection of any Writer. Call
// it before Watch.
func (ws Writers) Observe(observe func(Status)) {
	for _, w := range ws {
		w.Observe(func(Status) { observe(ws.Status()) })
	}
}

// Status returns the state of all Writers: the fewest replicas, the highest number that must
// acknowledge, the largest skew, the sum of the changes, and the first reason for a pause.
func (ws Writers) Status() Status {
	all := ws[0].Status()
	for _, w := range ws[1:] {
		s := w.Status()
		all.Replicas, all.Needed = min(all.Replicas, s.Replicas), max(all.Needed, s.Needed)
		all.Fsync = all.Fsync || s.Fsync
		all.PrimaryChanges += s.PrimaryChanges
		if s.Skew.Abs() > all.Skew.Abs() {
			all.Skew = s.Skew
		}
		if all.Paused == "" {
			all.Paused = s.Paused
		}
	}
	return all
}

// Warnings returns the distinct warnings of all Writers.
func (ws Writers) Warnings() []string {
	var all []string
	for _, w := range ws {
		for _, warning := range w.Warnings() {
			if !slices.Contains(all, warning) {
				all = append(all, warning)
			}
		}
	}
	return all
}

// ClockSkews returns Writer.ClockSkews, which are the same for all Writers.
func (ws Writers) ClockSkews(ctx context.Context) map[string]time.Duration {
	return ws[0].ClockSkews(ctx)
}
