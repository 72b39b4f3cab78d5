package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"terbayar/internal/archive"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/retention"
)

// verify reads the whole archive: every payment must be in it, each time as it was made.
func (r *retentionRun) verify() {
	var out strings.Builder
	begun := time.Now()
	if err := retention.Verify(r.dir, &out); err != nil {
		r.wrong("archive verify: %v\n%s", err, out.String())
	}
	r.rate("archive verified", "retention.Verify", time.Since(begun))

	times := make([]int, r.o.payments)
	lines := 0
	days, err := archive.Days(r.dir)
	r.require(err)
	for _, day := range days {
		for line, err := range archive.Read(r.dir, day) {
			r.require(r.t.Context().Err())
			if err != nil {
				r.wrong("archive of %s: %v", day, err)
				continue
			}
			lines++
			if i, ok := r.verifyLine(line); ok {
				times[i]++
			}
		}
	}
	var missing, twice problems
	for i, n := range times {
		switch {
		case n == 0:
			missing.add(r.o.key(i).String())
		case n > 1:
			twice.add(r.o.key(i).String())
		}
	}
	missing.report(r, "not in the archive")
	note := ""
	if twice.n > 0 {
		note = "a kill came between the archive and the tombstones, or Redis lost its last second"
	}
	r.row("  payments in the archive", fmt.Sprintf("%d lines; all compared, %d in full", lines, len(r.sampled)), "%d", len(times)-missing.n)
	r.row("  of these, more than once", note, "%d", twice.n)
}

// verifyLine compares a line of the archive with the payment as it was made. It returns the
// payment's number.
func (r *retentionRun) verifyLine(line []byte) (i int, ok bool) {
	record, err := ledger.ParseArchiveLine(line)
	if err != nil {
		r.wrong("%s: %v", line, err)
		return 0, false
	}
	if i, ok = r.numbers[record.Key()]; !ok {
		r.wrong("%s is in the archive, but was never made", record.Key())
		return 0, false
	}
	r.compare("in the archive", record, i)
	if want, ok := r.sampled[i]; ok && !bytes.Equal(line, want) {
		r.wrong("in the archive: %s, made: %s", line, want)
	}
	return i, true
}

// compare compares what every form of a payment has: record, tombstone, archive.
func (r *retentionRun) compare(where string, record *ledger.Record, i int) {
	if record.Amount != amount(i) || record.Status != payment.Paid || record.GatewayReference != r.o.reference(i) {
		r.wrong("%s: %s is %s with amount %d and reference %s, made: %s, %d, %s", where, record.Key(),
			record.Status, record.Amount, record.GatewayReference, payment.Paid, amount(i), r.o.reference(i))
	}
}

// problems are payments with the same problem.
type problems struct {
	n     int
	first string
}

func (p *problems) add(what string) {
	if p.n++; p.n == 1 {
		p.first = what
	}
}

// report records the problem if there is one.
func (p *problems) report(r *retentionRun, what string) {
	if p.n > 0 {
		r.wrong("%s: %d payments, for example %s", what, p.n, p.first)
	}
}

// submitAgain submits random payments again, with the same and with other content, and new ones.
func (r *retentionRun) submitAgain(after string) {
	r.with(func(s *store) {
		begun := time.Now()
		duplicates := r.create(s, after, "same content", some(r.o.tried, r.o.payments), false, ledger.CreateResult{Creation: ledger.Duplicate, Status: payment.Paid})
		conflicts := r.create(s, after, "other content", some(r.o.tried, r.o.payments), true, ledger.CreateResult{Creation: ledger.Conflict, Status: payment.Paid})
		fresh := make([]int, r.o.new)
		for i := range fresh {
			fresh[i] = r.o.payments + i
		}
		created := r.create(s, after, "new", fresh, false, ledger.CreateResult{Creation: ledger.Created, Status: payment.Queued})
		r.row("  submitted again after "+after+", and new",
			fmt.Sprintf("duplicate / conflict / created, in %s", time.Since(begun).Round(time.Millisecond)), "%d / %d / %d", duplicates, conflicts, created)
	})
}

// create creates payments and returns how many have the wanted result. Others are wrong.
func (r *retentionRun) create(s *store, after, what string, numbers []int, other bool, want ledger.CreateResult) (n int) {
	var not problems
	for numbers := range slices.Chunk(numbers, batch) {
		entries := make([]ledger.NewPayment, len(numbers))
		for j, i := range numbers {
			var err error
			entries[j], err = r.o.newPayment(i, other)
			r.require(err)
		}
		for j, got := range s.Create(r.t.Context(), entries) {
			r.require(got.Err)
			if got == want {
				n++
			} else {
				not.add(fmt.Sprintf("%s: %s (%s)", entries[j].Key, got.Creation, got.Status))
			}
		}
	}
	not.report(r, fmt.Sprintf("after %s, %s: not %s (%s)", after, what, want.Creation, want.Status))
	return n
}

// restoreTombstones restores tombstones into a Redis that has lost everything.
func (r *retentionRun) restoreTombstones() {
	r.rate("restored as tombstones", "after FLUSHALL", r.restore(true))
	r.redisTombstones()
	r.with(func(s *store) { r.expect(s, "restored as tombstones", 0, int64(r.o.payments)) })
	r.submitAgain("restoring tombstones")
}

// restoreRecords restores records into a Redis that has lost everything.
func (r *retentionRun) restoreRecords() {
	r.rate("restored as records", "after FLUSHALL", r.restore(false))
	r.redis.rewrite()
	r.row("  used_memory of Redis a payment (bytes)", "", "%.0f", r.per(float64(r.redis.memory()-r.empty)))
	r.with(func(s *store) {
		r.expect(s, "restored as records", int64(r.o.payments), 0)
		for i, want := range r.sampled {
			record, err := s.Read(r.t.Context(), r.o.key(i))
			r.require(err)
			r.compare("restored", record, i)
			if got, err := record.ArchiveLine(); err != nil || !bytes.Equal(got, want) {
				r.wrong("restored: %s, made: %s, %v", got, want, err)
			}
		}
	})
	r.row("  compared in full with what was made", "", "%d", len(r.sampled))
	r.submitAgain("restoring records")
}

func (r *retentionRun) restore(tombstones bool) (took time.Duration) {
	r.redis.flush()
	r.with(func(s *store) {
		var out strings.Builder
		begun := time.Now()
		restorer := retention.Restorer{Ledger: s.Ledger, Dir: r.dir, Tombstones: tombstones, Out: &out}
		if err := restorer.Run(r.t.Context()); errors.Is(err, retention.ErrIncomplete) {
			r.wrong("restore: %v\n%s", err, out.String())
		} else {
			r.require(err)
		}
		took = time.Since(begun)
	})
	return took
}

// find finds payments in the archive by their tombstones, as "enqueue status" does.
func (r *retentionRun) find() {
	var took []time.Duration
	r.with(func(s *store) {
		for range 20 {
			i := random(r.o.payments)
			begun := time.Now()
			tombstone, err := s.Read(r.t.Context(), r.o.key(i))
			r.require(err)
			r.compare("tombstone", tombstone, i)
			found, err := retention.Find(r.dir, archive.DayOf(tombstone.ArchivedOn), r.o.key(i))
			if err != nil {
				r.wrong("find: %v", err)
				continue
			}
			took = append(took, time.Since(begun))
			r.compare("found", found, i)
		}
	})
	r.row("found in the archive: seconds, median", "tombstone, then retention.Find; 20 payments", "%.2f", quantile(took, 0.5).Seconds())
}
