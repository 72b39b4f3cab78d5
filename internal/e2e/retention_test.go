package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/archive"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/testenv/programs"
)

// archiveIn makes a new directory the archive of all programs, and returns it. Workers use it
// only with RETENTION.
func (e *env) archiveIn() string {
	e.Helper()
	dir := filepath.Join(e.TempDir(), "archive")
	if err := os.Mkdir(dir, 0o750); err != nil {
		e.Fatal(err)
	}
	e.Settings["ARCHIVE_DIR"] = dir
	return dir
}

// allKinds is a number of samples that has every kind at both gateways.
const allKinds = 30

// TestRetention: payments of every kind become tombstones when they are over for longer than
// RETENTION, and not while they are looked up. What enqueue answers about them stays the same.
func TestRetention(t *testing.T) {
	slow(t)
	e := newEnv(t)
	dir := e.archiveIn()
	queued := samples(allKinds + 4)[allKinds+2:]
	e.create(queued, "enqueued")
	if found := e.personalData(); len(found) < 4 { // name, phone and e-mail of one, the token of the other
		t.Fatalf("the search for personal data finds only %q", found)
	}

	w := e.Worker("LATE_PAYMENT_WINDOW=1h")
	all := samples(allKinds) // some of them expire soon
	e.create(all, "enqueued")
	all = append(all, queued...)
	e.await(all)
	before := map[payment.Key]map[string]any{}
	for _, p := range all {
		before[p.Key], _ = e.status(p.Key)
	}
	w.Stop()

	open := func(p programs.Payment) bool { return p.Ends == payment.OnProcessing || p.Ends == payment.Expired }
	over := slices.DeleteFunc(slices.Clone(all), open)
	workers := []*programs.Process{
		e.Worker("RETENTION=2s", "LATE_PAYMENT_WINDOW=1h"), e.Worker("RETENTION=2s", "LATE_PAYMENT_WINDOW=1h"),
	}
	e.awaitTombstones(over)
	more := samples(allKinds + 2)[allKinds:]
	e.create(more, "enqueued")
	e.awaitTombstones(more) // by another scan
	all, over = append(all, more...), append(over, more...)
	for _, p := range all[:allKinds+2] {
		if r := e.record(p.Key); open(p) && (r.Tombstone || r.NextAt.IsZero()) {
			t.Errorf("%s is %s, tombstone: %v, next lookup at %s", p.Key, r.Status, r.Tombstone, r.NextAt)
		}
		e.sameStatus(before[p.Key])
	}
	for _, p := range over {
		e.statusOfTombstone(p)
	}
	e.create(all, "duplicate")
	e.conflicts(all)
	for _, g := range payment.Gateways() {
		n := float64(len(of(over, g)))
		e.Eventually("the metrics count the tombstones", func() bool {
			return e.metric(workers[0], "terbayar_tombstones", g) == n && e.metric(workers[1], "terbayar_tombstones", g) == n &&
				e.metric(workers[0], "terbayar_payments_archived_total", g)+e.metric(workers[1], "terbayar_payments_archived_total", g) == n
		})
	}
	for _, w := range workers {
		w.Stop()
	}

	// Without a lookup that is due, an expired payment is over, and one that is open too long is in
	// manual review. AM's payment is open until it expires.
	last := e.Worker("RETENTION=2s", "LATE_PAYMENT_WINDOW=1s")
	for i, p := range e.submitted {
		if p.Key.Gateway == payment.Paydia && p.Ends == payment.OnProcessing {
			e.submitted[i].Ends = payment.NeedsReview
		}
	}
	rest := slices.DeleteFunc(slices.Clone(e.submitted), func(p programs.Payment) bool { return p.Ends == payment.OnProcessing })
	e.awaitTombstones(rest)
	for _, p := range rest {
		if p.Ends == payment.Expired {
			e.sameStatus(before[p.Key])
		}
	}
	e.create(all, "duplicate")
	e.conflicts(e.submitted)
	e.finish()
	e.checkArchive(dir, rest)
	e.requireNoPersonalData()
	last.Stop()
}

