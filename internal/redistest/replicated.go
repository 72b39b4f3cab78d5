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

// Node is a redis-server with a proxy in front of it, whose address it announces to clients,
// replicas, Sentinels and other nodes. Process.Addr is the address of the server itself.
type Node struct {
	*Process

	Proxy *Proxy
}

// newNode returns a node that is not started yet.
func newNode(t TB, args ...string) *Node {
	t.Helper()
	need(t, "redis-server")
	addr := freeAddr(t)
	proxy := newProxy(t, addr)
	n := &Node{Proxy: proxy, Process: &Process{Addr: addr, program: "redis-server", args: serverArgs(t, addr, append([]string{
		"--repl-diskless-sync-delay", "0", "--replica-announce-ip", "127.0.0.1", "--replica-announce-port", port(t, proxy.Addr),
	}, args...))}}
	t.Cleanup(n.Kill)
	return n
}

// SetClockAhead makes the node's clock run ahead once it is started.
func (n *Node) SetClockAhead(t TB, by time.Duration) {
	t.Helper()
	// Preload the library directly: with the program faketime in between, Kill would not
	// reach the server.
	found, err := filepath.Glob("/usr/lib/*/faketime/libfaketime.so.1")
	if err != nil || len(found) == 0 {
		t.Skipf("faketime is not installed")
	}
	// libfaketime and the server's jemalloc each need the other one to initialise; libc's
	// malloc in front of jemalloc breaks the circle.
	n.env = append(n.env, "LD_PRELOAD="+found[0]+":libc.so.6", fmt.Sprintf("FAKETIME=%+ds", int(by.Seconds())), "FAKETIME_DONT_FAKE_MONOTONIC=1")
}

// replicate starts a node as a replica, for the first time or after a Kill.
func (n *Node) replicate(t TB, primary *Node) {
	t.Helper()
	args := n.args
	n.args = append(slices.Clone(args), "--replicaof", "127.0.0.1 "+port(t, primary.Proxy.Addr))
	n.Start(t)
	n.args = args
}

// replication returns INFO replication; empty while the node does not answer.
func (n *Node) replication(ctx context.Context) string {
	client := redis.NewClient(&redis.Options{Addr: n.Addr, MaxRetries: -1, ReadTimeout: time.Second, DialTimeout: time.Second})
	defer client.Close()
	return client.Info(ctx, "replication").Val()
}

// awaitSync waits until a replica has caught up with its primary.
func (n *Node) awaitSync(t TB) {
	t.Helper()
	await(t, "the replica has caught up", func(ctx context.Context) bool {
		return strings.Contains(n.replication(ctx), "master_link_status:up")
	})
}

// SentinelMaster is the name of the primary at the Sentinel.
const SentinelMaster = "terbayar"

// Replicated is a primary with replicas and a Sentinel, which promotes a replica when the
// primary has not answered for a second.
type Replicated struct {
	Nodes    []*Node // the first one is the primary at the start
	Sentinel *Process
}

// NewReplicated starts a primary, its replicas and their Sentinel, and waits until the
// Sentinel reports all of them. The edits may change the nodes before they start.
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
		n.awaitSync(t)
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
	// By default Sentinel sends INFO to the nodes every 10 s and tolerates a former primary for 8 s.
	sentinel := redis.NewClient(&redis.Options{Addr: addr})
	defer sentinel.Close()
	if err := sentinel.Do(t.Context(), "SENTINEL", "DEBUG", "info-period", "500", "publish-period", "250").Err(); err != nil {
		t.Fatal(err)
	}
	g.AwaitReplicas(t, replicas)
	return g
}

// AwaitReplicas waits until the Sentinel and the primary report n replicas that have caught
// up.
func (g *Replicated) AwaitReplicas(t TB, n int) {
	t.Helper()
	await(t, fmt.Sprintf("%d replicas", n), func(ctx context.Context) bool { return g.replicas(ctx) == n })
}

