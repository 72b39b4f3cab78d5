package main

import (
	"context"
	"io"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/events"
	"terbayar/internal/terminal"
)

type eventsCmd struct {
	Follow bool   `help:"Go on with the events that are yet to come."`
	From   string `help:"Start at this event (included): its id, or the id of its stream entry." placeholder:"ID"`
}

func (c *eventsCmd) run(ctx context.Context, all *cli, client redis.UniversalClient, out io.Writer) error {
	var written error
	err := events.NewStream(client, all.Events.Stream).Each(ctx, c.From, c.Follow, func(event []byte) error {
		_, written = out.Write(append(terminal.JSON(event), '\n'))
		return written
	})
	switch {
	case written != nil:
		return written
	case c.Follow && ctx.Err() != nil: // nothing else ends it
		return nil
	default:
		return reached(err)
	}
}
