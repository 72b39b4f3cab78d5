package failover_test

import (
	"context"
	"sync"
	"syscall"
	"testing"
	"time"

	"terbayar/internal/redistest"
	"terbayar/internal/testenv/programs"
)

// partitioned is how long a primary is cut off with a worker and an order system on its side.
const partitioned = 8 * time.Second

// TestSplitBrain: a primary is cut off with a worker and an order system on its side, and
// still accepts writes (min-replicas-to-write is not set). On the other side a replica is
// promoted. Nothing may be sent on both sides, and no acknowledged payment may be lost when
// the partition ends.
func TestSplitBrain(t *testing.T) {
	slow(t)
	g := redistest.NewReplicated(t, 2)
	primary := g.Nodes[0]
	e := newEnv(t, g.URL())
	e.failover = true
	e.Worker()
	// It connects to the primary without the proxy, so the partition does not cut it off.
	isolated := e.Worker("REDIS_URL=" + primary.URL())
	orders, isolatedOrders := e.NewOrderSystem(), e.NewOrderSystem("REDIS_URL="+primary.URL())
	// The queue is not empty for a while: both sides try to send what is in it.
	all := invoices(250)
	orders.Submit(t.Context(), all[:200])
	e.awaitLoad(20)

	primary.Proxy.Cut()
	var sides sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), partitioned)
	defer cancel()
	sides.Go(func() {
		isolatedOrders.SubmitSlowly(ctx, programs.NewPayments("ISOLATED", 20, 24*time.Hour), 100*time.Millisecond)
	})
	g.AwaitPromotion(t, primary)
	sides.Go(func() { orders.SubmitSlowly(t.Context(), all[200:], 100*time.Millisecond) })
	<-ctx.Done()
	sides.Wait()
	isolated.Signal(syscall.SIGTERM)
	primary.Proxy.Restore()
	g.AwaitReplicas(t, 2)
	e.requireClean(orders, isolatedOrders)
}

// TestSplitBrainWithAReplica: the same with one of two replicas on the side of the primary
// that is cut off. That side has a primary and a replica that acknowledges, and its writes
// are lost when the partition ends.
func TestSplitBrainWithAReplica(t *testing.T) {
	slow(t)
	g := redistest.NewReplicated(t, 2)
	primary, isolatedReplica, other := g.Nodes[0], g.Nodes[1], g.Nodes[2]
	e := newEnv(t, g.URL())
	e.failover = true
	e.Worker()
	isolated := e.Worker("REDIS_URL=" + primary.URL())
	orders, isolatedOrders := e.NewOrderSystem(), e.NewOrderSystem("REDIS_URL="+primary.URL())
	orders.Submit(t.Context(), invoices(200))
	e.awaitLoad(20)

	isolatedReplica.Proxy.Cut() // so the Sentinel cannot make it follow the new primary
	primary.Proxy.Cut(isolatedReplica.Proxy)
	var sides sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), partitioned)
	defer cancel()
	sides.Go(func() {
		isolatedOrders.SubmitSlowly(ctx, programs.NewPayments("ISOLATED", 20, 24*time.Hour), 100*time.Millisecond)
	})
	if now := g.AwaitPromotion(t, primary); now != other {
		t.Fatalf("%s was promoted", now.Addr)
	}
	<-ctx.Done()
	sides.Wait()
	isolated.Signal(syscall.SIGTERM)
	isolatedReplica.Proxy.Restore()
	primary.Proxy.Restore()
	g.AwaitReplicas(t, 2)
	e.requireClean(orders, isolatedOrders)
}

// TestFrozenPrimary: the primary is frozen until a replica is promoted, and then executes
// all commands that it received meanwhile, before the Sentinel demotes it.
func TestFrozenPrimary(t *testing.T) {
	slow(t)
	g := redistest.NewReplicated(t, 2)
	primary := g.Nodes[0]
	e := newEnv(t, g.URL())
	e.failover = true
	killed := e.Worker()
	e.Worker()
	orders := e.NewOrderSystem()
	var submitting sync.WaitGroup
	submitting.Go(func() { orders.SubmitSlowly(t.Context(), invoices(200), 200*time.Millisecond) })
	defer submitting.Wait()
	e.awaitLoad(20)
	primary.Pause(t)
	killed.Kill()
	g.AwaitPromotion(t, primary)
	e.awaitSends()
	primary.Resume(t)
	submitting.Wait()
	g.AwaitReplicas(t, 2)
	e.requireClean(orders)
}

// TestRedisKilled: a Redis without replicas is killed together with one worker while another
// worker shuts down. Redis is restarted with its append-only file.
func TestRedisKilled(t *testing.T) {
	slow(t)
	server := redistest.Server(t)
	e := newEnv(t, server.URL())
	killed, stopped := e.Worker(), e.Worker()
	orders := e.NewOrderSystem()
	var submitting sync.WaitGroup
	submitting.Go(func() { orders.SubmitSlowly(t.Context(), invoices(200), 200*time.Millisecond) })
	defer submitting.Wait()
	e.awaitLoad(20)
	var kills sync.WaitGroup
	kills.Go(killed.Kill)
	kills.Go(server.Kill)
	stopped.Signal(syscall.SIGTERM)
	kills.Wait()
	e.StartWorker()
	server.Start(t)
	submitting.Wait()
	e.requireClean(orders)
}
