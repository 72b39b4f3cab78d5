package failover_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
)

// TestSlotMigration: under load the slot that holds the ledger moves to another primary of
// the Cluster, and for a while half of its keys are at each of them. The workers wait: no
// attempt is spent, and the log is not flooded.
func TestSlotMigration(t *testing.T) {
	slow(t)
	c := redistest.NewReplicatedCluster(t)
	e := newEnv(t, c.URL())
	w := e.Worker()
	orders := e.NewOrderSystem()
	var submitting sync.WaitGroup
	submitting.Go(func() { orders.SubmitSlowly(t.Context(), invoices(200), 200*time.Millisecond) })
	defer submitting.Wait()
	e.awaitLoad(20)

	from, _ := c.Pair(t, ledger.DefaultStream)
	to, _ := c.Pair(t, "asynq:{paydia}") // any other primary will do
	for _, key := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		if to != from {
			break
		}
		to, _ = c.Pair(t, key)
	}
	m := newMigration(t, ledger.DefaultStream, from, to)
	m.begin()
	m.move(0.5)
	warnings := func() int {
		log := w.Stderr.String()
		return strings.Count(log, `"level":"ERROR"`) + strings.Count(log, `"level":"WARN"`)
	}
	lines := warnings()
	half := time.NewTimer(4 * time.Second)
	<-half.C
	lines = warnings() - lines
	if lines > 20 {
		t.Errorf("%d warnings and errors in 4 s: %s", lines, w.Stderr.Tail())
	}
	m.move(1)
	m.end(c)
	e.awaitSends()
	submitting.Wait()
	e.requireClean(orders)
	for _, key := range orders.Acknowledged() {
		r := e.read(key)
		if len(r.Attempts) == 0 || r.Status != payment.Paid {
			t.Errorf("%s: %s, %+v", key, r.Status, r.Attempts)
		}
		for i, a := range r.Attempts {
			if (a.Kind == payment.KindSubmit) != (i == 0) {
				t.Errorf("%s: an attempt was spent: %+v", key, r.Attempts)
				break
			}
		}
	}
	t.Logf("%d warnings and errors while half the keys had moved; %d lines submitted again", lines, orders.Retries())
}

// migration moves the slot of a key from one primary to another, as resharding does.
type migration struct {
	testing.TB

	key      string
	slot     int64
	from, to *redistest.Node
	source   redis.UniversalClient
	target   redis.UniversalClient
}

func newMigration(t *testing.T, key string, from, to *redistest.Node) *migration {
	t.Helper()
	m := &migration{TB: t, key: key, from: from, to: to, source: from.Client(t), target: to.Client(t)}
	var err error
	if m.slot, err = m.source.ClusterKeySlot(t.Context(), key).Result(); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *migration) do(client redis.UniversalClient, args ...any) string {
	m.Helper()
	text, err := client.Do(m.Context(), args...).Text()
	if err != nil {
		m.Fatalf("%v: %v", args, err)
	}
	return text
}

// begin marks the slot as moving at both primaries.
func (m *migration) begin() {
	m.Helper()
	m.do(m.target, "CLUSTER", "SETSLOT", m.slot, "IMPORTING", m.do(m.source, "CLUSTER", "MYID"))
	m.do(m.source, "CLUSTER", "SETSLOT", m.slot, "MIGRATING", m.do(m.target, "CLUSTER", "MYID"))
}

// move moves a share of the keys that are left.
func (m *migration) move(share float64) {
	m.Helper()
	n := m.source.ClusterCountKeysInSlot(m.Context(), int(m.slot)).Val()
	keys, err := m.source.ClusterGetKeysInSlot(m.Context(), int(m.slot), int(float64(n)*share)+1).Result()
	if err != nil {
		m.Fatal(err)
	}
	host, port, _ := strings.Cut(m.to.Addr, ":")
	for _, key := range keys {
		m.do(m.source, "MIGRATE", host, port, key, 0, 5000)
	}
	if share == 1 && m.source.ClusterCountKeysInSlot(m.Context(), int(m.slot)).Val() > 0 {
		m.move(1)
	}
}

// end assigns the slot to its new primary, and waits until all nodes report that.
func (m *migration) end(c *redistest.ReplicatedCluster) {
	m.Helper()
	id := m.do(m.target, "CLUSTER", "MYID")
	m.do(m.target, "CLUSTER", "SETSLOT", m.slot, "NODE", id)
	m.do(m.source, "CLUSTER", "SETSLOT", m.slot, "NODE", id)
	c.AwaitHolder(m, m.key, m.to)
}
