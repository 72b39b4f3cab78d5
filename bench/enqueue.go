package main

import (
	"fmt"

	"terbayar/internal/testenv"
)

func enqueueFigures(o options) []figure {
	return []figure{
		{fmt.Sprintf("enqueue of %d, whole program / plain loop of asynq.Client (payments/s)", o.lines), "%.0f", "3", true},
		{"  time from start to end (s)", "%.2f", "", false},
		{"  memory, VmHWM (MB)", "%.1f", "30", false},
	}
}

// enqueue runs "enqueue create FILE", or a program that enqueues the same lines in a loop.
func enqueue(t testenv.TB, s side, o options) []float64 {
	e := newEnv(t, 0)
	took, memory := s.enqueue(e, e.file(o.lines), 1).run()
	return []float64{float64(o.lines) / took.Seconds(), took.Seconds(), memory / 1e6}
}
