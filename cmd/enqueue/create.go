package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/config"
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
	Rejects    string `placeholder:"FILE" predictor:"file" help:"Write every input line that was not accepted to this new file, unchanged, to be fixed and submitted again."`
	DryRun     bool   `name:"dry-run" help:"Only check the payments: nothing is recorded, and Redis is not needed."`
	File       string `arg:"" optional:"" default:"-" predictor:"file" help:"File with the payments, plain or compressed with gzip; - or none: standard input."`
}

// Help is shown below the one-line help.
func (c *createCmd) Help() string {
	return `The input is one JSON object per payment, usually one per line (NDJSON), in UTF-8. It may be compressed with gzip.
A JSON array is refused: convert it with jq -c '.[]'.

Each payment is answered with one line of JSON on standard output, in input order. On a terminal, standard error shows
the progress, the time taken and the time left.

Submitting a payment again with the same id and content is always safe: it is answered duplicate. So after an
interruption or an error, submit the whole input again. Ctrl-C finishes what is under way and says how far it got; a
second Ctrl-C ends the program at once.

Examples:

  enqueue create payments.ndjson > answers.ndjson
  enqueue create --dry-run payments.ndjson             # check the file, without Redis
  enqueue create --rejects wrong.ndjson payments.ndjson
  jq -c '.[]' payments.json | enqueue create           # a JSON array
  zstdcat payments.ndjson.zst | enqueue create         # other compression than gzip

Exit codes: 0 every payment is enqueued or duplicate (with --dry-run: valid); 1 one is not, or the program was
interrupted; 2 wrong usage or a wrong setting; 3 Redis cannot be reached.`
}

// finishTimeout is how long the batch in flight to Redis may take after Ctrl-C.
const finishTimeout = 10 * time.Second

// gcPercent keeps the program at about 30 MB, however long its input is.
const gcPercent = 50

// valid is the result of a correct payment with --dry-run.
const valid intake.Result = "valid"

// errInterrupted says that the program was interrupted before the end of its input.
var errInterrupted = errors.New("interrupted")

// run submits the payments of the input.
func (c *createCmd) run(ctx context.Context, all *cli, client redis.UniversalClient, in io.Reader, out, notes io.Writer) error {
	cipher, err := all.Payload.Cipher()
	if err != nil {
		return err
	}
	job, err := c.open(in, out, notes)
	if err != nil {
		return err
	}
	defer job.close()
	log, err := telemetry.NewLogger(job.screen.log())
	if err != nil {
		return err
	}
	records, _, closeRecords, err := openLedger(ctx, all, client, log)
	if err != nil {
		return err
	}
	defer closeRecords()
	submitter := &intake.Intake{
		Ledger: records,
		Cipher: cipher, Defaults: order.Defaults{MerchantID: c.MerchantID},
		Enqueue: tasks.NewEnqueuer(client, time.Now).Submit,
	}
	// A batch in flight at Ctrl-C may be recorded by Redis, so its answers are still printed.
	createCtx, cancel := extend(ctx, finishTimeout)
	defer cancel()
	return job.run(ctx, func(batches iter.Seq[[]intake.Line]) iter.Seq[[]intake.Answer] {
		return submitter.CreateAll(createCtx, batches)
	})
}

// check is run with --dry-run.
func (c *createCmd) check(ctx context.Context, in io.Reader, out, notes io.Writer) error {
	job, err := c.open(in, out, notes)
	if err != nil {
		return err
	}
	defer job.close()
	cipher, err := secret.NewCipher(secret.NewKey()) // a check stores nothing, so it needs no PAYLOAD_KEYS
	if err != nil {
		return err
	}
	checker := &intake.Intake{Cipher: cipher, Defaults: order.Defaults{MerchantID: c.MerchantID}}
	return job.run(ctx, func(batches iter.Seq[[]intake.Line]) iter.Seq[[]intake.Answer] {
		return func(yield func([]intake.Answer) bool) {
			for lines := range batches {
				answers := checker.Check(lines)
				for i := range answers {
					if answers[i].Result == "" {
						answers[i].Result = valid
					}
				}
				if !yield(answers) {
					return
				}
			}
		}
	})
}

