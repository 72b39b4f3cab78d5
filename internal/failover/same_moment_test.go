package failover_test

import (
	"sync"
	"syscall"
	"testing"
	"time"

	"terbayar/internal/ledger"
	"terbayar/internal/redistest"
	"terbayar/internal/testenv/verify"
)

// lagging is a Redis with a replica that the test makes lag and then promotes.
type lagging struct {
	url     string
	hold    func() // from now on the replica receives nothing
	promote func() // promotes that replica, and returns when replication works again
}

// laggingReplica returns a Redis with a Sentinel. Its last replica lags and is promoted, with
// the primary killed or alive.
func laggingReplica(t *testing.T, replicas int, kill bool) *lagging {
	t.Helper()
	g := redistest.NewReplicated(t, replicas)
	primary, late := g.Nodes[0], g.Nodes[replicas]
	if replicas > 1 {
		g.Prefer(t, late)
	}
	return &lagging{
		url:  g.URL(),
		hold: func() { primary.Proxy.Hold(late.Proxy) },
		promote: func() {
			if kill {
				primary.Kill()
			} else if err := g.Failover(t.Context()); err != nil {
				t.Error(err)
			}
			if now := g.AwaitPromotion(t, primary); now != late {
				t.Errorf("%s was promoted, not the replica that lags", now.Addr)
			}
			primary.Proxy.Drop(late.Proxy)
			if kill {
				g.Rejoin(t, primary)
			}
			g.AwaitReplicas(t, replicas)
		},
	}
}

// laggingCluster returns a Cluster. The replica of the ledger's primary lags and takes over.
func laggingCluster(t *testing.T) *lagging {
	t.Helper()
	c := redistest.NewReplicatedCluster(t)
	primary, late := c.Pair(t, ledger.DefaultStream)
	return &lagging{
		url:  c.URL(),
		hold: func() { primary.Proxy.Hold(late.Proxy) },
		promote: func() {
			if err := c.TakeOver(t.Context(), late); err != nil {
				t.Error(err)
			}
			c.AwaitHolder(t, ledger.DefaultStream, late)
			primary.Proxy.Drop(late.Proxy)
			c.Pair(t, ledger.DefaultStream)
		},
	}
}

// TestSameMoment: under load, while a replica lags, one worker is killed, another one shuts
// down, and the replica is promoted, all at once.
func TestSameMoment(t *testing.T) {
	slow(t)
	for _, row := range []struct {
		name   string
		create func(t *testing.T) *lagging
	}{
		{"Sentinel, one replica, the primary killed", func(t *testing.T) *lagging { return laggingReplica(t, 1, true) }},
		{"Sentinel, one replica, the primary alive", func(t *testing.T) *lagging { return laggingReplica(t, 1, false) }},
		{"Sentinel, two replicas, the primary killed", func(t *testing.T) *lagging { return laggingReplica(t, 2, true) }},
		{"Sentinel, two replicas, the primary alive", func(t *testing.T) *lagging { return laggingReplica(t, 2, false) }},
		{"Cluster", laggingCluster},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			e, report := row.create(t).sameMoment(t)
			e.RequireClean(report)
		})
	}
}

// sameMoment is one run of TestSameMoment.
func (l *lagging) sameMoment(t *testing.T, settings ...string) (*env, *verify.Report) {
	t.Helper()
	e := newEnv(t, l.url)
	e.failover = true
	killed, stopped := e.Worker(settings...), e.Worker(settings...)
	orders := e.NewOrderSystem(settings...)
	var submitting sync.WaitGroup
	submitting.Go(func() { orders.SubmitSlowly(t.Context(), invoices(200), 200*time.Millisecond) })
	defer submitting.Wait()
	e.awaitLoad(20)
	l.hold()
	lag := time.NewTimer(700 * time.Millisecond) // long enough to claim and send, if nothing waits for the replica
	<-lag.C
	var moment sync.WaitGroup
	moment.Go(killed.Kill)
	stopped.Signal(syscall.SIGTERM)
	e.StartWorker(settings...)
	e.StartWorker(settings...)
	l.promote()
	moment.Wait()
	submitting.Wait()
	return e, e.verify(orders)
}

// TestTooFewReplicas shows that these tests find a loss. With REDIS_WAIT_REPLICAS smaller than
// the number of replicas, the replica that is promoted lacks writes that the other replica has
// acknowledged.
func TestTooFewReplicas(t *testing.T) {
	slow(t)
	for range 4 { // on a busy machine little may be acknowledged while the replica lags
		_, report := laggingReplica(t, 2, false).sameMoment(t, "REDIS_WAIT_REPLICAS=1")
		t.Logf("with one of two replicas: %s", report.Summary())
		if report.Count(verify.Lost)+report.Count(verify.DuplicateCharge) > 0 {
			return
		}
	}
	t.Error("nothing was lost or sent twice: these tests could not find it if something were")
}
