package failover_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"terbayar/internal/redistest"
)

// TestDurabilitySettings: which Redis does for which REDIS_DURABILITY. One that does not
// ends the worker, and enqueue, with exit code 2 and a sentence that says what to change.
func TestDurabilitySettings(t *testing.T) {
	t.Parallel()
	always := []string{}
	everysec := []string{"--appendfsync", "everysec"}
	noFile := []string{"--appendonly", "no"}
	onRewrite := []string{"--no-appendfsync-on-rewrite", "yes"}
	for _, row := range []struct {
		mode    string
		server  []string
		refused string // part of the sentence; empty: it runs
		waitAOF bool   // with WAITAOF it runs
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
			s := newStage(t, server.URL())
			s.env = []string{"REDIS_DURABILITY=" + row.mode}
			refused := row.refused
			if row.waitAOF && server.HasCommand(t, "waitaof") {
				refused = ""
			}
			w := s.start()
			shop := s.newShop("INV", server.URL())
			if refused == "" {
				s.eventually("the worker is ready", 15*time.Second, func() bool { return w.log.has("worker is ready") })
				shop.sell(t.Context(), 4, time.Millisecond)
				s.find(s.listen(), 20*time.Second, shop).clean(t)
				return
			}
			s.eventually("the worker has ended", 15*time.Second, w.hasEnded)
			if code := w.ProcessState.ExitCode(); code != 2 || !w.log.has("REDIS_DURABILITY") || !w.log.has(refused) {
				t.Errorf("exit code %d: %s", code, w.log.String())
			}
			_, text := namedOrder("INV", 1, time.Hour)
			code, out, complaint := shop.enqueue(t.Context(), text)
			if code != 2 || out != "" || !strings.Contains(complaint, "REDIS_DURABILITY") || !strings.Contains(complaint, refused) {
				t.Errorf("enqueue: exit code %d: %s%s", code, out, complaint)
			}
		})
	}
}

// TestWaitAOF: with appendfsync everysec and a server that has WAITAOF every create and
// every claim waits for the disk.
func TestWaitAOF(t *testing.T) {
	t.Parallel()
	server := redistest.Server(t, "--appendfsync", "everysec")
	if !server.HasCommand(t, "waitaof") {
		t.Skip("this redis-server has no WAITAOF: Redis 7.2 and Valkey have")
	}
	s := newStage(t, server.URL(), repeatable)
	heard := s.listen()
	killed := s.startReady()
	s.startReady()
	shop := s.newShop("INV", server.URL())
	var open sync.WaitGroup
	open.Go(func() { shop.sell(t.Context(), 100, 300*time.Millisecond) })
	defer open.Wait()
	s.eventually("the load is on", 20*time.Second, func() bool { return s.sent() >= 20 })
	waited := server.Client(t).Info(t.Context(), "commandstats").Val()
	var moment sync.WaitGroup
	moment.Go(killed.kill)
	moment.Go(server.Kill)
	moment.Wait()
	server.Start(t)
	open.Wait()
	s.find(heard, 60*time.Second, shop).clean(t)
	if !strings.Contains(waited, "cmdstat_waitaof") {
		t.Errorf("nobody has waited for the disk: %s", waited)
	}
}
