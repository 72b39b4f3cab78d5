package failover_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redisconn"
	"terbayar/internal/redistest"
)

func TestSentinel(t *testing.T) {
	slow(t)
	g := redistest.NewReplicated(t, 1)
	e := newEnv(t, g.URL())
	e.failover = true
	if warnings, err := redisconn.Check(t.Context(), e.Redis); err != nil {
		t.Errorf("%q, %v", warnings, err)
	}
	e.Worker()

	orders := e.NewOrderSystem()
	var submitting sync.WaitGroup
	submitting.Go(func() { orders.SubmitSlowly(t.Context(), invoices(120), 300*time.Millisecond) })
	defer submitting.Wait()
	e.awaitLoad(15)
	primary := g.Nodes[0]
	primary.Kill()
	killed := time.Now()
	g.AwaitPromotion(t, primary)
	promoted := time.Since(killed)
	// Without a replica nothing is acknowledged, and so nothing is sent.
	e.Eventually("the requests in flight have ended", func() bool { return e.submitting() == 0 })
	sent := e.Sent()
	g.Rejoin(t, primary)
	rejoined := time.Now()
	e.Eventually("payments are sent again", func() bool { return e.Sent() > sent })
	t.Logf("%s after the kill there was a new primary, %s after it had a replica payments were sent again",
		promoted.Round(100*time.Millisecond), time.Since(rejoined).Round(100*time.Millisecond))
	submitting.Wait()
	orders.Resubmit(t.Context())
	e.requireClean(orders)
	e.requirePaid(orders)
	e.checkLedger()
}

// TestUnacknowledgedClaim: a claim that no replica acknowledges fails, whether the replica
// lags or is down. It is released, and no attempt is spent.
func TestUnacknowledgedClaim(t *testing.T) {
	slow(t)
	for _, row := range []struct {
		name    string
		fail    func(g *redistest.Replicated)
		recover func(g *redistest.Replicated)
		refuses bool // Redis refuses writes meanwhile
	}{
		{
			name:    "the replica lags",
			fail:    func(g *redistest.Replicated) { g.Nodes[0].Proxy.Hold(g.Nodes[1].Proxy) },
			recover: func(g *redistest.Replicated) { g.Nodes[0].Proxy.Release(g.Nodes[1].Proxy) },
		},
		{
			name:    "the replica is down",
			fail:    func(g *redistest.Replicated) { g.Nodes[1].Kill() },
			recover: func(g *redistest.Replicated) { g.Rejoin(t, g.Nodes[1]) },
		},
		{
			name: "min-replicas-to-write",
			fail: func(g *redistest.Replicated) {
				client := g.Nodes[0].Client(t)
				for name, value := range map[string]string{"min-replicas-to-write": "1", "min-replicas-max-lag": "1"} {
					if err := client.ConfigSet(t.Context(), name, value).Err(); err != nil {
						t.Error(err)
					}
				}
				g.Nodes[1].Pause(t)
			},
			recover: func(g *redistest.Replicated) { g.Nodes[1].Resume(t) },
			refuses: true,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			g := redistest.NewReplicated(t, 1)
			e := newEnv(t, g.URL())
			l := e.openLedger()
			e.createWithoutTask(l)
			row.fail(g)
			if row.refuses {
				e.Eventually("the primary refuses writes", func() bool {
					return redis.HasErrorPrefix(e.Redis.Set(t.Context(), "k", "v", 0).Err(), "NOREPLICAS")
				})
			}
			r, result, err := e.claim(l)
			if later := (*ledger.LaterError)(nil); !errors.As(err, &later) || r != nil || result == ledger.Claimed {
				t.Errorf("claim: %s, %+v, %v", result, r, err)
			}
			e.Eventually("the claim was released", func() bool { return e.read(withoutTask).Status == payment.Queued })
			if r := e.read(withoutTask); len(r.Attempts) != 0 {
				t.Errorf("%+v", r)
			}
			row.recover(g)
			e.Eventually("it can be claimed", func() bool {
				_, result, err := e.claim(l)
				return err == nil && result == ledger.Claimed
			})
			if r := e.read(withoutTask); r.Status != payment.Submitting || len(r.Attempts) != 1 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// submitting returns the number of payments that are claimed; -1 while Redis is down.
func (e *env) submitting() (n int64) {
	e.Helper()
	for _, g := range payment.Gateways() {
		stats, err := e.Ledger.Stats(e.Context(), g)
		if err != nil && !strings.Contains(err.Error(), "closed") {
			return -1
		}
		n += stats.Counts[payment.Submitting]
	}
	return n
}
