package redistest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Node is a redis-server that clients, replicas, Sentinels and the other nodes of a
// Cluster know by its front. What goes to Process.Addr goes past the front.
type Node struct {
	*Process

	Proxy *Proxy
}

// newNode prepares a node, which is not started yet.
func newNode(t TB, args ...string) *Node {
	t.Helper()
	need(t, "redis-server")
	addr := freeAddr(t)
	front := newFront(t, addr)
	n := &Node{Proxy: front, Process: &Process{Addr: addr, program: "redis-server", args: serverArgs(t, addr, append([]string{
		"--repl-diskless-sync-delay", "0", "--replica-announce-ip", "127.0.0.1", "--replica-announce-port", port(t, front.Addr),
	}, args...))}}
	t.Cleanup(n.Kill)
	return n
}

// SetClockAhead lets the node's clock, once it is started, be ahead of everybody's.
func (n *Node) SetClockAhead(t TB, by time.Duration) {
	t.Helper()
	// What the program faketime would preload; itself it would stand before the server.
	found, err := filepath.Glob("/usr/lib/*/faketime/libfaketime.so.1")
	if err != nil || len(found) == 0 {
		t.Skipf("faketime is not installed")
	}
	// libfaketime and the server's jemalloc need each other to get ready: with libc's
	// malloc before jemalloc's there is a first one.
	n.env = append(n.env, "LD_PRELOAD="+found[0]+":libc.so.6", fmt.Sprintf("FAKETIME=%+ds", int(by.Seconds())), "FAKETIME_DONT_FAKE_MONOTONIC=1")
}

// replicate starts a node as a replica, again after a Kill.
func (n *Node) replicate(t TB, primary *Node) {
	t.Helper()
	args := n.args
	n.args = append(slices.Clone(args), "--replicaof", "127.0.0.1 "+port(t, primary.Proxy.Addr))
	n.Start(t)
	n.args = args
}

// replication is what a node says of its replication; empty while it does not answer.
func (n *Node) replication(ctx context.Context) string {
	client := redis.NewClient(&redis.Options{Addr: n.Addr, MaxRetries: -1, ReadTimeout: time.Second, DialTimeout: time.Second})
	defer client.Close()
	return client.Info(ctx, "replication").Val()
}

// inStep waits until a replica has all that its primary had.
func (n *Node) inStep(t TB) {
	t.Helper()
	await(t, "the replica has caught up", func(ctx context.Context) bool {
		return strings.Contains(n.replication(ctx), "master_link_status:up")
	})
}

// Prefer makes a replica the one that is promoted, where there are several, or one like
// the others again. A Sentinel hears of it within a second.
func (n *Node) Prefer(t TB, preferred bool) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: n.Addr})
	defer client.Close()
	priority := "100"
	if preferred {
		priority = "1"
	}
	if err := client.ConfigSet(t.Context(), "replica-priority", priority).Err(); err != nil {
		t.Fatal(err)
	}
}

// SentinelMaster is the name by which a Group is known to its Sentinel.
const SentinelMaster = "terbayar"

// Replicated is a primary with its replicas, whose Sentinel makes one of them the primary
// when that has been silent for a second.
type Replicated struct {
	Nodes    []*Node // the first one is the primary at the start
	Sentinel *Process
}

// NewReplicated starts a primary with so many replicas and their Sentinel, and waits until
// all know one another. A clock of the last replica's may be ahead.
func NewReplicated(t TB, replicas int, edits ...func(nodes []*Node)) *Replicated {
	t.Helper()
	need(t, "redis-sentinel")
	g := &Replicated{}
	for range 1 + replicas {
		g.Nodes = append(g.Nodes, newNode(t))
	}
	for _, edit := range edits {
		edit(g.Nodes)
	}
	g.Nodes[0].Start(t)
	for _, n := range g.Nodes[1:] {
		n.replicate(t, g.Nodes[0])
	}
	for _, n := range g.Nodes[1:] {
		n.inStep(t)
	}
	addr := freeAddr(t)
	file := filepath.Join(t.TempDir(), "sentinel.conf")
	config := fmt.Sprintf(`bind 127.0.0.1
port %[1]s
sentinel monitor %[2]s 127.0.0.1 %[3]s 1
sentinel down-after-milliseconds %[2]s 1000
sentinel failover-timeout %[2]s 3000
`, port(t, addr), SentinelMaster, port(t, g.Nodes[0].Proxy.Addr))
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	g.Sentinel = start(t, addr, "redis-sentinel", file)
	// It looks around every 10 s and lets a former primary be one for 8 s more: for a
	// test a second is long enough.
	sentinel := redis.NewClient(&redis.Options{Addr: addr})
	defer sentinel.Close()
	if err := sentinel.Do(t.Context(), "SENTINEL", "DEBUG", "info-period", "500", "publish-period", "250").Err(); err != nil {
		t.Fatal(err)
	}
	g.AwaitReplicas(t, replicas)
	return g
}

