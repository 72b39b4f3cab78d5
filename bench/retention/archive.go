package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/archive"
	"terbayar/internal/payment"
	"terbayar/internal/retention"
	"terbayar/internal/testenv"
)

// scanCommand is the first argument of a process that archives.
const scanCommand = "scan"

// anyAge is a RETENTION that includes payments of this very moment: Redis' clock is only known
// to a millisecond or so.
const anyAge = -time.Minute

// scanMain archives all payments.
func scanMain(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet(scanCommand, flag.ContinueOnError)
	url := flags.String("redis", "", "REDIS_URL")
	dir := flags.String("dir", "", "ARCHIVE_DIR")
	partitions := flags.Int("partitions", 1, "LEDGER_PARTITIONS")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s, err := openLedger(ctx, *url, *partitions)
	if err != nil {
		return err
	}
	defer s.close()
	writer := archive.NewWriter(*dir, "bench:"+strconv.Itoa(os.Getpid()), time.Now)
	archiver := retention.Archiver{
		Redis: s.client, Ledger: s.Ledger, Archive: writer, Retention: anyAge, Now: time.Now,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), OnDropped: func(payment.Gateway, int) {},
	}
	return errors.Join(archiver.Scan(ctx), writer.Close())
}

// scan is a process that archives.
type scan struct {
	cmd    *exec.Cmd
	output bytes.Buffer
	ended  chan struct{}
}

func (r *retentionRun) startScan() *scan {
	r.t.Helper()
	self, err := os.Executable()
	r.require(err)
	s := &scan{ended: make(chan struct{})}
	s.cmd = exec.CommandContext(r.t.Context(), self, scanCommand,
		"-redis", r.server.URL(), "-dir", r.dir, "-partitions", strconv.Itoa(r.o.partitions))
	s.cmd.Stdout, s.cmd.Stderr = &s.output, &s.output
	r.require(s.cmd.Start())
	go func() {
		_ = s.cmd.Wait() // ProcessState has the exit code
		close(s.ended)
	}()
	r.t.Cleanup(s.kill)
	return s
}

func (s *scan) kill() {
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.ended
}

func (s *scan) hasEnded() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// memory returns the largest memory of the process so far, in bytes; 0 when it has ended. The
// figure that Wait returns includes this program's, from before the exec.
func (s *scan) memory() int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	_, rest, _ := bytes.Cut(text, []byte("VmHWM:"))
	var kilobytes int64
	_, _ = fmt.Sscan(string(rest), &kilobytes) // there is none
	return 1024 * kilobytes
}

// kill is a kill that is due when some payments are archived.
type kill struct {
	at    int64
	redis bool // Redis is killed, not the process that archives
}

// newKills returns the kills of a run, in order.
func (o options) newKills() (all []kill) {
	if o.kills == 0 {
		return nil
	}
	at := func() int64 { return int64(random(max(1, o.payments*9/10))) }
	for range o.kills {
		all = append(all, kill{at: at()})
	}
	all = append(all, kill{at: at(), redis: true})
	slices.SortFunc(all, func(a, b kill) int { return int(a.at - b.at) })
	return all
}

// usage is what the scans have used.
type usage struct {
	scans        int
	killed       int // scans
	redisKilled  int
	took         time.Duration // of scans, while Redis was up
	cpu          time.Duration // of the processes
	redisCPU     time.Duration
	memory       int64 // the largest of a process, in bytes
	slowest      time.Duration
	slowestName  string
	slowCommands int
}

// archive archives all payments, with kills.
func (r *retentionRun) archive() {
	idle := r.ping(func() { pause(r.t, r.o.idle) })
	var u usage
	meanwhile := r.ping(func() { u = r.scanAll() })
	r.rate("archived", fmt.Sprintf("%d scans: %d killed; Redis killed: %d", u.scans, u.killed, u.redisKilled), u.took)
	r.row("  CPU of the process a payment (us)", "", "%.1f", r.per(float64(u.cpu.Microseconds())))
	r.row("  CPU of Redis a payment (us)", "", "%.1f", r.per(float64(u.redisCPU.Microseconds())))
	r.row("  largest memory of the process (MB)", "VmHWM", "%.0f", float64(u.memory)/1e6)
	r.row("  longest command in the SLOWLOG (ms)", fmt.Sprintf("%s; %d commands took longer than %s", u.slowestName, u.slowCommands, slow),
		"%.1f", float64(u.slowest.Microseconds())/1000)
	for _, p := range []struct {
		name  string
		share float64
	}{{"p50", 0.5}, {"p99", 0.99}, {"max", 1}} {
		r.row("  PING "+p.name+", idle / during a scan (ms)", "every 10 ms, from another connection", "%.2f / %.2f",
			milliseconds(quantile(idle, p.share)), milliseconds(quantile(meanwhile, p.share)))
	}
	r.redisTombstones()
	bytes, err := size(r.dir)
	r.require(err)
	r.row("  bytes of the archive a payment", "with manifests", "%.0f", r.per(float64(bytes)))
	r.with(func(s *store) { r.expect(s, "archived", 0, int64(r.o.payments)) })
}

