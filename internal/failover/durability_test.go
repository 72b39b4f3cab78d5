package failover_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"terbayar/internal/redistest"
	"terbayar/internal/testenv/programs"
)

// TestDurabilitySettings: REDIS_DURABILITY decides which Redis is accepted. With any other,
// worker and enqueue end with exit code 2 and an error that names the setting to change.
func TestDurabilitySettings(t *testing.T) {
	slow(t)
	always := []string{}
	everysec := []string{"--appendfsync", "everysec"}
	noFile := []string{"--appendonly", "no"}
	onRewrite := []string{"--no-appendfsync-on-rewrite", "yes"}
	for _, row := range []struct {
		mode    string
		server  []string
		refused string // part of the error; empty: accepted
		waitAOF bool   // accepted if the server has WAITAOF
	}{
		{"auto", always, "", false},
		{"auto", everysec, "appendfsync always", true},
		{"auto", onRewrite, "no-appendfsync-on-rewrite", true},
		{"auto", noFile, "appendonly yes", false},
		{"replicas", always, "replica", false},
		{"trusted", noFile, "", false},
		{"none", noFile, "", false},
	} {
		t.Run(row.mode+" "+strings.Join(row.server, " "), func(t *testing.T) {
			t.Parallel()
			server := redistest.Server(t, row.server...)
			e := newEnv(t, server.URL())
			e.Settings["REDIS_DURABILITY"] = row.mode
			if row.refused == "" || row.waitAOF && server.HasCommand(t, "waitaof") {
				e.Worker()
				orders := e.NewOrderSystem()
				orders.Submit(t.Context(), invoices(4))
				e.requireClean(orders)
				return
			}
			w := e.StartWorker()
			if code := w.Exit(); code != 2 || !w.Stderr.Has("REDIS_DURABILITY") || !w.Stderr.Has(row.refused) {
				t.Errorf("exit code %d: %s", code, w.Stderr.String())
			}
			r := e.Run("enqueue", []string{"create"}, programs.Input(invoices(1)))
			if r.Code != 2 || r.Stdout != "" || !strings.Contains(r.Stderr, "REDIS_DURABILITY") || !strings.Contains(r.Stderr, row.refused) {
				t.Errorf("enqueue: %+v", r)
			}
		})
	}
}

// TestWaitAOF: with appendfsync everysec and a server that has WAITAOF, every create and
// every claim waits for the disk.
func TestWaitAOF(t *testing.T) {
	slow(t)
	server := redistest.Server(t, "--appendfsync", "everysec")
	if !server.HasCommand(t, "waitaof") {
		t.Skip("this redis-server has no WAITAOF; Redis 7.2 and Valkey have")
	}
	e := newEnv(t, server.URL())
	e.failover = true // events that were not fsynced may be lost, as in a failover
	killed := e.Worker()
	e.Worker()
	orders := e.NewOrderSystem()
	var submitting sync.WaitGroup
	submitting.Go(func() { orders.SubmitSlowly(t.Context(), invoices(100), 300*time.Millisecond) })
	defer submitting.Wait()
	e.awaitLoad(20)
	stats := server.Client(t).Info(t.Context(), "commandstats").Val()
	var kills sync.WaitGroup
	kills.Go(killed.Kill)
	kills.Go(server.Kill)
	kills.Wait()
	server.Start(t)
	submitting.Wait()
	e.requireClean(orders)
	if !strings.Contains(stats, "cmdstat_waitaof") {
		t.Errorf("nothing has waited for the disk: %s", stats)
	}
}