// createJob is one run of enqueue create.
type createJob struct {
	input   string // the name of the file
	in      io.Reader
	file    *os.File     // nil: standard input
	read    func() int64 // how many bytes of the input were read
	out     io.Writer
	rejects *rejects // nil: none
	screen  *screen
	counts  summary
}

// open opens the files of the command.
func (c *createCmd) open(in io.Reader, out, notes io.Writer) (*createJob, error) {
	j := &createJob{input: "standard input", out: out, counts: summary{dryRun: c.DryRun}}
	if c.File != "-" {
		j.input = c.File
		file, err := os.Open(c.File)
		if err != nil {
			return nil, config.Wrong("FILE", err)
		}
		j.file, in = file, file
		if about, err := file.Stat(); err == nil && about.IsDir() {
			j.close()
			return nil, config.Wrong("FILE", fmt.Errorf("%s is a directory", c.File))
		}
	}
	if c.Rejects != "" {
		var err error
		if j.rejects, err = openRejects(c.Rejects); err != nil {
			j.close()
			return nil, config.Wrong("--rejects", err)
		}
	}
	counter := &countingReader{r: in}
	j.in, j.read = intake.Gunzip(counter), counter.n.Load
	j.screen = newScreen(in, out, notes)
	return j, nil
}

func (j *createJob) close() {
	if j.file != nil {
		_ = j.file.Close()
	}
	j.rejects.close()
}

// run answers all payments with the answers of a function.
func (j *createJob) run(ctx context.Context, answer func(iter.Seq[[]intake.Line]) iter.Seq[[]intake.Answer]) error {
	err := j.process(ctx, answer)
	if syncErr := j.rejects.sync(); err == nil && syncErr != nil {
		err = fmt.Errorf("write --rejects: %w", syncErr)
	}
	switch {
	case !j.rejects.written():
	case errors.Is(err, errRefused):
		err = fmt.Errorf("%w; the refused lines are in %s", err, j.rejects.file.Name())
	case err != nil:
		err = fmt.Errorf("%w; the lines refused so far are in %s", err, j.rejects.file.Name())
	}
	j.screen.end(&j.counts)
	j.counts.note(j.screen)
	return err
}

func (j *createJob) process(ctx context.Context, answer func(iter.Seq[[]intake.Line]) iter.Seq[[]intake.Answer]) error {
	// Payments are garbage soon, and the heap is small: collecting it more often costs little.
	debug.SetGCPercent(gcPercent)
	readLines := intake.Read
	if j.rejects != nil {
		readLines = intake.ReadRaw
	}
	readErr := make(chan error, 1)
	input := feed{lines: make(chan intake.Line, intake.Batch), sent: make(chan batch, maxInFlight), read: j.read}
	go func() { readErr <- readLines(ctx, j.in, input.lines) }()

	for answers := range answer(input.batches(ctx)) {
		if err := j.print(<-input.sent, answers); err != nil {
			return err
		}
	}
	if !input.isAtEnd() {
		return j.counts.interrupted()
	}
	switch err := <-readErr; {
	case errors.Is(err, context.Canceled):
		return j.counts.interrupted()
	case err != nil:
		return fmt.Errorf("read %s: %w; %s", j.input, err, j.counts.progress())
	case j.counts.answered() == 0: // likely a mistake
		note(j.screen, "the input contains no payment")
	}
	return j.counts.err()
}

// print prints the answers to a batch, and writes the rejects.
func (j *createJob) print(b batch, answers []intake.Answer) error {
	for _, a := range answers {
		var other *ledger.PartitionsError
		if errors.As(a.Cause, &other) { // nothing was recorded
			return config.OtherPartitions(other)
		}
		j.counts.add(a)
	}
	// The rejects come first: they are complete whatever happens while the answers are printed.
	if err := j.rejects.write(b, answers); err != nil {
		return fmt.Errorf("write --rejects: %w", err)
	}
	if err := j.screen.print(func() error { return writeAnswers(j.out, answers) }); err != nil {
		return fmt.Errorf("write answers: %w", err)
	}
	j.counts.next = b.next
	j.screen.update(b.read, &j.counts)
	return j.counts.stop()
}

