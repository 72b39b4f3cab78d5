package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
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
	"terbayar/internal/terminal"
)

type createCmd struct {
	MerchantID string `name:"paydia-merchant-id" env:"PAYDIA_MERCHANT_ID" help:"Used for Paydia payments without merchantId."`
	File       string `arg:"" optional:"" default:"-" help:"File with the payments; - or none: standard input."`
}

// finishTimeout is how long the batch in flight to Redis may take after Ctrl-C.
const finishTimeout = 10 * time.Second

// gcPercent keeps the program below 30 MB, however long its input is.
const gcPercent = 50

// errInterrupted says that the program was interrupted before the end of its input.
var errInterrupted = errors.New("interrupted")

func (c *createCmd) run(ctx context.Context, all *cli, client redis.UniversalClient, in io.Reader, out, notes io.Writer) error {
	cipher, err := all.Payload.Cipher()
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
	writes, closeWrites, err := all.Redis.OpenDurable(ledger.DurabilityKeys(client, all.Ledger.Partitions), log)
	if err != nil {
		return err
	}
	defer func() { _ = closeWrites() }()
	// If Redis cannot be reached, the payments are tried all the same: a failover may end.
	if err := writes.Start(ctx); errors.Is(err, durable.ErrUnfit) {
		return config.Unfit(err)
	}
	records := ledger.New(ledger.Options{
		Redis: client, Writes: writes, Stream: all.Events.Stream, Partitions: all.Ledger.Partitions, Now: time.Now, Log: log,
	})
	for _, w := range writes.Warnings() {
		log.Warn("redis: " + w)
	}
	submitter := &intake.Intake{
		Ledger: records,
		Cipher: cipher, Defaults: order.Defaults{MerchantID: c.MerchantID},
		Enqueue: tasks.NewEnqueuer(client, time.Now).Submit,
	}
	// Payments are garbage soon, and the heap is small: collecting it more often costs little.
	debug.SetGCPercent(gcPercent)
	readErr := make(chan error, 1)
	input := feed{lines: make(chan intake.Line, intake.Batch)}
	go func() { readErr <- intake.Read(ctx, in, input.lines) }()

	// A batch in flight at Ctrl-C may be recorded by Redis, so its answers are still printed.
	createCtx, cancel := extend(ctx, finishTimeout)
	defer cancel()
	var counts summary
	defer func() { counts.note(notes) }()
	for answers := range submitter.CreateAll(createCtx, input.batches(ctx)) {
		for _, answer := range answers {
			var other *ledger.PartitionsError
			if errors.As(answer.Cause, &other) { // nothing was recorded
				return config.OtherPartitions(other)
			}
			counts.add(answer)
		}
		if err := writeAnswers(out, answers); err != nil {
			return fmt.Errorf("write answers: %w", err)
		}
		counts.next = answers[len(answers)-1].Last + 1
		if err := counts.stop(); err != nil {
			return err
		}
	}
	if !input.isAtEnd() {
		return counts.interrupted()
	}
	switch err := <-readErr; {
	case errors.Is(err, context.Canceled):
		return counts.interrupted()
	case err != nil:
		return fmt.Errorf("read %s: %w", c.File, err)
	case counts.answered() == 0: // likely a mistake
		note(notes, "the input contains no payment")
	}
	return counts.err()
}

// writeAnswers writes answers, each as one line of JSON that is safe for a terminal.
func writeAnswers(out io.Writer, answers []intake.Answer) error {
	var all, one bytes.Buffer
	enc := json.NewEncoder(&one)
	enc.SetEscapeHTML(false)
	for _, answer := range answers {
		one.Reset()
		if err := enc.Encode(answer); err != nil {
			return err
		}
		text := bytes.TrimSuffix(one.Bytes(), []byte("\n"))
		if bytes.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
			text = terminal.JSON(text)
		}
		all.Write(text)
		all.WriteByte('\n')
	}
	_, err := out.Write(all.Bytes())
	return err
}

// extend returns a context that ends the given time after ctx.
func extend(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(d, cancel) })
	return longer, func() { stop(); cancel() }
}

// feed receives the lines of the input.
type feed struct {
	lines chan intake.Line
	ended bool // lines is closed
}

// batches yields the lines in batches. A batch is not delayed until it is full, so typed or
// piped lines are answered at once. batches ends with the lines or the context.
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

// isAtEnd reports, without waiting, whether the input has ended.
func (f *feed) isAtEnd() bool {
	select {
	case _, ok := <-f.lines:
		return !ok
	default:
		return false
	}
}

// summary counts the answers.
type summary struct {
	results     map[intake.Result]int
	next        int // the first line that was not read
	failedLine  int // the first line for which Redis could not be reached
	unreachable error
	noKey       bool // PAYLOAD_KEYS is needed and missing
	notEnqueued int  // payments that are recorded but have no task yet
	enqueueErr  error
}

func (s *summary) add(a intake.Answer) {
	if s.results == nil {
		s.results = map[intake.Result]int{}
	}
	s.results[a.Result]++
	s.noKey = s.noKey || errors.Is(a.Cause, secret.ErrNoKey)
	if errors.Is(a.Cause, intake.ErrUnreachable) && s.unreachable == nil {
		s.unreachable, s.failedLine = a.Cause, a.Line
	}
	if a.EnqueueErr != nil {
		s.notEnqueued++
		if s.enqueueErr == nil || errors.Is(s.enqueueErr, context.Canceled) {
			s.enqueueErr = a.EnqueueErr
		}
	}
}

// accepted returns how many payments are recorded.
func (s *summary) accepted() int { return s.results[intake.Enqueued] + s.results[intake.Duplicate] }

func (s *summary) answered() int {
	sum := 0
	for _, n := range s.results {
		sum += n
	}
	return sum
}

// stop returns an error when Redis cannot be reached: all following lines would fail, too.
func (s *summary) stop() error {
	if s.unreachable == nil {
		return nil
	}
	return fmt.Errorf("stopped at line %d, %d accepted; submit the whole input again, accepted payments are then answered duplicate: %w",
		s.failedLine, s.accepted(), s.unreachable)
}

// interrupted returns an error that says how far the program got.
func (s *summary) interrupted() error {
	if s.answered() == 0 {
		return fmt.Errorf("%w: nothing was submitted", errInterrupted)
	}
	var parts []string
	for _, r := range []intake.Result{intake.Enqueued, intake.Duplicate, intake.Conflict, intake.Invalid, intake.Failed} {
		if s.results[r] > 0 {
			parts = append(parts, fmt.Sprint(s.results[r], " ", r))
		}
	}
	return fmt.Errorf("%w: %d answered (%s), nothing submitted from line %d on; submit the whole input again, accepted payments are then answered duplicate",
		errInterrupted, s.answered(), strings.Join(parts, ", "), s.next)
}

func (s *summary) err() error {
	switch {
	case s.noKey:
		return config.Wrong("PAYLOAD_KEYS", errors.New("is not set, and a payment has a customer token to encrypt"))
	case s.answered() > s.accepted():
		return fmt.Errorf("%w: %d accepted, %d not", errRefused, s.accepted(), s.answered()-s.accepted())
	default:
		return nil
	}
}

// note prints what the answers do not contain.
func (s *summary) note(notes io.Writer) {
	if s.notEnqueued > 0 {
		note(notes, fmt.Sprintf("%d payments are recorded but could not be enqueued: a worker's poll enqueues them later: %v", s.notEnqueued, s.enqueueErr))
	}
}
