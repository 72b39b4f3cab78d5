package retention

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/archive"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
)

// Archiver replaces the records of payments that have been over for RETENTION by tombstones,
// after it has written them to the archive. Of several workers, one does it at a time.
type Archiver struct {
	Redis     redis.UniversalClient
	Ledger    *ledger.Ledger
	Archive   *archive.Writer // nil: ARCHIVE_DIR is not set, nothing is archived
	Retention time.Duration   // RETENTION
	Now       func() time.Time
	Log       *slog.Logger
	// OnDropped is called with each number of records that were replaced.
	OnDropped func(g payment.Gateway, records int)
	// OnScanned is called after each scan.
	OnScanned func(error)
}

// lockKey is the key of the lock. Its value is random for each scan, and it expires when the
// next scan is due. The lock saves work; it protects nothing: a record that two workers archive
// is in the archive twice, and is dropped once.
const lockKey = "{" + ledger.DefaultStream + "}:retention"

// lease is how long the lock is held without being renewed: a scan of a worker that crashed is
// begun again after that time.
const lease = time.Minute

// expireScript sets the remaining time (ms) of the lock, if it is still held.
var expireScript = redis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
`)

// Interval returns the time between two scans: six hours, less for a short retention.
func (a *Archiver) Interval() time.Duration {
	return min(6*time.Hour, max(time.Second, a.Retention/10))
}

// Run scans at every interval, until the context ends.
func (a *Archiver) Run(ctx context.Context) {
	ticker := time.NewTicker(min(a.Interval(), lease))
	defer ticker.Stop()
	for {
		a.runOnce(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// runOnce scans if no worker has done so within the interval.
func (a *Archiver) runOnce(ctx context.Context) {
	token := rand.Text()
	err := a.Redis.SetArgs(ctx, lockKey, token, redis.SetArgs{Mode: "NX", TTL: lease}).Err()
	if err != nil { // redis.Nil: another worker has the lock
		return
	}
	renewing, stop := context.WithCancel(ctx)
	go a.renew(renewing, token)
	err = a.Scan(ctx)
	stop()
	if ctx.Err() != nil { // the worker stops: another one begins again after the lease
		return
	}
	a.OnScanned(err)
	left := a.Interval()
	if err != nil {
		left = min(left, lease)
		a.Log.Error("archiving payments failed, will retry", "error", err, "in", left.String())
	}
	_ = expireScript.Run(ctx, a.Redis, []string{lockKey}, token, left.Milliseconds()).Err() // else it expires after the lease
}

// renew renews the lock until the context ends.
func (a *Archiver) renew(ctx context.Context, token string) {
	ticker := time.NewTicker(lease / 4)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			_ = expireScript.Run(ctx, a.Redis, []string{lockKey}, token, lease.Milliseconds()).Err()
		}
	}
}

// Scan goes through all payments once. After an error, nothing that is not archived has been
// dropped, and the next scan continues.
func (a *Archiver) Scan(ctx context.Context) error {
	started, dropped := a.Now(), 0
	unreadable, err := a.Ledger.ScanEnded(ctx, a.Retention, func(records []*ledger.Record) error {
		n, err := a.archiveAndDrop(ctx, records)
		dropped += n
		return err
	})
	if dropped > 0 {
		a.Log.Info("payments archived: over for longer than RETENTION", "payments", dropped, "archive", a.Archive != nil,
			"retention", a.Retention.String(), "duration", a.Now().Sub(started).Round(time.Millisecond).String())
	}
	if unreadable > 0 {
		a.Log.Error("records not archived: damaged or written by another version", "records", unreadable)
	}
	return err
}

// archiveAndDrop returns the number of records that were replaced by tombstones.
func (a *Archiver) archiveAndDrop(ctx context.Context, records []*ledger.Record) (dropped int, err error) {
	var archivedOn time.Time
	if a.Archive != nil {
		lines := make([][]byte, len(records))
		for i, r := range records {
			if lines[i], err = r.ArchiveLine(); err != nil {
				return 0, err
			}
		}
		day, err := a.Archive.Append(lines)
		if err != nil {
			return 0, fmt.Errorf("retention: %w", err)
		}
		if archivedOn, err = time.Parse(time.DateOnly, string(day)); err != nil {
			return 0, fmt.Errorf("retention: %w", err)
		}
	}
	byGateway := map[payment.Gateway][]*ledger.Record{}
	for _, r := range records {
		byGateway[r.Gateway] = append(byGateway[r.Gateway], r)
	}
	for g, records := range byGateway {
		n, err := a.Ledger.Drop(ctx, records, archivedOn)
		dropped += n
		a.OnDropped(g, n)
		if err != nil {
			return dropped, err
		}
	}
	return dropped, nil
}
