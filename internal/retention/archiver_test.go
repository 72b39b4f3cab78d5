package retention

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/archive"
	"terbayar/internal/durable"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redisconn"
	"terbayar/internal/redistest"
)

// anyAge includes payments of this very moment: Redis' clock is only known to a millisecond or so.
const anyAge = -time.Minute

// payments is a ledger with an Archiver.
type payments struct {
	*Archiver
	dir     string
	dropped int
	scans   []bool // whether they failed
	log     strings.Builder
}

func newPayments(t *testing.T, client redis.UniversalClient, dir string) *payments {
	t.Helper()
	p := &payments{dir: dir}
	p.Archiver = newArchiver(t, client, dir)
	p.Log = slog.New(slog.NewTextHandler(&p.log, nil))
	p.OnDropped = func(_ payment.Gateway, n int) { p.dropped += n }
	p.OnScanned = func(failed bool) { p.scans = append(p.scans, failed) }
	return p
}

// newArchiver returns an Archiver of a ledger with two partitions.
func newArchiver(t *testing.T, client redis.UniversalClient, dir string) *Archiver {
	t.Helper()
	const partitions = 2
	log := slog.New(slog.DiscardHandler)
	writes := durable.NewWriters(durable.Options{Client: client, Mode: durable.None, Now: time.Now, Log: log}, ledger.DurabilityKeys(client, partitions))
	if err := writes.Start(t.Context()); err != nil { // since then Redis' clock is known
		t.Fatal(err)
	}
	return &Archiver{
		Redis: client, Archive: archive.NewWriter(dir, "host:1", time.Now), Retention: anyAge, Now: time.Now, Log: log,
		Ledger: ledger.New(ledger.Options{
			Redis: client, Stream: ledger.DefaultStream, Partitions: partitions, Now: time.Now, Log: log,
			Writes: writes,
		}),
		OnDropped: func(payment.Gateway, int) {}, OnScanned: func(bool) {},
	}
}

func key(g payment.Gateway, i int) payment.Key {
	return payment.Key{Gateway: g, TransactionID: fmt.Sprintf("INV-%03d", i)}
}

func (p *payments) create(t *testing.T, k payment.Key, digest string) ledger.CreateResult {
	t.Helper()
	r := p.Ledger.Create(t.Context(), []ledger.NewPayment{{Key: k, Amount: 13000, Order: []byte(`{"customer_name":"Budi"}`), Digest: digest, MerchantID: "M1"}})[0]
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	return r
}

// pay creates n paid payments at each gateway, and one more of each that is open.
func (p *payments) pay(t *testing.T, n int) {
	t.Helper()
	for _, g := range payment.Gateways() {
		for i := range n + 1 {
			p.create(t, key(g, i), "a")
			if i == n {
				continue
			}
			r, result, err := p.Ledger.Claim(t.Context(), key(g, i), ledger.Claim{
				Attempt: payment.Attempt{At: time.Now(), Kind: payment.KindSubmit}, Lease: time.Minute, Timeout: time.Minute,
			})
			if err != nil || result != ledger.Claimed {
				t.Fatal(result, err)
			}
			r.Status = payment.Paid
			r.FinishAttempt(payment.Attempt{At: time.Now(), Kind: payment.KindSubmit, Code: "http:200", Action: "accept"})
			if err := p.Ledger.Save(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// archived returns how often each payment is in the archive.
func archived(t *testing.T, dir string) map[payment.Key]int {
	t.Helper()
	days, err := archive.Days(dir)
	if err != nil {
		t.Fatal(err)
	}
	times := map[payment.Key]int{}
	for _, day := range days {
		for line, err := range archive.Read(dir, day) {
			if err != nil {
				t.Fatal(err)
			}
			r, err := ledger.ParseArchiveLine(line)
			if err != nil || r.Status != payment.Paid || len(r.Attempts) != 1 {
				t.Fatalf("%s: %v", line, err)
			}
			times[r.Key()]++
		}
	}
	return times
}

// check checks every payment of pay after all scans: those that were paid are tombstones and in
// the archive, the open ones are as before, and none can be created again.
func (p *payments) check(t *testing.T, n int) {
	t.Helper()
	times := archived(t, p.dir)
	for _, g := range payment.Gateways() {
		for i := range n + 1 {
			k := key(g, i)
			r, err := p.Ledger.Read(t.Context(), k)
			if err != nil {
				t.Fatal(err)
			}
			if paid := i < n; r.Tombstone != paid || r.ArchivedOn.IsZero() == paid || (times[k] > 0) != paid {
				t.Errorf("%s: tombstone %v, archived on %v, %d times in the archive", k, r.Tombstone, r.ArchivedOn, times[k])
			}
			if a, b := p.create(t, k, "a"), p.create(t, k, "b"); a.Creation != ledger.Duplicate || b.Creation != ledger.Conflict || a.Status != r.Status {
				t.Errorf("%s: created again: %+v, %+v", k, a, b)
			}
		}
		s, err := p.Ledger.Stats(t.Context(), g)
		if err != nil || s.Payments() != 1 || s.Tombstones != int64(n) {
			t.Errorf("%s: %+v, %v", g, s, err)
		}
	}
}

func TestArchiver(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		const n = 250
		p := newPayments(t, client, t.TempDir())
		p.pay(t, n)
		if err := p.Scan(t.Context()); err != nil || p.dropped != 2*n {
			t.Fatalf("dropped %d, %v", p.dropped, err)
		}
		p.check(t, n)
		if err := p.Scan(t.Context()); err != nil || p.dropped != 2*n {
			t.Errorf("the second scan: dropped %d, %v", p.dropped, err)
		}
		for k, times := range archived(t, p.dir) {
			if times != 1 {
				t.Errorf("%s is in the archive %d times", k, times)
			}
		}
		if got := strings.Count(p.log.String(), "payments archived: over for longer than RETENTION"); got != 1 {
			t.Errorf("%d log lines: %s", got, p.log.String())
		}
	})
}

// TestArchiveFails: without the archive nothing is dropped. When it works again, the next scan
// continues.
func TestArchiveFails(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		const n = 3
		p := newPayments(t, client, filepath.Join(t.TempDir(), "missing"))
		p.pay(t, n)
		if err := p.Scan(t.Context()); !errors.Is(err, fs.ErrNotExist) || p.dropped != 0 {
			t.Fatalf("dropped %d, %v", p.dropped, err)
		}
		if err := os.Mkdir(p.dir, 0o750); err != nil {
			t.Fatal(err)
		}
		if err := p.Scan(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.check(t, n)
	})
}

// TestLock: of several workers that begin at the same time, one scans; the next scan is due
// after the interval, and, if the scan has failed, after a minute at the latest.
func TestLock(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		dir := t.TempDir()
		var all sync.WaitGroup
		workers := []*payments{newPayments(t, client, dir), newPayments(t, client, dir), newPayments(t, client, dir)}
		var scans atomic.Int64
		for _, w := range workers {
			w.Retention = 400 * 24 * time.Hour
			w.Now = func() time.Time { // a scan that finds nothing calls it once
				scans.Add(1)
				return time.Now()
			}
			all.Go(func() { w.runOnce(t.Context()) })
		}
		all.Wait()
		if n := scans.Load(); n != 1 {
			t.Errorf("%d scans", n)
		}
		for _, w := range workers { // all of them report the result
			w.runOnce(t.Context())
			if n := len(w.scans); n == 0 || w.scans[n-1] {
				t.Errorf("reported %v", w.scans)
			}
		}
		if left := client.PTTL(t.Context(), lockKey).Val(); left < workers[0].Interval()-time.Minute || left > workers[0].Interval() {
			t.Errorf("the next scan is due in %s", left)
		}
		client.Del(t.Context(), lockKey)
		failing := newPayments(t, client, filepath.Join(dir, "missing"))
		failing.pay(t, 1)
		failing.runOnce(t.Context())
		if left := client.PTTL(t.Context(), lockKey).Val(); left > lease || len(failing.scans) != 1 || !failing.scans[0] {
			t.Errorf("after %v the next scan is due in %s", failing.scans, left)
		}
		workers[0].runOnce(t.Context())
		if n := len(workers[0].scans); !workers[0].scans[n-1] {
			t.Error("another worker does not report that the scan failed")
		}
		if !strings.Contains(failing.log.String(), "archiving payments failed, will retry") {
			t.Error(failing.log.String())
		}
	})
}

