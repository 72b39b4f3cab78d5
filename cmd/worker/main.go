// Command worker submits payments and looks up their status until it is final.
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
	exitFailed = 1 // Redis is not fit to keep payments, HTTP failed, or a check failed
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

// cli defines the commands and flags.
type cli struct {
	Run struct {
		worker.Config
	} `cmd:"" default:"withargs" help:"Submit payments, look them up, and serve the web pages (the default)."`
	Check struct {
		worker.Config
	} `cmd:"" help:"Check the settings, Redis and the logins to the gateways. No payment is sent."`
	Archive  archiveCmd `cmd:"" help:"Verify the archive of payments, or restore payments from it."`
	Policies struct {
		RetryPolicy    config.RetryPolicy `embed:""`
		GatewayTimeout time.Duration      `name:"gateway-timeout" env:"GATEWAY_TIMEOUT" default:"15s" help:"The worker's setting: a policy file with 'then: retry' must wait at least twice as long."`
	} `cmd:"" help:"Print the retry policy in force."`
}

// run writes its log to log and everything else to out.
func run(ctx context.Context, args []string, out, log io.Writer) error {
	var c cli
	command, err := config.Parse("worker",
		"Submits payments to AM Digital Payment and Paydia, and looks up their status until it is final.",
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
	case "archive verify", "archive restore":
		return c.Archive.run(ctx, command.Command(), out, log)
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
	logger = logger.With("worker", worker.ID())
	// The connections are not closed: the process ends here, and if Redis hangs, asynq may
	// still use its connection (it panics when that is closed).
	client, err := c.Run.Redis.Open()
	if err != nil {
		return err
	}
	writes, _, err := c.Run.Redis.OpenDurable(ledger.DurabilityKeys(client, c.Run.Ledger.Partitions), logger)
	if err != nil {
		return err
	}
	w, err := worker.New(c.Run.Config, client, writes, logger)
	if err != nil {
		return err
	}
	return w.Run(ctx)
}
