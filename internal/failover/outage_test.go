package failover_test

import (
	"net/http"
	"testing"
	"time"

	"terbayar/internal/redistest"
)

// TestOutage: under load Redis is down for a while. Either it is killed and restarted
// with its append-only file, or it is frozen and then executes all commands that it received
// meanwhile.
func TestOutage(t *testing.T) {
	slow(t)
	kill := func(p *redistest.Process, _ redistest.TB) { p.Kill() }
	for _, row := range []struct {
		name       string
		begin, end func(*redistest.Process, redistest.TB)
		lasts      time.Duration
	}{
		{"killed 1 s", kill, (*redistest.Process).Start, time.Second},
		{"killed 5 s", kill, (*redistest.Process).Start, 5 * time.Second},
		{"killed 60 s", kill, (*redistest.Process).Start, time.Minute}, // longer than asynq's leases
		{"frozen 5 s", (*redistest.Process).Pause, (*redistest.Process).Resume, 5 * time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Server(t)
			e := newEnv(t, server.URL())
			w := e.startLocalWorker()
			orders := e.NewOrderSystem()
			orders.Submit(t.Context(), invoices(60))
			e.awaitLoad(15)

			row.begin(server, t)
			calls, dials, lines := w.redis.calls.Load(), w.redis.dials.Load(), w.log.Lines()
			outage := time.NewTimer(row.lasts)
			if code := e.Status(w.url + "/readyz"); code != http.StatusServiceUnavailable {
				t.Errorf("/readyz answers %d", code)
			}
			if code := e.Status(w.url + "/healthz"); code != http.StatusOK {
				t.Errorf("/healthz answers %d", code)
			}
			<-outage.C
			calls, dials, lines = w.redis.calls.Load()-calls, w.redis.dials.Load()-dials, w.log.Lines()-lines
			t.Logf("%s without Redis: %d calls, %d dials, %d lines logged", row.lasts, calls, dials, lines)
			if seconds := int64(row.lasts.Seconds()); calls > 100*seconds || dials > 500*seconds || lines > 20*int(seconds) {
				t.Error("that is a hot loop")
			}
			row.end(server, t)
			e.requireClean(orders)
			e.requirePaid(orders)
		})
	}
}