// redisTombstones adds the rows of what Redis needs when all payments are tombstones.
func (r *retentionRun) redisTombstones() {
	r.redis.rewrite() // it is a moment for connections to close, too
	r.row("  used_memory of Redis a tombstone (bytes)", "", "%.0f", r.per(float64(r.redis.memory()-r.empty)))
	buckets := r.redis.keys("*:tombstones:*", r.o.keys)
	var fields int64
	for _, key := range buckets {
		n, err := r.redis.client.HLen(r.t.Context(), key).Result()
		r.require(err)
		fields += n
	}
	r.row("  MEMORY USAGE a tombstone (bytes)", fmt.Sprintf("mean of %d buckets, %.1f tombstones each", len(buckets), float64(fields)/float64(len(buckets))),
		"%.0f", float64(r.redis.memoryUsage(buckets))/float64(fields))
}

// scanAll runs scans, and kills them and Redis, until all payments are archived.
func (r *retentionRun) scanAll() (u usage) {
	r.require(r.redis.client.SlowLogReset(r.t.Context()).Err())
	kills := r.o.newKills()
	meter := r.redis.cpu()
	read := func() { // before Redis is killed, and at the end
		now := r.redis.cpu()
		u.redisCPU, meter = u.redisCPU+now-meter, now
		longest, what, n := r.redis.slowest()
		u.slowCommands += n
		if longest >= u.slowest {
			u.slowest, u.slowestName = longest, what
		}
	}
	r.with(func(s *store) {
		for {
			u.scans++
			begun := time.Now()
			process := r.startScan()
			due := false
			await(r.t, func() bool {
				u.memory = max(u.memory, process.memory())
				due = len(kills) > 0 && r.tombstones(s) >= kills[0].at
				return due || process.hasEnded()
			})
			if due {
				pause(r.t, time.Duration(random(20_000))*time.Microsecond) // any moment
			}
			switch {
			case due && kills[0].redis && !process.hasEnded():
				read()
				u.took += time.Since(begun)
				u.redisKilled++
				r.server.Kill()
				r.server.Start(r.t)
				meter, begun = r.redis.cpu(), time.Now()
				kills = kills[1:]
				await(r.t, func() bool { // it may go on: then it may miss payments
					u.memory = max(u.memory, process.memory())
					return process.hasEnded()
				})
			case due && !process.hasEnded():
				process.kill()
				kills = kills[1:]
			}
			process.kill()
			u.took += time.Since(begun)
			u.cpu += process.cmd.ProcessState.UserTime() + process.cmd.ProcessState.SystemTime()
			killed := process.cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled()
			if killed {
				u.killed++
			}
			if !killed && process.cmd.ProcessState.ExitCode() != 0 && u.redisKilled == 0 {
				r.t.Fatalf("%s\n%s", process.cmd, &process.output)
			}
			r.require(r.t.Context().Err())
			if left := int64(r.o.payments) - r.tombstones(s); left <= 0 && process.cmd.ProcessState.Success() {
				break
			} else if u.scans > 10+r.o.kills {
				r.wrong("archived: after %d scans %d payments are not archived\n%s", u.scans, left, &process.output)
				break
			}
		}
	})
	read()
	return u
}

// tombstones returns the number of payments that are archived.
func (r *retentionRun) tombstones(s *store) (n int64) {
	r.t.Helper()
	for _, g := range payment.Gateways() {
		stats, err := s.Stats(r.t.Context(), g)
		r.require(err)
		n += stats.Tombstones
	}
	return n
}

// ping measures, while a function runs, how long Redis takes for a PING every 10 ms. The time
// begins when the PING is due: it includes the PINGs before it that took longer. A PING that
// fails, because Redis is down, does not count.
func (r *retentionRun) ping(while func()) (latencies []time.Duration) {
	const every = 10 * time.Millisecond
	var stop atomic.Bool
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		client := redis.NewClient(&redis.Options{Addr: r.server.Addr, ReadTimeout: time.Minute, MaxRetries: -1}) // a retry would count the time of an outage
		defer client.Close()
		for due := time.Now(); !stop.Load(); due = due.Add(every) {
			time.Sleep(time.Until(due))
			if err := client.Ping(r.t.Context()).Err(); err != nil {
				due = time.Now()
				continue
			}
			latencies = append(latencies, time.Since(due))
		}
	}()
	while()
	stop.Store(true)
	<-ended
	return latencies
}

// quantile returns the smallest value that a share of the values does not exceed.
func quantile(values []time.Duration, share float64) time.Duration {
	sorted := slices.Sorted(slices.Values(values))
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(share*float64(len(sorted))))]
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// size returns the number of bytes of all files in a directory.
func size(dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}

// pause waits for a time.
func pause(t testenv.TB, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}
