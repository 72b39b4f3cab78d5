package redistest

import (
	"context"
	"os/exec"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Sharded is a Redis Cluster.
type Sharded struct {
	Primaries []*Process // as they were at the start
	Replicas  []*Process
}

// Cluster starts a Cluster of three primaries without replicas and waits until
// every one of them says that it stands.
func Cluster(t TB) *Sharded {
	t.Helper()
	return cluster(t, 0)
}

// ReplicatedCluster starts a Cluster of three primaries with a replica each, which
// takes a primary's place when that has been silent for two seconds, and waits
// until all know one another and every replica has caught up.
func ReplicatedCluster(t TB) *Sharded {
	t.Helper()
	// A replica may stand in however long its link was down: a busy machine is no
	// reason to leave slots without a primary.
	return cluster(t, 1, "--cluster-node-timeout", "2000", "--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0")
}

// cluster starts a Cluster with so many replicas a primary.
func cluster(t TB, replicas int, args ...string) *Sharded {
	t.Helper()
	need(t, "redis-cli")
	var nodes []*Process
	create := []string{"--cluster", "create"}
	for range 3 * (1 + replicas) {
		p := Server(t, append([]string{"--cluster-enabled", "yes"}, args...)...)
		nodes = append(nodes, p)
		create = append(create, p.Addr)
	}
	create = append(create, "--cluster-replicas", strconv.Itoa(replicas), "--cluster-yes")
	if out, err := exec.Command("redis-cli", create...).CombinedOutput(); err != nil {
		t.Fatalf("redis-cli: %v\n%s", err, out)
	}
	c := &Sharded{}
	for _, p := range nodes {
		client := p.Client(t)
		await(t, "the Cluster stands", func(ctx context.Context) bool {
			return strings.Contains(client.ClusterInfo(ctx).Val(), "cluster_state:ok")
		})
		if replication := client.Info(t.Context(), "replication").Val(); strings.Contains(replication, "role:master") {
			c.Primaries = append(c.Primaries, p)
			continue
		}
		c.Replicas = append(c.Replicas, p)
		await(t, "the replica has caught up", func(ctx context.Context) bool {
			return strings.Contains(client.Info(ctx, "replication").Val(), "master_link_status:up")
		})
	}
	for _, p := range c.Primaries {
		client := p.Client(t)
		await(t, "the primary has its replicas", func(ctx context.Context) bool {
			return strings.Contains(client.Info(ctx, "replication").Val(), "connected_slaves:"+strconv.Itoa(replicas))
		})
	}
	return c
}

// URL is the REDIS_URL of the Cluster. It names two of the primaries: the client
// finds the others.
func (c *Sharded) URL() string {
	return "redis-cluster://" + c.Primaries[0].Addr + "," + c.Primaries[1].Addr
}

// Holder is the address of the node that holds a key, by the word of the first
// replica; empty while that does not know.
func (c *Sharded) Holder(ctx context.Context, key string) string {
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{c.Replicas[0].Addr}})
	defer client.Close()
	holder, err := client.MasterForKey(ctx, key)
	if err != nil {
		return ""
	}
	return holder.Options().Addr
}
