package failover_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"terbayar/internal/events"
	"terbayar/internal/gatewaysim"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
)

// programs is the folder with worker and enqueue, built once, with the race detector
// if the tests have it. TestMain removes it.
var programs = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "terbayar-failover-"); err != nil {
		return "", err
	}
	removePrograms = func() { _ = os.RemoveAll(dir) }
	return dir, buildPrograms(dir)
})

// removePrograms removes what was built, if anything was.
var removePrograms = func() {}

// buildPrograms builds worker and enqueue into a folder.
func buildPrograms(dir string, flags ...string) error {
	args := append([]string{"build", "-o", dir}, flags...)
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "terbayar/cmd/worker", "terbayar/cmd/enqueue")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return nil
}

// program is where one of the programs is.
func (s *stage) program(name string) string {
	s.Helper()
	dir, err := programs()
	if err != nil {
		s.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// process is a worker that runs as a program of its own.
type process struct {
	*exec.Cmd

	log   output
	ended chan struct{}
}

// start starts a worker, with more flags than all have, and kills it with the test.
func (s *stage) start(flags ...string) *process {
	s.Helper()
	return s.startProgram(s.program("worker"), flags...)
}

// startReady starts a worker and waits until it is ready.
func (s *stage) startReady(flags ...string) *process {
	s.Helper()
	p := s.start(flags...)
	s.eventually("the worker is ready", 15*time.Second, func() bool { return p.log.has("worker is ready") })
	return p
}

func (s *stage) startProgram(program string, flags ...string) *process {
	s.Helper()
	p := &process{Cmd: exec.Command(program, append(slices.Clone(s.flags), flags...)...), ended: make(chan struct{})}
	p.Stderr = &p.log
	s.processes = append(s.processes, p)
	p.Env = append(os.Environ(), s.env...)
	if err := p.Start(); err != nil {
		s.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.Wait() // it may have been killed
	}()
	s.Cleanup(func() {
		p.kill()
		if s.Failed() {
			s.Logf("%s", p.log.tail())
		}
		if p.log.has("DATA RACE") {
			s.Errorf("%s", p.log.String())
		}
	})
	return p
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.Process.Kill() // it may have ended
	<-p.ended
}

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// signal sends a signal to a worker that runs.
func (s *stage) signal(p *process, sig syscall.Signal) {
	s.Helper()
	if err := p.Process.Signal(sig); err != nil {
		s.Fatal(err)
	}
}

// freeze stops a worker as it stands, and returns when all its threads stand: one that
// is on a processor goes on for a moment after the signal.
func (s *stage) freeze(p *process) {
	s.Helper()
	s.signal(p, syscall.SIGSTOP)
	s.eventually("every thread stands", 5*time.Second, func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.Process.Pid))
		return err == nil && len(threads) > 0 && !slices.ContainsFunc(threads, func(file string) bool {
			text, err := os.ReadFile(file)
			// "PID (NAME) STATE ...", and a name may hold anything.
			_, state, _ := bytes.Cut(text, []byte(") "))
			return err == nil && !bytes.HasPrefix(state, []byte("T"))
		})
	})
}

// shop hands payments in with the program enqueue, as an order system does: what was
// not taken it hands in again, the same under the same id.
type shop struct {
	*stage

	name    string        // begins the ids
	url     string        // its REDIS_URL
	expires time.Duration // until when AM's payments can be paid

	mu     sync.Mutex
	orders map[payment.Key][]byte
	taken  map[payment.Key]bool // enqueue has answered enqueued or duplicate
	again  []payment.Key        // which it has taken as new though they were taken
	failed int                  // lines answered so, or not at all
}

// newShop opens a shop.
func (s *stage) newShop(name, url string) *shop {
	return &shop{stage: s, name: name, url: url, expires: 24 * time.Hour, orders: map[payment.Key][]byte{}, taken: map[payment.Key]bool{}}
}

