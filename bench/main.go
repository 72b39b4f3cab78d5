// Command bench compares Terbayar with bare asynq: round trips to Redis, payments per second,
// bytes in Redis, and requests per status poll. It needs a redis-server on the PATH. The
// gateway is a server in this process, so it takes the same share of the cores from both.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"terbayar/internal/testenv"
)

func main() {
	payments := flag.Int("n", 2000, "payments a round")
	rounds := flag.Int("rounds", 5, "rounds; the median is printed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *payments, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// with calls a function with a TB, and then stops everything that the function has started.
func with(ctx context.Context, f func(testenv.TB) error) error {
	t, err := testenv.NewProgramTB(ctx, true)
	if err != nil {
		return err
	}
	err = t.Try(func() {
		if err := f(t); err != nil {
			t.Fatal(err)
		}
	})
	return errors.Join(err, t.Close(false))
}

func run(ctx context.Context, payments, rounds int) error {
	var ours, bare []round
	for range rounds { // alternately, so that other load on the machine affects both
		for _, side := range []struct {
			measure func(testenv.TB, int) (round, error)
			all     *[]round
		}{{measureTerbayar, &ours}, {measureBare, &bare}} {
			if err := with(ctx, func(t testenv.TB) error {
				r, err := side.measure(t, payments)
				*side.all = append(*side.all, r)
				return err
			}); err != nil {
				return err
			}
		}
	}
	var polls []pollCost
	if err := with(ctx, func(t testenv.TB) (err error) {
		polls, err = measurePolls(t)
		return err
	}); err != nil {
		return err
	}

	out := table.NewWriter()
	out.SetStyle(table.StyleLight)
	out.SetTitle("%d AM payments a round, median of %d rounds, %d cores, %s", payments, rounds, runtime.NumCPU(), runtime.Version())
	out.SetColumnConfigs([]table.ColumnConfig{{Number: 2, Align: text.AlignRight}, {Number: 3, Align: text.AlignRight}})
	out.AppendHeader(table.Row{"", "terbayar", "bare asynq"})
	for _, m := range []struct {
		name   string
		format string
		of     func(round) float64
	}{
		{"round trips to Redis a payment, dequeue to done", "%.2f", func(r round) float64 { return r.roundTrips }},
		{"  of an idle process a second (subtracted)", "%.1f", func(r round) float64 { return r.idle }},
		{"payments drained a second (one signed POST each)", "%.0f", func(r round) float64 { return r.drained }},
		{"payments enqueued a second", "%.0f", func(r round) float64 { return r.enqueued }},
		{"used_memory a payment, queued (bytes)", "%.0f", func(r round) float64 { return r.memoryQueued }},
		{"used_memory a payment, done (bytes)", "%.0f", func(r round) float64 { return r.memoryDone }},
		{"  MEMORY USAGE of its ledger keys", "%.0f", func(r round) float64 { return r.ledgerKeys }},
		{"  MEMORY USAGE of its event", "%.0f", func(r round) float64 { return r.eventStream }},
	} {
		out.AppendRow(table.Row{m.name, fmt.Sprintf(m.format, median(ours, m.of)), fmt.Sprintf(m.format, median(bare, m.of))})
	}
	out.AppendSeparator()
	out.AppendRow(table.Row{fmt.Sprintf("lookup requests at AM with %d paid transactions of other systems, %d a page", others, limit), "", ""})
	for _, p := range polls {
		out.AppendRow(table.Row{"  " + p.name, p.requests, ""})
	}
	fmt.Println(out.Render())
	return nil
}

// median returns the median of one figure of the rounds.
func median(rounds []round, of func(round) float64) float64 {
	values := make([]float64, len(rounds))
	for i, r := range rounds {
		values[i] = of(r)
	}
	slices.Sort(values)
	return values[len(values)/2]
}
