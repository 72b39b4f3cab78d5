package failover_test

import (
	"sync"
	"syscall"
	"testing"
	"time"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/ledger"
	"terbayar/internal/redistest"
)

// repeatable lets AM take a repeated request as a second payment: what is sent twice
// the customer can pay twice.
func repeatable(cfg *gatewaysim.Config) { cfg.AM.Duplicates = gatewaysim.DuplicateSecond }

// replicated is a Redis of which a replica can be made to lag, and then be promoted.
type replicated struct {
	url      string
	hold     func() // from now on the replica that will be promoted hears nothing
	failover func() // and now it is promoted; when this returns, replication is well again
}

// ofGroup is a group whose last replica is the one that lags and is promoted: with the
// primary killed, or well and told to go.
func ofGroup(t *testing.T, replicas int, kill bool) *replicated {
	t.Helper()
	g := redistest.NewReplicated(t, replicas)
	primary, late := g.Nodes[0], g.Nodes[replicas]
	if replicas > 1 {
		late.Prefer(t, true)
	}
	return &replicated{
		url:  g.URL(),
		hold: func() { primary.Proxy.Hold(late.Proxy) },
		failover: func() {
			if kill {
				primary.Kill()
			} else if err := g.Failover(t.Context()); err != nil {
				t.Error(err)
			}
			if now := g.AwaitPromotion(t, primary); now != late {
				t.Errorf("%s was promoted, not the one that lags", now.Addr)
			}
			primary.Proxy.Drop(late.Proxy)
			if kill {
				g.Rejoin(t, primary)
			}
			g.AwaitReplicas(t, replicas)
		},
	}
}

// ofShards is a Cluster in which the replica of the ledger's primary lags and takes over.
func ofShards(t *testing.T) *replicated {
	t.Helper()
	c := redistest.NewReplicatedCluster(t)
	primary, late := c.Pair(t, ledger.DefaultStream)
	return &replicated{
		url:  c.URL(),
		hold: func() { primary.Proxy.Hold(late.Proxy) },
		failover: func() {
			if err := c.TakeOver(t.Context(), late); err != nil {
				t.Error(err)
			}
			c.AwaitHolder(t, ledger.DefaultStream, late)
			primary.Proxy.Drop(late.Proxy)
			c.Pair(t, ledger.DefaultStream)
		},
	}
}

// TestTheSameMoment: under load, while a replica lags, one worker is killed, another one
// told to end, and the replica that lags promoted, all at once.
func TestTheSameMoment(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		make func(t *testing.T) *replicated
	}{
		{"Sentinel, one replica, the primary killed", func(t *testing.T) *replicated { return ofGroup(t, 1, true) }},
		{"Sentinel, one replica, the primary alive", func(t *testing.T) *replicated { return ofGroup(t, 1, false) }},
		{"Sentinel, two replicas, the primary killed", func(t *testing.T) *replicated { return ofGroup(t, 2, true) }},
		{"Sentinel, two replicas, the primary alive", func(t *testing.T) *replicated { return ofGroup(t, 2, false) }},
		{"Cluster", ofShards},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			row.make(t).theSameMoment(t).clean(t)
		})
	}
}

// theSameMoment is one run of TestTheSameMoment.
func (r *replicated) theSameMoment(t *testing.T, env ...string) *findings {
	t.Helper()
	s := newStage(t, r.url, repeatable)
	s.env = env
	killed, ending := s.startReady(), s.startReady()
	heard := s.listen()
	shop := s.newShop("INV", r.url)
	var open sync.WaitGroup
	open.Go(func() { shop.sell(t.Context(), 200, 200*time.Millisecond) })
	defer open.Wait()
	s.eventually("the load is on", 20*time.Second, func() bool { return s.sent() >= 20 })
	r.hold()
	lag := time.NewTimer(700 * time.Millisecond) // long enough for claims to be made and sent, if nobody waits
	<-lag.C
	var moment sync.WaitGroup
	moment.Go(killed.kill)
	s.signal(ending, syscall.SIGTERM)
	s.start()
	s.start()
	r.failover()
	moment.Wait()
	open.Wait()
	return s.find(heard, 60*time.Second, shop)
}

// TestTooFewReplicas shows what REDIS_WAIT_REPLICAS below the number of replicas that
// may be promoted leaves open, and that these tests see a loss: the replica that lags is
// promoted without what the other one has acknowledged.
func TestTooFewReplicas(t *testing.T) {
	t.Parallel()
	for range 4 { // on a busy machine little may be acknowledged while the replica lags
		f := ofGroup(t, 2, false).theSameMoment(t, "REDIS_WAIT_REPLICAS=1")
		t.Logf("with one of two replicas: %d lost that were acknowledged, %d sent twice", len(f.lost), len(f.twice))
		if len(f.lost)+len(f.twice) > 0 {
			return
		}
	}
	t.Error("nothing was lost or sent twice: these tests could not see it if something were")
}
