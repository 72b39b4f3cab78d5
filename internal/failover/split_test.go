package failover_test

import (
	"context"
	"sync"
	"syscall"
	"testing"
	"time"

	"terbayar/internal/redistest"
)

// TestSplitBrain: a primary is cut off with a worker and a shop on its side, and takes
// writes as before (min-replicas-to-write is not set). The other side goes on with a
// replica. Nothing may be sent on both sides, and nothing be answered enqueued that is
// gone when the sides meet again.
func TestSplitBrain(t *testing.T) {
	t.Parallel()
	g := redistest.NewReplicated(t, 2)
	primary := g.Nodes[0]
	s := newStage(t, g.URL(), repeatable)
	heard := s.listen()
	s.startReady()
	// It knows the primary by an address that still reaches it when others' do not.
	inside := s.startReady("--redis-url", primary.URL())
	shop, shopInside := s.newShop("INV", g.URL()), s.newShop("INSIDE", primary.URL())
	// A queue that is not empty for a while: both sides will want to send what is in it.
	shop.sell(t.Context(), 200, time.Millisecond)
	s.eventually("the load is on", 10*time.Second, func() bool { return s.sent() >= 20 })

	primary.Proxy.Cut()
	var sides sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	sides.Go(func() { shopInside.sell(ctx, 20, 100*time.Millisecond) })
	g.AwaitPromotion(t, primary)
	sides.Go(func() { shop.sell(t.Context(), 50, 100*time.Millisecond) })
	<-ctx.Done()
	sides.Wait()
	s.signal(inside, syscall.SIGTERM)
	primary.Proxy.Restore()
	g.AwaitReplicas(t, 2)
	s.find(heard, 60*time.Second, shop, shopInside).clean(t)
}

// TestSplitBrainWithAReplica: the same, and one of two replicas is on the side of the
// primary that is cut off. That side has a primary and a replica that acknowledges, and
// is the one that loses.
func TestSplitBrainWithAReplica(t *testing.T) {
	t.Parallel()
	g := redistest.NewReplicated(t, 2)
	primary, with, without := g.Nodes[0], g.Nodes[1], g.Nodes[2]
	s := newStage(t, g.URL(), repeatable)
	heard := s.listen()
	s.startReady()
	inside := s.startReady("--redis-url", primary.URL())
	shop, shopInside := s.newShop("INV", g.URL()), s.newShop("INSIDE", primary.URL())
	shop.sell(t.Context(), 200, time.Millisecond)
	s.eventually("the load is on", 10*time.Second, func() bool { return s.sent() >= 20 })

	with.Proxy.Cut() // so the Sentinel cannot tell it to follow the other one
	primary.Proxy.Cut(with.Proxy)
	var sides sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	sides.Go(func() { shopInside.sell(ctx, 20, 100*time.Millisecond) })
	if now := g.AwaitPromotion(t, primary); now != without {
		t.Fatalf("%s was promoted", now.Addr)
	}
	<-ctx.Done()
	sides.Wait()
	s.signal(inside, syscall.SIGTERM)
	with.Proxy.Restore()
	primary.Proxy.Restore()
	g.AwaitReplicas(t, 2)
	s.find(heard, 60*time.Second, shop, shopInside).clean(t)
}

// TestFrozenPrimary: the primary stands still for longer than it takes to be replaced,
// and then does all that it was asked meanwhile, before it learns that it is none.
func TestFrozenPrimary(t *testing.T) {
	t.Parallel()
	g := redistest.NewReplicated(t, 2)
	primary := g.Nodes[0]
	s := newStage(t, g.URL(), repeatable)
	heard := s.listen()
	killed := s.startReady()
	s.startReady()
	shop := s.newShop("INV", g.URL())
	var open sync.WaitGroup
	open.Go(func() { shop.sell(t.Context(), 200, 200*time.Millisecond) })
	defer open.Wait()
	s.eventually("the load is on", 20*time.Second, func() bool { return s.sent() >= 20 })
	primary.Pause(t)
	killed.kill()
	g.AwaitPromotion(t, primary)
	sent := s.sent()
	s.eventually("payments leave again", 20*time.Second, func() bool { return s.sent() > sent })
	primary.Resume(t)
	open.Wait()
	g.AwaitReplicas(t, 2)
	s.find(heard, 60*time.Second, shop).clean(t)
}

// TestRedisKilled: a Redis without replicas is killed, together with one worker, while
// another one is told to end; it comes back with its append-only file.
func TestRedisKilled(t *testing.T) {
	t.Parallel()
	server := redistest.Server(t)
	s := newStage(t, server.URL(), repeatable)
	heard := s.listen()
	killed, ending := s.startReady(), s.startReady()
	shop := s.newShop("INV", server.URL())
	var open sync.WaitGroup
	open.Go(func() { shop.sell(t.Context(), 200, 200*time.Millisecond) })
	defer open.Wait()
	s.eventually("the load is on", 20*time.Second, func() bool { return s.sent() >= 20 })
	var moment sync.WaitGroup
	moment.Go(killed.kill)
	moment.Go(server.Kill)
	s.signal(ending, syscall.SIGTERM)
	moment.Wait()
	s.start()
	server.Start(t)
	open.Wait()
	s.find(heard, 60*time.Second, shop).clean(t)
}
