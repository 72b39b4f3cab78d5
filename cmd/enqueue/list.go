package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/config"
	"terbayar/internal/events"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/retention"
	"terbayar/internal/terminal"
)

type listCmd struct {
	Gateway string `placeholder:"GATEWAY" help:"Only payments of this gateway: amdigipay or paydia."`
	Status  string `placeholder:"STATUS" help:"Only payments in this status, such as needs_review."`
	Since   string `placeholder:"TIME" help:"Only payments that reached their status at this time or later: RFC 3339, or how long ago, such as 30m, 36h or 7d."`
	Limit   int    `default:"100" placeholder:"N" help:"At most that many payments; 0: all."`
	JSON    bool   `name:"json" help:"Print one JSON object a line, as enqueue status --json."`
}

// Help is shown below the one-line help.
func (c *listCmd) Help() string {
	return `Payments come oldest first, by the time at which they reached their status; those in queued by their creation.
Without --status, those in queued come first, then submitting, verifying, on_processing and needs_review, then all
others. A list that may lack payments says so on standard error.

Examples:

  enqueue list --status needs_review                  # what needs a person
  enqueue list --status paid --since 2h --gateway paydia
  enqueue list --status on_processing --limit 0 --json | jq -r .transaction_id

Exit codes: 0 listed, also if there is none; 2 wrong usage or a wrong setting; 3 Redis cannot be reached.`
}

// listPage is how many payments are read at once: it bounds memory.
const listPage = 500

func (c *listCmd) query() (q ledger.ListQuery, err error) {
	if c.Gateway != "" {
		if q.Gateway, err = payment.ParseGateway(c.Gateway); err != nil {
			return q, config.Wrong("--gateway", err)
		}
	}
	if c.Status != "" {
		if q.Status, err = ledger.ParseStatus(c.Status); err != nil {
			return q, config.Wrong("--status", err)
		}
	}
	if c.Since != "" {
		if q.Since, err = ledger.ParseSince(c.Since, time.Now()); err != nil {
			return q, config.Wrong("--since", err)
		}
	}
	if c.Limit < 0 {
		return q, config.Wrong("--limit", errors.New("must be 0 or more"))
	}
	return q, nil
}

func (c *listCmd) run(ctx context.Context, all *cli, client redis.UniversalClient, out, notes io.Writer) error {
	q, err := c.query()
	if err != nil {
		return err
	}
	partitions := all.Ledger.Partitions
	reader := ledger.NewReader(client, partitions)
	if err := checkPartitions(reader.ReadPartitions(ctx)); err != nil {
		return err
	}
	q.Streams = events.NewStreams(client, ledger.StreamNames(all.Events.Stream, partitions))
	var said []string
	for n := 0; ; {
		q.Limit = listPage
		if c.Limit > 0 {
			q.Limit = min(listPage, c.Limit-n)
		}
		page, err := reader.List(ctx, q)
		if err != nil {
			return asUnreachable(err)
		}
		for _, text := range page.Incomplete {
			if !slices.Contains(said, text) {
				said = append(said, text)
				note(notes, "the list may be incomplete: "+text)
			}
		}
		for _, r := range page.Records {
			if err := c.print(out, r, n == 0); err != nil {
				return err
			}
			n++
		}
		q.After = page.Next
		switch {
		case q.After == "":
			return nil
		case c.Limit > 0 && n >= c.Limit:
			note(notes, fmt.Sprintf("there may be more: these are the first %d; --limit 0 lists all", n))
			return nil
		}
	}
}

// listRow has the id last: it is to be copied, and may be long.
const listRow = "%-20s %-9s %-13s %15s  %s\n"

func (c *listCmd) print(out io.Writer, r *ledger.Record, first bool) error {
	status, _ := retention.StatusOf(r, "")
	if c.JSON {
		return writeJSON(out, status)
	}
	if first {
		if _, err := fmt.Fprintf(out, listRow, "updated at", "gateway", "status", "amount", "transaction id"); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(out, listRow, formatTime(status.UpdatedAt), status.Gateway, status.Status,
		fmt.Sprintf("Rp %d", status.Amount), terminal.Safe(status.TransactionID))
	if err == nil && status.Status == payment.NeedsReview && status.Reason != "" {
		for _, line := range wrap(terminal.Safe(status.Reason), lineWidth-4) {
			if _, err := fmt.Fprintln(out, "    "+line); err != nil {
				return err
			}
		}
	}
	return err
}
