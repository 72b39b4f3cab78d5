package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
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

func (c *createCmd) run(ctx context.Context, all *cli, client redis.UniversalClient, in io.Reader, out io.Writer) error {
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
	switch err := writes.Start(ctx); {
	case errors.Is(err, durable.ErrUnfit):
		return config.Unfit(err)
	case err != nil:
		return reached(err)
	}
	for _, w := range writes.Warnings() {
		log.Warn("redis: " + w)
	}
	taker := &intake.Intake{
		Ledger: ledger.New(ledger.Options{Redis: client, Writes: writes, Stream: all.Events.Stream, Now: time.Now, Log: log}),
		Sealer: sealer, Defaults: order.Defaults{MerchantID: c.MerchantID},
		Enqueue: tasks.NewEnqueuer(client, time.Now).Submit,
	}
	lines := make(chan intake.Line, intake.Batch)
	reading := make(chan error, 1)
	go func() { reading <- intake.Read(in, lines) }()

	answers := json.NewEncoder(out)
	answers.SetEscapeHTML(false)
	var sum tally
	for batch := range batches(lines) {
		for _, answer := range taker.Create(ctx, batch) {
			sum.add(answer)
			if err := answers.Encode(answer); err != nil {
				return fmt.Errorf("write answers: %w", err)
			}
		}
		if err := sum.stop(); err != nil {
			return err
		}
	}
	if err := <-reading; err != nil {
		return fmt.Errorf("read %s: %w", c.File, err)
	}
	return sum.err()
}

// batches gathers what lines there are, up to a batch, without waiting for more:
// who types, or follows a file, gets an answer at once.
func batches(lines <-chan intake.Line) func(yield func([]intake.Line) bool) {
	return func(yield func([]intake.Line) bool) {
		for line := range lines {
			batch := []intake.Line{line}
		gather:
			for len(batch) < intake.Batch {
				select {
				case line, ok := <-lines:
					if !ok {
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

// tally counts the answers.
type tally struct {
	taken, refused int
	firstUntaken   int // the first line that Redis could not be reached for
	unreachable    error
	noKey          bool
}

func (t *tally) add(a intake.Answer) {
	if a.Result == intake.Enqueued || a.Result == intake.Duplicate {
		t.taken++
		return
	}
	t.refused++
	t.noKey = t.noKey || errors.Is(a.Cause, secret.ErrNoKey)
	if errors.Is(a.Cause, intake.ErrUnreachable) && t.unreachable == nil {
		t.unreachable, t.firstUntaken = a.Cause, a.Line
	}
}

// stop ends the program when Redis is gone: the lines that follow would fail one
// by one.
func (t *tally) stop() error {
	if t.unreachable == nil {
		return nil
	}
	return fmt.Errorf("stopped at line %d, %d taken before and beside it; hand the whole input in again, what was taken is told as duplicate: %w",
		t.firstUntaken, t.taken, t.unreachable)
}

func (t *tally) err() error {
	switch {
	case t.noKey:
		return config.Wrong("PAYLOAD_KEYS", errors.New("is not set, and a payment has a customer token to seal"))
	case t.refused > 0:
		return fmt.Errorf("%w: %d taken, %d not", errRefused, t.taken, t.refused)
	default:
		return nil
	}
}
