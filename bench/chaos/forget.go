package main

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// diary notes how long Redis's append-only file is, so that its last seconds can
// be cut off.
type diary struct {
	file string

	mu    sync.Mutex
	notes []note // oldest first
}

// note: all that Redis had acknowledged by then is in so many bytes.
type note struct {
	at   time.Time
	size int64
}

// newDiary is for a Redis with its files in dir that never rewrites them: it
// writes into one file for all its lives.
func newDiary(dir string) *diary {
	return &diary{file: filepath.Join(dir, "appendonlydir", "appendonly.aof.1.incr.aof")}
}

// keep takes notes until the context ends.
func (d *diary) keep(ctx context.Context) {
	for pause(ctx, 50*time.Millisecond) {
		at := time.Now()
		if info, err := os.Stat(d.file); err == nil { // else Redis has not begun it
			d.mu.Lock()
			d.notes = append(d.notes, note{at, info.Size()})
			d.mu.Unlock()
		}
	}
}

// cut cuts off what a Redis that was killed had written in the last span, and a
// little more, and returns since when. What is then left of a command Redis drops
// when it comes back.
func (d *diary) cut(span time.Duration) (since time.Time, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	latest := time.Now().Add(-span)
	var last note // before the first one there was nothing
	for _, n := range d.notes {
		if n.at.After(latest) {
			break
		}
		last = n
	}
	d.notes = nil
	return last.at, os.Truncate(d.file, last.size)
}
