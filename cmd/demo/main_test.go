package main

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"testing"
)

// TestNoWarningsAtStart: the log of the demo begins without warnings about its own Redis.
func TestNoWarningsAtStart(t *testing.T) {
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

// logUntil collects a log, and calls reached when a line contains the text.
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
