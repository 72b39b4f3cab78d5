package durable_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/durable"
	"terbayar/internal/redistest"
)

// BenchmarkDo compares an acknowledged write (auto) with one that waits for nothing (none).
// Both take one round trip to the same Redis, which calls fsync before every reply.
func BenchmarkDo(b *testing.B) {
	run := func(b *testing.B, client redis.UniversalClient, mode durable.Mode) {
		w := newWriter(client, mode, durable.EveryReplica, time.Second)
		trips := redistest.CountRoundTrips(client)
		if _, err := w.Do(b.Context(), call("1")); err != nil {
			b.Fatal(err)
		}
		before := trips.N()
		for b.Loop() {
			if _, err := w.Do(b.Context(), call("1")); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(trips.N()-before)/float64(b.N), "trips/op")
	}
	b.Run("no replica", func(b *testing.B) {
		client := redistest.Server(b).Client(b)
		b.Run("none", func(b *testing.B) { run(b, client, durable.None) })
		b.Run("auto", func(b *testing.B) { run(b, client, durable.Auto) })
	})
	for _, replicas := range []int{1, 2} {
		b.Run(fmt.Sprintf("%d replicas", replicas), func(b *testing.B) {
			client := redistest.NewReplicated(b, replicas).Nodes[0].Client(b)
			b.Run("none", func(b *testing.B) { run(b, client, durable.None) })
			b.Run("auto", func(b *testing.B) { run(b, client, durable.Auto) })
		})
	}
}
