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
	t.Parallel()
	g := redistest.NewReplicated(t, 1)
	ledgerWorks(t, g.URL())

	s := newStage(t, g.URL())
	if warnings, err := redisconn.Check(t.Context(), s.redis); err != nil {
		t.Errorf("%q, %v", warnings, err)
	}
	s.worker()

	// Payments keep coming in, before, while and after the primary is killed.
	var again int
	var shop sync.WaitGroup
	shop.Go(func() { again = s.handIn(t.Context(), 120, 300*time.Millisecond) })
	defer shop.Wait()
	s.eventually("the load is on", 10*time.Second, func() bool { return s.sent() >= 15 })
	primary := g.Nodes[0]
	primary.Kill()
	killed := time.Now()
	g.AwaitPromotion(t, primary)
	promoted := time.Since(killed)
	// Without a replica nothing is acknowledged, and so nothing is sent.
	s.eventually("what was under way has ended", 10*time.Second, func() bool { return s.submitting() == 0 })
	sent := s.sent()
	g.Rejoin(t, primary)
	rejoined := time.Now()
	s.eventually("payments leave again", 10*time.Second, func() bool { return s.sent() > sent })
	t.Logf("%s after the kill there was a new primary, %s after it had a replica payments left again",
		promoted.Round(100*time.Millisecond), time.Since(rejoined).Round(100*time.Millisecond))
	shop.Wait()

	t.Logf("Redis would not take %d payments; they were handed in again", again)
	s.nothingLost()
	s.endsWell(30 * time.Second)
}

// TestUnacknowledgedClaim: a claim that no replica acknowledges is not given, whether the
// replica lags or is gone; it leaves no trace in the payment, and no attempt is spent.
func TestUnacknowledgedClaim(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		away    func(g *redistest.Replicated)
		back    func(g *redistest.Replicated)
		refuses bool // Redis takes no writes meanwhile
	}{
		{
			name: "the replica lags",
			away: func(g *redistest.Replicated) { g.Nodes[0].Proxy.Hold(g.Nodes[1].Proxy) },
			back: func(g *redistest.Replicated) { g.Nodes[0].Proxy.Release(g.Nodes[1].Proxy) },
		},
		{
			name: "the replica is gone",
			away: func(g *redistest.Replicated) { g.Nodes[1].Kill() },
			back: func(g *redistest.Replicated) { g.Rejoin(t, g.Nodes[1]) },
		},
		{
			name: "min-replicas-to-write",
			away: func(g *redistest.Replicated) {
				client := g.Nodes[0].Client(t)
				for name, value := range map[string]string{"min-replicas-to-write": "1", "min-replicas-max-lag": "1"} {
					if err := client.ConfigSet(t.Context(), name, value).Err(); err != nil {
						t.Error(err)
					}
				}
				g.Nodes[1].Pause(t)
			},
			back:    func(g *redistest.Replicated) { g.Nodes[1].Resume(t) },
			refuses: true,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			g := redistest.NewReplicated(t, 1)
			s := newStage(t, g.URL())
			s.enter()
			row.away(g)
			if row.refuses {
				s.eventually("the primary notices", 10*time.Second, func() bool {
					return redis.HasErrorPrefix(s.redis.Set(t.Context(), "k", "v", 0).Err(), "NOREPLICAS")
				})
			}
			r, verdict, err := s.claim()
			if later := (*ledger.LaterError)(nil); !errors.As(err, &later) || r != nil || verdict == ledger.Claimed {
				t.Errorf("claim: %s, %+v, %v", verdict, r, err)
			}
			s.eventually("it was released", 20*time.Second, func() bool { return s.read(aPayment).Status == payment.Queued })
			if r := s.read(aPayment); len(r.Attempts) != 0 {
				t.Errorf("%+v", r)
			}
			row.back(g)
			s.eventually("it can be claimed", 20*time.Second, func() bool {
				_, verdict, err := s.claim()
				return err == nil && verdict == ledger.Claimed
			})
			if r := s.read(aPayment); r.Status != payment.Submitting || len(r.Attempts) != 1 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// submitting counts the payments that are claimed now.
func (s *stage) submitting() (n int64) {
	s.Helper()
	for _, g := range payment.Gateways() {
		v, err := s.redis.HGet(s.Context(), "{terbayar:events}:counts:"+string(g), "submitting").Int64()
		if err != nil && !errors.Is(err, redis.Nil) && !strings.Contains(err.Error(), "closed") {
			return -1 // Redis is away
		}
		n += v
	}
	return n
}