// TestKillDuringDrop kills a worker before Redis replaces a record by its tombstone, and after it.
func TestKillDuringDrop(t *testing.T) {
	slow(t)
	for _, c := range []struct {
		name   string
		answer bool // kill it before the answer; otherwise before the request
	}{{"before", false}, {"after", true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			dir := e.archiveIn()
			e.Settings["RETENTION"] = "1s"
			all := samples(2, "PAY")[1:]
			var victim *programs.Process
			kill := redistest.NewInterceptor(t, e.server.Addr, c.answer, programs.IsDrop(all[0].Key), func() { victim.Kill() })
			victim = e.Worker("REDIS_URL=" + kill.URL())
			e.create(all, "enqueued")
			select {
			case <-kill.Done:
			case <-time.After(programs.Timeout):
				t.Fatalf("the worker has not reached this step\n%s", victim.Stderr.Tail())
			}
			if r := e.record(all[0].Key); r.Tombstone != c.answer {
				t.Errorf("after the kill: tombstone %v", r.Tombstone)
			}
			e.Worker()
			e.awaitTombstones(all)
			e.create(all, "duplicate")
			e.finish()
			e.checkArchive(dir, all)
			e.requireNoPersonalData()
		})
	}
}

// TestKillsWhileArchiving kills workers at random while payments are sent and archived, and Redis
// once.
func TestKillsWhileArchiving(t *testing.T) {
	slow(t)
	e := newEnv(t)
	dir := e.archiveIn()
	e.Settings["RETENTION"], e.Settings["GATEWAY_TIMEOUT"] = "1s", "2s"
	all := orReview(samples(300, "PAY", "CANCEL", "FAIL", "REFUND", "REFUSE"))
	orders := e.NewOrderSystem()
	submitted := make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), programs.Timeout)
	defer cancel()
	go func() {
		defer close(submitted)
		orders.SubmitSlowly(ctx, all, 700*time.Millisecond)
	}()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	workers := []*programs.Process{e.StartWorker(), e.StartWorker()}
	kills, tombstones := 0, 0
	for submitting := true; submitting; kills++ {
		select {
		case <-submitted:
			submitting = false
		case <-time.After(time.Duration(500+random.IntN(2500)) * time.Millisecond):
		}
		i := random.IntN(len(workers))
		workers[i].Kill()
		if kills == 4 {
			e.server.Kill()
			e.server.Start(t)
		}
		workers[i] = e.StartWorker()
		tombstones = e.tombstones(all)
	}
	t.Logf("%d kills; %d of %d payments were tombstones at the last", kills, tombstones, len(all))
	for _, p := range orders.Submitted() {
		if !p.Acknowledged || p.AcceptedTwice {
			t.Errorf("%s: acknowledged %v, accepted twice %v", p.Key, p.Acknowledged, p.AcceptedTwice)
		}
	}
	e.submitted = all
	for i := range e.submitted {
		e.submitted[i].Acknowledged = true
	}
	e.finish()
	for _, w := range workers {
		w.Stop()
	}
	e.Worker("LATE_PAYMENT_WINDOW=1s") // those in manual review are over too
	e.awaitTombstones(all)
	e.create(all, "duplicate")
	e.finish()
	e.checkArchive(dir, all)
	e.requireNoPersonalData()
	reviews := 0
	for _, p := range all {
		if e.record(p.Key).Status == payment.NeedsReview {
			reviews++
		}
	}
	t.Logf("%d of %d payments are in manual review", reviews, len(all))
}

