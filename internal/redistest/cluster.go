package redistest

import (
	"context"
	"os/exec"
	"strings"
)

// Cluster is a Redis Cluster without replicas.
type Cluster struct{ Primaries []*Process }

// NewCluster starts a Cluster of three primaries without replicas and waits until each of
// them reports that it is complete.
func NewCluster(t TB) *Cluster {
	t.Helper()
	need(t, "redis-cli")
	c := &Cluster{}
	create := []string{"--cluster", "create"}
	for range 3 {
		p := Server(t, "--cluster-enabled", "yes")
		c.Primaries = append(c.Primaries, p)
		create = append(create, p.Addr)
	}
	if out, err := exec.Command("redis-cli", append(create, "--cluster-yes")...).CombinedOutput(); err != nil {
		t.Fatalf("redis-cli: %v\n%s", err, out)
	}
	for _, p := range c.Primaries {
		client := p.Client(t)
		await(t, "the Cluster is complete", func(ctx context.Context) bool {
			return strings.Contains(client.ClusterInfo(ctx).Val(), "cluster_state:ok")
		})
	}
	return c
}

// URL is the REDIS_URL of the Cluster. It names two of the primaries; the client discovers
// the third.
func (c *Cluster) URL() string {
	return "redis-cluster://" + c.Primaries[0].Addr + "," + c.Primaries[1].Addr
}