// sell hands n payments in, ten at once and then for a while none, until all are taken
// or the context ends.
func (s *shop) sell(ctx context.Context, n int, pause time.Duration) {
	pace := time.NewTicker(pause)
	defer pace.Stop()
	for left := n; left > 0 && ctx.Err() == nil; <-pace.C {
		batch := map[payment.Key][]byte{}
		s.mu.Lock()
		for range min(left, 10) {
			key, text := namedOrder(s.name, len(s.orders)+1, s.expires)
			s.orders[key], batch[key] = text, text
		}
		s.mu.Unlock()
		left -= len(batch)
		for look := time.NewTicker(100 * time.Millisecond); len(batch) > 0 && ctx.Err() == nil; <-look.C {
			s.handIn(ctx, batch)
		}
	}
}

// handIn runs enqueue once and takes what it has taken out of the batch.
func (s *shop) handIn(ctx context.Context, batch map[payment.Key][]byte) {
	code, out, complaint := s.enqueue(ctx, slices.Collect(maps.Values(batch))...)
	if code == 2 || strings.Contains(complaint, "DATA RACE") {
		s.Errorf("enqueue: exit code %d: %s", code, complaint)
		clear(batch)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for dec := json.NewDecoder(strings.NewReader(out)); dec.More(); {
		var a struct {
			Gateway       payment.Gateway `json:"gateway"`
			TransactionID string          `json:"transaction_id"`
			Result        string          `json:"result"`
			Error         string          `json:"error"`
		}
		if err := dec.Decode(&a); err != nil {
			break // it was killed in the middle of a line
		}
		key := payment.Key{Gateway: a.Gateway, TransactionID: a.TransactionID}
		switch a.Result {
		case "enqueued", "duplicate":
			if a.Result == "enqueued" && s.taken[key] {
				s.again = append(s.again, key)
			}
			s.taken[key] = true
			delete(batch, key)
		case "failed":
		default:
			s.Errorf("enqueue answers %+v", a)
			delete(batch, key)
		}
	}
	s.failed += len(batch)
}

// enqueue runs "enqueue create" on some lines.
func (s *shop) enqueue(ctx context.Context, lines ...[]byte) (code int, stdout, stderr string) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.program("enqueue"), "create", "--redis-url", s.url, "--payload-keys", s.payloadKey)
	var out, complaint bytes.Buffer
	cmd.Env = append(os.Environ(), s.env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(bytes.Join(lines, []byte("\n"))), &out, &complaint
	_ = cmd.Run() // the exit code tells
	return cmd.ProcessState.ExitCode(), out.String(), complaint.String()
}

// takenNow are the payments taken so far.
func (s *shop) takenNow() []payment.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.taken))
}

// consumer takes note of every event that was ever in the stream, also of those that a
// failover takes out of it again.
type consumer struct {
	mu    sync.Mutex
	heard []event // each entry once, in the order of the stream
	seen  map[string]bool
}

// event is a result event, as far as it is judged.
type event struct {
	ID      string          `json:"id"`
	Type    string          `json:"type"`
	Subject string          `json:"subject"`
	Data    payment.Payment `json:"data"`
}

func (e event) key() payment.Key {
	return payment.Key{Gateway: e.Data.Gateway, TransactionID: e.Data.TransactionID}
}

// listen starts a consumer, which ends with the test.
func (s *stage) listen() *consumer {
	c := &consumer{seen: map[string]bool{}}
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(s.Context())
	go func() {
		defer close(done)
		look := time.NewTicker(50 * time.Millisecond)
		defer look.Stop()
		for ; ctx.Err() == nil; <-look.C {
			c.look(ctx, s)
		}
	}()
	s.Cleanup(func() { cancel(); <-done })
	return c
}

