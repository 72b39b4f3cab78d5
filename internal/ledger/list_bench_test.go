package ledger_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/events"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
)

// BenchmarkList lists pages of 100 of 200,000 payments: 100,000 queued, 50,000 in on_processing,
// 50,000 paid, of which 20 in needs_review. Redis' CPU and commands are per page.
//
//	go test ./internal/ledger -run - -bench List
func BenchmarkList(b *testing.B) {
	client := redistest.Server(b, "--appendfsync", "no").Client(b)
	l := newLedger(client, time.Now)
	const n, batch = 200_000, 500
	for from := 0; from < n; from += batch {
		entries := make([]ledger.NewPayment, batch)
		for i := range entries {
			entries[i] = entryWithoutExpiry(payment.Key{Gateway: payment.AMDigiPay, TransactionID: fmt.Sprint("INV-2026-", from+i)})
		}
		for _, r := range l.Create(b.Context(), entries) {
			if r.Err != nil {
				b.Fatal(r.Err)
			}
		}
		if from < n/2 {
			continue
		}
		records := make([]*ledger.Record, batch)
		for i, e := range entries {
			r, _, err := l.Claim(b.Context(), e.Key, ledger.Claim{Attempt: payment.Attempt{At: time.Now(), Kind: payment.KindSubmit}, Lease: lease, Timeout: timeout})
			if err != nil {
				b.Fatal(err)
			}
			r.Status, r.Due = payment.OnProcessing, ledger.In(time.Hour)
			switch {
			case from+i >= n-20:
				r.Status = payment.NeedsReview
			case i%2 == 0:
				r.Status = payment.Paid
			}
			records[i] = r
		}
		for _, err := range l.SaveAll(b.Context(), records) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	used := func() (cpu float64, commands int64) {
		info := client.Info(b.Context(), "cpu", "stats").Val()
		for _, line := range strings.Split(info, "\r\n") {
			var f float64
			if c, _ := fmt.Sscanf(line, "used_cpu_user:%f", &f); c == 1 {
				cpu += f
			}
			if c, _ := fmt.Sscanf(line, "used_cpu_sys:%f", &f); c == 1 {
				cpu += f
			}
			_, _ = fmt.Sscanf(line, "total_commands_processed:%d", &commands)
		}
		return cpu, commands
	}
	for _, status := range []payment.Status{payment.Queued, payment.Submitting, payment.OnProcessing, payment.NeedsReview, payment.Paid, payment.Failed, ""} {
		b.Run("status="+string(status), func(b *testing.B) { benchmarkPages(b, l, client, status, used) })
	}
}

func benchmarkPages(b *testing.B, l *ledger.Ledger, client redis.UniversalClient, status payment.Status, used func() (float64, int64)) {
	q := ledger.ListQuery{Status: status, Limit: 100, Streams: events.NewStreams(client, []string{ledger.DefaultStream})}
	cpu, commands := used()
	listed := 0
	for b.Loop() {
		page, err := l.List(b.Context(), q)
		if err != nil {
			b.Fatal(err)
		}
		listed += len(page.Records)
		q.After = page.Next
	}
	cpuAfter, commandsAfter := used()
	b.ReportMetric((cpuAfter-cpu)*1000/float64(b.N), "redis-ms/page")
	b.ReportMetric(float64(commandsAfter-commands)/float64(b.N), "commands/page")
	b.ReportMetric(float64(listed)/float64(b.N), "payments/page")
}
