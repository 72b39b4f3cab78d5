package main

import (
	"fmt"

	"terbayar/internal/testenv"
)

func enqueueFigures(o options) []figure {
	return rateFigures(fmt.Sprintf("enqueue of %d / plain loop of asynq.Client, always, auto (payments/s)", 2*o.payments), "3")
}

// enqueue runs "enqueue create FILE", or a program that enqueues the same lines in a loop.
// Both wait for the disk.
func enqueue(t testenv.TB, s side, o options) []float64 {
	e := newEnv(t, 0)
	e.redis.fsyncAlways()
	lines := 2 * o.payments
	took, _ := s.enqueue(e, e.file(lines), 1, "REDIS_DURABILITY=auto").run()
	return []float64{float64(lines) / took.Seconds()}
}

func enqueueManyFigures(o options) []figure {
	return append(rateFigures(fmt.Sprintf("enqueue of %d / plain loop of asynq.Client, everysec, none (payments/s)", o.lines), ""),
		figure{"  time of the program from start to end (s)", "%.2f", "", false},
		figure{"  memory, VmHWM (MB)", "%.0f", "30", false})
}

// enqueueMany is enqueue with a long file and without waiting for the disk.
func enqueueMany(t testenv.TB, s side, o options) []float64 {
	e := newEnv(t, 0)
	took, memory := s.enqueue(e, e.file(o.lines), 1).run()
	return []float64{float64(o.lines) / took.Seconds(), took.Seconds(), memory / 1e6}
}