// TestRedisLost: Redis loses everything. The archive brings back first the tombstones, which are
// enough to recognise ids that are submitted again, then the records.
func TestRedisLost(t *testing.T) {
	slow(t)
	e := newEnv(t)
	dir := e.archiveIn()
	all := samples(40, "PAY", "CANCEL", "FAIL", "REFUSE")
	w := e.Worker()
	e.create(all, "enqueued")
	e.finish()
	before := map[payment.Key]map[string]any{}
	for _, p := range all {
		before[p.Key], _ = e.status(p.Key)
	}
	w.Stop()
	w = e.Worker("RETENTION=1s")
	e.awaitTombstones(all)
	w.Stop()
	sent := e.Sent()

	if err := e.Redis.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	e.restore("40 restored, 0 in the ledger already", "--tombstones")
	e.restore("0 restored, 40 in the ledger already", "--tombstones", "--day", string(e.days(dir)[0]))
	e.create(all, "duplicate")
	e.conflicts(all)
	for _, p := range all[:10] { // each kind
		e.statusOfTombstone(p)
		e.sameStatus(before[p.Key])
	}
	e.restore("40 restored, 0 in the ledger already")
	e.restore("0 restored, 40 in the ledger already")
	for _, p := range all {
		after, _ := e.status(p.Key, "ARCHIVE_DIR=")
		if diff := cmp.Diff(before[p.Key], after); diff != "" {
			t.Errorf("%s: %s", p.Key, diff)
		}
	}
	e.create(all, "duplicate")
	e.conflicts(all)

	// A worker sends none of them again, and archives them again.
	w = e.Worker("RETENTION=1s")
	e.awaitTombstones(all)
	for _, p := range all[:10] {
		e.sameStatus(before[p.Key])
	}
	for _, g := range payment.Gateways() {
		e.Eventually("the metrics count the tombstones", func() bool {
			return e.metric(w, "terbayar_tombstones", g) == 20 && e.metric(w, "terbayar_payments_archived_total", g) == 20
		})
	}
	w.Stop()
	if e.Sent() != sent {
		t.Errorf("%d payments were sent again", e.Sent()-sent)
	}
	e.checkArchive(dir, all)
}

// TestArchiveSettings: a worker that cannot archive does not start, and "worker check" reports it.
func TestArchiveSettings(t *testing.T) {
	slow(t)
	e := newEnv(t)
	file := e.File("file", "")
	for _, c := range []struct{ name, retention, dir, want string }{
		{"missing", "400d", filepath.Join(e.TempDir(), "missing"), "ARCHIVE_DIR: the directory %s does not exist"},
		{"file", "400d", file, "ARCHIVE_DIR: %s is not a directory"},
		{"below a file", "400d", file + "/archive", "ARCHIVE_DIR: stat %s: not a directory"},
		{"no duration", "abc", e.TempDir(), `RETENTION (--retention): "abc" is neither never nor a duration`},
		{"too short", "999ms", e.TempDir(), `RETENTION (--retention): "999ms" is neither never nor a duration`},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := strings.ReplaceAll(c.want, "%s", c.dir)
			for _, args := range [][]string{{"run"}, {"check"}} {
				r := e.Run("worker", args, "", "RETENTION="+c.retention, "ARCHIVE_DIR="+c.dir)
				if r.Code != 2 || !strings.Contains(r.Stderr, want) {
					t.Errorf("worker %s ended with exit code %d, want 2 and %q: %s", args[0], r.Code, want, r.Stderr)
				}
			}
		})
	}
	for _, args := range [][]string{{"archive", "verify"}, {"archive", "restore"}} {
		for dir, want := range map[string]string{"": "is not set", file: "not a directory", file + "2": "no such file or directory"} {
			r := e.Run("worker", args, "", "ARCHIVE_DIR="+dir)
			if r.Code != 2 || !strings.Contains(r.Stderr, "ARCHIVE_DIR: ") || !strings.Contains(r.Stderr, want) || r.Stdout != "" {
				t.Errorf("worker %s with ARCHIVE_DIR=%s: %+v", args, dir, r)
			}
		}
	}

	// Without ARCHIVE_DIR, tombstones are all that is left.
	const warning = "ARCHIVE_DIR is not set: after RETENTION, the attempts and details of payments are deleted"
	if r := e.Run("worker", []string{"check"}, "", "RETENTION=1s"); r.Code != 0 || !strings.Contains(r.Stdout, "warn  archive       "+warning) {
		t.Errorf("worker check: %+v", r)
	}
	w := e.Worker("RETENTION=1s")
	if !w.Stderr.Has(warning) {
		t.Errorf("no warning in the log: %s", w.Stderr.String())
	}
	all := samples(4, "PAY")
	e.create(all, "enqueued")
	e.awaitTombstones(all)
	e.create(all, "duplicate")
	e.conflicts(all)
	for _, p := range all {
		got, note := e.status(p.Key)
		if len(got["attempts"].([]any)) != 0 || got["archived_on"] != nil || !strings.Contains(note, "this is all that is left") {
			t.Errorf("%v, %s", got, note)
		}
	}
	e.requireNoPersonalData()
}

