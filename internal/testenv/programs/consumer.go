package programs

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"terbayar/internal/testenv/verify"
)

// EventConsumer reads the result events all the time, as an order system does, and remembers
// every one: also those that a failover removes from the stream later.
type EventConsumer struct {
	env *Env

	mu       sync.Mutex
	received []verify.Event
}

// NewEventConsumer starts a consumer, which reads until the test ends.
func (e *Env) NewEventConsumer() *EventConsumer {
	c := &EventConsumer{env: e}
	ctx, cancel := context.WithCancel(e.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := e.Streams.Each(ctx, "", true, c.receive); !errors.Is(err, context.Canceled) {
			e.Errorf("the consumer of the events: %v", err)
		}
	}()
	e.Cleanup(func() { cancel(); <-done })
	return c
}

func (c *EventConsumer) receive(text []byte, _ string) error {
	e, err := verify.ParseEvent(text)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.received = append(c.received, e)
	return nil
}

// Received waits until the consumer has received every given event of the stream, or the
// timeout, and returns everything that it has received.
func (c *EventConsumer) Received(stream []verify.Event) []verify.Event {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		c.mu.Lock()
		received := slices.Clone(c.received)
		c.mu.Unlock()
		ids := map[string]bool{}
		for _, e := range received {
			ids[e.ID] = true
		}
		missing := slices.ContainsFunc(stream, func(e verify.Event) bool { return !ids[e.ID] })
		if !missing || time.Now().After(deadline) { // the verifier reports what is missing
			return received
		}
	}
}

// Stream returns the events in the stream.
func (e *Env) Stream() []verify.Event {
	e.Helper()
	var all []verify.Event
	err := e.Streams.Each(e.Context(), "", false, func(text []byte, _ string) error {
		event, err := verify.ParseEvent(text)
		all = append(all, event)
		return err
	})
	if err != nil {
		e.Fatal(err)
	}
	return all
}
