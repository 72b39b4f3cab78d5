// Package groupcommit sends the writes of many goroutines in few batches. A write that comes
// alone leaves at once. Writes that come while batches are under way wait for one of them to
// end, and leave together.
package groupcommit

import (
	"context"
	"sync"
	"time"
)

const (
	// batches is how many batches are under way at the same time. With one, a batch that a
	// replica is slow to acknowledge would hold up all others.
	batches = 2
	// batchSize is the largest number of items that are joined to one batch. A caller with
	// more items has a batch for itself.
	batchSize = 256
	// longest ends a batch, whatever its callers' deadlines.
	longest = 30 * time.Second
)

// Group joins the items of its callers to batches. It is safe for concurrent use.
type Group[Item, Reply any] struct {
	run func(context.Context, []Item) ([]Reply, error)

	mu      sync.Mutex
	waiting []*caller[Item, Reply]
	running int
}

type caller[Item, Reply any] struct {
	items    []Item
	deadline time.Time // zero: none
	replies  []Reply
	err      error
	done     chan struct{}
}

// New returns a Group whose batches are processed by run: it returns a reply for each item,
// or none. All callers of a batch get its error.
func New[Item, Reply any](run func(context.Context, []Item) ([]Reply, error)) *Group[Item, Reply] {
	return &Group[Item, Reply]{run: run}
}

// Do processes items in one batch, in order, and returns their replies. When the context
// ends, it returns the context's error, and the items may be processed nevertheless. A batch
// ends at the latest deadline of its callers.
func (g *Group[Item, Reply]) Do(ctx context.Context, items ...Item) ([]Reply, error) {
	c := &caller[Item, Reply]{items: items, done: make(chan struct{})}
	c.deadline, _ = ctx.Deadline()
	g.mu.Lock()
	g.waiting = append(g.waiting, c)
	start := g.running < batches
	if start {
		g.running++
	}
	g.mu.Unlock()
	if start {
		go g.runBatches()
	}
	select {
	case <-c.done:
		return c.replies, c.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// runBatches processes batches until nothing waits.
func (g *Group[Item, Reply]) runBatches() {
	for {
		callers := g.next()
		if callers == nil {
			return
		}
		g.runBatch(callers)
	}
}

// next returns the callers of the next batch. Without any it ends one of the running.
func (g *Group[Item, Reply]) next() []*caller[Item, Reply] {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) == 0 {
		g.running--
		return nil
	}
	n, size := 1, len(g.waiting[0].items)
	for n < len(g.waiting) && size+len(g.waiting[n].items) <= batchSize {
		size += len(g.waiting[n].items)
		n++
	}
	callers := g.waiting[:n:n]
	g.waiting = g.waiting[n:]
	return callers
}

func (g *Group[Item, Reply]) runBatch(callers []*caller[Item, Reply]) {
	var items []Item
	deadline := callers[0].deadline
	for _, c := range callers {
		items = append(items, c.items...)
		if c.deadline.IsZero() || !deadline.IsZero() && c.deadline.After(deadline) {
			deadline = c.deadline
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), longest)
	defer cancel()
	if !deadline.IsZero() {
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	replies, err := g.run(ctx, items)
	for _, c := range callers {
		if replies != nil {
			c.replies, replies = replies[:len(c.items)], replies[len(c.items):]
		}
		c.err = err
		close(c.done)
	}
}