// TestArchiveBreaks: the archive cannot be written for a while. Nothing is deleted meanwhile.
func TestArchiveBreaks(t *testing.T) {
	slow(t)
	e := newEnv(t)
	dir := e.archiveIn()
	workers := []*programs.Process{e.Worker("RETENTION=1s"), e.Worker("RETENTION=1s")}
	sum := func(name string, g payment.Gateway) float64 {
		return e.metric(workers[0], name, g) + e.metric(workers[1], name, g)
	}
	all := samples(20, "PAY", "CANCEL")
	first, second := all[:10], all[10:]
	e.create(first, "enqueued")
	e.awaitTombstones(first)

	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e.create(second, "enqueued")
	e.await(second)
	const failed = "archiving payments failed, will retry"
	failures := func() int { return strings.Count(workers[0].Stderr.String()+workers[1].Stderr.String(), failed) }
	e.Eventually("the log of one worker and the metric of both report it", func() bool {
		return failures() > 0 && sum("terbayar_archive_failed", "") == 2
	})
	tried := failures()
	e.Eventually("the workers try again", func() bool { return failures() > tried+2 }) // so a scan has found all of them
	if n := e.tombstones(second); n != 0 {
		t.Errorf("%d payments are tombstones that are not archived", n)
	}
	if n := sum("terbayar_payments_archived_total", payment.Paydia); n != 5 {
		t.Errorf("%v payments are counted as archived", n)
	}
	r := e.Run("enqueue", []string{"status", string(first[0].Key.Gateway), first[0].Key.TransactionID}, "")
	if r.Code != 0 || !strings.Contains(r.Stderr, "could not be read from ARCHIVE_DIR") || !strings.Contains(r.Stdout, "paid") {
		t.Errorf("enqueue status without the archive: %+v", r)
	}

	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	e.awaitTombstones(second)
	e.Eventually("the metric is 0 again", func() bool { return sum("terbayar_archive_failed", "") == 0 })
	e.finish()
	e.checkArchive(dir, all)
	for _, w := range workers {
		w.Stop()
	}
}

// record reads what the ledger has of a payment.
func (e *env) record(key payment.Key) *ledger.Record {
	e.Helper()
	r, err := e.Ledger.Read(e.Context(), key)
	if err != nil {
		e.Fatal(err)
	}
	return r
}

// tombstones returns how many of the payments are tombstones.
func (e *env) tombstones(all []programs.Payment) (n int) {
	for _, p := range all {
		if r, err := e.Ledger.Read(e.Context(), p.Key); err == nil && r.Tombstone {
			n++
		}
	}
	return n
}

func (e *env) awaitTombstones(all []programs.Payment) {
	e.Helper()
	left := slices.Clone(all)
	e.Eventually("the payments are tombstones", func() bool {
		left = slices.DeleteFunc(left, func(p programs.Payment) bool { return e.tombstones([]programs.Payment{p}) == 1 })
		return len(left) == 0
	})
}

