package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"terbayar/internal/events"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
)

// consumer follows the stream from its beginning, as order systems do, and keeps
// all that comes by: also what a failover takes away afterwards.
type consumer struct {
	mu    sync.Mutex
	heard []event
	err   error
}

// event is a result event, as far as it is judged.
type event struct {
	ID      string          `json:"id"`
	Source  string          `json:"source"`
	Type    string          `json:"type"`
	Subject string          `json:"subject"`
	Time    time.Time       `json:"time"`
	Data    payment.Payment `json:"data"`
}

func (e event) key() payment.Key {
	return payment.Key{Gateway: payment.Gateway(strings.TrimPrefix(e.Source, "terbayar/")), TransactionID: e.Subject}
}

// follow starts a consumer, which listens until the context ends.
func (s *stage) follow(ctx context.Context) *consumer {
	c := &consumer{}
	go func() {
		err := events.NewStream(s.client, ledger.DefaultStream).Each(ctx, "", true, c.hear)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.err = err
	}()
	return c
}

func (c *consumer) hear(text []byte) error {
	var e event
	if err := json.Unmarshal(text, &e); err != nil {
		return fmt.Errorf("an event: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard = append(c.heard, e)
	return nil
}

// standing reads the events that stand in the stream now.
func (s *stage) standing(ctx context.Context) ([]event, error) {
	c := &consumer{}
	if err := events.NewStream(s.client, ledger.DefaultStream).Each(ctx, "", false, c.hear); err != nil {
		return nil, err
	}
	return c.heard, nil
}

// everything waits until the consumer has heard the last event of the stream, and
// returns all that it has heard.
func (c *consumer) everything(ctx context.Context, s *stage) ([]event, error) {
	var last event
	entries, err := s.client.XRevRangeN(ctx, ledger.DefaultStream, "+", "-", 1).Result()
	switch {
	case err != nil:
		return nil, err
	case len(entries) == 0:
		return nil, nil
	}
	text, _ := entries[0].Values[events.Field].(string)
	if err := json.Unmarshal([]byte(text), &last); err != nil {
		return nil, fmt.Errorf("the last event: %w", err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		c.mu.Lock()
		heard, err := c.heard, c.err
		c.mu.Unlock()
		switch {
		case err != nil:
			return nil, fmt.Errorf("the consumer of the events: %w", err)
		case len(heard) > 0 && heard[len(heard)-1].ID == last.ID:
			return heard, nil
		case time.Now().After(deadline):
			return nil, fmt.Errorf("the consumer never hears of %s", last.ID)
		case !pause(ctx, 100*time.Millisecond):
			return nil, ctx.Err()
		}
	}
}