// writeAnswers writes answers, each as one line of JSON that is safe for a terminal.
func writeAnswers(out io.Writer, answers []intake.Answer) error {
	if len(answers) == 0 {
		return nil
	}
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

// countingReader counts the bytes that are read.
type countingReader struct {
	r io.Reader
	n atomic.Int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// batch is what is known of a batch that is submitted, besides its payments.
type batch struct {
	raw  []rawLine // what it was made of; without text if there is no --rejects
	next int       // the line after it
	read int64     // how many bytes of the input were read for it
}

// rawLine is a part of the input.
type rawLine struct {
	text    []byte
	skipped bool // it is no payment and has no answer
}

const (
	// maxInFlight is more than the number of batches that are submitted and not yet answered.
	maxInFlight = 16
	// maxBatchBytes bounds the memory of a batch.
	maxBatchBytes = 4 << 20
)

// feed receives the lines of the input.
type feed struct {
	lines chan intake.Line
	ended bool         // lines is closed
	sent  chan batch   // the batches that were submitted
	read  func() int64 // how many bytes of the input were read
}

// batches yields the lines in batches. A batch is not delayed until it is full, so typed or
// piped lines are answered at once. batches ends with the lines or the context.
func (f *feed) batches(ctx context.Context) iter.Seq[[]intake.Line] {
	return func(yield func([]intake.Line) bool) {
		for !f.ended && ctx.Err() == nil {
			var payments []intake.Line
			var b batch
			size := 0
			add := func(line intake.Line) {
				b.raw = append(b.raw, rawLine{line.Raw, line.Skipped})
				b.next = line.Last + 1
				size += len(line.Text) + len(line.Raw)
				if !line.Skipped {
					payments = append(payments, line)
				}
			}
			select {
			case line, ok := <-f.lines:
				if !ok {
					f.ended = true
					return
				}
				add(line)
			case <-ctx.Done():
				return
			}
		gather:
			for len(b.raw) < intake.Batch && size < maxBatchBytes {
				select {
				case line, ok := <-f.lines:
					if !ok {
						f.ended = true
						break gather
					}
					add(line)
				default:
					break gather
				}
			}
			b.read = f.read()
			f.sent <- b
			if !yield(payments) {
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
	dryRun      bool
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

// isAccepted reports whether a payment with this result is recorded or, in a dry run, valid.
func isAccepted(r intake.Result) bool {
	return r == intake.Enqueued || r == intake.Duplicate || r == valid
}

// accepted returns how many payments are accepted.
func (s *summary) accepted() int {
	sum := 0
	for r, n := range s.results {
		if isAccepted(r) {
			sum += n
		}
	}
	return sum
}

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
func (s *summary) interrupted() error { return fmt.Errorf("%w: %s", errInterrupted, s.progress()) }

// progress says how far the program got, before it read its whole input.
func (s *summary) progress() string {
	if s.answered() == 0 {
		return "nothing was submitted"
	}
	var parts []string
	for _, r := range []intake.Result{intake.Enqueued, intake.Duplicate, valid, intake.Conflict, intake.Invalid, intake.Failed} {
		if s.results[r] > 0 {
			parts = append(parts, fmt.Sprint(s.results[r], " ", r))
		}
	}
	counts := fmt.Sprintf("%d answered (%s)", s.answered(), strings.Join(parts, ", "))
	if s.dryRun {
		return fmt.Sprintf("%s, nothing checked from line %d on", counts, s.next)
	}
	return fmt.Sprintf("%s, nothing submitted from line %d on; submit the whole input again, accepted payments are then answered duplicate", counts, s.next)
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
