package redistest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// slow skips a test in short mode, and lets it run beside others.
func slow(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts several Redis servers; scripts/test --all runs it")
	}
	t.Parallel()
}

// TestReplicated: a replica that is held lags although it is connected, and is promoted
// without the writes that were held back.
func TestReplicated(t *testing.T) {
	slow(t)
	g := NewReplicated(t, 2)
	primary, held, other := g.Nodes[0], g.Nodes[1], g.Nodes[2]
	g.Prefer(t, held)
	client := primary.Client(t)
	ctx := t.Context()
	set := func(key string) {
		t.Helper()
		if err := client.Set(ctx, key, "v", 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	set("before")
	await(t, "both have it", func(ctx context.Context) bool {
		return held.Client(t).Exists(ctx, "before").Val()+other.Client(t).Exists(ctx, "before").Val() == 2
	})
	primary.Proxy.Hold(held.Proxy)
	set("held back")
	await(t, "the other replica has it", func(ctx context.Context) bool {
		return other.Client(t).Exists(ctx, "held back").Val() == 1
	})
	if info := primary.replication(ctx); !strings.Contains(info, "connected_slaves:2") {
		t.Error(info)
	}
	if err := g.Failover(ctx); err != nil {
		t.Fatal(err)
	}
	if now := g.AwaitPromotion(t, primary); now != held {
		t.Fatalf("%s was promoted", now.Addr)
	}
	if n := held.Client(t).Exists(ctx, "before", "held back").Val(); n != 1 {
		t.Errorf("%d of 2 keys exist", n)
	}
	primary.Proxy.Drop(held.Proxy)
	g.AwaitReplicas(t, 2)

	// A primary that is cut off is replaced, and still accepts writes at its own address.
	held.Proxy.Cut()
	g.AwaitPromotion(t, held)
	if err := held.Client(t).Set(ctx, "alone", "v", 0).Err(); err != nil {
		t.Error(err)
	}
	held.Proxy.Restore()
	g.AwaitReplicas(t, 2)
}

// TestReplicatedCluster: the same in a Cluster.
func TestReplicatedCluster(t *testing.T) {
	slow(t)
	c := NewReplicatedCluster(t)
	ctx := t.Context()
	primary, replica := c.Pair(t, "k")
	primary.Proxy.Hold(replica.Proxy)
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: strings.Split(strings.TrimPrefix(c.URL(), "redis-cluster://"), ",")})
	defer client.Close()
	if err := client.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := c.TakeOver(ctx, replica); err != nil {
		t.Fatal(err)
	}
	c.AwaitHolder(t, "k", replica)
	primary.Proxy.Drop(replica.Proxy)
	await(t, "the key is lost", func(ctx context.Context) bool {
		n, err := client.Exists(ctx, "k").Result()
		return err == nil && n == 0
	})
}

// TestClockAhead: a node's TIME can be ahead.
func TestClockAhead(t *testing.T) {
	slow(t)
	g := NewReplicated(t, 1, func(nodes []*Node) { nodes[1].SetClockAhead(t, 10*time.Minute) })
	at, err := g.Nodes[1].Client(t).Time(t.Context()).Result()
	if ahead := time.Until(at); err != nil || ahead < 9*time.Minute || ahead > 11*time.Minute {
		t.Errorf("%s ahead, %v", ahead, err)
	}
}
