package main

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"testing"
)

// The log of the demo opens without warnings about its own Redis.
func TestLogOpensWithoutWarnings(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	log := &logUntil{text: "ready", reached: cancel}
	if err := run(ctx, []string{"-v"}, io.Discard, log); err != nil && ctx.Err() == nil {
		t.Fatal(err)
	}
	if text := log.String(); !strings.Contains(text, "REDIS_DURABILITY is none") || strings.Contains(text, "WARN") {
		t.Error(text)
	}
}

// logUntil keeps what is written, and calls reached when it contains text.
type logUntil struct {
	text    string
	reached func()

	mu     sync.Mutex
	buffer bytes.Buffer
}

func (l *logUntil) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if bytes.Contains(p, []byte(l.text)) {
		l.reached()
	}
	return l.buffer.Write(p)
}

func (l *logUntil) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.String()
}
