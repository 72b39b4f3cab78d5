package main

import (
	"context"
	"io"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/events"
	"terbayar/internal/terminal"
)

type eventsCmd struct {
	Follow bool   `help:"Wait for new events."`
	From   string `help:"Start with this event: its id, or the id of its stream entry." placeholder:"ID"`
}

func (c *eventsCmd) run(ctx context.Context, all *cli, client redis.UniversalClient, out io.Writer) error {
	var writeErr error
	err := events.NewStream(client, all.Events.Stream).Each(ctx, c.From, c.Follow, func(event []byte) error {
		_, writeErr = out.Write(append(terminal.JSON(event), '\n'))
		return writeErr
	})
	switch {
	case writeErr != nil:
		return writeErr
	case c.Follow && ctx.Err() != nil: // interrupted: nothing else ends --follow
		return nil
	default:
		return asUnreachable(err)
	}
}
