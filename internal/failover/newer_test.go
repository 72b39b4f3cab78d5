package failover_test

import (
	"maps"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/redistest"
)

// TestNewerRecords: records of the next version stand beside ours, in the sets that are
// worked through, and have a task. They are left as they are, nothing is spent on
// them, and what is ours goes on: AM is asked, and ends are found.
func TestNewerRecords(t *testing.T) {
	t.Parallel()
	server := redistest.Server(t)
	s := newStage(t, server.URL(), repeatable, func(cfg *gatewaysim.Config) {
		// Every other AM payment is unknown at first, and has to be looked up.
		cfg.Faults = append([]gatewaysim.FaultRule{{Fault: gatewaysim.FaultLostAfter, Operation: gatewaysim.AMCreate, Probability: 0.5}}, cfg.Faults...)
	})
	heard := s.listen()
	ctx := t.Context()
	// A payment of ours is made into one of theirs: queued, with its task.
	shop := s.newShop("INV", server.URL())
	shop.sell(ctx, 4, time.Millisecond)
	newer := map[string]map[string]string{}
	for _, key := range shop.takenNow() {
		name := "{terbayar:events}:payment:" + key.String()
		if err := s.redis.HSet(ctx, name, "v", "3").Err(); err != nil {
			t.Fatal(err)
		}
		newer[name] = nil
		delete(shop.taken, key)
	}
	// And some stand in every set that somebody works through, due long ago.
	for _, g := range []string{"amdigipay", "paydia"} {
		for i, status := range []string{"queued", "submitting", "verifying", "on_processing", "expired", "needs_review"} {
			id := "NEWER-" + status
			name := "{terbayar:events}:payment:" + g + ":" + id
			fields := map[string]any{"v": "3", "status": status, "rev": "7", "whatever": "it is", "lease": "1"}
			_, err := s.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
				pipe.HSet(ctx, name, fields)
				for _, set := range []string{"open", "unknown", "sending", "queued", "late", "review"} {
					pipe.ZAdd(ctx, "{terbayar:events}:"+set+":"+g, redis.Z{Score: float64(i + 1), Member: id})
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			newer[name] = nil
		}
	}
	for name := range newer {
		newer[name] = s.redis.HGetAll(ctx, name).Val()
	}
	w := s.startReady()
	begun := time.Now()
	shop.sell(ctx, 40, 100*time.Millisecond)
	s.find(heard, 60*time.Second, shop).clean(t)
	s.eventually("some polls have passed", 10*time.Second, func() bool { return time.Since(begun) > 5*time.Second })
	for name, was := range newer {
		if is := s.redis.HGetAll(ctx, name).Val(); !maps.Equal(is, was) {
			t.Errorf("%s was %v and is %v", name, was, is)
		}
	}
	if n := s.sim.Requests(gatewaysim.AMList); n == 0 {
		t.Error("AM was never asked")
	}
	if lines := w.log.lines(); lines > 60*int(time.Since(begun).Seconds()+1) {
		t.Error(strconv.Itoa(lines) + " lines: that is a flood")
	}
}
