package programs

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"terbayar/internal/archive"
	"terbayar/internal/gatewaysim"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/retention"
	"terbayar/internal/testenv/verify"
)

// missingFor limits how long AwaitEnd waits if none of the payments that have not ended is in
// the ledger.
const missingFor = 5 * time.Second

// AwaitEnd waits until every payment has ended as expected, or in manual review where that
// is allowed. It returns how many have not within the given time. A payment that was not
// acknowledged may be missing in the ledger.
func (e *Env) AwaitEnd(payments []verify.Payment, within time.Duration) (open int) {
	e.Helper()
	begun := time.Now()
	lastSeen := begun // when a payment that has not ended was last found in the ledger
	logAfter := 5 * time.Second
	poll := time.NewTicker(200 * time.Millisecond)
	defer poll.Stop()
	for {
		rows := verify.RowsByPayment(e.Sim.Rows())
		var left []verify.Payment
		for _, p := range payments {
			r, err := e.Read(p.Key)
			missing := errors.Is(err, ledger.ErrNotFound)
			if err == nil && p.Settled(r, rows[p.Key]) || missing && !p.Acknowledged {
				continue
			}
			if !missing {
				lastSeen = time.Now() // or Redis is down
			}
			left = append(left, p)
		}
		payments = left
		took := time.Since(begun)
		done := len(left) == 0 || took > within || time.Since(lastSeen) > missingFor || e.Context().Err() != nil
		if done || took > logAfter {
			logAfter += 5 * time.Second
			var some []string
			for _, p := range left[:min(3, len(left))] {
				some = append(some, p.Key.String())
			}
			e.Logf("%d payments have not ended after %s %v", len(left), took.Round(100*time.Millisecond), some)
		}
		if done {
			return len(left)
		}
		<-poll.C
	}
}

// Read returns a payment. If its tombstone is all that the ledger has, the payment is read from
// ARCHIVE_DIR, where that is set.
func (e *Env) Read(key payment.Key) (*payment.Payment, error) {
	r, err := e.Ledger.Read(e.Context(), key)
	if dir := e.Settings["ARCHIVE_DIR"]; err == nil && r.Tombstone && dir != "" {
		r, err = retention.Find(dir, archive.DayOf(r.ArchivedOn), key)
	}
	if err != nil {
		return nil, err
	}
	return &r.Payment, nil
}

// Collect returns what is known about the run of these payments. The consumer may be nil.
func (e *Env) Collect(payments []verify.Payment, consumer *EventConsumer) *verify.Run {
	e.Helper()
	run := &verify.Run{
		Payments: payments, Records: map[payment.Key]*payment.Payment{}, NoConsumer: consumer == nil,
		Rows: e.Sim.Rows(), Journal: e.Sim.Journal(), Violations: e.Sim.Violations(), Crashed: e.Crashed(),
	}
	run.Stream = e.Stream()
	if consumer != nil {
		run.Received = consumer.Received(run.Stream)
	}
	for _, p := range payments {
		switch r, err := e.Read(p.Key); {
		case err == nil:
			run.Records[p.Key] = r
		case !errors.Is(err, ledger.ErrNotFound):
			e.Fatal(err)
		}
	}
	return run
}

// RequireClean fails the test if the verifier has found anything.
func (e *Env) RequireClean(report *verify.Report) {
	e.Helper()
	if report.Clean() {
		return
	}
	e.Errorf("%s\n%s", report.Summary(), report)
	for _, f := range report.Findings[:min(3, len(report.Findings))] {
		e.Logf("%s", e.LogsOf(f.Key))
	}
}

// LogsOf returns what the workers have logged about a payment.
func (e *Env) LogsOf(key payment.Key) string {
	var b strings.Builder
	for _, p := range e.Workers() {
		for line := range strings.Lines(p.Stderr.String()) {
			if strings.Contains(line, fmt.Sprintf("%q", key.TransactionID)) || strings.Contains(line, ":"+key.TransactionID+":") {
				fmt.Fprintf(&b, "%s: %s", p.Name, line)
			}
		}
	}
	return b.String()
}

// Sent returns the number of requests that move money.
func (e *Env) Sent() int {
	return e.Sim.Requests(gatewaysim.AMCreate) + e.Sim.Requests(gatewaysim.PaydiaPayment)
}
