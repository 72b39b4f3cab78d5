package main

import (
	"context"
	"errors"
	"io"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/config"
	"terbayar/internal/events"
	"terbayar/internal/ledger"
	"terbayar/internal/terminal"
)

type eventsCmd struct {
	Follow bool   `help:"Wait for new events."`
	From   string `help:"Start with this event: its id, the id of its stream entry or, if the ledger has several partitions, its cursor." placeholder:"ID"`
}

func (c *eventsCmd) run(ctx context.Context, all *cli, client redis.UniversalClient, out io.Writer) error {
	var writeErr error
	partitions := all.Ledger.Partitions
	if err := checkPartitions(ledger.NewReader(client, partitions).ReadPartitions(ctx)); err != nil {
		return err
	}
	streams := events.NewStreams(client, ledger.StreamNames(all.Events.Stream, partitions))
	err := streams.Each(ctx, c.From, c.Follow, func(event []byte, cursor string) error {
		if partitions > 1 {
			event = events.WithCursor(event, cursor)
		}
		_, writeErr = out.Write(append(terminal.JSON(event), '\n'))
		return writeErr
	})
	switch {
	case errors.Is(err, events.ErrPosition):
		return config.Wrong("--from", err)
	case writeErr != nil:
		return writeErr
	case c.Follow && ctx.Err() != nil: // interrupted: nothing else ends --follow
		return nil
	default:
		return asUnreachable(err)
	}
}