// look takes note of the newest entries. Redis may be away.
func (c *consumer) look(ctx context.Context, s *stage) {
	entries, err := s.redis.XRevRangeN(ctx, ledger.DefaultStream, "+", "-", 100).Result()
	if err != nil {
		return
	}
	slices.Reverse(entries)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, entry := range entries {
		text, _ := entry.Values[events.Field].(string)
		var e event
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			s.Errorf("event %s: %v", text, err)
			continue
		}
		if mark := entry.ID + e.ID; !c.seen[mark] {
			c.seen[mark] = true
			c.heard = append(c.heard, e)
		}
	}
}

// findings is what a run is found guilty of.
type findings struct {
	twice  []string // sent to a gateway more than once
	lost   []string // answered enqueued or duplicate, and not in the ledger any more
	open   []string // not at an end
	wrong  []string // the ledger says other than the gateway
	events []string // the events say other than the ledger
}

func (f *findings) none() bool {
	return len(f.twice)+len(f.lost)+len(f.open)+len(f.wrong)+len(f.events) == 0
}

func (f *findings) String() string {
	var b strings.Builder
	for _, found := range []struct {
		charge string
		cases  []string
	}{{"twice", f.twice}, {"lost", f.lost}, {"open", f.open}, {"wrong", f.wrong}, {"events", f.events}} {
		fmt.Fprintf(&b, "%d %s; ", len(found.cases), found.charge)
		for i, c := range found.cases {
			if i == 5 {
				b.WriteString("\n  ...\n")
				break
			}
			b.WriteString("\n  " + c + "\n")
		}
	}
	return b.String()
}

// find waits until every payment that was taken has ended, and judges the run.
func (s *stage) find(c *consumer, within time.Duration, shops ...*shop) *findings {
	s.Helper()
	f := &findings{}
	begun := time.Now()
	open := map[payment.Key]string{}
	taken := 0
	for _, shop := range shops {
		for _, key := range shop.takenNow() {
			open[key] = "not read"
			taken++
		}
		for _, key := range shop.again {
			f.lost = append(f.lost, key.String()+" was taken twice as new")
		}
		s.Logf("shop %s: %d orders, %d taken, %d lines handed in again", shop.name, len(shop.orders), len(shop.taken), shop.failed)
	}
	records := map[payment.Key]*ledger.Record{}
	look := time.NewTicker(200 * time.Millisecond)
	defer look.Stop()
	for ; len(open) > 0 && time.Since(begun) < within; <-look.C {
		for key := range open {
			r, err := s.book.Read(s.Context(), key)
			switch {
			case err != nil:
				open[key] = err.Error()
				if !errors.Is(err, ledger.ErrNotFound) {
					continue // Redis is away
				}
			case r.Status == payment.Paid || r.Status == payment.NeedsReview:
				records[key] = r
				delete(open, key)
			default:
				open[key] = string(r.Status)
			}
		}
		if lost := len(slices.DeleteFunc(slices.Collect(maps.Values(open)), func(why string) bool { return !strings.Contains(why, ledger.ErrNotFound.Error()) })); lost == len(open) {
			break // none of them will ever come
		}
	}
	for key, why := range open {
		if strings.Contains(why, ledger.ErrNotFound.Error()) {
			f.lost = append(f.lost, key.String())
		} else {
			f.open = append(f.open, fmt.Sprintf("%s: %s", key, why))
		}
	}
	reviewed := 0
	for _, r := range records {
		if r.Status == payment.NeedsReview {
			reviewed++
		}
	}
	s.Logf("%d of %d ended after %s, %d of them before a person", taken-len(open), taken, time.Since(begun).Round(100*time.Millisecond), reviewed)
	s.findTwice(f)
	s.findWrong(f, records)
	c.look(s.Context(), s)
	s.findEvents(f, c, records)
	if v := s.sim.Violations(); len(v) > 0 && !s.badRequests {
		f.wrong = append(f.wrong, fmt.Sprintf("violations: %+v", v))
	}
	return f
}

