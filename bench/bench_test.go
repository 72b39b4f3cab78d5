package main

import (
	"fmt"
	"testing"
	"time"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/intake"
	"terbayar/internal/ledger"
	"terbayar/internal/order"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/testenv"
)

func BenchmarkParse(b *testing.B) {
	for name, doc := range map[string][]byte{"amdigipay": testenv.AMOrder("INV-1"), "paydia": testenv.PaydiaOrder("ORD-1")} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(doc)))
			for b.Loop() {
				if _, err := order.Parse(doc, time.Unix(0, 0), order.Defaults{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func key(i int) payment.Key {
	return payment.Key{Gateway: payment.AMDigiPay, TransactionID: reference(i)}
}

// newPayments returns n payments with numbers from first on.
func newPayments(first, n int) []ledger.NewPayment {
	all := make([]ledger.NewPayment, n)
	for i := range all {
		content := body(first + i)
		all[i] = ledger.NewPayment{Key: key(first + i), Amount: 13000, Order: content, Digest: order.Digest(content)}
	}
	return all
}

func onServer(b *testing.B) *ledger.Ledger {
	b.Helper()
	return testenv.NewLedger(redistest.Server(b).Client(b), time.Now)
}

func create(b *testing.B, l *ledger.Ledger, first, n int) {
	b.Helper()
	for _, r := range l.Create(b.Context(), newPayments(first, n)) {
		if r.Creation != ledger.Created {
			b.Fatalf("%+v", r)
		}
	}
}

// BenchmarkCreate creates records, one or a batch in a round trip. It includes generating the
// payments.
func BenchmarkCreate(b *testing.B) {
	for _, n := range []int{1, intake.Batch} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			l := onServer(b)
			b.ReportAllocs()
			first := 0
			for b.Loop() {
				create(b, l, first, n)
				first += n
			}
			b.ReportMetric(float64(first)/b.Elapsed().Seconds(), "payments/s")
		})
	}
}

// BenchmarkClaimSave is the ledger's part of a submit: two round trips to a real Redis, one
// after the other.
func BenchmarkClaimSave(b *testing.B) {
	l := onServer(b)
	for first := 0; first < b.N; first += 1000 {
		create(b, l, first, min(1000, b.N-first))
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N { // not b.Loop: the payments must exist before
		r, result, err := l.Claim(b.Context(), key(i), ledger.Claim{
			Attempt: payment.Attempt{At: time.Now(), Kind: payment.KindSubmit}, Lease: time.Minute, Timeout: 5 * time.Second,
		})
		if err != nil || result != ledger.Claimed {
			b.Fatal(result, err)
		}
		attempt := r.Attempts[0]
		attempt.Code, attempt.Action = "http:200", "accept"
		r.Status, r.Due = payment.OnProcessing, ledger.In(time.Minute)
		r.FinishAttempt(attempt)
		if err := l.Save(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSubmit is a whole submit, from the task to the recorded outcome, with a real Redis
// and real sockets. It includes the simulated gateway, which is in the same process.
func BenchmarkSubmit(b *testing.B) {
	for name, write := range map[string]func(id string) []byte{"amdigipay": testenv.AMOrder, "paydia": testenv.PaydiaOrder} {
		b.Run(name, func(b *testing.B) {
			r := testenv.New(b, redistest.Server(b).Client(b), func(c *gatewaysim.Config) {
				c.AM.Duplicates = gatewaysim.DuplicateSecond // it does not search all rows for a duplicate
			})
			keys := make([]payment.Key, b.N)
			for i := range keys {
				keys[i] = payment.Key{Gateway: payment.Gateway(name), TransactionID: fmt.Sprint("B-", i)}
				r.Create(write(keys[i].TransactionID))
			}
			b.ReportAllocs()
			b.ResetTimer()
			for _, key := range keys {
				r.Submit(key)
			}
			b.StopTimer()
			if v := r.Sim.Violations(); len(v) > 0 {
				b.Fatal(v[0])
			}
		})
	}
}
