// Command enqueue submits payments to the workers, and shows their status and events, from the
// command line or as an HTTP API.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/config"
	"terbayar/internal/durable"
	"terbayar/internal/events"
	"terbayar/internal/intake"
	"terbayar/internal/ledger"
	"terbayar/internal/terminal"
)

// The exit codes of docs/interface.md.
const (
	exitRefused     = 1 // a payment was not accepted
	exitUsage       = 2 // wrong usage or a wrong setting
	exitUnreachable = 3 // Redis cannot be reached
	exitUnknown     = 4 // no such payment
)

// errRefused says that a payment was not accepted. Its answer says why.
var errRefused = errors.New("not every payment was accepted")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	code := exitCode(err)
	if code != 0 {
		note(os.Stderr, err.Error())
	}
	stop()
	os.Exit(code)
}

// note writes a line to the terminal. It may contain untrusted text, such as an id or the name of a file.
func note(to io.Writer, text string) { fmt.Fprintln(to, "enqueue:", terminal.Safe(text)) }

// writeJSON writes a value as one line of JSON that is safe for a terminal.
func writeJSON(out io.Writer, value any) error {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil {
		return err
	}
	_, err := out.Write(append(terminal.JSON(text.Bytes()), '\n'))
	return err
}

func exitCode(err error) int {
	switch {
	case err == nil, errors.Is(err, config.ErrHelp):
		return 0
	case errors.As(err, new(*config.Error)):
		return exitUsage
	case errors.Is(err, ledger.ErrNotFound):
		return exitUnknown
	case errors.Is(err, errRefused), errors.Is(err, events.ErrNoEvent), errors.As(err, new(redis.Error)):
		return exitRefused
	case errors.Is(err, intake.ErrUnreachable):
		return exitUnreachable
	default:
		return exitRefused
	}
}

// cli defines the commands and flags.
type cli struct {
	Redis   config.Redis   `embed:""`
	Events  config.Events  `embed:""`
	Ledger  config.Ledger  `embed:""`
	Payload config.Payload `embed:""`

	Create createCmd `cmd:"" help:"Submit payments: one JSON object, or one per line (NDJSON)."`
	Status statusCmd `cmd:"" help:"Show the status of a payment, with every attempt."`
	List   listCmd   `cmd:"" help:"List payments by status, oldest first."`
	Cancel cancelCmd `cmd:"" help:"Cancel a payment that is queued and was certainly not sent."`
	Stream eventsCmd `cmd:"" name:"events" help:"Print the result events, one CloudEvent per line."`

	Serve serveCmd `cmd:"" help:"Serve the HTTP API for order systems."`
	Keys  keysCmd  `cmd:"" help:"Make API keys for enqueue serve."`

	Webhooks webhooksCmd `cmd:"" help:"Show the deliveries of webhooks, and send some again."`

	CheckAPI checkAPICmd `cmd:"" name:"check-api" help:"Check that enqueue serve answers at a URL. It submits nothing."`

	Completions completionsCmd `cmd:"" name:"install-completions" help:"Print the line for the shell's start-up file (~/.bashrc, ~/.zshrc) that completes commands and flags."`
}

func run(ctx context.Context, args []string, in io.Reader, out, notes io.Writer) error {
	if done, err := completions(out); done || err != nil {
		return err
	}
	var c cli
	command, err := config.Parse("enqueue", "Submits payments, and shows their status and events.", &c, args, out)
	if err != nil {
		return err
	}
	if command.Selected().Name == "create" && c.Create.DryRun {
		return c.Create.check(ctx, in, out, notes)
	}
	if command.Command() == "keys new <name>" {
		return c.Keys.New.run(out, notes)
	}
	if command.Command() == "check-api <url>" {
		return c.CheckAPI.run(ctx, out)
	}
	client, err := c.Redis.Open()
	if err != nil {
		return err
	}
	defer client.Close()
	if err := checkLogin(ctx, client); err != nil {
		return err
	}
	if command.Selected().Parent.Name == "webhooks" {
		return c.Webhooks.run(ctx, command.Selected().Name, &c, client, out, notes)
	}
	switch command.Selected().Name {
	case "create":
		return c.Create.run(ctx, &c, client, in, out, notes)
	case "serve":
		return c.Serve.run(ctx, &c, client, notes)
	case "status":
		return c.Status.run(ctx, &c, client, out, notes)
	case "list":
		return c.List.run(ctx, &c, client, out, notes)
	case "cancel":
		return c.Cancel.run(ctx, &c, client, out, notes)
	default:
		return c.Stream.run(ctx, &c, client, out)
	}
}

// checkLogin returns an error if Redis refuses the login. Other errors, such as no answer
// within 500 ms, are left to the commands, which report how far they got.
func checkLogin(ctx context.Context, client redis.UniversalClient) error {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if err := client.Ping(ctx).Err(); redis.IsAuthError(err) {
		return config.RefusedLogin(err)
	}
	return nil
}

// openLedger returns a ledger to write to, its writers, and a function that closes their connections. If Redis
// cannot be reached that is no error: it may be back when the first payment comes.
func openLedger(ctx context.Context, all *cli, client redis.UniversalClient, log *slog.Logger) (records *ledger.Ledger, writes durable.Writers, closeAll func(), err error) {
	writes, closeWrites, err := all.Redis.OpenDurable(ledger.DurabilityKeys(client, all.Ledger.Partitions), log)
	if err != nil {
		return nil, nil, nil, err
	}
	closeAll = func() { _ = closeWrites() }
	if err := writes.Start(ctx); errors.Is(err, durable.ErrUnfit) {
		closeAll()
		return nil, nil, nil, config.Unfit(err)
	}
	for _, w := range writes.Warnings() {
		log.Warn("redis: " + w)
	}
	records = ledger.New(ledger.Options{
		Redis: client, Writes: writes, Stream: all.Events.Stream, Partitions: all.Ledger.Partitions, Now: time.Now, Log: log,
	})
	return records, writes, closeAll, nil
}

// checkPartitions returns the error of a ledger with another number of partitions, as an error
// of the setting.
func checkPartitions(err error) error {
	if errors.As(err, new(*ledger.PartitionsError)) {
		return config.OtherPartitions(err)
	}
	return asUnreachable(err)
}

// asUnreachable wraps an error in intake.ErrUnreachable, unless Redis itself returned it or it
// is about the data.
func asUnreachable(err error) error {
	if err == nil || errors.As(err, new(redis.Error)) || errors.Is(err, context.Canceled) {
		return err
	}
	for _, answered := range []error{ledger.ErrNotFound, ledger.ErrOtherVersion, ledger.ErrDamaged, events.ErrNoEvent} {
		if errors.Is(err, answered) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", intake.ErrUnreachable, err)
}
