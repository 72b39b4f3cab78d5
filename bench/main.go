// Command bench compares Terbayar with bare asynq, side by side: the real programs worker and
// enqueue, and an asynq server and client that do nothing but send the same signed requests.
// Redis, the gateway, the workers and the enqueuing programs are processes of their own, on
// one machine. bench needs Linux (it reads /proc), a redis-server on the PATH and a checkout
// to build from.
//
// bench runs itself for the processes that are not Terbayar's: "bench gateway", "bench
// proxy", "bench bare" and "bench bare-enqueue".
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
	"strings"
	"syscall"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"terbayar/internal/testenv"
	"terbayar/internal/testenv/programs"
)

// options are the sizes of the measures.
type options struct {
	payments int // of one drain at everysec
	lines    int // of the long file for enqueue
	backlog  int // drained by the worker whose memory is measured
	pickUps  int
	idle     time.Duration // how long the commands of an idle worker are counted
	poll     time.Duration // after which sent payments are looked up where their bytes are measured; longer than sending all
	rounds   int
}

func newOptions(payments, rounds int) options {
	return options{
		payments: payments, lines: 10 * payments, backlog: 84 * payments / 5,
		pickUps: 15, idle: 3 * time.Second, poll: 10 * time.Second, rounds: rounds,
	}
}

func main() {
	if len(os.Args) > 1 {
		if child, ok := children[os.Args[1]]; ok {
			if err := child(os.Args[2:]); err != nil {
				fmt.Fprintf(os.Stderr, "bench %s: %v\n", os.Args[1], err)
				os.Exit(1)
			}
			return
		}
	}
	payments := flag.Int("n", 5000, "payments of a drain; other measures take a multiple or half of them")
	rounds := flag.Int("rounds", 5, "rounds; the median is printed")
	only := flag.String("only", "", "measure only these, separated by commas: "+strings.Join(names(), ", "))
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, newOptions(*payments, *rounds), *only)
	programs.Remove()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, only string) error {
	chosen, err := choose(measures(o), only)
	if err != nil {
		return err
	}
	out := table.NewWriter()
	out.SetStyle(table.StyleLight)
	out.SetTitle("%d AM payments a drain, median of %d rounds, %d cores, %s", o.payments, o.rounds, runtime.NumCPU(), runtime.Version())
	out.SetColumnConfigs([]table.ColumnConfig{
		{Number: 2, Align: text.AlignRight},
		{Number: 3, Align: text.AlignRight},
		{Number: 4, Align: text.AlignRight},
		{Number: 5, Align: text.AlignRight},
	})
	out.AppendHeader(table.Row{"", "terbayar", "bare asynq", "ratio", "reach"})
	for _, m := range chosen {
		begun := time.Now()
		rows, err := m.rows(ctx, o)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		out.AppendRows(rows)
		out.AppendSeparator()
		fmt.Fprintf(os.Stderr, "bench: %s took %s\n", m.name, time.Since(begun).Round(time.Second))
	}
	fmt.Println(out.Render())
	return nil
}

// choose returns the measures with these names, all of them if there is no name.
func choose(all []measure, only string) ([]measure, error) {
	if only == "" {
		return all, nil
	}
	var chosen []measure
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(all, func(m measure) bool { return m.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-only: no measure %q: use %s", name, strings.Join(names(), ", "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// with calls a function with a TB, and then stops everything that the function has started.
func with(ctx context.Context, f func(testenv.TB)) error {
	t, err := testenv.NewProgramTB(ctx, true)
	if err != nil {
		return err
	}
	err = t.Try(func() { f(t) })
	return errors.Join(err, t.Close(false))
}
