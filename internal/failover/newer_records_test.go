package failover_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/redistest"
)

// TestNewerRecords: records of the next version are in the same sets as ours, and have a
// task. The worker does not change them and spends no attempt on them, and processes ours
// as usual: it looks payments up at AM and finds their outcomes.
func TestNewerRecords(t *testing.T) {
	slow(t)
	server := redistest.Server(t)
	e := newEnv(t, server.URL(), func(cfg *gatewaysim.Config) {
		// The outcome of every other AM payment is unknown at first.
		cfg.Faults = append([]gatewaysim.FaultRule{{Fault: gatewaysim.FaultLostAfter, Operation: gatewaysim.AMCreate, Probability: 0.5}}, cfg.Faults...)
	})
	ctx := t.Context()
	// Four payments of ours, queued and with a task, become records of the next version.
	all := invoices(44)
	orders := e.NewOrderSystem()
	orders.Submit(ctx, all[:4])
	newer := map[string]string{}
	for _, key := range orders.Acknowledged() {
		name := "{terbayar:events}:payment:" + key.String()
		text := "4" + strings.TrimPrefix(e.Redis.Get(ctx, name).Val(), "3")
		if err := e.Redis.Set(ctx, name, text, 0).Err(); err != nil {
			t.Fatal(err)
		}
		newer[name] = text
		orders.Forget(key)
	}
	// Others are in every set, due long ago.
	for _, g := range []string{"amdigipay", "paydia"} {
		for i, status := range []string{"queued", "submitting", "verifying", "on_processing", "expired", "needs_review"} {
			id := "NEWER-" + status
			name := "{terbayar:events}:payment:" + g + ":" + id
			newer[name] = "4 " + status + " 7 whatever it is"
			_, err := e.Redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
				pipe.Set(ctx, name, newer[name], 0)
				for _, set := range []string{"open", "unknown", "sending", "queued", "late", "review"} {
					pipe.ZAdd(ctx, "{terbayar:events}:"+set+":"+g, redis.Z{Score: float64(i + 1), Member: id})
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	w := e.Worker()
	begun := time.Now()
	orders.SubmitSlowly(ctx, all[4:], 100*time.Millisecond)
	e.requireClean(orders)
	e.Eventually("there was time for five polls", func() bool { return time.Since(begun) > 5*time.Second })
	for name, was := range newer {
		if is := e.Redis.Get(ctx, name).Val(); is != was {
			t.Errorf("%s was %v and is %v", name, was, is)
		}
	}
	if n := e.Sim.Requests(gatewaysim.AMList); n == 0 {
		t.Error("no payment was looked up at AM")
	}
	if lines := w.Stderr.Lines(); lines > 60*int(time.Since(begun).Seconds()+1) {
		t.Error(strconv.Itoa(lines) + " lines were logged, want at most 60 a second")
	}
}
