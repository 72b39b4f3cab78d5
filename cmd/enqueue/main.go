// Command enqueue hands payments in, and tells what became of them.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/config"
	"terbayar/internal/events"
	"terbayar/internal/intake"
	"terbayar/internal/ledger"
	"terbayar/internal/terminal"
)

// The exit codes of interface.md.
const (
	exitRefused     = 1 // a payment was not taken
	exitUsage       = 2 // wrong usage or a wrong setting
	exitUnreachable = 3 // Redis cannot be reached
	exitUnknown     = 4 // no such payment
)

// errRefused says that a payment was not taken; its line has said why.
var errRefused = errors.New("not every payment was taken")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait for anything
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	code := exitCode(err)
	if code != 0 {
		note(os.Stderr, err.Error())
	}
	stop()
	os.Exit(code)
}

// note writes a line for the person at the terminal, who may have been given an id or a
// file by somebody else.
func note(to io.Writer, text string) { fmt.Fprintln(to, "enqueue:", terminal.Safe(text)) }

// writeJSON writes a value as one line of JSON that a terminal can show.
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

// cli is what the program understands.
type cli struct {
	Redis   config.Redis   `embed:""`
	Events  config.Events  `embed:""`
	Payload config.Payload `embed:""`

	Create createCmd `cmd:"" help:"Hand payments in: a JSON object, or one a line (NDJSON)."`
	Status statusCmd `cmd:"" help:"Tell where a payment stands, with every attempt."`
	Stream eventsCmd `cmd:"" name:"events" help:"Print the result events, one CloudEvent a line."`
}

func run(ctx context.Context, args []string, in io.Reader, out, notes io.Writer) error {
	var c cli
	command, err := config.Parse("enqueue", "Hands payments in, and tells what became of them.", &c, args, out)
	if err != nil {
		return err
	}
	client, err := c.Redis.Open()
	if err != nil {
		return err
	}
	defer client.Close()
	if err := loggedIn(ctx, client); err != nil {
		return err
	}
	switch command.Selected().Name {
	case "create":
		return c.Create.run(ctx, &c, client, in, out, notes)
	case "status":
		return c.Status.run(ctx, client, out)
	default:
		return c.Stream.run(ctx, &c, client, out)
	}
}

// loggedIn says so when Redis refuses the login. What else is wrong with it the commands
// tell, and how far they got; so a Redis that does not answer at once is left to them.
func loggedIn(ctx context.Context, client redis.UniversalClient) error {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if err := client.Ping(ctx).Err(); redis.IsAuthError(err) {
		return config.RefusedLogin(err)
	}
	return nil
}

// reached tells an error of Redis's own from one of the way to it.
func reached(err error) error {
	if err == nil || errors.As(err, new(redis.Error)) || errors.Is(err, context.Canceled) {
		return err
	}
	for _, own := range []error{ledger.ErrNotFound, ledger.ErrOtherVersion, ledger.ErrDamaged, events.ErrNoEvent} {
		if errors.Is(err, own) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", intake.ErrUnreachable, err)
}