// AwaitReplicas waits until the Sentinel and the primary have so many replicas that
// are in step with the primary.
func (g *Replicated) AwaitReplicas(t TB, n int) {
	t.Helper()
	await(t, fmt.Sprintf("%d replicas", n), func(ctx context.Context) bool { return g.replicas(ctx) == n })
}

// replicas counts what AwaitReplicas waits for.
func (g *Replicated) replicas(ctx context.Context) int {
	sentinel := g.sentinel()
	defer sentinel.Close()
	known, err := sentinel.Replicas(ctx, SentinelMaster).Result()
	primary := g.Primary(ctx)
	if err != nil || primary == nil {
		return -1
	}
	up := 0
	for _, r := range known {
		if r["flags"] == "slave" && r["master-link-status"] == "ok" {
			up++
		}
	}
	if strings.Count(primary.replication(ctx), "state=online") != up {
		return -1
	}
	return up
}

func (g *Replicated) sentinel() *redis.SentinelClient {
	return redis.NewSentinelClient(&redis.Options{Addr: g.Sentinel.Addr, DialTimeout: time.Second})
}

// URL is the REDIS_URL of whichever node is the primary.
func (g *Replicated) URL() string {
	return fmt.Sprintf("redis-sentinel://%s/0?master=%s", g.Sentinel.Addr, SentinelMaster)
}

// Primary is the node that the Sentinel tells clients to use; nil while it does not
// answer.
func (g *Replicated) Primary(ctx context.Context) *Node {
	sentinel := g.sentinel()
	defer sentinel.Close()
	addr, err := sentinel.GetMasterAddrByName(ctx, SentinelMaster).Result()
	if err != nil || len(addr) != 2 {
		return nil
	}
	i := slices.IndexFunc(g.Nodes, func(n *Node) bool { return n.Proxy.Addr == addr[0]+":"+addr[1] })
	if i < 0 {
		return nil
	}
	return g.Nodes[i]
}

// Failover tells the Sentinel to promote a replica now, though the primary is well.
func (g *Replicated) Failover(ctx context.Context) error {
	sentinel := g.sentinel()
	defer sentinel.Close()
	return sentinel.Failover(ctx, SentinelMaster).Err()
}

// AwaitPromotion waits until the Sentinel tells clients to use another node, and that
// says of itself that it is a primary.
func (g *Replicated) AwaitPromotion(t TB, former *Node) *Node {
	t.Helper()
	var now *Node
	await(t, "another node is the primary", func(ctx context.Context) bool {
		now = g.Primary(ctx)
		return now != nil && now != former && strings.Contains(now.replication(ctx), "role:master")
	})
	return now
}

// Rejoin starts a node that was killed as a replica of the present primary.
func (g *Replicated) Rejoin(t TB, n *Node) {
	t.Helper()
	n.replicate(t, g.Primary(t.Context()))
}

// ReplicatedCluster is a Redis Cluster of three primaries with a replica each.
type ReplicatedCluster struct{ Nodes []*Node }

