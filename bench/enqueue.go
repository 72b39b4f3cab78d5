package main

import (
	"fmt"

	"terbayar/internal/testenv"
)

func enqueueFigures(o options) []figure {
	return []figure{
		{fmt.Sprintf("enqueue of %d / plain loop of asynq.Client, always, auto (payments/s)", o.lines), "%.0f", "3", true},
		{"  time of the program from start to end (s)", "%.2f", "", false},
		{"  memory, VmHWM (MB)", "%.0f", "30", false},
	}
}

// enqueue runs "enqueue create FILE", or a program that enqueues the same lines in a loop.
func enqueue(t testenv.TB, s side, o options) []float64 {
	e := newEnv(t, 0)
	e.redis.fsyncAlways()
	took, memory := s.enqueue(e, e.file(o.lines), 1, "REDIS_DURABILITY=auto").run()
	return []float64{float64(o.lines) / took.Seconds(), took.Seconds(), memory / 1e6}
}

// enqueueEverysec is enqueue without waiting for the disk: the rate is that of the processors.
func enqueueEverysec(t testenv.TB, s side, o options) []float64 {
	e := newEnv(t, 0)
	took, _ := s.enqueue(e, e.file(2*o.payments), 1).run()
	return []float64{float64(2*o.payments) / took.Seconds()}
}
