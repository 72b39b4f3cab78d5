package retention

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"terbayar/internal/archive"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
)

// ErrIncomplete says that a part of the archive could not be read, or that a payment in it was
// not restored because its id was used again. The lines before it say which.
var ErrIncomplete = errors.New("not everything was restored")

// ErrDamaged says that the archive is damaged. The lines before it say where.
var ErrDamaged = errors.New("the archive is damaged")

// ErrEmpty says that a directory contains no archive.
var ErrEmpty = errors.New("there is no archive")

// restoreBatch is the number of payments that are restored in one round trip for each partition.
const restoreBatch = 500

// Restorer writes payments from the archive back into the ledger.
type Restorer struct {
	Ledger     *ledger.Ledger
	Dir        string        // ARCHIVE_DIR
	Days       []archive.Day // empty: all
	Tombstones bool          // restore only tombstones: enough to recognise ids that are submitted again
	Out        io.Writer
}

// Run restores the days, oldest first, and writes a line for each day and each problem to Out.
// It may be repeated, also after it was interrupted: what the ledger has is not changed.
func (r *Restorer) Run(ctx context.Context) error {
	days := r.Days
	if len(days) == 0 {
		var err error
		if days, err = archive.Days(r.Dir); err != nil {
			return err
		}
		if len(days) == 0 {
			return fmt.Errorf("%w in %s", ErrEmpty, r.Dir)
		}
	}
	var problems error
	if err := verifyFiles(r.Dir, func(report archive.Report) {
		if len(report.Problems) > 0 {
			problems = ErrIncomplete
			printReport(r.Out, report)
		}
	}); err != nil {
		return err
	}
	for _, day := range days {
		complete, err := r.day(ctx, day)
		if err != nil {
			return err
		}
		if !complete {
			problems = ErrIncomplete
		}
	}
	return problems
}

// day restores one day. It reports false if a part of it was not restored.
func (r *Restorer) day(ctx context.Context, day archive.Day) (complete bool, err error) {
	var archivedOn time.Time
	if r.Tombstones {
		if archivedOn, err = time.Parse(time.DateOnly, string(day)); err != nil {
			return false, err
		}
	}
	counts := map[ledger.Restored]int{}
	problem := func(err error) {
		complete = false
		fmt.Fprintf(r.Out, "%s  %v\n", day, err)
	}
	var batch []*ledger.Record
	inBatch := map[payment.Key]bool{}
	flush := func() error {
		results, err := r.Ledger.Restore(ctx, batch, archivedOn)
		for i, result := range results {
			if counts[result]++; result == ledger.Differs {
				problem(fmt.Errorf("%s was not restored: the ledger has another order with this id", batch[i].Key()))
			}
		}
		batch = batch[:0]
		clear(inBatch)
		return err
	}
	complete = true
	for line, err := range archive.Read(r.Dir, day) {
		if errors.Is(err, fs.ErrNotExist) {
			return false, fmt.Errorf("the archive has no day %s", day)
		}
		var record *ledger.Record
		if err == nil {
			record, err = ledger.ParseArchiveLine(line)
		}
		if err != nil {
			problem(err)
			continue
		}
		if inBatch[record.Key()] || len(batch) == restoreBatch {
			if err := flush(); err != nil {
				return false, err
			}
		}
		batch, inBatch[record.Key()] = append(batch, record), true
	}
	if err := flush(); err != nil {
		return false, err
	}
	fmt.Fprintf(r.Out, "%s  %d restored, %d in the ledger already\n", day, counts[ledger.RestoredNow], counts[ledger.Exists])
	return complete, nil
}

// Verify reads the whole archive, compares it with its manifests, and writes a line for each file
// to out. The error is ErrDamaged, ErrEmpty, or that of a directory that cannot be read.
func Verify(dir string, out io.Writer) error {
	var damaged error
	files, lines := 0, 0
	if err := verifyFiles(dir, func(report archive.Report) {
		if len(report.Problems) > 0 {
			damaged = ErrDamaged
		}
		printReport(out, report)
		files, lines = files+1, lines+report.Lines
	}); err != nil {
		return err
	}
	if files == 0 {
		return fmt.Errorf("%w in %s", ErrEmpty, dir)
	}
	fmt.Fprintf(out, "%d payments, files: %d\n", lines, files)
	return damaged
}

// verifyFiles calls do with the report of each file of the archive.
func verifyFiles(dir string, do func(archive.Report)) error {
	for report, err := range archive.Verify(dir) {
		if err != nil {
			return err
		}
		do(report)
	}
	return nil
}

func printReport(out io.Writer, report archive.Report) {
	outcome, unconfirmed := "ok", ""
	switch {
	case len(report.Problems) > 0:
		outcome = "FAIL"
	case report.Unconfirmed > 0:
		unconfirmed = fmt.Sprintf("; %d bytes at its end are not confirmed: a worker crashed, or is writing", report.Unconfirmed)
	}
	fmt.Fprintf(out, "%-4s  %s: %d payments in %d frames, %d bytes%s\n", outcome, report.Path, report.Lines, report.Frames, report.Bytes, unconfirmed)
	for _, problem := range report.Problems {
		fmt.Fprintf(out, "      %v\n", problem)
	}
}

// Find returns the record of a payment in the archive of a day, or ledger.ErrNotFound. If the day
// has it several times, it is the latest. A damaged part of the archive is an error only if the
// payment is in no other part.
func Find(dir string, day archive.Day, key payment.Key) (found *ledger.Record, err error) {
	var unreadable error
	prefix := ledger.ArchiveLinePrefix(key)
	for line, err := range archive.Read(dir, day) {
		if err != nil {
			unreadable = errors.Join(unreadable, err)
			continue
		}
		if !bytes.HasPrefix(line, prefix) {
			continue
		}
		r, err := ledger.ParseArchiveLine(line)
		if err != nil {
			unreadable = errors.Join(unreadable, err)
		} else if found == nil || found.Revision() < r.Revision() {
			found = r
		}
	}
	switch {
	case found != nil:
		return found, nil
	case unreadable != nil:
		return nil, unreadable
	default:
		return nil, fmt.Errorf("archive of %s: %s: %w", day, key, ledger.ErrNotFound)
	}
}