// Settings of the process that TestKilled starts: this test's own program.
const (
	envURL  = "TERBAYAR_TEST_REDIS_URL"
	envDir  = "TERBAYAR_TEST_ARCHIVE_DIR"
	envKill = "TERBAYAR_TEST_KILL_AT"
)

// TestKilled kills a process that scans, before and after each of its requests to Redis, which
// are between all its steps. (A kill while it writes to the archive is tested in package
// archive.) The next process continues. No payment is lost, and each is in the archive.
func TestKilled(t *testing.T) {
	t.Parallel()
	const n = 5
	server := redistest.Server(t)
	client := server.Client(t)
	kills := 0
	for killAt := 1; ; killAt++ {
		client.FlushAll(t.Context())
		p := newPayments(t, client, t.TempDir())
		p.pay(t, n)
		scan := func(killAt int) error {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestScanProcess$") //nolint:gosec // G702: this test itself
			cmd.Env = append(os.Environ(), envURL+"="+server.URL(), envDir+"="+p.dir, envKill+"="+strconv.Itoa(killAt))
			out, err := cmd.CombinedOutput()
			exit := new(exec.ExitError)
			if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
				return errKilled
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			return nil
		}
		if err := scan(killAt); err == nil {
			break // it has fewer requests
		}
		kills++
		if err := scan(0); err != nil {
			t.Fatal(err)
		}
		p.check(t, n)
	}
	if kills < 2*6 {
		t.Errorf("only %d kills: the test does not reach every step", kills)
	}
	t.Logf("%d kills", kills)
}

var errKilled = errors.New("killed")

// TestScanProcess is not a test, but the process of TestKilled.
func TestScanProcess(t *testing.T) {
	url := os.Getenv(envURL)
	if url == "" {
		t.Skip("it is the process of TestKilled")
	}
	client, err := redisconn.Open(url, redisconn.Passwords{})
	if err != nil {
		t.Fatal(err)
	}
	killAt, err := strconv.Atoi(os.Getenv(envKill))
	if err != nil {
		t.Fatal(err)
	}
	a := newArchiver(t, client, os.Getenv(envDir))
	client.AddHook(&killer{at: killAt})
	if err := a.Scan(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// killer kills this process before or after a request to Redis: before the first if at is 1,
// after it if at is 2, and so on.
type killer struct {
	mu       sync.Mutex
	at, seen int
}

func (k *killer) step() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.seen++; k.seen == k.at {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // until the signal arrives
	}
}

func (k *killer) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (k *killer) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		k.step()
		err := next(ctx, cmd)
		k.step()
		return err
	}
}

func (k *killer) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		k.step()
		err := next(ctx, cmds)
		k.step()
		return err
	}
}
