package api

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"time"

	"terbayar/internal/events"
	"terbayar/internal/payment"
)

const (
	// eventPoll is how often the end of the streams is read while requests wait. It is one round
	// trip for all of them.
	eventPoll = 100 * time.Millisecond
	// recordPoll is how often a waiting request reads its payment again: some changes have no
	// event.
	recordPoll = time.Second
	// pageEntries is the number of stream entries per read.
	pageEntries = 500
)

// hub wakes requests that wait for an event. It reads the streams only while a request waits.
type hub struct {
	streams *events.Streams

	mu       sync.Mutex
	waiting  map[*waiter]struct{}
	byKey    map[payment.Key]map[*waiter]struct{}
	position string        // what was read; "": unknown
	first    chan struct{} // there is a waiter
}

// waiter is one request that waits.
type waiter struct {
	woken chan struct{}
	key   *payment.Key // nil: any event
}

func newHub(streams *events.Streams) *hub {
	return &hub{
		streams: streams, waiting: map[*waiter]struct{}{}, byKey: map[payment.Key]map[*waiter]struct{}{}, first: make(chan struct{}, 1),
	}
}

// watch returns a channel that receives after events of a payment, or with nil after any event.
// It also receives when events may have been missed. Read the present state after watch.
func (h *hub) watch(key *payment.Key) (woken <-chan struct{}, stop func()) {
	w := &waiter{woken: make(chan struct{}, 1), key: key}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiting[w] = struct{}{}
	if key != nil {
		if h.byKey[*key] == nil {
			h.byKey[*key] = map[*waiter]struct{}{}
		}
		h.byKey[*key][w] = struct{}{}
	}
	select {
	case h.first <- struct{}{}:
	default:
	}
	return w.woken, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.waiting, w)
		if key != nil {
			if delete(h.byKey[*key], w); len(h.byKey[*key]) == 0 {
				delete(h.byKey, *key)
			}
		}
	}
}

// run wakes the waiters until the context ends.
func (h *hub) run(ctx context.Context) {
	ticker := time.NewTicker(eventPoll)
	defer ticker.Stop()
	for ctx.Err() == nil {
		h.mu.Lock()
		idle := len(h.waiting) == 0
		h.mu.Unlock()
		if idle {
			h.position = ""
			select {
			case <-h.first:
			case <-ctx.Done():
				return
			}
		}
		h.read(ctx)
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

// read reads the new events and wakes their waiters. An error is ignored: waiting requests also
// read by themselves, and the next read continues at the same position.
func (h *hub) read(ctx context.Context) {
	if h.position == "" {
		end, err := h.streams.End(ctx)
		if err != nil {
			return
		}
		h.position = end
		h.mu.Lock()
		defer h.mu.Unlock()
		for w := range h.waiting { // events before this position may be new to it
			w.wake()
		}
		return
	}
	for atEnd := false; !atEnd; {
		var page []events.Positioned
		var next string
		var err error
		if page, next, atEnd, err = h.streams.Page(ctx, h.position, pageEntries); err != nil {
			return
		}
		h.position = next
		h.wake(page)
	}
}

func (h *hub) wake(page []events.Positioned) {
	if len(page) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.waiting {
		if w.key == nil {
			w.wake()
		}
	}
	if len(h.byKey) == 0 {
		return
	}
	for _, p := range page {
		for w := range h.byKey[keyOf(p.Event)] {
			w.wake()
		}
	}
}

func (w *waiter) wake() {
	select {
	case w.woken <- struct{}{}:
	default: // it will read the state anyway
	}
}

// keyOf returns the payment of an event.
func keyOf(event []byte) payment.Key {
	var e struct{ Source, Subject string }
	if json.Unmarshal(event, &e) != nil {
		return payment.Key{}
	}
	return payment.Key{Gateway: payment.Gateway(strings.TrimPrefix(e.Source, "terbayar/")), TransactionID: e.Subject}
}
