// Command retention makes a ledger of n paid payments in a redis-server, archives it, and
// restores it from the archive into a Redis that has lost everything. Meanwhile it kills the
// process that archives, and once Redis too. It prints what each step took, and verifies that
// no payment is missing in the archive, and that every id that is submitted again is
// recognised: after archiving, and after restoring.
//
// It needs Linux and a redis-server on the PATH. A million payments need 2 GB of memory, and
// 1.5 GB of disk in the temporary directory (TMPDIR), most of it for the append-only file.
//
// The exit code is 0 if nothing was found, 1 if something was, and 2 if the run failed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/redis/go-redis/v9/logging"

	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/testenv"
)

// options are the sizes of a run.
type options struct {
	payments   int
	partitions int
	ids        int // length
	kills      int // of the process that archives
	tried      int // ids that are submitted again with the same content, and as many with other content
	new        int // ids that are submitted for the first time, after archiving and after restoring
	sample     int // payments that are compared in full
	keys       int // keys whose MEMORY USAGE is read
	idle       time.Duration
}

func newOptions() options {
	return options{payments: 1_000_000, partitions: 1, ids: 36, kills: 3, tried: 10_000, new: 1000, sample: 1000, keys: 1000, idle: 5 * time.Second}
}

func (o options) check() error {
	switch {
	case o.payments < 1 || o.partitions < 1:
		return errors.New("-n and -partitions must be positive")
	case o.ids < minID || o.ids > maxID:
		return fmt.Errorf("-ids must be %d to %d", minID, maxID)
	case o.kills < 0:
		return errors.New("-kills cannot be negative")
	}
	return nil
}

func main() {
	logging.Disable() // go-redis logs every failure of Redis
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := mainCode(ctx)
	stop()
	os.Exit(code)
}

func mainCode(ctx context.Context) int {
	if len(os.Args) > 1 && os.Args[1] == scanCommand {
		if err := scanMain(ctx, os.Args[2:]); err != nil {
			fmt.Fprintf(os.Stderr, "bench/retention %s: %v\n", scanCommand, err)
			return 2
		}
		return 0
	}
	o := newOptions()
	flag.IntVar(&o.payments, "n", o.payments, "payments, half to each gateway")
	flag.IntVar(&o.partitions, "partitions", o.partitions, "LEDGER_PARTITIONS")
	flag.IntVar(&o.ids, "ids", o.ids, "length of the transaction ids; 36: UUIDs")
	flag.IntVar(&o.kills, "kills", o.kills, "how often the process that archives is killed; if more than 0, Redis is killed once, too")
	flag.Parse()
	var found []string
	err := o.check()
	if err == nil {
		found, err = run(ctx, o, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/retention:", err)
		return 2
	}
	if len(found) > 0 {
		return 1
	}
	return 0
}

// run is one run. It returns what was found to be wrong.
func run(ctx context.Context, o options, out io.Writer) (found []string, err error) {
	t, err := testenv.NewProgramTB(ctx, false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.Close(false)) }()
	var r *retentionRun
	err = t.Try(func() {
		r = newRun(t, o)
		r.all()
	})
	if r == nil {
		return nil, err
	}
	r.write(out, err == nil)
	return r.found, err
}

// retentionRun is one run.
type retentionRun struct {
	t       testenv.TB
	o       options
	server  *redistest.Process
	redis   *server
	dir     string         // of the archive
	sampled map[int][]byte // the archive lines that payments must have, by number
	numbers map[payment.Key]int
	empty   int64 // used_memory of Redis without payments

	table table.Writer
	found []string
}

func newRun(t testenv.TB, o options) *retentionRun {
	t.Helper()
	r := &retentionRun{t: t, o: o, dir: t.TempDir(), sampled: map[int][]byte{}, numbers: make(map[payment.Key]int, o.payments)}
	for i := range o.payments {
		r.numbers[o.key(i)] = i
	}
	r.server, r.redis = startRedis(t)
	r.table = table.NewWriter()
	r.table.SetStyle(table.StyleLight)
	r.table.SetTitle("%d payments, ids of %d bytes, %d partition(s), %d cores, %s, Redis %s",
		o.payments, o.ids, o.partitions, runtime.NumCPU(), runtime.Version(), r.redis.info("server", "redis_version"))
	r.table.SetColumnConfigs([]table.ColumnConfig{{Number: 2, Align: text.AlignRight}})
	return r
}

// all does all steps.
func (r *retentionRun) all() {
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"make", r.make},
		{"archive", r.archive},
		{"verify", r.verify},
		{"submit again", func() { r.submitAgain("archiving") }},
		{"restore tombstones", r.restoreTombstones},
		{"find", r.find},
		{"restore records", r.restoreRecords},
	} {
		r.t.Logf("%s ...", step.name)
		step.do()
		r.table.AppendSeparator()
	}
}

// row adds a row to the table.
func (r *retentionRun) row(what, note, format string, values ...any) {
	value := fmt.Sprintf(format, values...)
	r.table.AppendRow(table.Row{what, value, note})
	r.t.Logf("%s: %s", strings.TrimSpace(what), value)
}

// rate adds the rows of a step that has processed all payments.
func (r *retentionRun) rate(what, note string, took time.Duration) {
	r.row(what+": seconds", note, "%.1f", took.Seconds())
	r.row("  payments/s", "", "%.0f", float64(r.o.payments)/took.Seconds())
}

// per returns a value for one payment.
func (r *retentionRun) per(value float64) float64 { return value / float64(r.o.payments) }

// wrong records something that must not be.
func (r *retentionRun) wrong(format string, args ...any) {
	const most = 100
	switch len(r.found) {
	case most:
		format, args = "more, which are not listed", nil
	case most + 1:
		return
	}
	r.found = append(r.found, fmt.Sprintf(format, args...))
	r.t.Logf("WRONG: "+format, args...)
}

// require ends the run if something has failed.
func (r *retentionRun) require(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// write writes the table, as far as the run has come, and the result.
func (r *retentionRun) write(out io.Writer, complete bool) {
	fmt.Fprintln(out, r.table.Render())
	for _, what := range r.found {
		fmt.Fprintln(out, "WRONG:", what)
	}
	if complete && len(r.found) == 0 {
		fmt.Fprintln(out, "OK: no payment is missing, and every id that was submitted again was recognised")
	}
}
