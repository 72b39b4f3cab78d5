package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"terbayar/internal/archive"
	"terbayar/internal/config"
	"terbayar/internal/durable"
	"terbayar/internal/ledger"
	"terbayar/internal/retention"
	"terbayar/internal/telemetry"
)

// archiveCmd defines the commands about the archive of payments.
type archiveCmd struct {
	Archive config.Archive `embed:""`
	Verify  struct{}       `cmd:"" help:"Read the whole archive and compare it with its checksums."`
	Restore struct {
		Redis      config.Redis  `embed:""`
		Ledger     config.Ledger `embed:""`
		Log        config.Log    `embed:""`
		Day        []string      `help:"Restore only this day of the archive, such as 2026-11-26; may be repeated. Without it: all days."`
		Tombstones bool          `help:"Restore only tombstones: enough to recognise ids that are submitted again."`
	} `cmd:"" help:"Write payments from the archive back into Redis, for example after Redis has lost its data. What Redis has is not changed; it may be repeated. While RETENTION is set, workers archive the records again."`
}

func (c *archiveCmd) run(ctx context.Context, command string, out, log io.Writer) error {
	if c.Archive.Dir == "" {
		return config.Wrong("ARCHIVE_DIR", errors.New("it is not set"))
	}
	if _, err := archive.Days(c.Archive.Dir); err != nil {
		return config.Wrong("ARCHIVE_DIR", err)
	}
	if command == "archive verify" {
		return retention.Verify(c.Archive.Dir, out)
	}
	restorer := &retention.Restorer{Dir: c.Archive.Dir, Tombstones: c.Restore.Tombstones, Out: out}
	for _, text := range c.Restore.Day {
		day, err := archive.ParseDay(text)
		if err != nil {
			return config.Wrong("--day", fmt.Errorf("%q is not a day such as 2026-11-26", text))
		}
		restorer.Days = append(restorer.Days, day)
	}
	logger, err := telemetry.NewLogger(log, c.Restore.Log.Level, c.Restore.Log.Format)
	if err != nil {
		return err
	}
	client, err := c.Restore.Redis.Open()
	if err != nil {
		return err
	}
	defer client.Close()
	writes, closeWrites, err := c.Restore.Redis.OpenDurable(ledger.DurabilityKeys(client, c.Restore.Ledger.Partitions), logger)
	if err != nil {
		return err
	}
	defer func() { _ = closeWrites() }()
	if err := writes.Start(ctx); errors.Is(err, durable.ErrUnfit) {
		return config.Unfit(err)
	} else if err != nil {
		return fmt.Errorf("redis cannot be used: %w", err)
	}
	restorer.Ledger = ledger.New(ledger.Options{
		Redis: client, Writes: writes, Stream: ledger.DefaultStream, Partitions: c.Restore.Ledger.Partitions, Now: time.Now, Log: logger,
	})
	err = restorer.Run(ctx)
	if errors.As(err, new(*ledger.PartitionsError)) {
		return config.OtherPartitions(err)
	}
	return err
}
