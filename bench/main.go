// Command bench measures what Terbayar costs beside bare asynq: round trips to
// Redis, payments per second, bytes in Redis, and requests per status poll. It
// needs a redis-server on the PATH; the gateway is a loopback server in this very
// process, so that both sides share the cores with it alike.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

func main() {
	payments := flag.Int("n", 2000, "payments a round")
	rounds := flag.Int("rounds", 5, "rounds, of which the median counts")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *payments, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, payments, rounds int) error {
	var ours, bare []round
	for range rounds { // taking turns, so that a busy machine hits both
		for _, side := range []struct {
			measure func(context.Context, int) (round, error)
			all     *[]round
		}{{measureTerbayar, &ours}, {measureBare, &bare}} {
			r, err := side.measure(ctx, payments)
			if err != nil {
				return err
			}
			*side.all = append(*side.all, r)
		}
	}
	polls, err := measurePolls(ctx)
	if err != nil {
		return err
	}

	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.SetTitle("%d AM payments a round, median of %d rounds, %d cores, %s", payments, rounds, runtime.NumCPU(), runtime.Version())
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 2, Align: text.AlignRight}, {Number: 3, Align: text.AlignRight}})
	t.AppendHeader(table.Row{"", "terbayar", "bare asynq"})
	for _, m := range []struct {
		name   string
		format string
		of     func(round) float64
	}{
		{"round trips to Redis a payment, dequeue to done", "%.2f", func(r round) float64 { return r.roundTrips }},
		{"  of the idle process, taken off, a second", "%.1f", func(r round) float64 { return r.idle }},
		{"payments drained a second (one signed POST each)", "%.0f", func(r round) float64 { return r.drained }},
		{"payments enqueued a second", "%.0f", func(r round) float64 { return r.enqueued }},
		{"used_memory a payment, queued (bytes)", "%.0f", func(r round) float64 { return r.memoryQueued }},
		{"used_memory a payment, done (bytes)", "%.0f", func(r round) float64 { return r.memoryDone }},
		{"  of which MEMORY USAGE of its ledger keys", "%.0f", func(r round) float64 { return r.ledgerKeys }},
		{"  of which MEMORY USAGE of its event", "%.0f", func(r round) float64 { return r.eventStream }},
	} {
		t.AppendRow(table.Row{m.name, fmt.Sprintf(m.format, median(ours, m.of)), fmt.Sprintf(m.format, median(bare, m.of))})
	}
	t.AppendSeparator()
	t.AppendRow(table.Row{fmt.Sprintf("requests for lists and rows, after %d paid rows of strangers, limit %d", strangers, limit), "", ""})
	for _, p := range polls {
		t.AppendRow(table.Row{"  " + p.name, p.requests, ""})
	}
	fmt.Println(t.Render())
	return nil
}

// median is the middle of what the rounds measured.
func median(rounds []round, of func(round) float64) float64 {
	values := make([]float64, len(rounds))
	for i, r := range rounds {
		values[i] = of(r)
	}
	slices.Sort(values)
	return values[len(values)/2]
}
