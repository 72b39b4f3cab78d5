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
	// OnScanned is called with whether the latest scan of any worker failed.
	OnScanned func(failed bool)
}

// lockKey is the key of the lock. During a scan its value is random; then it is how the scan
// ended, and it expires when the next one is due. The lock saves work; it protects nothing: a
// record that two workers archive is in the archive twice, and is dropped once.
const lockKey = "{" + ledger.DefaultStream + "}:retention"

// lease is how long the lock is held without being renewed: a scan of a worker that crashed is
// begun again after that time.
const lease = time.Minute

// The values of the lock after a scan.
const (
	scanDone   = "done"
	scanFailed = "failed"
)

// lockScript changes the value and the remaining time of the lock, if it is still held.
//
//	KEYS[1] lock
//	ARGV[1] present value
//	ARGV[2] new value
//	ARGV[3] remaining time (ms)
var lockScript = redis.NewScript(`
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 0
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
	if err != nil { // redis.Nil: a scan is not due yet, or another worker is scanning
		if result := a.Redis.Get(ctx, lockKey).Val(); result == scanDone || result == scanFailed {
			a.OnScanned(result == scanFailed)
		}
		return
	}
	renewing, stop := context.WithCancel(ctx)
	go a.renew(renewing, token)
	err = a.Scan(ctx)
	stop()
	if ctx.Err() != nil { // the worker stops: another one may begin at once
		release, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = lockScript.Run(release, a.Redis, []string{lockKey}, token, token, 1).Err()
		return
	}
	a.OnScanned(err != nil)
	result, left := scanDone, a.Interval()
	if err != nil {
		result, left = scanFailed, min(left, lease)
		a.Log.Error("archiving payments failed, will retry", "error", err, "in", left.String())
	}
	_ = lockScript.Run(ctx, a.Redis, []string{lockKey}, token, result, left.Milliseconds()).Err() // else it expires after the lease
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
			_ = lockScript.Run(ctx, a.Redis, []string{lockKey}, token, token, lease.Milliseconds()).Err()
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
		log := a.Log.With("payments", dropped, "retention", a.Retention.String(), "duration", a.Now().Sub(started).Round(time.Millisecond).String())
		if a.Archive != nil {
			log.Info("payments archived: over for longer than RETENTION")
		} else {
			log.Info("records deleted without an archive: over for longer than RETENTION")
		}
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