// status returns the answer of "enqueue status --json" without next_at, which moves with every
// lookup, and its notes.
func (e *env) status(key payment.Key, edits ...string) (status map[string]any, notes string) {
	e.Helper()
	r := e.Run("enqueue", []string{"status", string(key.Gateway), key.TransactionID, "--json"}, "", edits...)
	if r.Code != 0 {
		e.Fatalf("enqueue status %s: %+v", key, r)
	}
	status = object(e, []byte(r.Stdout))
	delete(status, "next_at")
	return status, r.Stderr
}

// sameStatus fails the test if the status of a payment is not as before but for archived_on.
func (e *env) sameStatus(before map[string]any) {
	e.Helper()
	key := payment.Key{Gateway: payment.Gateway(before["gateway"].(string)), TransactionID: before["transaction_id"].(string)}
	after, notes := e.status(key)
	if r := e.record(key); r.Tombstone && after["archived_on"] != r.ArchivedOn.Format(time.DateOnly) {
		e.Errorf("%s: archived_on %v, the tombstone has %s", key, after["archived_on"], r.ArchivedOn)
	} else if !r.Tombstone && after["archived_on"] != nil {
		e.Errorf("%s: archived_on %v, and it has a record", key, after["archived_on"])
	}
	delete(after, "archived_on")
	if diff := cmp.Diff(before, after); diff != "" || notes != "" {
		e.Errorf("%s: %s%s", key, notes, diff)
	}
}

// statusOfTombstone checks the status of a tombstone without the archive.
func (e *env) statusOfTombstone(p programs.Payment) {
	e.Helper()
	full, _ := e.status(p.Key)
	want := map[string]any{"gateway_status": "", "attempts": []any{}}
	for _, name := range []string{"gateway", "transaction_id", "status", "gateway_reference", "amount", "created_at", "updated_at", "archived_on"} {
		want[name] = full[name]
	}
	got, note := e.status(p.Key, "ARCHIVE_DIR=")
	if diff := cmp.Diff(want, got); diff != "" || got["status"] != string(p.Ends) || got["amount"] != float64(p.Amount) {
		e.Errorf("%s: %s", p.Key, diff)
	}
	if want := fmt.Sprintf("enqueue: attempts and details are in the archive of %s: set ARCHIVE_DIR to show them\n", got["archived_on"]); note != want {
		e.Errorf("%s: the note is %q, want %q", p.Key, note, want)
	}
}

// conflicts submits payments with another amount.
func (e *env) conflicts(all []programs.Payment) {
	e.Helper()
	var in strings.Builder
	var want []answer
	for i, p := range all {
		// The total, the fee and the price of an item (AM), or the value (Paydia).
		const fee = 3000
		in.WriteString(strings.NewReplacer(
			fmt.Sprintf(":%d", p.Amount), fmt.Sprintf(":%d", p.Amount+1),
			fmt.Sprintf(":%d", p.Amount-fee), fmt.Sprintf(":%d", p.Amount-fee+1),
			fmt.Sprintf(`"%d.00"`, p.Amount), fmt.Sprintf(`"%d.00"`, p.Amount+1),
		).Replace(string(p.Line)) + "\n")
		want = append(want, answer{
			Line: i + 1, Gateway: string(p.Key.Gateway), TransactionID: p.Key.TransactionID, Result: "conflict",
			Status: string(e.record(p.Key).Status), Error: "this id already exists with other content: nothing was done",
		})
	}
	r := e.enqueue(in.String(), "create")
	if diff := cmp.Diff(want, lines[answer](e, r.Stdout)); diff != "" || r.Code != 1 {
		e.Errorf("exit code %d: %s", r.Code, diff)
	}
}

