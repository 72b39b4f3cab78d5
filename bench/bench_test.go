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

// entries are n payments, the first of them the given one.
func entries(first, n int) []ledger.NewPayment {
	all := make([]ledger.NewPayment, n)
	for i := range all {
		content := body(first + i)
		all[i] = ledger.NewPayment{Key: key(first + i), Amount: 13000, Order: content, Digest: order.Digest(content)}
	}
	return all
}

func onServer(b *testing.B) *ledger.Ledger {
	b.Helper()
	return newLedger(redistest.Server(b).Client(b), time.Now)
}

func create(b *testing.B, book *ledger.Ledger, first, n int) {
	b.Helper()
	for _, r := range book.Create(b.Context(), entries(first, n)) {
		if r.Creation != ledger.Created {
			b.Fatalf("%+v", r)
		}
	}
}

// BenchmarkCreate writes payments down, one or a batch in a round trip; their
// making is in the figures.
func BenchmarkCreate(b *testing.B) {
	for _, n := range []int{1, intake.Batch} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			book := onServer(b)
			b.ReportAllocs()
			first := 0
			for b.Loop() {
				create(b, book, first, n)
				first += n
			}
			b.ReportMetric(float64(first)/b.Elapsed().Seconds(), "payments/s")
		})
	}
}

// BenchmarkClaimSave is what the ledger takes of a payment's submit: two round
// trips to a real Redis, one after the other.
func BenchmarkClaimSave(b *testing.B) {
	book := onServer(b)
	for first := 0; first < b.N; first += 1000 {
		create(b, book, first, min(1000, b.N-first))
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N { // not b.Loop: as many payments must be there before
		r, verdict, err := book.Claim(b.Context(), key(i), ledger.Claim{
			Attempt: payment.Attempt{At: time.Now(), Kind: payment.KindSubmit}, Lease: time.Minute, Timeout: 5 * time.Second,
		})
		if err != nil || verdict != ledger.Claimed {
			b.Fatal(verdict, err)
		}
		attempt := r.Attempts[0]
		attempt.Code, attempt.Action = "http:200", "accept"
		r.Status, r.Due = payment.OnProcessing, ledger.In(time.Minute)
		r.FinishAttempt(attempt)
		if err := book.Save(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSubmit is a whole submit, from the task to the recorded outcome: real
// Redis, real sockets. The simulated gateway is in the same process, so its
// examining of every request is in the figures too.
func BenchmarkSubmit(b *testing.B) {
	for name, write := range map[string]func(id string) []byte{"amdigipay": testenv.AMOrder, "paydia": testenv.PaydiaOrder} {
		b.Run(name, func(b *testing.B) {
			r := testenv.New(b, redistest.Server(b).Client(b), func(c *gatewaysim.Config) {
				c.AM.Duplicates = gatewaysim.DuplicateSecond // looks for no duplicate among all rows
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