// Prefer makes a replica the first choice for promotion, and waits until the Sentinel has read
// the priorities.
func (g *Replicated) Prefer(t TB, preferred *Node) {
	t.Helper()
	priority := func(n *Node) string {
		if n == preferred {
			return "1"
		}
		return "100"
	}
	for _, n := range g.Nodes {
		client := redis.NewClient(&redis.Options{Addr: n.Addr})
		err := client.ConfigSet(t.Context(), "replica-priority", priority(n)).Err()
		_ = client.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	await(t, "the Sentinel has read the priorities", func(ctx context.Context) bool {
		sentinel := g.sentinel()
		defer sentinel.Close()
		known, err := sentinel.Replicas(ctx, SentinelMaster).Result()
		if err != nil {
			return false
		}
		for _, r := range known {
			i := slices.IndexFunc(g.Nodes, func(n *Node) bool { return n.Proxy.Addr == r["ip"]+":"+r["port"] })
			if i < 0 || r["slave-priority"] != priority(g.Nodes[i]) {
				return false
			}
		}
		return len(known) > 0
	})
}

// replicas returns the number of replicas that have caught up; -1 while Sentinel and primary
// disagree.
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

// URL is the REDIS_URL of the current primary, by way of the Sentinel.
func (g *Replicated) URL() string {
	return fmt.Sprintf("redis-sentinel://%s/0?master=%s", g.Sentinel.Addr, SentinelMaster)
}

// Primary returns the node that the Sentinel reports as the primary; nil while the Sentinel
// does not answer.
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

// Failover makes the Sentinel promote a replica although the primary works.
func (g *Replicated) Failover(ctx context.Context) error {
	sentinel := g.sentinel()
	defer sentinel.Close()
	return sentinel.Failover(ctx, SentinelMaster).Err()
}

// AwaitPromotion waits until the Sentinel reports another node as the primary, and that node
// reports the same.
func (g *Replicated) AwaitPromotion(t TB, former *Node) *Node {
	t.Helper()
	var now *Node
	await(t, "another node is the primary", func(ctx context.Context) bool {
		now = g.Primary(ctx)
		return now != nil && now != former && strings.Contains(now.replication(ctx), "role:master")
	})
	return now
}

// Rejoin starts a node after a Kill, as a replica of the current primary.
func (g *Replicated) Rejoin(t TB, n *Node) {
	t.Helper()
	n.replicate(t, g.Primary(t.Context()))
}

// ReplicatedCluster is a Redis Cluster of three primaries with a replica each.
type ReplicatedCluster struct{ Nodes []*Node }

// NewReplicatedCluster starts a Cluster and waits until it is complete and every replica has
// caught up.
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
		await(t, "the Cluster is complete", func(ctx context.Context) bool {
			client := redis.NewClient(&redis.Options{Addr: n.Addr})
			defer client.Close()
			info := n.replication(ctx)
			return strings.Contains(client.ClusterInfo(ctx).Val(), "cluster_state:ok") &&
				(strings.Contains(info, "master_link_status:up") || strings.Contains(info, "connected_slaves:1"))
		})
	}
	return c
}

// URL is the REDIS_URL of the Cluster.
func (c *ReplicatedCluster) URL() string {
	return "redis-cluster://" + c.Nodes[0].Proxy.Addr + "," + c.Nodes[1].Proxy.Addr + "," + c.Nodes[2].Proxy.Addr
}

// Holder returns the primary of a key's slot and its replicas, as all nodes that answer
// report them; nil while they disagree.
func (c *ReplicatedCluster) Holder(ctx context.Context, key string) (primary *Node, replicas []*Node) {
	var agreed []string
	for _, n := range c.Nodes {
		client := redis.NewClient(&redis.Options{Addr: n.Addr, MaxRetries: -1, ReadTimeout: time.Second})
		slot, err := client.ClusterKeySlot(ctx, key).Result()
		var ranges []redis.ClusterSlot
		if err == nil {
			ranges, err = client.ClusterSlots(ctx).Result() //nolint:staticcheck // its successor needs Redis 7
		}
		_ = client.Close()
		if err != nil {
			continue // it is down, or frozen
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
		if agreed != nil && !slices.Equal(agreed, addrs) {
			return nil, nil
		}
		agreed = addrs
	}
	for i, addr := range agreed {
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

// Pair waits until all nodes agree on the primary of a key's slot and its replica.
func (c *ReplicatedCluster) Pair(t TB, key string) (primary, replica *Node) {
	t.Helper()
	await(t, "all nodes agree on the primary of the slot and its replica", func(ctx context.Context) bool {
		holder, replicas := c.Holder(ctx, key)
		if holder == nil || len(replicas) != 1 {
			return false
		}
		primary, replica = holder, replicas[0]
		return true
	})
	return primary, replica
}

// TakeOver makes a replica the primary of its slots without the consent of the others.
func (c *ReplicatedCluster) TakeOver(ctx context.Context, replica *Node) error {
	client := redis.NewClient(&redis.Options{Addr: replica.Addr, MaxRetries: -1})
	defer client.Close()
	return client.Do(ctx, "CLUSTER", "FAILOVER", "TAKEOVER").Err()
}

// AwaitHolder waits until all nodes that answer report a node as the primary of a key's
// slot.
func (c *ReplicatedCluster) AwaitHolder(t TB, key string, want *Node) {
	t.Helper()
	await(t, "the primary of the slot is "+want.Proxy.Addr, func(ctx context.Context) bool {
		now, _ := c.Holder(ctx, key)
		return now == want
	})
}
