package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/config"
	"terbayar/internal/durable"
	"terbayar/internal/intake"
	"terbayar/internal/ledger"
	"terbayar/internal/order"
	"terbayar/internal/secret"
	"terbayar/internal/tasks"
	"terbayar/internal/telemetry"
)

type createCmd struct {
	MerchantID string `name:"paydia-merchant-id" env:"PAYDIA_MERCHANT_ID" help:"For Paydia payments that leave merchantId out."`
	File       string `arg:"" optional:"" default:"-" help:"The payments; standard input when left out."`
}

// finishing is how long what was handed to Redis may take to be answered after Ctrl-C.
const finishing = 10 * time.Second

// errInterrupted says that the program was told to end before the end of its input.
var errInterrupted = errors.New("interrupted")

func (c *createCmd) run(ctx context.Context, all *cli, client redis.UniversalClient, in io.Reader, out, notes io.Writer) error {
	sealer, err := all.Payload.Sealer()
	if err != nil {
		return err
	}
	if c.File != "-" {
		file, err := os.Open(c.File)
		if err != nil {
			return config.Wrong("FILE", err)
		}
		defer file.Close()
		if about, err := file.Stat(); err == nil && about.IsDir() {
			return config.Wrong("FILE", fmt.Errorf("%s is a directory", c.File))
		}
		in = file
	}
	log, err := telemetry.NewLogger(os.Stderr, "warn", "auto")
	if err != nil {
		return err
	}
	writes, closeWrites, err := all.Redis.OpenDurable(ledger.DurabilityKey, log)
	if err != nil {
		return err
	}
	defer func() { _ = closeWrites() }()
	// A Redis that cannot be reached yet is left to the payments: there may be a failover.
	if err := writes.Start(ctx); errors.Is(err, durable.ErrUnfit) {
		return config.Unfit(err)
	}
	for _, w := range writes.Warnings() {
		log.Warn("redis: " + w)
	}
	taker := &intake.Intake{
		Ledger: ledger.New(ledger.Options{Redis: client, Writes: writes, Stream: all.Events.Stream, Now: time.Now, Log: log}),
		Cipher: sealer, Defaults: order.Defaults{MerchantID: c.MerchantID},
		Enqueue: tasks.NewEnqueuer(client, time.Now).Submit,
	}
	reading := make(chan error, 1)
	input := feed{lines: make(chan intake.Line, intake.Batch)}
	go func() { reading <- intake.Read(ctx, in, input.lines) }()

	// A batch that is with Redis when Ctrl-C comes is recorded or not whoever waits for
	// the answer, so it is waited for.
	creating, cancel := outlive(ctx, finishing)
	defer cancel()
	var sum tally
	defer func() { sum.note(notes) }()
	for batch := range input.batches(ctx) {
		for _, answer := range taker.Create(creating, batch) {
			sum.add(answer)
			if err := writeJSON(out, answer); err != nil {
				return fmt.Errorf("write answers: %w", err)
			}
		}
		sum.next = batch[len(batch)-1].Last + 1
		if err := sum.stop(); err != nil {
			return err
		}
	}
	if !input.isAtEnd() {
		return sum.interrupted()
	}
	switch err := <-reading; {
	case errors.Is(err, context.Canceled):
		return sum.interrupted()
	case err != nil:
		return fmt.Errorf("read %s: %w", c.File, err)
	case sum.answered() == 0: // no mistake of ours, but likely one of somebody's
		note(notes, "there is no payment in the input")
	}
	return sum.err()
}

// outlive returns a context that ends so long after the given one.
func outlive(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(d, cancel) })
	return longer, func() { stop(); cancel() }
}

// feed is the lines that come in.
type feed struct {
	lines chan intake.Line
	ended bool // there are no more
}

// batches gathers what lines there are, up to a batch, without waiting for more:
// who types, or follows a file, gets an answer at once. It ends with the lines, or the
// context.
func (f *feed) batches(ctx context.Context) func(yield func([]intake.Line) bool) {
	return func(yield func([]intake.Line) bool) {
		for !f.ended && ctx.Err() == nil {
			var batch []intake.Line
			select {
			case line, ok := <-f.lines:
				if !ok {
					f.ended = true
					return
				}
				batch = append(batch, line)
			case <-ctx.Done():
				return
			}
		gather:
			for len(batch) < intake.Batch {
				select {
				case line, ok := <-f.lines:
					if !ok {
						f.ended = true
						break gather
					}
					batch = append(batch, line)
				default:
					break gather
				}
			}
			if !yield(batch) {
				return
			}
		}
	}
}

// isAtEnd reports whether there are no more lines, without waiting for any.
func (f *feed) isAtEnd() bool {
	select {
	case _, ok := <-f.lines:
		return !ok
	default:
		return false
	}
}

// tally counts the answers.
type tally struct {
	results      map[intake.Result]int
	next         int // the first line that was not looked at
	firstUntaken int // the first line that Redis could not be reached for
	unreachable  error
	noKey        bool
	taskless     int
	tasklessWhy  error // the first one's
}

func (t *tally) add(a intake.Answer) {
	if t.results == nil {
		t.results = map[intake.Result]int{}
	}
	t.results[a.Result]++
	t.noKey = t.noKey || errors.Is(a.Cause, secret.ErrNoKey)
	if errors.Is(a.Cause, intake.ErrUnreachable) && t.unreachable == nil {
		t.unreachable, t.firstUntaken = a.Cause, a.Line
	}
	if a.EnqueueErr != nil {
		t.taskless++
		if t.tasklessWhy == nil || errors.Is(t.tasklessWhy, context.Canceled) {
			t.tasklessWhy = a.EnqueueErr
		}
	}
}

func (t *tally) taken() int { return t.results[intake.Enqueued] + t.results[intake.Duplicate] }

func (t *tally) answered() int {
	sum := 0
	for _, n := range t.results {
		sum += n
	}
	return sum
}

// stop ends the program when Redis is gone: the lines that follow would fail one
// by one.
func (t *tally) stop() error {
	if t.unreachable == nil {
		return nil
	}
	return fmt.Errorf("stopped at line %d, %d taken before and beside it; hand the whole input in again, what was taken is told as duplicate: %w",
		t.firstUntaken, t.taken(), t.unreachable)
}

// interrupted says how far it got before it was told to end.
func (t *tally) interrupted() error {
	if t.answered() == 0 {
		return fmt.Errorf("%w: nothing was taken", errInterrupted)
	}
	var counts []string
	for _, r := range []intake.Result{intake.Enqueued, intake.Duplicate, intake.Conflict, intake.Invalid, intake.Failed} {
		if t.results[r] > 0 {
			counts = append(counts, fmt.Sprint(t.results[r], " ", r))
		}
	}
	return fmt.Errorf("%w: %d answered (%s), nothing taken from line %d on; hand the whole input in again, what was taken is told as duplicate",
		errInterrupted, t.answered(), strings.Join(counts, ", "), t.next)
}

func (t *tally) err() error {
	switch {
	case t.noKey:
		return config.Wrong("PAYLOAD_KEYS", errors.New("is not set, and a payment has a customer token to seal"))
	case t.answered() > t.taken():
		return fmt.Errorf("%w: %d taken, %d not", errRefused, t.taken(), t.answered()-t.taken())
	default:
		return nil
	}
}

// note tells what no answer tells.
func (t *tally) note(notes io.Writer) {
	if t.taskless > 0 {
		note(notes, fmt.Sprintf("%d payments are recorded and will be sent, but not before a worker's poll has queued them: %v", t.taskless, t.tasklessWhy))
	}
}
