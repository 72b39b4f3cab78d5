package redisconn_test

import (
	"net"
	"strconv"
	"testing"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/redisconn"
	"terbayar/internal/redistest"
)

// TestPipelineDuringSlotMigration: of a slot that is being moved, one key has moved already.
// A pipeline whose first command needs both keys fails in that command only, and each of the
// others runs once. go-redis alone runs the second one several times.
func TestPipelineDuringSlotMigration(t *testing.T) {
	c := redistest.NewCluster(t)
	client, err := redisconn.Open(c.URL(), redisconn.Passwords{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	cluster := client.(*redis.ClusterClient)
	ctx := t.Context()
	do := func(node redis.UniversalClient, args ...any) string {
		t.Helper()
		text, err := node.Do(ctx, args...).Text()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return text
	}
	const stays, moves = "{h}stays", "{h}moves"
	do(client, "SET", stays, 0)
	do(client, "SET", moves, 0)
	do(client, "SET", "elsewhere", 0)

	source, err := cluster.MasterForKey(ctx, stays)
	if err != nil {
		t.Fatal(err)
	}
	var target redis.UniversalClient
	var host, port string
	for _, p := range c.Primaries {
		if p.Addr != source.Options().Addr {
			target = p.Client(t)
			host, port, _ = net.SplitHostPort(p.Addr)
		}
	}
	slot := cluster.ClusterKeySlot(ctx, stays).Val()
	do(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", do(source, "CLUSTER", "MYID"))
	do(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", do(target, "CLUSTER", "MYID"))
	do(source, "MIGRATE", host, port, moves, 0, 5000)

	var both *redis.SliceCmd
	var counts []*redis.IntCmd
	_, err = client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		both = pipe.MGet(ctx, stays, moves)
		for _, key := range []string{moves, stays, "elsewhere"} {
			counts = append(counts, pipe.Incr(ctx, key))
		}
		return nil
	})
	if !redis.IsTryAgainError(both.Err()) || !redis.IsTryAgainError(err) {
		t.Errorf("MGET returned %v, the pipeline %v, want TRYAGAIN", both.Err(), err)
	}
	for _, count := range counts {
		if count.Val() != 1 || count.Err() != nil {
			t.Errorf("%v returned %d, %v", count.Args(), count.Val(), count.Err())
		}
		key := count.Args()[1].(string)
		if text := do(client, "GET", key); text != "1" {
			t.Errorf("%s is %s: the command ran %s times", key, text, text)
		}
	}

	// The slot has moved, and the client does not know yet.
	do(source, "MIGRATE", host, port, stays, 0, 5000)
	do(target, "CLUSTER", "SETSLOT", slot, "NODE", do(target, "CLUSTER", "MYID"))
	do(source, "CLUSTER", "SETSLOT", slot, "NODE", do(target, "CLUSTER", "MYID"))
	_, err = client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for range 100 {
			pipe.Incr(ctx, stays)
		}
		return nil
	})
	if n, _ := strconv.Atoi(do(client, "GET", stays)); err != nil || n != 101 {
		t.Errorf("%s is %d after 100 more, %v", stays, n, err)
	}
}