// metric returns a metric of a worker; the gateway may be empty.
func (e *env) metric(w *programs.Process, name string, g payment.Gateway) float64 {
	e.Helper()
	if g != "" {
		name += fmt.Sprintf("{gateway=%q}", g)
	}
	status, text := e.page(http.MethodGet, w.URL()+"/metrics")
	if status != http.StatusOK {
		e.Fatalf("/metrics: %d %s", status, text)
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			x, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				e.Fatal(err)
			}
			return x
		}
	}
	return -1 // it is missing while Redis is slow
}

// restore runs "worker archive restore" and requires its answer about the only day.
func (e *env) restore(want string, args ...string) {
	e.Helper()
	r := e.Run("worker", append([]string{"archive", "restore"}, args...), "")
	if _, got, _ := strings.Cut(strings.TrimSpace(r.Stdout), "  "); r.Code != 0 || got != want {
		e.Errorf("worker archive restore %s: want %q, got %+v", args, want, r)
	}
}

func (e *env) days(dir string) []archive.Day {
	e.Helper()
	days, err := archive.Days(dir)
	if err != nil || len(days) == 0 {
		e.Fatalf("days of the archive: %v, %v", days, err)
	}
	return days
}

// archiveLines returns the lines of the archive.
func (e *env) archiveLines(dir string) (all []string) {
	e.Helper()
	for _, day := range e.days(dir) {
		for line, err := range archive.Read(dir, day) {
			if err != nil {
				e.Fatal(err)
			}
			all = append(all, string(line))
		}
	}
	return all
}

// checkArchive fails the test if the archive is damaged, or does not have each of the payments and
// no others.
func (e *env) checkArchive(dir string, all []programs.Payment) {
	e.Helper()
	r := e.Run("worker", []string{"archive", "verify"}, "")
	if r.Code != 0 || strings.Contains(r.Stdout, "FAIL") || r.Stderr != "" {
		e.Errorf("worker archive verify: %+v", r)
	}
	times := map[payment.Key]int{}
	archived := e.archiveLines(dir)
	for _, line := range archived {
		var p payment.Payment
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			e.Fatal(err)
		}
		times[p.Key()]++
	}
	for _, p := range all {
		if times[p.Key] == 0 {
			e.Errorf("%s is not in the archive: %s", p.Key, e.details(p.Key))
		}
	}
	if len(times) != len(all) {
		e.Errorf("the archive has %d payments, want %d", len(times), len(all))
	}
	if !strings.Contains(r.Stdout, fmt.Sprintf("\n%d payments, files: ", len(archived))) {
		e.Errorf("the archive has %d lines: %s", len(archived), r.Stdout)
	}
	e.Logf("the archive has %d lines of %d payments", len(archived), len(times))
}

// personalData searches Redis, the archive and the logs for customers' data: all keys and values,
// decompressed. It returns the places.
func (e *env) personalData() (found []string) {
	e.Helper()
	places := map[string]string{"printed by enqueue": e.printed.String()}
	for _, w := range e.Workers() {
		places["log of "+w.Name] = w.Stdout.String() + w.Stderr.String()
	}
	for key, content := range e.keys() {
		places[key] = key + content
	}
	for key, r := range e.records() { // their compressed part hides texts
		places["record "+key] = fmt.Sprintf("%+v %s", r.Payment, r.Order)
		if r.EncryptedToken != "" {
			found = append(found, "encrypted token in "+key)
		}
	}
	if dir := e.Settings["ARCHIVE_DIR"]; dir != "" {
		if days, err := archive.Days(dir); err == nil && len(days) > 0 {
			places["archive"] = strings.Join(e.archiveLines(dir), "\n")
		}
	}
	for name, place := range places {
		for _, text := range append([]string{tokenMark}, personalMarks...) {
			if i := strings.Index(place, text); i >= 0 {
				found = append(found, fmt.Sprintf("%q in %s: %.200s", text, name, place[max(0, i-80):]))
			}
		}
	}
	return found
}

func (e *env) requireNoPersonalData() {
	e.Helper()
	for _, place := range e.personalData() {
		e.Errorf("personal data: %s", place)
	}
}
