package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/config"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/terminal"
	"terbayar/internal/webhooks"
)

type webhooksCmd struct {
	Endpoints webhookEndpointsCmd `cmd:"" help:"Show the webhook endpoints and whether they can be reached."`
	List      webhookListCmd      `cmd:"" help:"Show the deliveries that wait or were given up."`
	Replay    webhookReplayCmd    `cmd:"" help:"Deliver events again."`
	Enable    webhookEnableCmd    `cmd:"" help:"Enable an endpoint that was disabled because it could not be reached."`
}

// run runs one of the commands, by its name.
func (c *webhooksCmd) run(ctx context.Context, name string, all *cli, client redis.UniversalClient, out, notes io.Writer) error {
	if err := checkPartitions(ledger.NewReader(client, all.Ledger.Partitions).ReadPartitions(ctx)); err != nil {
		return err
	}
	admin := &webhooks.Admin{Redis: client, Streams: ledger.StreamNames(all.Events.Stream, all.Ledger.Partitions)}
	var err error
	switch name {
	case "endpoints":
		err = c.Endpoints.run(ctx, admin, out, notes)
	case "list":
		err = c.List.run(ctx, admin, out, notes)
	case "replay":
		err = c.Replay.run(ctx, admin, notes)
	default:
		if err = admin.Enable(ctx, c.Enable.Endpoint); err == nil {
			note(notes, c.Enable.Endpoint+" is enabled: its deliveries are tried within seconds")
		}
	}
	switch {
	case errors.Is(err, webhooks.ErrNoEndpoint):
		return config.Invalid(err)
	case errors.As(err, new(*config.Error)):
		return err
	default:
		return asUnreachable(err)
	}
}

type webhookEndpointsCmd struct {
	JSON bool `name:"json" help:"Print one JSON object per endpoint."`
}

func (c *webhookEndpointsCmd) run(ctx context.Context, admin *webhooks.Admin, out, notes io.Writer) error {
	all, err := admin.Endpoints(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		for _, e := range all {
			if err := writeJSON(out, e); err != nil {
				return err
			}
		}
		return nil
	}
	if len(all) == 0 {
		note(notes, "no worker has used a webhook endpoint")
		return nil
	}
	t := newTable("ENDPOINT", "STATE", "PAYMENTS PENDING", "OLDEST", "GIVEN UP")
	for _, e := range all {
		state := "works"
		switch {
		case e.DisabledAt != nil:
			state = "disabled since " + formatTime(*e.DisabledAt) + ": " + e.Reason
		case e.FailingSince != nil:
			state = "failing since " + formatTime(*e.FailingSince)
		}
		oldest := time.Duration(e.Oldest * float64(time.Second)).Round(time.Second)
		t.AppendRow(table.Row{e.Name, state, e.Pending, oldest, e.GivenUp})
	}
	_, err = fmt.Fprintln(out, t.Render())
	return err
}

// newTable returns a table as wide as its content, without lines.
func newTable(columns ...any) table.Writer {
	t := table.NewWriter()
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	t.SetStyle(style)
	t.SuppressTrailingSpaces()
	t.AppendHeader(columns)
	return t
}

type webhookListCmd struct {
	Endpoint string `name:"endpoint" help:"Only those of this endpoint."`
	Limit    int    `name:"limit" default:"100" help:"At most so many of each endpoint; 0: all."`
	JSON     bool   `name:"json" help:"Print one JSON object per delivery."`
}

// errLimit says that the list is longer than --limit.
var errLimit = errors.New("more deliveries")

