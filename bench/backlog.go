package main

import (
	"fmt"

	"terbayar/internal/testenv"
)

func backlogFigures(o options) []figure {
	return []figure{{fmt.Sprintf("memory of a worker that drains %d, VmHWM (MB)", o.backlog), "%.0f", "60", false}}
}

// backlog measures the largest memory of a worker that drains a long queue at full speed.
func backlog(t testenv.TB, s side, o options) []float64 {
	e := newEnv(t, 0)
	e.fill(s, o.backlog)
	w := s.work(e, concurrency)
	e.gateway.await(o.backlog)
	await(t, "all answers are recorded", func() bool { return s.recorded(e, o.backlog) })
	return []float64{w.memory() / 1e6}
}