// NewReplicatedCluster starts a Cluster and waits until all its nodes know one another and every
// replica has caught up.
func NewReplicatedCluster(t TB) *ReplicatedCluster {
	t.Helper()
	need(t, "redis-cli")
	c := &ReplicatedCluster{}
	create := []string{"--cluster", "create"}
	for range 6 {
		n := newNode(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-replica-validity-factor", "0")
		n.args = append(n.args, "--cluster-announce-ip", "127.0.0.1", "--cluster-announce-port", port(t, n.Proxy.Addr))
		n.Start(t)
		c.Nodes = append(c.Nodes, n)
		create = append(create, n.Addr)
	}
	create = append(create, "--cluster-replicas", "1", "--cluster-yes")
	if out, err := exec.Command("redis-cli", create...).CombinedOutput(); err != nil {
		t.Fatalf("redis-cli: %v\n%s", err, out)
	}
	for _, n := range c.Nodes {
		await(t, "the Cluster stands", func(ctx context.Context) bool {
			client := redis.NewClient(&redis.Options{Addr: n.Addr})
			defer client.Close()
			said := n.replication(ctx)
			return strings.Contains(client.ClusterInfo(ctx).Val(), "cluster_state:ok") &&
				(strings.Contains(said, "master_link_status:up") || strings.Contains(said, "connected_slaves:1"))
		})
	}
	return c
}

// URL is the REDIS_URL of the Cluster.
func (c *ReplicatedCluster) URL() string {
	return "redis-cluster://" + c.Nodes[0].Proxy.Addr + "," + c.Nodes[1].Proxy.Addr + "," + c.Nodes[2].Proxy.Addr
}

// Holder is the primary of a key's slot, by the word of the nodes that live, and its
// replicas; nil while they do not agree.
func (c *ReplicatedCluster) Holder(ctx context.Context, key string) (primary *Node, replicas []*Node) {
	var said []string
	for _, n := range c.Nodes {
		client := redis.NewClient(&redis.Options{Addr: n.Addr, MaxRetries: -1, ReadTimeout: time.Second})
		slot, err := client.ClusterKeySlot(ctx, key).Result()
		var ranges []redis.ClusterSlot
		if err == nil {
			ranges, err = client.ClusterSlots(ctx).Result() //nolint:staticcheck // its successor needs Redis 7
		}
		_ = client.Close()
		if err != nil {
			continue // it is dead, or frozen
		}
		i := slices.IndexFunc(ranges, func(r redis.ClusterSlot) bool { return int64(r.Start) <= slot && slot <= int64(r.End) })
		if i < 0 {
			return nil, nil
		}
		var addrs []string
		for _, r := range ranges[i].Nodes {
			addrs = append(addrs, r.Addr)
		}
		slices.Sort(addrs[1:])
		if said != nil && !slices.Equal(said, addrs) {
			return nil, nil
		}
		said = addrs
	}
	for i, addr := range said {
		n := c.at(addr)
		if i == 0 {
			primary = n
		} else {
			replicas = append(replicas, n)
		}
	}
	return primary, replicas
}

func (c *ReplicatedCluster) at(addr string) *Node {
	i := slices.IndexFunc(c.Nodes, func(n *Node) bool { return n.Proxy.Addr == addr })
	if i < 0 {
		return nil
	}
	return c.Nodes[i]
}

// Pair waits until all nodes agree who holds a key, and who its one replica is.
func (c *ReplicatedCluster) Pair(t TB, key string) (primary, replica *Node) {
	t.Helper()
	await(t, "all nodes know the holder and its replica", func(ctx context.Context) bool {
		holder, replicas := c.Holder(ctx, key)
		if holder == nil || len(replicas) != 1 {
			return false
		}
		primary, replica = holder, replicas[0]
		return true
	})
	return primary, replica
}

// TakeOver makes a replica the primary of its slots, whatever its primary thinks.
func (c *ReplicatedCluster) TakeOver(ctx context.Context, replica *Node) error {
	client := redis.NewClient(&redis.Options{Addr: replica.Addr, MaxRetries: -1})
	defer client.Close()
	return client.Do(ctx, "CLUSTER", "FAILOVER", "TAKEOVER").Err()
}

// AwaitHolder waits until all nodes that live say that a node holds a key.
func (c *ReplicatedCluster) AwaitHolder(t TB, key string, want *Node) {
	t.Helper()
	await(t, "the slot is held by "+want.Proxy.Addr, func(ctx context.Context) bool {
		now, _ := c.Holder(ctx, key)
		return now == want
	})
}
