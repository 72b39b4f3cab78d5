package redistest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// SentinelMaster is the name by which a Watched primary is known to its Sentinel.
const SentinelMaster = "terbayar"

// Watched is a primary and its replica, watched by a Sentinel that makes the
// replica the primary when the primary has been silent for a second.
type Watched struct {
	Primary  *Process
	Replica  *Process
	Sentinel *Process
}

// Sentinel starts a primary, a replica and a Sentinel, and waits until the three
// know one another. More arguments for both servers may follow.
func Sentinel(t TB, args ...string) *Watched {
	t.Helper()
	need(t, "redis-sentinel")
	args = append([]string{"--repl-diskless-sync-delay", "0"}, args...)
	w := &Watched{Primary: Server(t, args...)}
	primary := "127.0.0.1 " + port(t, w.Primary.Addr)
	w.Replica = Server(t, append(args, "--replicaof", primary)...)
	replica := w.Replica.Client(t)
	await(t, "the replica has caught up", func(ctx context.Context) bool {
		return strings.Contains(replica.Info(ctx, "replication").Val(), "master_link_status:up")
	})

	addr := freeAddr(t)
	// A file of the test's own: Sentinel writes what it learns into it.
	file := filepath.Join(t.TempDir(), "sentinel.conf")
	config := fmt.Sprintf(`bind 127.0.0.1
port %[1]s
sentinel monitor %[2]s %[3]s 1
sentinel down-after-milliseconds %[2]s 1000
sentinel failover-timeout %[2]s 5000
`, port(t, addr), SentinelMaster, primary)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	w.Sentinel = start(t, addr, "redis-sentinel", file)
	sentinel := redis.NewSentinelClient(&redis.Options{Addr: addr})
	defer sentinel.Close()
	await(t, "the Sentinel knows the replica", func(ctx context.Context) bool {
		replicas, err := sentinel.Replicas(ctx, SentinelMaster).Result()
		return err == nil && len(replicas) == 1 && replicas[0]["master-link-status"] == "ok"
	})
	return w
}

// URL is the REDIS_URL of whichever of the two is the primary. It names a
// Sentinel that is not there first: one of several may always be away.
func (w *Watched) URL(t TB) string {
	return fmt.Sprintf("redis-sentinel://%s,%s/0?master=%s", freeAddr(t), w.Sentinel.Addr, SentinelMaster)
}

// PrimaryNow is the address that the Sentinel tells clients; empty while it does
// not answer.
func (w *Watched) PrimaryNow(ctx context.Context) string {
	sentinel := redis.NewSentinelClient(&redis.Options{Addr: w.Sentinel.Addr, DialTimeout: time.Second})
	defer sentinel.Close()
	addr, err := sentinel.GetMasterAddrByName(ctx, SentinelMaster).Result()
	if err != nil || len(addr) != 2 {
		return ""
	}
	return addr[0] + ":" + addr[1]
}