// findTwice looks at the gateways: no request that moves money comes twice here, since
// the gateways never fail.
func (s *stage) findTwice(f *findings) {
	requests := map[string][]gatewaysim.Entry{}
	for _, e := range s.sim.Journal() {
		if e.Operation == gatewaysim.AMCreate || e.Operation == gatewaysim.PaydiaPayment {
			name := string(e.Operation) + " " + e.Reference
			requests[name] = append(requests[name], e)
		}
	}
	for name, sent := range requests {
		if len(sent) > 1 {
			f.twice = append(f.twice, fmt.Sprintf("%s: %d requests: %+v\n%s", name, len(sent), sent, s.told(sent[0].Reference)))
		}
	}
	for _, double := range s.sim.Summary().Duplicates {
		f.twice = append(f.twice, double+": several rows at the gateway")
	}
}

// told is what the workers have logged of a payment.
func (s *stage) told(id string) string {
	var b strings.Builder
	for _, p := range s.processes {
		for line := range strings.Lines(p.log.String()) {
			if strings.Contains(line, fmt.Sprintf("%q", id)) || strings.Contains(line, ":"+id+":") {
				fmt.Fprintf(&b, "    worker %d: %s", p.Process.Pid, line)
			}
		}
	}
	return b.String()
}

// findWrong holds the ledger against the gateways.
func (s *stage) findWrong(f *findings, records map[payment.Key]*ledger.Record) {
	rows := map[payment.Key]int{}
	for _, r := range s.sim.Rows() {
		rows[payment.Key{Gateway: payment.Gateway(r.Gateway), TransactionID: r.Reference}]++
	}
	for key, r := range records {
		if want := map[payment.Status]int{payment.Paid: 1, payment.NeedsReview: 0}[r.Status]; rows[key] != want {
			f.wrong = append(f.wrong, fmt.Sprintf("%s is %s %q, and the gateway has %d rows: %+v", key, r.Status, r.Reason, rows[key], r.Attempts))
		}
	}
}

// findEvents holds the events against the ledger by the rule of interface.md: those in
// the stream are numbered without a gap and end with where the payment stands; of those
// that a failover took out of it none but an on_processing or a needs_review is of a
// type that has not come again.
func (s *stage) findEvents(f *findings, c *consumer, records map[payment.Key]*ledger.Record) {
	charge := func(key payment.Key, format string, args ...any) {
		f.events = append(f.events, key.String()+": "+fmt.Sprintf(format, args...))
	}
	stands := map[payment.Key][]event{}
	entries, err := s.redis.XRange(s.Context(), ledger.DefaultStream, "-", "+").Result()
	if err != nil {
		s.Fatal(err)
	}
	for _, entry := range entries {
		text, _ := entry.Values[events.Field].(string)
		var e event
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			s.Fatal(err)
		}
		key := e.key()
		stands[key] = append(stands[key], e)
		if want := fmt.Sprintf("%s:%d:%s", key, len(stands[key]), e.Data.Status); e.ID != want {
			charge(key, "event %s, want %s", e.ID, want)
		}
	}
	for key, r := range records {
		told := stands[key]
		if len(told) == 0 || told[len(told)-1].Data.Status != r.Status {
			charge(key, "it is %s, and its events say %+v", r.Status, told)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	gone := 0
	for _, e := range c.heard {
		if e.Type != "terbayar.payment."+string(e.Data.Status) {
			charge(e.key(), "event %s is of type %s", e.ID, e.Type)
		}
		if slices.ContainsFunc(stands[e.key()], func(s event) bool { return s.ID == e.ID }) {
			continue
		}
		gone++
		again := slices.ContainsFunc(stands[e.key()], func(s event) bool { return s.Type == e.Type })
		if _, ended := records[e.key()]; ended && !again && e.Data.Status != payment.OnProcessing && e.Data.Status != payment.NeedsReview {
			charge(e.key(), "event %s was told and never came again", e.ID)
		}
	}
	s.Logf("%d events in the stream; %d more were told and have gone", len(entries), gone)
}

// clean demands that nothing was found.
func (f *findings) clean(t *testing.T) {
	t.Helper()
	if !f.none() {
		t.Error(f)
	}
}
