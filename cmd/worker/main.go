// Command worker submits payments and follows them until the money is there.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"terbayar/internal/config"
	"terbayar/internal/ledger"
	"terbayar/internal/retrypolicy"
	"terbayar/internal/telemetry"
	"terbayar/internal/worker"
)

// Exit codes.
const (
	exitFailed = 1 // Redis is unfit, the HTTP side broke, or a check failed
	exitUsage  = 2 // wrong usage or a wrong setting
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case err == nil, errors.Is(err, config.ErrHelp):
		return
	default:
		fmt.Fprintln(os.Stderr, "worker:", err)
	}
	stop()
	if errors.As(err, new(*config.Error)) {
		os.Exit(exitUsage)
	}
	os.Exit(exitFailed)
}

// cli is what the program understands.
type cli struct {
	Run struct {
		worker.Config
	} `cmd:"" default:"withargs" help:"Run the workers, the polls and the web pages (the default)."`
	Check struct {
		worker.Config
	} `cmd:"" help:"Try the settings, Redis and the gateways' logins; no payment is sent."`
	Policies struct {
		RetryPolicy    config.RetryPolicy `embed:""`
		GatewayTimeout time.Duration      `name:"gateway-timeout" env:"GATEWAY_TIMEOUT" default:"15s" help:"That of the worker: a then: retry has to wait for two of it."`
	} `cmd:"" help:"Print the retry policy in force."`
}

// run logs to log; everything else it prints goes to out.
func run(ctx context.Context, args []string, out, log io.Writer) error {
	var c cli
	command, err := config.Parse("worker",
		"Submits payments to AM Digital Payment and Paydia, and stays with them until the money is there.",
		&c, args, out)
	if err != nil {
		return err
	}
	switch command.Command() {
	case "check":
		client, err := c.Check.Redis.Open()
		if err != nil {
			return err
		}
		defer client.Close()
		return worker.Check(ctx, c.Check.Config, client, out)
	case "policies":
		policy, err := worker.Policy(c.Policies.RetryPolicy, c.Policies.GatewayTimeout)
		if err != nil {
			return err
		}
		return retrypolicy.WriteTable(out, policy)
	}
	logger, err := telemetry.NewLogger(log, c.Run.Log.Level, c.Run.Log.Format)
	if err != nil {
		return err
	}
	// They are not closed: the process ends here, and where Redis hangs asynq may still
	// be at it (it panics when its connection is closed under it).
	client, err := c.Run.Redis.Open()
	if err != nil {
		return err
	}
	writes, _, err := c.Run.Redis.OpenDurable(ledger.DurabilityKey, logger)
	if err != nil {
		return err
	}
	house, err := worker.New(c.Run.Config, client, writes, logger)
	if err != nil {
		return err
	}
	return house.Run(ctx)
}
