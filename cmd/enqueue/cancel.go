package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/config"
	"terbayar/internal/durable"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/telemetry"
	"terbayar/internal/terminal"
)

type cancelCmd struct {
	Gateway string `arg:"" help:"amdigipay or paydia."`
	ID      string `arg:"" name:"id" help:"The transaction_id (AM) or the partnerReferenceNo (Paydia)."`
	JSON    bool   `name:"json" help:"Print the payment as one JSON object, also if it was not cancelled."`
}

// Help is shown below the one-line help.
func (c *cancelCmd) Help() string {
	return `A payment can be cancelled while it is queued and every attempt to send it was certainly not processed. When the
command ends with exit code 0, the payment is cancelled durably and is never sent. Cancelling it again does no harm.
Its id stays taken: submitting the order again is answered duplicate.

Examples:

  enqueue cancel amdigipay INV-1
  enqueue cancel --json paydia ORD-1 | jq -r .status

Exit codes: 0 it is cancelled; 1 it cannot be cancelled, or Redis has not acknowledged it: it may be cancelled, try
again; 2 wrong usage or a wrong setting; 3 Redis cannot be reached: the same; 4 there is no such payment.`
}

// errMayBeCancelled says that a cancel is not known to be durable.
var errMayBeCancelled = errors.New("not known to be cancelled: it may or may not be; run the same command again")

func (c *cancelCmd) run(ctx context.Context, all *cli, client redis.UniversalClient, out, notes io.Writer) error {
	gateway, err := payment.ParseGateway(c.Gateway)
	if err != nil {
		return config.Wrong("GATEWAY", err)
	}
	log, err := telemetry.NewLogger(notes, "warn", "auto")
	if err != nil {
		return err
	}
	records, _, closeRecords, err := openLedger(ctx, all, client, log)
	if err != nil {
		return err
	}
	defer closeRecords()
	if err := checkPartitions(records.CheckPartitions(ctx)); err != nil {
		return err
	}
	// At Ctrl-C the command may have been sent, so its result is still printed.
	ctx, cancel := extend(ctx, finishTimeout)
	defer cancel()
	r, err := records.Cancel(ctx, payment.Key{Gateway: gateway, TransactionID: c.ID})
	var refused *ledger.NotCancelledError
	switch {
	case errors.Is(err, ledger.ErrNotDurable):
		err = fmt.Errorf("%w: %w", errMayBeCancelled, err)
		if errors.Is(err, durable.ErrNotAcknowledged) || errors.Is(err, durable.ErrUnfit) {
			return err
		}
		return asUnreachable(err)
	case err != nil && !errors.As(err, &refused):
		return asUnreachable(err)
	}
	if c.JSON {
		if err := writeJSON(out, r.Payment); err != nil {
			return err
		}
	}
	if refused != nil {
		return fmt.Errorf("%s: %w", r.Key(), refused)
	}
	if !c.JSON {
		fmt.Fprintln(out, terminal.Safe(r.Key().String())+" is cancelled")
	}
	return nil
}
