package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"terbayar/internal/testenv"
)

// measure is one part of the table.
type measure struct {
	name string // for -only
	rows func(context.Context, options) ([]table.Row, error)
}

// figure is one row of a comparison.
type figure struct {
	name   string
	format string
	reach  string // the goal, for the ratio if there is one
	ratio  bool   // print Terbayar's value divided by that of bare asynq
}

// none is the value of a figure that a side does not have.
var none = math.NaN()

func measures(o options) []measure {
	return []measure{
		{"everysec", compare(o.rounds, costFigures("drain, appendfsync everysec, REDIS_DURABILITY none (payments/s)", "0.8"), everysec)},
		{"always", compare(o.rounds, rateFigures("drain, appendfsync always, REDIS_DURABILITY auto (payments/s)", "2.5"), always)},
		{"distance", compare(o.rounds, rateFigures("drain, Redis 1 ms away (payments/s)", "3"), distance)},
		{"latency", compare(o.rounds, latencyFigures(), latency)},
		{"enqueue", compare(o.rounds, enqueueFigures(o), enqueue)},
		{"enqueue-many", compare(min(o.rounds, 3), enqueueManyFigures(o), enqueueMany)}, // it takes long and varies little
		{"pickup", compare(o.rounds, pickUpFigures(), pickUp)},
		{"bytes", compare(1, bytesFigures(), redisBytes)},
		{"backlog", compare(1, backlogFigures(o), backlog)},
		{"polls", polls},
	}
}

// names returns the names of all measures.
func names() (all []string) {
	for _, m := range measures(options{}) {
		all = append(all, m.name)
	}
	return all
}

// compare measures both sides in every round, one after the other, so that other load on the
// machine affects both. of returns one value per figure. The rows have the medians of the
// rounds; a ratio is the median of the rounds' ratios.
func compare(rounds int, figures []figure, of func(testenv.TB, side, options) []float64) func(context.Context, options) ([]table.Row, error) {
	return func(ctx context.Context, o options) ([]table.Row, error) {
		ours, bare, ratios := make([][]float64, len(figures)), make([][]float64, len(figures)), make([][]float64, len(figures))
		for range rounds {
			var a, b []float64
			for _, run := range []struct {
				side   side
				values *[]float64
			}{{terbayar{}, &a}, {bareAsynq{}, &b}} {
				if err := with(ctx, func(t testenv.TB) { *run.values = of(t, run.side, o) }); err != nil {
					return nil, err
				}
			}
			for i := range figures {
				ours[i], bare[i], ratios[i] = append(ours[i], a[i]), append(bare[i], b[i]), append(ratios[i], a[i]/b[i])
			}
		}
		var rows []table.Row
		for i, f := range figures {
			row := table.Row{f.name, format(f.format, median(ours[i])), format(f.format, median(bare[i])), "", f.reach}
			if f.ratio {
				row[3] = format("%.2f", median(ratios[i]))
			}
			rows = append(rows, row)
		}
		return rows, nil
	}
}

func format(format string, value float64) string {
	if math.IsNaN(value) {
		return ""
	}
	return fmt.Sprintf(format, value)
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// timeout limits every wait. It is generous, for a busy machine.
const timeout = 5 * time.Minute

// await waits until a condition is true. It checks every 5 ms.
func await(t testenv.TB, what string, condition func() bool) {
	t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	expired := time.After(timeout)
	for !condition() {
		select {
		case <-poll.C:
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-expired:
			t.Fatalf("not within %s: %s", timeout, what)
		}
	}
}

// pause waits for a time.
func pause(t testenv.TB, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}