func (c *webhookListCmd) run(ctx context.Context, admin *webhooks.Admin, out, notes io.Writer) error {
	if c.Limit < 0 {
		return config.Wrong("--limit", errors.New("must not be negative"))
	}
	names := []string{c.Endpoint}
	if c.Endpoint == "" {
		all, err := admin.Endpoints(ctx)
		if err != nil {
			return err
		}
		names = nil
		for _, e := range all {
			names = append(names, e.Name)
		}
	}
	t := newTable("ENDPOINT", "STATE", "TRIES", "RESULT", "NEXT AT", "EVENT")
	for _, name := range names {
		n := 0
		err := admin.Pending(ctx, name, func(d webhooks.Delivery) error {
			if n++; c.Limit > 0 && n > c.Limit {
				return errLimit
			}
			if c.JSON {
				return writeJSON(out, d)
			}
			event, next := d.EventID, ""
			if event == "" {
				event = fmt.Sprintf("%s:%s (no longer in the stream)", d.Gateway, d.TransactionID)
			}
			if d.NextAt != nil {
				next = formatTime(*d.NextAt)
			}
			t.AppendRow(table.Row{d.Endpoint, d.State, d.Tries, d.Result, next, terminal.Safe(event)})
			return nil
		})
		if errors.Is(err, errLimit) {
			note(notes, fmt.Sprintf("%s has more deliveries than --limit %d shows", name, c.Limit))
		} else if err != nil {
			return err
		}
	}
	if c.JSON {
		return nil
	}
	if t.Length() == 0 {
		note(notes, "no delivery waits, and none was given up")
		return nil
	}
	_, err := fmt.Fprintln(out, t.Render())
	return err
}

type webhookReplayCmd struct {
	Endpoint string   `arg:"" help:"The name of the endpoint; that of WEBHOOK_URL is default."`
	GivenUp  bool     `name:"given-up" help:"Only those that were given up."`
	Event    []string `name:"event" placeholder:"ID" help:"The id of an event; may be repeated."`
	Gateway  string   `name:"gateway" help:"With --id: the gateway of the payment."`
	ID       string   `name:"id" help:"With --gateway: the transaction id of the payment."`
	Type     []string `name:"type" help:"The type of the events: paid, expired, ..."`
	Since    string   `name:"since" placeholder:"TIME" help:"Only events from this time on: RFC 3339, or how long ago, such as 24h or 3d."`
	Until    string   `name:"until" placeholder:"TIME" help:"Only events until this time."`
	All      bool     `name:"all" help:"All events of the stream."`
}

// Help is shown below the one-line help.
func (c *webhookReplayCmd) Help() string {
	return `Events that were delivered are sent again, too. The receiver gets the same webhook-id, so one that keeps the ids does
nothing twice. Several conditions must all be true. Examples:

  enqueue webhooks replay default --given-up
  enqueue webhooks replay shop --since 2026-11-26T08:00:00+07:00 --until 2026-11-26T09:30:00+07:00
  enqueue webhooks replay shop --gateway paydia --id ORD-1`
}

func (c *webhookReplayCmd) run(ctx context.Context, admin *webhooks.Admin, notes io.Writer) error {
	s, err := c.selection()
	if err != nil {
		return err
	}
	n, err := admin.Replay(ctx, c.Endpoint, s)
	if n > 0 || err == nil {
		note(notes, fmt.Sprintf("%d event(s) will be delivered to %s", n, c.Endpoint))
	}
	return err
}

func (c *webhookReplayCmd) selection() (s webhooks.Selection, err error) {
	if !c.All && !c.GivenUp && len(c.Event) == 0 && c.ID == "" && len(c.Type) == 0 && c.Since == "" && c.Until == "" {
		return s, config.Invalid(errors.New("say which events: --given-up, --event, --id, --type, --since, --until, or --all"))
	}
	s.GivenUp, s.EventIDs = c.GivenUp, c.Event
	if (c.Gateway == "") != (c.ID == "") {
		return s, config.Invalid(errors.New("--gateway and --id: set both or none"))
	}
	if c.ID != "" {
		g, err := payment.ParseGateway(c.Gateway)
		if err != nil {
			return s, config.Wrong("--gateway", err)
		}
		s.Payment = &payment.Key{Gateway: g, TransactionID: c.ID}
	}
	for _, name := range c.Type {
		status, err := webhooks.ParseType(name)
		if err != nil {
			return s, config.Wrong("--type", err)
		}
		s.Statuses = append(s.Statuses, status)
	}
	now := time.Now()
	for _, flag := range []struct {
		name, text string
		to         *time.Time
	}{{"--since", c.Since, &s.Since}, {"--until", c.Until, &s.Until}} {
		if flag.text == "" {
			continue
		}
		if *flag.to, err = ledger.ParseSince(flag.text, now); err != nil {
			return s, config.Wrong(flag.name, err)
		}
	}
	return s, nil
}

type webhookEnableCmd struct {
	Endpoint string `arg:"" help:"The name of the endpoint; that of WEBHOOK_URL is default."`
}
